"""Tiles per second of a dense scan against tile by tile at overlap .667, in turn in one run: processor time.

    python benchmarks/dense.py [RUN]

Without a run, the network of recipe cnn-96 with random weights. Reading and predicting count, focus does not.
"""

from __future__ import annotations

import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import tifffile
import torch

from tumortrace.images.preprocessing import Preprocessing
from tumortrace.models.architecture import build_network
from tumortrace.models.bundle import Model, load_model
from tumortrace.models.description import Architecture, ModelInfo, TrainingData
from tumortrace.slides.assess import by_tile
from tumortrace.slides.dense import by_block, dense_overlap, dense_tile, in_blocks
from tumortrace.slides.slide import Slide
from tumortrace.slides.tiling import tile_tissue
from tumortrace.training.recipe import load_recipe

SIDE, ROUNDS = 864, 2


def untrained() -> Model:
    model = load_recipe("cnn-96").model
    arguments = dict(model.arguments)
    info = ModelInfo(
        name="cnn-96",
        architecture=Architecture(name=model.name, arguments=arguments),
        preprocessing=Preprocessing(),
        patch_size=(96, 96),
        classes=("normal", "tumour"),
        positive_class="tumour",
        training=TrainingData(fingerprint="0", prevalence=0.5, recipe="cnn-96"),
    )
    return Model(info, build_network(model.name, (96, 96), arguments), torch.device("cpu"))


def main() -> None:
    model = load_model(sys.argv[1]) if len(sys.argv) > 1 else untrained()
    overlap, (height, width) = dense_overlap(model, 0.667), model.info.patch_size
    with tempfile.TemporaryDirectory() as folder:
        pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
        file = Path(folder) / "a.tif"
        tifffile.imwrite(file, pixels, tile=(256, 256), photometric="rgb", compression="jpeg", metadata=None)
        spent, said = np.zeros(2), [np.empty(0)] * 2
        with Slide(file) as slide:
            size = (slide.width, slide.height)
            tile = dense_tile((width, height), 1.0, overlap, slide)
            tiles = tile_tissue(np.ones((9, 9), bool), size, tile, overlap=overlap, minimum_tissue=1.0)
            tiles = in_blocks(tiles, size, (width, height), overlap)
            ways = partial(by_tile, model, slide, 0, 256), partial(by_block, model, slide, 0, overlap)
            for _ in range(ROUNDS):
                for place, way in enumerate(ways):
                    start = time.process_time()
                    said[place] = np.concatenate([part.probability for _, part in way(tiles)])
                    spent[place] += time.process_time() - start
    one, dense = ROUNDS * len(tiles) / spent
    print(
        f"{len(tiles)} tiles of {width} px, model {model.info.name}, overlap {overlap:.3f}: tile by tile {one:.0f}",
        end=" ",
    )
    print(f"a second of processor time, dense {dense:.0f}: {dense / one:.1f} times as many; ", end="")
    print(f"largest difference of a probability {np.abs(said[0] - said[1]).max():.1e}")


if __name__ == "__main__":
    main()
