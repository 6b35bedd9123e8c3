"""YAML documents that a user writes, a recipe or a search space: found by name or path, checked field by field."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from tumortrace.errors import RecipeError, shown

Document = TypeVar("Document", bound="Part")


class Part(BaseModel):
    """Frozen, and no field but its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def shipped(package: str) -> list[str]:
    """Names of the documents that a package holds."""
    names = [file.name for file in files(package).iterdir() if file.name.endswith(".yaml")]
    return sorted(name.removesuffix(".yaml") for name in names)


def read_document(name: str | Path, package: str, kind: str, see: str) -> tuple[Any, str]:
    """The content of a shipped document, by its name, or of a file, by its path; and where it was found.

    Args:
        name: Name, or a path that ends in .yaml or .yml.
        package: That holds the shipped ones.
        kind: What it is, for messages.
        see: What to do where there is none of that name.

    Raises:
        RecipeError: There is none, or it is no YAML.
    """
    if str(name) in shipped(package):
        where, text = f"{kind} {name}", (files(package) / f"{name}.yaml").read_text(encoding="utf-8")
    elif str(name).endswith((".yaml", ".yml")):
        where = str(name)
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"not readable ({error})", where=where, remedy="name an existing YAML file") from error
    else:
        expected = "one of " + ", ".join(shipped(package)) + ", or a path ending in .yaml"
        raise RecipeError(f"no {kind} named {str(name)!r}", expected=expected, remedy=see)
    try:
        return yaml.safe_load(text), where
    except yaml.YAMLError as error:
        raise RecipeError(f"not valid YAML ({' '.join(str(error).split())})", where=where) from error


def validate(
    kind: type[Document],
    content: object,
    where: str,
    remedy: str,
    meant: Callable[[str], str | None] = lambda field: None,
) -> Document:
    """A document from the content of its file.

    Args:
        kind: What it is.
        content: What YAML made of the file.
        where: It was found, for messages.
        remedy: What to do about a wrong field.
        meant: The known field that is nearest to an unknown one.

    Raises:
        RecipeError: A field is not valid; it is named.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            fault = "no such field"
            if near := meant(str(first["loc"][-1])):
                remedy = f"is {near} meant? {remedy}"
        else:
            fault = f"{first['msg'].removeprefix('Value error, ')} (found {shown(first['input'])})"
        raise RecipeError(fault, where=f"{where}, field {field}" if field else where, remedy=remedy) from error


def as_number(value: object) -> Any:
    """YAML 1.1 takes 1e-3 for text, which nobody means, at whatever depth.

    Example:
        >>> as_number({"init_values": "1e-5", "sizes": ["2E2", "a"]})
        {'init_values': 1e-05, 'sizes': [200.0, 'a']}
    """
    if isinstance(value, dict):
        return {name: as_number(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [as_number(inner) for inner in value]
    if isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+", value):
        return float(value)
    return value
