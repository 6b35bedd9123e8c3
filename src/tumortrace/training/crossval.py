"""The verb `crossval`: a fresh model for each fold, so that every image is tested by one that never saw it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Unpack

import pandas as pd

from tumortrace.cohorts.cohort import Cohort, ReadingOptions
from tumortrace.cohorts.folds import assign_folds, fold_splits, folds_by, groups_on_both_sides
from tumortrace.cohorts.material import Divide, Material, by_groups
from tumortrace.cohorts.splits import Splits, told_together, units_of
from tumortrace.errors import RecipeError, RunError, SplitError
from tumortrace.evaluation.folds import summarise_folds
from tumortrace.evaluation.split_record import class_headline
from tumortrace.records.files import write_text
from tumortrace.records.metrics import Metrics
from tumortrace.records.plans import CrossvalRecord, Spread
from tumortrace.records.progress import track
from tumortrace.records.provenance import RESEARCH_USE
from tumortrace.records.run import Run
from tumortrace.records.tables import FOLDS, PREDICTIONS
from tumortrace.reports.wording import decimals, interval
from tumortrace.training.experiment import Experiment, begun_in, read_recipe, take_up
from tumortrace.training.learner import Row, seed_of
from tumortrace.training.recipe import Recipe, choose_recipe
from tumortrace.training.train import fit_part, fit_parts
from tumortrace.work.hands import Hands
from tumortrace.work.worker import Tell

CALLS = ("label", "probability", "prediction", "decision")
Named = str | Path | Recipe | Sequence[str | Path | Recipe]


def crossval(
    data: str | Path | Cohort,
    *,
    recipe: Named = "tumortrace",
    folds: int = 5,
    repeats: int = 1,
    by: str | None = None,
    changes: Sequence[str] = (),
    epochs: int | None = None,
    out: str | Path = "runs",
    seed: int = 0,
    split: str = "group",
    keep_test: bool = False,
    allow: Sequence[str] = (),
    device: str = "auto",
    precision: str = "auto",
    workers: int = 1,
    cluster: str | None = None,
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
        by: Column of the data, such as `center`: instead of `folds`, each of its values is left out in turn.
        changes: Changes to every recipe, as in `optimiser.lr=0.01`.
        epochs: Instead of the recipes' number of epochs.
        out: Folder in which the folder of the cross-validation is made.
        seed: Seed of folds and splits, and with repeat and fold that of each model.
        split: "group" keeps slides or patients together; "random" does not, and the report says what that hides.
        keep_test: Leave the test split that the data bring out of the folds, for a last look.
        allow: Findings of `check` to train in spite of, as for `train`.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: "auto", "32" or "bf16".
        workers: Processes among which the folds are divided, each with one thread.
        cluster: Divide them on a Ray cluster instead: `local`, `auto` or HOST:PORT.
        **reading: How the data are read: options of `open_cohort`.

    Returns:
        The folder, with `folds.csv`, `predictions.csv` (out-of-fold), `crossval.json`, `report.html`, and an ordinary
        run folder for each fold under `folds/<recipe>/<repeat>-<fold>/`.

    Raises:
        TumorTraceError: The data, a recipe or the machine do not allow it; nothing has been trained then.
    """
    hands = Hands(workers, cluster)
    changes = [*changes, *([] if epochs is None else [f"epochs={epochs}"])]
    listed = [recipe] if isinstance(recipe, str | Path | Recipe) else list(recipe)
    recipes = _chosen(listed, changes)
    names = [one.name for one in recipes]
    table, notes = pd.DataFrame(), list[str]()

    def divide(material: Material) -> Splits:
        """The folds, and the first one's splits; every fold is refused before anything is trained."""
        nonlocal table, notes
        table, notes = _folds(material, folds, repeats, by, seed, split, keep_test)
        first, one_sided = _check_folds(material, table, recipes, seed, split)
        notes += one_sided
        return first

    experiment = Experiment.begin(
        "crossval",
        data,
        recipes[0],
        reading,
        name="crossval-" + (names[0] if len(names) == 1 else f"{len(names)}-recipes"),
        out=out,
        split=split,
        allow=allow,
        divide=divide,
        policies=(),
        recipe=[one.name if isinstance(one, Recipe) else str(one) for one in listed],
        folds=folds,
        repeats=repeats,
        by=by,
        set=changes,
        seed=seed,
        keep_test=keep_test,
        device=device,
        precision=precision,
    )
    run, data_record = experiment.run, experiment.run.record.data.as_json()
    del data_record["splits"]  # of one fold
    record = run.update(recipes=names, leakage=_leakage(table, experiment.splits), data=data_record)
    for one in recipes:
        write_text(_recipe_file(run, one.name), one.to_yaml())
    FOLDS.write(run.folder, table)
    experiment.note([*experiment.cohort.notes, *notes, *experiment.admission.lines])
    models = f"{table['fold'].max()} folds x {repeats} repeats x {len(recipes)} recipes"
    experiment.log(
        f"crossval: {models} on {table['id'].nunique():,} {experiment.cohort.unit}s, leakage {record.leakage}"
    )
    return _carry_out(experiment, hands)


def resume_crossval(
    folder: str | Path, data: str | Path | Cohort | None = None, *, workers: int = 1, cluster: str | None = None
) -> Path:
    """Go on with a cross-validation that was interrupted or killed: finished folds stay, one that was begun is resumed.

    Args:
        folder: Its folder.
        data: Where the data are now, if they were moved; the cohort, where one was given that was opened already.
        workers: Processes among which the folds are divided, each with one thread.
        cluster: Divide them on a Ray cluster instead.

    Raises:
        RunError: The folder is no cross-validation, or the data have changed since.
    """

    hands, experiment = Hands(workers, cluster), _taken_up(folder, data)
    return Path(folder) if experiment is None else _carry_out(experiment, hands)


def _taken_up(folder: str | Path, data: str | Path | Cohort | None = None) -> Experiment | None:
    def divide(run: Run) -> Divide:
        arguments, table = run.record.arguments, FOLDS.read(run.folder)
        return lambda material: _splits_of_fold(material, table, _recipes(run)[0], arguments.seed, arguments.split)

    called, call = "a folder of `crossval`", "resume_crossval(folder, data=cohort)"
    return take_up(folder, "crossval", called, data, call, recipe=lambda run: _recipes(run)[0], divide=divide)


def _carry_out(experiment: Experiment, hands: Hands) -> Path:
    run = experiment.run
    table = FOLDS.read(run.folder)
    models = [(repeat, fold, name) for repeat, fold in _numbers(table) for name in run.record.recipes]
    places = [_place(run, name, repeat, fold) for repeat, fold, name in models]
    with experiment.recorded():
        fit_parts(_fit, models, experiment, partial(_taken_up, run.folder), places, hands)
        return _conclude(experiment, table)


def _fit(experiment: Experiment, model: tuple[int, int, str], _: Tell) -> None:
    """Train the model of a fold and recipe, or go on with it."""
    run, arguments, (repeat, fold, name) = experiment.run, experiment.arguments, model
    recipe = next(recipe for recipe in _recipes(run) if recipe.name == name)
    table = FOLDS.read(run.folder)
    splits = _splits_of_fold(experiment.material, table, recipe, arguments.seed, arguments.split, repeat, fold)
    fit_part(experiment, _place(run, name, repeat, fold), splits, recipe, seed_of(arguments.seed, repeat, fold))


def _chosen(listed: Sequence[str | Path | Recipe], changes: Sequence[str]) -> list[Recipe]:
    """The recipes with the changes in them.

    Raises:
        RecipeError: A recipe is not valid, or two share a name or leave out different images.
        RunError: There are changes to a finished recipe.
    """
    recipes = [choose_recipe(one, changes)[0] for one in listed]
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


def _folds(
    material: Material, folds: int, repeats: int, by: str | None, seed: int, split: str, keep_test: bool
) -> tuple[pd.DataFrame, list[str]]:
    """The folds, and what becomes of splits that the data bring.

    Raises:
        SplitError: There is no test split to keep, or the images cannot be divided.
    """
    cohort, by_group, notes = material.cohort, by_groups(split), list[str]()
    given = cohort.table["split"].value_counts()
    if keep_test:
        if "test" not in given:
            raise SplitError("the data bring no test split to keep", where=cohort.name, remedy="leave --keep-test out")
        notes = [f"the data's own test split ({given['test']:,} images) is kept out of the folds"]
        cohort = cohort.where((cohort.table["split"] != "test").fillna(True))
    elif not given.empty:
        shares = ", ".join(f"{name} {count:,}" for name, count in given.items())
        notes = [f"the data bring splits ({shares}), which are ignored: every labelled image is in a fold"]
    if by is not None:
        if repeats > 1:
            raise SplitError(f"--by {by} with {repeats} repeats", expected="one", remedy="leave --repeats out")
        table, names = folds_by(cohort, by, by_group=by_group, copies=material.copies)
        counts = table["fold"].value_counts()
        told = ", ".join(f"{fold} {by} {name} ({counts[fold]:,})" for fold, name in enumerate(names, 1))
        return table, [*notes, f"folds are the values of {by}: {told} images"]
    assign_folds(cohort, folds, repeats, seed=seed, by_group=by_group)  # refused before any image is decoded
    table = assign_folds(cohort, folds, repeats, seed=seed, by_group=by_group, copies=material.copies)
    units = cohort.table.assign(unit=units_of(cohort.table, by_group, material.copies))
    return table, notes + told_together(units, by_group)


def _splits_of_fold(
    material: Material, table: pd.DataFrame, recipe: Recipe, seed: int, split: str, repeat: int = 1, fold: int = 1
) -> Splits:
    """The splits of one fold for one recipe; copies stay together."""
    return fold_splits(
        material.cohort,
        table,
        repeat,
        fold,
        fractions=recipe.splits,
        seed=seed_of(seed, repeat, fold),
        by_group=by_groups(split),
        copies=material.copies,
    )


def _check_folds(
    material: Material, table: pd.DataFrame, recipes: Sequence[Recipe], seed: int, split: str
) -> tuple[Splits, list[str]]:
    """The first fold's splits, and what has to be said about any.

    The audit that follows on the first one's holds for all: no fold cuts through a copy, or through a group that is
    to be kept whole, and nothing else that it looks for depends on the splits.

    Raises:
        SplitError: A fold cannot be divided, or lacks a class.
    """
    first, notes = None, list[str]()
    policies = {one.calibration.threshold for one in recipes}
    for recipe in {str(one.splits): one for one in recipes}.values():  # others are split alike
        for repeat, fold in track(_numbers(table), "checking"):
            splits = _splits_of_fold(material, table, recipe, seed, split, repeat, fold)
            material.require_enough(splits, policies)
            first = first or splits
            notes += [f"repeat {repeat}, fold {fold}: {note}" for note in splits.notes[1:]]
    assert first is not None
    return first, list(dict.fromkeys(notes))


def _conclude(experiment: Experiment, table: pd.DataFrame) -> Path:
    """Write what the folds say together: out-of-fold predictions, their numbers, and the report.

    Raises:
        RunError: A fold's predictions are not those of its images.
    """
    run, arguments = experiment.run, experiment.arguments
    record = run.record
    parts, about = list[pd.DataFrame](), dict[tuple[str, int, int], Row]()
    for recipe in record.recipes:
        for repeat, fold in _numbers(table):
            part = begun_in(_place(run, recipe, repeat, fold))
            if part is None:
                raise RunError("a fold's run is missing", where=run.folder, remedy="resume the cross-validation")
            tested = _tested(part, table[(table["repeat"] == repeat) & (table["fold"] == fold)])
            parts.append(tested.assign(recipe=recipe, repeat=repeat, fold=fold))
            about[recipe, repeat, fold] = _about(run, part) | {"groups_shared": _shared(table, repeat, fold)}
    predictions = pd.concat(parts, ignore_index=True)
    PREDICTIONS.write(run.folder, predictions[["id", "group", "recipe", "repeat", "fold", *CALLS]])
    summary = summarise_folds(predictions, seed=record.seed)
    for recipe, result in summary.recipes.items():
        result.folds = [row.model_copy(update=about[recipe, row.repeat, row.fold]) for row in result.folds]
    groups = table["group"]
    whole = CrossvalRecord(
        folds=int(table["fold"].max()),
        repeats=arguments.repeats,
        split=arguments.split,
        images=int(table["id"].nunique()),
        groups=int(groups.nunique()) if groups.notna().all() else None,
        groups_on_both_sides=groups_on_both_sides(table),
        copies=copies_apart(experiment.material, table),
        leakage=record.leakage,
        recipes=summary.recipes,
        comparisons=summary.comparisons,
        ratio=summary.ratio,
        method=summary.method,
        research_use=RESEARCH_USE,
    )
    whole.write(run.folder)
    lines = [
        f"{name}: AUROC {_spread(result.summary['auroc'])}, accuracy {_spread(result.summary['accuracy'])} "
        "(mean over folds, standard deviation, corrected interval)"
        + (f"; pooled, {class_headline(classes)}" if (classes := result.pooled.classes) else "")
        for name, result in whole.recipes.items()
    ]
    return experiment.finish(sum(row["seconds"] for row in about.values()), lines)


def _tested(part: Run, chosen: pd.DataFrame) -> pd.DataFrame:
    predictions = PREDICTIONS.read(part.folder)
    tested = predictions[predictions["split"] == "test"]
    if set(tested["id"]) != set(chosen["id"]) or tested["id"].duplicated().any():
        raise RunError("predictions of other images than its fold's", where=part.folder, remedy="delete it and resume")
    return tested


def _about(run: Run, part: Run) -> Row:
    """What a fold's own records say beside its predictions."""
    record, tested = part.record, Metrics.read(part.folder).get("test")
    training = record.data.splits.get("train")
    return {
        "run": part.folder.relative_to(run.folder).as_posix(),
        "seed": record.seed,
        "trained_on": training and training.images,
        "threshold": tested and tested.threshold,
        "epochs": record.epochs,
        "best_epoch": record.best_epoch,
        "seconds": record.duration_s,
        "device": record.device_name,
    }


def _shared(table: pd.DataFrame, repeat: int, fold: int) -> int:
    """How many of the fold's groups have images outside of it."""
    rows = table[table["repeat"] == repeat]
    inside = rows["fold"] == fold
    return len(set(rows.loc[inside, "group"].dropna()) & set(rows.loc[~inside, "group"].dropna()))


def copies_apart(material: Material, table: pd.DataFrame) -> int:
    """How many images have a copy, pixel for pixel, in another fold of some repeat; blank ones are no copies."""
    rows = table.assign(picture=table["id"].map(dict(material.copies)))
    folds = rows.groupby(["repeat", "picture"])["fold"].transform("nunique")
    return int(rows.loc[folds > 1, "id"].nunique())


def _leakage(table: pd.DataFrame, first: Splits) -> str:
    """One sentence about all folds: that of the first one's splits, unless groups were cut through."""
    shared = groups_on_both_sides(table)
    if not shared:
        return first.leakage
    cut = f"{shared} of {table['group'].nunique()} groups stand in several folds"
    return f"present: {cut}, so that models are tested on slides or patients that they have learnt from"


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "undefined"
    return f"{decimals(spread.mean)} ± {decimals(spread.sd)}{interval(spread.as_json(), ' ')}"


def _numbers(table: pd.DataFrame) -> list[tuple[int, int]]:
    """Repeat and fold of each fold, in order."""
    numbers = table[["repeat", "fold"]].drop_duplicates().sort_values(["repeat", "fold"])
    return [(int(repeat), int(fold)) for repeat, fold in numbers.to_numpy()]


def _place(run: Run, recipe: str, repeat: int, fold: int) -> Path:
    return run.folder / "folds" / recipe / f"{repeat}-{fold}"


def _recipes(run: Run) -> list[Recipe]:
    """The recipes as they were when it began."""
    return [read_recipe(_recipe_file(run, name)) for name in run.record.recipes]


def _recipe_file(run: Run, name: str) -> Path:
    return run.folder / "recipes" / f"{name}.yaml"
