"""What a frozen body's features tell of the hospital, measured on the images that fit and choose a probe's head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tumortrace.evaluation.centres import neighbourhoods, robustness, usual_neighbours
from tumortrace.records.centres import CentreRecord
from tumortrace.records.progress import say
from tumortrace.records.tables import CENTRES
from tumortrace.training.task import Patches

MOST = 5000  # images, as many of each class of each centre as there are up to that


def tell_centres(splits: Sequence[Patches], folder: Path) -> None:
    """Write `centres.csv` and `centres.json`, where several centres are known; nothing is fitted or chosen by it.

    Args:
        splits: Features of images, with their centres.
        folder: Of the run.
    """
    column = splits[0].centres
    if column is None:
        return
    table = pd.concat([_told(patches, number) for number, patches in enumerate(splits)], ignore_index=True)
    known = table[table["centre"].notna()]
    if known["centre"].nunique() < 2:
        return
    chosen = _evenly(known)
    rows = [chosen.loc[chosen["part"] == number, "row"].to_numpy() for number in range(len(splits))]
    features = np.concatenate([patches.images[row] for patches, row in zip(splits, rows, strict=True)])
    near = neighbourhoods(features, *(chosen[name].to_numpy() for name in ("kind", "centre", "group")))
    measured = robustness(near, str(column.name), usual_neighbours(near))
    measured.notes = list(_notes(table, known, chosen, measured))
    CENTRES.write(folder, near.assign(id=chosen["id"].to_numpy()).sort_values("id"))
    measured.write(folder)
    index, margin = measured.index.value, measured.margin.value
    if index is not None and margin is not None:
        say(f"features across {len(measured.centres)} centres: robustness index {index:.3f}, margin {margin:+.3f}")


def _told(patches: Patches, number: int) -> pd.DataFrame:
    """A row for each image: `id`, `kind`, `centre`, `group` (its own where not known), and where its features are."""
    assert patches.centres is not None
    assert patches.ids is not None
    groups = patches.ids if patches.groups is None else patches.groups
    told = {"id": patches.ids, "kind": patches.kinds, "centre": patches.centres.to_numpy(dtype=object), "group": groups}
    return pd.DataFrame({**told, "part": number, "row": patches.rows, "grouped": patches.groups is not None})


def _evenly(table: pd.DataFrame) -> pd.DataFrame:
    """At most `MOST` rows, in their order: those of the smaller classes and centres first; the same for each seed."""
    shuffled = table.sort_values("id").sample(frac=1, random_state=0)
    turn = shuffled.groupby(["kind", "centre"]).cumcount()
    return table.loc[turn.sort_values(kind="stable").index[:MOST].sort_values()]


def _notes(table: pd.DataFrame, known: pd.DataFrame, chosen: pd.DataFrame, measured: CentreRecord) -> Iterator[str]:
    if missing := len(table) - len(known):
        yield f"{missing:,} images without a value of {measured.column} are left out"
    if len(chosen) < len(known):
        yield f"measured on {len(chosen):,} of {len(known):,} images, as many of each class of each centre as there are"
    if not table["grouped"].all():
        yield "slides or patients are not known: an image's neighbours may be of its own, which flatters the features"
    if measured.chance is None:
        yield "every centre has one class, and no other centre has it: tissue and hospital cannot be told apart"
    elif measured.index.value is None:
        yield "the nearest images share both class and centre, or neither: the index says nothing, the margin does"
