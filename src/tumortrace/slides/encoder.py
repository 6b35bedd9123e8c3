"""What makes numbers of tiles: the body of a trained run, or a published one by its name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tumortrace.errors import SlideError
from tumortrace.models.architecture import build_network
from tumortrace.models.bundle import Model, load_model
from tumortrace.models.checkpoint import tensors_sha256
from tumortrace.models.description import Architecture, ModelInfo, TrainingData
from tumortrace.models.device import resolve_device
from tumortrace.models.ood import MOMENTS
from tumortrace.models.published import wanted_by
from tumortrace.models.weights import load_weights
from tumortrace.training.learner import seed_everything
from tumortrace.training.recipe import choose_recipe

_SIZE = 224  # px of a body that nobody describes


@dataclass(frozen=True)
class Encoder:
    """A frozen body.

    Attributes:
        model: The network around it, of which nothing but the features is asked.
        body: What it is called in files.
        weights: SHA-256 of its weights.
        resolutions: Um per px that it was trained at; empty where nobody says.
        about: For the record: origin of the weights, licence, preprocessing.
    """

    model: Model
    body: str
    weights: str
    resolutions: tuple[float, ...]
    about: dict[str, Any]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px of the tiles that it takes."""
        return self.model.info.patch_size

    def resolution(self, asked: float | None) -> float:
        """Um per px at which tiles are taken.

        Raises:
            SlideError: It is not plain.
        """
        if asked is not None:
            return asked
        if len(self.resolutions) == 1:
            return self.resolutions[0]
        known = ", ".join(f"{value:g}" for value in self.resolutions)
        raise SlideError(
            f"{self.body} was trained at {known} um per pixel" if known else f"{self.body} states no resolution",
            expected="at which um per pixel it is to see the tiles",
            remedy="state it with --patch-resolution, such as --patch-resolution 0.5 for 20x",
        )

    def features(self, tiles: np.ndarray) -> np.ndarray:
        """Features, float32 (N, D), of tiles, uint8 (N, *size, 3): the body's maps averaged over places and views."""
        return self.model.embedded(tiles).features[:, :-MOMENTS]


def encoder_of(body: str, weights: str | None, changes: Sequence[str], device: str) -> Encoder:
    """The body of a run folder or bundle, or a published one.

    Args:
        body: Path of the one, or name of the other, as `embed --body` takes it.
        weights: Of a published body instead of its own: "random", or a file or folder.
        changes: To its preprocessing and arguments, as in `preprocessing.size=112`.
        device: "auto", "cpu", "cuda", ...

    Raises:
        SlideError: Weights or changes are given for a run.
        TumorTraceError: The model or the body cannot be had.
    """
    if Path(body).is_dir():
        if weights is not None or changes:
            option = "--weights" if weights is not None else "--set"
            raise SlideError(
                f"{option} for a run", where=body, expected="none, as it has its own", remedy="leave it out"
            )
        model = load_model(body, device=device)
        model.require_preparation(None, body)
        info = model.info
        known = () if info.resolution is None else (info.resolution,)
        about = {"origin": f"run {info.name}", "preprocessing": info.preprocessing.model_dump(mode="json")}
        return Encoder(model, info.name, info.weights_sha256, known, about)
    # tiles are shown whole: a frame around them would leave gaps between what is seen of neighbours
    asked = [f"model.arguments.body={json.dumps(body)}", "preprocessing.frame=null", *changes]
    recipe, _ = choose_recipe("probe", asked, weights=weights)
    steps, wanted = recipe.preprocessing, wanted_by(body)
    side = steps.frame or steps.size or _SIZE
    seed_everything(0)
    network = build_network(recipe.model.name, steps.output_size((side, side)), recipe.model.arguments)
    origin = load_weights(network, recipe.weights)
    info = ModelInfo(
        name=body,
        architecture=Architecture(
            name=recipe.model.name, arguments={**recipe.model.arguments, **network.resolved_arguments}
        ),
        preprocessing=steps,
        patch_size=(side, side),
        classes=("negative", "positive"),
        positive_class="positive",
        training=TrainingData(fingerprint="", prevalence=0.5, recipe=recipe.name),
    )
    model = Model(info, network.requires_grad_(False), resolve_device(device))
    about = {**origin, "preprocessing": steps.model_dump(mode="json")}
    return Encoder(
        model, body, tensors_sha256(network.body.state_dict()), () if wanted is None else wanted.resolutions, about
    )
