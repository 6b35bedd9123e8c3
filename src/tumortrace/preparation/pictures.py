"""Prepared pictures of some images, made and written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tumortrace.cohorts.images import fit, read_image
from tumortrace.errors import ImageError
from tumortrace.imaging.preprocessing import Preprocessing


def prepare_piece(
    paths: list[str], targets: list[Path], size: tuple[int, int], steps: Preprocessing, device: str = "cpu"
) -> list[dict[str, Any]]:
    """Prepare some images and write them; what became of each, in their order.

    Args:
        paths: The images.
        targets: PNG files to write.
        size: Height and width in pixels to which odd-sized images are resized first.
        steps: What to do to them.
        device: Where a generator computes.

    Returns:
        Per image {"unchanged": bool, "resized": bool}, or {"failed": reason}.
    """
    outcomes: list[dict[str, Any]] = []
    images = []
    for path in paths:
        try:
            image = read_image(path)
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
    parts += [f"resized to {steps.size} px ({steps.filter})"] if steps.size else []
    return ", ".join(parts) or "nothing changed"


def record_of(steps: Preprocessing) -> dict[str, Any]:
    """The steps for the record: a generator's file by its name and SHA-256, not by where it lies on this machine."""
    record = steps.model_dump(mode="json", exclude={"normalisation"})
    if steps.super_resolution is not None and steps.super_resolution.weights:
        description = steps.super_resolution.describe()
        record["super_resolution"] |= {"weights": description["file"], "sha256": description["sha256"]}
    return record
