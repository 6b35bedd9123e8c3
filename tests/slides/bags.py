"""Bags made by hand: features of slides whose label is decided by a few tiles."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd


def write_bags(
    folder: Path,
    *,
    patients: int = 20,
    slides: int = 2,
    tiles: int = 100,
    width: int = 16,
    share: float = 0.05,
    strength: float = 4.0,
    seed: int = 0,
    shuffled: bool = False,
) -> Path:
    """Features of `patients` times `slides` slides in CLAM's layout, with slides.csv: every other patient is positive.

    All numbers are standard normal; in a positive slide the share of tiles has `strength` added to the first two. What
    single tiles look like besides differs by slide, as stain does. `shuffled` deals the patients' labels anew.
    """
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    dealt = random.permutation(patients) % 2 if shuffled else np.arange(patients) % 2
    rows = []
    for patient in range(patients):
        for slide in range(slides):
            count = tiles + int(random.integers(0, tiles // 4 + 1))
            features = random.normal(size=(count, width)) + 0.3 * random.normal(size=width)
            if patient % 2:
                chosen = random.choice(count, max(1, round(share * count)), replace=False)
                features[chosen, :2] += strength
            name = f"p{patient:02d}-{slide}"
            with h5py.File(folder / f"{name}.h5", "w") as file:
                file["features"] = features.astype(np.float32)
                across = int(np.ceil(np.sqrt(count)))
                place = np.arange(count)
                file["coords"] = np.stack([place % across, place // across], 1) * 256
                file["coords"].attrs.update({"patch_size": 256, "patch_level": 0})
            label = "tumour" if dealt[patient] else "normal"
            rows.append({"slide": f"{name}.svs", "label": label, "patient": f"p{patient:02d}"})
    pd.DataFrame(rows).to_csv(folder / "slides.csv", index=False)
    return folder
