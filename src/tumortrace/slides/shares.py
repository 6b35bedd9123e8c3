"""A large slide divided among workers: each keeps what the model says of its share, and the scan gathers it.

Shares are whole batches of the scan of one process, so that the bytes are those of one process. They are divided before
the slides are scanned: what is kept is taken up by the scan as what an interrupted one has left.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tumortrace.records.journal import Journal
from tumortrace.slides.assess import tiles_of
from tumortrace.work.hands import Hands

LARGE = 128 << 20
"""Bytes of a slide's file from which on it is divided, into shares of no less than half of that."""

_PLACES = 64  # that a cluster is taken to have

Share = tuple[int, int]
"""Which of how many, from 0."""


class ShareKept(Exception):
    """A share of a slide has been kept; the scan ends with it."""


def shares_of(files: Sequence[Path], hands: Hands) -> list[tuple[int, Share]]:
    """The shares into which slides are divided, each with the number of its slide; none where there are many slides.

    Args:
        files: Of the slides.
        hands: Who scans.

    Example:
        >>> shares_of([Path("not there")], Hands(workers=2))
        []
    """
    places = hands.workers if hands.cluster is None else _PLACES
    if not hands.elsewhere or len(files) >= 2 * places:
        return []
    sizes = [file.stat().st_size if file.is_file() else 0 for file in files]
    numbers = [min(ceil(2 * places / len(files)), 2 * size // LARGE) for size in sizes]
    return [
        (slide, (number, of))
        for slide, (of, size) in enumerate(zip(numbers, sizes, strict=True))
        for number in range(of)
        if size >= LARGE
    ]


def kept(folder: Path) -> list[Path]:
    """Files of the shares that are kept in the folder of a scan."""
    return sorted(folder.glob("unfinished-*.jsonl"))


def journal_of(folder: Path, bounds: tuple[int, int], request: object) -> Journal[Any]:
    """What is kept of a share, in the folder of its scan."""
    first, stop = bounds
    return Journal(folder / f"unfinished-{first:09}-{stop:09}.jsonl", request)


def bounds(tiles: pd.DataFrame, batch_size: int, share: Share) -> tuple[int, int]:
    """Number of the first tile of a share, and of the one behind the last.

    Args:
        tiles: Of the slide, in the order in which they are computed; with `block` where they are computed by block.
        batch_size: Tiles of a batch, where they are not.
        share: Which.

    Example:
        >>> [bounds(pd.DataFrame({"x": range(10)}), 4, (number, 2)) for number in range(2)]
        [(0, 8), (8, 10)]
    """
    number, of = share
    starts = np.arange(0, len(tiles), batch_size)
    if "block" in tiles:
        starts = np.flatnonzero(tiles["block"].diff().ne(0))
    edges = [*starts, len(tiles)]
    return tuple(int(edges[round(len(starts) * place / of)]) for place in (number, number + 1))  # type: ignore[return-value]


def gather(folder: Path, request: object, journal: Journal[Any]) -> None:
    """Let the journal of a scan hold what shares of the same request hold, as far as it goes on from what it has."""
    done = sum(map(tiles_of, journal.entries))
    for file in kept(folder):
        for entry in Journal[Any](file, request).entries:
            if entry["first"] == done:
                journal.append(entry)
                done += tiles_of(entry)
