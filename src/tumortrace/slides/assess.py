"""What a model says of each tile of a slide, kept batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tumortrace.errors import ModelError
from tumortrace.evaluation.drift import sampled
from tumortrace.records.journal import Journal
from tumortrace.records.progress import progress_bar
from tumortrace.slides.focus import focus_of
from tumortrace.slides.slide import Slide
from tumortrace.slides.tiling import read_tiles

if TYPE_CHECKING:
    from tumortrace.models.bundle import Assessment, Model

Progress = Callable[[int, int], object]
Batches = Callable[[pd.DataFrame], "Generator[tuple[np.ndarray, Assessment], None, None]"]


def assess(
    model: Model,
    slide: Slide,
    tiles: pd.DataFrame,
    resolution: float,
    batches: Batches,
    journal: Journal[Any],
    started: float,
    progress: Progress | None,
) -> tuple[pd.DataFrame, np.ndarray, float]:
    """The tiles with their focus and what the model says of each; what the journal holds is not read again.

    Args:
        model: That is asked.
        slide: Where the tiles lie.
        tiles: From `tile_tissue`, in the order in which they are computed; they are returned in that of their index.
        resolution: Um per px of the tiles.
        batches: Computes those that are left: by tile, or by block (`slides.dense`).
        journal: Of the scan: `rows` of each batch, the `seconds` that it took, and `components` of those of its tiles
            by which the slide as a whole is judged (`evaluation.drift.sampled`).
        started: When this sitting began, on the monotonic clock.
        progress: Called with the tiles done and all tiles.

    Returns:
        The tiles, the components of those sampled, shape (n, K), and the seconds of earlier sittings.
    """
    before = float(sum(entry["seconds"] for entry in journal.entries))
    left = sum(map(tiles_of, journal.entries)), len(tiles)
    ask(model, slide, tiles, left, resolution, batches, journal, started, progress)
    parts = [pd.DataFrame(entry["rows"]) for entry in journal.entries]
    table = pd.concat(parts, ignore_index=True).astype({"sharpness": np.float64}) if parts else _NOTHING
    components = [row for entry in journal.entries for row in entry.get("components", [])]
    laid = pd.concat([tiles, table.set_index(tiles.index)], axis=1).sort_index()
    return laid, np.array(components, np.float32), before


def ask(
    model: Model,
    slide: Slide,
    tiles: pd.DataFrame,
    within: tuple[int, int],
    resolution: float,
    batches: Batches,
    journal: Journal[Any],
    started: float,
    progress: Progress | None,
    first: int = 0,
) -> None:
    """Let a journal hold what a model says of some tiles; arguments as for `assess`.

    Args:
        within: Number of the first of them, and of the one behind the last: whole batches.
        first: Number of the tile from which progress counts.
    """
    done, stop = within
    chosen = sampled(len(tiles))
    with closing(batches(tiles.iloc[done:stop])) as computed, progress_bar(progress is None) as bar:
        task = bar.add_task(f"scanning {slide.name}", total=stop - first, completed=done - first)
        if progress is not None:
            progress(done - first, stop - first)
        for pictures, said in computed:
            these = tiles.iloc[done : done + len(pictures)]
            focus = focus_of(pictures, these, (slide.width, slide.height), resolution)
            rows = pd.concat([focus, _rows(model, said, len(pictures))], axis=1)
            now = time.monotonic()
            entry = {
                "first": done,
                "seconds": round(now - started, 3),
                "rows": rows.astype(object).where(rows.notna(), None).to_dict("list"),
            }
            if said.components is not None:
                mine = chosen[(chosen >= done) & (chosen < done + len(rows))] - done
                entry["components"] = said.components[mine].astype(np.float64).round(3).tolist()
            journal.append(entry)
            started = now
            done += len(rows)
            bar.update(task, completed=done - first)
            if progress is not None:
                progress(done - first, stop - first)


def tiles_of(entry: Mapping[str, Any]) -> int:
    """Of how many tiles an entry of a scan's journal is."""
    return len(entry["rows"]["probability"])


def by_tile(
    model: Model, slide: Slide, level: int, batch_size: int, tiles: pd.DataFrame
) -> Generator[tuple[np.ndarray, Assessment], None, None]:
    """Yield the pictures of `batch_size` tiles at a time, and what the model says of them."""
    height, width = model.info.patch_size
    with closing(read_tiles(slide, tiles, (width, height), ahead=2 * batch_size, level=level)) as images:
        while batch := list(islice(images, batch_size)):
            pictures = np.stack(batch)
            yield pictures, model.assess(pictures)


_NOTHING = pd.DataFrame(
    {
        "sharpness": np.empty(0),
        "in_focus": np.empty(0, bool),
        "probability": np.empty(0),
        "prediction": np.empty(0, np.int64),
        "decision": np.empty(0, object),
    }
)


def _rows(model: Model, said: Assessment, images: int) -> pd.DataFrame:
    """What the model says of each image of a batch: columns of tiles.csv."""
    probability = np.asarray(said.probability, dtype=np.float64)
    if probability.shape != (images,) or not ((probability >= 0) & (probability <= 1)).all():
        raise ModelError(
            "the model returned something other than one probability per tile",
            where=model.info.name,
            remedy="evaluate the model on patches first; its weights may be damaged",
        )
    rows = pd.DataFrame({"probability": probability, "prediction": said.prediction, "decision": said.decision})
    if said.ood_score is not None and said.in_distribution is not None:
        rows["ood_score"], rows["in_distribution"] = said.ood_score, said.in_distribution
    return rows
