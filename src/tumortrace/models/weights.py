"""Weights to start from: random, ImageNet's or a hub's, or those of a file; where they came from is recorded."""

from __future__ import annotations

import math
import os
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tumortrace.errors import ModelError
from tumortrace.models.architecture import Network
from tumortrace.models.checkpoint import tensors_sha256
from tumortrace.models.foundation import HUB, TORCHVISION, FoundationModel, foundation_model
from tumortrace.models.hub import INDEX, INDICES, USUAL, hub_weights, parts_of, require_connection
from tumortrace.models.transformers_layout import timms_names
from tumortrace.records.files import sha256
from tumortrace.records.remote import cache_folder

#: Prefixes under which published files keep a body's tensors.
_PREFIXES = ("", "body.", "module.", "model.", "backbone.", "encoder.", "network.", "module.backbone.")
_NESTED = ("state_dict", "model_state_dict", "model", "teacher", "student")
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def load_weights(network: Network, source: str) -> dict[str, Any]:
    """Fill a fresh network's body from a source and say where the weights come from.

    A published body is filled, any other network is filled whole, or its body alone from a file without a head, such
    as `tumortrace pretrain` writes. Every tensor that is filled must be in the file with its shape; what else the file
    holds (a classifier) is counted and left.

    Args:
        network: A freshly built network; changed in place.
        source: "random" leaves it as it is; "imagenet" takes the weights that timm or torchvision publish for the
            body (a hub's name, the hub's); anything else is a file, safetensors, or `.pth` read without running code,
            the index of several (`model.safetensors.index.json`), or a folder that holds one, as the hub's cache does.

    Returns:
        `origin` (one line), `sha256` of the file or, where libraries fetched them, of the tensors, `unused`, the number
        of tensors in the file that were not needed, and `licence` where the table of foundation models has it.

    Raises:
        ModelError: There is no such file, it does not fit, or published weights cannot be fetched: the message says
            which file to fetch and where to put it.
    """
    if source == "random":
        return {"origin": "random initialisation", "sha256": None, "unused": 0}
    body = network.published
    target = network if body is None else network.body
    if body is None and source == "imagenet":
        raise ModelError(
            "weights: imagenet for a network without a published body",
            expected="model.name: backbone",
            remedy="set weights to random or to a file",
        )
    row = None if body is None else foundation_model(body)
    path = _published_file(body, row) if body is not None and source == "imagenet" else _file_of(Path(source), row)
    if path is None:
        assert body is not None
        tensors, place = _fetch(body)
        digest = tensors_sha256(tensors)
    else:
        tensors, place = read_weights(path), str(path)
        digest = tensors_sha256(tensors) if path.name.endswith(INDEX) else sha256(path)
    if body is None and not any(name.startswith(prefix + "top.") for name in tensors for prefix in _PREFIXES):
        target = network.body  # as `pretrain` writes it
    unused, told = _fill(target, tensors, place)
    published = f"published weights of {body}, {place if path is None else path.name}"
    origin = (published if source == "imagenet" else f"file {Path(place).name}") + told
    licence = {} if row is None else {"licence": f"{row.licence}, {row.hub}"}
    return {"origin": origin, "sha256": digest, "unused": unused, **licence}


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a safetensors file, or from a `.pth` file through torch's restricted unpickler.

    Raises:
        ModelError: The file is missing, is not one of these, or holds anything but tensors.
    """
    if not path.is_file():
        raise ModelError("no such file", where=path, expected="safetensors or .pth", remedy="name a file of weights")
    if path.name.endswith(INDEX):
        return _together(path)
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


def _together(index: Path) -> dict[str, Tensor]:
    """The tensors of all files that an index names.

    Raises:
        ModelError: One of them is missing.
    """
    parts = parts_of(index)
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        found = f"{len(missing)} of the {len(parts)} files that it names are not there, first {missing[0]}"
        raise ModelError(found, where=index, expected="all of them beside it", remedy="fetch them too")
    return {name: tensor for part in parts for name, tensor in read_weights(part).items()}


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
            return torch.load(path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
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


def _file_of(path: Path, row: FoundationModel | None) -> Path:
    """The file that is named, or the one in a folder: of weights, or of a repository as the hub's cache keeps it.

    Raises:
        ModelError: The folder holds none, or several.
    """
    path = path.expanduser()
    if not path.is_dir():
        return path
    revision = path / "refs" / "main"
    snapshots = [path / "snapshots" / revision.read_text("utf-8").strip()] if revision.is_file() else []
    folder = next((place for place in snapshots if place.is_dir()), path)
    usual = [folder / name for name in (*([row.file] if row and row.file else []), *USUAL, *INDICES)]
    here = sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES)
    named = next((file for file in usual if file.is_file()), here[0] if len(here) == 1 else None)
    if named is None:
        found = f"{len(here)} files of weights" + (f", such as {here[0].name}" if here else "")
        raise ModelError(found, where=folder, expected="one, or " + " or ".join(USUAL), remedy="name the file itself")
    return named


def _fill(target: nn.Module, tensors: dict[str, Tensor], where: str) -> tuple[int, str]:
    """Put the tensors into the network; returns how many were not needed, and what has to be said of the others."""
    wanted = target.state_dict()
    tensors, told = _resampled_places(target, timms_names(tensors) if "cls_token" in wanted else tensors)
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
            remedy="set model.arguments.body, and model.arguments.options, to those that the weights belong to",
        )
    broken = [name for name in needed if not torch.isfinite(tensors[prefix + name].float()).all()]
    if broken:
        raise ModelError(
            f"values that are no numbers in {len(broken)} of {len(needed)} tensors, first {prefix + broken[0]!r}",
            where=where,
            remedy="fetch it again",
        )
    target.load_state_dict({name: tensors[prefix + name] for name in wanted if prefix + name in tensors}, strict=False)
    return len(tensors) - sum(prefix + name in tensors for name in wanted), told


def _resampled_places(target: nn.Module, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The tensors with embeddings of places for as many patches as a transformer has, and the words that say so."""
    wanted = getattr(target, "pos_embed", None)
    name = next((prefix + "pos_embed" for prefix in _PREFIXES if prefix + "pos_embed" in tensors), None)
    if name is None or not isinstance(wanted, Tensor):
        return tensors, ""
    from timm.layers import resample_abs_pos_embed  # takes seconds, which most have no need of
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    if not isinstance(target, VisionTransformer | Eva):
        return tensors, ""
    given, rows = tensors[name], target.patch_embed.grid_size
    prefix = wanted.shape[1] - rows[0] * rows[1]  # the class token and registers, where they have places
    if given.shape == wanted.shape or given.ndim != 3 or given.shape[2] != wanted.shape[2]:
        return tensors, ""
    side = math.isqrt(max(0, given.shape[1] - prefix))
    if not side or side * side != given.shape[1] - prefix:
        return tensors, ""
    places = resample_abs_pos_embed(given.float(), new_size=list(rows), old_size=[side, side], num_prefix_tokens=prefix)
    return {**tensors, name: places}, f", its embeddings of {side}x{side} places resampled to {rows[0]}x{rows[1]}"


def _weights_folder() -> Path:
    return Path(os.environ.get("TUMORTRACE_WEIGHTS") or cache_folder() / "weights")


def _file_name(body: str) -> str:
    return body.removeprefix(HUB).replace("/", "--")


def _published_file(body: str, row: FoundationModel | None) -> Path | None:
    """The file of a body's published weights, put there by hand or of a hub; None where libraries have to fetch it."""
    kept = [path for suffix in _SUFFIXES if (path := _weights_folder() / (_file_name(body) + suffix)).is_file()]
    if kept:
        return kept[0]
    place = _weights_folder() / (_file_name(body) + ".safetensors")
    remedy = f"fetch that file yourself and put it at {place}, or give --weights FILE or --weights random"
    if row is not None or body.startswith(HUB):
        return hub_weights(row.hub if row is not None else body.removeprefix(HUB), row.file if row else None, remedy)
    hub = None if body.startswith(TORCHVISION) else _hub_of(body)
    return None if hub is None else hub_weights(*hub, remedy)


def _hub_of(body: str) -> tuple[str, str | None] | None:
    """Repository and file of timm's own weights; None where they lie elsewhere, or timm has to convert them.

    Raises:
        ModelError: There are none.
    """
    import timm

    config = timm.get_pretrained_cfg(body)
    if config is None or not (config.hf_hub_id or config.url):
        raise ModelError(f"timm knows no published weights of {body!r}", remedy="give --weights FILE or random")
    if not config.hf_hub_id or config.custom_load == "hf":
        return None
    name = config.hf_hub_id
    return name + (f"{body.split('.')[0]}.{config.tag}" if name.endswith("/") else ""), config.hf_hub_filename


def _fetch(body: str) -> tuple[dict[str, Tensor], str]:
    """Tensors that torchvision, or timm from an address of its own, fetches."""
    import timm
    import torchvision

    if body.startswith(TORCHVISION):
        address = str(torchvision.models.get_model_weights(body.removeprefix(TORCHVISION)).DEFAULT.url)
    else:
        config = timm.get_pretrained_cfg(body)
        address = str(config.url if config else None)
    suffix = ".pth" if address.endswith(".pth") else ".safetensors"
    place = _weights_folder() / (_file_name(body) + suffix)
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
