"""The models that a server has loaded, each with its queue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tumortrace.app.batching import Batcher
from tumortrace.app.problems import Problem
from tumortrace.app.settings import Settings
from tumortrace.errors import ServeError
from tumortrace.inference.explain import allowed_methods
from tumortrace.models.bundle import Model, find_bundle, load_model


@dataclass(frozen=True)
class Served:
    """One model that answers.

    Attributes:
        name: By which callers choose it.
        model: The loaded bundle.
        folder: Run folder, or the bundle where there is no run around it.
        batcher: Its queue and thread; use the model through it alone.
        methods: Names of those in which it can be asked to explain.
    """

    name: str
    model: Model
    folder: Path
    batcher: Batcher
    methods: tuple[str, ...]


class Catalogue:
    """The loaded models by name; the first is the one that is asked where none is named.

    Args:
        settings: Which runs, on which device.
        observe: Told the model's name and the size of each batch.

    Raises:
        ModelError: A run has no model, or a damaged one, or one that takes images prepared otherwise.
        ServeError: Two runs have the same name.
    """

    def __init__(self, settings: Settings, observe: Callable[[str, int], None]) -> None:
        self._served: dict[str, Served] = {}
        for run in settings.runs:
            served = _load(run, settings, observe)
            if served.name in self._served:
                raise ServeError(
                    f"two models named {served.name!r}", where=run, remedy="name each run once, or rename one's folder"
                )
            self._served[served.name] = served

    @property
    def names(self) -> list[str]:
        """Names of the models, the first being the default."""
        return list(self._served)

    @property
    def all(self) -> list[Served]:
        """The models in the order in which they were named."""
        return list(self._served.values())

    def get(self, name: str | None = None) -> Served:
        """The model of this name, or the first.

        Raises:
            Problem: There is none of this name (404).
        """
        if name is None:
            return next(iter(self._served.values()))
        if name not in self._served:
            raise Problem(404, f"no model named {name[:200]!r}", f"choose one of {', '.join(self.names)}")
        return self._served[name]


def _load(run: Path, settings: Settings, observe: Callable[[str, int], None]) -> Served:
    model = load_model(run, device=settings.device, backend="auto")
    model.require_preparation(None, "uploaded images")
    bundle = find_bundle(run).resolve()
    folder = bundle.parent if (bundle.parent / "run.json").is_file() else bundle
    name = folder.name
    batcher = Batcher(lambda images: assess(model, name, images), settings.limits, lambda size: observe(name, size))
    return Served(name, model, folder, batcher, tuple(allowed_methods(model)))


def assess(model: Model, name: str, images: np.ndarray) -> list[dict[str, Any]]:
    """What a model says of each image, as the API answers it but for the file's name.

    Args:
        model: The model.
        name: Under which it is served.
        images: uint8, shape (N, H, W, 3); H and W are the bundle's `patch_size`.
    """
    info, found = model.info, model.assess(images)
    return [
        {
            "label": info.classes[int(found.prediction[row])],
            "probability": float(found.probability[row]),
            "decision": str(found.decision[row]),
            "in_distribution": None if found.in_distribution is None else bool(found.in_distribution[row]),
            "model": name,
            "ood_score": None if found.ood is None else float(found.ood[row]),
        }
        for row in range(len(images))
    ]
