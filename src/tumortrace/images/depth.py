"""How many bits of a number hold the picture: what the file states, what the user says, or what is doubtful."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from tumortrace.errors import ImageError


class Depth(NamedTuple):
    """How numbers become 8 bits.

    Attributes:
        top: The value of white.
        note: What was assumed, or is doubtful; blank where nothing is.
        likely: Bits that the numbers seem to hold where nothing states it, so that they may be much too dark; else 0.
    """

    top: float
    note: str = ""
    likely: int = 0


def depth_of(values: np.ndarray, top: float, *, stated: bool, bits: int | None, path: str | Path) -> Depth:
    """The value of white of whole numbers.

    What the file states goes before what the user says, who means the files that state nothing. Numbers that use all
    bits of their type are read so, whatever was said of the others.

    Args:
        values: Samples of the colours, unsigned or signed integers; of other types nothing is doubtful.
        top: The value of white by the file, or else by the type.
        stated: Whether the file says how many bits are used.
        bits: What the user says that numbers hold; None where nothing was said.
        path: For messages.

    Raises:
        ImageError: The values exceed what the user says and still do not use their type's range.

    Example:
        >>> dark = np.array([4000], np.uint16)
        >>> depth_of(dark, 65535.0, stated=False, bits=12, path="a.tif").top
        4095.0
        >>> depth_of(dark, 65535.0, stated=False, bits=None, path="a.tif").note
        'no value above 4000 in numbers of 16 bits: if they hold 12 bits, it was read much too dark'
    """
    full = int(top).bit_length()
    if stated or values.dtype.kind not in "ui" or full <= 8:
        return Depth(top)
    most = int(max(int(values.max(initial=0)), -1 - int(values.min(initial=0))))
    if bits is None:
        likely = next((depth for depth in (8, 10, 12, 14) if most.bit_length() <= depth), 16)
        if not most or most.bit_length() > full - 2:
            return Depth(top)
        much = f"no value above {most} in numbers of {full} bits: if they hold {likely} bits, it was read much too dark"
        return Depth(top, much, likely)
    said = min(2.0**bits - 1, top)
    if most <= said:
        return Depth(said)
    if most.bit_length() == full:
        return Depth(top, f"values up to {most} use all {full} bits, which were read, and not {bits} as was said")
    remedy = f"correct --bits (here {most.bit_length()} or more), or save the file with 8 bits"
    raise ImageError(
        f"values up to {most}", where=path, expected=f"at most {said:.0f}, as --bits {bits} says", remedy=remedy
    )


def asked_for(likely: int) -> str:
    """What is to be said where nothing tells how many bits hold a picture.

    Example:
        >>> asked_for(12)
        'say --bits 12 if they hold 12 bits, or --bits 16 if they are dark by themselves'
    """
    return f"say --bits {likely} if they hold {likely} bits, or --bits 16 if they are dark by themselves"


def to_eight_bit(values: np.ndarray, top: float, path: str | Path) -> np.ndarray:
    """Numbers of any type as uint8, scaled by the value of white and never by the range of the data."""
    if values.dtype == np.uint8 and top == 255:
        return values
    if values.dtype.kind not in "buif":
        found = f"numbers of type {values.dtype}"
        raise ImageError(found, where=path, expected="real numbers", remedy="save it with 8 or 16 bits per channel")
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if not (low >= 0 and high <= top):
        found = f"values from {low:g} to {high:g} in {values.dtype} numbers"
        raise ImageError(found, where=path, expected=f"0 to {top:g}", remedy="save it with 8 or 16 bits per channel")
    return np.rint(values.astype(np.float64) * (255 / top)).astype(np.uint8)
