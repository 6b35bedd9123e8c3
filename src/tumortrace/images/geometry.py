"""Where the pixels of augmented images come from: symmetries of the square, affine maps, crops, hidden squares."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from tumortrace.images.preprocessing import centre

#: What lies outside the image: its border repeated, its mirror image, one value of 0 to 255 for every channel, or what
#: is there, as the image is the centre of a larger one (mirrored where that ends too).
Fill = Literal["nearest", "reflect", "surroundings"] | float


def symmetry(images: Tensor, index: int) -> Tensor:
    """Rotate by `index` % 4 quarter turns, then mirror when `index` >= 4: the dihedral group of the square.

    Args:
        images: Shape (N, C, H, W); H equals W for odd quarter turns to keep the shape.
        index: 0 to 7; 0 leaves the images as they are.

    Example:
        >>> len({tuple(symmetry(torch.arange(4.).view(1, 1, 2, 2), i).flatten().tolist()) for i in range(8)})
        8
    """
    turned = torch.rot90(images, index % 4, (2, 3))
    return turned.flip(3) if index >= 4 else turned


def symmetries(images: Tensor, indices: Tensor) -> Tensor:
    """`symmetry` with an index of its own (int, shape (N,)) for each image."""
    result = torch.empty_like(images)
    for index in range(8):
        chosen = indices == index
        if chosen.any():
            result[chosen] = symmetry(images[chosen], index)
    return result


def affine_matrix(size: tuple[int, int], rotation: Tensor, shift: Tensor, shear: Tensor, zoom: Tensor) -> Tensor:
    """Matrices that take a place in the new image to its place in the old one, around the centre.

    In this order, from new to old: zoom, shear, shift, rotation, as in Keras' ImageDataGenerator. The shear is the
    textbook one, tan(angle) along x; Keras' own also narrows the columns by cos(angle).

    Args:
        size: Height and width in pixels, so that angles are true in oblong images too.
        rotation: Degrees counter-clockwise, shape (N,).
        shift: Shares of width to the right and of height down, shape (N, 2).
        shear: Degrees by which columns lean, shape (N,).
        zoom: Shares of width and height that are shown, shape (N, 2); below 1 enlarges.

    Returns:
        Shape (N, 2, 3), for x and y as shares of width and height from the centre.

    Example:
        >>> zero, one = torch.zeros(1, 2), torch.ones(1, 2)
        >>> affine_matrix((64, 64), zero[:, 0], zero, zero[:, 0], 0.5 * one).tolist()
        [[[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]]
    """
    height, width = size
    oblong = rotation.new_tensor([[1, height / width], [width / height, 1]])
    angle, lean = torch.deg2rad(rotation), torch.tan(torch.deg2rad(shear))
    cos, sin, one, zero = torch.cos(angle), torch.sin(angle), torch.ones_like(angle), torch.zeros_like(angle)
    turned = torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2) * oblong
    sheared = torch.stack([one, lean, zero, one], 1).view(-1, 2, 2) * oblong
    return torch.cat([turned @ sheared @ torch.diag_embed(zoom), turned @ -shift[:, :, None]], 2)


def crop_matrix(matrix: Tensor, size: Tensor, centre: Tensor) -> Tensor:
    """`matrix` followed by a crop of the new image, resized to the whole.

    Args:
        matrix: Of `affine_matrix`, shape (N, 2, 3).
        size: Width and height of the crop as shares of the sides, shape (N, 2).
        centre: Its centre, as shares of the sides to the right and below the image's, shape (N, 2).
    """
    linear = matrix[:, :, :2]
    return torch.cat([linear @ torch.diag_embed(size), matrix[:, :, 2:] + linear @ centre[:, :, None]], 2)


def affine(images: Tensor, matrix: Tensor, fill: Fill, size: tuple[int, int] | None = None) -> Tensor:
    """Resample bilinearly, once, at the places that `matrix` gives.

    Args:
        images: float, shape (N, C, H, W), range [0, 1].
        matrix: See `affine_matrix`; of the centre of `size`.
        fill: See `Fill`.
        size: Height and width of the centre that is wanted, or None for the whole.

    Returns:
        Shape (N, C, *size).
    """
    height, width = size or images.shape[2:]
    shares, off = [], []
    for length, side in zip(images.shape[:1:-1], (width, height), strict=True):
        shares.append(side / length)
        off.append((2 * centre(length, side).start + side) / length - 1)  # half a pixel, where the rest is odd
    theta = matrix.to(images.dtype) * images.new_tensor([1, 1, 2])  # a grid's sides measure two
    theta = theta * images.new_tensor(shares)[:, None]
    theta[:, :, 2] += images.new_tensor(off)
    grid = functional.affine_grid(theta, [len(images), 1, height, width], align_corners=False)
    if isinstance(fill, str):
        padding = {"nearest": "border", "reflect": "reflection", "surroundings": "reflection"}[fill]
        return functional.grid_sample(images, grid, "bilinear", padding, align_corners=False).clamp(0, 1)
    level = fill / 255
    return (functional.grid_sample(images - level, grid, "bilinear", "zeros", align_corners=False) + level).clamp(0, 1)


def hide_squares(images: Tensor, centres: Tensor, side: int) -> Tensor:
    """Cutout: a square of each image takes the image's mean colour; what stands over the border is cut off.

    DeVries and Taylor (2017), "Improved regularization of convolutional neural networks with cutout", whose squares
    have the mean of the data set. The image's own mean brings no foreign stain.

    Args:
        images: float, shape (N, C, H, W).
        centres: Row and column of the pixel at the centre (for even sides the lower right of the four), shape (N, 2).
        side: Pixels.

    Example:
        >>> hide_squares(torch.eye(2).view(1, 1, 2, 2), torch.tensor([[0, 0]]), 1).flatten().tolist()
        [0.5, 0.0, 0.0, 1.0]
    """
    spans = []
    for length, middle in zip(images.shape[2:], centres.T, strict=True):
        first = middle[:, None] - side // 2
        place = torch.arange(length, device=images.device)
        spans.append((place >= first) & (place < first + side))
    hidden = spans[0][:, None, :, None] & spans[1][:, None, None, :]
    return torch.where(hidden, images.mean((2, 3), keepdim=True), images)
