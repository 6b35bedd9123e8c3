"""The verb `train --fractions`: fresh models on growing parts of the training split, tested on the same images."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Unpack

import numpy as np
import pandas as pd

from tumortrace.cohorts.cohort import Cohort, ReadingOptions
from tumortrace.cohorts.material import Material
from tumortrace.cohorts.splits import Splits
from tumortrace.errors import RunError, SplitError
from tumortrace.evaluation.class_measures import watched
from tumortrace.evaluation.measures import MEASURES
from tumortrace.evaluation.power_law import extrapolate, fit_power_law
from tumortrace.records.metrics import Estimate, Metrics
from tumortrace.records.plans import CurvePoint, CurveRun, CurveSize, Law, LearningCurveRecord, Spread
from tumortrace.records.provenance import RESEARCH_USE
from tumortrace.records.run import Run
from tumortrace.records.tables import LEARNING_CURVE, SUBSETS
from tumortrace.reports.wording import decimals
from tumortrace.training.experiment import Experiment, begun_in, take_up
from tumortrace.training.learner import seed_of
from tumortrace.training.recipe import Recipe, choose_recipe
from tumortrace.training.train import fit_part, fit_parts
from tumortrace.work.hands import Hands
from tumortrace.work.worker import Tell

VERB = "learning-curve"
LOOKED_AT = 4  # units, richer in positives and poorer, among which the next one is chosen for balance
AHEAD = (2, 4)  # times the largest number of training images
METHOD = {
    "runs": "Each model's own interval is that of its metrics.json, over the images of the test split. Beside it stand "
    "mean and standard deviation over repeats, which differ in training images and seed and share the test split.",
    "law": "1 - AUROC = floor + scale n^-exponent, least squares in logarithms over all runs (floor 0 with three "
    "sizes). Ranges are percentiles of 300 replicates that draw runs anew within each size: they know the spread "
    "between trainings, not whether the law goes on, nor the uncertainty of the test split; with a single model of a "
    "size there is none.",
}


def learning_curve(
    data: str | Path | Cohort,
    fractions: Sequence[float],
    *,
    repeats: int = 3,
    recipe: str | Path | Recipe = "tumortrace",
    changes: Sequence[str] = (),
    epochs: int | None = None,
    weights: str | Path | None = None,
    out: str | Path = "runs",
    seed: int = 0,
    split_seed: int | None = None,
    split: str = "group",
    allow: Sequence[str] = (),
    device: str = "auto",
    precision: str = "auto",
    workers: int = 1,
    cluster: str | None = None,
    **reading: Unpack[ReadingOptions],
) -> Path:
    """Train a recipe on growing parts of the training split, several times, and fit how its error falls.

    Validation, calibration and test are the same images throughout. Parts are nested within a repeat, made of whole
    groups where these are known, and drawn anew for each repeat.

    Args:
        data: Any known layout, or an opened cohort.
        fractions: Shares of the training split, above 0 and at most 1.
        repeats: How often parts are drawn and models trained.
        recipe: As for `train`, like all that follow.
        changes: `key=value` each.
        epochs: Instead of the recipe's number of epochs.
        weights: Instead of the recipe's.
        out: Folder in which the folder of the learning curve is made.
        seed: Seed of the splits, and with repeat and share that of each model.
        split_seed: Seed of the splits alone.
        split: "group" or "random".
        allow: Findings of `check` to train in spite of.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: "auto", "32" or "bf16".
        workers: Processes among which the models are divided, each with one thread.
        cluster: Divide them on a Ray cluster instead: `local`, `auto` or HOST:PORT.
        **reading: How the data are read: options of `open_cohort`.

    Returns:
        The folder, with `learning_curve.csv`, `learning_curve.json`, `report.html`, and an ordinary run folder for
        each model under `models/<repeat>-<share>/`.

    Raises:
        TumorTraceError: The data, the recipe or the machine do not allow it.
    """
    hands = Hands(workers, cluster)
    if repeats < 1:
        raise SplitError(f"--repeats {repeats}", expected="1 or more", remedy="use 3")
    chosen, changes = choose_recipe(recipe, changes, epochs, weights)
    shares = sorted(fractions)

    def divide(material: Material) -> Splits:
        splits = material.divide(split, seed if split_seed is None else split_seed, chosen.splits)
        if not (splits.table["split"] == "test").any():
            remedy = "give the recipe's splits a share for test"
            raise SplitError("no test split", where=material.cohort.name, remedy=remedy)
        return splits

    experiment = Experiment.begin(
        VERB,
        data,
        chosen,
        reading,
        name=f"learning-curve-{chosen.name}",
        out=out,
        split=split,
        allow=allow,
        divide=divide,
        told={"fractions": ",".join(f"{100 * share:g}%" for share in shares)},
        recipe=chosen.name,
        set=changes,
        fractions=shares,
        repeats=repeats,
        seed=seed,
        split_seed=split_seed,
        device=device,
        precision=precision,
    )
    parts, notes = _parts(experiment.cohort, experiment.splits, shares, repeats, seed)
    experiment.keep()
    SUBSETS.write(experiment.run.folder, parts)
    experiment.note([*experiment.run.record.data.notes, *notes, *experiment.admission.lines])
    return _carry_out(experiment, hands)


def resume_learning_curve(
    folder: str | Path, data: str | Path | Cohort | None = None, *, workers: int = 1, cluster: str | None = None
) -> Path:
    """Go on with a learning curve that was interrupted or killed: finished models stay, one that was begun is resumed.

    Args:
        folder: Its folder.
        data: Where the data are now, if they were moved; the cohort, where one was given that was opened already.
        workers: Processes among which the models are divided, each with one thread.
        cluster: Divide them on a Ray cluster instead.

    Raises:
        RunError: The folder is no learning curve, or the data have changed since.
    """
    hands, experiment = Hands(workers, cluster), _taken_up(folder, data)
    return Path(folder) if experiment is None else _carry_out(experiment, hands)


def _taken_up(folder: str | Path, data: str | Path | Cohort | None = None) -> Experiment | None:
    called, call = "a folder of `train --fractions`", "resume_learning_curve(folder, data=cohort)"
    return take_up(folder, VERB, called, data, call)


def _carry_out(experiment: Experiment, hands: Hands) -> Path:
    run = experiment.run
    parts = SUBSETS.read(run.folder)
    models = [(repeat, fraction) for repeat, fraction, _ in _each_part(parts)]
    with experiment.recorded():
        fit_parts(
            _fit, models, experiment, partial(_taken_up, run.folder), [_place(run, *one) for one in models], hands
        )
        return _conclude(experiment, parts)


def _fit(experiment: Experiment, model: tuple[int, float], _: Tell) -> None:
    """Train the model of a repeat and share, or go on with it."""
    run, splits, (repeat, fraction) = experiment.run, experiment.splits, model
    rows = next(rows for *which, rows in _each_part(SUBSETS.read(run.folder)) if tuple(which) == model)
    kept = splits.table["id"].isin(rows["id"]) | (splits.table["split"] != "train")
    part = replace(splits, table=splits.table[kept].reset_index(drop=True))
    seed = seed_of(experiment.arguments.seed, repeat, round(1e6 * fraction))
    fit_part(experiment, _place(run, repeat, fraction), part, experiment.recipe, seed)


def parse_fractions(text: str) -> list[float]:
    """Shares such as `1%,10%,100%` or `0.01,0.1,1`, rising.

    Raises:
        SplitError: One is no share above 0 and at most 1, or they are fewer than two.

    Example:
        >>> parse_fractions("100%,10%,0.01")
        [0.01, 0.1, 1.0]
    """
    wanted = "shares such as 1%,10%,100%"
    try:
        shares = sorted(
            {float(p.rstrip("%")) / 100 if p.endswith("%") else float(p) for p in map(str.strip, text.split(","))}
        )
    except ValueError as error:
        raise SplitError(f"--fractions {text}", expected=wanted, remedy="mend it") from error
    if len(shares) < 2 or not all(0 < share <= 1 for share in shares):
        raise SplitError(f"--fractions {text}", expected=f"two or more {wanted}", remedy="mend it")
    return shares


def nested_subsets(table: pd.DataFrame, fractions: Sequence[float], seed: int) -> dict[float, list[str]]:
    """Ids of each share of a training split; each holds all smaller ones, and classes in about the split's shares.

    Units are drawn in a random order, of the next few always the one that keeps the classes in balance best: whole
    groups, or single images where no group is known (an image without one is a unit of its own). A share ends with the
    unit that brings it nearest to its size, but not before all classes are there.

    Args:
        table: Columns `id`, `label` (0 or 1) and `group` (missing where not known), one row per training image; of more
            than two classes also `kind`, a whole number.
        fractions: Shares, rising.
        seed: Of the order; the order of rows does not matter.

    Returns:
        By share, in the order of `fractions`. Shares that whole groups cannot tell apart have the same ids.

    Example:
        >>> table = pd.DataFrame({"id": list("abcdefgh"), "label": [0, 1] * 4, "group": None})
        >>> parts = nested_subsets(table, [0.25, 0.5, 1.0], seed=0)
        >>> [len(ids) for ids in parts.values()], set(parts[0.25]) < set(parts[0.5])
        ([2, 4, 8], True)
    """
    rows = table.sort_values("id")
    unit = rows["group"].astype("string").radd("group ").fillna("image " + rows["id"].astype("string"))
    units = list(dict.fromkeys(sorted(unit)))
    place = unit.map({name: index for index, name in enumerate(units)}).to_numpy()
    labels = rows["label"].to_numpy(dtype=int)
    counts = np.stack([np.bincount(place, labels == label, len(units)) for label in (0, 1)], axis=1)
    order = _balanced(counts, np.random.default_rng(seed))
    sizes = counts[order].sum(1).cumsum()
    kinds = pd.factorize(rows["kind"] if "kind" in rows else rows["label"])[0]
    have = np.stack([np.bincount(place, kinds == kind, len(units)) for kind in range(kinds.max() + 1)], axis=1)
    enough = int(np.argmax((have[order].cumsum(0) > 0).all(1)))  # all classes from here on
    ids, parts = rows["id"].to_numpy(dtype=str), dict[float, list[str]]()
    for share in fractions:
        end = max(enough, int(np.abs(sizes - share * len(rows)).argmin()))
        parts[share] = sorted(ids[np.isin(place, order[: end + 1])].tolist())
    return parts


def _balanced(counts: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """An order of units in which the share of positives stays near that of all."""
    share = counts[:, 1].sum() / counts.sum()
    drawn = random.permutation(len(counts))
    rich = counts[drawn, 1] > share * counts[drawn].sum(1)
    waiting = [deque(drawn[rich].tolist()), deque(drawn[~rich].tolist())]  # richer in positives than all, and poorer
    order, images, positives = list[int](), 0.0, 0.0
    while any(waiting):
        best, chosen = math.inf, (0, 0)
        for side, units in enumerate(waiting):
            for index, unit in enumerate(islice(units, LOOKED_AT)):
                negative, positive = counts[unit]
                excess = abs(positives + positive - share * (images + negative + positive))
                if excess < best:
                    best, chosen = excess, (side, index)
        unit = waiting[chosen[0]][chosen[1]]
        del waiting[chosen[0]][chosen[1]]
        images, positives = images + counts[unit].sum(), positives + counts[unit, 1]
        order.append(unit)
    return np.array(order)


def _parts(
    cohort: Cohort, splits: Splits, fractions: Sequence[float], repeats: int, seed: int
) -> tuple[pd.DataFrame, list[str]]:
    """Columns `repeat, fraction, id` of every part's training images, and what whole groups did to the shares."""
    training = splits.table[splits.table["split"] == "train"]
    table = training.merge(cohort.table[["id", "label"]].assign(kind=cohort.kinds), on="id")
    rows, notes = list[pd.DataFrame](), list[str]()
    for repeat in range(repeats):
        last: list[str] = []
        for share, ids in nested_subsets(table, fractions, seed_of(seed, repeat, 0)).items():
            if ids == last:
                notes.append(
                    f"repeat {repeat}: {share:.3g} of the training images is left out, being no whole group more"
                )
                continue
            last = ids
            rows.append(pd.DataFrame({"repeat": repeat, "fraction": share, "id": ids}))
    return pd.concat(rows, ignore_index=True), notes


def _conclude(experiment: Experiment, parts: pd.DataFrame) -> Path:
    """Write `learning_curve.csv`, `learning_curve.json` and the report, from the records of all models.

    Raises:
        RunError: A model's run is missing.
    """
    run = experiment.run
    runs = [_result(run, repeat, fraction, len(rows)) for repeat, fraction, rows in _each_part(parts)]
    LEARNING_CURVE.write(run.folder, pd.DataFrame([_flat(result) for result in runs]))
    shares = sorted({result.fraction for result in runs})
    sizes = [_size([result for result in runs if result.fraction == share]) for share in shares]
    outcome = LearningCurveRecord(runs=runs, sizes=sizes, law=_law(runs), method=METHOD, research_use=RESEARCH_USE)
    outcome.write(run.folder)
    lines = []
    for size in sizes:
        told = f"{size.images:,.0f} images: AUROC {_spread(size.metrics['auroc'])}"
        if "class_macro_auroc" in size.metrics:
            several = (size.metrics[name] for name in ("class_macro_auroc", "class_balanced_accuracy"))
            told += ", of all classes AUROC {}, balanced accuracy {}".format(*map(_spread, several))
        lines.append(f"{told} over {size.repeats} repeats")
    return experiment.finish(sum(result.seconds for result in runs), lines)


def _spread(entry: Spread) -> str:
    return decimals(entry.mean) + ("" if entry.sd is None else f" ± {decimals(entry.sd)}")


def _each_part(table: pd.DataFrame) -> Iterator[tuple[int, float, pd.DataFrame]]:
    """Repeat, share and rows of each part in `subsets.csv`, small ones first: they are quick."""
    keys = table[["fraction", "repeat"]].drop_duplicates().sort_values(["fraction", "repeat"])
    for fraction, repeat in zip(keys["fraction"], keys["repeat"], strict=True):
        yield int(repeat), float(fraction), table[(table["fraction"] == fraction) & (table["repeat"] == repeat)]


def _place(run: Run, repeat: int, fraction: float) -> Path:
    return run.folder / "models" / f"{repeat}-{fraction:g}"


def _result(run: Run, repeat: int, fraction: float, images: int) -> CurveRun:
    part = begun_in(_place(run, repeat, fraction))
    if part is None:
        raise RunError("a model's run is missing", where=run.folder, remedy="resume the learning curve")
    record, metrics = part.record, Metrics.read(part.folder)["test"]
    measured = {name: estimate for name in MEASURES if (estimate := metrics.get(name)) is not None}
    measured |= watched(metrics.classes) if metrics.classes else {}
    return CurveRun(
        repeat=repeat,
        fraction=fraction,
        images=images,
        groups=record.data.splits["train"].groups,
        positives=record.data.splits["train"].positives,
        run=part.folder.relative_to(run.folder).as_posix(),
        seed=record.seed,
        seconds=record.duration_s,
        metrics={name: Estimate(value=one.value, ci95=one.ci95) for name, one in measured.items()},
    )


def _flat(result: CurveRun) -> dict[str, object]:
    """A model as a row of the table: each metric with the ends of its interval."""
    row = {name: value for name, value in result.as_json().items() if name != "metrics"}
    for name, estimate in result.metrics.items():
        low, high = estimate.ci95 or (None, None)
        row |= {name: estimate.value, f"{name}_low": low, f"{name}_high": high}
    return dict(row)


def _size(runs: Sequence[CurveRun]) -> CurveSize:
    metrics = {}
    for name in runs[0].metrics:
        values = [value for run in runs if (value := run.metrics[name].value) is not None]
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        metrics[name] = Spread(mean=float(np.mean(values)) if values else None, sd=sd, n=len(values))
    images = float(np.mean([run.images for run in runs]))
    return CurveSize(fraction=runs[0].fraction, images=images, repeats=len(runs), metrics=metrics)


def _law(runs: Sequence[CurveRun]) -> Law | None:
    """The power law of 1 - AUROC and what it says of more images; None where it cannot be fitted."""
    scored = [(run.images, 1 - auroc) for run in runs if (auroc := run.metrics["auroc"].value) is not None]
    images, error = np.array([count for count, _ in scored], dtype=float), np.array([wrong for _, wrong in scored])
    law = fit_power_law(images, error)
    if law is None:
        return None
    most = images.max()
    at = np.unique(np.concatenate([np.geomspace(images.min(), most * max(AHEAD), 40), most * np.array([1, *AHEAD])]))
    extrapolated = extrapolate(images, error, at)
    assert extrapolated is not None
    values, ranges = 1 - extrapolated[0], 1 - extrapolated[1][:, ::-1]
    repeated = min(np.unique(images, return_counts=True)[1]) > 1  # else every replicate is the same
    curve = [
        CurvePoint(images=float(n), auroc=float(value), range95=(float(ends[0]), float(ends[1])) if repeated else None)
        for n, value, ends in zip(at, values, ranges, strict=True)
    ]
    ahead = [
        next(point for point in curve if point.images == most * times).model_copy(update={"times": times})
        for times in (1, *AHEAD)
    ]
    return Law(floor=law.floor, scale=law.scale, exponent=law.exponent, curve=curve, ahead=ahead)
