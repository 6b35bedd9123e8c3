"""Form of the images: size, kind of pixels, orientation, frames, masks."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from tumortrace.cohorts.findings import FINDERS, LEAVE_OUT, Evidence, Finding, Verdict, count, examples
from tumortrace.cohorts.inspection import NEARLY_BLANK

NO_COLOUR = 1.0  # mean difference between channels, of 255; the palest stained patch of PCam has 2

_KINDS: dict[str, tuple[str, Verdict, str]] = {
    "RGBA": ("mode-rgba", "note", "an alpha channel, which is laid over white"),
    "palette": ("mode-palette", "note", "a palette of at most 256 colours"),
    "CMYK": ("mode-cmyk", "warning", "printing colours (CMYK), which turn into RGB only roughly"),
    "16 bit": ("mode-16-bit", "warning", "16 bits per channel, which are scaled to 8 by the range of the type"),
    "1 bit": ("mode-1-bit", "warning", "one bit per pixel"),
}
_OTHER: tuple[str, Verdict, str] = ("mode-unusual", "warning", "an unusual kind of pixels")


@FINDERS.register("forms")
def find(evidence: Evidence) -> Iterator[Finding]:
    """Findings about how images are stored."""
    yield from _odd_sizes(evidence.sound)
    masks = evidence.sound["two_valued"].fillna(False) & (evidence.sound["spread"] >= NEARLY_BLANK)
    yield from _masks(evidence.sound[masks])
    yield from _kinds(evidence.sound[~masks])
    yield from _grey(evidence.vivid)
    yield from _rotated(evidence.sound)
    yield from _frames(evidence.sound)


def _odd_sizes(sound: pd.DataFrame) -> Iterator[Finding]:
    sizes = sound["width"].astype(str) + "x" + sound["height"].astype(str)
    bad = sound[~sizes.isin(sizes.mode()[:1])]
    if len(bad):
        usual = sizes.mode()[0]
        message = f"{len(bad):,} of {len(sound):,} images are not {usual} pixels ({sizes.nunique() - 1} other sizes)"
        remedy = f"nothing, if stretching them to {usual} is right; else crop or leave them out"
        yield Finding("odd-size", "warning", len(bad), message, remedy, examples(bad, sizes[bad.index]))


def _masks(bad: pd.DataFrame) -> Iterator[Finding]:
    if len(bad):
        message = f"{count(len(bad), 'image')} of two grey values only: masks among the pictures?"
        leave_out = dict.fromkeys(bad.index, "two grey values only, as a mask has")
        yield Finding("mask-like", "warning", len(bad), message, LEAVE_OUT, examples(bad), leave_out)


def _kinds(sound: pd.DataFrame) -> Iterator[Finding]:
    usual = sound["kind"].mode()[:1]
    for kind, bad in sound[~sound["kind"].isin([*usual, "RGB", "grey"])].groupby("kind"):
        name, verdict, what = _KINDS.get(str(kind), _OTHER)
        message = f"{count(len(bad), 'image')} with {what}, among {len(sound) - len(bad):,} without"
        remedy = "look whether they are right, and save all images in one form" if verdict == "warning" else ""
        yield Finding(name, verdict, len(bad), message, remedy, examples(bad))


def _grey(vivid: pd.DataFrame) -> Iterator[Finding]:
    grey = vivid["colour"] < NO_COLOUR
    if 0 < grey.sum() < len(vivid):
        few = bool(grey.mean() < 0.5)
        bad, (what, usual) = vivid[grey == few], ("grey", "coloured") if few else ("coloured", "grey")
        message = f"{count(len(bad), f'{what} image')} among {len(vivid) - len(bad):,} {usual} ones"
        remedy = "look where they come from: a model may take lack of colour for a sign"
        yield Finding(f"images-{what}", "note", len(bad), message, remedy, examples(bad))


def _rotated(sound: pd.DataFrame) -> Iterator[Finding]:
    bad = sound[sound["orientation"] > 1]
    if len(bad):
        message = f"{count(len(bad), 'image')} with an EXIF orientation: shown turned or mirrored against the pixels"
        remedy = "nothing here, where it is applied; save them upright for programs that pass over it"
        says = [f"orientation {number}" for number in bad["orientation"]]
        yield Finding("exif-rotated", "note", len(bad), message, remedy, examples(bad, says))


def _frames(sound: pd.DataFrame) -> Iterator[Finding]:
    bad = sound[sound["frames"] > 1]
    if len(bad):
        message = f"{count(len(bad), 'file')} with several pictures, of which only the first is read"
        says = [f"{number} pictures" for number in bad["frames"]]
        remedy = "save each picture as a file of its own"
        yield Finding("several-frames", "warning", len(bad), message, remedy, examples(bad, says))
