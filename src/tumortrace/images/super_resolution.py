"""Super-resolution of small patches: plain Lanczos, or a generator from a checkpoint file.

Wang et al. (2018), "ESRGAN: Enhanced super-resolution generative adversarial networks". What a generator adds is
likely detail, not detail that was seen. Research use only, not a medical device.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tumortrace.errors import DataError, ModelError
from tumortrace.records.files import sha256 as sha256_of
from tumortrace.records.record import Open

if TYPE_CHECKING:
    import torch
    from spandrel import ImageModelDescriptor


PIXELS_AT_ONCE = 32 * 32 * 32  # of the small images in one batch: bounds the memory whatever their size
MOST_DB = 60.0  # PSNR of a patch restored exactly, which would be infinite
_REMEDY = "give an ESRGAN or Real-ESRGAN .pth or .safetensors file, or leave `weights` out for Lanczos"


class SuperResolution(BaseModel):
    """Enlarge images by a whole factor. Part of the preprocessing.

    Attributes:
        scale: How many times larger the result is, in both directions.
        weights: File of a generator's weights (`.pth` or `.safetensors`, as ESRGAN and Real-ESRGAN are published), or
            None for Lanczos.
        sha256: SHA-256 of that file; where given, any other file is refused.

    Example:
        >>> enlarge = SuperResolution()
        >>> enlarge(np.zeros((2, 32, 32, 3), np.uint8)).shape
        (2, 128, 128, 3)
        >>> enlarge.describe()
        {'method': 'lanczos', 'scale': 4}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: int = Field(default=4, ge=2, le=8)
    weights: str | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _hash_of_something(self) -> SuperResolution:
        if self.sha256 and not self.weights:
            raise ValueError("sha256 without weights")
        return self

    def __call__(self, images: np.ndarray, *, device: str | torch.device = "cpu") -> np.ndarray:
        """Enlarge images.

        Args:
            images: uint8, shape (N, H, W, 3).
            device: Where a generator computes; Lanczos stays on the CPU.

        Returns:
            uint8, shape (N, scale * H, scale * W, 3).

        Raises:
            DataError: The images have another shape or type.
            ModelError: The file of weights is missing, another one than `sha256` says, or no generator that fits.
        """
        check_images(images)
        if self.weights is None:
            return _resized(images, self.scale, Image.Resampling.LANCZOS)
        generator = _load(self, device)
        return run_generator(generator, images, self.scale, generator.device)

    def describe(self) -> Open:
        """What the data's record says: method, scale, and of a generator architecture, file name and SHA-256.

        Raises:
            ModelError: As when called on images.
        """
        if self.weights is None:
            return {"method": "lanczos", "scale": self.scale}
        generator = _load(self, "cpu")
        return {
            "method": "generator",
            "scale": self.scale,
            "architecture": " ".join([generator.architecture.name, *generator.tags]),
            "file": Path(self.weights).name,
            "sha256": _hash(self.weights),
        }

    def pinned(self) -> SuperResolution:
        """The same with the file's SHA-256 filled in, so that no other file can take its place unnoticed."""
        return self.model_copy(update={"sha256": self.describe().get("sha256")})


def run_generator(
    generator: Callable[[torch.Tensor], torch.Tensor], images: np.ndarray, scale: int, device: torch.device
) -> np.ndarray:
    """Enlarge images by a network, batch by batch.

    Args:
        generator: From float32 (N, 3, H, W) in [0, 1] to (N, 3, scale * H, scale * W), on `device`.
        images: uint8, shape (N, H, W, 3).
        scale: How many times the network enlarges.
        device: Where it computes.

    Returns:
        uint8, shape (N, scale * H, scale * W, 3).

    Example:
        >>> import torch
        >>> twice = torch.nn.Upsample(scale_factor=2)
        >>> run_generator(twice, np.full((1, 2, 2, 3), 9, np.uint8), 2, torch.device("cpu")).shape
        (1, 4, 4, 3)
    """
    import torch

    count, height, width, _ = images.shape
    result = np.empty((count, scale * height, scale * width, 3), np.uint8)
    step = max(1, PIXELS_AT_ONCE // (height * width))
    for start in range(0, count, step):
        batch = torch.tensor(images[start : start + step]).to(device).permute(0, 3, 1, 2) / 255
        with torch.inference_mode():
            pixels = generator(batch).clamp(0, 1).mul(255).round().to(torch.uint8)
        result[start : start + step] = pixels.permute(0, 2, 3, 1).cpu().numpy()
    return result


def downsample(images: np.ndarray, scale: int) -> np.ndarray:
    """Small versions of images, by antialiased bicubic interpolation: the other half of a pair to learn from.

    Args:
        images: uint8, shape (N, H, W, 3); H and W are multiples of `scale`.
        scale: How many times smaller the result is.

    Returns:
        uint8, shape (N, H / scale, W / scale, 3).

    Example:
        >>> downsample(np.full((1, 96, 96, 3), 7, np.uint8), 4).shape
        (1, 24, 24, 3)
    """
    return _resized(images, 1 / scale, Image.Resampling.BICUBIC)


def restoration_quality(
    restore: Callable[[np.ndarray], np.ndarray], patches: np.ndarray, *, scale: int, seed: int = 0
) -> dict[str, Any]:
    """How well patches are restored from their downsampled versions, beside bicubic and Lanczos interpolation.

    PSNR in decibels and SSIM (Wang et al. 2004: Gaussian window, standard deviation 1.5) over all pixels and the three
    channels, averaged over patches; 95 % intervals by percentile bootstrap of patches (1,000 replicates). The gain
    over bicubic is paired. Patches of one slide resemble each other, which makes the intervals too narrow.

    Args:
        restore: Enlarges uint8 images of shape (N, h, w, 3) by `scale`.
        patches: uint8, shape (N, H, W, 3); cut to multiples of `scale`.
        scale: How many times the patches are reduced.
        seed: Seed of the bootstrap.

    Returns:
        `patches`, `scale`, and for `generator`, `bicubic`, `lanczos` and `gain_over_bicubic` the entries `psnr` and
        `ssim`, each `{"value": v, "ci95": [low, high]}`.

    Example:
        >>> noise = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
        >>> quality = restoration_quality(SuperResolution(), noise, scale=4)
        >>> quality["generator"] == quality["lanczos"]
        True
    """
    check_images(patches)
    height, width = (side // scale * scale for side in patches.shape[1:3])
    patches = patches[:, :height, :width]
    small = downsample(patches, scale)
    restored = {
        "generator": restore(small),
        "bicubic": _resized(small, scale, Image.Resampling.BICUBIC),
        "lanczos": _resized(small, scale, Image.Resampling.LANCZOS),
    }
    scores = {name: _scores(patches, images) for name, images in restored.items()}
    scores["gain_over_bicubic"] = scores["generator"] - scores["bicubic"]
    drawn = np.random.default_rng(seed).integers(len(patches), size=(1000, len(patches)))
    summary = {
        name: {metric: _interval(each[:, column], drawn) for column, metric in enumerate(("psnr", "ssim"))}
        for name, each in scores.items()
    }
    return {"patches": len(patches), "scale": scale, **summary}


def check_images(images: np.ndarray) -> None:
    """Refuse anything but uint8 of shape (N, H, W, 3) with pixels in it."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:3]:
        raise DataError(
            f"images of type {images.dtype} and shape {images.shape}",
            expected="uint8 of shape (N, H, W, 3)",
            remedy="give 8-bit RGB images",
        )


def _resized(images: np.ndarray, factor: float, filter: Image.Resampling) -> np.ndarray:
    height, width = (round(side * factor) for side in images.shape[1:3])
    result = np.empty((len(images), height, width, 3), np.uint8)
    for image, target in zip(images, result, strict=True):
        target[:] = Image.fromarray(image).resize((width, height), filter)
    return result


def _load(settings: SuperResolution, device: str | torch.device) -> ImageModelDescriptor:
    """The generator that `settings` names, checked to be the one meant and to fit."""
    assert settings.weights is not None
    sha256 = _hash(settings.weights)
    if settings.sha256 not in (None, sha256):
        raise ModelError(
            f"another file than meant: its SHA-256 is {sha256}",
            where=settings.weights,
            expected=settings.sha256,
            remedy="restore the file that the record names",
        )
    generator = _generator(os.path.abspath(settings.weights), sha256, str(device))
    if generator.scale != settings.scale:
        raise ModelError(
            f"a generator that enlarges {generator.scale} times",
            where=settings.weights,
            expected=f"{settings.scale} times",
            remedy=f"set `scale` to {generator.scale}, or give another file",
        )
    return generator


def _hash(weights: str) -> str:
    try:
        status = os.stat(weights)
        return _hash_unless_changed(os.path.abspath(weights), status.st_mtime_ns, status.st_size)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"not readable ({reason})", where=weights, remedy=_REMEDY) from None


@lru_cache(maxsize=8)
def _hash_unless_changed(weights: str, changed: int, size: int) -> str:
    return sha256_of(Path(weights))


@lru_cache(maxsize=2)
def _generator(weights: str, sha256: str, device: str) -> ImageModelDescriptor:
    import spandrel  # here, as it takes seconds and Lanczos does without
    import torch
    from safetensors.torch import load_file

    try:
        # Not spandrel's own reading of files: it hands TorchScript archives to a loader that runs what they hold.
        if weights.endswith(".safetensors"):
            state = load_file(weights)
        else:
            with warnings.catch_warnings(action="ignore"):  # about files that are refused in the next moment
                state = torch.load(weights, map_location="cpu", weights_only=True)
        network = spandrel.ModelLoader().load_from_state_dict(state)
    except Exception as error:  # damaged and foreign files make the loaders raise nearly anything
        reason = (str(error).splitlines() or [""])[0][:200].rstrip(" .:") or type(error).__name__
        raise ModelError(f"no checkpoint of a network known here ({reason})", where=weights, remedy=_REMEDY) from error
    channels = network.input_channels, network.output_channels
    if not isinstance(network, spandrel.ImageModelDescriptor) or network.purpose != "SR":
        found = f"a network for {network.purpose.lower()} ({network.architecture.name}), not for super-resolution"
        raise ModelError(found, where=weights, remedy=_REMEDY)
    if channels != (3, 3):
        found = f"a network with {channels[0]} channels in and {channels[1]} out"
        raise ModelError(found, where=weights, expected="3 and 3 (RGB)", remedy=_REMEDY)
    if not all(bool(torch.isfinite(each).all()) for each in network.model.parameters()):
        raise ModelError("weights that are not finite numbers", where=weights, remedy="restore the file")
    return network.to(device=torch.device(device), dtype=torch.float32).eval()


def _scores(truth: np.ndarray, restored: np.ndarray) -> np.ndarray:
    """PSNR and SSIM of each patch, shape (N, 2)."""
    from skimage.metrics import mean_squared_error, structural_similarity

    options: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    scores = np.empty((len(truth), 2))
    for row, (wanted, got) in enumerate(zip(truth, restored, strict=True)):
        error = max(mean_squared_error(wanted, got), 255**2 / 10 ** (MOST_DB / 10))
        ssim = structural_similarity(wanted, got, channel_axis=2, data_range=255, **options)
        scores[row] = 10 * np.log10(255**2 / error), ssim
    return scores


def _interval(values: np.ndarray, drawn: np.ndarray) -> dict[str, Any]:
    low, high = np.quantile(values[drawn].mean(axis=1), (0.025, 0.975))
    return {"value": float(values.mean()), "ci95": [float(low), float(high)]}
