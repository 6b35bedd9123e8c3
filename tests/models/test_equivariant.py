"""The equivariant network against what defines it: turned images give turned maps, and the same logit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional

from tumortrace.images.geometry import symmetry
from tumortrace.models.architecture import Network, build_network
from tumortrace.models.families.equivariant_resnet import (
    EquivariantConvolution,
    EquivariantNorm,
    MeanOfSymmetries,
    halve,
)


@pytest.fixture
def exact() -> Iterator[None]:
    """Everything in float64, so that what remains is rounding."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def stirred(size: tuple[int, int]) -> Network:
    """A small network in which nothing is as it begins: norms have seen something, the head weighs places."""
    network = build_network("equivariant-resnet", size, {"stem": 2, "widths": [3, 4], "depths": [1, 2]})
    for module in network.modules():
        if isinstance(module, EquivariantNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    for values in network.top[0].parameters():
        nn.init.normal_(values)
    return network.eval()


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("size", [(64, 64), (50, 50), (49, 49), (48, 64), (49, 63)])
def test_every_symmetry_of_a_patch_has_the_same_logit(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """All eight of a square, the four that keep its shape of a rectangle; a moved patch has another."""
    monkeypatch.setattr(
        MeanOfSymmetries, "forward", lambda _, maps: maps.view(len(maps), 8, -1, *maps.shape[2:]).mean(1)
    )
    network, images = stirred(size), torch.rand(2, 3, *size)
    logits = network(images)
    for index in range(8) if size[0] == size[1] else (0, 2, 4, 6):
        torch.testing.assert_close(network(symmetry(images, index)), logits, rtol=1e-9, atol=1e-9)
    assert (network(images.roll(3, 3)) - logits).abs().max() > 1e-4


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("index", range(8))
def test_turned_images_give_turned_maps_in_another_order(index: int) -> None:
    """After two layers each turned map of the image is one of the maps of the turned image."""
    first, second = EquivariantConvolution(3, 2, 3, of_image=True), EquivariantConvolution(2, 2, 3)
    images = torch.rand(1, 3, 9, 9)
    maps, turned = (
        second(functional.relu(first(values))).view(8, 2, 9, 9) for values in (images, symmetry(images, index))
    )
    expected = symmetry(maps, index)
    order = [min(range(8), key=lambda other: float((expected[other] - one).abs().max())) for one in turned]
    assert sorted(order) == list(range(8))
    torch.testing.assert_close(turned, expected[order])


@pytest.mark.usefixtures("exact")
def test_a_layer_is_the_ordinary_convolution_with_turned_kernels() -> None:
    """Of an image, map i is the convolution with kernel i, which `symmetry` turned."""
    layer, images = EquivariantConvolution(3, 2, 3, of_image=True), torch.rand(1, 3, 7, 7)
    maps = layer(images).view(8, 2, 7, 7)
    for index in range(8):
        kernel = symmetry(layer.weight.view(2, 3, 3, 3), index)
        torch.testing.assert_close(maps[index], functional.conv2d(images, kernel, padding=1)[0])


@pytest.mark.usefixtures("exact")
def test_norm_is_batch_norm_whose_eight_maps_share_what_is_learnt() -> None:
    """While it learns, torch's on each map; after it, with the mean of the eight running statistics."""
    norm, reference = EquivariantNorm(2), nn.BatchNorm2d(16)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    for values, of in ((reference.weight, norm.weight), (reference.bias, norm.bias)):
        values.data = of.data.repeat(8)
    maps = torch.rand(4, 16, 5, 5) * 3
    torch.testing.assert_close(norm(maps), reference(maps))
    mean, variance = (getattr(reference, name).view(8, 2).mean(0) for name in ("running_mean", "running_var"))
    torch.testing.assert_close((norm.running_mean, norm.running_var), (mean, variance))
    reference.running_mean, reference.running_var = mean.repeat(8), variance.repeat(8)
    torch.testing.assert_close(norm.eval()(maps), reference.eval()(maps))


@pytest.mark.parametrize("sides", [(6, 6), (7, 7), (6, 9), (1, 1)])
def test_halving_treats_both_ends_alike(sides: tuple[int, int]) -> None:
    """Mirrored maps are halved to the mirrored means, and even sides as torch pools them."""
    maps = torch.rand(2, 3, *sides)
    for axis in (2, 3):
        torch.testing.assert_close(halve(maps.flip(axis)), halve(maps).flip(axis))
    if sides == (6, 6):
        torch.testing.assert_close(halve(maps), functional.avg_pool2d(maps, 2))
