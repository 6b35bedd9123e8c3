"""Resizing of whole batches, equal to Pillow's but for its rounding to 8 bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Filter = Literal["nearest", "bilinear", "bicubic", "lanczos"]

_as_products: ContextVar[bool] = ContextVar("_as_products", default=False)


@contextmanager
def as_products() -> Iterator[None]:
    """Within, `resize` multiplies by matrices alone, which every graph format has words for; the same to 1e-6.

    Matrices are made at the first call of a size, which must not be while a graph is traced.
    """
    token = _as_products.set(True)
    try:
        yield
    finally:
        _as_products.reset(token)


def resize(images: Tensor, size: tuple[int, int], filter: Filter = "bilinear") -> Tensor:
    """Images resized to `size`, antialiased but for "nearest".

    Args:
        images: float, shape (N, C, H, W), range [0, 1].
        size: Height and width wanted, in pixels.
        filter: Interpolation; "lanczos" has three lobes.

    Returns:
        The same type, shape (N, C, *size), range [0, 1]; the very same tensor where nothing was to be done.

    Example:
        >>> resize(torch.ones(1, 3, 8, 8), (20, 12), "lanczos").shape
        torch.Size([1, 3, 20, 12])
    """
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    if _as_products.get() and filter != "lanczos":
        rows, columns = (
            _weights(*lengths, filter).to(images.dtype) for lengths in zip(images.shape[-2:], size, strict=True)
        )
        return (rows @ images @ columns.T).clamp(0, 1)
    if filter == "nearest":
        return functional.interpolate(images, size, mode="nearest-exact")
    if filter == "lanczos":
        rows, columns = (_lanczos(*lengths).to(images) for lengths in zip(images.shape[-2:], size, strict=True))
        resized = rows @ (images @ columns.T).clamp(0, 1)  # between the two passes, as Pillow does
    else:
        resized = functional.interpolate(images, size, mode=filter, antialias=True, align_corners=False)
    return resized.clamp(0, 1)  # bicubic and Lanczos overshoot


@lru_cache(maxsize=32)
def _weights(length: int, wanted: int, filter: Filter) -> Tensor:
    """Weights (wanted, length) of the pixels of a line, found by resizing lines that have one pixel each."""
    lines = torch.eye(length, dtype=torch.float64)[None, None]
    if filter == "nearest":
        return functional.interpolate(lines, (length, wanted), mode="nearest-exact")[0, 0].T.contiguous()
    resized = functional.interpolate(lines, (length, wanted), mode=filter, antialias=True, align_corners=False)
    return resized[0, 0].T.contiguous()


@lru_cache(maxsize=32)
def _lanczos(length: int, wanted: int) -> Tensor:
    """Weights (wanted, length) of the pixels of a line: sinc(x) sinc(x / 3), widened when the line is shortened.

    Duchon (1979), "Lanczos filtering in one and two dimensions", J. Appl. Meteorol. 18:1016.
    """
    scale = length / wanted
    centres = (torch.arange(wanted, dtype=torch.float64) + 0.5) * scale
    distances = (torch.arange(length, dtype=torch.float64) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = torch.sinc(distances) * torch.sinc(distances / 3) * (distances.abs() < 3)
    return weights / weights.sum(dim=1, keepdim=True)
