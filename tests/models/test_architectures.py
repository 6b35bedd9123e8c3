"""What every registered architecture promises, and published parameter counts."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from tumortrace.errors import ModelError
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.models.architecture import ARCHITECTURES, Network, build_network, count_parameters, freeze
from tumortrace.models.bundle import Model
from tumortrace.models.description import Architecture, ModelInfo, TrainingData
from tumortrace.models.layers import CentreAttention, CentrePooling, InstanceBatchNorm, build_head
from tumortrace.models.ood import embedding


@pytest.mark.parametrize("size", [(64, 64), (50, 50), (45, 71)])
@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_contract_of_every_architecture(name: str, size: tuple[int, int]) -> None:
    """One finite logit per image of any size, in one step or two, gradients everywhere; Grad-CAM's layer exists."""
    network = build_network(name, size, {})
    logits = network(torch.rand(3, 3, *size))
    assert logits.shape == (3,)
    assert torch.isfinite(logits).all()
    steps = network.eval()
    images = torch.rand(2, 3, *size)
    torch.testing.assert_close(steps.from_maps(steps.maps(images)).float(), steps(images))
    assert embedding(steps.maps(images)).shape[0] == 2
    network.train()
    logits.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_every_architecture_is_a_network(name: str) -> None:
    """Parts are frozen by name, features and top are the forward pass, and arguments build it again."""
    network, images = build_network(name, (64, 64), {}).eval(), torch.rand(2, 3, 64, 64)
    assert isinstance(network, Network)
    for part in ("body", "top"):
        freeze(network, [part])
    torch.testing.assert_close(network.top(network.features(images)).squeeze(1).float(), network(images))
    again = build_network(name, (64, 64), json.loads(json.dumps(dict(network.resolved_arguments))))
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(again.eval()(images), network(images))
    for member, steps in network.members():
        assert isinstance(member, Network)
        assert steps.pixels(images).shape[0] == 2
    assert len(Model(_info(name), network, torch.device("cpu")).assess(np.zeros((2, 64, 64, 3), np.uint8))) == 2


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_activations_of_the_attention_layer_have_places(name: str) -> None:
    """Where a network names such a layer, what passes it is laid out as maps."""
    network, kept = build_network(name, (64, 64), {}).eval(), list[torch.Tensor]()
    for member, steps in network.members():
        if member.attention_layer is not None:
            member.get_submodule(member.attention_layer).register_forward_hook(lambda *seen: kept.append(seen[2]))
            member(steps.normalise(steps.pixels(torch.rand(2, 3, 64, 64))))
            assert member.as_maps(kept.pop()).ndim == 4


def _info(name: str) -> ModelInfo:
    return ModelInfo(
        name=name,
        architecture=Architecture(name=name),
        preprocessing=Preprocessing(),
        patch_size=(64, 64),
        classes=("normal", "tumour"),
        positive_class="tumour",
        training=TrainingData(fingerprint="0", prevalence=0.5, recipe="none"),
    )


def test_parameters_of_system_a_first_cnn() -> None:
    """CNN 1 of System A: 1,401,617 parameters, layer by layer as Keras counts them."""
    by_hand = [
        3 * 16 * 9 + 16, 16 * 16 * 9 + 16, 16 * 32 * 9 + 32, 32 * 32 * 9 + 32,
        13 * 13 * 32 * 256 + 256, 256 + 1,
    ]  # fmt: skip
    assert sum(by_hand) == 1_401_617
    network = build_network("plain-cnn", (64, 64), {"blocks": [16, 32], "head": [{"dense": 256}]})
    assert [m.weight.numel() + m.bias.numel() for m in network.modules() if hasattr(m, "weight")] == by_hand
    assert count_parameters(network) == {"total": 1_401_617, "trainable": 1_401_617}


def test_too_small_an_input_is_refused() -> None:
    """Blocks that leave nothing of the image are an error with a remedy."""
    with pytest.raises(ModelError, match="leave nothing"):
        build_network("plain-cnn", (8, 8), {})


def test_centre_pooling_prefers_the_centre_at_first() -> None:
    """Freshly built, the weighted half responds more to the centre than to a corner; the mean half does not care."""
    pooling = CentrePooling(1, (8, 8))
    centre, corner = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    centre[..., 4, 4] = corner[..., 0, 0] = 1
    at_centre, at_corner = pooling(centre)[0], pooling(corner)[0]
    assert at_centre[0] > 3 * at_corner[0]
    torch.testing.assert_close(at_centre[1], at_corner[1])
    torch.testing.assert_close(pooling(torch.full((1, 1, 8, 8), 7.0)), torch.full((1, 2), 7.0))


@pytest.mark.parametrize("name", ["plain-cnn", "backbone"])
@pytest.mark.parametrize("pooling", ["flatten", "average", "centre"])
def test_attention_to_the_centre_is_an_option_of_every_convolutional_network(name: str, pooling: str) -> None:
    """With any pooling the network learns, and its map of weights gets gradients."""
    network = build_network(name, (64, 64), {"pooling": pooling, "attention": True})
    network(torch.rand(2, 3, 64, 64)).sum().backward()
    attention = [m for m in network.modules() if isinstance(m, CentreAttention)]
    assert attention
    assert all(m.position.grad is not None for m in attention)


def test_attention_keeps_the_size_of_features() -> None:
    """Weights have a mean of 1 for each image."""
    weighed = CentreAttention(3, (5, 7))(torch.ones(2, 3, 5, 7))
    torch.testing.assert_close(weighed.mean((2, 3)), torch.ones(2, 3))


def test_two_outputs_are_a_softmax() -> None:
    """The logit's sigmoid is the softmax of the second output."""
    head = build_head(4, outputs=2)
    features = torch.randn(5, 4)
    both = head[0](features)
    torch.testing.assert_close(torch.sigmoid(head(features)).view(-1), both.softmax(1)[:, 1])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"head": [{"dense": 0}]}, "head step"),
        ({"head": [{"dropout": 1.0}]}, "head step"),
        ({"head": [{"pool": True}]}, "head step"),
        ({"pooling": "max"}, "pooling 'max'"),
        ({"outputs": 3}, "outputs: 3"),
        ({"blocks": [{"channels": 0}]}, "channels"),
        ({"blocks": [{"width": 3}]}, "width"),
        ({"padding": "full"}, "padding"),
        ({"depth": 3}, "do not fit"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(arguments: dict[str, object], says: str) -> None:
    """The message names what is wrong."""
    with pytest.raises(ModelError) as refused:
        build_network("plain-cnn", (64, 64), arguments)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_neighbours_vote_as_scikit_learn() -> None:
    """The share of positives among the 5 nearest in standardised features is that of KNeighborsClassifier."""
    random = np.random.default_rng(1)
    features, labels = random.normal(size=(60, 4)) * [1, 5, 0.1, 2] + 3, random.integers(0, 2, 60)
    scale = StandardScaler().fit(features)
    reference = KNeighborsClassifier(5).fit(scale.transform(features), labels)
    head = build_head(4, [{"neighbours": 5, "images": 60}])
    learnt = {"features": features, "labels": labels, "mean": scale.mean_, "scale": scale.scale_}
    head[-1].load_state_dict({name: torch.from_numpy(np.asarray(value)) for name, value in learnt.items()})
    unseen = random.normal(size=(30, 4)) * [1, 5, 0.1, 2] + 3
    found = torch.sigmoid(head(torch.from_numpy(unseen).float())).view(-1).numpy()
    expected = reference.predict_proba(scale.transform(unseen))[:, 1]
    np.testing.assert_allclose(found, (5 * expected + 0.5) / 6, atol=1e-6)


def test_an_ensemble_is_the_mean_probability() -> None:
    """Of members with preprocessing of their own."""
    members = [{"name": "plain-cnn"}, {"name": "plain-cnn", "preprocessing": {"crop": 48, "normalisation": "imagenet"}}]
    network = build_network("ensemble", (64, 64), {"members": members}).eval()
    images = torch.rand(3, 3, 64, 64)
    first, second = network.get_submodule("body").children()
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    parts = [torch.sigmoid(first(images)), torch.sigmoid(second((images[..., 8:56, 8:56] - mean) / deviation))]
    torch.testing.assert_close(torch.sigmoid(network(images)), (parts[0] + parts[1]) / 2)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_half_of_the_channels_are_standardised_within_each_image(layout: torch.memory_format) -> None:
    """As torch's batch norm, and its instance norm on the first half; in use by the running statistics."""
    torch.manual_seed(0)
    norm = InstanceBatchNorm(6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    for step in range(3):
        images = (torch.randn(5, 6, 4, 7) * 3 + step).contiguous(memory_format=layout)
        after = functional.batch_norm(images, None, None, training=True)
        after[:, :3] = functional.instance_norm(after[:, :3], eps=0.01)
        expected = after * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
        torch.testing.assert_close(norm(images), expected)
    norm.eval()
    after = functional.batch_norm(images, norm.batch.running_mean, norm.batch.running_var)
    after[:, :3] = functional.instance_norm(after[:, :3], eps=0.01)
    expected = after * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(norm(images), expected)
    torch.testing.assert_close(norm(images[:1]), expected[:1])


def test_instance_norm_begins_with_the_stem() -> None:
    """So many parts have it, and light and contrast of an image as a whole are gone from half of what they make."""
    for instance in range(4):
        network = build_network("centre-resnet", (32, 32), {"strides": [1, 2], "instance": instance})
        places = [name for name, part in network.named_modules() if isinstance(part, InstanceBatchNorm)]
        wanted = ["body.1", "body.3.norm1", "body.4.norm1", "body.5.norm1", "body.6.norm1"]
        assert places == wanted[: max(0, 2 * instance - 1)]
        assert network.maps(torch.rand(2, 3, 32, 32)).shape == (2, 128, 8, 8)


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("centre-resnet", {"widths": [8, 8], "depths": [1]}, "widths of 2 stages, depths of 1 stages, strides of 2"),
        ("centre-resnet", {"strides": [1]}, "strides of 1 stages"),
        ("equivariant-resnet", {"widths": [2], "depths": [1, 1]}, "widths of 1 stages, depths of 2 stages"),
        ("centre-resnet", {"stem": -1}, "do not fit model 'centre-resnet'"),
        ("centre-resnet", {"dropout": 3}, "do not fit model 'centre-resnet'"),
        ("centre-resnet", {"strides": [0, 1]}, "do not fit model 'centre-resnet'"),
        ("plain-cnn", {"blocks": [-4]}, "blocks"),
    ],
)
def test_arguments_of_which_no_network_is_made_are_told(name: str, arguments: dict[str, object], told: str) -> None:
    """One line, whatever layer refuses them."""
    with pytest.raises(ModelError, match=told):
        build_network(name, (32, 32), arguments)
