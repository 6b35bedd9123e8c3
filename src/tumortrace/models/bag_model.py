"""The model of slides: it takes features of all tiles of a slide where other models take an image."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch

from tumortrace.cohorts.bags import Bags
from tumortrace.errors import ModelError
from tumortrace.models.bundle import Model, Rows
from tumortrace.models.ood import MOMENTS
from tumortrace.models.runtimes import Outputs
from tumortrace.records.progress import track


class BagModel(Model):
    """A model of slides: what `assess` takes in place of images are `Bags`, all of whose tiles it looks at."""

    def require_shape(self, images: object, size: tuple[int, int] | None = None) -> None:
        """Refuse what are no bags of as many numbers a tile as the model learnt from.

        Raises:
            ModelError: They are others.
        """
        width = self.info.patch_size[1]
        if not isinstance(images, Bags) or images.shape[2] != width:
            told = f"features of {images.shape[2]} numbers a tile" if isinstance(images, Bags) else "images"
            raise ModelError(
                f"{told} for model {self.info.name}",
                expected=f"features of slides, {width} numbers a tile",
                remedy="make them with `tumortrace embed-slides`, by the body that the model learnt from",
            )

    def batch_of(self, images: int) -> int:
        """Each slide is computed by itself."""
        return 1

    @torch.inference_mode()
    def _outputs(
        self,
        images: object,
        rows: Rows,
        *,
        embed: bool,
        description: str | None = None,
        prepared: bool = False,
        batch: int | None = None,
    ) -> Outputs:
        self.require_shape(images)
        bags = cast(Bags, images)
        rows = np.arange(len(bags)) if rows is None else np.asarray(rows, dtype=np.int64)
        parts = [self._of_slide(bags, int(row), embed) for row in (track(rows, description) if description else rows)]
        if not parts:
            return Outputs(np.empty(0), np.empty((0, 0), np.float32), np.empty((0, len(self.info.sides))))
        return Outputs(*(np.concatenate(values) for values in zip(*parts, strict=True)))

    def _of_slide(self, bags: Bags, row: int, embed: bool) -> Outputs:
        tiles = bags.padded(np.array([row])).to(self.device)
        if self.info.several is None:
            logit, classes = self.network.from_maps(tiles), torch.empty(1, 0)
        else:
            logit, classes = self.network.with_classes(tiles)
        mean = bags[row].mean(0, dtype=np.float64).astype(np.float32) if embed else np.empty(0, np.float32)
        features = np.append(mean, np.zeros(MOMENTS, np.float32))[None] if embed else mean[None]  # which have no colour
        return Outputs(logit.cpu().double().numpy(), features, classes.cpu().double().numpy())
