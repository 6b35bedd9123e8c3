"""Prepared pictures: made, written, and shown before and after."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from tumortrace.errors import ImageError
from tumortrace.images.decoding import fit, read_image
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.records.files import replacing
from tumortrace.records.provenance import RESEARCH_USE
from tumortrace.records.record import Open
from tumortrace.reports.drawing import INK, MUTED, POSITIVE, STYLE


class Outcome(TypedDict, total=False):
    """What became of one image; `failed` says why it could not be read, and then stands alone."""

    unchanged: bool
    resized: bool
    failed: str


def prepare_piece(
    paths: list[str],
    targets: list[Path],
    size: tuple[int, int],
    steps: Preprocessing,
    device: str = "cpu",
    bits: int | None = None,
) -> list[Outcome]:
    """Prepare some images and write them; what became of each, in their order.

    Args:
        paths: The images.
        targets: PNG files to write.
        size: Height and width in pixels to which odd-sized images are resized first.
        steps: What to do to them.
        device: Where a generator computes.
        bits: As for `read_image`.

    Returns:
        One of each image.
    """
    outcomes: list[Outcome] = []
    images = []
    for path in paths:
        try:
            image = read_image(path, bits)
        except ImageError as error:
            outcomes.append({"failed": error.found})
            continue
        outcomes.append({"unchanged": False, "resized": image.shape[:2] != size})
        images.append(fit(image, size))
    if not images:
        return outcomes
    pictures, unchanged = make_pictures(np.stack(images), steps, device)
    sound = [(target, outcome) for target, outcome in zip(targets, outcomes, strict=True) if "failed" not in outcome]
    for (target, outcome), picture, same in zip(sound, pictures, unchanged, strict=True):
        outcome["unchanged"] = bool(same)
        part = target.with_suffix(".part")
        Image.fromarray(picture).save(part, "PNG", compress_level=1)
        os.replace(part, target)  # flushed all at once in the end; until then, each is checked to be whole
    return outcomes


def make_pictures(images: np.ndarray, steps: Preprocessing, device: str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """All steps but the normalisation of values, rounded to 8 bits.

    Args:
        images: uint8, shape (N, H, W, 3).
        steps: The steps.
        device: Where a generator computes.

    Returns:
        uint8, shape (N, *output_size, 3), and bool (N,): which images stain normalisation left as they were.
    """
    prepared, unchanged = steps.prepare_and_tell(images, device=device)
    if steps.output_size(images.shape[1:3]) == prepared.shape[1:3]:
        return prepared, unchanged
    pixels = steps.pixels(torch.from_numpy(np.ascontiguousarray(prepared)).permute(0, 3, 1, 2))
    return (pixels * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy(), unchanged


def describe(steps: Preprocessing) -> str:
    """The steps in words, in their order.

    Example:
        >>> describe(Preprocessing(crop=32, stain="macenko", size=224, filter="lanczos"))
        'centre 32 px, stain macenko, resized to 224 px (lanczos)'
    """
    parts = [f"centre {steps.crop} px"] if steps.crop else []
    parts += [f"stain {steps.stain}"] if steps.stain != "none" else []
    parts += [f"equalisation {steps.equalisation}"] if steps.equalisation != "none" else []
    if steps.super_resolution is not None:
        by = "a generator" if steps.super_resolution.weights else "Lanczos"
        parts.append(f"enlarged {steps.super_resolution.scale} times by {by}")
    parts += [f"resized to {steps.frame or steps.size} px ({steps.filter})"] if steps.size else []
    parts += [f"centre {steps.size} px of these"] if steps.frame else []
    return ", ".join(parts) or "nothing changed"


def record_of(steps: Preprocessing) -> Open:
    """The steps for the record: a generator's file by its name and SHA-256, not by where it lies on this machine."""
    record = steps.model_dump(mode="json", exclude={"normalisation"})
    if steps.super_resolution is not None and steps.super_resolution.weights:
        description = steps.super_resolution.describe()
        record["super_resolution"] |= {"weights": description["file"], "sha256": description["sha256"]}
    return record


# The picture to look at after preparing: images before and after.


def examples(labels: pd.Series, rows: Sequence[int], count: int) -> list[int]:
    """At most `count` of these rows, evenly spread and from each class in turn.

    Example:
        >>> examples(pd.Series([0, 0, 0, 1, 1, 1]), range(6), 4)
        [0, 3, 1, 4]
    """
    chosen = labels.iloc[list(rows)].reset_index(drop=True)
    row_numbers = np.asarray(rows)
    classes = [row_numbers[(chosen == value).fillna(False).to_numpy(bool)] for value in (0, 1)]
    classes = [members for members in (*classes, row_numbers[chosen.isna().to_numpy()]) if len(members)]
    share = -(-count // max(1, len(classes)))
    spread = [members[np.arange(min(share, len(members))) * len(members) // (share + 1)] for members in classes]
    turns = [int(members[turn]) for turn in range(share) for members in spread if turn < len(members)]
    return turns[:count]


def draw_before_after(
    target: Path, before: Sequence[np.ndarray], after: Sequence[np.ndarray], titles: Sequence[str], crop: int | None
) -> None:
    """Write a PNG with each image above what was made of it; the cropped square is outlined.

    Args:
        target: The file.
        before: uint8 (H, W, 3) each.
        after: uint8 (h, w, 3) each.
        titles: One per pair.
        crop: Side in pixels of the centre square that was kept, or None.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(max(5.4, 2.1 * len(before)), 5.2), layout="constrained")
        axes = figure.subplots(2, len(before), squeeze=False)
        for column, pictures in enumerate(zip(before, after, strict=True)):
            for pair, picture in zip(axes[:, column], pictures, strict=True):
                pair.imshow(picture, interpolation="nearest")
                pair.set(xticks=[], yticks=[])
                pair.grid(False)
                pair.spines[:].set_visible(False)
                pair.set_xlabel(f"{picture.shape[1]} × {picture.shape[0]} px", fontsize=9, color=MUTED)
            axes[0, column].set_title(titles[column], fontsize=9, loc="center", fontweight="normal")
            height, width = before[column].shape[:2]
            if crop is not None and crop < max(height, width):
                side = min(crop, width), min(crop, height)
                corner = (width - side[0]) // 2 - 0.5, (height - side[1]) // 2 - 0.5
                axes[0, column].add_patch(Rectangle(corner, *side, fill=False, edgecolor=POSITIVE, linewidth=1.5))
        for row, name in enumerate(("before", "after")):
            axes[row, 0].set_ylabel(name, color=INK)
        figure.supxlabel(RESEARCH_USE, fontsize=8, color=MUTED)
        with replacing(target) as temporary:
            figure.savefig(temporary, format="png", dpi=150)
