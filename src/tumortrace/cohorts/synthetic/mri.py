"""Synthetic breast MRI after contrast: slices with a smooth benign or an irregular malignant lesion."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from tumortrace.cohorts.synthetic.folder import record, write_cohort, write_png
from tumortrace.cohorts.synthetic.shapes import draw_outline, fill
from tumortrace.cohorts.synthetic.tissue import smooth_noise

SIZE = 224
CLASSES = ("benign", "malignant")
PER_PATIENT = 4
_SHAPE = (SIZE, SIZE)

Picture = NDArray[np.float32]


def write_slices(out: Path, count: int, seed: int, workers: int) -> None:
    """Write slices, `cohort.csv` and `cohort.json` to the folder `out`."""
    plan = plan_slices(count, seed)
    folders = ("Benign", "Malignant")
    table = pd.DataFrame(
        {
            "id": plan["id"],
            "path": [f"{folders[label]}/{name}.png" for name, label in zip(plan["id"], plan["label"], strict=True)],
            "label": plan["label"],
            "group": plan["group"],
            "split": None,
        }
    )
    tasks = [
        partial(_write_slice, out / path, index, seed, bool(label))
        for index, (path, label) in enumerate(zip(table["path"], table["label"], strict=True))
    ]
    write_cohort(out, record("mri", CLASSES, None, count, seed), table, folders, tasks, workers)


def _write_slice(path: Path, index: int, seed: int, malignant: bool) -> None:
    write_png(path, draw_slice(index, seed, malignant))


def plan_slices(count: int, seed: int) -> pd.DataFrame:
    """Which slice shows which patient, and the patient's label.

    Returns:
        Columns `id`, `label` (1 malignant; half of the patients) and `group` (the patient), one row per slice.

    Example:
        >>> table = plan_slices(16, seed=0)
        >>> table["group"].nunique(), int(table["label"].sum())
        (4, 8)
    """
    patients = -(-count // PER_PATIENT)
    malignant = np.random.default_rng([seed, 4]).permutation(np.arange(patients) % 2)
    numbers = np.arange(count)
    return pd.DataFrame(
        {
            "id": [f"synthetic-{seed}-{i:06d}" for i in numbers],
            "label": malignant[numbers // PER_PATIENT],
            "group": [f"patient-{seed}-{i // PER_PATIENT:05d}" for i in numbers],
        }
    )


def draw_slice(index: int, seed: int, malignant: bool) -> NDArray[np.uint8]:
    """One slice; the same for the same arguments.

    Args:
        index: Number of the slice; the patient is `index // 4`.
        seed: Seed of the cohort.
        malignant: Whether the patient's lesion is malignant.

    Returns:
        uint8 (224, 224), grey.

    Example:
        >>> draw_slice(0, seed=0, malignant=True).shape
        (224, 224)
    """
    patient, level = divmod(index, PER_PATIENT)
    body = np.random.default_rng([seed, 3, patient])  # what the slices of one patient share
    own = np.random.default_rng([seed, 0, index])
    breast, depth = _breast(body)
    dense = ndimage.gaussian_filter(
        (smooth_noise(body, _SHAPE, 22) + 0.5 * smooth_noise(own, _SHAPE, 9) > body.uniform(-0.3, 1.0)),
        1.5,
        output=np.float32,
    )
    enhancement = body.uniform(0.1, 0.35)
    picture = breast * (0.2 + 0.05 * smooth_noise(own, _SHAPE, 5) + enhancement * dense * np.clip(depth / 25, 0, 1))
    picture += _vessels(own) * breast * body.uniform(0.2, 0.5)
    picture = np.maximum(picture, _lesion(body, own, level, malignant, depth))
    picture *= 1 + 0.2 * smooth_noise(body, _SHAPE, 110)  # uneven coil sensitivity
    picture = ndimage.gaussian_filter(picture, body.uniform(0.5, 0.9)) * body.uniform(0.85, 1.15)
    real, imaginary = own.normal(0, 0.03, (2, *_SHAPE))  # Rician noise of a magnitude image
    return (np.clip(np.hypot(picture + real, imaginary), 0, 1) * 255).astype(np.uint8)


def _breast(rng: np.random.Generator) -> tuple[Picture, Picture]:
    """One breast that hangs from the chest wall at the top: mask with skin, and depth below the skin in pixels."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    wall = rng.uniform(25, 45)
    middle, width, length = SIZE / 2 + rng.uniform(-10, 10), rng.uniform(78, 100), rng.uniform(120, 165)
    power = rng.uniform(1.8, 2.4)
    inside = (np.abs(x - middle) / width) ** power + (np.maximum(y - wall, 0) / length) ** power < 1
    inside &= y > wall - 18
    depth = ndimage.distance_transform_edt(inside).astype(np.float32)
    skin = np.exp(-(((depth - 2) / 1.5) ** 2)) * 1.2
    muscle = 0.9 * (y < wall)
    return (inside * (1 + skin + muscle)).astype(np.float32), depth


def _vessels(rng: np.random.Generator) -> Picture:
    """Bright thin lines and dots: where level lines of smooth noise run."""
    course = np.exp(-((smooth_noise(rng, _SHAPE, 55) / 0.03) ** 2))
    return (course * (smooth_noise(rng, _SHAPE, 30) > 0.4)).astype(np.float32)


def _lesion(
    body: np.random.Generator, own: np.random.Generator, level: int, malignant: bool, depth: Picture
) -> Picture:
    """An enhancing lesion cut at one of four levels.

    Malignant ones tend to an uneven outline with spicules, a bright rim and a dark core; benign ones to a smooth oval
    of even brightness. The ranges overlap, as they do in patients.
    """
    radius = body.uniform(8, 18) * np.sqrt(1 - ((level - 1.5) / 2.6) ** 2)
    candidates = np.argwhere(depth > 28)
    row, column = candidates[body.integers(len(candidates))] + own.uniform(-2, 2, 2)
    irregular = body.beta(3, 2) if malignant else body.beta(1.5, 4)
    outline = draw_outline(body, (row, column), radius, roughness=0.08 + 0.5 * irregular)
    mask = fill([outline], _SHAPE)
    for theta in body.uniform(0, 2 * np.pi, int(14 * irregular)):
        reach = radius * own.uniform(1.2, 1.9)
        steps = np.arange(0, reach, 0.5)
        mask[(row + steps * np.sin(theta)).astype(int) % SIZE, (column + steps * np.cos(theta)).astype(int) % SIZE] = (
            True
        )
    within = ndimage.distance_transform_edt(mask)
    rim = (0.5 * body.beta(3, 2)) if malignant else (0.5 * body.beta(1.5, 4))
    brightness = body.uniform(0.55, 0.85) * (1 - rim * np.clip((within - 3) / 5, 0, 1))
    brightness = brightness * (1 + 0.25 * irregular * smooth_noise(own, _SHAPE, 5))
    return (ndimage.gaussian_filter(mask.astype(np.float32), 0.8) * brightness).astype(np.float32)
