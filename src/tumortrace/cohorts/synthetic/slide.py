"""A synthetic whole slide: a pyramidal TIFF with its tumour outlines, from the same tissue as the patches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from tumortrace.cohorts.synthetic.folder import PROCEDURE, is_record, write_png
from tumortrace.cohorts.synthetic.shapes import Outline, draw_outline, fill
from tumortrace.cohorts.synthetic.tissue import (
    SCANNERS,
    Density,
    Mask,
    Plan,
    colour,
    draw_stain,
    lobule,
    render,
    smooth_noise,
)
from tumortrace.errors import CohortError
from tumortrace.images.decoding import IMAGE_SUFFIXES
from tumortrace.records.data import SyntheticRecord
from tumortrace.records.files import replacing, write_json

SHAPE = (2048, 3072)  # rows and columns at 1 um per pixel
_LEVELS = 4
_MASK_STEP = 8


def write_slide(out: Path, seed: int) -> Path:
    """Write one slide and what is known of it.

    Args:
        out: A name ending in .tif or .tiff, or a folder in which `slide.tif` is made.
        seed: Seed.

    Returns:
        The TIFF file (2048 rows, 3072 columns, 1 um per pixel, four levels). Beside it, with the same stem: `.geojson`
        with the true tumour outlines in pixels of level 0 as QuPath reads them, `_mask.png` (0, 255) with one pixel
        for 8x8, `.json` with the record, written last.

    Raises:
        CohortError: When `out` names another kind of image, or one of these files is there and was not written by
            this function.
    """
    if out.suffix.lower() in IMAGE_SUFFIXES and out.suffix.lower() not in (".tif", ".tiff") and not out.is_dir():
        raise CohortError(f"a slide as {out.suffix}", where=out, expected="a name ending in .tif, or a folder")
    target = out if out.suffix.lower() in (".tif", ".tiff") else out / "slide.tif"
    geojson, mask, record = (target.with_name(target.stem + end) for end in (".geojson", "_mask.png", ".json"))
    taken = [path for path in (target, geojson, mask) if path.exists()]
    if (taken or record.exists()) and not is_record(record):
        raise CohortError(
            "there already, and not a synthetic slide",
            where=(taken or [record])[0],
            expected="a name not in use",
            remedy="choose another name; nothing was changed",
        )
    made_by = SyntheticRecord(layout="synthetic", kind="slide", resolution=1.0, seed=seed, procedure=PROCEDURE)
    image, tumour, outlines = draw_slide(seed)
    made_by.model_copy(update={"complete": False}).write_file(record)
    write_pyramid(target, image)
    write_json(geojson, outline_features(outlines))
    with replacing(mask) as temporary:
        write_png(temporary, tumour[::_MASK_STEP, ::_MASK_STEP].astype(np.uint8) * np.uint8(255))
    made_by.model_copy(update={"complete": True, "tumour_fraction": float(tumour.mean())}).write_file(record)
    return target


def is_whole_slide(target: Path) -> bool:
    """Whether `write_slide` has finished writing the slide `target`."""
    record = SyntheticRecord.recognise_file(target.with_name(target.stem + ".json"))
    return target.is_file() and record is not None and record.layout == "synthetic" and bool(record.complete)


def draw_slide(seed: int) -> tuple[NDArray[np.uint8], Mask, list[Outline]]:
    """The picture of a slide, its exact tumour mask and the outlines of its tumour islands.

    Returns:
        uint8 (2048, 3072, 3) RGB, bool (2048, 3072), and outlines as float64 (n, 2) rows and columns.
    """
    rng = np.random.default_rng([seed, 5])
    stain = draw_stain(rng, SCANNERS[seed % len(SCANNERS)])
    centre = (SHAPE[0] / 2, SHAPE[1] / 2)
    border = draw_outline(rng, (0, 0), 0.44 * SHAPE[0], roughness=0.12) * (1, SHAPE[1] / SHAPE[0] * 0.95)
    tissue = fill([border + centre], SHAPE)
    tumour, outlines = _islands(rng, tissue)
    reactive = fill([draw_outline(rng, tuple(rng.uniform((300, 400), (1750, 2670))), 60) for _ in range(4)], SHAPE)
    reactive &= tissue & ~tumour
    plan = Plan(
        tissue=tissue,
        fat=(smooth_noise(rng, SHAPE, 420) > 0.75) & ~tumour & ~reactive,
        lymphoid=follicles(rng, SHAPE, (200, 300), 14),
        glands=lobules(rng, SHAPE, (150, 250), 32),
        reactive=reactive,
        tumour=tumour,
        grade=rng.uniform(0.35, 0.9),
        cellularity=rng.uniform(0.75, 1),
    )
    haematoxylin, eosin = render(plan, rng)
    return colour(haematoxylin, eosin, stain, rng, defocus=0.2), tumour, outlines


def _islands(rng: np.random.Generator, tissue: Mask) -> tuple[Mask, list[Outline]]:
    """Six islands inside the tissue that do not touch one another, large ones first."""
    tumour, outlines = np.zeros(SHAPE, bool), []
    for radius in rng.uniform((240, 170, 120, 80, 50, 30), (300, 230, 160, 110, 70, 40)):
        for _ in range(200):
            outline = draw_outline(rng, tuple(rng.uniform((0, 0), SHAPE)), radius)
            if (outline < 0).any() or (outline > np.array(SHAPE) - 1).any():
                continue
            row, column = outline.astype(int).T
            if not tissue[row, column].all() or tumour[row, column].any():
                continue
            island = fill([outline], SHAPE)
            if not tumour[island].any():
                tumour |= island
                outlines.append(outline)
                break
    return tumour, outlines


def follicles(rng: np.random.Generator, shape: tuple[int, int], margin: tuple[int, int], count: int) -> Density:
    """Clusters of lymphocytes, their middles no closer to the edges than the margin (rows and columns)."""
    lymphoid = np.zeros(shape, np.float32)
    for row, column in rng.uniform(margin, (shape[0] - margin[0], shape[1] - margin[1]), (count, 2)):
        reach = rng.uniform(15, 50)
        top, left = int(max(row - 4 * reach, 0)), int(max(column - 4 * reach, 0))
        window = lymphoid[top : int(row + 4 * reach), left : int(column + 4 * reach)]
        y, x = np.ogrid[: window.shape[0], : window.shape[1]]
        window += np.exp(-((y + top - row) ** 2 + (x + left - column) ** 2) / (2 * reach**2))
    return np.minimum(lymphoid, 1)


def lobules(
    rng: np.random.Generator, shape: tuple[int, int], margin: tuple[int, int], count: int
) -> NDArray[np.float64]:
    """Normal glands in so many lobules, their middles no closer to the edges than the margin (rows and columns)."""
    centres = rng.uniform(margin, (shape[0] - margin[0], shape[1] - margin[1]), (count, 2))
    return np.vstack([lobule(rng, (row, column), rng.uniform(40, 110)) for row, column in centres])


def outline_features(outlines: list[Outline]) -> dict[str, object]:
    """Tumour outlines as QuPath exports annotations: x before y, the first corner repeated at the end."""
    features = []
    for outline in outlines:
        ring = np.round(np.vstack([outline, outline[:1]])[:, ::-1], 2).tolist()
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {
                    "objectType": "annotation",
                    "classification": {"name": "Tumor", "color": [200, 0, 0]},
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}


def write_pyramid(target: Path, image: NDArray[np.uint8]) -> None:
    """Tiled TIFF whose further pages halve the picture, marked as reduced, lossless so that any reader agrees."""
    with replacing(target) as temporary, tifffile.TiffWriter(temporary) as writer:
        level = image
        for number in range(_LEVELS):
            writer.write(
                level,
                photometric="rgb",
                tile=(256, 256),
                compression="zlib",
                subfiletype=1 if number else 0,
                resolution=(10_000 / 2**number, 10_000 / 2**number),
                resolutionunit="CENTIMETER",
                metadata=None,
            )
            blocks = level.reshape(level.shape[0] // 2, 2, level.shape[1] // 2, 2, 3)
            level = np.rint(blocks.mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8)
