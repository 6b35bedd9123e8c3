"""What every registered architecture promises, and published parameter counts."""

from __future__ import annotations

import pytest
import torch

from tumortrace.errors import ModelError
from tumortrace.models.architecture import ARCHITECTURES, build_network, count_parameters
from tumortrace.models.families.centre_resnet import CentrePooling


@pytest.mark.parametrize("size", [(64, 64), (50, 50), (45, 71)])
@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_contract_of_every_architecture(name: str, size: tuple[int, int]) -> None:
    """One finite logit per image of any size, gradients everywhere, a layer for Grad-CAM that exists."""
    network = build_network(name, size, {})
    logits = network(torch.rand(3, 3, *size))
    assert logits.shape == (3,)
    assert torch.isfinite(logits).all()
    logits.sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    network.get_submodule(str(network.attention_layer))


def test_parameters_of_system_a_first_cnn() -> None:
    """CNN 1 of System A: 1,401,617 parameters, layer by layer as Keras counts them."""
    by_hand = [
        3 * 16 * 9 + 16, 16 * 16 * 9 + 16, 16 * 32 * 9 + 32, 32 * 32 * 9 + 32,
        13 * 13 * 32 * 256 + 256, 256 + 1,
    ]  # fmt: skip
    assert sum(by_hand) == 1_401_617
    network = build_network("plain-cnn", (64, 64), {"blocks": [16, 32], "dense": [256]})
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
