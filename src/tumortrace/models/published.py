"""What a published body wants its images to be, as its own description says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel, ConfigDict

from tumortrace.errors import ModelError
from tumortrace.images.preprocessing import NORMALISATIONS, Filter, Normalisation
from tumortrace.models.foundation import HUB, TORCHVISION, foundation_model
from tumortrace.models.hub import hub_description


class Wanted(BaseModel):
    """Fields of `Preprocessing` as a body was trained with them, and the resolutions that it knows.

    Attributes:
        size: Height and width in pixels of its input.
        frame: Side in pixels of the larger square whose centre it takes, or None.
        filter: Interpolation of the resize.
        normalisation: A name, or mean and standard deviation.
        resolutions: Micrometres per pixel that it was trained at; empty where not stated.
    """

    model_config = ConfigDict(frozen=True)

    size: int
    frame: int | None = None
    filter: Filter = "bicubic"
    normalisation: str | Normalisation
    resolutions: tuple[float, ...] = ()


def wanted_by(body: str) -> Wanted | None:
    """What a body wants; None where nobody says.

    Args:
        body: As `Backbone` takes it.

    Raises:
        ModelError: Its description cannot be fetched, or the table does not offer it.

    Example:
        >>> wanted_by("prov-gigapath").frame, wanted_by("h-optimus-0").normalisation.mean[0]
        (256, 0.707223)
        >>> wanted_by("vit_base_patch16_224.augreg_in21k").normalisation
        'inception'
    """
    row = foundation_model(body)
    if row is not None:
        return Wanted(**{name: getattr(row, name) for name in Wanted.model_fields})
    if body.startswith(TORCHVISION):
        return _of_torchvision(body.removeprefix(TORCHVISION))
    if body.startswith(HUB):
        described = hub_description(body.removeprefix(HUB))
        return _of_timm((described or {}).get("pretrained_cfg") or {})
    import timm  # takes seconds, which most have no need of

    try:
        config = timm.get_pretrained_cfg(body)
    except RuntimeError:  # no such tag, as building it will say
        config = None
    return None if config is None else _of_timm(config.to_dict())


def _of_timm(config: Mapping[str, Any]) -> Wanted | None:
    """From timm's `pretrained_cfg`: whoever leaves out something means what timm takes then."""
    if not any(config.get(name) for name in ("mean", "std", "input_size")):
        return None
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    size, kept = int((config.get("input_size") or (3, 224, 224))[-1]), float(config.get("crop_pct") or 0.875)
    frame = math.floor(size / kept) if kept < 1 else size
    filter = str(config.get("interpolation") or "bicubic")
    return Wanted(
        size=size,
        frame=frame if frame > size else None,
        filter=cast(Filter, filter if filter in ("nearest", "bilinear", "bicubic") else "bicubic"),
        normalisation=_named(config.get("mean") or IMAGENET_DEFAULT_MEAN, config.get("std") or IMAGENET_DEFAULT_STD),
    )


def _of_torchvision(name: str) -> Wanted | None:
    import torchvision

    try:
        steps = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    except (ValueError, KeyError) as error:
        raise ModelError(f"torchvision has no model {name!r}", remedy="name another, or one of timm") from error
    size, frame = int(steps.crop_size[0]), int(steps.resize_size[0])
    filter = cast(Filter, steps.interpolation.value)
    named = _named(steps.mean, steps.std)
    return Wanted(size=size, frame=frame if frame > size else None, filter=filter, normalisation=named)


def _named(mean: Any, std: Any) -> str | Normalisation:
    """The name of a known normalisation, or its figures."""
    values = Normalisation(mean=tuple(mean), std=tuple(std))
    return next((name for name, known in NORMALISATIONS.items() if known == values), values)
