"""What the pages show: pixels as PNG, heat over patches, and examples to try."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from fastapi import Response
from PIL import Image

from tumortrace.cohorts.synthetic.patches import draw_patch, slide_stain
from tumortrace.cohorts.synthetic.tissue import SCANNERS
from tumortrace.inference.explain import heat_map
from tumortrace.models.bundle import Model
from tumortrace.records.evaluation import ExamplesRecord
from tumortrace.reports.examples import KEPT, OUTCOMES
from tumortrace.reports.explanation import heat_layer


class Png(Response):
    """An answer that is a PNG."""

    media_type = "image/png"


def as_png(pixels: np.ndarray) -> bytes:
    """A PNG, without metadata, of pixels: uint8, shape (H, W, 3) or, with transparency, (H, W, 4).

    Example:
        >>> as_png(np.zeros((2, 3, 3), np.uint8))[:8]
        b'\\x89PNG\\r\\n\\x1a\\n'
    """
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def heat_png(model: Model, image: np.ndarray, method: str, *, over_patch: bool) -> bytes:
    """The heat of a patch: over the patch, or by itself and transparent where there is none.

    Args:
        model: To be explained.
        image: uint8, shape (*patch_size, 3).
        method: A name in `METHODS`.
        over_patch: Whether to lay it over the patch.

    Raises:
        ModelError: There is no such method, or the model does not fit it.
    """
    layer = heat_layer(heat_map(model, image, method))
    if not over_patch:
        return as_png(layer)
    alone, below = Image.fromarray(layer), Image.fromarray(image).convert("RGBA")
    return as_png(np.asarray(Image.alpha_composite(below, alone).convert("RGB")))


def seen_png(model: Model, image: np.ndarray) -> bytes:
    """What the network takes in of a patch: cropped, stain-normalised, enlarged, resized, but not yet normalised.

    Args:
        model: Whose preprocessing is shown.
        image: uint8, shape (*patch_size, 3).
    """
    steps = model.info.preprocessing
    prepared = torch.from_numpy(np.ascontiguousarray(steps.prepare(image[None]))).permute(0, 3, 1, 2)
    pixels = steps.pixels(prepared)[0].permute(1, 2, 0)
    return as_png((pixels * 255).round().clamp(0, 255).to(torch.uint8).numpy())


GENERATED = 6
_ORDER = ("true_positive", "false_negative", "true_negative", "false_positive")


@dataclass(frozen=True)
class Example:
    """One picture to try.

    Attributes:
        name: Under which it is asked for.
        source: `test split` of the run, `evaluation NAME` of it, or `generated`.
        truth: 0 or 1, its label in the data; None for a generated one, which has none.
        called: 0 or 1, what the model called it when the run was made; None likewise.
        file: Where it lies; None for a generated one.
    """

    name: str
    source: str
    truth: int | None = None
    called: int | None = None
    file: Path | None = None


def examples(folder: Path) -> list[Example]:
    """What can be tried with a model: of its run's test split, else of its latest evaluation, else generated patches.

    Images that trained the model, or chose anything of it, are never among them.

    Args:
        folder: The run folder, or the bundle where there is no run around it.
    """
    evaluations = [path for path in folder.glob("evaluations/*") if ExamplesRecord.exists(path)]
    evaluations.sort(key=lambda path: ExamplesRecord.file(path).stat().st_mtime, reverse=True)
    kept = _kept(folder, "test split")
    for evaluation in evaluations:
        kept = kept or _kept(evaluation, f"evaluation {evaluation.name}")
    return kept or [Example(f"generated-{number}.png", "generated") for number in range(1, GENERATED + 1)]


def png(example: Example) -> bytes:
    """The picture, every pixel as the model takes it.

    Raises:
        FileNotFoundError: It is gone.
    """
    return example.file.read_bytes() if example.file else _generated(int(example.name.split("-")[1].split(".")[0]))


def _kept(folder: Path, source: str) -> list[Example]:
    """The pictures that a record of examples names; none where it is damaged or of another split."""
    record, home = ExamplesRecord.recognise(folder), ExamplesRecord.file(folder).parent
    if record is None or record.split != "test":
        return []
    kept = {shown.picture for outcome in record.outcomes.values() for shown in outcome.shown}
    names = [(outcome, f"{outcome}-{number}.png") for outcome in _ORDER for number in range(1, KEPT + 1)]
    there = [(outcome, name) for outcome, name in names if name in kept and (home / name).is_file()]
    return [Example(name, source, *OUTCOMES[outcome], home / name) for outcome, name in there]


@cache
def _generated(number: int) -> bytes:
    """Half of them hold tumour in their centre; from several slides and scanners."""
    stain = slide_stain(f"example-{number}", SCANNERS[number % len(SCANNERS)])
    return as_png(draw_patch(number, 77, number % 2 == 1, stain)[0])
