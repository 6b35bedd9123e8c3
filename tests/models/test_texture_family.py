"""Descriptors under trees: what they compute, and damaged or hostile trees refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tumortrace import load_model, train
from tumortrace.errors import ModelError, TumorTraceError
from tumortrace.models.architecture import build_network
from tumortrace.models.families.texture import Trees, TreesSize
from tumortrace.records.files import sha256
from tumortrace.texture.descriptor import choose, describe

FOREST = [
    "model.arguments.descriptors=[stain, lbp-uniform]",
    "learner={name: forest, folds: 2, parameters: {n_estimators: 4, max_depth: 3}}",
]


def stump(**size: int | None) -> Trees:
    """Two trees by hand: feature 1 at most .5 leads to .25, else to .75; and one leaf of .5."""
    trees = Trees(2, TreesSize(trees=2, nodes=4, depth=1, **size))
    tensors = {
        "roots": [0, 3],
        "feature": [1, 0, 0, 0],
        "left": [1, 1, 2, 3],
        "right": [2, 1, 2, 3],
        "threshold": [0.5, 0.0, 0.0, 0.0],
        "value": [9.0, 0.25, 0.75, 0.5],
    }
    kinds = {name: torch.float32 if name in ("threshold", "value") else torch.int32 for name in tensors}
    trees.load_state_dict({name: torch.tensor(value, dtype=kinds[name]) for name, value in tensors.items()})
    return trees


def test_trees_by_hand() -> None:
    """Shares are averaged and logits added up; a value equal to the threshold goes left."""
    features = torch.tensor([[7.0, 0.5], [7.0, 0.6]])
    shares = torch.sigmoid(stump(images=100)(features)).view(-1)
    torch.testing.assert_close(shares, torch.tensor([0.375, 0.625]))
    torch.testing.assert_close(stump()(features).view(-1), torch.tensor([0.75, 1.25]))


def test_certain_leaves_stay_half_an_image_from_certainty() -> None:
    """Shares of 0 and 1 become half a training image and all but that."""
    trees = stump(images=10)
    trees.get_buffer("value").copy_(torch.tensor([9.0, 0.0, 1.0, 0.0]))
    trees.get_buffer("roots").copy_(torch.tensor([0, 0]))
    found = torch.sigmoid(trees(torch.tensor([[0.0, 0.0], [0.0, 1.0]]))).view(-1)
    torch.testing.assert_close(found, torch.tensor([0.05, 0.95]))


def test_descriptors_are_those_of_the_stored_pixels() -> None:
    """From [0, 1] and back no grey level changes; names stand with the descriptor that they come from."""
    images = np.random.default_rng(0).integers(0, 256, (3, 24, 20, 3), dtype=np.uint8)
    arguments = {"descriptors": {"glcm": {"distances": [2]}, "sobel": {}}}
    network = build_network("texture", (24, 20), arguments)
    names, expected = describe(images, choose(["glcm", "sobel"], ["glcm.distances=[2]"]))
    found = network.get_submodule("body")(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
    np.testing.assert_array_equal(found.numpy(), expected.astype(np.float32))
    assert [each for columns in network.body.columns.values() for each in columns] == names  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"descriptors": ["glcm", "beauty"]}, "no descriptor named 'beauty'"),
        ({"descriptors": {"glcm": {"distances": [0]}}}, "glcm.distances"),
        ({"descriptors": {"glcm": {"colour": 1}}}, "glcm.colour"),
        ({"descriptors": []}, "no descriptor"),
        ({"trees": {"trees": 0, "nodes": 1, "depth": 0}}, "trees.trees"),
        ({"trees": {"trees": 1}}, "trees.nodes"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(arguments: dict[str, object], says: str) -> None:
    """The message names what is wrong."""
    with pytest.raises(TumorTraceError) as refused:
        build_network("texture", (32, 32), arguments)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_images_too_small_for_descriptors_are_refused() -> None:
    """Below 8x8 px nothing can be described."""
    with pytest.raises(ModelError, match="7x40 px"):
        build_network("texture", (7, 40), {})


@pytest.fixture(scope="module")
def forest(tissue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a small forest."""
    with pytest.MonkeyPatch.context() as patched:  # other tests read the report
        patched.setattr("tumortrace.training.experiment.renew_report", lambda folder: None)
        return train(tissue, recipe="texture-forest", changes=FOREST, out=tmp_path_factory.mktemp("forest")) / "model"


@pytest.fixture
def bundle(forest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(forest, tmp_path / "model"))


def rewritten(bundle: Path, name: str, value: torch.Tensor | None) -> None:
    """Put another tensor into the weights, and their hash into the description, as someone hostile would."""
    tensors = load_file(bundle / "weights.safetensors")
    tensors.pop(name)
    save_file(tensors | ({} if value is None else {name: value}), bundle / "weights.safetensors")
    record = json.loads((bundle / "model.json").read_text())
    record["weights_sha256"] = sha256(bundle / "weights.safetensors")
    (bundle / "model.json").write_text(json.dumps(record))


def test_a_bundle_holds_tensors_and_text_alone(bundle: Path) -> None:
    """Numbers by name in three files, and JSON. There is nothing in it that could run."""
    kept = {"weights.safetensors", "likeness.safetensors", "drift.safetensors", "model.json"}
    assert {file.name for file in bundle.iterdir()} == kept
    tensors = load_file(bundle / "weights.safetensors")
    assert set(tensors) == {f"top.{name}" for name in ("roots", "feature", "threshold", "left", "right", "value")}
    assert {tensor.dtype for tensor in tensors.values()} == {torch.int32, torch.float32}


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("top.left", lambda t: t + 10**6, "left of the trees run"),
        ("top.right", lambda t: -t - 1, "right of the trees run"),
        ("top.roots", lambda t: t + 10**6, "roots of the trees run"),
        ("top.feature", lambda t: t + 10**6, "feature of the trees run"),
        ("top.value", lambda t: t[:-1], "do not fit"),
        ("top.value", lambda t: None, "do not fit"),
    ],
)
def test_hostile_trees_are_refused(bundle: Path, name: str, change: object, says: str) -> None:
    """Nodes and features that are not there, missing and cut tensors: one line each, whatever their hash says."""
    rewritten(bundle, name, change(load_file(bundle / "weights.safetensors")[name]))  # type: ignore[operator]
    with pytest.raises(ModelError, match=says) as refused:
        load_model(bundle)
    assert "\n" not in str(refused.value)


def test_leaves_that_go_in_circles_end(bundle: Path) -> None:
    """Nodes that lead to each other cannot hold prediction up: no image takes more steps than the trees are deep."""
    nodes = len(load_file(bundle / "weights.safetensors")["top.left"])
    circle = (torch.arange(nodes, dtype=torch.int32) + 1) % nodes
    rewritten(bundle, "top.left", circle)
    probability = load_model(bundle).predict(np.zeros((2, 96, 96, 3), np.uint8))
    assert np.isfinite(probability).all()
