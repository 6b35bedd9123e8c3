"""What follows the fit: calibration on its own split, predictions, metrics with intervals, the bundle."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd
import torch

from tumortrace.evaluation.abstention import trust_records
from tumortrace.evaluation.calibration import choose_calibrator
from tumortrace.evaluation.class_calibration import fit_class_calibrator, fit_class_conformal
from tumortrace.evaluation.classes import CLASS
from tumortrace.evaluation.conformal import Conformal, fit_conformal
from tumortrace.evaluation.split_record import headline, split_record
from tumortrace.evaluation.thresholds import fit_threshold
from tumortrace.models.architecture import Network
from tumortrace.models.bundle import Model, model_of
from tumortrace.models.description import Architecture, ModelInfo, SeveralClasses, TrainingData
from tumortrace.models.drift import DriftReference, choose_images, keep_reference
from tumortrace.models.ood import QUANTILE, OodDetector, OutOfDistribution, energy, fit_ood_detector
from tumortrace.records.metrics import Choice, DriftRecord, Metrics
from tumortrace.records.progress import track
from tumortrace.records.provenance import versions
from tumortrace.records.tables import PREDICTIONS
from tumortrace.reports.examples import write_examples
from tumortrace.training.experiment import Experiment
from tumortrace.training.recipe import Recipe
from tumortrace.training.task import split_rows

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
OOD_IMAGES = 2000  # enough for 64 directions
TRIAGE = 0.95  # sensitivity and specificity, see `evaluation.abstention`


def finish(experiment: Experiment, network: Network, architecture: Architecture, device: torch.device) -> str:
    """Calibrate, predict, evaluate and save a network that has learnt; returns the headline in one line.

    Calibration, threshold and conformal quantiles see the calibration split alone; validation has chosen the epoch, and
    test has chosen nothing.

    Args:
        experiment: What it has learnt; its folder takes the records.
        network: With the weights to keep.
        architecture: What builds it again.
        device: Where it computes.
    """
    run, recipe = experiment.run, experiment.recipe
    rows = split_table(experiment, EVALUATED)
    info = uncalibrated(experiment, recipe, architecture)
    if info.several is not None:
        rows = rows.rename(columns={"class_name": CLASS})
    model = model_of(info, network, device)
    prepared = experiment.material.prepared(recipe.preprocessing).images
    outputs = model.embedded(prepared, rows["row"].to_numpy(), description="predicting", prepared=True)
    learnt = _some_of_training(experiment)
    features = model.embedded(prepared, learnt, description="features", prepared=True).features
    detector = fit_ood_detector(features)
    info, table, choice = calibrate(info, recipe, rows, outputs.logit)
    if info.several is not None:
        several = calibrate_classes(info.several, recipe, table, outputs.classes)
        info = info.model_copy(update={"several": several})
    if detector is not None:
        info = info.model_copy(update={"ood": limits(detector, len(learnt), rows, outputs.logit, outputs.features)})
    drift = None if detector is None else _reference(experiment, model, detector, learnt, features)
    model = model_of(info, network, device, detector, drift=drift)
    judged = model.judge(outputs)
    if judged.ood_score is not None:
        table = table.assign(ood_score=judged.ood_score, in_distribution=judged.in_distribution)
    by_class = judged.by_class or {}
    table = table.assign(**by_class)
    info = model.save(run.model_folder).info
    written = [*COLUMNS, *([CLASS] if by_class else []), *by_class]
    PREDICTIONS.write(run.folder, table[[name for name in written if name in table]])
    parts = {name: part for name in EVALUATED if len(part := table[table["split"] == name])}
    metrics = {
        name: split_record(part, info.threshold, ordered=info.ordered)
        for name, part in track(parts.items(), "intervals", len(parts))
    }
    Metrics(metrics).write(run.folder)
    for record in trust_records(table, info.model_dump(mode="json"), choice):
        record.write(run.folder)
    shown = "test" if "test" in parts else next(iter(parts))
    if drift is not None and detector is not None:
        components = detector.components(outputs.features)
        DriftRecord(
            split=shown,
            splits={name: drift.judge(components[part.index], part.get("group")) for name, part in parts.items()},
        ).write(run.folder)
    pictures = parts[shown]
    write_examples(run.folder, pictures, experiment.material.store.pictures, pictures["row"].to_numpy(), info.classes)
    told = "test" if "test" in metrics else "validation"
    return f"{told}: {headline(metrics[told], experiment.cohort.unit)}"


def calibrate(
    info: ModelInfo, recipe: Recipe, rows: pd.DataFrame, logits: np.ndarray
) -> tuple[ModelInfo, pd.DataFrame, Choice]:
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
        return fit_conformal(label[chosen], probability[chosen], coverage, group)

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


def calibrate_classes(
    several: SeveralClasses, recipe: Recipe, table: pd.DataFrame, logits: np.ndarray
) -> SeveralClasses:
    """Fit what the recipe asks for of more than two classes, on the rows whose split is `calibration`.

    Args:
        several: The classes.
        recipe: How to calibrate.
        table: What `calibrate` gave, with `class`.
        logits: Of the classes, in the order of the rows, shape (N, K).
    """
    chosen = (table["split"] == "calibration").to_numpy()
    part, options = table[chosen], recipe.calibration
    label = part[CLASS].map({name: index for index, name in enumerate(several.names)}).to_numpy(dtype=np.int64)
    fitted = fit_class_calibrator(logits[chosen], label, several.sides, options.classes)
    shares = fitted.apply(logits[chosen], part["probability"].to_numpy(), several.sides)
    conformal = None
    if options.coverage is not None:
        group = part["group"].to_numpy() if "group" in part else None
        conformal = fit_class_conformal(label, shares, options.coverage, group, options.sets)
    return several.model_copy(update={"calibration": fitted, "conformal": conformal})


def limits(
    detector: OodDetector, images: int, rows: pd.DataFrame, logits: np.ndarray, features: np.ndarray
) -> OutOfDistribution:
    """How strange an image may be, by the images that did not train the network: those that did are too much alike.

    Validation and calibration together, since the limit is set by the strangest of them.
    """
    chosen = rows["split"].isin(("validation", "calibration")).to_numpy()
    return OutOfDistribution(
        images=images,
        dimensions=detector.dimensions,
        quantile=QUANTILE,
        limit=max(float(np.quantile(detector.distance(features[chosen]), QUANTILE)), 1e-6),
        energy_limit=float(np.quantile(energy(logits[chosen]), QUANTILE)),
    )


def _some_of_training(experiment: Experiment) -> np.ndarray:
    rows = split_rows(experiment.cohort, experiment.splits, "train")
    if len(rows) > OOD_IMAGES:
        rows = np.sort(np.random.default_rng(0).choice(rows, OOD_IMAGES, replace=False))
    return rows


def _reference(
    experiment: Experiment, model: Model, detector: OodDetector, learnt: np.ndarray, features: np.ndarray
) -> DriftReference | None:
    """Training images to compare whole sets with; those with known `features`, at `learnt`, are not run again."""
    training = split_table(experiment, ("train",))
    rows = training["row"].to_numpy()
    places, group = choose_images(training.get("group"), np.isin(rows, learnt))
    chosen = rows[places]
    more = np.setdiff1d(chosen, learnt)
    prepared = experiment.material.prepared(experiment.recipe.preprocessing).images
    fresh = model.embedded(prepared, more, description="reference", prepared=True).features
    known = np.concatenate([features, fresh.reshape(-1, features.shape[1])])
    at = {row: place for place, row in enumerate(np.concatenate([learnt, more]).tolist())}
    return keep_reference(detector.components(known[[at[row] for row in chosen.tolist()]]), group)


def split_table(experiment: Experiment, names: Collection[str]) -> pd.DataFrame:
    """The images of some splits, with `row` of the patch store, in its order."""
    cohort, splits = experiment.cohort, experiment.splits.table
    table = cohort.table.assign(row=np.arange(len(cohort))).drop(columns=["split", "group"])
    merged = splits[splits["split"].isin(names)].merge(table, on="id", how="inner", validate="one_to_one")
    return merged.sort_values("row").reset_index(drop=True)


def uncalibrated(experiment: Experiment, recipe: Recipe, architecture: Architecture) -> ModelInfo:
    """The bundle's record before calibration."""
    cohort = experiment.cohort
    training = split_rows(cohort, experiment.splits, "train")
    height, width = experiment.material.store.size
    several = None
    if cohort.class_names:
        several = SeveralClasses(names=cohort.class_names, positive=cohort.positive_names, ordered=cohort.ordered)
    return ModelInfo(
        name=experiment.run.folder.name,
        architecture=architecture,
        preprocessing=recipe.preprocessing,
        patch_size=(height, width),
        classes=cohort.classes,
        positive_class=cohort.positive_class,
        several=several,
        resolution=experiment.material.resolution,
        bits=cohort.bits,
        preparation=cohort.preparation,
        symmetries=recipe.symmetries,
        training=TrainingData(
            fingerprint=cohort.fingerprint,
            prevalence=float(cohort.table["label"].iloc[training].mean()),
            recipe=recipe.name,
        ),
        versions=versions(),
    )
