"""Images of one split as the training loop reads them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Patches:
    """Images of one split: rows of a patch store, with labels.

    Attributes:
        images: uint8, shape (M, H, W, 3), memory-mapped, M the whole cohort; or float32 features, shape (M, ...).
        rows: int64, shape (N,): which of the images.
        labels: float32, shape (N,): 0 or 1.
        targets: float32, shape (N,), range [0, 1]: what to learn instead of the labels, or None.
        groups: Slide or patient of each, shape (N,), or None where not known.
    """

    images: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    targets: np.ndarray | None = None
    groups: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.images.shape[1], self.images.shape[2])

    def tensor(self, indices: np.ndarray, device: torch.device) -> Tensor:
        """Images (N, 3, H, W), uint8, or features, of some of the rows on a device."""
        found = torch.from_numpy(self.images[self.rows[indices]]).to(device)
        return found.permute(0, 3, 1, 2) if found.dtype == torch.uint8 else found

    def learnt(self, indices: np.ndarray) -> np.ndarray:
        """Targets of some of the rows, or their labels where there are none."""
        return (self.labels if self.targets is None else self.targets)[indices]

    def replaced(self, features: np.ndarray) -> Patches:
        """The same rows with one row of features each in place of images."""
        return replace(self, images=features, rows=np.arange(len(self.rows)))


def epoch_order(labels: np.ndarray, balanced: bool, seed: tuple[int, ...]) -> np.ndarray:
    """Order of the images of an epoch.

    Args:
        labels: 0 or 1, shape (N,).
        balanced: Whether both classes take half of the places; images of the rarer class then repeat.
        seed: Names the order.

    Returns:
        Indices, shape (N,), int64.

    Example:
        >>> order = epoch_order(np.array([1, 0, 0, 0, 0, 0]), True, (0, 1))
        >>> int((order == 0).sum()), len(set(order[order > 0]))
        (3, 3)
    """
    random = np.random.default_rng(list(seed))
    if not balanced:
        return random.permutation(len(labels))
    chosen = []
    for label, places in ((0, len(labels) - len(labels) // 2), (1, len(labels) // 2)):
        indices = np.flatnonzero(labels == label)
        rounds = -(-places // len(indices))
        chosen.append(np.concatenate([random.permutation(indices) for _ in range(rounds)])[:places])
    return random.permutation(np.concatenate(chosen))
