"""Weights to start from: random, ImageNet's or a hub's, or those of a file; where they came from is recorded."""

from __future__ import annotations

import os
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tumortrace.cohorts.cache import cache_folder
from tumortrace.errors import ModelError
from tumortrace.models.architecture import Network
from tumortrace.models.checkpoint import tensors_sha256
from tumortrace.models.families.backbone import HUB, TORCHVISION, require_connection
from tumortrace.records.files import sha256

#: Prefixes under which published files keep a body's tensors.
_PREFIXES = ("", "body.", "module.", "model.", "backbone.", "encoder.", "network.", "module.backbone.")
_NESTED = ("state_dict", "model_state_dict", "model", "teacher", "student")
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def load_weights(network: Network, source: str) -> dict[str, Any]:
    """Fill a fresh network's body from a source and say where the weights come from.

    A published body is filled, any other network is filled whole. Every tensor that is filled must be in the
    file with its shape; what else the file holds (a classifier) is counted and left.

    Args:
        network: A freshly built network; changed in place.
        source: "random" leaves it as it is; "imagenet" takes the weights that timm or torchvision publish for the
            body (a hub's name, the hub's); anything else is a file: safetensors, or `.pth` read without running code.

    Returns:
        `origin` (one line), `sha256` of the file or, for published weights, of the tensors, and `unused`, the number
        of tensors in the file that were not needed.

    Raises:
        ModelError: There is no such file, it does not fit, or published weights cannot be fetched: the message says
            which file to fetch and where to put it.
    """
    if source == "random":
        return {"origin": "random initialisation", "sha256": None, "unused": 0}
    body = network.published
    target = network if body is None else network.body
    if source != "imagenet":
        path = Path(source).expanduser()
        unused = _fill(target, read_weights(path), str(path))
        return {"origin": f"file {path.name}", "sha256": sha256(path), "unused": unused}
    if body is None:
        raise ModelError(
            "weights: imagenet for a network without a published body",
            expected="model.name: backbone",
            remedy="set weights to random or to a file",
        )
    kept = [path for suffix in _SUFFIXES if (path := _weights_folder() / (_file_name(body) + suffix)).is_file()]
    if kept:
        unused = _fill(target, read_weights(kept[0]), str(kept[0]))
        return {"origin": f"published weights of {body}, {kept[0].name}", "sha256": sha256(kept[0]), "unused": unused}
    tensors, address = _fetch(body)
    unused = _fill(target, tensors, address)
    return {"origin": f"published weights of {body}, {address}", "sha256": tensors_sha256(tensors), "unused": unused}


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a safetensors file, or from a `.pth` file through torch's restricted unpickler.

    Raises:
        ModelError: The file is missing, is not one of these, or holds anything but tensors.
    """
    if not path.is_file():
        raise ModelError("no such file", where=path, expected="safetensors or .pth", remedy="name a file of weights")
    if path.suffix not in _SUFFIXES:
        raise ModelError(
            f"{path.suffix or 'no'} file name ending", where=path, expected=" ".join(_SUFFIXES), remedy="rename it"
        )
    found = _safetensors(path) if path.suffix == ".safetensors" else _unpickled(path)
    for key in _NESTED:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    tensors = {str(k): v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, dict) else {}
    if not tensors:
        raise ModelError("no tensors by name in it", where=path, remedy="save the network's state_dict")
    return tensors


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        reason = str(error).strip().removeprefix("Error while deserializing header: ")
        raise ModelError(f"not a whole safetensors file ({reason})", where=path, remedy="fetch it again") from error


def _unpickled(path: Path) -> Any:
    """What torch's restricted unpickler reads; it builds tensors and containers, and runs nothing that a file names."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on old pickle protocols
            return torch.load(path, "cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, LookupError, ValueError, pickle.UnpicklingError) as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named is None:
            raise ModelError(
                "not a file of weights that torch has saved, or not all of it", where=path, remedy="fetch it again"
            ) from error
        raise ModelError(
            f"it names {named[1]}, which is not run",
            where=path,
            expected="tensors and nothing else",
            remedy="where you trust it, save the network's state_dict alone, as safetensors",
        ) from error


def _fill(target: nn.Module, tensors: dict[str, Tensor], where: str) -> int:
    wanted = target.state_dict()
    needed = [name for name in wanted if not name.endswith("num_batches_tracked")]  # of no use in inference
    misfits: dict[str, list[str]] = {}
    for prefix in _PREFIXES:
        misfits[prefix] = [
            name
            for name in needed
            if prefix + name not in tensors or tensors[prefix + name].shape != wanted[name].shape
        ]
    prefix = min(misfits, key=lambda key: len(misfits[key]))
    if misfits[prefix]:
        first = misfits[prefix][0]
        found = tensors.get(prefix + first)
        raise ModelError(
            f"{len(misfits[prefix])} of {len(needed)} tensors are missing or have another shape, first {first!r}"
            + (f" of shape {tuple(found.shape)}" if found is not None else ""),
            where=where,
            expected=f"shape {tuple(wanted[first].shape)}",
            remedy="set model.arguments.body to the one that the weights belong to",
        )
    broken = [name for name in needed if not torch.isfinite(tensors[prefix + name].float()).all()]
    if broken:
        raise ModelError(
            f"values that are no numbers in {len(broken)} of {len(needed)} tensors, first {prefix + broken[0]!r}",
            where=where,
            remedy="fetch it again",
        )
    target.load_state_dict({name: tensors[prefix + name] for name in wanted if prefix + name in tensors}, strict=False)
    return len(tensors) - sum(prefix + name in tensors for name in wanted)


def _weights_folder() -> Path:
    return Path(os.environ.get("TUMORTRACE_WEIGHTS") or cache_folder() / "weights")


def _file_name(body: str) -> str:
    return body.removeprefix(HUB).replace("/", "--")


def _fetch(body: str) -> tuple[dict[str, Tensor], str]:
    address = _address(body)
    place = _weights_folder() / (_file_name(body) + (".pth" if address.endswith(".pth") else ".safetensors"))
    remedy = f"fetch that file yourself and put it at {place}, or give --weights FILE or --weights random"
    cached = Path(torch.hub.get_dir()) / "checkpoints" / address.rpartition("/")[2]
    if not cached.is_file():
        require_connection(address, f"published weights of {body!r}", remedy)
    try:
        if body.startswith(TORCHVISION):
            weights = torchvision.models.get_model_weights(body.removeprefix(TORCHVISION)).DEFAULT
            return dict(weights.get_state_dict(progress=True, check_hash=True)), address
        return dict(timm.create_model(body, pretrained=True, num_classes=0).state_dict()), address
    except Exception as error:  # the libraries below raise a dozen kinds
        raise ModelError(
            f"published weights of {body!r} could not be fetched from {address} ({type(error).__name__})", remedy=remedy
        ) from error


def _address(body: str) -> str:
    if body.startswith(TORCHVISION):
        return str(torchvision.models.get_model_weights(body.removeprefix(TORCHVISION)).DEFAULT.url)
    if body.startswith(HUB):
        return f"https://huggingface.co/{body.removeprefix(HUB)}/resolve/main/model.safetensors"
    config = timm.get_pretrained_cfg(body)
    if config is None or not (config.hf_hub_id or config.url):
        raise ModelError(f"timm knows no published weights of {body!r}", remedy="give --weights FILE or random")
    if not config.hf_hub_id:
        return str(config.url)
    name = config.hf_hub_id
    if name.endswith("/"):
        name += f"{body.split('.')[0]}.{config.tag}"
    return f"https://huggingface.co/{name}/resolve/main/{config.hf_hub_filename or 'model.safetensors'}"
