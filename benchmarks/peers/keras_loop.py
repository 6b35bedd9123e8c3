"""What people do today: System A's CNN 1 in Keras 3, fed file by file in batches of 64; prints seconds by epoch.

python keras_loop.py train FOLDER MODEL.keras EPOCHS
python keras_loop.py predict FOLDER MODEL.keras OUT.csv
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from PIL import Image

SIZE, BATCH = 64, 64


class Files(keras.utils.PyDataset):
    """Batches of files, each opened, resized and scaled when it is asked for, as `ImageDataGenerator` does."""

    def __init__(self, files: list[Path]) -> None:
        super().__init__(workers=2, max_queue_size=10)
        self.files = files

    def __len__(self) -> int:
        return -(-len(self.files) // BATCH)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        some = self.files[number * BATCH : (number + 1) * BATCH]
        images = [np.asarray(Image.open(file).convert("RGB").resize((SIZE, SIZE))) for file in some]
        labels = np.array([file.parent.name == "tumour" for file in some], np.float32)
        return np.stack(images).astype(np.float32) / 255, labels


def network() -> keras.Model:
    """Two blocks of two convolutions without batch norm, one dense layer: 1,401,617 parameters, as published."""
    layers = keras.layers
    parts: list[keras.layers.Layer] = [keras.Input((SIZE, SIZE, 3))]
    for channels in (16, 32):
        parts += [layers.Conv2D(channels, 3, activation="relu") for _ in range(2)] + [layers.MaxPooling2D(2)]
    parts += [layers.Flatten(), layers.Dense(256, activation="relu"), layers.Dense(1, activation="sigmoid")]
    model = keras.Sequential(parts)
    assert model.count_params() == 1_401_617
    model.compile("adam", "binary_crossentropy")
    return model


class Epochs(keras.callbacks.Callback):
    """Seconds of each epoch."""

    def on_train_begin(self, logs: object = None) -> None:
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.seconds.append(time.perf_counter() - self.started)


def main(what: str, folder: str, saved: str, last: str) -> None:
    files = sorted(Path(folder).glob("*/*.tif"))
    if what == "train":
        np.random.default_rng(0).shuffle(files)
        model, epochs = network(), Epochs()
        model.fit(Files(files), epochs=int(last), verbose=0, callbacks=[epochs])
        model.save(saved)
        print(json.dumps(epochs.seconds))
        return
    probability = keras.models.load_model(saved).predict(Files(files), verbose=0)[:, 0]
    rows = (f"{file.stem},{value:.6f}" for file, value in zip(files, probability, strict=True))
    Path(last).write_text("\n".join(["id,probability", *rows]) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
