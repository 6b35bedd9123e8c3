"""What a bundle keeps of the training images so that whole sets can be compared with them: `drift.safetensors`.

Up to 2,000 rows: the features of training images along the 64 directions of `OodDetector`, spread over up to 40 slides
or patients. Of these there are numbers only, no names.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tumortrace.errors import ModelError
from tumortrace.evaluation.discrepancy import Reference, median_distance
from tumortrace.evaluation.drift import MINIMUM, judge_drift, sampled
from tumortrace.records.files import replacing, require_sha256, sha256
from tumortrace.records.metrics import Drift
from tumortrace.records.model import DESCRIPTION, DRIFT

ROWS, GROUPS = 2000, 40
FEWEST = 8  # images of a slide or patient that is kept


class DriftInfo(BaseModel):
    """What `model.json` says of it.

    Attributes:
        images: Training images that are kept.
        groups: Slides or patients that they are of; None where these are not known.
        bandwidth: Of the kernel: the median distance between two of the images.
        sha256: SHA-256 of `drift.safetensors`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int = Field(ge=2)
    groups: int | None = Field(ge=2)
    bandwidth: float = Field(gt=0, allow_inf_nan=False)
    sha256: str = ""


@dataclass(frozen=True)
class DriftReference:
    """A sample of the training images.

    Attributes:
        components: Of each, from `OodDetector.components`, float16, shape (M, K).
        group: Number of its slide or patient, or its own where these are not known, int32, shape (M,).
        info: What `model.json` says.
    """

    components: NDArray[np.float16]
    group: NDArray[np.int32]
    info: DriftInfo

    def judge(self, components: np.ndarray, group: pd.Series | None = None, images: int | None = None) -> Drift:
        """How far a set lies from them.

        Args:
            components: Of the set's images, shape (N, K).
            group: Slide or patient of each, None where not known.
            images: Of the whole set, where the components are of those that `sampled` takes of it.
        """
        rows = sampled(len(components))
        return judge_drift(
            self._reference,
            components[rows],
            None if group is None else group.iloc[rows],
            grouped=self.info.groups is not None,
            images=images or len(components),
        )

    @cached_property
    def _reference(self) -> Reference:
        return Reference(self.components, self.group, self.info.bandwidth)

    def save(self, folder: Path) -> DriftInfo:
        """Write it into a bundle; returns what `model.json` is to say."""
        with replacing(folder / DRIFT) as temporary:
            save_file({"components": self.components, "group": self.group}, temporary)
        return self.info.model_copy(update={"sha256": sha256(folder / DRIFT)})

    @classmethod
    def load(cls, folder: Path, info: DriftInfo, remedy: str) -> DriftReference:
        """Read it from a bundle.

        Raises:
            ModelError: The file is not there, was changed, or does not fit what `model.json` says.
        """
        file = folder / DRIFT
        require_sha256(file, info.sha256, DESCRIPTION, remedy)
        try:
            arrays = load_file(file)
            components, group = arrays["components"], arrays["group"]
        except (SafetensorError, KeyError) as error:
            raise ModelError(f"not a record of training images ({error})", where=file, remedy=remedy) from error
        groups = info.images if info.groups is None else info.groups
        if components.ndim != 2 or group.shape != (info.images,) or len(components) != info.images:
            fits = False
        else:
            fits = bool(np.isfinite(components).all()) and len(np.unique(group)) == groups
        if not fits:
            expected = f"{info.images} images of {groups} groups"
            raise ModelError("arrays that do not fit together", where=file, expected=expected, remedy=remedy)
        return cls(components, group, info)


def choose_images(group: pd.Series | None, first: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray | None]:
    """Which training images to keep, spread over slides or patients.

    Slides of `MINIMUM` images or more are taken first, then smaller ones, at random; those of fewer than `FEWEST` are
    never taken.

    Args:
        group: Slide or patient of each training image.
        first: Images to take first of each slide, since their features are known already, bool, shape (N,); themselves
            drawn at random.
        seed: Of the draws.

    Returns:
        Places of the images, slide by slide, in random order within it, and the number of their slide; None where
        fewer than two slides are known.

    Example:
        >>> places, slides = choose_images(pd.Series(list("ab") * 40), np.zeros(80, bool))
        >>> len(places), np.bincount(slides).tolist()
        (80, [40, 40])
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(first))
    order = order[np.argsort(~first[order], kind="stable")]
    if group is None or group.isna().any():
        return order[:ROWS], None
    sizes = group.value_counts()
    kept = sizes[sizes >= FEWEST].sort_index()
    if len(kept) < 2:
        return order[:ROWS], None
    names = kept.index.to_numpy()[random.permutation(len(kept))]
    names = names[np.argsort(kept[names].to_numpy() < MINIMUM, kind="stable")][:GROUPS]
    most, members = ROWS // len(names), group.to_numpy()[order]
    places = [order[members == name][:most] for name in names]
    return np.concatenate(places), np.repeat(np.arange(len(names)), [len(part) for part in places])


def keep_reference(components: np.ndarray, group: np.ndarray | None) -> DriftReference | None:
    """The reference of training images; None where they are too few, or most are alike.

    Args:
        components: Of the chosen images, in their order, shape (M, K).
        group: Numbers of their slides or patients, None where not known.
    """
    if len(components) < MINIMUM:
        return None
    kept = components.astype(np.float16)
    bandwidth = median_distance(kept) if np.isfinite(kept).all() else 0.0
    if bandwidth <= 0:
        return None
    groups = None if group is None else len(np.unique(group))
    numbers = np.arange(len(kept)) if group is None else group
    info = DriftInfo(images=len(kept), groups=groups, bandwidth=bandwidth)
    return DriftReference(kept, numbers.astype(np.int32), info)
