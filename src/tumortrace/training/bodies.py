"""Recipes around published bodies: their own preprocessing where a recipe does not say, and notes where it differs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tumortrace.images.preprocessing import NORMALISATIONS, Normalisation, Preprocessing
from tumortrace.models.published import Wanted, wanted_by

if TYPE_CHECKING:
    from tumortrace.training.recipe import Recipe

_LIKE = 0.1  # share by which micrometres per pixel may differ and still be taken for the same


def as_its_body_wants(recipe: Recipe) -> Recipe:
    """A probe's recipe with the preprocessing that its body asks for, in all that the recipe does not say.

    Example:
        >>> from tumortrace.training.recipe import load_recipe
        >>> probe = as_its_body_wants(load_recipe("probe", ["model.arguments.body=uni2-h"]))
        >>> probe.preprocessing.size, probe.preprocessing.normalisation
        (224, 'imagenet')
    """
    wanted = _wanted(recipe) if recipe.probe is not None else None
    if wanted is None:
        return recipe
    steps, said = recipe.preprocessing, recipe.preprocessing.model_fields_set
    given: dict[str, Any] = {name: getattr(wanted, name) for name in ("size", "filter", "normalisation")}
    if not said & {"size", "crop", "frame"}:
        given["frame"] = wanted.frame
    given = {name: value for name, value in given.items() if name not in said}
    document = steps.model_dump(mode="json", include=said) | _plain(given)
    return recipe.model_copy(update={"preprocessing": Preprocessing.model_validate(document)})


def notes_on_body(recipe: Recipe, resolution: float | None, patch_size: tuple[int, int]) -> list[str]:
    """What has to be said of a published body's input.

    Args:
        recipe: The recipe, complete.
        resolution: Micrometres per pixel of the images, or None.
        patch_size: Their height and width in pixels.
    """
    wanted = _wanted(recipe) if recipe.weights != "random" else None
    if wanted is None:
        return []
    steps, body = recipe.preprocessing, recipe.model.arguments["body"]
    notes = []
    if _values(steps.normalisation) != _values(wanted.normalisation):
        notes.append(
            f"the recipe normalises by {_told(steps.normalisation)}, and {body} was trained with "
            f"{_told(wanted.normalisation)}; leave preprocessing.normalisation out of a probe's recipe to take its own"
        )
    if recipe.probe is None:
        return notes
    for name in ("size", "frame", "filter"):
        if getattr(steps, name) != getattr(wanted, name) and not (name == "frame" and steps.size != wanted.size):
            notes.append(f"the recipe's {name} is {getattr(steps, name)}, and {body} asks for {getattr(wanted, name)}")
    if resolution is not None and wanted.resolutions:
        kept = min(patch_size[0], steps.crop or patch_size[0]) * steps.framed
        shown = resolution * kept / (steps.size or kept)
        if not any(abs(one / known - 1) <= _LIKE for one in (resolution, shown) for known in wanted.resolutions):
            known = ", ".join(f"{value:g}" for value in wanted.resolutions)
            notes.append(
                f"the images are of {resolution:g} um/px ({shown:.2g} as {body} is shown them), and it was trained at "
                f"{known} um/px"
            )
    return notes


def _wanted(recipe: Recipe) -> Wanted | None:
    body = recipe.model.arguments.get("body", "resnet18")
    return wanted_by(str(body).replace("hf_hub:", "hf-hub:", 1)) if recipe.model.name == "backbone" else None


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value.model_dump() if isinstance(value, Normalisation) else value for name, value in values.items()}


def _values(normalisation: str | Normalisation) -> Normalisation:
    return NORMALISATIONS[normalisation] if isinstance(normalisation, str) else normalisation


def _told(normalisation: str | Normalisation) -> str:
    if isinstance(normalisation, str):
        return normalisation
    mean, std = (" ".join(f"{value:.4g}" for value in row) for row in (normalisation.mean, normalisation.std))
    return f"mean {mean}, deviation {std}"
