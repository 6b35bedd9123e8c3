"""Files of a model hub: from its cache on this machine where they are there, else fetched; no code of theirs is run."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants

from tumortrace.errors import ModelError
from tumortrace.models.transformers_layout import timms_description

#: What hubs call weights, the safest first.
USUAL = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
#: What names the parts of weights that lie in several files.
INDEX = ".index.json"
INDICES = tuple(name + INDEX for name in USUAL[:2])
PROCESSOR = "preprocessor_config.json"
BY_HAND = "name timm's architecture in model.arguments.body and give --weights FILE"


def hub_description(hub: str, *, cached: bool = False) -> dict[str, Any] | None:
    """What `config.json` of a repository says, in timm's words: `architecture`, `model_args` and `pretrained_cfg`.

    Vision transformers and DINOv2 as the library transformers describes them are among these.

    Args:
        hub: Owner and name, and perhaps @revision.
        cached: Look into the cache alone, where None tells that it is not there.

    Raises:
        ModelError: It cannot be fetched, or is none of timm's.
    """
    file = _cached(hub, "config.json")
    if file is None and cached:
        return None
    if file is None:
        require_connection(address(hub, "config.json"), f"the description of {hub!r}")
        file = _fetched(hub, "config.json")
    if file is None:
        raise ModelError(f"the description of {hub!r} could not be fetched: it has no config.json", remedy=BY_HAND)
    content = _json(file)
    if not isinstance(content.get("architecture"), str):
        processor = _cached(hub, PROCESSOR) or (None if cached or offline() else _fetched(hub, PROCESSOR))
        described = timms_description(content, _json(processor) if processor else {})
        if described is not None:
            return described
        raise ModelError(
            f"names no architecture of timm (model_type {content.get('model_type', 'none')})",
            where=f"config.json of {hub}",
            remedy=BY_HAND,
        )
    if "pretrained_cfg" not in content:  # as older versions of timm wrote it
        content = {"architecture": content["architecture"], "pretrained_cfg": content, "model_args": {}}
    return content


def hub_weights(hub: str, name: str | None = None, remedy: str | None = None) -> Path:
    """The file of weights of a repository, or the index of several: from the cache, or else fetched, with all parts.

    Args:
        hub: Owner and name, and perhaps @revision.
        name: Of the file; None takes the first of the usual names that is there.
        remedy: What to do without a connection.

    Raises:
        ModelError: It cannot be fetched.
    """
    names = (*USUAL, *INDICES) if name is None else (name,)
    kept = next((file for one in names if (file := _cached(hub, one)) is not None), None)
    if kept is None:
        require_connection(address(hub, names[0]), f"published weights of {hub!r}", remedy)
        kept = next((file for one in names if (file := _fetched(hub, one)) is not None), None)
    if kept is None:
        raise ModelError(f"no weights at {address(hub, names[0])}", expected=" or ".join(names), remedy=BY_HAND)
    for part in parts_of(kept) if kept.name.endswith(INDEX) else ():
        if _cached(hub, part.name) is None:
            require_connection(address(hub, part.name), f"{part.name} of {hub!r}", remedy)
            _fetched(hub, part.name)
    return kept


def parts_of(index: Path) -> list[Path]:
    """The files beside an index that hold the weights which it names.

    Raises:
        ModelError: It is none, or names files elsewhere.
    """
    named = _json(index).get("weight_map")
    names = sorted({str(name) for name in named.values()}) if isinstance(named, dict) else []
    if not names or any(Path(name).name != name for name in names):
        found = "no weight_map" if not names else "files elsewhere than beside it"
        raise ModelError(found, where=index, expected="weight_map: names of tensors to names of files beside it")
    return [index.with_name(name) for name in names]


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"not readable as JSON ({error})", where=file, remedy="fetch it again") from error
    return content if isinstance(content, dict) else {}


def address(hub: str, file: str) -> str:
    """Where a file of a repository is to be had."""
    owner, _, revision = hub.partition("@")
    return f"https://huggingface.co/{owner}/resolve/{revision or 'main'}/{file}"


def offline() -> bool:
    """Whether the user has said that there is no network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def require_connection(address: str, what: str, remedy: str | None = None) -> None:
    """Refuse at once where there is no network; libraries below would try for a minute.

    Raises:
        ModelError: Nobody answers at `address`. An answer of any kind, refusals included, will do.
    """
    remedy = remedy or f"connect, or {BY_HAND}"
    if offline():
        raise ModelError(f"{what} not on this machine, where HF_HUB_OFFLINE is set ({address})", remedy=remedy)
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=20).close()
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError) as error:
        raise ModelError(f"{what} could not be fetched from {address}: no connection", remedy=remedy) from error


def _cache() -> Path:
    """The hub's cache, as the environment names it now."""
    home = os.environ.get("HF_HOME")
    place = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(place or (Path(home) / "hub" if home else constants.HF_HUB_CACHE)).expanduser()


def _cached(hub: str, file: str) -> Path | None:
    owner, _, revision = hub.partition("@")
    place = huggingface_hub.try_to_load_from_cache(owner, file, cache_dir=_cache(), revision=revision or None)
    return Path(place) if isinstance(place, str) else None


def _fetched(hub: str, file: str) -> Path | None:
    """A file of a repository; None where the repository does not have it."""
    owner, _, revision = hub.partition("@")
    try:
        return Path(huggingface_hub.hf_hub_download(owner, file, cache_dir=_cache(), revision=revision or None))
    except huggingface_hub.errors.EntryNotFoundError:
        return None
    except Exception as error:  # the library below raises a dozen kinds
        gated = isinstance(error, huggingface_hub.errors.GatedRepoError)
        page = f"https://huggingface.co/{owner}"
        granted = f"ask for access at {page} and log in with `hf auth login`, or {BY_HAND}"
        opens = f"see that {address(hub, file)} opens for you (some need a login), or {BY_HAND}"
        raise ModelError(
            f"{file} of {hub!r} could not be fetched ({'access is gated' if gated else type(error).__name__})",
            remedy=granted if gated else opens,
        ) from error
