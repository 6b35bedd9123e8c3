"""A hub's cache on this machine, with small networks of random weights in it, laid out as the hub's library does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import nn

REVISION = "0123456789abcdef0123456789abcdef01234567"
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def put(cache: Path, hub: str, name: str, content: bytes) -> Path:
    """A file of a repository: content under its hash, and a link to it in the snapshot that `main` names."""
    folder = cache / f"models--{hub.replace('/', '--')}"
    blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
    link = folder / "snapshots" / REVISION / name
    for place in (blob, link, folder / "refs" / "main"):
        place.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    link.symlink_to(Path("../../blobs") / blob.name)
    (folder / "refs" / "main").write_text(REVISION)
    return folder


def publish(
    cache: Path,
    hub: str,
    architecture: str,
    options: Mapping[str, Any],
    *,
    classes: Mapping[str, Any] | None = None,
    described: Mapping[str, Any] = IMAGENET,
    file: str = "model.safetensors",
    classifier: int = 0,
) -> nn.Module:
    """Put a repository of timm into the cache, and return its network.

    Args:
        cache: The cache.
        hub: Owner and name.
        architecture: Timm's.
        options: Arguments that its config.json has.
        classes: Arguments that no JSON can have, which users have to give.
        described: Its `pretrained_cfg`.
        file: Of the weights.
        classifier: Classes of the classifier that the file has.
    """
    torch.manual_seed(3)
    arguments = {**options, **(classes or {}), "num_classes": classifier}
    body = timm.create_model(architecture, pretrained=False, **arguments).eval()
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.normal_(0, 0.05)
    config = {
        "architecture": architecture,
        "num_classes": classifier,
        "model_args": {**options, "num_classes": classifier},
    }
    config |= {"num_features": body.num_features, "pretrained_cfg": {"input_size": [3, 28, 28], **described}}
    put(cache, hub, "config.json", json.dumps(config).encode())
    place = cache / "tensors"
    if file.endswith(".safetensors"):
        save_file(body.state_dict(), place)
    else:
        torch.save({"teacher": {f"backbone.{key}": value for key, value in body.state_dict().items()}}, place)
    put(cache, hub, file, place.read_bytes())
    place.unlink()
    return body
