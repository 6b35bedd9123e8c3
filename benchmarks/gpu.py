"""What a GPU trains in a second, from images in its own memory, and whether it ever waits for them.

    python benchmarks/gpu.py [--images 327680] [--seconds 20] [--networks resnet18] [--ways device compiled]

As many random patches of 96 px as PatchCamelyon has are trained on as `train` does: by its learner, with augmentation
on the device, bfloat16 where the device multiplies it, channels last. Two networks, that of the default recipe (in its
own batches, and in large ones) and ResNet-18, each three times: `disk`, batches are brought from the host as they are
needed; `device`, all images are in the device's memory, as `train` has them where there is room; `compiled`, besides
that the network is compiled. Prints for each images a second, seconds of an epoch, and, from a profile of some steps,
the share of the time in which the device was at work, that in which it fetched images, and its longest gap: without
stalls the first is near 1 and the second near 0. Below ten minutes on one GPU. Random pixels tell nothing of AUROC:
`tumortrace train DATA` does.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.autograd import DeviceType

from tumortrace.models.device import resolve_device
from tumortrace.models.streams import streams
from tumortrace.training import compiled, gradient
from tumortrace.training.gradient import GradientLearner
from tumortrace.training.recipe import load_recipe
from tumortrace.training.task import Patches, Task

RESNET = ("model.name=backbone", "model.arguments={body: resnet18}", "preprocessing.crop=null")
NETWORKS = {"default": (), "default-large": (), "resnet18": RESNET}
WAYS = ("disk", "device", "compiled")
WARM = 5  # steps before those that are measured


@dataclass(frozen=True)
class Measured:
    """What some steps took."""

    rate: float  # images a second
    busy: float | None = None  # share of the time in which the device was at work; None on a CPU
    fetching: float | None = None  # in which it fetched from the host
    gap: float | None = None  # the longest, in ms


def patches(count: int, side: int) -> Patches:
    """So many patches, of which some thousand differ; half of them positive."""
    distinct = np.random.default_rng(0).integers(0, 256, (min(count, 4096), side, side, 3), np.uint8)
    images = np.concatenate([distinct] * (-(-count // len(distinct))))[:count]
    return Patches(images, np.arange(count), (np.arange(count) % 2).astype(np.float32))


def learner_of(
    training: Patches, changes: Sequence[str], way: str, folder: Path, device: str, backend: str
) -> GradientLearner:
    """The learner that `train` has, on these images."""
    recipe = load_recipe("tumortrace", [*changes, f"compile={way == 'compiled'}"])
    compiled.BACKEND = backend
    validation = Patches(training.images, training.rows[:8], training.labels[:8])
    room = gradient.room_for_images
    if way == "disk":
        gradient.room_for_images = lambda device: 0
    elif resolve_device(device).type == "cpu":
        gradient.room_for_images = lambda device: sys.maxsize
    try:
        files = {"checkpoints": folder / "checkpoints", "history_file": folder / "history.csv"}
        learner = GradientLearner(Task(recipe, training, validation, seed=0, device=device, **files))
    finally:
        gradient.room_for_images = room
    if way != "disk" and learner.training.kept is None:
        raise SystemExit(f"{training.bytes / 1e9:.1f} GB of images do not fit into half of the device's free memory")
    return learner


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def steps(learner: GradientLearner, batches: Iterator[np.ndarray], count: int, until: float) -> int:
    """Take so many steps, or fewer where the time is up; how many images they learnt from."""
    images = 0
    for _ in range(count):
        if time.monotonic() > until:
            break
        batch = next(batches)
        learner._step(batch)
        images += len(batch)
    learner._look()
    wait(learner.device)
    return images


def batches_of(count: int, size: int) -> Iterator[np.ndarray]:
    """Batches of one size, in another order each epoch."""
    random = np.random.default_rng(0)
    while True:
        order = random.permutation(count)
        yield from (order[start : start + size] for start in range(0, count - size + 1, size))


def measure(learner: GradientLearner, given: argparse.Namespace) -> Measured:
    """Images a second over some steps, then a profile of a few."""
    batches = batches_of(len(learner.training.rows), learner.recipe.batch_size)
    learner.descent.train()
    with streams(learner.device, learner.descent.parts) as learner.streams:
        steps(learner, batches, WARM, time.monotonic() + 600)
        started = time.monotonic()
        images = steps(learner, batches, given.steps, started + given.seconds)
        rate = images / (time.monotonic() - started)
        if learner.device.type != "cuda":
            return Measured(rate)
        with torch.profiler.profile() as profile:
            begun = time.monotonic()
            steps(learner, batches, given.profiled, begun + given.seconds)
            wall = (time.monotonic() - begun) * 1e6
    spans = [
        (event.name, event.time_range.start, event.time_range.end)
        for event in profile.events()
        if event.device_type == DeviceType.CUDA
    ]
    return Measured(rate, *stalls(spans, wall))


def stalls(spans: Sequence[tuple[str, float, float]], wall: float) -> tuple[float, float, float]:
    """Shares of the time in which a device was at work, and fetched, and its longest gap.

    Args:
        spans: Of its operations: name, start and end in microseconds; they may overlap.
        wall: Microseconds in all.

    Returns:
        The shares, and the gap in ms.
    """
    busy = gap = fetching = 0.0
    end = min(start for _, start, _ in spans)
    for name, start, stop in sorted(spans, key=lambda span: span[1:]):
        gap = max(gap, start - end)
        busy += max(0.0, stop - max(start, end))
        fetching += (stop - start) * ("HtoD" in name)
        end = max(end, stop)
    return busy / wall, fetching / wall, gap / 1e3


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    numbers = {"images": 327_680, "side": 96, "batch": 1024, "steps": 2000, "profiled": 20}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seconds", type=float, default=20.0, help="at most, of each measurement")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    given = parser.parse_args(words)
    device = resolve_device(given.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {given.images:,} patches of {given.side} px")
    training, large = patches(given.images, given.side), f"batch_size={given.batch}"
    print("| network | batch | images | images a second | epoch, s | at work | fetching | longest gap, ms |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for network in given.networks:
        changed = [] if network == "default" else [*NETWORKS[network], large]
        for way in given.ways:
            with tempfile.TemporaryDirectory() as folder:
                learner = learner_of(training, changed, way, Path(folder), given.device, given.backend)
                told = measure(learner, given)
            row = [network, learner.recipe.batch_size, way, f"{told.rate:,.0f}", f"{given.images / told.rate:.1f}"]
            row += ["not told" if one is None else f"{one:.3f}" for one in (told.busy, told.fetching, told.gap)]
            print("| " + " | ".join(map(str, row)) + " |", flush=True)
            del learner
            torch.compiler.reset()
            if device.type == "cuda":
                torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
