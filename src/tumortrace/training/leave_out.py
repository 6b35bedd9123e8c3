"""Images that a recipe leaves out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from tumortrace.cohorts.cohort import Cohort
from tumortrace.errors import RecipeError
from tumortrace.training.recipe import Recipe


def without(cohort: Cohort, recipe: Recipe) -> Cohort:
    """The cohort without the images that the recipe leaves out; a note says how many.

    Raises:
        RecipeError: The list cannot be read.
    """
    if recipe.leave_out is None:
        return cohort
    try:
        listed = set(pd.read_csv(recipe.leave_out, dtype=str)["id"])
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(
            f"not readable as a list of ids ({error})",
            where=recipe.leave_out,
            expected="a CSV file with a column id",
            remedy="mend leave_out in the recipe",
        ) from error
    kept = cohort.where(~cohort.table["id"].isin(listed))
    note = f"{len(cohort) - len(kept):,} of {len(cohort):,} images are left out, as {Path(recipe.leave_out).name} says"
    return replace(kept, notes=(*kept.notes, note))
