"""What is recorded of patches that were cut out of slides."""

from __future__ import annotations

from typing import ClassVar

from tumortrace.records.record import Open, Part, Record

TILES_FOLDER = "tiles"
"""In the folder of tiles: one Parquet file a slide."""
PREVIEWS = "previews"
"""Likewise: one picture a slide."""


class TiledSlide(Part):
    """A slide of which tiles were cut, or why none were.

    Attributes:
        id: Of the slide.
        file: Its tiles, relative to the folder; blank where none were cut.
        preview: Its picture, relative to the folder.
        annotations: Name of their file; blank where there is none. `outlined` are the classes in it.
        resolution: Um per px of the slide; `level` that was read.
        candidates: Tiles with tissue by label (-1: none), before sampling; `tiles` those that were cut.
        failed: Why it could not be tiled.
    """

    id: str
    file: str = ""
    preview: str = ""
    annotations: str = ""
    outlined: list[str] = []
    resolution: float | None = None
    level: int | None = None
    candidates: dict[str, int] = {}
    tiles: dict[str, int] = {}
    notes: list[str] = []
    failed: str = ""


class TilingRecord(Record):
    """`tiles.json`: how patches were cut out of slides.

    Attributes:
        status: unfinished, which does not open as a cohort; incomplete, where slides failed; or complete.
        request: What the outcome depends on.
        classes: The negative and the positive class.
        size: Side in px, at `resolution` um per px.
        slides: All that were named, those that failed too.
    """

    FILE: ClassVar[str] = "tiles.json"
    WHOSE: ClassVar[str] = "a folder of tiles"
    REMEDY: ClassVar[str | None] = "call `tumortrace tile` again as before"

    layout: str = ""
    status: str = ""
    request: Open = {}
    classes: list[str] = []
    size: int = 0
    resolution: float | None = None
    label_by: str = ""
    slides: list[TiledSlide] = []
    notes: list[str] = []
    use: str = ""
