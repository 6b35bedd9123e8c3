"""Arrays of pixels as PNG, and how a route answers with one."""

from __future__ import annotations

import io

import numpy as np
import torch
from fastapi import Response
from PIL import Image

from tumortrace.inference.explain import heat_map
from tumortrace.models.bundle import Model
from tumortrace.reports.explanation import heat_layer


class Png(Response):
    """An answer that is a PNG."""

    media_type = "image/png"


def as_png(pixels: np.ndarray) -> bytes:
    """A PNG, without metadata, of pixels: uint8, shape (H, W, 3) or, with transparency, (H, W, 4).

    Example:
        >>> as_png(np.zeros((2, 3, 3), np.uint8))[:8]
        b'\\x89PNG\\r\\n\\x1a\\n'
    """
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def heat_png(model: Model, image: np.ndarray, method: str, *, over_patch: bool) -> bytes:
    """The heat of a patch: over the patch, or by itself and transparent where there is none.

    Args:
        model: To be explained.
        image: uint8, shape (*patch_size, 3).
        method: A name in `METHODS`.
        over_patch: Whether to lay it over the patch.

    Raises:
        ModelError: There is no such method, or the model does not fit it.
    """
    layer = heat_layer(heat_map(model, image, method))
    if not over_patch:
        return as_png(layer)
    alone, below = Image.fromarray(layer), Image.fromarray(image).convert("RGBA")
    return as_png(np.asarray(Image.alpha_composite(below, alone).convert("RGB")))


def seen_png(model: Model, image: np.ndarray) -> bytes:
    """What the network takes in of a patch: cropped, stain-normalised, enlarged, resized, but not yet normalised.

    Args:
        model: Whose preprocessing is shown.
        image: uint8, shape (*patch_size, 3).
    """
    steps = model.info.preprocessing
    prepared = torch.from_numpy(np.ascontiguousarray(steps.prepare(image[None]))).permute(0, 3, 1, 2)
    pixels = steps.pixels(prepared)[0].permute(1, 2, 0)
    return as_png((pixels * 255).round().clamp(0, 255).to(torch.uint8).numpy())
