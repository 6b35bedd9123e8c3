"""How fast exported models are: torch, ONNX Runtime and OpenVINO in turns on the same patches, weights at random.

    python benchmarks/export.py --images 64 --rounds 5

Each round lets all of them predict, one after another, so that a busy machine slows all alike; the ratio is the median
over rounds of torch's time to the other's. Writes the table into docs/export.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import cast

import numpy as np
import torch

from tumortrace import export, load_model
from tumortrace.errors import ModelError
from tumortrace.models.architecture import build_network
from tumortrace.models.bundle import Model
from tumortrace.models.description import ModelInfo, TrainingData
from tumortrace.models.runtimes import Backend
from tumortrace.records.files import write_text
from tumortrace.training.recipe import load_recipe

RECIPES = ("tumortrace-fast", "resnet50-64")
BACKENDS = ("torch", "onnx", "openvino")
SIZE = (96, 96)
BEGIN, END = "<!-- measured: written by benchmarks/export.py -->", "<!-- end of measured -->"


def bundle(recipe_name: str, folder: Path) -> Path:
    """A bundle of the recipe's network with random weights, exported."""
    recipe = load_recipe(recipe_name, ["weights=random"])
    torch.manual_seed(0)
    network = build_network(recipe.model.name, recipe.preprocessing.output_size(SIZE), recipe.model.arguments)
    info = ModelInfo(
        name=recipe_name,
        architecture=recipe.model,
        preprocessing=recipe.preprocessing,
        patch_size=SIZE,
        classes=("normal", "tumour"),
        positive_class="tumour",
        symmetries=recipe.symmetries,
        training=TrainingData(fingerprint="0", prevalence=0.5, recipe=recipe_name),
    )
    Model(info, network, torch.device("cpu")).save(folder)
    export(folder)
    return folder


def seconds(model: Model, images: np.ndarray) -> float:
    """Time of one prediction of all images."""
    begun = time.perf_counter()
    model.logits(images)
    return time.perf_counter() - begun


def table(images: np.ndarray, rounds: int) -> list[str]:
    """Lines of the table."""
    lines = [
        "| recipe | computed by | patches a second, best round | times as fast as torch, median [least, most] |",
        "| --- | --- | --- | --- |",
    ]
    for name in RECIPES:
        with tempfile.TemporaryDirectory() as folder:
            exported = bundle(name, Path(folder))
            models: dict[str, Model] = {}
            refused: list[str] = []
            for one in BACKENDS:
                try:
                    models[one] = load_model(exported, device="cpu", backend=cast(Backend, one))
                    models[one].logits(images[:8])
                except ModelError:  # OpenVINO cannot compile every graph
                    models.pop(one, None)
                    refused.append(one)
            times = {one: np.empty(rounds) for one in models}
            for turn in range(rounds):
                for one, model in models.items():
                    times[one][turn] = seconds(model, images)
        for one, own in times.items():
            ratio = times["torch"] / own
            told = f"{np.median(ratio):.2f} [{ratio.min():.2f}, {ratio.max():.2f}]"
            lines.append(f"| `{name}` | {one} | {len(images) / own.min():.0f} | {told} |")
        lines += [f"| `{name}` | {one} | cannot compile it | — |" for one in refused]
    return lines


def main() -> None:
    """Measure, and write the table between the page's two marks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--page", type=Path, default=Path("docs/export.md"))
    options = parser.parse_args()
    images = np.random.default_rng(0).integers(0, 256, (options.images, *SIZE, 3), dtype=np.uint8)
    told = f"{options.images} patches of 96x96 px in turns, {options.rounds} rounds, {torch.get_num_threads()} threads."
    before, _, rest = options.page.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = [BEGIN, "", told, "", *table(images, options.rounds), "", END]
    write_text(options.page, before + "\n".join(lines) + after)


if __name__ == "__main__":
    main()
