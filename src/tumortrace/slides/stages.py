"""From scans to patients: the size class of each slide, the patient's pN stage, and how it agrees with the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tumortrace.errors import SlideError, shown
from tumortrace.evaluation.class_measures import kappa
from tumortrace.evaluation.intervals import percentile_interval, wilson
from tumortrace.evaluation.metastases import STAGES, SizeClass, pn_stage, size_class
from tumortrace.evaluation.replicates import draws
from tumortrace.records.metrics import Estimate
from tumortrace.records.slides import PatientStage
from tumortrace.slides.foci import Grid, foci


def slide_size(grid: Grid, threshold: float, positive: bool) -> SizeClass:
    """The size class of a slide: of its longest focus at the patches' threshold, where its score calls it positive.

    A slide that is called positive without any such focus has isolated tumour cells at least. The extent of a focus is
    true to about one cell of the map, so that near .2 and 2 mm the class is no surer than the cells are small.

    Args:
        grid: Of the scan.
        threshold: At which a patch is called positive.
        positive: Whether the slide's score calls it so.
    """
    if not positive:
        return "negative"
    parts = foci(grid, threshold)
    return size_class(parts[0].extent if parts else 0.0)


def stages(table: pd.DataFrame, truth: dict[str, str] | None = None) -> list[PatientStage]:
    """Each patient's stage.

    Args:
        table: A row for each slide: `id`, `group`, `probability`, `size`, and where known `split` and `label`.
        truth: Stage of a patient as the user's table has it.

    Returns:
        By patient, in the order of their names.
    """
    patients = []
    for name, part in table.groupby("group", sort=True):
        label = part["label"].max() if "label" in part and part["label"].notna().any() else None
        patients.append(
            PatientStage(
                patient=str(name),
                split=str(part["split"].iloc[0]) if "split" in part else "",
                label=None if label is None else int(label),
                probability=float(part["probability"].max()),
                slides=dict(zip(part["id"], part["size"], strict=True)),
                stage=pn_stage(part["size"]),
                truth=(truth or {}).get(str(name)),
            )
        )
    return patients


def known_stage(text: str, where: object) -> str:
    """A stage as `STAGES` spells it.

    Raises:
        SlideError: It is none of them.

    Example:
        >>> known_stage(" PN1MI ", "slides.csv"), known_stage("pN0 (i+)", "slides.csv")
        ('pN1mi', 'pN0(i+)')
    """
    plain = "".join(text.split()).casefold()
    for stage in STAGES:
        if plain == stage.casefold():
            return stage
    raise SlideError(f"a stage {shown(text)}", where=where, expected=" or ".join(STAGES), remedy="correct it")


def agreement(patients: Sequence[PatientStage], *, replicates: int = 1000, seed: int = 0) -> Estimate | None:
    """Quadratic kappa of stages and truth, with a 95 % interval.

    Percentile bootstrap of patients; where all agree, Wilson's score of the patients on the scale from -1 to 1.

    Returns:
        None where no patient's truth is known; its value None where all are of one stage.

    Example:
        >>> patients = [PatientStage(patient="", probability=0, stage=known, truth=known) for known in ("pN0", "pN1")]
        >>> agreement(patients, replicates=9).value
        1.0
    """
    pairs = [(STAGES.index(row.truth), STAGES.index(row.stage)) for row in patients if row.truth is not None]
    if not pairs:
        return None
    counts = np.zeros((len(pairs), len(STAGES), len(STAGES)))
    for number, (truth, stage) in enumerate(pairs):
        counts[number, truth, stage] = 1
    value = float(kappa(counts.sum(0), power=2))
    if np.isnan(value):
        return Estimate(value=None, ci95=None)
    times = draws(len(pairs), replicates, seed).astype(np.float64)
    samples = kappa(np.einsum("ru,ujk->rjk", times, counts), power=2)
    ends = percentile_interval(samples)
    if value == 1:
        ends = [2 * float(wilson(len(pairs), len(pairs))[0]) - 1, 1.0]
    return Estimate(value=value, ci95=None if ends is None else (ends[0], ends[1]))
