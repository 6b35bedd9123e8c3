"""The verb `embed-slides`: features of every tile of slides by a frozen body, stored once, a file a slide."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import pandas as pd
import torch

from tumortrace.cohorts.cohort import TAUGHT
from tumortrace.cohorts.feature_files import FeatureFile, Written
from tumortrace.cohorts.findings import count
from tumortrace.errors import RunError, SlideError, TumorTraceError
from tumortrace.records.files import append, replacing
from tumortrace.records.journal import Journal
from tumortrace.records.lock import locked
from tumortrace.records.output import differing, require_file, require_folder
from tumortrace.records.progress import say
from tumortrace.records.provenance import RESEARCH_USE
from tumortrace.records.run import RunRecord
from tumortrace.records.tables import SLIDES
from tumortrace.slides.cohort import SlideCohort, join, open_slides
from tumortrace.slides.encoder import Encoder, encoder_of
from tumortrace.slides.failures import say_failed
from tumortrace.slides.identity import content_of, digest_of
from tumortrace.slides.naming import names_of
from tumortrace.slides.result import same_slide
from tumortrace.slides.scale import check_arguments, level_to_read, require_bits, slide_resolution, tile_scale
from tumortrace.slides.scanned import learnt_from, names_in, used_by
from tumortrace.slides.slide import RESAMPLING, Slide
from tumortrace.slides.tiling import read_tiles, tile_tissue
from tumortrace.slides.tissue import overview
from tumortrace.slides.tissue_mask import read_tissue_mask, require_one_slide, tissue_on
from tumortrace.work.hands import Hands, HandsOptions
from tumortrace.work.pieces import carry_out
from tumortrace.work.worker import Tell

PROCEDURE = 1  # raised whenever the same arguments give other features
BATCH = 64  # tiles between two entries of the journal
THUMBNAIL = 512  # px of the longer side


@dataclass(frozen=True)
class Asked:
    """How tiles are taken of every slide: the arguments of `embed_slides` by their names."""

    out: Path
    layout: Literal["plain", "clam", "stamp"]
    half: bool
    overlap: float
    minimum_tissue: float
    resolution: float | None
    override_resolution: float | None
    patch_resolution: float
    read_level: str
    tissue_mask: Path | None
    bits: int | None
    plane: int | None


def embed_slides(
    body: str,
    slides: Sequence[Path],
    *,
    out: Path = Path("features"),
    layout: Literal["plain", "clam", "stamp"] = "plain",
    half: bool = False,
    overlap: float = 0.0,
    minimum_tissue: float = 0.25,
    resolution: float | None = None,
    override_resolution: float | None = None,
    patch_resolution: float | None = None,
    read_level: str = "auto",
    tissue_mask: Path | None = None,
    bits: int | None = None,
    plane: int | None = None,
    weights: str | None = None,
    changes: Sequence[str] = (),
    device: str = "auto",
    **hands: Unpack[HandsOptions],
) -> int:
    """Compute features of the tissue of slides by a frozen body, one HDF5 file a slide, to train slide-attention on.

    Interrupted or killed, it goes on where it stopped when called again in the same way, and ends with the same bytes;
    slides that are complete are not read again. A slide that cannot be read is told at the end.

    Args:
        body: Run folder or bundle, or the name of a body: a foundation model (`tumortrace models`), or one of timm,
            torchvision or a hub.
        slides: Slides, folders of them at any depth, or tables of slides (CSV, TSV, Parquet); labels, patients and
            splits that are known of them are written beside the features.
        out: Folder to write.
        layout: `plain` writes SLIDE.h5 as CLAM and TRIDENT have it (features, coords in px); `clam` the same in
            h5_files/, with pt_files/ beside; `stamp` SLIDE.h5 as STAMP has it (feats, coords in um).
        half: Keep 16 bits of each number instead of 32.
        overlap: Share of its side by which a tile overlaps the next, from 0 to 0.9.
        minimum_tissue: Smallest share of tissue in a tile that is kept, from 0 to 1.
        resolution: Micrometres per pixel of a slide that does not state it.
        override_resolution: Micrometres per pixel in place of what slides state.
        patch_resolution: Micrometres per pixel at which the body sees tiles, where it does not state one.
        read_level: Number of the level from which tiles are read, 0 for full resolution; `auto` takes the coarsest that
            is no coarser than the tiles.
        tissue_mask: PNG or TIFF of any size that covers the whole slide, of one slide: what is not zero is tissue.
        bits: Bits that deep slides hold whose files do not say, such as 12 for 12 bits stored in 16.
        plane: Number of the plane of focus to read, from 1; default the middle one.
        weights: Of a published body, instead of its own: `random`, or a file or folder.
        changes: To a published body's preprocessing or arguments, as in preprocessing.size=112.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        **hands: Who reads: `workers` or `cluster`, as in `tumortrace.work.hands.Hands`; slides are divided among them.

    Returns:
        1 where a slide could not be read, else 0.

    Raises:
        SlideError: There is no slide, a value is out of range, or a resolution is not known.
        TumorTraceError: The body cannot be had.
        RunError: Interrupted, or the folder holds features of another body or of tiles taken otherwise.
    """
    stated = {"--resolution": resolution, "--override-resolution": override_resolution}
    check_arguments(overlap, minimum_tissue, 1, bits, stated | {"--patch-resolution": patch_resolution})
    require_folder(out)
    cohort = join([open_slides(path) for path in slides])
    files = [entry.path for entry in cohort.entries]
    for note in cohort.notes:
        say(f"note: {note}")
    require_one_slide(tissue_mask, len(files), "embed")
    encoder = encoder_of(body, weights, changes, device)
    asked = Asked(
        out=out,
        layout=layout,
        half=half,
        overlap=overlap,
        minimum_tissue=minimum_tissue,
        resolution=resolution,
        override_resolution=override_resolution,
        patch_resolution=encoder.resolution(patch_resolution),
        read_level=read_level,
        tissue_mask=tissue_mask,
        bits=bits,
        plane=plane,
    )
    _require_alike(asked, encoder)
    names, taught = names_of(files, partial(_free, asked)), _taught(Path(body), cohort)
    if any(taught):
        say(
            f"warning: {encoder.body} has learnt from patches of {sum(taught)} of {count(len(taught), 'slide')}, or of "
            "their patients: a model of slides is not to be judged on these. One table of slides with a column split, "
            "for tile as for embed-slides, keeps them apart"
        )
    failed: list[str] = []
    _write_table(out, cohort, names, slides)

    def receive(number: int, outcome: str | Exception) -> None:
        if isinstance(outcome, Exception):
            if len(files) == 1 or not isinstance(outcome, TumorTraceError):
                raise outcome
            failed.append(str(outcome))
            outcome = f"{files[number].name} could not be read: {outcome.found}"
        say(f"embed-slides: {number + 1} of {len(files)}: {outcome}")

    divided = Hands(**hands)
    carry_out(
        partial(embed_slide, asked),
        list(zip(files, names, taught, strict=True)),
        receive,
        begin=partial(encoder_of, body, weights, changes, device) if divided.elsewhere else lambda: encoder,
        places=files,
        title="features of",
        hands=divided,
        accelerated=device in ("auto", "cuda"),
    )
    read = count(len(files) - len(failed), "slide")
    say(f"embed-slides: features of {read} by {encoder.body} in {out}. {RESEARCH_USE}")
    print(out)
    return say_failed("embed-slides", "read", failed, len(files))


def _taught(body: Path, cohort: SlideCohort) -> list[bool]:
    """Whether a body has learnt from patches of each slide or its patient; a published one has not."""
    run = next((place for place in (body, body.parent) if RunRecord.exists(place)), None)
    names = frozenset[str]() if run is None else names_in(used_by(run))
    return [learnt_from(entry, names) for entry in cohort.entries]


def embed_slide(asked: Asked, encoder: Encoder, piece: tuple[Path, str, bool], tell: Tell) -> str:
    """Write the features of one slide, or go on with it; returns what is to be said, in a line.

    Args:
        asked: How tiles are taken.
        encoder: The body.
        piece: The slide, the name under which its features are kept, and whether the body has learnt from it.
        tell: Called with the tiles done, and all of them.

    Raises:
        SlideError: It cannot be read, or its resolution is not known.
        RunError: Its file cannot be written, or another process is writing it.
    """
    path, name, taught = piece
    file = _place(asked, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    busy = RunError("another process is writing it", where=file, remedy="wait for it, or name another -o")
    with (
        Slide(path, bits=asked.bits, plane=asked.plane) as slide,
        locked(_beside(file, "lock"), busy=busy, remove=True),
    ):
        require_bits(slide)
        notes = list(slide.notes)
        um = slide_resolution(slide, asked.resolution, asked.override_resolution, notes)
        scale = tile_scale(asked.patch_resolution, None, slide, um, notes)
        assert um is not None
        level = level_to_read(slide, scale, asked.read_level, notes)
        marked = None if asked.tissue_mask is None else read_tissue_mask(asked.tissue_mask, slide)
        known = {TAUGHT: True} if taught else {}
        request = known | _request(encoder, slide, asked, [um, scale, level], marked)
        if _complete(file, digest_of(request), asked):
            return f"{slide.name}: complete already with the same slide, body and settings"
        thumbnail = overview(slide, um)
        tissue = tissue_on(thumbnail, um * slide.width / thumbnail.shape[1], marked)
        side = max(1, round(encoder.size[0] * scale))
        tiles = tile_tissue(
            tissue.mask,
            (slide.width, slide.height),
            (side, side),
            overlap=asked.overlap,
            minimum_tissue=asked.minimum_tissue,
        )
        features = _computed(encoder, slide, tiles, level, file, request, asked.half, tell)
        about = {
            **known,
            **_of_all(asked, encoder),
            "encoder": encoder.about,
            "slide": slide.name,
            "content": request["content"],
            "size": [slide.width, slide.height],
            "slide_resolution": um,
            "level": level,
            "request": digest_of(request),
            "notes": [*notes, *tissue.notes],
            "research_use": RESEARCH_USE,
        }
        places = tiles[["x", "y"]].to_numpy(np.int64)
        small = slide.thumbnail(THUMBNAIL)
        if asked.layout == "clam":
            write_pt(asked.out / "pt_files" / f"{name}.pt", features)
        Written(features, places, side, encoder.size[0], um, small, about).write(file, asked.layout)
        for ending in ("jsonl", "raw"):
            _beside(file, ending).unlink(missing_ok=True)
    told = f", {'; '.join(tissue.notes)}" if tissue.notes else ""
    return f"{slide.name}: {count(len(tiles), 'tile')}, {features.shape[1]:,} numbers each; {file}{told}"


def write_pt(file: Path, features: np.ndarray) -> None:
    """Write features as CLAM reads them by default: a tensor that `torch.load` gives back."""
    # of an open file, since torch writes the name of a closed one into it
    with replacing(file) as temporary, open(temporary, "wb") as target:
        torch.save(torch.from_numpy(np.array(features)), target)


def _write_table(folder: Path, cohort: SlideCohort, names: Sequence[str], asked: Sequence[Path]) -> None:
    """What is known of the slides, under the names of their features, for `train`; nothing where no label is.

    Rows of slides that earlier calls have written stay.

    Raises:
        RunError: A table of the user's lies there.
    """
    if all(entry.label is None for entry in cohort.entries):
        return
    rows = [
        {
            "slide": name,
            "label": None if entry.label is None else cohort.classes[entry.label],
            "patient": entry.group,
            "split": entry.split,
        }
        for entry, name in zip(cohort.entries, names, strict=True)
    ]
    require_file(SLIDES.file(folder), inputs=asked)
    earlier = SLIDES.find(folder)
    if not set(earlier).issubset(rows[0]):
        raise RunError(
            "is there, and not written by embed-slides",
            where=SLIDES.file(folder),
            expected=f"a table of {', '.join(rows[0])}, or none",
            remedy="choose another -o, or rename it",
        )
    if len(earlier):
        earlier = earlier[~earlier["slide"].isin(names)]
    SLIDES.write(folder, pd.concat([earlier, pd.DataFrame(rows)]).dropna(axis=1, how="all"))


def _place(asked: Asked, name: str) -> Path:
    return (asked.out / "h5_files" if asked.layout == "clam" else asked.out) / f"{name}.h5"


def _free(asked: Asked, name: str, slide: Path) -> bool:
    """Whether no features of another slide are kept under a name; those are left as they are."""
    try:
        about = FeatureFile.read(_place(asked, name)).about
    except TumorTraceError:  # none, or damaged ones
        return True
    kept, content = (about.get("slide", slide.name), about.get("content", "")), content_of(slide)
    if not content or same_slide(kept, (slide.name, content)):
        return True
    say(f"embed-slides: {_place(asked, name)} holds features of another slide, {kept[0]}, and is left as it is")
    return False


def _beside(file: Path, ending: str) -> Path:
    return file.with_name(f".{file.stem}.{ending}")


def _complete(file: Path, request: str, asked: Asked) -> bool:
    if not file.is_file() or (asked.layout == "clam" and not (asked.out / "pt_files" / f"{file.stem}.pt").is_file()):
        return False
    try:
        return FeatureFile.read(file).about.get("request") == request
    except TumorTraceError:
        return False


def _require_alike(asked: Asked, encoder: Encoder) -> None:
    """Refuse to put features beside others of another body, or of tiles that were taken otherwise."""
    for file in sorted(_place(asked, "any").parent.glob("*.h5"))[:1]:
        known, now = FeatureFile.read(file), _of_all(asked, encoder)
        before = {"body": known.body or "not stated", "weights": known.weights}
        before |= {name: known.about.get(name, value) for name, value in now.items() if name not in before}
        if differs := differing(before, now):
            raise RunError(
                f"holds features made otherwise, such as {file.name}: {'; '.join(differs)}",
                where=asked.out,
                expected=f"none but those of {encoder.body}, with the same weights and settings",
                remedy="name another -o",
            )


def _of_all(asked: Asked, encoder: Encoder) -> dict[str, Any]:
    """What features of one folder share, as their files hold it."""
    return {
        "body": encoder.body,
        "weights": encoder.weights,
        "resolution": asked.patch_resolution,
        "overlap": asked.overlap,
        "minimum_tissue": asked.minimum_tissue,
        "read_level": asked.read_level,
        "half": asked.half,
    }


def _request(
    encoder: Encoder, slide: Slide, asked: Asked, tiles: list[float | int], marked: np.ndarray | None
) -> dict[str, Any]:
    """All that the features depend on, to the last bit."""
    return {
        "procedure": PROCEDURE,
        "slide": slide.name,
        "content": content_of(slide.path),
        "body": [encoder.body, encoder.weights, digest_of(encoder.about["preprocessing"])],
        "device": str(encoder.model.device),
        "layout": [asked.layout, asked.half],
        "tiles": [*tiles, asked.overlap, asked.minimum_tissue, RESAMPLING],
        "tissue": None if marked is None else [marked.shape, zlib.crc32(marked.tobytes())],
        "bits": [asked.bits, asked.plane],
    }


def _computed(
    encoder: Encoder,
    slide: Slide,
    tiles: pd.DataFrame,
    level: int,
    file: Path,
    request: dict[str, Any],
    half: bool,
    tell: Tell,
) -> np.ndarray:
    """Features of the tiles, memory-mapped: each batch goes to a file before the journal beside it counts it."""
    kind = np.dtype(np.float16 if half else np.float32)
    width = encoder.features(np.full((1, *encoder.size, 3), 255, np.uint8)).shape[1]
    raw, row = _beside(file, "raw"), width * kind.itemsize
    journal, done = _taken_up(file, request, row)
    images = read_tiles(slide, tiles.iloc[done:], encoder.size[::-1], ahead=2 * BATCH, level=level)
    with closing(images):
        tell(done, len(tiles))
        while batch := list(islice(images, BATCH)):
            features = encoder.features(np.stack(batch)).astype(kind)
            if not np.isfinite(features).all():
                remedy = "leave --half out" if half else "its weights may be damaged"
                raise SlideError("the body gives no finite numbers", where=slide.path, remedy=remedy)
            append(raw, features.tobytes(), at=done * row)
            journal.append({"rows": len(batch), "crc": zlib.crc32(features.tobytes())})
            done += len(batch)
            tell(done, len(tiles))
    if not len(tiles):
        return np.empty((0, width), kind)
    return np.memmap(raw, kind, "r", shape=(len(tiles), width))


def _taken_up(file: Path, request: dict[str, Any], row: int) -> tuple[Journal[Any], int]:
    """The journal of what is being done, and how many tiles of its raw numbers are whole; both anew where any is not.

    Args:
        file: Of the features.
        request: What is being done.
        row: Bytes of a tile's numbers.
    """
    journal, raw = Journal[Any](_beside(file, "jsonl"), request), _beside(file, "raw")
    sizes = [entry["rows"] * row for entry in journal.entries]
    if sizes and raw.is_file():
        with raw.open("rb") as opened:
            pairs = zip(sizes, journal.entries, strict=True)
            if all(zlib.crc32(opened.read(size)) == entry["crc"] for size, entry in pairs):
                return journal, sum(sizes) // row
    journal.remove()
    return Journal[Any](journal.file, request), 0
