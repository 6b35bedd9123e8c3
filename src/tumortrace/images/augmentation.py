"""Random changes to training images: whole batches of tensors at once, each image with its own draw.

Validation, calibration and test images never pass through here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from scipy.special import betaincinv
from torch import Tensor

from tumortrace.images import colour, geometry, resampling
from tumortrace.images.preprocessing import Preprocessing, centre

Probability = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(ge=0, le=10)]
Positive = Annotated[float, Field(gt=0, le=10)]
Quality = Annotated[int, Field(ge=1, le=100)]


class Augmentation(BaseModel):
    """What training images go through, in the order of the fields; an empty one changes nothing.

    Single numbers are symmetric ranges: rotation 20 draws from U(-20, 20). Pairs are ranges from low to high. Every
    image of a batch has its own draw. Zoom, crop, shift and much rotation or shear can move tumour into or out of the
    centre, and cutout can cover it; where the centre 32 px decide the label (PatchCamelyon), keep shifts to a few px.

    Attributes:
        symmetries: Draw one of the eight rotations and mirrorings of the square for each image.
        horizontal_flip: Probability of mirroring left to right.
        vertical_flip: Probability of mirroring top to bottom.
        rotation: Degrees to either side. Rotation, shift, shear, zoom and crop are one bilinear resampling.
        shift: Share of the side, horizontally and vertically.
        shear: Degrees by which columns lean. Keras' shear_range is in degrees too.
        zoom: Share of the side that is shown, drawn for width and height apart, as Keras' zoom_range: below 1
            enlarges, above 1 shows `fill` around the image.
        crop: Share of the area that is cut out somewhere and resized to the whole; torchvision's RandomResizedCrop.
        crop_ratio: Width by height of that crop, drawn evenly on a log scale.
        fill: Around the image: "nearest" repeats its border, "reflect" mirrors it, a number of 0 to 255 is one grey,
            and "surroundings" is what the patch shows around what `Preprocessing.crop` keeps of it.
        affine_probability: Share of the images that rotation, shift, shear, zoom and crop change.
        stain: Strength s of stain jitter: each stain's density is multiplied by 1 + U(-4s, 4s) and shifted
            by U(-s, s). Tellez et al. (2018), "Whole-slide mitosis detection in H&E breast histology".
        channel_shift: Added to all three channels alike, 0 to 255, and clipped to the image's own range, as in Keras.
        brightness: Factor on the pixels; this and the next three are those of torchvision's ColorJitter.
        contrast: Factor on the distance from the image's mean grey.
        saturation: Factor on the distance from each pixel's grey.
        hue: Share of the colour circle.
        blur: Standard deviation of a Gaussian in pixels of the network's input.
        blur_probability: Share of the images that are blurred.
        jpeg: Quality of a JPEG compression, or None. Runs on the CPU.
        jpeg_probability: Share of the images that are compressed.
        cutout: Side of a square that takes the image's mean colour, as share of the shorter side.
        cutout_probability: Share of the images that have such a square.
        mixup: Alpha of the Beta(alpha, alpha) by which `mix` mixes images with others of their batch; 0 for none.

    Example:
        >>> images = torch.rand(4, 3, 16, 16)
        >>> torch.equal(Augmentation()(images), images)
        True
        >>> Augmentation(rotation=20, zoom=(0.8, 1.2), fill=200)(images, torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3, 16, 16])
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    symmetries: bool = False
    horizontal_flip: Probability = 0.0
    vertical_flip: Probability = 0.0
    rotation: float = Field(default=0.0, ge=0, le=180)
    shift: float = Field(default=0.0, ge=0, le=0.5)
    shear: float = Field(default=0.0, ge=0, le=45)
    zoom: tuple[Positive, Positive] = (1.0, 1.0)
    crop: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = (1.0, 1.0)
    crop_ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    fill: geometry.Fill = "nearest"
    affine_probability: Probability = 1.0
    stain: float = Field(default=0.0, ge=0, le=0.25)
    channel_shift: float = Field(default=0.0, ge=0, le=255)
    brightness: tuple[Factor, Factor] = (1.0, 1.0)
    contrast: tuple[Factor, Factor] = (1.0, 1.0)
    saturation: tuple[Factor, Factor] = (1.0, 1.0)
    hue: float = Field(default=0.0, ge=0, le=0.5)
    blur: tuple[Factor, Factor] = (0.0, 0.0)
    blur_probability: Probability = 0.5
    jpeg: tuple[Quality, Quality] | None = None
    jpeg_probability: Probability = 0.5
    cutout: float = Field(default=0.0, ge=0, le=1)
    cutout_probability: Probability = 0.5
    mixup: float = Field(default=0.0, ge=0, le=10)

    @field_validator("zoom", "crop", "crop_ratio", "brightness", "contrast", "saturation", "blur", "jpeg")
    @classmethod
    def _ordered(cls, pair: tuple[float, float] | None) -> tuple[float, float] | None:
        if pair is not None and pair[0] > pair[1]:
            raise ValueError("the high end comes first")
        return pair

    @field_validator("fill", mode="before")
    @classmethod
    def _known_fill(cls, fill: object) -> object:
        named = ("nearest", "reflect", "surroundings")
        if fill not in named and not (isinstance(fill, int | float) and 0 <= fill <= 255):
            raise ValueError("neither nearest nor reflect nor surroundings nor a grey of 0 to 255")
        return fill

    @property
    def identity(self) -> bool:
        """Whether neither a call nor `mix` changes anything."""
        return not (self.mixup or any(self._acts(*fields) for fields, _ in _CHANGES))

    def __call__(
        self, images: Tensor, generator: torch.Generator | None = None, size: tuple[int, int] | None = None
    ) -> Tensor:
        """Augment a batch; dtype, device and range are kept, and no label changes.

        Args:
            images: float, shape (N, 3, H, W), range [0, 1].
            generator: Source of the draws, on the images' device; None is torch's own, seeded with torch.manual_seed.
            size: Height and width of the centre that is kept, around which "surroundings" look; None keeps the whole.

        Returns:
            Shape (N, 3, *size).
        """
        draw = _Draw(images, generator, size or (images.shape[2], images.shape[3]))
        for fields, change in _CHANGES:
            if self._acts(*fields):
                images = change(self, images, draw)
        return draw.kept(images)

    def of(self, steps: Preprocessing, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """`steps.pixels` of prepared patches, augmented: uint8 (N, 3, H, W) to float32 (N, 3, h, w), range [0, 1]."""
        if self.fill != "surroundings":
            return self(steps.pixels(images), generator)
        size = steps.prepared_size((images.shape[2], images.shape[3]))
        return self(steps.model_copy(update={"crop": None}).pixels(images), generator, size)

    def mix(self, images: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Mix each image, and its label, with another of the batch in a proportion of its own.

        Zhang et al. (2018), "mixup: beyond empirical risk minimization". Of the two an image keeps the larger share,
        so that none is missing from an epoch; pairs being random, mixtures are as likely as without.

        Args:
            images: float, shape (N, C, H, W); pixels or normalised ones, which makes no difference.
            labels: float, shape (N,) or (N, K), range [0, 1].
            generator: As in a call.

        Returns:
            Images and labels of the same shapes; the labels are soft.
        """
        if not self.mixup:
            return images, labels
        uniform = torch.rand(len(images), generator=generator, device=images.device)
        share = torch.from_numpy(betaincinv(self.mixup, self.mixup, uniform.double().cpu().numpy()))
        share = torch.maximum(share, 1 - share).to(images.dtype).to(images.device)
        other = torch.randperm(len(images), generator=generator, device=images.device)
        mixed = torch.lerp(images[other], images, share[:, None, None, None])
        share = share.to(labels.dtype).view(-1, *[1] * (labels.ndim - 1))
        return mixed, torch.lerp(labels[other], labels, share)

    def _acts(self, *fields: str) -> bool:
        """Whether one of these fields is set to something, and happens at all."""
        return any(
            getattr(self, field) != type(self).model_fields[field].default
            and getattr(self, _CHANCES.get(field, ""), 1) > 0
            for field in fields
        )


class _Draw:
    """Random numbers for each image of a batch, on its device and of its type."""

    def __init__(self, images: Tensor, generator: torch.Generator | None, size: tuple[int, int]) -> None:
        self.images, self.generator, self.size = images, generator, size

    def kept(self, images: Tensor) -> Tensor:
        """The centre that is wanted of images."""
        rows, columns = (centre(*sides) for sides in zip(images.shape[2:], self.size, strict=True))
        return images[:, :, rows, columns]

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Shape (N, *shape)."""
        return low + (high - low) * self._unit(shape)

    def around_zero(self, width: float, *shape: int) -> Tensor:
        """From -width to width, shape (N, *shape)."""
        return (self._unit(shape) * 2 - 1) * width

    def chance(self, probability: float) -> Tensor:
        """True with this probability, shape (N,)."""
        return self._unit(()) < probability

    def below(self, end: int) -> Tensor:
        """Whole numbers from 0 to end - 1, shape (N,)."""
        return torch.randint(0, end, (len(self.images),), generator=self.generator, device=self.images.device)

    def _unit(self, shape: tuple[int, ...]) -> Tensor:
        size = (len(self.images), *shape)
        return torch.rand(size, generator=self.generator, device=self.images.device).to(self.images.dtype)


def _symmetries(self: Augmentation, images: Tensor, draw: _Draw) -> Tensor:
    drawn = draw.below(8)
    if images.shape[2] != images.shape[3]:
        drawn = drawn // 2 * 2 % 8  # half turns and mirrorings alone keep a rectangle's shape
    return geometry.symmetries(images, drawn)


def _flip(images: Tensor, axis: int, chosen: Tensor) -> Tensor:
    return torch.where(chosen[:, None, None, None], images.flip(axis), images)


def _affine(self: Augmentation, images: Tensor, draw: _Draw) -> Tensor:
    turn = draw.around_zero(self.rotation)
    shift, lean = draw.around_zero(self.shift, 2), draw.around_zero(self.shear)
    height, width = draw.size
    matrix = geometry.affine_matrix((height, width), turn, shift, lean, draw.uniform(*self.zoom, 2))
    if self._acts("crop"):
        matrix = geometry.crop_matrix(matrix, *_crop(self, width / height, draw))
    if self.affine_probability == 1:
        return geometry.affine(images, matrix, self.fill, draw.size)
    chosen, result = draw.chance(self.affine_probability), draw.kept(images)
    if chosen.any():
        result = result.clone()
        result[chosen] = geometry.affine(images[chosen], matrix[chosen], self.fill, draw.size)
    return result


def _crop(self: Augmentation, aspect: float, draw: _Draw) -> tuple[Tensor, Tensor]:
    """Sizes and centres as shares of the sides: the first of ten draws that fits, as in torchvision, or the whole."""
    area = draw.uniform(*self.crop, 10)
    ratio = torch.exp(draw.uniform(math.log(self.crop_ratio[0]), math.log(self.crop_ratio[1]), 10)) / aspect
    sizes = torch.stack([torch.sqrt(area * ratio), torch.sqrt(area / ratio)], 2)
    fits = (sizes <= 1).all(2)
    first = fits.int().argmax(1)
    size = torch.where(fits.any(1)[:, None], sizes[torch.arange(len(sizes), device=sizes.device), first], 1)
    return size, draw.around_zero(0.5, 2) * (1 - size)


def _stain(self: Augmentation, images: Tensor, draw: _Draw) -> Tensor:
    factor = 1 + draw.around_zero(4 * self.stain, 3)
    return colour.change_stains(images, factor, draw.around_zero(self.stain, 3))


def _blur(self: Augmentation, images: Tensor, draw: _Draw) -> Tensor:
    chosen, sigma = draw.chance(self.blur_probability), draw.uniform(*self.blur)
    return _some(images, chosen, lambda some: resampling.blur(some, sigma[chosen]))


def _jpeg(self: Augmentation, images: Tensor, draw: _Draw) -> Tensor:
    assert self.jpeg is not None
    low, high = self.jpeg
    chosen, quality = draw.chance(self.jpeg_probability), low + draw.below(high - low + 1)
    return _some(images, chosen, lambda some: resampling.jpeg(some, quality[chosen]))


def _cutout(self: Augmentation, images: Tensor, draw: _Draw) -> Tensor:
    height, width = images.shape[2:]
    chosen = draw.chance(self.cutout_probability)
    centres = torch.stack([draw.below(height), draw.below(width)], 1)
    side = round(self.cutout * min(height, width))
    return torch.where(chosen[:, None, None, None], geometry.hide_squares(images, centres, side), images)


def _some(images: Tensor, chosen: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    if not chosen.any():
        return images
    result = images.clone()
    result[chosen] = change(images[chosen])
    return result


#: By which field some of the images alone are changed.
_CHANCES = {field: f"{field}_probability" for field in ("blur", "jpeg", "cutout")}
_CHANCES |= dict.fromkeys(("rotation", "zoom", "crop", "shift", "shear"), "affine_probability")

#: What is done, in this order, where one of the fields is set.
_CHANGES: tuple[tuple[tuple[str, ...], Callable[[Augmentation, Tensor, _Draw], Tensor]], ...] = (
    (("symmetries",), _symmetries),
    (("horizontal_flip",), lambda self, images, draw: _flip(images, 3, draw.chance(self.horizontal_flip))),
    (("vertical_flip",), lambda self, images, draw: _flip(images, 2, draw.chance(self.vertical_flip))),
    (("rotation", "shift", "shear", "zoom", "crop"), _affine),
    (("stain",), _stain),
    (
        ("channel_shift",),
        lambda self, images, draw: colour.shift_channels(images, draw.around_zero(self.channel_shift / 255)),
    ),
    (("brightness",), lambda self, images, draw: colour.change_brightness(images, draw.uniform(*self.brightness))),
    (("contrast",), lambda self, images, draw: colour.change_contrast(images, draw.uniform(*self.contrast))),
    (("saturation",), lambda self, images, draw: colour.change_saturation(images, draw.uniform(*self.saturation))),
    (("hue",), lambda self, images, draw: colour.turn_hue(images, draw.around_zero(self.hue))),
    (("blur",), _blur),
    (("jpeg",), _jpeg),
    (("cutout",), _cutout),
)
