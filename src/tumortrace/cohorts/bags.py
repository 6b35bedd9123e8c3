"""Features of slides in place of a patch store: one bag of tiles a slide, read from its file as it is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from PIL import Image

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.feature_files import SPREAD, FeatureFile
from tumortrace.cohorts.looks import Look, as_table
from tumortrace.cohorts.store import PatchStore
from tumortrace.errors import CohortError, DataError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

KEPT_BYTES = 1 << 30  # of features that stay in memory
PICTURE = 192  # px of a slide's picture on sheets


class Bags:
    """What is known of the tiles of each slide: `bags[row]` is float32 (N, D), of each slide its own N.

    Attributes:
        files: Of each slide.
        shape: Slides, 1, D.
    """

    def __init__(self, files: Sequence[FeatureFile]) -> None:
        self.files = tuple(files)
        self.shape = (len(self.files), 1, self.files[0].width)
        self._kept: dict[int, np.ndarray] = {}
        self._room = KEPT_BYTES

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> np.ndarray:
        row = int(row)
        if row in self._kept:
            return self._kept[row]
        features = self.files[row].features()
        if features.nbytes <= self._room:
            self._room -= features.nbytes
            self._kept[row] = features
        return features

    def of(self, rows: np.ndarray) -> Bags:
        """Those of some slides."""
        return Bags([self.files[row] for row in rows])

    def padded(self, rows: np.ndarray, most: int | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Several bags as one tensor, float32 (n, K, D + 1): the last column is 1 for a tile and 0 for filling.

        Args:
            rows: Which slides.
            most: Of larger bags so many tiles are drawn; None takes all.
            generator: Of the draws.
        """
        import torch  # here, as images come by this module and may be predicted without

        parts = [torch.from_numpy(self[row]) for row in rows]
        if most is not None:
            parts = [_drawn(part, most, generator) for part in parts]
        result = torch.zeros(len(parts), max(map(len, parts)), self.shape[2] + 1)
        for place, part in enumerate(parts):
            result[place, : len(part), :-1] = part
            result[place, : len(part), -1] = 1
        return result

    def moments(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (D,) of all tiles of some slides, float32."""
        import torch

        count, total, squares = 0, np.zeros(self.shape[2]), np.zeros(self.shape[2])
        for row in rows:
            tiles = self[row].astype(np.float64)
            count, total, squares = count + len(tiles), total + tiles.sum(0), squares + (tiles**2).sum(0)
        mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
        return torch.from_numpy(mean).float(), torch.from_numpy(deviation).float()


def _drawn(tiles: Tensor, most: int, generator: torch.Generator | None) -> Tensor:
    import torch

    if len(tiles) <= most:
        return tiles
    device = "cpu" if generator is None else generator.device
    chosen, _ = torch.randperm(len(tiles), generator=generator, device=device)[:most].cpu().sort()
    return tiles[chosen]


def bags_of(images: object) -> Bags | None:
    """The bags that stand where images would, or None."""
    return images if isinstance(images, Bags) else None


class Pictures:
    """The slides' own pictures, uint8 (PICTURE, PICTURE, 3), or where their tiles lie; by row or rows."""

    def __init__(self, files: Sequence[FeatureFile]) -> None:
        self.files = tuple(files)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.stack([self[row] for row in rows]) if np.ndim(rows) else _picture(self.files[int(rows)])


@dataclass(frozen=True)
class Seen:
    """In place of `Looks`."""

    table: pd.DataFrame


class BagStore(PatchStore):
    """A patch store of bags: `images` are `Bags`, `size` is (1, D); a slide without tiles has failed."""

    @cached_property
    def pictures(self) -> np.ndarray:
        """What sheets show of each slide."""
        return cast(np.ndarray, Pictures(cast(Bags, self.images).files))

    @cached_property
    def digests(self) -> list[str]:
        """Digest of each slide's features, blank where it has no tile."""
        return ["" if pd.isna(digest) else str(digest) for digest in self.looks["digest"]]


def open_bags(cohort: Cohort, *, keep_failed: bool = False) -> BagStore:
    """The features of a cohort's slides.

    Args:
        cohort: Of layout `slide-features`.
        keep_failed: Leave slides without tiles in `failed`, instead of refusing the others with them.

    Raises:
        CohortError: A file is damaged, or is of another body than the others.
        DataError: Slides without tiles.

    Example:
        >>> import h5py, tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.h5"
        >>> with h5py.File(file, "w") as target:
        ...     target["features"], target["coords"] = np.ones((3, 5)), np.zeros((3, 2), int)
        >>> table = pd.DataFrame({"id": ["a"], "path": str(file), "label": 1, "group": None, "split": None})
        >>> store = open_bags(Cohort("mine", "slide-features", table))
        >>> store.images[0].shape, store.size, store.images.padded(np.array([0])).shape
        ((3, 5), (1, 5), torch.Size([1, 3, 6]))
    """
    files = [FeatureFile.read(Path(path)) for path in cohort.table["path"]]
    refuse_mixed(files)
    ids = tuple(cohort.table["id"])
    failed = {row: "no tile: the slide has no tissue" for row, file in enumerate(files) if not file.tiles}
    if failed and not (keep_failed and len(failed) < len(files)):
        first = ", ".join(ids[row] for row in list(failed)[:3]) + (", ..." if len(failed) > 3 else "")
        found = f"{len(failed)} of {len(files)} slides have no tile: {first}"
        raise DataError(found, where=cohort.name, remedy="leave them out, or give their tissue with --tissue-mask")
    looks = as_table([_look(file) for file in files])
    images = cast(np.ndarray, Bags(files))
    return BagStore(images, ids, (1, files[0].width), kept=cast(Any, Seen(looks)), failed=failed)


def refuse_mixed(files: Sequence[FeatureFile]) -> None:
    """Nothing, where all are features of one body.

    Raises:
        CohortError: They are not; a model of the ones says nothing of the others.
    """
    told = {(file.width, file.body, file.weights): file for file in reversed(files)}
    if len(told) > 1:
        ways = [
            f"{width} numbers of {body or 'a body not stated'} ({file.file.name})"
            for (width, body, _), file in told.items()
        ]
        raise CohortError(
            f"features of several bodies: {'; '.join(ways[:3])}",
            where=files[0].file.parent,
            expected="one body with one set of weights",
            remedy="make all with one `tumortrace embed-slides`, or name a folder of one body",
        )


def _look(file: FeatureFile) -> Look:
    """What audits ask of a picture: that of a slide without tiles is missing."""
    if not file.tiles:
        return Look(problem="unreadable", reason="no tile")
    rows = np.unique(np.linspace(0, file.tiles - 1, SPREAD).astype(int))
    digest = hashlib.sha256(repr((file.tiles, file.width)).encode() + file.features(rows).tobytes()).hexdigest()
    return Look(
        format="HDF5",
        kind="RGB",
        digest=digest[:32],
        two_valued=False,
        spread=100.0,
        colour=100.0,
        ink=0.0,
        black=0.0,
        resolution=file.resolution,
    )


def _picture(file: FeatureFile) -> np.ndarray:
    """The slide within a white square, or its tiles as grey cells."""
    shown = file.thumbnail()
    shown = tile_map(file, np.full(file.tiles, 150.0)) if shown is None else shown
    picture = Image.fromarray(shown)
    picture.thumbnail((PICTURE, PICTURE))
    square = Image.new("RGB", (PICTURE, PICTURE), "white")
    square.paste(picture, ((PICTURE - picture.width) // 2, (PICTURE - picture.height) // 2))
    return np.asarray(square)


def grid_of(file: FeatureFile) -> tuple[np.ndarray, float]:
    """Column and row of each tile, int (N, 2), on the grid of its side, and the side.

    Where the file does not state a side, it is the smallest step between two places.
    """
    places = file.places()
    side = file.side or min((_step(axis) for axis in places.T), default=1.0)
    return np.floor(places / side + 1e-6).astype(int), side


def tile_map(file: FeatureFile, grey: np.ndarray) -> np.ndarray:
    """Tiles by their places on white, uint8 (h, w, 3), a px each."""
    cells, _ = grid_of(file)
    cells = cells - cells.min(0)
    picture = np.full((*(cells.max(0)[::-1] + 1), 3), 255, np.uint8)
    picture[cells[:, 1], cells[:, 0]] = grey[:, None].astype(np.uint8)
    return picture


def _step(places: np.ndarray) -> float:
    steps = np.diff(np.unique(places))
    return float(steps.min()) if len(steps) else 1.0
