"""What a model says of each tile of a slide, kept batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tumortrace.errors import ModelError
from tumortrace.records.journal import Journal
from tumortrace.records.progress import progress_bar
from tumortrace.slides.slide import Slide
from tumortrace.slides.tiling import read_tiles

if TYPE_CHECKING:
    from tumortrace.models.bundle import Model

Progress = Callable[[int, int], None]


def assess(
    model: Model,
    slide: Slide,
    tiles: pd.DataFrame,
    level: int,
    batch_size: int,
    journal: Journal[Any],
    started: float,
    progress: Progress | None,
) -> tuple[pd.DataFrame, float]:
    """The tiles with what the model says of each; batches that the journal holds already are not read again.

    Args:
        model: That is asked.
        slide: Where the tiles lie.
        tiles: From `tile_tissue`.
        level: From which they are read.
        batch_size: Tiles per call of the model.
        journal: Of the scan: `rows` of each batch, and the `seconds` that it took.
        started: When this sitting began, on the monotonic clock.
        progress: Called with the tiles done and all tiles.

    Returns:
        The tiles, and the seconds of earlier sittings.
    """
    height, width = model.info.patch_size
    parts = [pd.DataFrame(entry["rows"]) for entry in journal.entries]
    before = float(sum(entry["seconds"] for entry in journal.entries))
    done, total = sum(map(len, parts)), len(tiles)
    images = read_tiles(slide, tiles.iloc[done:], (width, height), ahead=2 * batch_size, level=level)
    with closing(images), progress_bar() as bar:
        task = bar.add_task(f"scanning {slide.name}", total=total, completed=done)
        if progress is not None:
            progress(done, total)
        while batch := list(islice(images, batch_size)):
            rows = _rows(model, np.stack(batch))
            now = time.monotonic()
            journal.append({"seconds": round(now - started, 3), "rows": rows.to_dict("list")})
            started = now
            parts.append(rows)
            done += len(rows)
            bar.update(task, completed=done)
            if progress is not None:
                progress(done, total)
    said = pd.concat(parts, ignore_index=True) if total else _NOTHING
    return pd.concat([tiles, said], axis=1), before


_NOTHING = pd.DataFrame(
    {"probability": np.empty(0), "prediction": np.empty(0, np.int64), "decision": np.empty(0, object)}
)


def _rows(model: Model, images: np.ndarray) -> pd.DataFrame:
    """What the model says of each image of a batch: columns of tiles.csv."""
    said = model.assess(images)
    probability = np.asarray(said.probability, dtype=np.float64)
    if probability.shape != (len(images),) or not ((probability >= 0) & (probability <= 1)).all():
        raise ModelError(
            "the model returned something other than one probability per tile",
            where=model.info.name,
            remedy="evaluate the model on patches first; its weights may be damaged",
        )
    rows = pd.DataFrame({"probability": probability, "prediction": said.prediction, "decision": said.decision})
    if said.ood_score is not None and said.in_distribution is not None:
        rows["ood_score"], rows["in_distribution"] = said.ood_score, said.in_distribution
    return rows
