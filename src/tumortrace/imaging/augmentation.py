"""Random changes to training images: whole batches of tensors at once, each image with its own draw.

Validation, calibration and test images never pass through here.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

#: Optical densities (red, green, blue) of hematoxylin, eosin and the residual, one row each.
#: Ruifrok and Johnston (2001), "Quantification of histochemical staining by color deconvolution".
STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))


class Augmentation(BaseModel):
    """What training images go through; an empty one changes nothing.

    Attributes:
        symmetries: Draw one of the eight rotations and mirrorings of the square for each image.
        stain: Strength s of stain jitter: each stain's density is multiplied by 1 + U(-4s, 4s) and shifted
            by U(-s, s). Tellez et al. (2018), "Whole-slide mitosis detection in H&E breast histology".

    Example:
        >>> images = torch.rand(4, 3, 16, 16)
        >>> torch.equal(Augmentation()(images), images)
        True
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    symmetries: bool = False
    stain: float = Field(default=0.0, ge=0, le=0.25)

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Augment float images of shape (N, 3, H, W), range [0, 1]; shape, dtype and range are kept."""
        if self.symmetries:
            images = _random_symmetry(images, generator)
        if self.stain:
            images = _stain_jitter(images, self.stain, generator)
        return images


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


def _random_symmetry(images: Tensor, generator: torch.Generator | None) -> Tensor:
    drawn = torch.randint(0, 8, (len(images),), generator=generator, device=images.device)
    if images.shape[2] != images.shape[3]:
        drawn = drawn // 2 * 2 % 8  # half turns and mirrorings alone keep a rectangle's shape
    result = torch.empty_like(images)
    for index in range(8):
        chosen = drawn == index
        if chosen.any():
            result[chosen] = symmetry(images[chosen], index)
    return result


def _stain_jitter(images: Tensor, strength: float, generator: torch.Generator | None) -> Tensor:
    to_rgb = images.new_tensor(STAINS)
    to_stains = torch.linalg.inv(to_rgb)
    shape = (len(images), 3, 1, 1)

    def draw(width: float) -> Tensor:
        return (torch.rand(shape, generator=generator, device=images.device) * 2 - 1) * width

    density = -torch.log((images * 255 + 1) / 256)
    stains = torch.einsum("nchw,cs->nshw", density, to_stains)
    stains = stains * (1 + draw(4 * strength)) + draw(strength)
    density = torch.einsum("nshw,sc->nchw", stains, to_rgb)
    return ((torch.exp(-density) * 256 - 1) / 255).clamp(0, 1)
