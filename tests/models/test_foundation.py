"""Foundation models: the table against published figures, and small networks laid out like the real repositories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import SwiGLUPacked
from torch import nn

from tests.models.hubs import publish, put
from tumortrace.errors import ModelError
from tumortrace.models.architecture import build_network
from tumortrace.models.bodies import build_body
from tumortrace.models.foundation import foundation_models
from tumortrace.models.published import wanted_by
from tumortrace.models.weights import load_weights

GATED = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
TINY = {"img_size": 28, "patch_size": 14, "embed_dim": 24, "depth": 2, "num_heads": 2}
#: Millions of parameters as published, of those whose figure is.
PUBLISHED = {
    "uni": 303.35,
    "uni2-h": 681.39,
    "virchow2": 631.24,
    "h-optimus-0": 1134.77,
    "prov-gigapath": 1134.95,
    "h0-mini": 85.74,
}
#: Architecture, arguments of config.json and classes of small ones, of the same forms as the real repositories.
FORMS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "uni": ("vit_large_patch16_224", {**TINY, "init_values": 1e-5, "dynamic_img_size": True}, {}),
    "uni2-h": (
        "vit_giant_patch14_224",
        {**TINY, "init_values": 1e-5, "mlp_ratio": 5.33334, "reg_tokens": 8, "no_embed_class": True},
        {**GATED, "dynamic_img_size": True},
    ),
    "virchow": ("vit_huge_patch14_224", {**TINY, "init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": ""}, GATED),
    "virchow2": (
        "vit_huge_patch14_224",
        {**TINY, "init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": "", "reg_tokens": 4},
        GATED,
    ),
    "h-optimus-0": ("vit_giant_patch14_reg4_dinov2", {**TINY, "global_pool": "token"}, {}),
    "h0-mini": ("vit_base_patch14_reg4_dinov2", {**TINY, "mlp_ratio": 5.33334}, {**GATED, "init_values": 1e-5}),
    "prov-gigapath": ("vit_giant_patch14_dinov2", {**TINY, "global_pool": "token"}, {}),
    "kaiko-s16": ("vit_small_patch16_224", TINY, {"dynamic_img_size": True}),
    "lunit-s8": ("vit_small_patch8_224", TINY, {}),
    "gpfm": ("vit_large_patch14_dinov2", {**TINY, "init_values": 1e-5}, {}),
    "dinov3-b": ("vit_base_patch16_dinov3", {**TINY, "dynamic_img_size": True}, {}),
}


@pytest.mark.parametrize("name", list(foundation_models()))
def test_every_row_builds_what_is_published(name: str) -> None:
    """Parameters and width, on the meta device; every fact names its source."""
    row = foundation_models()[name]
    with torch.device("meta"):
        body = build_body(row.architecture, {**row.options, **row.call})
    assert sum(parameter.numel() for parameter in body.parameters()) == row.parameters
    assert row.width == body.num_features * (2 if row.pooling == "token+mean" else 1)  # type: ignore[operator]
    assert {"built", "embedding", "normalisation", "width", "parameters"} <= set(row.origin)
    if name in PUBLISHED:
        assert round(row.parameters / 1e6, 2) == PUBLISHED[name]


@pytest.mark.parametrize("name", list(FORMS))
@pytest.mark.parametrize("by_hub", [False, True])
def test_every_form_gives_its_authors_embedding(name: str, by_hub: bool, hub_cache: Path) -> None:
    """By the table's name and by the hub's, from the hub's cache alone; a bundle builds it again without any hub."""
    row = foundation_models()[name]
    architecture, options, classes = FORMS[name]
    body = publish(hub_cache, row.hub, architecture, options, classes=classes, file=row.file or "model.safetensors")
    network = build_network("backbone", (28, 28), {"body": f"hf-hub:{row.hub}" if by_hub else name}).eval()
    record = load_weights(network, "imagenet")
    assert record["licence"].startswith(row.licence)
    assert len(record["sha256"]) == 64
    images = torch.rand(2, 3, 28, 28)
    with torch.no_grad():
        tokens = body.forward_features(images)  # type: ignore[operator]
        patches = tokens[:, -4:].mean(1)  # whatever stands before them
        expected = {"token": tokens[:, 0], "token+mean": torch.cat([tokens[:, 0], patches], 1), "average": patches}
        torch.testing.assert_close(network.features(images), expected[row.pooling])
        again = build_network("backbone", (28, 28), json.loads(json.dumps(network.resolved_arguments))).eval()
        again.load_state_dict(network.state_dict())
        torch.testing.assert_close(again(images), network(images))


def test_a_body_of_all_tokens_pools_its_class_token(hub_cache: Path) -> None:
    """`global_pool: ""` of a hub that the table does not know; other poolings are named, and one remedy is enough."""
    publish(hub_cache, "owner/name", "vit_tiny_patch16_224", {**TINY, "global_pool": "", "reg_tokens": 2})
    network = build_network("backbone", (28, 28), {"body": "hf-hub:owner/name"}).eval()
    assert network.resolved_arguments["pooling"] == "token"
    for pooling, width in (("token+mean", 48), ("average", 24)):
        network = build_network("backbone", (28, 28), {"body": "hf-hub:owner/name", "pooling": pooling}).eval()
        assert network.features(torch.rand(1, 3, 28, 28)).shape == (1, width)
    with pytest.raises(ModelError, match=r"set model\.arguments\.pooling to token, token"):
        build_network("backbone", (28, 28), {"body": "hf-hub:owner/name", "pooling": "own"})
    with pytest.raises(ModelError, match="no class token"):
        build_network("backbone", (32, 32), {"body": "resnet18", "pooling": "token"})


def test_a_name_that_is_no_class_is_told(hub_cache: Path) -> None:
    """Names of timm.layers and torch.nn are classes, with or without their module."""
    arguments = {"body": "vit_tiny_patch16_224", "options": {**TINY, "mlp_layer": "SwigluePacked"}}
    with pytest.raises(ModelError, match=r"no class 'SwigluePacked' in timm\.layers or torch\.nn"):
        build_network("backbone", (28, 28), arguments)
    options = {**TINY, "mlp_layer": "timm.layers.SwiGLUPacked", "act_layer": "torch.nn.SiLU", "norm_layer": "layernorm"}
    network = build_network("backbone", (28, 28), {"body": "vit_tiny_patch16_224", "options": options})
    assert type(network.get_submodule("body.blocks.0.mlp")).__name__ == "GluMlp"


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("reg", [0, 4])
def test_places_are_resampled_to_the_size_that_is_asked_for(reg: int, dynamic: bool, hub_cache: Path) -> None:
    """As timm does where it builds the body for that size, or for any; the record says so."""
    options = {**TINY, "reg_tokens": reg, "no_embed_class": reg > 0, "dynamic_img_size": dynamic}
    made = publish(hub_cache, "owner/name", "vit_base_patch14_dinov2", {**options, "img_size": 70})
    network = build_network("backbone", (28, 42), {"body": "hf-hub:owner/name", "pooling": "token"}).eval()
    record = load_weights(network, "imagenet")
    assert record["origin"].endswith("its embeddings of 5x5 places resampled to 2x3")
    if not dynamic:
        made.set_input_size(img_size=(28, 42))  # type: ignore[operator]
    images = torch.rand(2, 3, 28, 42)
    with torch.no_grad():
        torch.testing.assert_close(network.features(images), made(images), atol=1e-5, rtol=1e-4)
    with pytest.raises(ModelError, match=r"set preprocessing\.size to a multiple of 14"):
        build_network("backbone", (30, 30), {"body": "hf-hub:owner/name"})


@pytest.mark.parametrize("place", ["folder", "snapshot", "file"])
def test_weights_are_read_from_the_cache_of_a_hub(place: str, hub_cache: Path) -> None:
    """Its folder of the repository, the snapshot, or the file in it, which is a link."""
    architecture, options, classes = FORMS["virchow2"]
    body = publish(hub_cache, "paige-ai/Virchow2", architecture, options, classes=classes)
    folder = hub_cache / "models--paige-ai--Virchow2"
    (snapshot,) = (folder / "snapshots").iterdir()
    source = {"folder": folder, "snapshot": snapshot, "file": snapshot / "model.safetensors"}[place]
    network = build_network("backbone", (28, 28), {"body": "virchow2"})
    record = load_weights(network, str(source))
    assert record["origin"] == "file model.safetensors"
    for name, value in network.get_submodule("body").state_dict().items():
        assert torch.equal(value, body.state_dict()[name]), name


@pytest.mark.parametrize("place", ["hub", "folder", "index"])
def test_weights_in_several_files_are_read_by_their_index(place: str, hub_cache: Path) -> None:
    """As transformers shards them; a part that is not there is named, and files elsewhere are refused."""
    body = publish(hub_cache, "owner/name", "vit_tiny_patch16_224", TINY)
    folder = hub_cache / "models--owner--name"
    (snapshot,) = (folder / "snapshots").iterdir()
    tensors = load_file(snapshot / "model.safetensors")
    (snapshot / "model.safetensors").unlink()
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    halves = {name: names[place_ % 2] for place_, name in enumerate(tensors)}
    for name in names:
        part = hub_cache / "part"
        save_file({key: tensors[key] for key in tensors if halves[key] == name}, part)
        put(hub_cache, "owner/name", name, part.read_bytes())
    index = "model.safetensors.index.json"
    put(hub_cache, "owner/name", index, json.dumps({"metadata": {}, "weight_map": halves}).encode())
    network = build_network("backbone", (28, 28), {"body": "hf-hub:owner/name"})
    source = {"hub": "imagenet", "folder": str(folder), "index": str(snapshot / index)}[place]
    record = load_weights(network, source)
    assert index in record["origin"]
    for name, value in network.get_submodule("body").state_dict().items():
        assert torch.equal(value, body.state_dict()[name]), name
    (snapshot / names[1]).unlink()
    told = r"model-00002-of-00002\.safetensors" + (r" of 'owner/name' not on this machine" if place == "hub" else "")
    with pytest.raises(ModelError, match=told):
        load_weights(network, source)
    (snapshot / index).unlink()
    (snapshot / index).write_text(json.dumps({"weight_map": {"a": "../a.safetensors"}}))
    with pytest.raises(ModelError, match="files elsewhere than beside it"):
        load_weights(network, source)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_dinov2.lvd142m"])
def test_timms_own_weights_are_taken_from_the_cache_of_a_hub(name: str, hub_cache: Path) -> None:
    """Where timm keeps them, also those that other addresses have in another form; at the size that is asked for."""
    config = timm.get_pretrained_cfg(name)
    assert config is not None
    architecture = name.split(".")[0]
    hub = f"timm/{architecture}.{config.tag}"
    body = publish(hub_cache, hub, architecture, {"depth": 1, "embed_dim": 24, "num_heads": 2}, classifier=5)
    arguments = {"body": name, "pooling": "token", "options": {"depth": 1, "embed_dim": 24, "num_heads": 2}}
    record = load_weights(build_network("backbone", (112, 112), arguments), "imagenet")
    assert record["unused"] == 2
    assert "resampled to" in record["origin"]
    assert body.num_features == 24


def test_what_is_not_there_is_told_in_one_line(hub_cache: Path) -> None:
    """No weights, no description, one of another library, a model that is not offered."""
    with pytest.raises(ModelError, match=r"published weights of '1aurent.*HF_HUB_OFFLINE"):
        load_weights(build_network("backbone", (32, 32), {"body": "kaiko-s16", "options": {"depth": 1}}), "imagenet")
    with pytest.raises(ModelError, match=r"description of 'owner/none'.*HF_HUB_OFFLINE"):
        build_network("backbone", (28, 28), {"body": "hf-hub:owner/none"})
    put(hub_cache, "owner/other", "config.json", b'{"model_type": "clip", "architectures": ["CLIPModel"]}')
    with pytest.raises(ModelError, match="names no architecture of timm"):
        build_network("backbone", (28, 28), {"body": "hf-hub:owner/other"})
    with pytest.raises(ModelError, match="Hibou-B is not offered: it loads by running code"):
        build_network("backbone", (28, 28), {"body": "Hibou-B"})


def test_remedies_name_what_would_do(hub_cache: Path) -> None:
    """A slip in a row's name; a size that only the body knows."""
    with pytest.raises(ModelError, match="such as uni, uni2-h"):
        build_network("backbone", (28, 28), {"body": "uni3"})
    small = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "img_size": 64}
    with pytest.raises(ModelError, match="what the body was made for, which is 64"):
        build_network("backbone", (96, 96), {"body": "swin_tiny_patch4_window7_224", "options": small})


def test_a_hub_brings_its_own_preprocessing(hub_cache: Path) -> None:
    """Size, crop, interpolation and normalisation; the table goes before a hub that says otherwise than its authors."""
    half = {"mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.9, "interpolation": "bilinear"}
    publish(hub_cache, "owner/name", "vit_tiny_patch16_224", TINY, described=half)
    wanted = wanted_by("hf-hub:owner/name")
    assert wanted is not None
    assert (wanted.size, wanted.frame, wanted.filter, wanted.normalisation) == (28, 31, "bilinear", "inception")
    publish(hub_cache, "Wangyh/mSTAR", "vit_tiny_patch16_224", TINY, described=half)
    row = wanted_by("hf-hub:Wangyh/mSTAR")
    assert row is not None
    assert (row.size, row.frame, row.normalisation) == (224, None, "imagenet")
    publish(hub_cache, "owner/silent", "vit_tiny_patch16_224", TINY, described={"input_size": [3, 64, 64]})
    silent = wanted_by("hf-hub:owner/silent")  # timm takes ImageNet's where a description has no mean
    assert silent is not None
    assert (silent.size, silent.normalisation) == (64, "imagenet")
    config = timm.get_pretrained_cfg("resnet50")
    assert config is not None
    resnet = wanted_by("resnet50")
    assert resnet is not None
    assert resnet.frame == int(224 / config.crop_pct)
