"""Exported graphs against torch: every family, kind of calibration and kind of preprocessing; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from tumortrace.errors import ModelError
from tumortrace.evaluation.calibration import Calibrator
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.images.resampling import as_products, resize
from tumortrace.models.architecture import ARCHITECTURES, build_network
from tumortrace.models.bundle import Model
from tumortrace.models.description import Architecture, ModelInfo, TrainingData
from tumortrace.models.graph import CalibrationGraph, export_graph
from tumortrace.models.runtimes import OnnxRuntime, OpenVino
from tumortrace.training.recipe import choose_recipe

SIDE = 32
BENT = Calibrator(method="isotonic", slope=0.7, knots=(-1.0, 0.2, 0.9), values=(-0.5, 0.1, 2.0))
SWAPPED = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4), "bgr": True}
SMALL: dict[str, dict[str, Any]] = {
    "backbone": {"body": "resnet10t"},
    "centre-resnet": {"stem": 8, "widths": [8, 16], "depths": [1, 1], "strides": [1, 2], "instance": 2},
    "ensemble": {
        "members": [
            {"name": "plain-cnn", "preprocessing": {"size": 24}, "arguments": {"blocks": [4]}},
            {"name": "plain-cnn", "preprocessing": {"crop": 16}, "arguments": {"blocks": [4], "outputs": 2}},
        ]
    },
    "equivariant-resnet": {"stem": 2, "widths": [2, 4], "depths": [1, 1]},
    "plain-cnn": {"blocks": [4, 4], "attention": True, "batch_norm": True},
}


def model(name: str, arguments: dict[str, Any], steps: dict[str, Any] | None = None, **fields: Any) -> Model:
    """A model with random weights, whose batch norm has seen something."""
    preprocessing = Preprocessing.model_validate(steps or {})
    info = ModelInfo(
        name=f"small {name}",
        architecture=Architecture(name=name, arguments=arguments),
        preprocessing=preprocessing,
        patch_size=fields.pop("patch_size", (SIDE, SIDE)),
        classes=("normal", "tumour"),
        positive_class="tumour",
        training=TrainingData(fingerprint="0", prevalence=0.5, recipe="none"),
        weights_sha256="f" * 64,
        **fields,
    )
    torch.manual_seed(0)
    network = build_network(name, preprocessing.output_size(info.patch_size), arguments)
    with torch.no_grad():
        for _ in range(3):
            network.train()(torch.rand(8, 3, *preprocessing.output_size(info.patch_size)))
    return Model(info, network, torch.device("cpu"))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3), dtype=np.uint8)


def same(one: Model, file: Path, images: np.ndarray) -> onnxruntime.InferenceSession:
    """Logit and probability of torch, in batches of any size, from both runtimes."""
    said = one.assess(images)
    prepared = one.info.prepare(images)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for rows in (slice(0, 5), slice(2, 3)):
        logit, probability, features = session.run(None, {"images": prepared[rows]})
        np.testing.assert_allclose(features, one.embedded(images)[1][rows], atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(logit, said.logit[rows], atol=1e-4)
        np.testing.assert_allclose(probability, said.probability[rows], atol=1e-5)
    for runtime in (OnnxRuntime, OpenVino):
        logit, features, _ = runtime(file)(prepared)
        probability = one.info.calibration.apply(logit)
        np.testing.assert_allclose(features, one.embedded(images)[1], atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(probability, said.probability, atol=1e-5)
    return session


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "texture"])
def test_every_family_exports(name: str, images: np.ndarray, tmp_path: Path) -> None:
    """With the eight symmetries and a calibration with bends; a family may name a smaller network above."""
    one = model(name, SMALL.get(name, {}), symmetries=True, calibration=BENT, threshold=0.3)
    export_graph(one.info, one.network, tmp_path / "model.onnx")
    session = same(one, tmp_path / "model.onnx", images)
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["classes"]) == ["normal", "tumour"]
    assert said["positive_class"] == "tumour"
    assert float(said["threshold"]) == 0.3
    assert said["weights_sha256"] == "f" * 64
    assert "Research use only" in said["research_use"]
    assert session.get_inputs()[0].type == "tensor(uint8)"


@pytest.mark.parametrize(
    ("steps", "size"),
    [
        ({"size": 48, "filter": "bicubic", "normalisation": SWAPPED}, (SIDE, SIDE)),
        ({"size": 16, "filter": "lanczos", "normalisation": "imagenet"}, (SIDE, 24)),
        ({"stain": "reinhard", "crop": 24, "super_resolution": {"scale": 2}}, (SIDE, SIDE)),
    ],
)
def test_preprocessing_is_inside_but_for_what_works_on_whole_patches(
    steps: dict[str, Any], size: tuple[int, int], images: np.ndarray, tmp_path: Path
) -> None:
    """Crop, resize by every filter, normalisation; stain and super-resolution are done before, and the file says so."""
    one = model("plain-cnn", {"blocks": [4]}, steps, patch_size=size)
    export_graph(one.info, one.network, tmp_path / "model.onnx")
    session = same(one, tmp_path / "model.onnx", np.ascontiguousarray(images[:, : size[0], : size[1]]))
    prepares = one.info.preprocessing.prepares
    assert session.get_modelmeta().custom_metadata_map["prepared"] == json.dumps(prepares)
    assert session.get_inputs()[0].shape[1:] == [*one.info.graph_size, 3]
    assert one.info.graph_size == ((48, 48) if prepares else size)


@pytest.mark.parametrize("name", ["cnn-64", "efficientnet-b0-96", "probe", "mri-resnet18", "resnet50-64"])
def test_recipes_that_resize_are_computed_by_every_runtime(name: str, tmp_path: Path) -> None:
    """From patches of another size and shape, as torch to 4e-6."""
    size = (60, 41)
    steps = choose_recipe(name)[0].preprocessing.model_dump(mode="json")
    assert steps["size"]
    one = model("plain-cnn", {"blocks": [4]}, steps, patch_size=size)
    export_graph(one.info, one.network, tmp_path / "model.onnx")
    images = np.random.default_rng(1).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    said = one.assess(images).probability
    for runtime in (OnnxRuntime, OpenVino):
        logit, *_ = runtime(tmp_path / "model.onnx")(one.info.prepare(images))
        np.testing.assert_allclose(one.info.calibration.apply(logit), said, atol=4e-6)


def test_descriptors_are_refused_in_one_line(tmp_path: Path) -> None:
    """scikit-image's descriptors are no tensor operations; nothing is written."""
    one = model("texture", {"descriptors": ["intensity"]})
    with pytest.raises(ModelError, match="texture cannot be exported"):
        export_graph(one.info, one.network, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("calibrator", [Calibrator(), BENT, Calibrator(slope=0.5, knots=(0.3,), values=(-1.0,))])
def test_calibration_in_tensors_is_the_bundles(calibrator: Calibrator) -> None:
    """On, between and beyond the knots."""
    logits = np.concatenate([np.linspace(-30, 30, 601), np.array(calibrator.knots)])
    found = CalibrationGraph(calibrator)(torch.from_numpy(logits)).numpy()
    np.testing.assert_allclose(found, calibrator.apply(logits), atol=1e-12)


@pytest.mark.parametrize("filter", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(24, 48), (50, 17)])
def test_resizing_by_products_is_resizing(filter: Any, size: tuple[int, int]) -> None:
    """Enlarging and shrinking, and another size for each side."""
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with as_products():
        found = resize(image, size, filter)
    torch.testing.assert_close(found, resize(image, size, filter), atol=3e-6, rtol=0)
