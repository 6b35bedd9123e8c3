"""The one preprocessing that training, prediction, web page and export share."""

from __future__ import annotations

import hashlib
import json
import warnings
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from tumortrace.images.stain import normalise_stain
from tumortrace.images.super_resolution import SuperResolution

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PROCEDURE = 1  # raised whenever the same steps give other prepared images

Filter = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Triple = tuple[float, float, float]
Deviation = Annotated[float, Field(gt=0)]


class Normalisation(BaseModel):
    """What a network's inputs are shifted and scaled by: (pixel - mean) / std, channel by channel.

    Attributes:
        mean: Of pixels in [0, 1]; red, green, blue.
        std: Standard deviation, likewise.
        bgr: Whether the network takes blue first; `mean` and `std` stay in the order red, green, blue.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: Triple
    std: tuple[Deviation, Deviation, Deviation]
    bgr: bool = False


_Name = Literal["unit", "centred", "imagenet", "caffe", "inception", "dpn", "openai_clip"]

#: The statistics that the published weights of each family of networks were trained with (as in timm and Keras).
NORMALISATIONS: dict[str, Normalisation] = {
    "unit": Normalisation(mean=(0, 0, 0), std=(1, 1, 1)),
    "centred": Normalisation(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
    "imagenet": Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "caffe": Normalisation(
        mean=(123.68 / 255, 116.779 / 255, 103.939 / 255), std=(1 / 255, 1 / 255, 1 / 255), bgr=True
    ),
    "inception": Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    "dpn": Normalisation(
        mean=(124 / 255, 117 / 255, 104 / 255), std=(1 / (0.0167 * 255), 1 / (0.0167 * 255), 1 / (0.0167 * 255))
    ),
    "openai_clip": Normalisation(mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)),
}


def _kind(value: Any) -> str:
    return "name" if isinstance(value, str) else "values"


class Preprocessing(BaseModel):
    """From stored uint8 patches to what a network takes in. Part of the model bundle.

    It has two stages. `prepare` works on whole uint8 patches, each by itself and always with the same outcome, so
    that it can be done once and kept: centre crop, stain, equalisation, super-resolution, in this order. `pixels`
    and `normalise` make the network's input of prepared patches, as tensors on its device. Where `prepares` is
    false, `pixels` takes the stored patches as they are.

    Attributes:
        crop: Side in pixels of the centre square that is kept, or None for the whole patch.
        stain: Stain normalisation to a fixed reference; see `tumortrace.images.stain`.
        equalisation: Equalisation of lightness; see `tumortrace.images.preprocessing`.
        super_resolution: Enlargement of the square by a generator or by Lanczos, or None.
        size: Side in pixels to which the result is resized, or None to leave it.
        frame: Side in pixels of a larger square to which it is resized first, whose centre of `size` is taken, as some
            published bodies ask for; None resizes to `size` itself.
        filter: Interpolation of the resize; antialiased but for "nearest".
        normalisation: "unit" leaves [0, 1]; "centred" maps it to [-2, 2] and "inception" to [-1, 1] (also MobileNet
            and Xception in Keras); "imagenet" uses the ImageNet mean and standard deviation, "dpn" and "openai_clip"
            those of these networks; "caffe" puts blue first and subtracts the ImageNet mean of [0, 255] (VGG and
            ResNet in Keras). Or a mapping with `mean` and `std` of pixels in [0, 1], three values each.

    Example:
        >>> import torch
        >>> steps = Preprocessing(crop=64, size=32)
        >>> steps.normalise(steps.pixels(torch.zeros(2, 3, 96, 96, dtype=torch.uint8))).shape
        torch.Size([2, 3, 32, 32])
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop: int | None = Field(default=None, ge=8)
    stain: Literal["none", "macenko", "vahadane", "reinhard"] = "none"
    equalisation: Literal["none", "histogram", "clahe"] = "none"
    super_resolution: SuperResolution | None = None
    size: int | None = Field(default=None, ge=8)
    frame: int | None = Field(default=None, ge=8)
    filter: Filter = "bilinear"
    normalisation: Annotated[
        Annotated[_Name, Tag("name")] | Annotated[Normalisation, Tag("values")], Discriminator(_kind)
    ] = "unit"

    @property
    def framed(self) -> float:
        """Share of each side that is left of what is resized: 1 without a `frame`."""
        return self.size / self.frame if self.size and self.frame else 1.0

    @property
    def prepares(self) -> bool:
        """Whether `prepare` does more than crop, so that its outcome is worth keeping."""
        return self.stain != "none" or self.equalisation != "none" or self.super_resolution is not None

    @property
    def preparation_key(self) -> str:
        """SHA-256 over all that the outcome of `prepare` depends on, the generator's weights included."""
        steps = self.model_dump(mode="json", include={"crop", "stain", "equalisation", "super_resolution"})
        if self.super_resolution is not None:  # the weights count, not where they lie
            steps["super_resolution"] = {**self.super_resolution.describe(), "file": None}
        return hashlib.sha256(json.dumps([PROCEDURE, steps], sort_keys=True).encode()).hexdigest()

    def prepared_size(self, patch_size: tuple[int, int]) -> tuple[int, int]:
        """Height and width in pixels of what `prepare` makes of stored patches of `patch_size` (height, width)."""
        scale = self.super_resolution.scale if self.super_resolution else 1
        height, width = (min(side, self.crop or side) * scale for side in patch_size)
        return height, width

    def output_size(self, patch_size: tuple[int, int]) -> tuple[int, int]:
        """Height and width in pixels of the network's input for stored patches of `patch_size` (height, width)."""
        return (self.size, self.size) if self.size else self.prepared_size(patch_size)

    def prepare(self, images: np.ndarray, *, device: str | torch.device = "cpu") -> np.ndarray:
        """Centre crop, stain normalisation, equalisation and super-resolution of stored patches.

        An image's outcome does not depend on the others.

        Args:
            images: uint8, shape (N, H, W, 3); may be memory-mapped.
            device: Where a generator for super-resolution computes; all else is done on the CPU.

        Returns:
            uint8, shape (N, *prepared_size((H, W)), 3); a view of `images` where nothing but a crop was to be done.
        """
        return self.prepare_and_tell(images, device=device)[0]

    def prepare_and_tell(
        self, images: np.ndarray, *, device: str | torch.device = "cpu"
    ) -> tuple[np.ndarray, np.ndarray]:
        """`prepare`, and a bool array (N,): whether stain normalisation was asked for and left an image as it was."""
        rows, columns = (centre(length, self.crop) for length in images.shape[1:3])
        images = images[:, rows, columns]
        unchanged = np.zeros(len(images), bool)
        if self.stain != "none":
            images, changed = normalise_stain(images, self.stain)
            unchanged = ~changed
        if self.equalisation != "none":
            images = equalise(images, self.equalisation)
        if self.super_resolution is not None:
            images = self.super_resolution(np.ascontiguousarray(images), device=device)
        return images, unchanged

    def pixels(self, images: Tensor) -> Tensor:
        """Scaling to [0, 1] and resize of prepared patches; they are cropped where that is still to be done.

        Args:
            images: uint8, shape (N, 3, H, W), range [0, 255]; or scaled already, float32, range [0, 1].

        Returns:
            float32, shape (N, 3, h, w), range [0, 1].
        """
        side = self.crop and self.crop * (self.super_resolution.scale if self.super_resolution else 1)
        rows, columns = (centre(length, side) for length in images.shape[-2:])
        images = images[..., rows, columns]
        scaled = images if images.is_floating_point() else images.float() / 255
        if not self.size:
            return scaled
        from tumortrace.images.resampling import resize  # with torch, which exported graphs do without

        side = self.frame or self.size
        kept = centre(side, self.size)
        return resize(scaled, (side, side), self.filter)[..., kept, kept]

    @model_validator(mode="after")
    def _framed(self) -> Preprocessing:
        if self.frame is not None and (self.size is None or self.frame < self.size):
            raise ValueError(f"frame {self.frame} without a size that fits into it")
        return self

    def normalise(self, pixels: Tensor) -> Tensor:
        """Subtract the mean of `normalisation` and divide by its standard deviation, channel by channel."""
        named = isinstance(self.normalisation, str)
        values = NORMALISATIONS[self.normalisation] if named else self.normalisation  # type: ignore[index]
        assert isinstance(values, Normalisation)
        shape = (1, 3, 1, 1)
        normalised = (pixels - pixels.new_tensor(values.mean).view(shape)) / pixels.new_tensor(values.std).view(shape)
        return normalised.flip(1) if values.bgr else normalised


def centre(length: int, side: int | None) -> slice:
    """The middle `side` pixels of a line of `length`, or all of it.

    Example:
        >>> centre(96, 64)
        slice(16, 80, None)
    """
    start = max(0, (length - side) // 2) if side else 0
    return slice(start, start + side if side else length)


# Contrast: equalisation of the histogram of lightness, over the whole patch or locally.


def equalise(images: NDArray[np.uint8], method: Literal["histogram", "clahe"]) -> NDArray[np.uint8]:
    """Patches with their lightness L of CIELAB equalised; the colour coordinates a and b are kept.

    - "histogram": the whole patch's histogram in 256 bins becomes flat.
    - "clahe": contrast-limited adaptive equalisation (Zuiderveld, Graphics Gems IV, 1994) in 8 by 8 tiles, clip limit
      0.01. Both are scikit-image's.

    Args:
        images: uint8, shape (N, H, W, 3), RGB; may be memory-mapped.
        method: Which of these.

    Returns:
        uint8 of the same shape. A patch of one flat colour stays as it is.

    Example:
        >>> ramp = np.arange(100, 164, dtype=np.uint8).reshape(1, 8, 8, 1).repeat(3, axis=3)
        >>> result = equalise(ramp, "histogram")
        >>> int(np.ptp(ramp)), int(np.ptp(result))
        (63, 249)
    """
    from skimage.color import lab2rgb, rgb2lab  # here, as most models do without
    from skimage.exposure import equalize_adapthist, equalize_hist

    function = equalize_hist if method == "histogram" else equalize_adapthist

    def one(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if (image == image[0, 0]).all():
            return image
        lab = rgb2lab(image)
        lab[..., 0] = 100 * function(lab[..., 0] / 100)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Conversion from CIE-LAB")  # colours that cannot be shown
            return np.rint(lab2rgb(lab) * 255).astype(np.uint8)

    return np.stack([one(image) for image in images]) if len(images) else np.array(images)
