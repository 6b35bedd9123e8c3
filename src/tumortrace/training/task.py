"""What a learner is given: a recipe, and images with labels, or with a teacher's probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tumortrace.cohorts.bags import bags_of
from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.material import Material
from tumortrace.cohorts.seen import read_seen
from tumortrace.cohorts.splits import Splits
from tumortrace.errors import RecipeError, RunError
from tumortrace.evaluation.class_measures import WATCHED
from tumortrace.models.bundle import find_bundle, load_model
from tumortrace.records.pretraining import Pretraining
from tumortrace.records.tables import SEEN
from tumortrace.training.recipe import Recipe

_AT_ONCE = 4096  # images that are brought to a device at a time


@dataclass(frozen=True)
class Patches:
    """Images of one split: rows of a patch store, with labels.

    Attributes:
        images: uint8, shape (M, H, W, 3), memory-mapped, M the whole cohort; or float32 features, shape (M, ...); or
            in their place `Bags` of M slides.
        rows: int64, shape (N,): which of the images.
        labels: float32, shape (N,): 0 or 1.
        targets: float32, range [0, 1]: what to learn instead of the labels, shape (N,), or of more than two classes
            instead of these, shape (N, K); or None.
        groups: Slide or patient of each, shape (N,), or None where not known.
        classes: Which of more than two classes each is of, int64, shape (N,), in [0, K); None where there are two.
        positive: Which of the K classes are positive; empty where there are two.
        ids: Of the cohort, shape (N,); None where nobody asks for them, like `centres`.
        kept: The images of these rows in a device's memory, uint8, shape (N, H, W, 3); None reads them from `images`.
        centres: Where each was made, under the name of the column that says so; missing where not known.
    """

    images: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    targets: np.ndarray | None = None
    groups: np.ndarray | None = None
    classes: np.ndarray | None = None
    positive: tuple[bool, ...] = ()
    ids: np.ndarray | None = None
    centres: pd.Series | None = None
    kept: Tensor | None = None

    @property
    def kinds(self) -> np.ndarray:
        """The class of each image, int64, shape (N,): the label where there are two."""
        return self.labels.astype(np.int64) if self.classes is None else self.classes

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.images.shape[1], self.images.shape[2])

    def tensor(
        self,
        indices: np.ndarray,
        device: torch.device,
        most: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Images (N, 3, H, W), uint8, or features, of some of the rows on a device.

        Bags are filled up to one size, see `Bags.padded`; `most` and `generator` say how many tiles of each are drawn.
        """
        if bags := bags_of(self.images):
            return bags.padded(self.rows[indices], most, generator).to(device)
        if self.kept is not None:
            return self.kept[torch.from_numpy(indices).to(device, non_blocking=True)].permute(0, 3, 1, 2)
        values = torch.from_numpy(self.images[self.rows[indices]]).to(device)
        return values.permute(0, 3, 1, 2) if values.dtype == torch.uint8 else values

    @property
    def bytes(self) -> int:
        """What the images of these rows take."""
        return len(self.rows) * math.prod(self.images.shape[1:])

    def kept_on(self, device: torch.device) -> Patches:
        """The same with the images in the device's memory, of which batches are taken without a wait."""
        kept = torch.empty((len(self.rows), *self.images.shape[1:]), dtype=torch.uint8, device=device)
        for start in range(0, len(self.rows), _AT_ONCE):
            rows = self.rows[start : start + _AT_ONCE]
            kept[start : start + len(rows)] = torch.from_numpy(self.images[rows]).to(device)
        return replace(self, kept=kept)

    def learnt(self, indices: np.ndarray) -> np.ndarray:
        """What some of the rows are to teach: labels, or targets, (n,); of more than two classes 0 or 1, (n, K)."""
        if self.targets is not None:
            return self.targets[indices]
        return self.labels[indices] if self.classes is None else self.chosen[indices]

    @property
    def chosen(self) -> np.ndarray:
        """The class of each image as float32 0 or 1, shape (N, K); of more than two."""
        return np.eye(len(self.positive), dtype=np.float32)[self.kinds]

    def replaced(self, features: np.ndarray) -> Patches:
        """The same rows with one row of features each in place of images."""
        return replace(self, images=features, rows=np.arange(len(self.rows)), kept=None)


@dataclass(frozen=True)
class Task:
    """A model to make.

    Attributes:
        recipe: What to train and how.
        training: Training split; images after `Preprocessing.prepare`.
        validation: Validation split, likewise; never augmented.
        checkpoints: Folder for `last.safetensors` and `best.safetensors`.
        history_file: CSV with one row per epoch, or per candidate.
        seed: Seed of initial weights, order, augmentation and dropout.
        device: "auto", "cpu", "cuda" ...
        precision: "auto", "32" or "bf16".
        data_key: Names the images, so that features of a frozen body are kept in the cache; None keeps none.
        keep_features: Whether a frozen body sees each image once, where that makes no difference to the outcome.
    """

    recipe: Recipe
    training: Patches
    validation: Patches
    checkpoints: Path
    history_file: Path
    seed: int
    device: str = "auto"
    precision: str = "auto"
    data_key: str | None = None
    keep_features: bool = True

    @property
    def positive(self) -> tuple[bool, ...]:
        """Which of more than two classes are positive; empty where there are two."""
        return self.training.positive

    @property
    def last(self) -> Path:
        """Checkpoint of where the training stands."""
        return self.checkpoints / "last.safetensors"

    @property
    def best(self) -> Path:
        """Checkpoint of the best weights so far."""
        return self.checkpoints / "best.safetensors"

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width in pixels of what goes into the network; of bags 1 and the numbers of a tile."""
        if bags_of(self.training.images):
            return self.training.size
        one = self.training.tensor(np.zeros(1, np.int64), torch.device("cpu"))
        pixels = self.recipe.preprocessing.pixels(one)
        return pixels.shape[2], pixels.shape[3]


def require_its_kind(recipe: Recipe, cohort: Cohort) -> None:
    """Refuse a recipe for slides where the data are images, and one for images where they are features of slides.

    Raises:
        RecipeError: It is such.
    """
    if recipe.takes_features and not cohort.has_bags:
        raise RecipeError(
            f"recipe {recipe.name} for {len(cohort):,} images of {cohort.name}",
            expected="features of slides, an HDF5 file each",
            remedy="make them with `tumortrace embed-slides BODY SLIDES -o FEATURES`, and train on FEATURES",
        )
    if cohort.has_bags and not recipe.takes_features:
        raise RecipeError(
            f"recipe {recipe.name} for features of slides",
            where=cohort.name,
            expected="a recipe for slides",
            remedy="add --recipe slide-attention, or slide-mean or slide-max as controls",
        )


def require_watchable(recipe: Recipe, cohort: Cohort) -> None:
    """Refuse a recipe that watches a figure of more than two classes where there are two.

    Raises:
        RecipeError: It does.
    """
    watched = {"stopping.metric": recipe.stopping.metric}
    if recipe.schedule.name == "plateau":
        watched["schedule.metric"] = recipe.schedule.metric
    for field, metric in watched.items():
        if metric in WATCHED and not cohort.class_names:
            raise RecipeError(
                f"{field} {metric} with two classes",
                where=f"recipe {recipe.name}",
                expected="a figure of two classes, such as auroc, or data of more than two",
                remedy=f"set {field} to another",
            )


def split_patches(
    cohort: Cohort, images: np.ndarray, splits: Splits, name: str, centres: pd.Series | None = None
) -> Patches:
    """The images and labels of split `name`; `images` and `centres` have the rows of the cohort's table."""
    rows = split_rows(cohort, splits, name)
    groups = cohort.table["group"].to_numpy(dtype=str)[rows] if cohort.has_groups else None
    patches = Patches(images, rows, cohort.table["label"].to_numpy(dtype=np.float32)[rows], groups=groups)
    if centres is not None:
        patches = replace(patches, ids=cohort.table["id"].to_numpy(dtype=str)[rows], centres=centres.iloc[rows])
    if not cohort.class_names:
        return patches
    classes = cohort.kinds.iloc[rows].to_numpy(dtype=np.int64)
    positive = tuple(kind in cohort.positive_names for kind in cohort.class_names)
    return replace(patches, classes=classes, positive=positive)


def split_rows(cohort: Cohort, splits: Splits, name: str) -> np.ndarray:
    """Rows of the cohort's table (and so of its patch store) that stand in split `name`; int64."""
    chosen = set(splits.table.loc[splits.table["split"] == name, "id"])
    return np.flatnonzero(cohort.table["id"].isin(chosen))


def epoch_order(labels: np.ndarray, balanced: bool, seed: tuple[int, ...]) -> np.ndarray:
    """Order of the images of an epoch.

    Args:
        labels: The class of each image, shape (N,), whole numbers from 0.
        balanced: Whether all classes take as many places; images of the rarer ones then repeat.
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
    chosen, count = [], int(labels.max()) + 1
    for label in range(count):
        places = len(labels) // count + (label < len(labels) % count)
        indices = np.flatnonzero(labels == label)
        rounds = -(-places // len(indices))
        chosen.append(np.concatenate([random.permutation(indices) for _ in range(rounds)])[:places])
    return random.permutation(np.concatenate(chosen))


def seen_among(seen: Mapping[str, str], material: Material, splits: Splits) -> tuple[int, int]:
    """How many images of other splits than training something has learnt from, and how many there are.

    Args:
        seen: Split by digest, as `read_seen` gives them.
        material: The images.
        splits: Their splits.
    """
    kept = splits.table.loc[splits.table["split"] != "train", "id"]
    rows = np.flatnonzero(material.cohort.table["id"].isin(set(kept)))
    return sum(seen.get(material.store.digests[row]) == "train" for row in rows), len(rows)


def require_unseen(weights: str | Path, material: Material, splits: Splits) -> None:
    """Refuse weights that have learnt, by `pretrain`, from images, slides or patients that are to measure the model.

    Args:
        weights: As recipes name them; those without the record of a pre-training beside them pass.
        material: The images.
        splits: Their splits.

    Raises:
        RunError: They have, or what they have learnt from is not known, as its table is not there.
    """
    file = Path(weights).expanduser()
    folder = file if file.is_dir() else file.parent
    if not file.exists() or (record := Pretraining.find(folder)) is None:
        return
    remedy = "pre-train on this data with the same --seed, which leaves them out, or on other images"
    table = SEEN.read(folder)
    learnt, measuring = seen_among(dict(zip(table["digest"], table["split"], strict=True)), material, splits)
    if learnt:
        found = f"the weights were learnt from {learnt:,} of the {measuring:,} images that are to measure the model"
        raise RunError(found, where=weights, remedy=remedy)
    others = splits.table.loc[splits.table["split"] != "train", "group"].dropna().str.casefold()
    if shared := sorted(set(others) & set(record.groups)):
        found = (
            f"the weights were learnt from images of {len(shared):,} slides or patients that are to measure the model"
        )
        raise RunError(f"{found}, such as {shared[0]}", where=weights, remedy=remedy)


def teacher_targets(
    teacher: str | Path, material: Material, splits: Splits, training: Patches, share: float
) -> tuple[Patches, list[str]]:
    """The training images with targets (1 - share) * label + share * the teacher's calibrated probability, by class.

    Args:
        teacher: Run folder or bundle.
        material: The images.
        splits: Their splits.
        training: Images of the training split.
        share: The teacher's, in [0, 1].

    Returns:
        The images with targets, and what to say aloud.

    Raises:
        RunError: The teacher was made for other classes or another size, or has learnt from images that validate,
            calibrate or test the pupil: their measurements would flatter it.
    """
    model, cohort, store = load_model(teacher), material.cohort, material.store
    remedy = "distil from a teacher trained on this data with the same splits"
    several = model.info.several
    names = several.names if several else ()
    same = (
        model.info.classes == cohort.classes and names == cohort.class_names and model.info.sides == training.positive
    )
    if not same or model.info.patch_size != store.size:
        raise RunError(
            f"the teacher takes {model.info.patch_size} px and classes {names or model.info.classes}",
            where=teacher,
            expected=f"{store.size} px and classes {cohort.class_names or cohort.classes}",
            remedy=remedy,
        )
    seen = read_seen(SEEN.file(find_bundle(teacher).parent))
    notes = [] if seen else [f"what the teacher has learnt from is not known: its {SEEN.name} is not there"]
    learnt, measuring = seen_among(seen, material, splits)
    if learnt:
        raise RunError(
            f"the teacher has learnt from {learnt:,} of the {measuring:,} images that are to measure the pupil",
            where=teacher,
            remedy=remedy,
        )
    assessed = model.assess(store.images, training.rows, description="teacher")
    known, taught = training.labels, assessed.probability
    if several is not None:
        known, taught = training.chosen, several.shares(assessed.by_class or {})  # (N, K)
    targets = (1 - share) * known + share * taught
    notes.append(f"distilled from {model.info.name}, weights {model.info.weights_sha256[:12]}, share {share:g}")
    return replace(training, targets=targets.astype(np.float32)), notes
