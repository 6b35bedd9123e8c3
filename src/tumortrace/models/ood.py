"""Out-of-distribution scores: how unlike the training images an image is, by the network's features and by colour.

The features are the body's maps, averaged over positions (and over the symmetries, where the bundle averages these),
each standardised. Their distance is Mahalanobis' under the training images' covariance, shrunk as Ledoit & Wolf (2004)
do: Lee et al. (2018), "A simple unified framework for detecting out-of-distribution samples and adversarial attacks".
The covariance is kept small: the 64 directions in which training images vary most have a variance each, and all the
others share one, as in probabilistic principal components (Tipping & Bishop 1999).

A network learns to look past stain and scanner, and then no longer shows that they are strange. So the colours of the
image are measured beside: their mean, and the matrix logarithm of their covariance (Arsigny et al. 2006,
"Log-Euclidean metrics"), in which a lack of contrast or colour is as far away as an excess.
"""

from __future__ import annotations

from dataclasses import dataclass
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
MOMENTS = 9  # of colour: three means, and six covariances
PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))  # of channels
COLOUR = "colour."  # before the names of its arrays in the file
FLOOR = 3e-4  # share of the usual variance of a channel that covariances have at least, so that they have a logarithm
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
class Gaussian:
    """Centre and spread of values, as seen from which others are far.

    Attributes:
        mean: float32, shape (D,).
        scale: By which values are divided, float32, shape (D,), above 0.
        directions: Of largest variance among standardised values, orthonormal rows, float32, shape (k, D).
        variances: Along these, float32, shape (k,), above 0.
        rest: Variance along every other direction, float32, shape (1,), above 0.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    directions: NDArray[np.float32]
    variances: NDArray[np.float32]
    rest: NDArray[np.float32]

    def distance(self, values: NDArray[np.floating]) -> Floats:
        """Mahalanobis distance per root of the dimensions (about 1 for what it was fitted to), (N, D) to (N,)."""
        standard = self._standard(values)
        along = self._along(standard)
        others = np.maximum((standard**2).sum(1) - (along**2).sum(1), 0)
        squared = (along**2 / self.variances).sum(1) + others / self.rest[0]
        return np.asarray(np.sqrt(squared / standard.shape[1]))

    def components(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Standardised values along the directions of largest variance, (N, D) to float32 (N, k)."""
        return self._along(self._standard(values)).astype(np.float32)

    @property
    def sound(self) -> bool:
        """Whether the arrays fit together, and can be divided by."""
        count, dimensions = len(self.variances), len(self.mean)
        shapes = [(dimensions,), (dimensions,), (count, dimensions), (count,), (1,)]
        if [value.shape for value in vars(self).values()] != shapes:
            return False
        return bool((np.concatenate([self.scale, self.variances, self.rest]) > 0).all())

    def _standard(self, values: NDArray[np.floating]) -> Floats:
        return np.asarray((values.astype(np.float64) - self.mean) / self.scale)

    def _along(self, standard: Floats) -> Floats:
        return np.asarray(standard @ self.directions.T.astype(np.float64))


@dataclass(frozen=True)
class OodDetector:
    """What training images are like.

    Attributes:
        features: The network's features of them, D.
        colour: Their `colours`; None in bundles of before, and where features are all there is.
        floor: Of the covariance in these, float32, shape (1,); with `colour`.
        contrast: In bundles of before, which had it in place of colour: mean log contrast, and how far below it the
            limit is, float32, shape (2,).
    """

    features: Gaussian
    colour: Gaussian | None = None
    floor: NDArray[np.float32] | None = None
    contrast: NDArray[np.float32] | None = None

    @property
    def dimensions(self) -> int:
        """Features of an image."""
        return len(self.features.mean)

    @property
    def sound(self) -> bool:
        """Whether the arrays fit together, and can be divided by."""
        if self.colour is not None:
            known = self.floor is not None and self.floor.shape == (1,) and bool(self.floor[0] > 0)
            if not (known and self.colour.sound and len(self.colour.mean) == MOMENTS):
                return False
        known = self.contrast is None or (self.contrast.shape == (2,) and bool(self.contrast[1] > 0))
        return known and self.features.sound

    def score(self, measured: NDArray[np.floating], limit: float) -> Floats:
        """How strange images are, 1 being the limit, shape (N,).

        Args:
            measured: From `likeness_features`, shape (N, D + 9). Graphs exported before give (N, D + 1), the last being
                the contrast, or (N, D).
            limit: Of `distance`.
        """
        score = self.distance(measured) / limit
        if self.contrast is None or measured.shape[1] == self.dimensions:
            return score
        usual, most = self.contrast.astype(np.float64)
        lack = (usual - self._log_contrast(measured)) / most
        return np.where(lack > 1, np.maximum(score, lack), score)

    def distance(self, measured: NDArray[np.floating]) -> Floats:
        """Root mean square of the distances by features and by colour (about 1 for a training image), shape (N,)."""
        by_features = self.features.distance(measured[:, : self.dimensions])
        if self.colour is None or self.floor is None:
            return by_features
        by_colour = self.colour.distance(colours(measured[:, self.dimensions :], float(self.floor[0])))
        return np.asarray(np.sqrt((by_features**2 + by_colour**2) / 2))

    def components(self, measured: NDArray[np.floating]) -> NDArray[np.float32]:
        """Standardised features along the directions of largest variance, float32 (N, k)."""
        return self.features.components(measured[:, : self.dimensions])

    def _log_contrast(self, measured: NDArray[np.floating]) -> Floats:
        """Of the standard deviation over places, averaged over channels."""
        more = measured[:, self.dimensions :].astype(np.float64)
        if more.shape[1] == 1:
            return more[:, 0]
        return np.log(np.maximum(np.sqrt(np.maximum(_variances(more), 0)).mean(1), 1e-3))

    def save(self, folder: Path) -> str:
        """Write it into a bundle; returns the file's SHA-256."""
        arrays = {**vars(self.features), "floor": self.floor, "contrast": self.contrast}
        if self.colour is not None:
            arrays |= {f"{COLOUR}{name}": value for name, value in vars(self.colour).items()}
        known = {name: np.ascontiguousarray(value) for name, value in arrays.items() if value is not None}
        with replacing(folder / LIKENESS) as temporary:
            save_file(known, temporary)
        return sha256(folder / LIKENESS)

    @classmethod
    def load(cls, folder: Path, info: OutOfDistribution, remedy: str) -> OodDetector:
        """Read it from a bundle.

        Raises:
            ModelError: The file is not there, was changed, or does not fit what `model.json` says.
        """
        file = folder / LIKENESS
        require_sha256(file, info.sha256, DESCRIPTION, remedy)
        try:
            arrays = load_file(file)
            floor, contrast = arrays.pop("floor", None), arrays.pop("contrast", None)
            colour = {name.removeprefix(COLOUR): arrays.pop(name) for name in list(arrays) if name.startswith(COLOUR)}
            detector = cls(Gaussian(**arrays), Gaussian(**colour) if colour else None, floor, contrast)
        except (SafetensorError, TypeError) as error:
            raise ModelError(f"not a record of features ({error})", where=file, remedy=remedy) from error
        if not detector.sound or detector.dimensions != info.dimensions:
            raise ModelError(
                "arrays that do not fit together", where=file, expected=f"{info.dimensions} features", remedy=remedy
            )
        return detector


def fit_ood_detector(measured: NDArray[np.floating], directions: int = DIRECTIONS) -> OodDetector | None:
    """Fit training images' `likeness_features`, shape (N, D + 9); None with fewer than two, or features all alike.

    Where all have one colour it counts for nothing.
    """
    features, moments = measured[:, :-MOMENTS], measured[:, -MOMENTS:].astype(np.float64)
    gaussian = _fit_gaussian(features, directions)
    if gaussian is None:
        return None
    floor = np.float32(FLOOR * _variances(moments).mean())
    colour = _fit_gaussian(colours(moments, float(floor))) if floor > 0 else None
    return OodDetector(gaussian, colour, None if colour is None else floor.reshape(1))


def _fit_gaussian(values: NDArray[np.floating], directions: int = DIRECTIONS) -> Gaussian | None:
    """Centre and spread of values, shape (N, D); None with fewer than two, or where all are alike."""
    from sklearn.covariance import ledoit_wolf_shrinkage

    values = values.astype(np.float64)
    spread = values.std(0)
    if len(values) < 2 or not (spread > 0).any():
        return None
    mean = values.mean(0)
    scale = np.maximum(spread, 0.1 * np.median(spread[spread > 0]))  # a value that never stirred must not count most
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
    return Gaussian(
        mean.astype(np.float32),
        scale.astype(np.float32),
        rows[:count].astype(np.float32),
        np.maximum(variances, tiny).astype(np.float32),
        np.array([max(rest, tiny)], dtype=np.float32),
    )


def _variances(moments: Floats) -> Floats:
    """Of each channel, (N, 9) to (N, 3)."""
    return moments[:, [3 + place for place, (one, other) in enumerate(PAIRS) if one == other]]


def colours(moments: NDArray[np.floating], floor: float) -> Floats:
    """Means of the channels and the logarithm of their covariance matrix, shape (N, 9).

    Args:
        moments: Means, and covariances in the order of `PAIRS`, shape (N, 9).
        floor: Added to the variances, and what eigenvalues are at least; above 0.

    Example:
        >>> grey = np.array([[0.5, 0.5, 0.5, 0.2, 0.0, 0.0, 0.2, 0.0, 0.2]])
        >>> colours(grey, 0.8).round(3).tolist()
        [[0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    """
    moments = moments.astype(np.float64)
    matrices = np.empty((len(moments), 3, 3))
    for place, (one, other) in enumerate(PAIRS, 3):
        matrices[:, one, other] = matrices[:, other, one] = moments[:, place]
    values, vectors = np.linalg.eigh(matrices + floor * np.eye(3))
    logarithms = (vectors * np.log(np.maximum(values, floor))[:, None]) @ vectors.transpose(0, 2, 1)
    return np.column_stack([moments[:, :3], *(logarithms[:, one, other] for one, other in PAIRS)])


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
    """What `OodDetector` measures of images: `embedding`, then moments of colour, float32, shape (N, D + 9).

    Args:
        maps: Of the network's body.
        pixels: What the network takes, shape (N, 3, h, w). Its channels' means over places are taken, and their
            covariances in the order of `PAIRS`.

    Example:
        >>> import torch
        >>> likeness_features(torch.ones(2, 5, 3, 3), torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 14])
    """
    import torch  # which exported graphs do without

    channels = pixels.float().flatten(2)
    mean = channels.mean(2)
    apart = channels - mean[:, :, None]
    covariances = [(apart[:, one] * apart[:, other]).mean(1) for one, other in PAIRS]
    return torch.cat([embedding(maps), mean, torch.stack(covariances, 1)], 1)


def embedding(maps: Maps) -> Tensor:
    """Features of images, float32 (N, D): maps averaged over positions, those of an ensemble's members side by side."""
    import torch

    if isinstance(maps, torch.Tensor):
        return (maps.mean((2, 3)) if maps.ndim == 4 else maps.flatten(1)).float()
    return torch.cat([embedding(part) for part in maps], 1)
