"""Vision transformers laid out for the library transformers, against their published forward pass written out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from tests.models.hubs import put
from tumortrace.models.architecture import build_network
from tumortrace.models.published import wanted_by
from tumortrace.models.weights import load_weights

WIDTH, HEADS, PATCH, SIDE = 24, 2, 8, 32
#: `model_type`, whether the layer is gated, and the table's name of the repository.
KINDS = {"owkin/phikon": ("vit", False), "owner/dinov2": ("dinov2", False), "kaiko-ai/midnight": ("dinov2", True)}


def tensors_of(kind: str, gated: bool) -> dict[str, Tensor]:
    """A network of one layer under the names that the library gives."""
    inner = 64 if gated else 96
    shapes = {
        "embeddings.cls_token": (1, 1, WIDTH),
        "embeddings.position_embeddings": (1, 17, WIDTH),
        "embeddings.patch_embeddings.projection": (WIDTH, 3, PATCH, PATCH),
        "layernorm": (WIDTH,),
    }
    layer: dict[str, tuple[int, ...]] = {f"attention.attention.{n}": (WIDTH, WIDTH) for n in ("query", "key", "value")}
    layer["attention.output.dense"] = (WIDTH, WIDTH)
    if kind == "vit":
        layer |= {"layernorm_before": (WIDTH,), "layernorm_after": (WIDTH,)}
        layer |= {"intermediate.dense": (96, WIDTH), "output.dense": (WIDTH, 96)}
    else:
        names = ("mlp.weights_in", "mlp.weights_out") if gated else ("mlp.fc1", "mlp.fc2")
        layer |= {"norm1": (WIDTH,), "norm2": (WIDTH,), "layer_scale1": (WIDTH,), "layer_scale2": (WIDTH,)}
        layer |= {names[0]: (2 * inner if gated else inner, WIDTH), names[1]: (WIDTH, inner)}
    shapes |= {f"encoder.layer.0.{name}": shape for name, shape in layer.items()}
    draw = torch.Generator().manual_seed(1)
    made: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        if name.endswith(("token", "embeddings")) and len(shape) == 3:
            made[name] = torch.randn(shape, generator=draw)
        elif "layer_scale" in name:
            made[f"{name}.lambda1"] = torch.randn(shape, generator=draw)
        else:
            made[f"{name}.weight"] = torch.randn(shape, generator=draw) / 4
            made[f"{name}.bias"] = torch.randn(shape[0], generator=draw) / 4
    return made


def reference(t: dict[str, Tensor], images: Tensor, kind: str, gated: bool) -> Tensor:
    """The tokens after the last normalisation, as the papers have it (Dosovitskiy et al. 2021, Oquab et al. 2023)."""

    def linear(name: str, x: Tensor) -> Tensor:
        return functional.linear(x, t[f"{name}.weight"], t[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, (WIDTH,), t[f"{name}.weight"], t[f"{name}.bias"], 1e-6)

    end = "embeddings.patch_embeddings.projection"
    patches = functional.conv2d(images, t[f"{end}.weight"], t[f"{end}.bias"], stride=PATCH).flatten(2).transpose(1, 2)
    x = torch.cat([t["embeddings.cls_token"].expand(len(images), -1, -1), patches], 1)
    x = x + t["embeddings.position_embeddings"]
    layer = "encoder.layer.0"
    first, second = ("layernorm_before", "layernorm_after") if kind == "vit" else ("norm1", "norm2")
    inputs = norm(f"{layer}.{first}", x)
    query, key, value = (
        linear(f"{layer}.attention.attention.{name}", inputs).unflatten(2, (HEADS, -1)).transpose(1, 2)
        for name in ("query", "key", "value")
    )
    weights = torch.softmax(query @ key.transpose(2, 3) / (WIDTH // HEADS) ** 0.5, -1)
    attended = linear(f"{layer}.attention.output.dense", (weights @ value).transpose(1, 2).flatten(2))
    x = x + attended * t.get(f"{layer}.layer_scale1.lambda1", torch.ones(1))
    inputs = norm(f"{layer}.{second}", x)
    if gated:
        gate, rest = linear(f"{layer}.mlp.weights_in", inputs).chunk(2, -1)
        out = linear(f"{layer}.mlp.weights_out", functional.silu(gate) * rest)
    else:
        names = ("intermediate.dense", "output.dense") if kind == "vit" else ("mlp.fc1", "mlp.fc2")
        out = linear(f"{layer}.{names[1]}", functional.gelu(linear(f"{layer}.{names[0]}", inputs)))
    return norm("layernorm", x + out * t.get(f"{layer}.layer_scale2.lambda1", torch.ones(1)))


@pytest.mark.parametrize("hub", list(KINDS))
def test_they_give_what_they_publish(hub: str, hub_cache: Path) -> None:
    """Built from their description, filled under timm's names; without the library and without code of theirs."""
    kind, gated = KINDS[hub]
    config: dict[str, Any] = {"model_type": kind, "hidden_size": WIDTH, "num_hidden_layers": 1, "image_size": SIDE}
    config |= {"num_attention_heads": HEADS, "patch_size": PATCH, "intermediate_size": 96, "mlp_ratio": 4}
    config["use_swiglu_ffn"] = gated
    tensors = tensors_of(kind, gated)
    save_file({f"{kind}.{name}": value for name, value in tensors.items()}, hub_cache / "tensors")
    put(hub_cache, hub, "config.json", json.dumps(config).encode())
    put(hub_cache, hub, "model.safetensors", (hub_cache / "tensors").read_bytes())
    network = build_network("backbone", (SIDE, SIDE), {"body": f"hf-hub:{hub}"}).eval()
    assert load_weights(network, "imagenet")["unused"] == 0
    images = torch.randn(2, 3, SIDE, SIDE)
    tokens = reference(tensors, images, kind, gated)
    expected = torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1) if gated else tokens[:, 0]
    with torch.no_grad():
        torch.testing.assert_close(network.features(images), expected, atol=1e-4, rtol=1e-4)


def test_their_processor_says_how_they_are_fed(hub_cache: Path) -> None:
    """As the library keeps it: size, crop, interpolation, mean and deviation."""
    put(hub_cache, "owner/dinov2", "config.json", b'{"model_type": "dinov2", "image_size": 518}')
    processor = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "do_center_crop": True, "resample": 2}
    processor |= {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}
    put(hub_cache, "owner/dinov2", "preprocessor_config.json", json.dumps(processor).encode())
    wanted = wanted_by("hf-hub:owner/dinov2")
    assert wanted is not None
    assert (wanted.size, wanted.frame, wanted.filter, wanted.normalisation) == (224, 256, "bilinear", "centred")
