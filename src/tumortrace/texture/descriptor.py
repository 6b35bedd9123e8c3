"""Names of descriptors, what every one of them promises, and how several are computed for many images."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, get_type_hints

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from tumortrace.errors import RecipeError, shown
from tumortrace.registry import Registry

Described = tuple[list[str], np.ndarray]

#: Functions `(images, *, arguments) -> (names, values)`. The images are uint8, shape (N, H, W, 3), of 8x8 px or more;
#: names are D column names, the same for all images of a size; values are float64, shape (N, D), always finite, and
#: of each image as if it came alone.
DESCRIPTORS: Registry[Callable[..., Described]] = Registry("descriptor", "tumortrace.texture")

SMALLEST = 8  # px
_BLOCK_PIXELS = 80_000  # what is computed at once stays in the processor's cache

#: Arguments of a descriptor, by name.
Options = dict[str, Any]


def choose(descriptors: Sequence[str] | None = None, changes: Sequence[str] = ()) -> dict[str, Options]:
    """The chosen descriptors with all their arguments.

    Args:
        descriptors: Names; default all of them, in alphabetical order.
        changes: `descriptor.argument=value` each; values are YAML.

    Raises:
        TumorTraceError: There is no descriptor of this name.
        RecipeError: A change names no argument of a chosen descriptor, or its value is not valid.

    Example:
        >>> choose(["glcm"], ["glcm.distances=[2]"])["glcm"]["distances"]
        (2,)
    """
    names = list(dict.fromkeys(DESCRIPTORS if descriptors is None else descriptors))
    fields = {name: list(_arguments(name).model_fields) for name in names}
    given: dict[str, Options] = {name: {} for name in names}
    for change in changes:
        key, equals, value = change.partition("=")
        name, _, argument = key.strip().partition(".")
        if not equals or name not in given or argument not in fields[name]:
            known = [f"{each}.{field}" for each in names for field in fields[each]]
            expected = "argument=value with one of " + ", ".join(known) if known else "none, as these have no arguments"
            raise RecipeError(f"--set {change!r}", expected=expected, remedy="write it as in glcm.distances=[1,3]")
        try:
            given[name][argument] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise RecipeError(f"the value in --set {change!r} is not valid YAML", remedy="quote it") from None
    return {name: _validated(name, arguments) for name, arguments in given.items()}


def describe(images: np.ndarray, chosen: Mapping[str, Mapping[str, Any]]) -> Described:
    """Names and values of all chosen descriptors, side by side.

    Args:
        images: uint8, shape (N, H, W, 3), H and W at least 8.
        chosen: Arguments by descriptor, as `choose` gives them.

    Returns:
        D unique names, and float64 values of shape (N, D).

    Example:
        >>> names, values = describe(np.zeros((2, 8, 8, 3), np.uint8), choose(["sobel"]))
        >>> names[0], values.shape[0], float(values.max())
        ('sobel_x_mean', 2, 0.0)
    """
    step = max(1, _BLOCK_PIXELS // (images.shape[1] * images.shape[2]))
    names: list[str] = []
    blocks = []
    for start in range(0, max(len(images), 1), step):
        block = np.ascontiguousarray(images[start : start + step])
        parts = [DESCRIPTORS[name](block, **arguments) for name, arguments in chosen.items()]
        names = [name for each, _ in parts for name in each]
        blocks.append(np.concatenate([values for _, values in parts], axis=1))
    return names, np.concatenate(blocks)


@cache
def _arguments(name: str) -> type[BaseModel]:
    """The keyword arguments of a descriptor as a model that checks their types."""
    function = DESCRIPTORS[name]
    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    fields: Any = {each.name: (hints[each.name], each.default) for each in parameters if each.kind == each.KEYWORD_ONLY}
    return create_model(f"{name} arguments", __config__=ConfigDict(extra="forbid"), **fields)


def _validated(name: str, given: Options) -> Options:
    try:
        return _arguments(name).model_validate(given).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in (name, *first["loc"]))
        raise RecipeError(f"{first['msg']} (found {shown(first['input'])})", where=f"--set {field}") from None
