"""The verb `train --fractions`: fresh models on growing parts of the training split, tested on the same images."""

from __future__ import annotations

import math
import shlex
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd

from tumortrace.cohorts.cohort import READING, Cohort, ReadingOptions
from tumortrace.cohorts.layouts import open_cohort, refuse_within
from tumortrace.cohorts.splits import Splits, read_splits
from tumortrace.errors import RunError, SplitError
from tumortrace.evaluation.measures import MEASURES
from tumortrace.evaluation.power_law import extrapolate, fit_power_law
from tumortrace.records.files import write_csv, write_json, write_text
from tumortrace.records.output import require_folder
from tumortrace.records.provenance import RESEARCH_USE, machine, versions
from tumortrace.records.run import Run, create_run, now
from tumortrace.reports.learning_curve import write_learning_curve_report
from tumortrace.reports.records import read_json
from tumortrace.reports.wording import decimals
from tumortrace.training.experiment import (
    admit,
    data_arguments,
    data_record,
    divided,
    left_to_do,
    log,
    recorded,
    reopened,
    without,
)
from tumortrace.training.learner import seed_of
from tumortrace.training.part import begun_in, train_part
from tumortrace.training.recipe import Recipe, chosen_recipe, parse_recipe

VERB = "learning-curve"


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
        **reading: How the data are read: options of `open_cohort`.

    Returns:
        The folder, with `learning_curve.csv`, `learning_curve.json`, `report.html`, and an ordinary run folder for
        each model under `models/<repeat>-<share>/`.

    Raises:
        TumorTraceError: The data, the recipe or the machine do not allow it.
    """
    if repeats < 1:
        raise SplitError(f"--repeats {repeats}", expected="1 or more", remedy="use 3")
    chosen, changes = chosen_recipe(recipe, changes, epochs, weights)
    require_folder(Path(out))
    opened = open_cohort(data, **reading).labelled
    refuse_within(Path(out), opened)
    cohort = without(opened, chosen)
    splits, looks = divided(cohort, split, seed if split_seed is None else split_seed, chosen.splits)
    admit(cohort, splits, looks=looks, split=split, allow=allow, policies=[chosen.calibration.threshold])
    if not (splits.table["split"] == "test").any():
        raise SplitError("no test split", where=cohort.name, remedy="give the recipe's splits a share for test")
    parts, notes = _parts(cohort, splits, sorted(fractions), repeats, seed)
    arguments = {
        "recipe": chosen.name,
        "set": changes,
        "fractions": sorted(fractions),
        "repeats": repeats,
        "seed": seed,
        "split_seed": split_seed,
        "split": split,
        "device": device,
        "precision": precision,
        **data_arguments(opened, allow),
    }
    about = data_record(cohort, splits)
    about["data"]["notes"] = [*cohort.notes, *splits.notes, *notes]
    record = {
        "verb": VERB,
        "command": _command(arguments),
        "arguments": arguments,
        "seed": seed,
        "tumortrace": versions()["tumortrace"],
        "versions": versions(),
        "machine": machine(),
        **about,
    }
    run = create_run(Path(out), f"learning-curve-{chosen.name}", record)
    write_text(run.recipe_file, chosen.to_yaml())
    write_csv(run.splits_file, splits.table)
    write_csv(run.folder / "subsets.csv", parts)
    for note in about["data"]["notes"]:
        log(run, f"note: {note}")
    return _carry_out(run, opened)


def resume_learning_curve(folder: str | Path, data: Cohort | None = None) -> Path:
    """Go on with a learning curve that was interrupted or killed: finished models stay, one that was begun is resumed.

    Args:
        folder: Its folder.
        data: The cohort, where `learning_curve` was given one that was opened already.

    Raises:
        RunError: The folder is no learning curve, or the data have changed since.
    """
    run = Run(Path(folder))
    if not left_to_do(run, VERB, "a folder of `train --fractions`"):
        return run.folder
    data = reopened(run, _recipe(run), data, "resume_learning_curve(folder, data=cohort)")
    run.update(status="running", error=None)
    return _carry_out(run, data)


def _parts(
    cohort: Cohort, splits: Splits, fractions: Sequence[float], repeats: int, seed: int
) -> tuple[pd.DataFrame, list[str]]:
    """Columns `repeat, fraction, id` of every part's training images, and what whole groups did to the shares."""
    training = splits.table[splits.table["split"] == "train"]
    table = training.merge(cohort.table[["id", "label"]], on="id")
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


def _carry_out(run: Run, opened: Cohort) -> Path:
    arguments, recipe = run.read()["arguments"], _recipe(run)
    cohort = without(opened, recipe)
    splits = read_splits(run.splits_file, cohort, by_group=arguments["split"] == "group")
    parts = pd.read_csv(run.folder / "subsets.csv", dtype={"id": "string"}, keep_default_na=False)
    with recorded(run):
        for repeat, fraction, own in parts_of(parts):
            kept = splits.table["id"].isin(own["id"]) | (splits.table["split"] != "train")
            part = replace(splits, table=splits.table[kept].reset_index(drop=True))
            place = run.folder / "models" / f"{repeat}-{fraction:g}"
            seed = seed_of(arguments["seed"], repeat, round(1e6 * fraction))
            train_part(run, place, opened, part, recipe, seed)
        write_outcome(run)
    return run.folder


def _recipe(run: Run) -> Recipe:
    return parse_recipe(run.recipe_file.read_text(encoding="utf-8"), str(run.recipe_file))


def _command(arguments: dict[str, Any]) -> str:
    words = ["tumortrace", "train", arguments["data"] or "COHORT", "--recipe", arguments["recipe"]]
    words += ["--fractions", ",".join(f"{100 * share:g}%" for share in arguments["fractions"])]
    for name, option in (("set", "--set"), ("allow", "--allow")):
        for value in arguments[name]:
            words += [option, value]
    for name in ("repeats", "seed", "split_seed", "split", "device", "precision", *READING):
        if arguments[name] is not None:
            words += [f"--{name.replace('_', '-')}", str(arguments[name])]
    return shlex.join(words)


# Nested parts of a training split, by whole slides or patients where these are known.


LOOKED_AT = 4  # units, richer in positives and poorer, among which the next one is chosen for balance


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
        found = sorted(
            {float(p.rstrip("%")) / 100 if p.endswith("%") else float(p) for p in map(str.strip, text.split(","))}
        )
    except ValueError as error:
        raise SplitError(f"--fractions {text}", expected=wanted, remedy="mend it") from error
    if len(found) < 2 or not all(0 < share <= 1 for share in found):
        raise SplitError(f"--fractions {text}", expected=f"two or more {wanted}", remedy="mend it")
    return found


def nested_subsets(table: pd.DataFrame, fractions: Sequence[float], seed: int) -> dict[float, list[str]]:
    """Ids of each share of a training split; each holds all smaller ones, and classes in about the split's shares.

    Units are drawn in a random order, of the next few always the one that keeps the classes in balance best: whole
    groups, or single images where no group is known (an image without one is a unit of its own). A share ends with the
    unit that brings it nearest to its size, but not before both classes are there.

    Args:
        table: Columns `id`, `label` (0 or 1) and `group` (missing where not known), one row per training image.
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
    reached = counts[order].cumsum(0)
    sizes = reached.sum(1)
    enough = int(np.argmax((reached > 0).all(1)))  # both classes from here on
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
        best, found = math.inf, (0, 0)
        for side, units in enumerate(waiting):
            for index, unit in enumerate(islice(units, LOOKED_AT)):
                negative, positive = counts[unit]
                excess = abs(positives + positive - share * (images + negative + positive))
                if excess < best:
                    best, found = excess, (side, index)
        unit = waiting[found[0]][found[1]]
        del waiting[found[0]][found[1]]
        images, positives = images + counts[unit].sum(), positives + counts[unit, 1]
        order.append(unit)
    return np.array(order)


# What the models of a learning curve say together.


AHEAD = (2, 4)  # times the largest number of training images
METHOD = {
    "runs": "Each model's own interval is that of its metrics.json, over the images of the test split. Beside it stand "
    "mean and standard deviation over repeats, which differ in training images and seed and share the test split.",
    "law": "1 - AUROC = floor + scale n^-exponent, least squares in logarithms over all runs (floor 0 with three "
    "sizes). Ranges are percentiles of 300 replicates that draw runs anew within each size: they know the spread "
    "between trainings, not whether the law goes on, nor the uncertainty of the test split; with a single model of a "
    "size there is none.",
}


def write_outcome(run: Run) -> None:
    """Write `learning_curve.csv`, `learning_curve.json` and the report, from the records of all models.

    Raises:
        RunError: A model's run is missing.
    """
    record = run.read()
    parts = pd.read_csv(run.folder / "subsets.csv", dtype={"id": str}, keep_default_na=False)
    rows = [_row(run, repeat, fraction, len(own)) for repeat, fraction, own in parts_of(parts)]
    flat = [{key: value for key, value in row.items() if key != "metrics"} | _columns(row["metrics"]) for row in rows]
    write_csv(run.folder / "learning_curve.csv", pd.DataFrame(flat))
    outcome: dict[str, Any] = {
        "runs": rows,
        "sizes": [_size(fraction, rows) for fraction in sorted({row["fraction"] for row in rows})],
        "law": _law(rows),
        "method": METHOD,
        "research_use": RESEARCH_USE,
    }
    write_json(run.folder / "learning_curve.json", outcome)
    run.update(status="finished", finished=now(), duration_s=round(sum(row["seconds"] for row in rows), 1))
    report = write_learning_curve_report(run.folder)
    for size in outcome["sizes"]:
        auroc = size["metrics"]["auroc"]
        spread = "" if auroc["sd"] is None else f" ± {decimals(auroc['sd'])}"
        log(
            run, f"{size['images']:,.0f} images: AUROC {decimals(auroc['mean'])}{spread} over {size['repeats']} repeats"
        )
    log(run, f"report: {report}; {record['arguments']['repeats']} repeats. {RESEARCH_USE}")


def parts_of(table: pd.DataFrame) -> Iterator[tuple[int, float, pd.DataFrame]]:
    """Repeat, share and rows of each part in `subsets.csv`, small ones first: they are quick."""
    keys = table[["fraction", "repeat"]].drop_duplicates().sort_values(["fraction", "repeat"])
    for fraction, repeat in zip(keys["fraction"], keys["repeat"], strict=True):
        yield int(repeat), float(fraction), table[(table["fraction"] == fraction) & (table["repeat"] == repeat)]


def _row(run: Run, repeat: int, fraction: float, images: int) -> dict[str, Any]:
    folder = begun_in(run.folder / "models" / f"{repeat}-{fraction:g}")
    if folder is None:
        raise RunError("a model's run is missing", where=run.folder, remedy="resume the learning curve")
    record, metrics = read_json(folder / "run.json"), read_json(folder / "metrics.json").get("test", {})
    return {
        "repeat": repeat,
        "fraction": fraction,
        "images": images,
        "groups": record["data"]["splits"]["train"]["groups"],
        "positives": record["data"]["splits"]["train"]["positives"],
        "run": folder.relative_to(run.folder).as_posix(),
        "seed": record["seed"],
        "seconds": record.get("duration_s", 0.0),
        "metrics": {name: {k: metrics[name][k] for k in ("value", "ci95")} for name in MEASURES if name in metrics},
    }


def _columns(metrics: dict[str, dict[str, Any]]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, entry in metrics.items():
        low, high = entry["ci95"] or (None, None)
        found |= {name: entry["value"], f"{name}_low": low, f"{name}_high": high}
    return found


def _size(fraction: float, rows: list[dict[str, Any]]) -> dict[str, Any]:
    own = [row for row in rows if row["fraction"] == fraction]
    metrics = {}
    for name in own[0]["metrics"]:
        values = [row["metrics"][name]["value"] for row in own if row["metrics"][name]["value"] is not None]
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        metrics[name] = {"mean": float(np.mean(values)) if values else None, "sd": sd, "n": len(values)}
    images = float(np.mean([row["images"] for row in own]))
    return {"fraction": fraction, "images": images, "repeats": len(own), "metrics": metrics}


def _law(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The power law of 1 - AUROC and what it says of more images; None where it cannot be fitted."""
    scored = [row for row in rows if row["metrics"]["auroc"]["value"] is not None]
    images = np.array([row["images"] for row in scored], dtype=float)
    error = np.array([1 - row["metrics"]["auroc"]["value"] for row in scored])
    law = fit_power_law(images, error)
    if law is None:
        return None
    most = images.max()
    at = np.unique(np.concatenate([np.geomspace(images.min(), most * max(AHEAD), 40), most * np.array([1, *AHEAD])]))
    found = extrapolate(images, error, at)
    assert found is not None
    values, ranges = 1 - found[0], 1 - found[1][:, ::-1]
    repeated = min(np.unique(images, return_counts=True)[1]) > 1  # else every replicate is the same
    curve = [
        {"images": float(n), "auroc": float(value), "range95": [float(end) for end in ends] if repeated else None}
        for n, value, ends in zip(at, values, ranges, strict=True)
    ]
    ahead = [next(one for one in curve if one["images"] == most * times) | {"times": times} for times in (1, *AHEAD)]
    fitted = {"floor": law.floor, "scale": law.scale, "exponent": law.exponent}
    return fitted | {"curve": curve, "ahead": ahead}
