"""Pathology foundation models by name: the table `foundation_models.yaml`, and what it says of each."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from tumortrace.errors import ModelError
from tumortrace.images.preprocessing import Filter, Normalisation

HUB = "hf-hub:"
TORCHVISION = "torchvision/"
TABLE = "foundation_models.yaml"


class FoundationModel(BaseModel):
    """A row of the table: how a published body is built, what its authors take of it, and for what it may be used.

    Attributes:
        hub: Owner and name of its repository on the hub.
        file: Its weights there, where they are not called as is usual.
        architecture: Name of timm's builder, where the hub's description is not at hand.
        options: Its arguments there.
        call: What its authors pass besides the hub's description; classes by their names.
        pooling: What they take as embedding: "token", the class token; "token+mean", beside it the mean of the patches'
            tokens, registers left out; "average", that mean alone.
        width: Numbers in the embedding.
        parameters: How many the body has.
        size: Height and width in pixels of its input.
        frame: Side in pixels of the larger square to which images are resized first, whose centre is taken; or None.
        filter: Interpolation of the resize.
        normalisation: As in `Preprocessing`.
        resolutions: Micrometres per pixel that it was trained at; empty where not stated.
        licence: Of the weights.
        gated: Whether the hub gives them to those alone who have been granted access.
        origin: Source of each fact, by the letters that the table explains.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hub: str
    file: str | None = None
    architecture: str
    options: dict[str, Any] = Field(default_factory=dict)
    call: dict[str, Any] = Field(default_factory=dict)
    pooling: Literal["token", "token+mean", "average"]
    width: int
    parameters: int
    size: int = 224
    frame: int | None = None
    filter: Filter = "bicubic"
    normalisation: Literal["imagenet", "inception"] | Normalisation
    resolutions: tuple[float, ...]
    licence: str
    gated: bool
    origin: dict[str, str] = Field(alias="from")


def foundation_models() -> dict[str, FoundationModel]:
    """Every row by its name.

    Example:
        >>> foundation_models()["virchow2"].pooling
        'token+mean'
    """
    return {name: FoundationModel.model_validate(row) for name, row in _table()["offered"].items()}


def foundation_model(body: str) -> FoundationModel | None:
    """The row of a body, by the row's name or by its hub's; None for any other body.

    Raises:
        ModelError: It is known, and why it is not offered.

    Example:
        >>> foundation_model("hf-hub:MahmoodLab/UNI2-h") == foundation_model("UNI2-h"), foundation_model("resnet50")
        (True, None)
    """
    table, name = _table(), body.lower()
    if name in table["not_offered"]:
        raise ModelError(
            f"{body} is not offered: {table['not_offered'][name]}",
            expected=f"one of {', '.join(table['offered'])}, or a name of timm or a hub",
        )
    hub = name.removeprefix(HUB).partition("@")[0]
    rows = (row for key, row in table["offered"].items() if name == key or hub == row["hub"].lower())
    row = next(rows, None)
    return None if row is None else FoundationModel.model_validate(row)


@cache
def _table() -> dict[str, dict[str, Any]]:
    text = files("tumortrace.models").joinpath(TABLE).read_text(encoding="utf-8")
    table: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return table
