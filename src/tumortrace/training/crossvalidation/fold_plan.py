"""What a cross-validation is about to do: its recipes, images and splits, refused before anything is trained."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.folds import fold_splits
from tumortrace.cohorts.layouts import READING
from tumortrace.cohorts.splits import Splits
from tumortrace.errors import RecipeError, SplitError
from tumortrace.records.progress import track
from tumortrace.training.admission import admit
from tumortrace.training.chosen import chosen_recipe
from tumortrace.training.recipe import Recipe
from tumortrace.training.seeding import seed_of

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
