"""Random states named by whole numbers, so that nothing about randomness has to be saved."""

from __future__ import annotations

import numpy as np
import torch


def seed_of(*numbers: int) -> int:
    """A seed below 2^31 that follows from whole numbers.

    Example:
        >>> seed_of(0, 7) == seed_of(0, 7), seed_of(0, 7) == seed_of(0, 8)
        (True, False)
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] >> 1)


def seed_everything(*numbers: int) -> None:
    """Seed torch's generators from a tuple of whole numbers, so that (seed, epoch, step) names one random state."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1)))
