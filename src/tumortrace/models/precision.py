"""Whether a network computes in bfloat16: where that is quicker here, and says the same of the very images at hand."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from tumortrace.cohorts.cache import cache_folder
from tumortrace.errors import ModelError
from tumortrace.models.device import fast_bfloat16, threads
from tumortrace.records.evaluation import Precision
from tumortrace.records.files import write_json
from tumortrace.records.provenance import machine

if TYPE_CHECKING:
    from tumortrace.models.bundle import Assessment, Model

Asked = Literal["auto", "fp32", "bf16"]
SAMPLE = 512  # images that are computed both ways
FEWEST = 4 * SAMPLE  # of which that pays
_FLIPS = 1 / 500  # share of calls that may differ
_APART = 0.02  # by which a probability may differ
_FASTER = 1.1  # times as fast as it has to be
_TIMED, _ROUNDS = 32, 3  # images, and how often either way has its turn


def choose(model: Model, asked: Asked, images: int, sample: Callable[[], Iterable[np.ndarray]]) -> Precision:
    """Whether a model is to compute some images in float32 or in bfloat16, and why.

    The same for the same model, images and kind of machine: what is quicker is measured once and kept in the cache.

    Args:
        model: The model, at float32.
        asked: "fp32", "bf16", or "auto": bfloat16 where the hardware multiplies it, there are at least `FEWEST` images,
            it is quicker, and of a sample at most 1 in 500 calls differ and no probability by more than .02.
        images: How many there are.
        sample: Gives those that `sampled` tells, in batches as `Model.assess` takes them.

    Raises:
        ModelError: bfloat16 is asked for where there is none.
    """
    if asked not in get_args(Asked):
        raise ModelError(f"precision {asked!r}", expected="auto, fp32 or bf16", remedy="use one of these")
    runtime = getattr(model, "runtime", None)
    network = getattr(model, "network", None) if runtime is None else None
    able = network is not None and not network.takes_features and fast_bfloat16(model.device)
    if asked == "bf16" and not able:
        found = f"the exported file computes ({runtime.name})" if runtime else "no bfloat16 in this hardware"
        raise ModelError(
            f"--precision bf16: {found}", expected="torch, and hardware with bfloat16", remedy="leave it out"
        )
    if runtime is not None:
        return Precision(taken=runtime.name, why="the exported file computes")
    if asked != "auto":
        return Precision(taken=asked, why="as was asked")
    if not able:
        return Precision(taken="fp32", why="the hardware does not multiply bfloat16")
    if images < FEWEST:
        return Precision(taken="fp32", why=f"a check of bfloat16 pays from {FEWEST:,} images on")
    faster = times_as_fast(model)
    if faster < _FASTER:
        return Precision(taken="fp32", why=f"bfloat16 is {faster:.2g} times as fast", faster=faster)
    return _compared(model, sample(), faster)


def sampled(count: int) -> np.ndarray:
    """Which of so many images `choose` is to be shown, evenly spread.

    Example:
        >>> sampled(3).tolist(), len(sampled(10_000)), sampled(0).tolist()
        ([0, 1, 2], 512, [])
    """
    return np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).astype(int))


def possible(model: Model, asked: Asked) -> tuple[str, ...]:
    """What `choose` may take here."""
    runtime = getattr(model, "runtime", None)
    return (runtime.name,) if runtime else ("bf16", "fp32") if asked == "auto" else (asked,)


def _compared(model: Model, batches: Iterable[np.ndarray], faster: float) -> Precision:
    """The choice by what is said of a sample in float32 and in bfloat16."""
    other, checked, flips, apart = model.at("bf16"), 0, 0, 0.0
    for images in batches:
        exact, quick = model.assess(images), other.assess(images)
        checked, flips = checked + len(images), flips + int(np.sum(_calls(exact) != _calls(quick)))
        apart = max(apart, float(np.abs(exact.probability - quick.probability).max(initial=0.0)))
    agrees = flips <= checked * _FLIPS and apart <= _APART
    told = f"{faster:.2g} times as fast; of {checked} images {flips} calls differ, probabilities by at most {apart:.2g}"
    taken, why = ("bf16", told) if agrees else ("fp32", f"bfloat16 would be {told}")
    return Precision(taken=taken, why=why, checked=checked, flips=flips, apart=apart, faster=faster)


def _calls(said: Assessment) -> np.ndarray:
    """The call of each image: its class."""
    from tumortrace.evaluation.classes import PREDICTED

    return said.prediction if said.by_class is None else np.asarray(said.by_class[PREDICTED])


def times_as_fast(model: Model) -> float:
    """How many times as fast bfloat16 is here, by processor time (wall time on a GPU); measured once, then kept."""
    file = _kept(model)
    with suppress(OSError, ValueError, KeyError, TypeError):  # not kept yet, or damaged
        return float(json.loads(file.read_bytes())["times"])
    clock = time.process_time if model.device.type == "cpu" else time.perf_counter
    images = np.random.default_rng(0).integers(0, 256, (_TIMED, *model.info.patch_size, 3), np.uint8)
    spent = np.empty((_ROUNDS + 1, 2))
    for turn in spent:
        for way, either in enumerate((model, model.at("bf16"))):
            started = clock()
            either.assess(images)
            turn[way] = clock() - started
    times = round(float(np.median(spent[1:, 0] / np.maximum(spent[1:, 1], 1e-9))), 2)  # the first warms up
    with suppress(OSError):
        write_json(file, {"times": times})
    return times


def _kept(model: Model) -> Path:
    import torch

    what = (
        model.info.weights_sha256,
        model.info.symmetries,
        machine(),
        str(model.device),
        threads(),
        torch.__version__,
    )
    return cache_folder() / "bfloat16" / f"{hashlib.sha256(repr(what).encode()).hexdigest()[:32]}.json"
