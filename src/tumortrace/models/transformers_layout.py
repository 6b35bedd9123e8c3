"""Vision transformers as the library transformers keeps them (ViT, DINOv2), built and filled by timm instead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

#: Architecture of timm by `model_type`; its dimensions come from the description.
ARCHITECTURE = {"vit": "vit_base_patch16_224", "dinov2": "vit_base_patch14_dinov2"}
_FILTERS = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(\w+)$")
_QKV = ("query", "key", "value")
#: Modules of a layer there and here; queries, keys and values are one module here.
_MODULES = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "norm1": "norm1",
    "norm2": "norm2",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "mlp.weights_in": "mlp.fc1",
    "mlp.weights_out": "mlp.fc2",
    "layer_scale1": "ls1",
    "layer_scale2": "ls2",
}
_ENDS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}


def timms_description(config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Any] | None:
    """A repository's `config.json` and `preprocessor_config.json` as timm would describe it; None for another kind.

    Example:
        >>> config = {"model_type": "dinov2", "hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24}
        >>> config |= {"patch_size": 14, "image_size": 518, "mlp_ratio": 4, "use_swiglu_ffn": True}
        >>> int(timms_description(config, {})["model_args"]["mlp_ratio"] * 1536)
        8192
    """
    kind = config.get("model_type")
    if kind not in ARCHITECTURE:
        return None
    width = int(config.get("hidden_size", 768))
    inner = config["intermediate_size"] if kind == "vit" and "intermediate_size" in config else width * _ratio(config)
    options: dict[str, Any] = {
        "img_size": config.get("image_size", 224),
        "patch_size": config.get("patch_size", 16 if kind == "vit" else 14),
        "embed_dim": width,
        "depth": config.get("num_hidden_layers", 12),
        "num_heads": config.get("num_attention_heads", 12),
        "qkv_bias": config.get("qkv_bias", True),
    }
    if kind == "dinov2":
        options["init_values"] = 1e-5
    if config.get("use_swiglu_ffn"):
        inner = 2 * ((int(int(inner) * 2 / 3) + 7) // 8 * 8)
        options |= {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}
    options["mlp_ratio"] = (inner + 0.5) / width  # timm rounds the product down
    return {"architecture": ARCHITECTURE[kind], "model_args": options, "pretrained_cfg": _fed(processor)}


def _ratio(config: Mapping[str, Any]) -> float:
    return float(config.get("mlp_ratio", 4))


def _fed(processor: Mapping[str, Any]) -> dict[str, Any]:
    """What images are to be, in timm's words; nothing where it is not said."""
    if not processor.get("image_mean") or not processor.get("image_std"):
        return {}
    edge, crop = (_side(processor.get(name)) for name in ("size", "crop_size"))
    size = (crop if processor.get("do_center_crop") else None) or edge or 224
    return {
        "mean": processor["image_mean"],
        "std": processor["image_std"],
        "input_size": [3, size, size],
        "crop_pct": min(1.0, size / (edge or size)),
        "interpolation": _FILTERS.get(processor.get("resample", 3), "bicubic"),
    }


def _side(value: object) -> int | None:
    if isinstance(value, Mapping):
        value = value.get("shortest_edge", value.get("height"))
    return int(value) if isinstance(value, int) else None


def timms_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under timm's names where they have those of transformers; what a body does not need keeps its name.

    Example:
        >>> part = {f"vit.encoder.layer.0.attention.attention.{name}.bias": torch.ones(2) for name in ("query", "key")}
        >>> part["vit.encoder.layer.0.attention.attention.value.bias"] = torch.zeros(2)
        >>> timms_names(part)["blocks.0.attn.qkv.bias"].tolist()
        [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    """
    marks = (".attention.attention.query.weight", ".attention.attention.query.bias")
    marked = next((name for name in tensors if name.endswith(marks)), None)
    if marked is None:
        return dict(tensors)
    prefix = marked[: marked.index("encoder.layer.")]
    named: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        bare = name.removeprefix(prefix)
        layer = _LAYER.match(bare)
        if layer is None:
            named[_ENDS.get(bare, name)] = tensor
            continue
        number, module, kind = layer.groups()
        place = f"blocks.{number}"
        if module == "attention.attention.query":
            parts = [tensors[f"{prefix}encoder.layer.{number}.attention.attention.{p}.{kind}"] for p in _QKV]
            named[f"{place}.attn.qkv.{kind}"] = torch.cat(parts)
        elif module in _MODULES:
            named[f"{place}.{_MODULES[module]}.{'gamma' if kind == 'lambda1' else kind}"] = tensor
    return named
