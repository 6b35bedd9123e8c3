"""What a model says of images: one row each, from the logit to the decision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Assessment:
    """What a model says of N images, in their order. `Model.assess` makes it; whoever shows a prediction uses it.

    Attributes:
        logit: Uncalibrated log-odds of the positive class, float64, shape (N,).
        probability: Calibrated probability of the positive class, float64, shape (N,), range [0, 1].
        prediction: 1 where the probability reaches the bundle's threshold, else 0; int64, shape (N,).
        decision: `positive`, `negative` or `refer`, str, shape (N,).
        ood_score: How unlike the training images each is, float64, shape (N,), larger is stranger; None where the
            bundle has no such score.
        in_distribution: Whether that score stays within the bundle's limit, bool, shape (N,); None likewise.
    """

    logit: NDArray[np.float64]
    probability: NDArray[np.float64]
    prediction: NDArray[np.int64]
    decision: NDArray[np.str_]
    ood_score: NDArray[np.float64] | None = None
    in_distribution: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.probability)
