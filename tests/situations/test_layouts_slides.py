"""Patches as coordinates beside slides, and tiles with their places in the name."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from tests.situations.situation import situation
from tumortrace.cli.main import run
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.store import open_store
from tumortrace.errors import CohortError
from tumortrace.images.decoding import read_image


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUMORTRACE_CACHE", str(tmp_path / "cache"))


def write_slide(file: Path, seed: int) -> list[np.ndarray]:
    """A pyramid of two levels, of factor 2, at .5 um per pixel; its pixels by level."""
    file.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (128, 192, 3), dtype=np.uint8)
    levels = [np.kron(small, np.ones((2, 2, 1), np.uint8)), small]
    with tifffile.TiffWriter(file) as tiff:
        for number, pixels in enumerate(levels):
            stated = {"resolution": (2e4 / 2**number,) * 2, "resolutionunit": "CENTIMETER"}
            tiff.write(pixels, tile=(64, 64), photometric="rgb", subfiletype=int(number > 0), metadata=None, **stated)
    return levels


def clam(file: Path, slide: str, *, level: int = 0, images: np.ndarray | None = None) -> np.ndarray:
    """As `wsi_core/wsi_utils.py` of CLAM writes: `save_hdf5` with attributes, or `initialize_hdf5_bag` with `imgs`."""
    places = np.array([(0, 0), (64, 0), (128, 64), (192, 128)], np.int32)
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as handle:
        coords = handle.create_dataset("coords", data=places, maxshape=(None, 2), chunks=(1, 2))
        if images is None:
            attributes = {"patch_size": 32, "patch_level": level, "downsample": np.array([2.0**level] * 2)}
            attributes |= {"downsampled_level_dim": np.array([384, 256]) // 2**level, "level_dim": np.array([384, 256])}
            coords.attrs.update(attributes | {"name": slide, "save_path": "/home/someone/patches"})
        else:
            array = handle.create_dataset("imgs", data=images, chunks=(1, *images.shape[1:]))
            array.attrs.update({"patch_level": level, "wsi_name": slide, "downsample": np.array([1.0, 1.0])})
    return places


@situation(
    "layouts",
    there="CLAM: patches/SLIDE.h5 with coords, patch_size and patch_level, and the slides; a table of slide_id, label",
    typed="tumortrace check RESULTS",
    right="squares are read from the level that is named; groups are cases; labels of slides are said to be such",
)
@pytest.mark.parametrize("level", [0, 1])
def test_clam_coordinates_beside_slides(level: int, tmp_path: Path) -> None:
    """github.com/mahmoodlab/CLAM: RESULTS/patches/SLIDE.h5; slides in DATA beside."""
    root, pixels, places = tmp_path / "results", {}, None
    for number, slide in enumerate(("slide_1", "slide_2")):
        pixels[slide] = write_slide(tmp_path / "slides" / f"{slide}.tif", number)[level]
        places = clam(root / "patches" / f"{slide}.h5", slide, level=level)
    labels = {"case_id": ["p1", "p2"], "slide_id": ["slide_1", "slide_2"], "label": ["normal", "tumor"]}
    pd.DataFrame(labels).to_csv(root / "dataset.csv", index=False)
    cohort = open_cohort(root)
    assert (cohort.layout, len(cohort)) == ("slide-patches", 8)
    assert cohort.resolution == pytest.approx(0.5 * 2**level)
    assert cohort.table["group"].tolist() == ["p1"] * 4 + ["p2"] * 4
    assert cohort.table["label"].tolist() == [0] * 4 + [1] * 4
    assert any("labels are of whole slides" in note for note in cohort.notes)
    corners = [(x // 2**level, y // 2**level) for x, y in places]
    expected = [pixels[slide][y : y + 32, x : x + 32] for slide in pixels for x, y in corners]
    assert np.array_equal(open_store(cohort).images, expected)
    assert run(["check", str(root), "-o", str(tmp_path / "out")]) in (0, 1)
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["images"] == 8


def test_trident_resamples_to_the_size_of_its_patches(tmp_path: Path) -> None:
    """github.com/mahmoodlab/TRIDENT: 10x_32px_0px_overlap/patches/SLIDE_patches.h5; features are passed over."""
    levels = write_slide(tmp_path / "wsis" / "s1.tif", 0)
    for folder in ("patches", "features_uni_v1"):
        file = tmp_path / "job" / "10x_32px_0px_overlap" / folder / "s1_patches.h5"
        file.parent.mkdir(parents=True)
        with h5py.File(file, "w") as handle:
            coords = handle.create_dataset("coords", data=np.array([(0, 0), (62, 2)]))
            coords.attrs.update({"patch_size": 32, "patch_size_level0": 62, "level0_magnification": 20, "name": "s1"})
    cohort = open_cohort(tmp_path / "job")
    assert len(cohort) == 2
    assert cohort.resolution == pytest.approx(0.5 * 62 / 32, rel=1e-3)
    square = levels[0][2:64, 62:124]
    reference = np.asarray(Image.fromarray(square).resize((32, 32), Image.Resampling.LANCZOS))
    assert np.array_equal(read_image(cohort.table["path"][1]), reference)


def test_pictures_within_the_file(tmp_path: Path) -> None:
    """Older CLAM writes `imgs` beside the coordinates: no slide is needed."""
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    clam(tmp_path / "patches" / "s1.h5", "s1", images=images)
    cohort = open_cohort(tmp_path / "patches")
    assert (cohort.table["label"].isna().all(), set(cohort.table["group"])) == (True, {"s1"})
    assert np.array_equal(open_store(cohort).images, images)


@situation(
    "layouts",
    there="CLAM's or TRIDENT's coordinates whose slides are not there",
    typed="tumortrace check DATA",
    right="one line: which slide is missing, where it is looked for",
)
def test_coordinates_without_slides_are_told_in_one_line(tmp_path: Path) -> None:
    """What is there, which slide is missing, where it is looked for."""
    clam(tmp_path / "patches" / "s1.h5", "s1")
    with pytest.raises(CohortError, match=r"coordinates of 4 patches without pictures, and no slide 's1'.*slides/"):
        open_cohort(tmp_path / "patches")
    clam(tmp_path / "patches" / "s1.h5", "s1", level=7)
    write_slide(tmp_path / "s1.tif", 0)
    with pytest.raises(CohortError, match="level 7; the slide has 2 levels"):
        open_cohort(tmp_path / "patches")


@situation(
    "layouts",
    there="QuPath's tiles: NAME [d=2,x=0,y=0,w=64,h=64].png, with -labelled.png beside them",
    typed="tumortrace check FOLDER --group-from-name '^(.*) \\[d='",
    right="groups are slides; label pictures are left out aloud",
)
def test_tiles_of_qupath(tmp_path: Path) -> None:
    """qupath.readthedocs.io, exporting tiles: `TileExporter` names tiles so, with `.labeledImageId`."""
    for name in ("benign", "malignant"):
        (tmp_path / name).mkdir()
        for x in (0, 64):
            stem = tmp_path / name / f"TCGA-{name} [d=2,x={x},y=0,w=64,h=64]"
            pixels = np.random.default_rng([x, len(name)]).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"{stem}.png")
            Image.fromarray(pixels[..., 0] // 128).save(f"{stem}-labelled.png")
    cohort = open_cohort(tmp_path, group_from_name=r"^(.*) \[d=")
    assert len(cohort) == 4
    assert set(cohort.table["group"]) == {"TCGA-benign", "TCGA-malignant"}
    assert any("mask" in note for note in cohort.notes)
