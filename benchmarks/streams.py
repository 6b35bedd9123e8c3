"""Streams of one thread against threads that share every operation, on an idle machine and on a busy one.

    python benchmarks/streams.py --rounds 5

Both train and predict with recipe `tumortrace` on random patches, in turns; beside the busy ones an endless loop in
Python runs for every core. Rates are medians over rounds, in images a second. Writes docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from tumortrace.models.bundle import Model
from tumortrace.models.description import ModelInfo, TrainingData
from tumortrace.models.streams import Streams, streams
from tumortrace.records.files import write_text
from tumortrace.training.experiment import describe_machine
from tumortrace.training.gradient import GradientLearner
from tumortrace.training.recipe import load_recipe
from tumortrace.training.task import Patches, Task

RECIPE, SIDE = "tumortrace", 96
ARMS = ("shared operations", "streams")
BATCHES = 4  # of a round


def loop() -> None:
    """Keep a core busy."""
    while True:
        pass


@contextmanager
def load(loops: int) -> Iterator[None]:
    """So many endless loops beside what runs in the context."""
    others = [multiprocessing.get_context("spawn").Process(target=loop, daemon=True) for _ in range(loops)]
    for other in others:
        other.start()
    time.sleep(2 if loops else 0)
    yield
    for other in others:
        other.kill()
        other.join()


def learner(folder: Path) -> GradientLearner:
    """One that has not learnt yet."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (BATCHES * 64, SIDE, SIDE, 3), dtype=np.uint8)
    recipe = load_recipe(RECIPE)
    prepared = recipe.preprocessing.prepare(images)
    patches = Patches(prepared, np.arange(len(images)), (np.arange(len(images)) % 2).astype(np.float32))
    return GradientLearner(Task(recipe, patches, patches, folder, folder / "history.csv", seed=0, device="cpu"))


def model(trained: GradientLearner) -> Model:
    """The same network, to predict with."""
    info = ModelInfo(
        name=RECIPE,
        architecture=trained.architecture,
        preprocessing=trained.recipe.preprocessing,
        patch_size=(SIDE, SIDE),
        classes=("normal", "tumour"),
        positive_class="tumour",
        symmetries=trained.recipe.symmetries,
        training=TrainingData(fingerprint="0", prevalence=0.5, recipe=RECIPE),
    )
    return Model(info, trained.network, torch.device("cpu"))


def training(trained: GradientLearner, arm: str) -> int:
    """Some steps; how many images they learnt from."""
    trained.descent.train()
    trained.descent.parts = 2 if arm == "streams" else 1
    with streams(trained.device, 2) if arm == "streams" else nullcontext(Streams()) as trained.streams:
        for start in range(0, BATCHES * 64, 64):
            trained._step(np.arange(start, start + 64))
    return BATCHES * 64


def prediction(predicting: Model, images: np.ndarray, arm: str) -> int:
    """Some batches; how many images they had."""
    shared = mock.patch("tumortrace.models.bundle.streams", return_value=nullcontext(Streams()))
    with nullcontext() if arm == "streams" else shared:
        predicting.logits(images)
    return len(images)


def rate(work: Callable[[], int]) -> float:
    """Images a second."""
    begun = time.perf_counter()
    return work() / (time.perf_counter() - begun)


def table(rounds: int) -> list[str]:
    """Lines of the table."""
    cores = torch.get_num_threads()
    images = np.random.default_rng(1).integers(0, 256, (BATCHES * 256, SIDE, SIDE, 3), dtype=np.uint8)
    lines = ["| beside it | what | " + " | ".join(ARMS) + " | ratio |", "| --- | --- | --- | --- | --- |"]
    with tempfile.TemporaryDirectory() as folder:
        trained = learner(Path(folder))
        predicting = model(trained)
        works: dict[str, Callable[[str], int]] = {
            "training": lambda arm: training(trained, arm),
            "prediction": lambda arm: prediction(predicting, images, arm),
        }
        for loops in (0, cores):
            with load(loops):
                rates = {(what, arm): np.empty(rounds) for what in works for arm in ARMS}
                for place in range(-1, rounds):  # the first of all is not counted
                    for what, work in works.items():
                        for arm in ARMS:
                            measured = rate(lambda: work(arm))  # noqa: B023 - called at once
                            if place >= 0:
                                rates[what, arm][place] = measured
            for what in works:
                shared, apart = (rates[what, arm] for arm in ARMS)
                beside = f"{loops} endless loops" if loops else "nothing"
                lines.append(
                    f"| {beside} | {what} | {np.median(shared):.0f} | {np.median(apart):.0f} "
                    f"| {np.median(apart / shared):.2f} |"
                )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks.md"))
    options = parser.parse_args()
    machine = describe_machine(torch.device("cpu"))
    text = f"""# Speed

Generated by `benchmarks/streams.py`.

## On a machine that is busy

Training and prediction compute in streams: batches, or halves of one, side by side, each by one thread. torch's own way
is to share every operation out to all cores; these wait for each other at the end of each. Recipe `{RECIPE}` on random
patches of {SIDE} px, {torch.get_num_threads()} cores ({machine["device_name"]}); images a second, medians of
{options.rounds} rounds in turns.

"""
    write_text(options.out, text + "\n".join(table(options.rounds)) + "\n")


if __name__ == "__main__":
    main()
