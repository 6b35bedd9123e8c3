"""Files of tensors that are what they were: training checkpoints without pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tumortrace.errors import RunError
from tumortrace.records.files import replacing


def save_checkpoint(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write tensors (by name) and `state` (anything JSON can hold) to `path`.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "last.safetensors"
        >>> save_checkpoint(path, {"a": torch.ones(2)}, {"epoch": 3})
        >>> load_checkpoint(path)
        ({'a': tensor([1., 1.])}, {'epoch': 3})
    """
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, {"state": json.dumps(state), "sha256": tensors_sha256(tensors)})


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_checkpoint` wrote.

    Raises:
        RunError: The file is missing or damaged.
    """
    remedy = "start the training anew"
    if not path.is_file():
        raise RunError("no checkpoint there", where=path, remedy=remedy)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dictionary
        state, sha256 = json.loads(metadata["state"]), metadata["sha256"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"not a readable checkpoint ({error})", where=path, remedy=remedy) from error
    if tensors_sha256(tensors) != sha256:
        raise RunError(
            "the checkpoint is damaged: its tensors do not have the hash on record", where=path, remedy=remedy
        )
    return tensors, state


def optimiser_tensors(optimiser: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """What an optimiser remembers of each parameter, named `prefix.parameter.what`; not copies.

    Example:
        >>> weights = torch.nn.Parameter(torch.ones(2))
        >>> optimiser = torch.optim.SGD([weights], lr=1.0, momentum=0.5)
        >>> weights.grad = torch.ones(2)
        >>> optimiser.step()
        >>> optimiser_tensors(optimiser, "sgd")
        {'sgd.0.momentum_buffer': tensor([1., 1.])}
    """
    remembered = optimiser.state_dict()["state"].items()
    return {
        f"{prefix}.{index}.{name}": value
        for index, values in remembered
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Let an optimiser remember what `optimiser_tensors` gave, among other tensors."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(f"{prefix}."):
            index, _, name = key.removeprefix(f"{prefix}.").partition(".")
            state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names and bytes of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
