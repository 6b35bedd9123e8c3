"""What scanners and files do to images: blur and JPEG."""

from __future__ import annotations

import imagecodecs
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


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
