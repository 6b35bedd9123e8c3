"""What follows the fit: calibration on its own split, predictions, metrics with intervals, the bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.splits import Splits
from tumortrace.cohorts.store import PatchStore
from tumortrace.evaluation.abstention import trust_records
from tumortrace.evaluation.calibration import choose_calibrator
from tumortrace.evaluation.conformal import fit_conformal
from tumortrace.evaluation.split_record import headline, split_record
from tumortrace.evaluation.thresholds import fit_threshold
from tumortrace.models.architecture import Network
from tumortrace.models.bundle import Model
from tumortrace.models.description import Architecture, Conformal, ModelInfo, TrainingData
from tumortrace.models.ood import QUANTILE, OodDetector, OutOfDistribution, energy, fit_ood_detector
from tumortrace.records.files import write_csv, write_json
from tumortrace.records.progress import track
from tumortrace.records.provenance import versions
from tumortrace.records.run import Run
from tumortrace.reports.examples import write_examples
from tumortrace.training.recipe import Recipe

EVALUATED = ("validation", "calibration", "test")
COLUMNS = (
    "id",
    "group",
    "split",
    "label",
    "probability",
    "prediction",
    "decision",
    "logit",
    "ood_score",
    "in_distribution",
)
LIKENESS_IMAGES = 2000  # enough for 64 directions
TRIAGE = 0.95  # sensitivity and specificity, see `evaluation.abstention`


@dataclass(frozen=True)
class Fitted:
    """A network that has learnt.

    Attributes:
        network: With the weights to keep.
        architecture: What builds it again.
        device: Where it computes.
        epochs: How many it took; 0 where there are none.
        best_epoch: Whose weights these are, from 1.
    """

    network: Network
    architecture: Architecture
    device: torch.device
    epochs: int = 0
    best_epoch: int = 0


def finish(
    run: Run, recipe: Recipe, cohort: Cohort, splits: Splits, store: PatchStore, prepared: np.ndarray, fitted: Fitted
) -> str:
    """Calibrate, predict, evaluate and save; returns the headline in one line.

    `prepared` holds the store's images after `Preprocessing.prepare`, uint8, shape (N, h, w, 3). Calibration,
    threshold and conformal quantiles see the calibration split alone; validation has chosen the epoch, and test has
    chosen nothing.
    """
    rows = _evaluated_rows(cohort, splits)
    info = uncalibrated(run, recipe, cohort, store, splits, fitted.architecture)
    model = Model(info, fitted.network, fitted.device)
    logits, features = model.embedded(prepared, rows["row"].to_numpy(), description="predicting", prepared=True)
    info, table, choice = calibrate(info, recipe, rows, logits)
    training = _training_features(model, cohort, splits, prepared)
    detector = fit_ood_detector(training)
    if detector is not None:
        info = info.model_copy(update={"ood": limits(detector, len(training), rows, logits, features)})
    model = Model(info, fitted.network, fitted.device, detector)
    found = model.judge(logits, features)
    if found.ood_score is not None:
        table = table.assign(ood_score=found.ood_score, in_distribution=found.in_distribution)
    info = model.save(run.model_folder).info
    write_csv(run.predictions_file, table[[name for name in COLUMNS if name in table]])
    parts = {name: part for name in EVALUATED if len(part := table[table["split"] == name])}
    metrics = {name: split_record(part, info.threshold) for name, part in track(parts.items(), "intervals", len(parts))}
    write_json(run.metrics_file, metrics)
    for name, record in trust_records(table, info.model_dump(mode="json"), choice).items():
        write_json(run.folder / name, record)
    shown = next(parts[name] for name in ("test", *parts) if name in parts)
    write_examples(run.folder, shown, store.images, shown["row"].to_numpy(), info.classes)
    run.update(epochs=fitted.epochs, best_epoch=fitted.best_epoch)
    return _headline(metrics)


def calibrate(
    info: ModelInfo, recipe: Recipe, rows: pd.DataFrame, logits: np.ndarray
) -> tuple[ModelInfo, pd.DataFrame, dict[str, Any]]:
    """Fit what the recipe asks for on the rows whose split is `calibration`, and apply it to all rows.

    Returns:
        The completed bundle record; `rows` with `probability`, `prediction`, `decision` and the uncalibrated `logit`;
        and how the calibration was chosen.
    """
    chosen = (rows["split"] == "calibration").to_numpy()
    label = rows["label"].to_numpy(dtype=np.int64)
    options = recipe.calibration
    group = rows["group"].to_numpy()[chosen] if "group" in rows else None
    calibrator, choice = choose_calibrator(logits[chosen], label[chosen], group, method=options.method)
    probability = calibrator.apply(logits)
    threshold = fit_threshold(label[chosen], probability[chosen], options.threshold)

    def conformal(coverage: float) -> Conformal:
        return Conformal(**fit_conformal(label[chosen], probability[chosen], coverage, group))

    info = info.model_copy(
        update={
            "calibration": calibrator,
            "threshold": threshold,
            "threshold_policy": f"{options.threshold} on the calibration split",
            "conformal": None if options.coverage is None else conformal(options.coverage),
            "triage": conformal(TRIAGE),
        }
    )
    prediction, decision = info.decide(probability)
    return info, rows.assign(probability=probability, prediction=prediction, decision=decision, logit=logits), choice


def limits(
    detector: OodDetector, images: int, rows: pd.DataFrame, logits: np.ndarray, features: np.ndarray
) -> OutOfDistribution:
    """How strange an image may be, by the images that did not train the network: those that did are too much alike.

    Validation and calibration together, since the limit is set by the strangest of them.
    """
    chosen = rows["split"].isin(("validation", "calibration")).to_numpy()
    return OutOfDistribution(
        images=images,
        dimensions=features.shape[1],
        quantile=QUANTILE,
        limit=max(float(np.quantile(detector.distance(features[chosen]), QUANTILE)), 1e-6),
        energy_limit=float(np.quantile(energy(logits[chosen]), QUANTILE)),
    )


def _training_features(model: Model, cohort: Cohort, splits: Splits, prepared: np.ndarray) -> np.ndarray:
    training = splits.table.loc[splits.table["split"] == "train", "id"]
    rows = np.flatnonzero(cohort.table["id"].isin(set(training)))
    if len(rows) > LIKENESS_IMAGES:
        rows = np.sort(np.random.default_rng(0).choice(rows, LIKENESS_IMAGES, replace=False))
    return model.embedded(prepared, rows, description="features", prepared=True)[1]


def _evaluated_rows(cohort: Cohort, splits: Splits) -> pd.DataFrame:
    table = cohort.table.assign(row=np.arange(len(cohort))).drop(columns=["split", "group"])
    merged = splits.table.merge(table, on="id", how="inner", validate="one_to_one")
    return merged[merged["split"].isin(EVALUATED)].sort_values("row").reset_index(drop=True)


def uncalibrated(
    run: Run,
    recipe: Recipe,
    cohort: Cohort,
    store: PatchStore,
    splits: Splits,
    architecture: Architecture | None = None,
) -> ModelInfo:
    """The bundle's record before calibration; `architecture` is the recipe's unless given."""
    training = cohort.table["id"].isin(splits.table.loc[splits.table["split"] == "train", "id"])
    height, width = store.size
    return ModelInfo(
        name=run.folder.name,
        architecture=architecture or recipe.model,
        preprocessing=recipe.preprocessing,
        patch_size=(height, width),
        classes=cohort.classes,
        positive_class=cohort.positive_class,
        resolution=cohort.resolution,
        preparation=cohort.preparation,
        symmetries=recipe.symmetries,
        training=TrainingData(
            fingerprint=cohort.fingerprint,
            prevalence=float(cohort.table.loc[training, "label"].mean()),
            recipe=recipe.name,
        ),
        versions=versions(),
    )


def _headline(metrics: dict[str, Any]) -> str:
    name = "test" if "test" in metrics else "validation"
    return f"{name}: {headline(metrics[name])}"
