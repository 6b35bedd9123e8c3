"""The verb `predict`: predictions for any cohort, or a Kaggle submission."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import numpy as np
import pandas as pd

from tumortrace.cohorts.cohort import Cohort, ReadingOptions
from tumortrace.cohorts.layouts.kaggle import submission_ids
from tumortrace.cohorts.store import open_store
from tumortrace.errors import CohortError, PredictionsError
from tumortrace.evaluation.abstention import outside_line
from tumortrace.inference.unseen import open_data, predictions_table
from tumortrace.models.bundle import Model, load_model
from tumortrace.records.files import write_csv
from tumortrace.records.output import require_file, require_same_images
from tumortrace.records.progress import say


def predict(
    run: str | Path | Model,
    data: str | Path | Cohort,
    *,
    out: str | Path | None = None,
    submission: bool = False,
    labels: bool = False,
    device: str = "auto",
    **reading: Unpack[ReadingOptions],
) -> pd.DataFrame:
    """Predict every image of a cohort, or fill in a Kaggle submission.

    Args:
        run: Run folder or bundle, or a loaded model.
        data: Any known layout, a folder of images or a single image, or an opened cohort.
        out: CSV to write.
        submission: Give exactly the ids of the data's `sample_submission.csv`, in its order.
        labels: In a submission, 0 or 1 by the threshold instead of the probability.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        **reading: How the data are read: options of `open_cohort`.

    Returns:
        `id, label, probability, prediction, decision`, and `ood_score` and `in_distribution` where the bundle has them,
        one row per image in the cohort's order; `label` is the known one or missing. For a submission: `id, label`.

    Raises:
        PredictionsError: `labels` is given without `submission`.
        RunError: `out` cannot be written, is what is read, a file of a run's own records, or predictions of others.
        CohortError: An image of the submission is missing, or there is no `sample_submission.csv`.
        TumorTraceError: The model or the data do not open.
    """
    if labels and not submission:
        raise PredictionsError("--labels without --submission", expected="both", remedy="read the column prediction")
    if out is not None:
        require_file(Path(out), inputs=[data])
    model = run if isinstance(run, Model) else load_model(run, device=device)
    cohort = open_data(model, data, **reading)
    ids = _submission_ids(data, cohort) if submission else None
    if ids is not None:
        cohort = cohort.where(cohort.table["id"].isin(ids))
    if out is not None:
        require_same_images(Path(out), cohort.table["id"])
    store = open_store(cohort, size=model.info.patch_size)
    for note in (*cohort.notes, *store.notes):
        say(f"note: {note}")
    said = model.assess(store.images, description="predicting")
    table = predictions_table(cohort.table, [said]).drop(columns=["group", "logit"])
    warning = prevalence_warning(model, table["prediction"].to_numpy())
    if warning:
        say(warning)
    if len(table) and "in_distribution" in table:
        say(outside_line(table["in_distribution"], cohort.table["group"]))
    if ids is not None:
        table = _submission(table, ids, labels)
    if out is not None:
        write_csv(Path(out), table)
        say(f"predict: {len(table):,} rows in {out}. Research use only, not a medical device")
    return table


def prevalence_warning(model: Model, predictions: np.ndarray) -> str | None:
    """One line when the share of positive predictions is far from the share of positives in training.

    Far is: more than .15 away, or less than half, beyond what chance does to so few images (three standard errors).
    """
    if len(predictions) == 0:
        return None
    share, expected = float(np.mean(predictions)), model.info.training.prevalence
    chance = 3 * np.sqrt(max(expected * (1 - expected), 1e-4) / len(predictions))
    if abs(share - expected) <= chance or (abs(share - expected) <= 0.15 and share >= expected / 2):
        return None
    return (
        f"warning: {share:.1%} of {len(predictions):,} images are predicted {model.info.positive_class!r}, "
        f"in training {expected:.1%} were; look whether these data "
        "resemble the training data (scanner, stain, resolution, selection)"
    )


def _submission_ids(data: str | Path | Cohort, cohort: Cohort) -> list[str]:
    remedy = "give the competition's folder, with sample_submission.csv in it"
    ids = None if isinstance(data, Cohort) else submission_ids(Path(data))
    if ids is None:
        raise CohortError(
            "no sample_submission.csv there", where=data if not isinstance(data, Cohort) else cohort.name, remedy=remedy
        )
    if len(ids) != len(set(ids)):
        raise CohortError("an id stands twice", where=f"{data}, sample_submission.csv", remedy="restore the file")
    missing = sorted(set(ids) - set(cohort.table["id"]))
    if missing:
        raise CohortError(
            f"{len(missing)} of {len(ids)} ids have no image, the first {missing[0]!r}",
            where=f"{data}, sample_submission.csv",
            remedy="restore the missing images; a submission with rows lost is worth nothing",
        )
    return ids


def _submission(table: pd.DataFrame, ids: list[str], labels: bool) -> pd.DataFrame:
    chosen = table.set_index("id").loc[ids]
    value = chosen["prediction"] if labels else chosen["probability"]
    return pd.DataFrame({"id": ids, "label": value.to_numpy()})
