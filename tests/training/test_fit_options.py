"""Options of training: frozen parts, stages, losses, sampling, averages, and features computed once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tumortrace.errors import ModelError, RunError
from tumortrace.models.architecture import build_network, freeze
from tumortrace.models.checkpoint import load_checkpoint
from tumortrace.training import gradient as descent
from tumortrace.training.gradient import GradientLearner
from tumortrace.training.optimiser import build_average, build_optimiser
from tumortrace.training.options import Averaging, Optimiser
from tumortrace.training.recipe import Recipe, load_recipe
from tumortrace.training.stage import binary_loss
from tumortrace.training.task import Patches, Task, epoch_order

RESNET = ["model.name=backbone", "model.arguments={body: resnet18}", "preprocessing.size=32", "batch_size=16"]


@pytest.fixture(scope="module")
def patches() -> Patches:
    """Forty-eight noisy 32x32 images whose class is their brightness, 12 of them positive."""
    random = np.random.default_rng(0)
    labels = (np.arange(48) % 4 == 0).astype(np.float32)
    images = random.integers(0, 160, (48, 32, 32, 3)) + 80 * labels[:, None, None, None].astype(int)
    return Patches(images.astype(np.uint8), np.arange(48), labels)


def trainer(patches: Patches, folder: Path, changes: list[str], base: str = "cnn-64", **more: Any) -> GradientLearner:
    recipe = load_recipe(base, [*changes])
    files = {"checkpoints": folder / "c", "history_file": folder / "history.csv"}
    # Whatever the machine has: results are compared to the digit.
    return GradientLearner(Task(recipe, patches, patches, seed=3, precision="32", **files, **more))


def test_features_computed_once_give_what_the_slow_way_gives(patches: Patches, tmp_path: Path) -> None:
    """A head trained on kept features has the weights and history of one trained behind the frozen body."""
    changes = [*RESNET, "freeze=[body]", "epochs=2", "model.arguments.head=[{dense: 16}, {dropout: 0.5}]"]
    fast = trainer(patches, tmp_path / "fast", changes)
    slow = trainer(patches, tmp_path / "slow", changes, keep_features=False)
    assert fast.trains_head
    assert not slow.trains_head
    histories = [fast.fit().history, slow.fit().history]
    for quick, full in zip(*histories, strict=True):
        assert quick["train_loss"] == pytest.approx(full["train_loss"], abs=1e-5)
        assert quick["validation_loss"] == pytest.approx(full["validation_loss"], abs=1e-5)
    for (name, a), b in zip(fast.network.state_dict().items(), slow.network.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4, msg=name)


def test_features_are_not_kept_where_that_would_change_the_result(patches: Patches, tmp_path: Path) -> None:
    """Augmentation, or a second stage that thaws the body, goes the slow way."""
    frozen = [*RESNET, "freeze=[body]"]
    assert not trainer(patches, tmp_path / "a", [*frozen, "augmentation.symmetries=true"]).trains_head
    assert not trainer(patches, tmp_path / "b", [*frozen, "fine_tuning={epochs: 1, lr: 0.001}"]).trains_head


def test_a_frozen_body_keeps_weights_and_statistics(patches: Patches, tmp_path: Path) -> None:
    """Neither weights nor running statistics of batch norm move, though the images are augmented."""
    fit = trainer(patches, tmp_path, [*RESNET, "freeze=[body]", "epochs=1", "augmentation.symmetries=true"])
    before = {name: value.clone() for name, value in fit.network.state_dict().items()}
    fit.fit()
    after = fit.network.state_dict()
    moved = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"top"}


def test_two_stages(patches: Patches, tmp_path: Path) -> None:
    """The second stage starts from the best of the first, thaws what it names not, at its own rate."""
    changes = [*RESNET, "freeze=[body]", "epochs=2", "fine_tuning={epochs: 1, lr: 0.00005, freeze: [body.conv1]}"]
    fit = trainer(patches, tmp_path, changes)
    before = {name: value.clone() for name, value in fit.network.state_dict().items()}
    history = fit.fit().history
    assert [(row["stage"], row["learning_rate"]) for row in history] == [(1, 0.001), (1, 0.001), (2, 0.00005)]
    last, _ = load_checkpoint(tmp_path / "c" / "last.safetensors")
    same = {name for name in before if torch.equal(before[name], last[f"network.{name}"])}
    assert "body.conv1.weight" in same
    assert "body.layer1.0.conv1.weight" not in same


def test_one_core_and_two_learn_the_same_to_the_last_bit(patches: Patches, tmp_path: Path) -> None:
    """A batch has the same parts, with the same draws, whether they are computed side by side or in turn."""
    changes = [
        "preprocessing.size=32", "batch_size=16", "epochs=2", "augmentation.mixup=0.4", "model.name=equivariant-resnet",
        "model.arguments={stem: 2, widths: [4], depths: [1], dropout: 0.5}",
    ]  # fmt: skip
    threads, learnt = torch.get_num_threads(), []
    try:
        for cores in (1, 2):
            torch.set_num_threads(cores)
            fit = trainer(patches, tmp_path / str(cores), changes)
            assert fit.descent.parts == 2
            fit.fit()
            learnt.append(fit.evaluated.state_dict())
            assert torch.get_num_threads() == cores
    finally:
        torch.set_num_threads(threads)
    for name, values in learnt[0].items():
        assert torch.equal(values, learnt[1][name]), name


def test_frozen_batch_norm_resumes_with_the_statistics_of_before(patches: Patches, tmp_path: Path) -> None:
    """What a second stage freezes has learnt in the first: both parts of a batch compute with that after a kill."""
    changes = [
        "preprocessing.size=32", "batch_size=16", "epochs=1",
        "fine_tuning={epochs: 2, lr: 0.0005, freeze: [body.1, body.2]}",
        "model.name=plain-cnn", "model.arguments={blocks: [4, 8], batch_norm: true}",
    ]  # fmt: skip
    whole = trainer(patches, tmp_path / "whole", changes)
    whole.fit()
    first = trainer(patches, tmp_path / "parts", changes)
    first.fit(lambda row: row["epoch"] == 2)
    second = trainer(patches, tmp_path / "parts", changes)
    assert second.resume()
    assert second.descent.parts == 2
    for statistics, copied in zip(*(network.buffers() for network in second.descent.networks), strict=True):
        assert torch.equal(statistics, copied)
    second.fit()
    for a, b in zip(whole.evaluated.state_dict().values(), second.evaluated.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_step_of_two_parts_is_the_mean_of_their_steps(patches: Patches, tmp_path: Path) -> None:
    """The gradient of a batch without batch norm or dropout is that of the whole, as torch computes it."""
    changes = ["preprocessing.size=32", "batch_size=15"]
    fit = trainer(patches, tmp_path, changes)
    batch = np.arange(15)
    pixels = fit.recipe.preprocessing.pixels(fit.training.tensor(batch, fit.device))
    logits = fit.network(fit.recipe.preprocessing.normalise(pixels))
    loss = functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(fit.training.labels[batch]))
    expected = torch.autograd.grad(loss, list(fit.network.parameters()))
    fit._step(batch)
    assert fit.progress.loss_sum / len(batch) == pytest.approx(float(loss), rel=1e-5)
    for parameter, gradient in zip(fit.network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-6)


def test_images_in_device_memory_and_late_looks_change_nothing(
    patches: Patches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on an accelerator: images kept there, losses looked at after two steps; weights and history stay the same."""
    changes = ["preprocessing.size=32", "batch_size=16", "epochs=2"]
    usual = trainer(patches, tmp_path / "usual", changes)
    usual.fit()
    monkeypatch.setattr(descent, "room_for_images", lambda device: patches.bytes * 2)
    kept = trainer(patches, tmp_path / "kept", changes)
    assert kept.training.kept is not None
    assert usual.training.kept is None
    kept.ahead = 2
    kept.fit()
    for a, b in zip(usual.evaluated.state_dict().values(), kept.evaluated.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in fit.progress.history] for fit in (usual, kept)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("after", [1, 2, 3])
def test_stages_resume_bit_for_bit(patches: Patches, tmp_path: Path, after: int) -> None:
    """Ended after any epoch and resumed, also across the stages, with SWA: the same weights as undisturbed."""
    changes = [
        "preprocessing.size=32", "batch_size=16", "epochs=2", "averaging={name: swa, start: 0.4}",
        "fine_tuning={epochs: 2, lr: 0.0005, freeze: [body]}", "optimiser.name=sgd", "augmentation.mixup=0.4",
    ]  # fmt: skip
    whole = trainer(patches, tmp_path / "whole", changes)
    whole.fit()
    first = trainer(patches, tmp_path / "parts", changes)
    first.fit(lambda row: row["epoch"] == after)
    second = trainer(patches, tmp_path / "parts", changes)
    assert second.resume()
    second.fit()
    for row, other in zip(whole.progress.history, second.progress.history, strict=True):
        assert {k: v for k, v in row.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}
    for a, b in zip(whole.evaluated.state_dict().values(), second.evaluated.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_part_that_is_not_there_is_refused(patches: Patches, tmp_path: Path) -> None:
    """The message names the parts there are."""
    with pytest.raises(ModelError, match=r"body\.layer1"):
        trainer(patches, tmp_path, [*RESNET, "freeze=[body.layer9]"])


def test_a_loss_that_is_no_number_ends_the_training(patches: Patches, tmp_path: Path) -> None:
    """One line says where and what to do."""
    with pytest.raises(RunError, match=r"lower optimiser\.lr"):
        trainer(patches, tmp_path, ["preprocessing.size=32", "optimiser={name: sgd, lr: 1e20}"]).fit()


def loss_of(patches: Patches, folder: Path, changes: list[str], logits: list[float], targets: list[float]) -> float:
    fit = trainer(patches, folder, ["preprocessing.size=32", *changes])
    return float(binary_loss(torch.tensor(logits), torch.tensor(targets), fit.recipe.loss, fit.share))


def test_losses_by_hand(patches: Patches, tmp_path: Path) -> None:
    """Cross-entropy of logits 0 and ln 3 (probabilities .5 and .75), smoothed by .2, and weighed 1/(2 share)."""
    logits, targets, ln = [0.0, float(np.log(3))], [0.0, 1.0], np.log
    assert loss_of(patches, tmp_path, [], logits, targets) == pytest.approx((ln(2) - ln(0.75)) / 2, abs=1e-6)
    smoothed = (ln(2) - 0.9 * ln(0.75) - 0.1 * ln(0.25)) / 2
    assert loss_of(patches, tmp_path, ["loss.label_smoothing=0.2"], logits, targets) == pytest.approx(
        smoothed, abs=1e-6
    )
    weighed = (ln(2) * 0.5 / 0.75 - ln(0.75) * 0.5 / 0.25) / 2
    found = loss_of(patches, tmp_path, ["loss.class_weights=balanced"], logits, targets)
    assert found == pytest.approx(weighed, abs=1e-6)


def test_balanced_sampling_shows_both_classes_equally_often(patches: Patches) -> None:
    """Half of the places each; no image of the frequent class twice; another seed, another order."""
    order = epoch_order(patches.labels, True, (1, 2))
    assert len(order) == 48
    assert patches.labels[order].sum() == 24
    frequent = order[patches.labels[order] == 0]
    assert len(set(frequent)) == len(frequent)
    assert sorted(epoch_order(patches.labels, False, (1, 2))) == list(range(48))
    assert not np.array_equal(order, epoch_order(patches.labels, True, (1, 3)))


def test_few_images_are_gone_over_more_than_once_an_epoch(patches: Patches, tmp_path: Path) -> None:
    """20 steps in 2 epochs take 4 passes of 3 steps each: each image in each pass, every pass in its own order."""
    small = ["preprocessing.size=32", "batch_size=16"]
    fit = trainer(patches, tmp_path / "a", [*small, "epochs=2", "least_steps=20"])
    batches: list[np.ndarray] = []
    take = fit._step
    fit._step = lambda batch: (batches.append(batch), take(batch))[1]  # type: ignore[method-assign]
    fit.fit()
    assert [len(batch) for batch in batches] == [16] * 24
    passes = np.concatenate(batches).reshape(8, 48)
    assert (np.sort(passes) == np.arange(48)).all()
    assert len({order.tobytes() for order in passes}) == 8
    assert "4 times" in fit.notes[0]
    first = trainer(patches, tmp_path / "b", [*small, "epochs=2"])
    first.fit()
    assert first.notes == []
    assert first.progress.history[1]["train_loss"] > 2 * fit.progress.history[1]["train_loss"]  # a mean, not a sum


def test_epochs_that_are_asked_for_are_passes() -> None:
    """A change of epochs alone ends the recipe's least number of steps; one of that number stands."""
    assert load_recipe("tumortrace").least_steps > 0
    assert load_recipe("tumortrace", ["epochs=3"]).least_steps == 0
    assert load_recipe("tumortrace", ["epochs=3", "least_steps=7"]).least_steps == 7


def test_gradients_are_clipped(patches: Patches, tmp_path: Path) -> None:
    """With a tiny largest norm and plain SGD a step is no longer than rate times norm."""
    options = ["preprocessing.size=32", "batch_size=48", "epochs=1", "optimiser={name: sgd, lr: 0.5, clip_norm: 0.001}"]
    fit = trainer(patches, tmp_path, options)
    before = torch.cat([p.detach().flatten().clone() for p in fit.network.parameters()])
    fit.fit()
    moved = torch.cat([p.detach().flatten() for p in fit.network.parameters()]) - before
    assert 0 < float(moved.norm()) <= 0.0005 * 1.001


def test_swa_is_the_plain_mean() -> None:
    """Three updates with weights 1, 2 and 6 average to 3."""
    network = nn.Linear(1, 1, bias=False)
    average = build_average(network, Averaging(name="swa"))
    assert average is not None
    for value in (1.0, 2.0, 6.0):
        nn.init.constant_(network.weight, value)
        average.update_parameters(network)
    assert average.module.weight.item() == pytest.approx(3.0)


def test_layers_nearer_to_the_image_learn_more_slowly() -> None:
    """With a decay of .5 each layer's factor is at most that of the next; the head's is 1; all parameters are there."""
    for name, arguments in (("backbone", {"body": "resnet18"}), ("plain-cnn", {}), ("centre-resnet", {})):
        network = build_network(name, (64, 64), arguments)
        optimiser = build_optimiser(network, Optimiser(name="sgd", lr=0.1, layer_decay=0.5))
        scale = {id(p): group["scale"] for group in optimiser.param_groups for p in group["params"]}
        assert len(scale) == len(list(network.parameters()))
        along = [scale[id(p)] for p in network.parameters()]
        assert min(along[:1]) < 0.5 < max(along)
        assert scale[id(list(network.parameters())[-1])] == 1.0
        if name == "backbone":
            assert (
                scale[id(network.get_parameter("body.conv1.weight"))]
                < scale[id(network.get_parameter("body.layer4.1.conv2.weight"))]
            )


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_steps_are_those_of_torch(name: str) -> None:
    """To the last bit, also after the state went through a checkpoint."""
    theirs = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    more = {"momentum": 0.9} if name == "sgd" else {}
    torch.manual_seed(0)
    weight = torch.randn(3, 2)
    ours, expected = (nn.Linear(2, 3, bias=False) for _ in range(2))
    options = Optimiser(name=name, lr=0.1, weight_decay=0.01)  # type: ignore[arg-type]
    for one in (ours, expected):
        one.weight.data.copy_(weight)
    optimisers = build_optimiser(ours, options), theirs(expected.parameters(), lr=0.1, weight_decay=0.01, **more)
    for step in range(4):
        for one, optimiser in zip((ours, expected), optimisers, strict=True):
            one.weight.grad = torch.full_like(weight, step + 1.0) * one.weight.detach()
            optimiser.step()
        if step == 1:
            state = optimisers[0].state_dict()["state"]
            optimisers = build_optimiser(ours, options), optimisers[1]
            optimisers[0].load_state_dict({"state": state, "param_groups": optimisers[0].state_dict()["param_groups"]})
    assert torch.equal(ours.weight, expected.weight)
    assert not torch.equal(ours.weight, weight)


def test_a_training_starts_without_what_it_does_not_use() -> None:
    """Neither torch's compiler, which its own optimisers load, nor scikit-learn: together half of the start."""
    program = """
import sys, torch, tumortrace.training.train
from tumortrace.training.optimiser import build_optimiser
from tumortrace.training.options import Optimiser
for name in ("sgd", "adam", "adamw", "muon"):
    layer = torch.nn.Linear(2, 2)
    optimiser = build_optimiser(layer, Optimiser(name=name))
    layer(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    optimiser.load_state_dict(optimiser.state_dict())
    optimiser.zero_grad()
print(*{"torch._dynamo", "lightning_fabric", "sklearn", "timm"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_frozen_parameters_are_left_out_of_the_optimiser() -> None:
    """Only the head's two tensors are stepped."""
    network = build_network("backbone", (32, 32), {"body": "resnet18"})
    freeze(network, ["body"])
    groups = build_optimiser(network, Optimiser()).param_groups
    assert sum(len(group["params"]) for group in groups) == 2


def test_unknown_options_are_refused_by_field() -> None:
    """A recipe says which field is wrong."""
    document = load_recipe("cnn-64").model_dump()
    for field, value in (("sampling", "fair"), ("freeze", "body"), ("fine_tuning", {"epochs": 0, "lr": 1})):
        with pytest.raises(ValueError, match=field):
            Recipe.model_validate(document | {field: value})
