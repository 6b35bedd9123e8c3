"""Where a slide's annotations are, by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tumortrace.errors import SlideError
from tumortrace.slides.annotations import ENDINGS
from tumortrace.slides.cohort import SlideEntry

_OUTLINES = tuple(ending for ending in ENDINGS if ending not in (".png", ".tif", ".tiff", ".zip"))
_MASKS = tuple(f"{mark}mask{ending}" for mark in ("_", "-") for ending in (".png", ".tif", ".tiff"))


def annotations_of(entries: Sequence[SlideEntry], where: Path | None) -> list[Path | None]:
    """The file of annotations of each slide: what the table names, else by name in `where`, else beside the slide.

    Args:
        entries: The slides.
        where: A folder, or a file where there is one slide.

    Raises:
        SlideError: `where` is not there, is one file for several slides, fits none of them, or holds two for a slide.
    """
    if where is not None and not where.exists():
        raise SlideError("no such file or folder", where=where, expected="annotations", remedy="correct --annotations")
    if where is not None and where.is_file():
        if len(entries) > 1:
            raise SlideError(
                f"one file of annotations for {len(entries)} slides",
                where=where,
                expected="a folder of them, named as the slides",
                remedy="name the folder, or give each slide its own in a table (column annotations)",
            )
        return [where]
    files = [entry.annotations or _beside(entry.path, where or entry.path.parent, where) for entry in entries]
    if where is not None and not any(files):
        name = entries[0].path.stem
        raise SlideError(
            "no annotations of " + ("the slide" if len(entries) == 1 else f"any of {len(entries)} slides"),
            where=where,
            expected=f"files named as the slides are, such as {name}.geojson, {name}.xml or {name}_mask.png",
            remedy="rename them, or give each slide its own in a table (column annotations)",
        )
    return files


def _beside(slide: Path, folder: Path, asked: Path | None) -> Path | None:
    stems = dict.fromkeys((slide.stem, slide.name))
    endings = (*_OUTLINES, *_MASKS)
    if asked is not None and folder.resolve() != slide.parent.resolve():
        endings += (".png", ".tif", ".tiff")
    names = [stem + ending for stem in stems for ending in endings]
    files = [file for name in names if (file := folder / name).is_file() and file.resolve() != slide.resolve()]
    if len(files) > 1:
        raise SlideError(
            f"two files of annotations of {slide.name}: {files[0].name} and {files[1].name}",
            where=folder,
            expected="one",
            remedy="move one away, or name the other in a table (column annotations)",
        )
    return files[0] if files else None
