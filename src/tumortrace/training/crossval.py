"""The verb `crossval`: a fresh model for each fold, so that every image is tested by one that never saw it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import pandas as pd

from tumortrace.cohorts.cohort import READING, Cohort, ReadingOptions
from tumortrace.cohorts.folds import assign_folds, fold_splits, groups_on_both_sides
from tumortrace.cohorts.layouts import open_cohort, refuse_within
from tumortrace.cohorts.splits import Splits, told_together, units_of
from tumortrace.errors import RecipeError, RunError, SplitError
from tumortrace.evaluation.folds import summarise_folds
from tumortrace.records.files import write_csv, write_json, write_text
from tumortrace.records.output import require_folder
from tumortrace.records.progress import track
from tumortrace.records.provenance import RESEARCH_USE, machine, versions
from tumortrace.records.run import Run, create_run, now
from tumortrace.reports.crossval import write_crossval_report
from tumortrace.reports.records import read_json, read_table
from tumortrace.reports.wording import decimals, interval
from tumortrace.training.experiment import (
    admit,
    data_arguments,
    data_record,
    left_to_do,
    log,
    looks_and_copies,
    recorded,
    reopened,
    without,
)
from tumortrace.training.learner import seed_of
from tumortrace.training.part import begun_in, train_part
from tumortrace.training.recipe import Recipe, chosen_recipe, parse_recipe


def crossval(
    data: str | Path | Cohort,
    *,
    recipe: Named = "tumortrace",
    folds: int = 5,
    repeats: int = 1,
    changes: Sequence[str] = (),
    epochs: int | None = None,
    out: str | Path = "runs",
    seed: int = 0,
    split: str = "group",
    keep_test: bool = False,
    allow: Sequence[str] = (),
    device: str = "auto",
    precision: str = "auto",
    **reading: Unpack[ReadingOptions],
) -> Path:
    """Train a fresh model for each fold, test it on the fold, and write what the folds say together.

    In each fold the rest of the images is divided anew into train, validation and calibration, so that everything that
    is fitted (weights, epoch, temperature, threshold) is fitted without the fold. Several recipes go through the same
    folds and are compared by paired tests.

    Args:
        data: Any known layout, `synthetic:patches` or `synthetic:mri`, or an opened cohort. Splits that the data bring
            are ignored, aloud.
        recipe: Name of a shipped recipe, path of a YAML file, or a recipe; or several of them.
        folds: Number of folds, at least 2.
        repeats: How often the images are divided into folds anew.
        changes: Changes to every recipe, as in `optimiser.lr=0.01`.
        epochs: Instead of the recipes' number of epochs.
        out: Folder in which the folder of the cross-validation is made.
        seed: Seed of folds and splits, and with repeat and fold that of each model.
        split: "group" keeps slides or patients together; "random" does not, and the report says what that hides.
        keep_test: Leave the test split that the data bring out of the folds, for a last look.
        allow: Findings of `check` to train in spite of, as for `train`.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: "auto", "32" or "bf16".
        **reading: How the data are read: options of `open_cohort`.

    Returns:
        The folder, with `folds.csv`, `predictions.csv` (out-of-fold), `crossval.json`, `report.html`, and an ordinary
        run folder for each fold under `folds/<recipe>/<repeat>-<fold>/`.

    Raises:
        TumorTraceError: The data, a recipe or the machine do not allow it; nothing has been trained then.
    """
    if split not in ("group", "random"):
        raise SplitError(f"--split {split!r}", expected="group or random", remedy="use one of these")
    changes = [*changes, *([] if epochs is None else [f"epochs={epochs}"])]
    recipes = load_recipes(recipe, changes)
    require_folder(Path(out))
    opened = open_cohort(data, **reading).labelled
    refuse_within(Path(out), opened)
    cohort = without(opened, recipes[0])
    divided, notes = without_splits(cohort, keep_test)
    by_group = split == "group"
    assign_folds(divided, folds, repeats, seed=seed, by_group=by_group)  # refused before any image is decoded
    looks, copies = looks_and_copies(cohort)
    table = assign_folds(divided, folds, repeats, seed=seed, by_group=by_group, copies=copies)
    rows = divided.table
    notes += told_together(rows.assign(unit=units_of(rows, by_group, copies)), by_group)
    arguments = {
        "recipe": [one.name if isinstance(one, Recipe) else str(one) for one in listed(recipe)],
        "folds": folds,
        "repeats": repeats,
        "set": changes,
        "seed": seed,
        "split": split,
        "keep_test": keep_test,
        "device": device,
        "precision": precision,
        **data_arguments(opened, allow),
    }
    first, one_sided = check_all(cohort, table, looks, copies, recipes, arguments)
    about = data_record(cohort, first)["data"] | {"notes": [*cohort.notes, *notes, *one_sided]}
    del about["splits"]  # of one fold
    names = [one.name for one in recipes]
    record: dict[str, Any] = {
        "verb": "crossval",
        "command": command_line(arguments),
        "arguments": arguments,
        "recipes": names,
        "seed": seed,
        "data": about,
        "leakage": _leakage(table, first),
        "tumortrace": versions()["tumortrace"],
        "versions": versions(),
        "machine": machine(),
    }
    run = create_run(Path(out), "crossval-" + (names[0] if len(names) == 1 else f"{len(names)}-recipes"), record)
    for one in recipes:
        write_text(_recipe_file(run, one.name), one.to_yaml())
    write_csv(run.folder / "folds.csv", table)
    for note in about["notes"]:
        log(run, f"note: {note}")
    models = f"{folds} folds x {repeats} repeats x {len(recipes)} recipes"
    log(run, f"crossval: {models} on {table['id'].nunique():,} images, leakage {record['leakage']}")
    return _carry_out(run, opened)


def resume_crossval(folder: str | Path, data: Cohort | None = None) -> Path:
    """Go on with a cross-validation that was interrupted or killed: finished folds stay, one that was begun is resumed.

    Args:
        folder: Its folder.
        data: The cohort, where `crossval` was given one that was opened already.

    Raises:
        RunError: The folder is no cross-validation, or the data have changed since.
    """
    run = Run(Path(folder))
    if not left_to_do(run, "crossval", "a folder of `crossval`"):
        return run.folder
    data = reopened(run, _stored(run)[0], data, "resume_crossval(folder, data=cohort)")
    run.update(status="running", error=None)
    return _carry_out(run, data)


def _carry_out(run: Run, opened: Cohort) -> Path:
    arguments = run.read()["arguments"]
    text = {"id": "string", "group": "string"}
    table = pd.read_csv(run.folder / "folds.csv", dtype=text, keep_default_na=False, na_values={"group": [""]})
    recipes = _stored(run)
    cohort = without(opened, recipes[0])
    with recorded(run, "crossval"):
        _, copies = looks_and_copies(cohort)
        for repeat, fold in table[["repeat", "fold"]].drop_duplicates().sort_values(["repeat", "fold"]).to_numpy():
            for recipe in recipes:
                splits = splits_of_fold(cohort, table, copies, recipe, int(repeat), int(fold), arguments)
                place = run.folder / "folds" / recipe.name / f"{repeat}-{fold}"
                train_part(run, place, opened, splits, recipe, seed_of(arguments["seed"], int(repeat), int(fold)))
        write_outcome(run, cohort, table)
    return run.folder


def _leakage(table: pd.DataFrame, first: Splits) -> str:
    """One sentence about all folds: that of the first one's splits, unless groups were cut through."""
    shared = groups_on_both_sides(table)
    if not shared:
        return first.leakage
    cut = f"{shared} of {table['group'].nunique()} groups stand in several folds"
    return f"present: {cut}, so that models are tested on slides or patients that they have learnt from"


def _stored(run: Run) -> list[Recipe]:
    """The recipes as they were when it began."""
    files = [_recipe_file(run, name) for name in run.read()["recipes"]]
    return [parse_recipe(file.read_text(encoding="utf-8"), str(file)) for file in files]


def _recipe_file(run: Run, name: str) -> Path:
    return run.folder / "recipes" / f"{name}.yaml"


# What a cross-validation is about to do: its recipes, images and splits, refused before anything is trained.


Named = str | Path | Recipe | Sequence[str | Path | Recipe]


def listed(named: Named) -> list[str | Path | Recipe]:
    """Several recipes, or one, as a list."""
    return [named] if isinstance(named, str | Path | Recipe) else list(named)


def load_recipes(named: Named, changes: Sequence[str]) -> list[Recipe]:
    """The recipes with the changes in them.

    Raises:
        RecipeError: A recipe is not valid, or two share a name or leave out different images.
        RunError: There are changes to a finished recipe.
    """
    recipes = [chosen_recipe(one, changes)[0] for one in listed(named)]
    names = [one.name for one in recipes]
    if not names or len(set(names)) < len(names):
        raise RecipeError(
            f"recipes {', '.join(names) or 'none'}", expected="recipes of different names", remedy="rename one"
        )
    if len({one.leave_out for one in recipes}) > 1:
        raise RecipeError(
            "recipes with different leave_out", expected="the same images for all", remedy="make them alike"
        )
    return recipes


def without_splits(cohort: Cohort, keep_test: bool) -> tuple[Cohort, list[str]]:
    """The images to divide, and what becomes of splits that the data bring.

    Raises:
        SplitError: There is no test split to keep.
    """
    given = cohort.table["split"].value_counts()
    if keep_test:
        if "test" not in given:
            raise SplitError("the data bring no test split to keep", where=cohort.name, remedy="leave --keep-test out")
        rest = cohort.where((cohort.table["split"] != "test").fillna(True))
        return rest, [f"the data's own test split ({given['test']:,} images) is kept out of the folds"]
    if given.empty:
        return cohort, []
    shares = ", ".join(f"{name} {count:,}" for name, count in given.items())
    return cohort, [f"the data bring splits ({shares}), which are ignored: every labelled image is in a fold"]


def splits_of_fold(
    cohort: Cohort,
    table: pd.DataFrame,
    copies: Mapping[str, str],
    recipe: Recipe,
    repeat: int,
    fold: int,
    arguments: dict[str, Any],
) -> Splits:
    """The splits of one fold for one recipe, as `arguments` of `crossval` have them; `copies` stay together."""
    return fold_splits(
        cohort,
        table,
        repeat,
        fold,
        fractions=recipe.splits,
        seed=seed_of(arguments["seed"], repeat, fold),
        by_group=arguments["split"] == "group",
        copies=copies,
    )


def check_all(
    cohort: Cohort,
    table: pd.DataFrame,
    looks: pd.DataFrame,
    copies: Mapping[str, str],
    recipes: list[Recipe],
    arguments: dict[str, Any],
) -> tuple[Splits, list[str]]:
    """The first fold's splits, and what has to be said about any.

    Raises:
        DataError: A fold cannot be divided, lacks a class, or `check` finds an error in it that is not allowed.
    """
    first, notes = None, list[str]()
    policies = {one.calibration.threshold for one in recipes}
    for recipe in {str(one.splits): one for one in recipes}.values():  # others are split alike
        for repeat, fold in track(table[["repeat", "fold"]].drop_duplicates().to_numpy(), "checking"):
            splits = splits_of_fold(cohort, table, copies, recipe, int(repeat), int(fold), arguments)
            options = {"split": arguments["split"], "allow": arguments["allow"], "policies": policies}
            admit(cohort, splits, looks=looks, **options)
            first = first or splits
            notes += [f"repeat {repeat}, fold {fold}: {note}" for note in splits.notes[1:]]
    assert first is not None
    return first, list(dict.fromkeys(notes))


def command_line(arguments: dict[str, Any]) -> str:
    """The command that `crossval` was called with."""
    words = ["tumortrace", "crossval", arguments["data"] or "COHORT"]
    for name in ("recipe", "set", "allow"):
        for value in arguments[name]:
            words += [f"--{name}", value]
    for name in ("folds", "repeats", "seed", "split", "device", "precision", *READING):
        if arguments[name] is not None:
            words += [f"--{name.replace('_', '-')}", str(arguments[name])]
    return shlex.join([*words, "--keep-test"] if arguments["keep_test"] else words)


# What the folds of a cross-validation say together: out-of-fold predictions, their numbers, and the report.


COLUMNS = ["id", "group", "recipe", "repeat", "fold", "label", "probability", "prediction", "decision"]


def write_outcome(run: Run, cohort: Cohort, table: pd.DataFrame) -> None:
    """Write `predictions.csv`, `crossval.json` and the report of a cross-validation whose folds are all finished.

    Args:
        run: Its folder.
        cohort: The images.
        table: The folds, as `assign_folds` returns them.

    Raises:
        RunError: A fold's predictions are not those of its images.
    """
    record = run.read()
    recipes = record["recipes"]
    numbers = table[["repeat", "fold"]].drop_duplicates().sort_values(["repeat", "fold"]).to_numpy().tolist()
    parts, about = list[pd.DataFrame](), dict[tuple[str, int, int], dict[str, Any]]()
    for recipe in recipes:
        for repeat, fold in numbers:
            folder = begun_in(run.folder / "folds" / recipe / f"{repeat}-{fold}")
            if folder is None:
                raise RunError("a fold's run is missing", where=run.folder, remedy="resume the cross-validation")
            chosen = table[(table["repeat"] == repeat) & (table["fold"] == fold)]
            parts.append(_tested(folder, chosen).assign(recipe=recipe, repeat=repeat, fold=fold))
            about[recipe, repeat, fold] = _about(run, folder) | {"groups_shared": _shared(table, repeat, fold)}
    predictions = pd.concat(parts, ignore_index=True)[COLUMNS]
    write_csv(run.predictions_file, predictions)
    summary = summarise_folds(predictions, seed=record["seed"])
    for recipe, found in summary["recipes"].items():
        found["folds"] = [row | about[recipe, row["repeat"], row["fold"]] for row in found["folds"]]
    outcome = {
        "folds": record["arguments"]["folds"],
        "repeats": record["arguments"]["repeats"],
        "split": record["arguments"]["split"],
        "images": int(table["id"].nunique()),
        "groups": int(table["group"].nunique()) if table["group"].notna().all() else None,
        "groups_on_both_sides": groups_on_both_sides(table),
        "copies": copies_apart(cohort, table),
        "leakage": record["leakage"],
    }
    write_json(run.folder / "crossval.json", outcome | summary | {"research_use": RESEARCH_USE})
    seconds = sum(row["seconds"] for row in about.values())
    run.update(status="finished", finished=now(), duration_s=round(seconds, 1))
    report = write_crossval_report(run.folder)
    for recipe, found in summary["recipes"].items():
        line = f"{recipe}: AUROC {_spread(found['summary']['auroc'])}, accuracy {_spread(found['summary']['accuracy'])}"
        log(run, f"{line} (mean over folds, standard deviation, corrected interval)")
    log(run, f"report: {report}. {RESEARCH_USE}")


def _tested(folder: Path, chosen: pd.DataFrame) -> pd.DataFrame:
    predictions = read_table(folder / "predictions.csv")
    tested = predictions[predictions["split"] == "test"]
    if set(tested["id"]) != set(chosen["id"]) or tested["id"].duplicated().any():
        raise RunError("predictions of other images than its fold's", where=folder, remedy="delete it and resume")
    return tested


def _about(run: Run, folder: Path) -> dict[str, Any]:
    """What a fold's own records say beside its predictions."""
    record, metrics = read_json(folder / "run.json"), read_json(folder / "metrics.json")
    return {
        "run": folder.relative_to(run.folder).as_posix(),
        "seed": record.get("seed"),
        "trained_on": record.get("data", {}).get("splits", {}).get("train", {}).get("images"),
        "threshold": metrics.get("test", {}).get("threshold"),
        "epochs": record.get("epochs"),
        "best_epoch": record.get("best_epoch"),
        "seconds": record.get("duration_s", 0.0),
        "device": record.get("device_name"),
    }


def _shared(table: pd.DataFrame, repeat: int, fold: int) -> int:
    """How many of the fold's groups have images outside of it."""
    own = table[table["repeat"] == repeat]
    inside = own["fold"] == fold
    return len(set(own.loc[inside, "group"].dropna()) & set(own.loc[~inside, "group"].dropna()))


def copies_apart(cohort: Cohort, table: pd.DataFrame) -> int:
    """How many images have a copy, pixel for pixel, in another fold of some repeat; blank ones are no copies."""
    rows = table.assign(picture=table["id"].map(looks_and_copies(cohort)[1]))
    folds = rows.groupby(["repeat", "picture"])["fold"].transform("nunique")
    return int(rows.loc[folds > 1, "id"].nunique())


def _spread(entry: dict[str, Any] | None) -> str:
    return f"{decimals(entry['mean'])} ± {decimals(entry['sd'])}{interval(entry, ' ')}" if entry else "undefined"
