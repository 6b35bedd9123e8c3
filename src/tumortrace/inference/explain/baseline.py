"""The patch in which nothing is to be seen: what methods compare with."""

from __future__ import annotations

from torch import Tensor


def blank(pixels: Tensor) -> Tensor:
    """Each patch's own mean colour, everywhere: no structure, and nothing that its stain or scanner does not have.

    White, as glass is, would make every pixel of tissue evidence, and means nothing in MRI; black occurs nowhere in
    a stained section; a blurred patch keeps what a dense nest of cells looks like from afar.

    Args:
        pixels: float32, shape (N, 3, h, w).

    Returns:
        float32 of the same shape.
    """
    return pixels.mean((2, 3), keepdim=True).expand_as(pixels).contiguous()
