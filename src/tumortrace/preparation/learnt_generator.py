"""A generator for super-resolution learnt on a cohort's training images while the cohort is prepared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.copies import exact_copies
from tumortrace.cohorts.looks import Looks
from tumortrace.cohorts.splits import assign_splits
from tumortrace.errors import DataError, ImageError, SplitError
from tumortrace.images.decoding import fit, read_image
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.images.super_resolution import SuperResolution
from tumortrace.records.progress import say, track
from tumortrace.records.record import Open

GENERATOR = "super_resolution.safetensors"
MOST_LEARNT, MOST_MEASURED = 5000, 300  # images to learn from and to measure on


def generator_request(steps: Preprocessing, learn: bool, seed: int) -> Open | None:
    """What decides how images are enlarged, known before a generator is learnt."""
    if learn:
        return {"method": "learnt", "scale": (steps.super_resolution or SuperResolution()).scale, "seed": seed}
    return None if steps.super_resolution is None else steps.super_resolution.describe()


def with_learnt_generator(
    steps: Preprocessing, cohort: Cohort, size: tuple[int, int], out: Path, seed: int, device: str
) -> tuple[Preprocessing, Cohort]:
    """The steps with a generator learnt on training images, and the cohort with the splits that say which these are.

    The generator is kept in `out` with its record. It learns from whole patches, at most 5,000, and is measured on
    validation images where there are any.

    Raises:
        SplitError: The cohort has splits but none for training, or cannot be split.
        DataError: Hardly any training image can be read.
    """
    cohort = _with_splits(cohort, seed)
    file = out / GENERATOR
    if not (file.is_file() and file.with_suffix(".json").is_file()):
        from tumortrace.preparation.learn_super_resolution import learn_super_resolution  # loads spandrel

        training = _readable(cohort, "train", size, MOST_LEARNT)
        if len(training) < 2:
            raise DataError(f"{len(training)} training images can be read", where=cohort.name, expected="more")
        measured = _readable(cohort, "validation", size, MOST_MEASURED)
        rows = np.arange(len(training) + len(measured))
        learn_super_resolution(
            np.stack(training + measured),
            rows[: len(training)],
            file,
            held_out=rows[len(training) :] if measured else None,
            scale=(steps.super_resolution or SuperResolution()).scale,
            seed=seed,
            device=device,
        )
    scale = (steps.super_resolution or SuperResolution()).scale
    learnt = SuperResolution(scale=scale, weights=str(file)).pinned()
    return steps.model_copy(update={"super_resolution": learnt}), cohort


def _with_splits(cohort: Cohort, seed: int) -> Cohort:
    if cohort.table["split"].notna().any():
        if not (cohort.table["split"] == "train").any():
            raise SplitError("no training images to learn super-resolution from", where=cohort.name, expected="some")
        return cohort
    seen = Looks(cohort).table
    splits = assign_splits(cohort, seed=seed, copies=exact_copies(cohort.table["id"], seen))
    split = cohort.table["id"].map(splits.table.set_index("id")["split"])
    note = f"split here, so that super-resolution learns from training images alone; leakage {splits.leakage}"
    say(f"note: {note}")
    return replace(cohort, table=cohort.table.assign(split=split), notes=(*cohort.notes, note))


def _readable(cohort: Cohort, split: str, size: tuple[int, int], most: int) -> list[np.ndarray]:
    """At most `most` images of a split, evenly spread; those that cannot be read are told with the others later."""
    paths: pd.Series = cohort.table.loc[(cohort.table["split"] == split).fillna(False), "path"]
    chosen = paths.iloc[np.unique(np.linspace(0, len(paths) - 1, most).astype(int))] if len(paths) else paths
    images = []
    for path in track(chosen, f"reading {split} images", total=len(chosen)):
        try:
            images.append(fit(read_image(path), size))
        except ImageError:
            continue
    return images
