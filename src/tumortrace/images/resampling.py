"""What resolution, lens and file leave of whole batches: resizing (as Pillow does but for its rounding), blur, JPEG."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from tumortrace.images.preprocessing import Filter

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
        # in this order, as OpenVINO 2026.4 subtracts means along the last axis after a product of an open batch
        return (rows @ (images @ columns.T)).clamp(0, 1)
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
    lines = torch.eye(length)[None, None]  # single precision, as the weights that torch makes of such images
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


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur, each image with a width of its own; the border is repeated outwards.

    Args:
        images: float, shape (N, C, H, W).
        sigma: Standard deviations in pixels, shape (N,), at least 0; kernels end at four of the widest.

    Example:
        >>> blur(torch.ones(1, 3, 8, 8), torch.tensor([2.0])).std().item() < 1e-6
        True
    """
    n, channels, height, width = images.shape
    radius = int(4 * float(sigma.max()) + 0.5)
    places = torch.arange(-radius, radius + 1, device=images.device)
    # below a tenth of a pixel the kernel is one in floating point, and zero must not divide
    kernels = torch.exp(-0.5 * (places / sigma.clamp(min=0.01)[:, None]) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).to(images.dtype).repeat_interleave(channels, 0)[:, None, :, None]
    # the columns of all images side by side as channels of one, each with its own kernel
    flat = functional.pad(images.reshape(1, n * channels, height, width), (radius,) * 4, mode="replicate")
    flat = functional.conv2d(flat, kernels, groups=n * channels)
    flat = functional.conv2d(flat, kernels.transpose(2, 3), groups=n * channels)
    return flat.view_as(images).clamp(0, 1)


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """What is left of each image after JPEG with 4:2:0 chroma subsampling, Pillow's default.

    Runs on the CPU, whatever the device of the images: JPEG is a codec, and this one is the real one (libjpeg-turbo).

    Args:
        images: float, shape (N, 3, H, W), range [0, 1]; rounded to 256 levels.
        quality: int, shape (N,), range [1, 100].

    Example:
        >>> jpeg(torch.rand(2, 3, 16, 16), torch.tensor([50, 90])).shape
        torch.Size([2, 3, 16, 16])
    """
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    decoded = [
        imagecodecs.jpeg_decode(imagecodecs.jpeg_encode(image, level=level, subsampling="420"))
        for image, level in zip(pixels, quality.tolist(), strict=True)
    ]
    return torch.from_numpy(np.stack(decoded)).to(images.device).permute(0, 3, 1, 2).to(images.dtype) / 255
