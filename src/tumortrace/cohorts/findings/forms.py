"""How images are stored: bits, pages, masks, size, kind of pixels, orientation, resolution."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from tumortrace.cohorts.findings import FINDERS, LEAVE_OUT, Evidence, Finding, Verdict, count, examples
from tumortrace.cohorts.findings.pictures import NO_COLOUR
from tumortrace.cohorts.looks import NEARLY_BLANK
from tumortrace.images.depth import asked_for

SHRUNK = 2.0  # times that a picture may shrink along its sides before it is told
OFF = 1.2  # times that two resolutions may differ

_KINDS: dict[str, tuple[str, Verdict, str]] = {
    "RGBA": ("mode-rgba", "note", "an alpha channel, which is laid over white"),
    "palette": ("mode-palette", "note", "a palette of at most 256 colours"),
    "CMYK": ("mode-cmyk", "warning", "printing colours (CMYK), which turn into RGB only roughly"),
    "16 bit": ("mode-16-bit", "warning", "16 bits per channel, which are scaled to 8 by the bits that are used"),
    "1 bit": ("mode-1-bit", "warning", "one bit per pixel"),
    "label map": ("mode-labels", "warning", "a few labels for colours, as a mask has"),
}
_PLAIN = ("RGB", "grey")  # kinds of which there is nothing to say
_OTHER: tuple[str, Verdict, str] = ("mode-unusual", "warning", "an unusual kind of pixels")


def told_of_kind(kind: str) -> str:
    """What is to be said of a picture by its kind of pixels; blank where nothing is.

    Example:
        >>> told_of_kind("1 bit"), told_of_kind("RGB")
        ('one bit per pixel', '')
    """
    return "" if kind in _PLAIN else _said_of(kind)[2]


@FINDERS.register("forms")
def find_forms(evidence: Evidence) -> Iterator[Finding]:
    """Findings about how images are stored."""
    sound = evidence.sound
    yield from _too_dark(sound)
    few = sound["two_valued"].fillna(False) | (sound["kind"] == "label map").fillna(False)
    masks = few & (sound["spread"] >= NEARLY_BLANK)
    yield from _masks(sound[masks], len(sound))
    yield from _kinds(sound[~masks])
    yield from _grey(evidence.vivid)
    yield from _rotated(sound)
    yield from _frames(sound)
    yield from _assumed(sound)
    measured = sound[sound["width"].notna()]  # a quick audit does not regard it
    if len(measured):
        yield from _odd_sizes(measured, evidence.size)
        yield from _shrunk(measured, evidence.size)
    yield from _resolutions(sound)


def _too_dark(sound: pd.DataFrame) -> Iterator[Finding]:
    """12 bits in numbers of 16, of which nothing says so: read by the range of 16, which is a sixteenth as bright."""
    bad = sound[sound["bits"].fillna(0) > 0]
    if len(bad):
        likely = int(bad["bits"].max())
        message = (
            f"{count(len(bad), 'image')} may be read much too dark: {'its' if len(bad) == 1 else 'their'} numbers have "
            f"more bits than their values need ({likely} bits), and nothing says how many are used"
        )
        yield Finding("pixels-doubtful", "error", len(bad), message, asked_for(likely), examples(bad, bad["note"]))


def _masks(bad: pd.DataFrame, total: int) -> Iterator[Finding]:
    if len(bad):
        message = f"{count(len(bad), 'image')} of two grey values only, or of a few labels: masks among the pictures?"
        leave_out = dict.fromkeys(bad.index, "two grey values or a few labels only, as a mask has")
        yield Finding("mask-like", "error", len(bad), message, LEAVE_OUT, examples(bad), leave_out)


def _kinds(sound: pd.DataFrame) -> Iterator[Finding]:
    usual = sound["kind"].mode()[:1]
    for kind, bad in sound[~sound["kind"].isin([*usual, *_PLAIN])].groupby("kind"):
        name, verdict, what = _said_of(str(kind))
        message = f"{count(len(bad), 'image')} with {what}, among {len(sound) - len(bad):,} without"
        remedy = "look whether they are right, and save all images in one form" if verdict == "warning" else ""
        yield Finding(name, verdict, len(bad), message, remedy, examples(bad))


def _said_of(kind: str) -> tuple[str, Verdict, str]:
    return _KINDS.get(kind, _OTHER)


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
        message = f"{count(len(bad), 'file')} with several pictures, of which only one is read: the first, or of "
        message += "planes of focus the middle one"
        says = bad["note"].fillna("").where(bad["note"].fillna("") != "", bad["frames"].astype(str) + " pictures")
        remedy = "save each picture as a file of its own"
        yield Finding("several-frames", "warning", len(bad), message, remedy, examples(bad, says))


def _assumed(sound: pd.DataFrame) -> Iterator[Finding]:
    """What else was assumed of pixels."""
    bad = sound[(sound["note"].fillna("") != "") & (sound["bits"].fillna(0) == 0) & ~(sound["frames"] > 1)]
    if len(bad):
        message = f"{count(len(bad), 'image')} of which something was assumed: {bad['note'].iloc[0]}"
        remedy = "nothing, where that is right"
        yield Finding("bits-differ", "warning", len(bad), message, remedy, examples(bad, bad["note"]))


def _odd_sizes(sound: pd.DataFrame, size: tuple[int, int] | None) -> Iterator[Finding]:
    sizes = sound["width"].astype(str) + "x" + sound["height"].astype(str)
    usual = sizes.mode()[0] if size is None else f"{size[1]}x{size[0]}"
    bad = sound[sizes != usual]
    if len(bad):
        others = sizes[bad.index].nunique()
        message = f"{len(bad):,} of {len(sound):,} images are not {usual} pixels ({count(others, 'other size')})"
        remedy = f"nothing, if stretching them to {usual} is right; else crop or leave them out"
        yield Finding("odd-size", "warning", len(bad), message, remedy, examples(bad, sizes[bad.index]))


def _shrunk(sound: pd.DataFrame, size: tuple[int, int] | None) -> Iterator[Finding]:
    sizes = sound["width"].astype(str) + "x" + sound["height"].astype(str)
    usual = sizes.mode()[0] if size is None else f"{size[1]}x{size[0]}"
    width, height = map(int, usual.split("x"))
    bad = sound[(sound["width"] > SHRUNK * width) | (sound["height"] > SHRUNK * height)]
    if len(bad):
        message = f"{count(len(bad), 'image')} {'has' if len(bad) == 1 else 'have'} to shrink by more than "
        message += f"{SHRUNK:g} to {usual} pixels, and what is fine in them is lost"
        remedy = "cut them into patches of the right size, or leave them out"
        yield Finding("shrunk", "warning", len(bad), message, remedy, examples(bad, sizes[bad.index]))


def _resolutions(sound: pd.DataFrame) -> Iterator[Finding]:
    """Images of one data set at several resolutions, as far as tables or files state them."""
    known = sound[sound["resolution"].notna()].sort_values("resolution", kind="stable")
    if len(known) and known["resolution"].iloc[-1] > OFF * known["resolution"].iloc[0]:
        low, high = known["resolution"].iloc[[0, -1]]
        message = f"{count(len(known), 'image')} of {low:.3g} to {high:.3g} um per pixel"
        remedy = "bring them to one resolution: the same tissue looks otherwise at another"
        says = [f"{resolution:.3g} um/px" for resolution in known["resolution"]]
        yield Finding("resolutions-differ", "warning", len(known), message, remedy, examples(known, says))
