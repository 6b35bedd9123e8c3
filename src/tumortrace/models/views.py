"""Test-time augmentation: which symmetries of a patch a model looks at, and how what it says of them becomes one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Views:
    """The symmetries of the square over which a model averages, as `symmetry` numbers them: first 0, which is none.

    Example:
        >>> len(Views.of((96, 96))), len(Views.of((96, 64))), len(Views())
        (8, 4, 1)
    """

    indices: tuple[int, ...] = (0,)

    @classmethod
    def of(cls, size: tuple[int, int]) -> Views:
        """All that keep the shape (height, width): a rectangle's under half turns and mirrorings alone."""
        return cls(tuple(range(8)) if size[0] == size[1] else (0, 2, 4, 6))

    def __len__(self) -> int:
        return len(self.indices)

    def each(self, images: Tensor) -> Iterator[Tensor]:
        """The views of images (N, C, h, w), one after the other."""
        from tumortrace.images.geometry import symmetry  # with torch, which exported graphs do without

        return (symmetry(images, index) for index in self.indices)

    def together(self, images: Tensor) -> Tensor:
        """All views in one batch, (views * N, C, h, w), view by view."""
        import torch

        return torch.cat(list(self.each(images)))

    def mean(self, values: Tensor) -> Tensor:
        """What a batch made by `together` gave, (views * N, ...), averaged over the views: (N, ...)."""
        return values.reshape(len(self), -1, *values.shape[1:]).mean(0)

    def mean_turned_back(self, maps: Tensor) -> Tensor:
        """`mean` of maps (views * N, 1, h, w), each turned as the images were before.

        Example:
            >>> import torch
            >>> image, views = torch.rand(1, 1, 5, 5), Views.of((5, 5))
            >>> torch.allclose(views.mean_turned_back(views.together(image)), image)
            True
        """
        import torch

        from tumortrace.images.geometry import symmetry

        parts = zip(maps.chunk(len(self)), self.indices, strict=True)
        # a mirroring undoes itself
        return torch.stack([symmetry(part, index if index >= 4 else -index % 4) for part, index in parts]).mean(0)
