"""How an error falls with the number of training images, and what more of them would bring if it went on so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PowerLaw:
    """error(n) = floor + scale * n ** -exponent. Hestness et al. (2017), "Deep learning scaling is predictable".

    Attributes:
        floor: What no number of images takes away, at least 0.
        scale: Above 0.
        exponent: At least 0; 0 where the error does not fall.
    """

    floor: float
    scale: float
    exponent: float

    def __call__(self, images: ArrayLike) -> Floats:
        """The error at these numbers of images."""
        return np.asarray(self.floor + self.scale * np.asarray(images, dtype=np.float64) ** -self.exponent)


def fit_power_law(images: ArrayLike, error: ArrayLike) -> PowerLaw | None:
    """The law that is nearest to the measured errors, in the squares of their logarithms.

    With three sizes the floor is 0, because three points would fit any curve; from four on it is fitted.

    Args:
        images: Numbers of training images, shape (n,).
        error: Such as 1 - AUROC, in [0, 1], shape (n,).

    Returns:
        None with fewer than three different sizes.

    Example:
        >>> sizes = [10, 100, 1000, 10000]
        >>> law = fit_power_law(sizes, [0.05 + 0.8 * n**-0.5 for n in sizes])
        >>> round(law.floor, 3), round(law.scale, 3), round(law.exponent, 3)
        (0.05, 0.8, 0.5)
    """
    x, y = np.asarray(images, dtype=np.float64), np.maximum(np.asarray(error, dtype=np.float64), 1e-4)
    sizes = len(np.unique(x))
    if sizes < 3:
        return None
    centre = float(np.exp(np.log(x).mean()))  # scale and exponent hardly depend on each other there

    def values(parameters: Floats) -> Floats:
        floor = parameters[2] if sizes > 3 else 0.0
        return np.asarray(np.log(floor + np.exp(parameters[0]) * (x / centre) ** -parameters[1]) - np.log(y))

    lowest = float(y.min())
    best = min(
        (
            least_squares(
                values,
                [np.log(max(np.median(y) - floor, 1e-4)), 0.3, floor],
                bounds=([-20, 0, 0], [5, 3, max(lowest, 2e-4)]),
            )
            for floor in (0.01 * lowest, 0.5 * lowest, 0.9 * lowest)
        ),
        key=lambda found: found.cost,
    )
    level, exponent, floor = best.x
    return PowerLaw(float(floor) if sizes > 3 else 0.0, float(np.exp(level) * centre**exponent), float(exponent))


def extrapolate(
    images: ArrayLike, error: ArrayLike, at: ArrayLike, *, replicates: int = 300, seed: int = 0
) -> tuple[Floats, Floats] | None:
    """The law's error at other sizes, and how far it moves when trainings of the same size are drawn anew.

    Args:
        images: Training images of each run, shape (n,).
        error: Its error, shape (n,).
        at: Sizes, shape (k,).
        replicates: Bootstrap replicates; each draws runs with replacement within every size.
        seed: Of the draws.

    Returns:
        Errors, shape (k,), and the 95 % range of the replicates, shape (k, 2); None where nothing can be fitted. The
        range knows the spread between trainings, not whether the law holds.
    """
    x, y = np.asarray(images, dtype=np.float64), np.asarray(error, dtype=np.float64)
    law = fit_power_law(x, y)
    if law is None:
        return None
    random = np.random.default_rng(seed)
    of_size = [np.flatnonzero(x == size) for size in np.unique(x)]
    drawn = []
    for _ in range(replicates):
        rows = np.concatenate([random.choice(own, len(own)) for own in of_size])
        again = fit_power_law(x[rows], y[rows])
        assert again is not None
        drawn.append(again(at))
    return law(at), np.quantile(np.array(drawn), [0.025, 0.975], axis=0).T
