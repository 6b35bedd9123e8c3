"""All that decides which tiles of a slide there are and how they are labelled."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from tumortrace.errors import SlideError
from tumortrace.records.files import sha256
from tumortrace.records.record import Open
from tumortrace.slides.annotations.classes import Classes
from tumortrace.slides.scale import check_arguments, slide_resolution
from tumortrace.slides.slide import Slide
from tumortrace.slides.tiles.labels import Border, Rule

_LATER = {"plane": None, "read_level": "auto", "tissue_mask": None, "unlabelled": "leave-out"}
Unlabelled = Literal["leave-out", "tile"]


@dataclass(frozen=True)
class Settings:
    """How tiles are cut.

    Attributes:
        size: Side of a tile in px, at `resolution` um per px.
        slide_resolution: Um per px of slides that state none; `override_resolution` goes before what they state.
        overlap: Share of its side by which a tile overlaps the next.
        minimum_tissue: Smallest share of tissue in a tile.
        rule: By which a tile is positive, with its `share`.
        leave_out: `edge`: tiles that reach beyond the slide; `mixed`: those of which a part is positive.
        classes: What the classes of annotations mean.
        bits: Of deep slides that do not say theirs.
        plane: Number of the plane of focus, from 1; None for the middle one.
        read_level: Number of the level from which tiles are read, or `auto`.
        tissue_mask: Picture that says where the tissue of the one slide is.
        unlabelled: What becomes of slides of which nothing says what is tumour.

    Raises:
        SlideError: A value is out of range.
    """

    size: int = 96
    resolution: float = 0.97
    slide_resolution: float | None = None
    override_resolution: float | None = None
    overlap: float = 0.0
    minimum_tissue: float = 0.25
    rule: Rule = "centre-third"
    share: float = 0.5
    leave_out: tuple[Border, ...] = ()
    classes: Classes = field(default_factory=Classes)
    bits: int | None = None
    plane: int | None = None
    read_level: str = "auto"
    tissue_mask: Path | None = None
    unlabelled: Unlabelled = "leave-out"

    def __post_init__(self) -> None:
        resolutions = {
            "--resolution": self.resolution,
            "--slide-resolution": self.slide_resolution,
            "--override-resolution": self.override_resolution,
        }
        check_arguments(self.overlap, self.minimum_tissue, 1, self.bits, resolutions)
        mask = self.tissue_mask
        for name, value, valid, expected in (
            ("--size", self.size, 8 <= self.size <= 4096, "8 to 4096 px"),
            ("--share", self.share, 0 < self.share <= 1, "above 0, and 1 at most"),
            ("--tissue-mask", str(mask), mask is None or mask.is_file(), "a PNG or TIFF with the tissue"),
            ("--label-by", self.rule, self.rule in get_args(Rule), ", ".join(get_args(Rule))),
        ):
            if not valid:
                raise SlideError(f"the value {value!r}", where=name, expected=expected, remedy="change it")

    @property
    def request(self) -> Open:
        """The same as JSON takes it; what earlier versions did not know is named where it is not the default."""
        values = {name: value for name, value in vars(self).items() if name not in ("classes", "leave_out", *_LATER)}
        values |= {name: getattr(self, name) for name, usual in _LATER.items() if getattr(self, name) != usual}
        if self.tissue_mask is not None:
            values["tissue_mask"] = sha256(self.tissue_mask)
        return values | {"classes": dict(self.classes.said), "leave_out": sorted(self.leave_out)}

    def open(self, path: Path) -> Slide:
        """A slide as it is read here."""
        return Slide(path, bits=self.bits, plane=self.plane)

    def resolution_of(self, slide: Slide, notes: list[str]) -> float:
        """Um per px of a slide at level 0; what is odd goes to `notes`.

        Raises:
            SlideError: Nobody says it.
        """
        resolution = slide_resolution(
            slide, self.slide_resolution, self.override_resolution, notes, "--slide-resolution"
        )
        if resolution is None:
            raise SlideError(
                slide.unbelieved or "states no resolution",
                where=slide.path,
                expected=f"um per pixel, as tiles have {self.resolution:g}",
                remedy="state it with --slide-resolution, such as 0.25 for most 40x scans or 0.5 for 20x",
            )
        if self.resolution < 0.8 * resolution:
            notes.append(f"coarser ({resolution:.3g} um/px) than its tiles ({self.resolution:.3g}), which are enlarged")
        return resolution
