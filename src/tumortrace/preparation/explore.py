"""A data set looked at before training: numbers, figures and one page."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from matplotlib.figure import Figure

from tumortrace.cohorts.audit import check
from tumortrace.cohorts.cohort import Cohort, ReadingOptions
from tumortrace.cohorts.layouts import open_cohort, refuse_within
from tumortrace.cohorts.looks import Looks
from tumortrace.cohorts.statistics.describe import class_names, describe_cohort, describe_sample, place
from tumortrace.cohorts.statistics.measure import Measured, describe_stains, draw_sample, measure
from tumortrace.cohorts.store import usual_size
from tumortrace.cohorts.telling import tell
from tumortrace.images.augmentation import Augmentation
from tumortrace.images.decoding import fit, read_image
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.images.stain import estimate_stains
from tumortrace.records.data import (
    ExplorationRecord,
    ShownAugmentation,
    Size,
)
from tumortrace.records.output import require_own_folder, require_same_data
from tumortrace.records.progress import say
from tumortrace.records.provenance import versions
from tumortrace.records.tables import SAMPLE
from tumortrace.reports.drawing import CENTRE
from tumortrace.reports.exploration import (
    LARGEST_OUTLINED,
    augmentation_figure,
    draw_exploration,
    edges_figure,
    mean_images_figure,
    samples_figure,
    write_exploration,
)
from tumortrace.reports.wording import called

SAMPLES, EDGES, AUGMENTED, DRAWS = 12, 4, 4, 4  # pictures per class, of edges, augmented, and how often


def explore(
    data: str | os.PathLike[str] | Cohort,
    *,
    out: Path | None = None,
    sample: int = 2000,
    seed: int = 0,
    preprocessing: Preprocessing | None = None,
    augmentation: Augmentation | None = None,
    recipe: str | None = None,
    audit: bool = True,
    **reading: Unpack[ReadingOptions],
) -> Path:
    """A folder with `report.html` to read before training, `statistics.json`, `sample.csv` and `figures/`.

    Counts are of all images. What needs their pixels is measured on a sample, drawn at random by class.

    Args:
        data: Any known layout, or an open cohort.
        out: Folder to write; default `explore-<name>`. What an earlier exploration wrote there is replaced.
        sample: Number of images to measure.
        seed: Seed of the sample, of the draws of augmentation and of bootstraps.
        preprocessing: What comes before augmentation; default none.
        augmentation: What to show the effect of; default nothing is shown.
        recipe: Name of the recipe that both belong to, for captions.
        audit: Whether to run `check` on all images, which takes most of the time, and tell its findings.
        **reading: How the data are read: options of `open_cohort`.

    Returns:
        The folder.

    Raises:
        CohortError: The data do not open, or the sample is smaller than 1.
        DataError: Not one image of the sample can be decoded.
    """
    cohort = open_cohort(data, **reading)
    folder = Path(out) if out is not None else Path(f"explore-{cohort.name}")
    require_own_folder(folder)
    before = ExplorationRecord.recognise(folder)
    require_same_data(folder, before.cohort.data if before else "", cohort.origin)
    refuse_within(folder, cohort)
    drawn = draw_sample(cohort, sample, seed)
    tell(drawn, Looks(drawn).table)
    measured = measure(drawn, size=usual_size(cohort), stains=estimate_stains)
    names = class_names(cohort)
    table, placed = place(measured.table, seed)
    pictures = _pictures(measured, cohort.bits)
    ExplorationRecord(
        tumortrace=versions()["tumortrace"],
        seed=seed,
        cohort=describe_cohort(cohort),
        sample=describe_sample(measured, names, sample),
        stains=describe_stains(measured.table),
        map=placed,
        augmentation=_augmentation_record(preprocessing, augmentation, recipe, measured.size),
        audit=[finding.to_record(examples=False) for finding in check(cohort).findings] if audit else None,
        shown={str(label): [name for name, _ in part] for label, part in pictures.items()},
    ).write(folder)
    SAMPLE.write(folder, table.drop(columns="path"))
    drawings = _draw_pictures(pictures, measured, names)
    if augmentation is not None:
        steps = preprocessing or Preprocessing()
        drawings["augmentation"] = partial(_augmented, pictures, names, measured.size, steps, augmentation, seed)
    report = write_exploration(folder, draw_exploration(folder, drawings))
    say(f"explore: {len(cohort):,} images, {len(table):,} of them measured; {report}")
    return folder


def _augmentation_record(
    preprocessing: Preprocessing | None, augmentation: Augmentation | None, recipe: str | None, usual: tuple[int, int]
) -> ShownAugmentation | None:
    if augmentation is None:
        return None
    steps = (preprocessing or Preprocessing()).model_dump(mode="json", exclude_defaults=True)
    changes = augmentation.model_dump(mode="json", exclude_defaults=True)
    size = preprocessing.output_size(usual) if preprocessing else usual
    crop = min(preprocessing.crop or max(usual), max(usual)) if preprocessing else max(usual)
    return ShownAugmentation(
        recipe=recipe,
        preprocessing=steps,
        augmentation=changes,
        draws=DRAWS,
        input_size=Size(width=size[1], height=size[0]),
        area_kept=min(crop, usual[0]) * min(crop, usual[1]) / (usual[0] * usual[1]),
    )


Pictures = dict[int, list[tuple[str, np.ndarray]]]


def _pictures(measured: Measured, bits: int | None) -> Pictures:
    """By label, the ids and pixels of the first images of the sample, which is in random order."""
    labels = measured.table["label"].fillna(2).astype(int)
    return {
        int(label): [
            (str(name), read_image(str(path), bits)) for name, path in rows[["id", "path"]].head(SAMPLES).to_numpy()
        ]
        for label, rows in measured.table.groupby(labels)
    }


def _draw_pictures(pictures: Pictures, measured: Measured, names: dict[int, str]) -> dict[str, Callable[[], Figure]]:
    """The figures of images, by name, for `write_exploration` to draw."""
    images = {label: [image for _, image in part] for label, part in pictures.items()}
    return {
        **{f"samples_{label}": partial(samples_figure, part, names[label], label) for label, part in images.items()},
        "mean_images": partial(mean_images_figure, measured.mean_images, names),
        "edges": partial(edges_figure, {label: part[:EDGES] for label, part in images.items()}, names),
    }


def _augmented(
    pictures: Pictures,
    names: dict[int, str],
    size: tuple[int, int],
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    seed: int,
) -> Figure:
    """What the network sees of some images, drawn several times, beside them at the usual size."""
    turns = [
        (called(names[label]), fit(part[turn][1], size))
        for turn in range(AUGMENTED)
        for label, part in pictures.items()
        if turn < len(part)
    ][:AUGMENTED]
    originals = np.stack([image for _, image in turns])
    prepared = np.ascontiguousarray(preprocessing.prepare(originals))
    several = torch.from_numpy(prepared).permute(0, 3, 1, 2).repeat_interleave(DRAWS, dim=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        changed = augmentation.of(preprocessing, several)
    shown = (changed.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return augmentation_figure(
        originals,
        shown.reshape(len(originals), DRAWS, *shown.shape[1:]),
        names=[name for name, _ in turns],
        centre=CENTRE if max(size) <= LARGEST_OUTLINED else 0,
        scale=shown.shape[1] / (min(size[0], preprocessing.crop or size[0]) * preprocessing.framed),
    )
