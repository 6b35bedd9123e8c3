"""One pass over a region says of its patches what they are said to be one by one; where it would not, it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from tumortrace.errors import ModelError
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.models.architecture import build_network
from tumortrace.models.bundle import Model
from tumortrace.models.dense import assess_places, stride_of
from tumortrace.models.description import Architecture, ModelInfo, SeveralClasses, TrainingData
from tumortrace.models.ood import OutOfDistribution, fit_ood_detector

SIDE = 48
BLOCKS: list[Any] = [{"channels": 6, "convolutions": 1}, {"channels": 8, "kernel": 5, "convolutions": 1}]


def model_of(
    name: str = "plain-cnn",
    arguments: Mapping[str, Any] | None = None,
    steps: Preprocessing | None = None,
    **changes: Any,
) -> Model:
    """Random weights, batch norm with running statistics of its own."""
    torch.manual_seed(0)
    steps = steps or Preprocessing(normalisation="imagenet")
    arguments = {"blocks": BLOCKS, "batch_norm": True, "head": [{"dense": 7}]} if arguments is None else arguments
    fields = {"patch_size": (SIDE, SIDE), "classes": ("normal", "tumour"), "positive_class": "tumour"} | changes
    training = TrainingData(fingerprint="0", prevalence=0.5, recipe="none")
    architecture = Architecture(name=name, arguments=dict(arguments))
    info = ModelInfo(name=name, architecture=architecture, preprocessing=steps, training=training, **fields)
    network = build_network(name, steps.output_size(info.patch_size), arguments, info.sides)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr,operator]
            layer.running_var.uniform_(0.5, 2)  # type: ignore[union-attr,operator]
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.normal_(layer.weight, std=0.6)
    return Model(info, network, torch.device("cpu"))


def scored(model: Model) -> Model:
    """The same with a score of how unlike the training images an image is."""
    images = np.random.default_rng(1).integers(0, 256, (40, SIDE, SIDE, 3)).astype(np.uint8)
    features = model.embedded(images).features
    ood = OutOfDistribution(images=40, dimensions=features.shape[1] - 1, quantile=0.99, limit=1.0, energy_limit=1.0)
    info = model.info.model_copy(update={"ood": ood})
    return Model(info, model.network, model.device, fit_ood_detector(features))


def picture(height: int, width: int) -> np.ndarray:
    """Patches of many kinds: noise whose brightness and grain change over the picture."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)
    return (coarse[:height, :width] * 0.7 + random.integers(0, 77, (height, width, 3))).astype(np.uint8)


def require_alike(model: Model, step: int, rows: int = 4, columns: int = 6) -> None:
    """Places in a mixed order, not all of them, against patch by patch."""
    region = picture(SIDE + (rows - 1) * step, SIDE + (columns - 1) * step)
    places = np.array([(row * step, column * step) for row in range(rows) for column in range(columns)])
    places = np.random.default_rng(2).permutation(places)[: len(places) - 3]
    one = model.assess(np.stack([region[y : y + SIDE, x : x + SIDE] for y, x in places]))
    other = assess_places(model, region, places)
    assert np.ptp(one.probability) > 0.005  # patches differ, so that a wrong place shows
    for name, values in one.columns().items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(other.columns()[name], values, atol=1e-4, err_msg=name)
        else:
            assert (other.columns()[name] == values).all(), name


@pytest.mark.parametrize("pooling", ["flatten", "average", "centre"])
@pytest.mark.parametrize("symmetries", [False, True])
def test_every_pooling_and_all_views(pooling: str, symmetries: bool) -> None:
    """Steps of the stride and of more, also with attention, dropout and the score of likeness."""
    head = [{"dense": 7}, {"dropout": 0.5}]
    arguments = {"blocks": BLOCKS, "pooling": pooling, "attention": pooling == "average", "head": head}
    model = scored(model_of(arguments=arguments, symmetries=symmetries))
    assert stride_of(model) == 4
    for step in (4, 16, SIDE):
        require_alike(model, step)


@pytest.mark.parametrize("crop", [32, 33])
def test_a_crop_and_odd_sizes(crop: int) -> None:
    """The centre alone is looked at; pooling drops a row where sides are odd, and views turn what is left."""
    model = model_of(steps=Preprocessing(crop=crop, size=crop), symmetries=True)
    require_alike(model, 8)


def test_classes_and_a_softmax_of_two() -> None:
    """More than two classes keep theirs; two outputs are one log-odds."""
    several = SeveralClasses(names=("a", "b", "c"), positive=("b", "c"))
    require_alike(model_of(several=several), 8)
    require_alike(model_of(arguments={"blocks": BLOCKS, "outputs": 2}), 8)


def test_the_order_of_a_grid_matters() -> None:
    """Places are rows and columns: with the axes exchanged the answers are others."""
    model, region = model_of(), picture(SIDE + 16, SIDE + 16)
    places = np.array([(0, 16), (16, 0)])
    answers = assess_places(model, region, places).probability
    turned = assess_places(model, region, places[:, ::-1].copy()).probability
    assert np.abs(answers - turned).max() > 1e-4
    np.testing.assert_allclose(answers, turned[::-1], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "arguments", "steps", "reason"),
    [
        ("plain-cnn", {"blocks": BLOCKS, "padding": "same"}, {}, r"body.0 \(Conv2d\) pads a patch"),
        ("centre-resnet", {}, {}, r"body.0 \(Conv2d\) pads a patch"),
        ("equivariant-resnet", {}, {}, "body.0"),
        ("backbone", {"body": "resnet18"}, {}, "not one body of layers"),
        ("plain-cnn", None, {"stain": "macenko"}, r"stain normalisation \(macenko\) looks at each patch as a whole"),
        ("plain-cnn", None, {"equalisation": "histogram"}, "equalisation"),
        ("plain-cnn", None, {"size": 32}, "resized from 48 px"),
        ("plain-cnn", None, {"crop": 32, "size": 64}, "resized from 32 px"),
    ],
)
def test_what_cannot_be_dense_is_refused_with_the_reason(
    name: str, arguments: dict[str, Any] | None, steps: dict[str, Any], reason: str
) -> None:
    model = model_of(name, arguments, Preprocessing(**steps))
    with pytest.raises(ModelError, match=reason) as refusal:
        stride_of(model)
    assert "--dense" in str(refusal.value)
