"""Out-of-distribution scores: how unlike the training images an image is, by the network's own features of it.

The features are the body's maps, averaged over positions (and over the symmetries, where the bundle averages these),
each standardised. Their distance is Mahalanobis' under the training images' covariance, shrunk as Ledoit & Wolf (2004)
do: Lee et al. (2018), "A simple unified framework for detecting out-of-distribution samples and adversarial attacks".
The covariance is kept small: the 64 directions in which training images vary most have a variance each, and all the
others share one, as in probabilistic principal components (Tipping & Bishop 1999). Blank glass lies within that spread,
since every patch shows some: an image of little contrast is scored by that where it is the stranger of the two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tumortrace.errors import ModelError
from tumortrace.records.files import replacing, require_sha256, sha256
from tumortrace.records.model import DESCRIPTION, LIKENESS

if TYPE_CHECKING:
    from torch import Tensor

    from tumortrace.models.architecture import Maps

DIRECTIONS = 64
QUANTILE = 0.99
FLAT = 0.005  # share of training images of too little contrast
Floats = NDArray[np.float64]


class OutOfDistribution(BaseModel):
    """What `model.json` says of it.

    Attributes:
        images: Training images that it was fitted to.
        dimensions: Features of an image.
        quantile: Share of the validation and calibration images that lie within the limits.
        limit: Distance at that quantile; the score of an image is its distance over this, so that 1 is the limit.
        energy_limit: Energy at that quantile, see `energy`.
        sha256: SHA-256 of `likeness.safetensors`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int = Field(ge=2)
    dimensions: int = Field(ge=1)
    quantile: float = Field(gt=0, lt=1)
    limit: float = Field(gt=0, allow_inf_nan=False)
    energy_limit: float = Field(allow_inf_nan=False)
    sha256: str = ""


@dataclass(frozen=True)
class OodDetector:
    """Centre and spread of the training images' features.

    Attributes:
        mean: float32, shape (D,).
        scale: By which features are divided, float32, shape (D,), above 0.
        directions: Of largest variance among standardised features, orthonormal rows, float32, shape (k, D).
        variances: Along these, float32, shape (k,), above 0.
        rest: Variance along every other direction, float32, shape (1,), above 0.
        contrast: Mean log contrast of training images, and how far below it the limit is, float32, shape (2,); None
            in bundles of before, which score features alone.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    directions: NDArray[np.float32]
    variances: NDArray[np.float32]
    rest: NDArray[np.float32]
    contrast: NDArray[np.float32] | None = None

    def score(self, features: NDArray[np.floating], limit: float) -> Floats:
        """How strange images are, 1 being the limit, shape (N,): by features, or by contrast where that is too little.

        Args:
            features: From `likeness_features`, shape (N, D + 1); graphs exported before give no contrast, (N, D).
            limit: Of `distance`.
        """
        score = self.distance(features) / limit
        if self.contrast is None or features.shape[1] == len(self.mean):
            return score
        usual, most = self.contrast.astype(np.float64)
        lack = (usual - features[:, -1]) / most
        return np.where(lack > 1, np.maximum(score, lack), score)

    def distance(self, features: NDArray[np.floating]) -> Floats:
        """Mahalanobis distance per root of the dimensions (about 1 for a training image), shape (N,)."""
        standard = self._standard(features)
        along = self._along(standard)
        others = np.maximum((standard**2).sum(1) - (along**2).sum(1), 0)
        squared = (along**2 / self.variances).sum(1) + others / self.rest[0]
        return np.asarray(np.sqrt(squared / standard.shape[1]))

    def components(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Standardised features along the directions of largest variance, (N, D) to float32 (N, k)."""
        return self._along(self._standard(features)).astype(np.float32)

    def _standard(self, features: NDArray[np.floating]) -> Floats:
        return np.asarray((features[:, : len(self.mean)].astype(np.float64) - self.mean) / self.scale)

    def _along(self, standard: Floats) -> Floats:
        return np.asarray(standard @ self.directions.T.astype(np.float64))

    def save(self, folder: Path) -> str:
        """Write it into a bundle; returns the file's SHA-256."""
        with replacing(folder / LIKENESS) as temporary:
            known = {name: value for name, value in vars(self).items() if value is not None}
            save_file({name: np.ascontiguousarray(value) for name, value in known.items()}, temporary)
        return sha256(folder / LIKENESS)

    @classmethod
    def load(cls, folder: Path, info: OutOfDistribution, remedy: str) -> OodDetector:
        """Read it from a bundle.

        Raises:
            ModelError: The file is not there, was changed, or does not fit what `model.json` says.
        """
        file, dimensions = folder / LIKENESS, info.dimensions
        require_sha256(file, info.sha256, DESCRIPTION, remedy)
        try:
            detector = cls(**load_file(file))
        except (SafetensorError, TypeError) as error:
            raise ModelError(f"not a record of features ({error})", where=file, remedy=remedy) from error
        count = len(detector.variances)
        shapes = [(dimensions,), (dimensions,), (count, dimensions), (count,), (1,)]
        above_zero = [detector.scale, detector.variances, detector.rest]
        if detector.contrast is not None:
            shapes.append((2,))
            above_zero.append(detector.contrast[1:])
        sound = [value.shape for value in vars(detector).values() if value is not None] == shapes
        if not sound or not (np.concatenate(above_zero) > 0).all():
            raise ModelError(
                "arrays that do not fit together", where=file, expected=f"{dimensions} features", remedy=remedy
            )
        return detector


def fit_ood_detector(features: NDArray[np.floating], directions: int = DIRECTIONS) -> OodDetector | None:
    """Fit training images' `likeness_features`, shape (N, D + 1); None with fewer than two, or where all are alike.

    The limit of contrast is what one training image in two hundred lies below: nothing about it was learnt from them.
    """
    detector, contrast = _fit_mahalanobis(features[:, :-1], directions), features[:, -1].astype(np.float64)
    lack = float(contrast.mean() - np.quantile(contrast, FLAT))
    if detector is None or lack < 1e-3:
        return detector
    return replace(detector, contrast=np.array([contrast.mean(), lack], dtype=np.float32))


def _fit_mahalanobis(features: NDArray[np.floating], directions: int) -> OodDetector | None:
    from sklearn.covariance import ledoit_wolf_shrinkage

    values = features.astype(np.float64)
    spread = values.std(0)
    if len(values) < 2 or not (spread > 0).any():
        return None
    mean = values.mean(0)
    scale = np.maximum(spread, 0.1 * np.median(spread[spread > 0]))  # a feature that never stirred must not count most
    standard = (values - mean) / scale
    shrinkage = float(ledoit_wolf_shrinkage(standard, assume_centered=True))
    _, singular, rows = np.linalg.svd(standard, full_matrices=False)
    count, dimensions = min(directions, len(singular)), values.shape[1]
    total = float((standard**2).sum()) / len(values)
    even = shrinkage * total / dimensions
    variances = (1 - shrinkage) * singular[:count] ** 2 / len(values) + even
    others = total - (singular[:count] ** 2).sum() / len(values)
    rest = (1 - shrinkage) * max(others, 0) / max(dimensions - count, 1) + even
    tiny = 1e-6
    return OodDetector(
        mean.astype(np.float32),
        scale.astype(np.float32),
        rows[:count].astype(np.float32),
        np.maximum(variances, tiny).astype(np.float32),
        np.array([max(rest, tiny)], dtype=np.float32),
    )


def energy(logit: NDArray[np.floating]) -> Floats:
    """Energy of images, larger is stranger. Liu et al. (2020), "Energy-based out-of-distribution detection".

    Of a softmax over two classes it is -log(exp(first) + exp(second)). These networks give the difference z of the
    two alone; with z / 2 and -z / 2 in their place, the energy says how undecided the network is, and no more.

    Example:
        >>> energy(np.array([0.0, 4.0])).round(3).tolist()
        [-0.693, -2.018]
    """
    half = np.asarray(logit, dtype=np.float64) / 2
    return np.asarray(-np.logaddexp(half, -half))


def likeness_features(maps: Maps, pixels: Tensor) -> Tensor:
    """What `OodDetector` measures of images: `embedding`, and last the log contrast, float32, shape (N, D + 1).

    Args:
        maps: Of the network's body.
        pixels: What the network takes, shape (N, 3, h, w). Its contrast is the standard deviation over places, averaged
            over channels.

    Example:
        >>> import torch
        >>> likeness_features(torch.ones(2, 5, 3, 3), torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 6])
    """
    import torch  # which exported graphs do without

    contrast = pixels.float().flatten(2).std(2, correction=0).mean(1, keepdim=True)
    return torch.cat([embedding(maps), contrast.clamp(min=1e-3).log()], 1)


def embedding(maps: Maps) -> Tensor:
    """Features of images, float32 (N, D): maps averaged over positions, those of an ensemble's members side by side."""
    import torch

    if isinstance(maps, torch.Tensor):
        return (maps.mean((2, 3)) if maps.ndim == 4 else maps.flatten(1)).float()
    return torch.cat([embedding(part) for part in maps], 1)
