"""Features of a slide's tiles in one HDF5 file, as TumorTrace, CLAM, TRIDENT and STAMP write them.

CLAM (github.com/mahmoodlab/CLAM) and TRIDENT (github.com/mahmoodlab/TRIDENT): `features` (N, D) and `coords` (N, 2), px
of full resolution, with attributes `patch_size`, `patch_level`, and in TRIDENT `patch_size_level0`. STAMP
(github.com/KatherLab/STAMP): `feats` (N, D) and `coords` (N, 2) in um, with `tile_size_um`, `tile_size_px`, `unit` and
`extractor` among the file's attributes. Ours have what each of them reads, and besides what the body was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tumortrace.errors import CohortError
from tumortrace.records.hdf5 import replacing_hdf5

if TYPE_CHECKING:
    import h5py

FEATURES = ("features", "feats", "patch_embeddings")
SPREAD = 256  # tiles of a slide by which its file is known again
STAMP = "2.1.0"  # the first version with tile_size_um; a reader refuses files of versions beyond its own
_PIECE = 4096  # tiles written at a time
Unit = Literal["px", "um"]
Layout = Literal["plain", "clam", "stamp"]


@dataclass(frozen=True)
class FeatureFile:
    """What one file says of its slide.

    Attributes:
        file: The file.
        name: Of the dataset.
        tiles, width: Tiles N, and numbers D of each.
        unit: Of places: px of full resolution, or um.
        side: Of a tile, in that unit; None where the file does not say.
        body: What made the features; blank where the file does not say.
        weights: SHA-256 of its weights, or blank.
        resolution: Um per px of the tiles as the body saw them, or None.
        about: What `embed-slides` wrote of it, empty in others' files.
    """

    file: Path
    name: str
    tiles: int
    width: int
    unit: Unit
    side: float | None
    body: str
    weights: str
    resolution: float | None
    about: Mapping[str, Any]

    @classmethod
    def read(cls, file: Path) -> FeatureFile:
        """What a file says, without its features.

        Raises:
            CohortError: It is damaged, or holds no features of tiles.
        """
        try:
            with _reading(file) as opened:
                return _read(file, opened)
        except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise CohortError(
                f"not a file of features ({error})",
                where=file,
                expected="HDF5 with features (tiles, numbers) and coords (tiles, 2)",
                remedy="make it anew with `tumortrace embed-slides`",
            ) from None

    def features(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Features, float32, (N, D), or of some of the rows, ascending.

        Raises:
            CohortError: The file is damaged, or some are no numbers.
        """
        try:
            with _reading(self.file) as opened:
                data = opened[self.name]
                data = data[0] if data.ndim == 3 else data
                values = np.asarray(data[:] if rows is None else data[rows], np.float32)
        except OSError as error:
            raise CohortError(f"cannot be read ({error})", where=self.file, remedy="make it anew") from None
        if not np.isfinite(values).all():
            raise CohortError("features that are no finite numbers", where=self.file, remedy="make it anew")
        return values

    def places(self) -> np.ndarray:
        """Corners of the tiles, float64, (N, 2), in `unit`."""
        with _reading(self.file) as opened:
            return np.asarray(opened["coords"], np.float64).reshape(-1, 2)

    def thumbnail(self) -> np.ndarray | None:
        """The slide's picture, uint8 (h, w, 3), where the file has one."""
        with _reading(self.file) as opened:
            return np.asarray(opened["thumbnail"]) if "thumbnail" in opened else None


def holds_features(file: Path) -> bool:
    """Whether an HDF5 file has features and places of a slide's tiles; what `embed` writes of many images has ids."""
    try:
        with _reading(file) as opened:
            return "coords" in opened and "id" not in opened and any(name in opened for name in FEATURES)
    except OSError:
        return False


def _reading(file: Path) -> h5py.File:
    import h5py  # here, as whoever has images does without

    return h5py.File(file, "r")


def _read(file: Path, opened: h5py.File) -> FeatureFile:
    name = next((name for name in FEATURES if name in opened), None)
    if name is None:
        raise KeyError(f"none of {', '.join(FEATURES)}")
    shape, count = opened[name].shape, len(opened["coords"])
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 2 or shape[0] != count or not shape[1]:
        raise ValueError(f"{name} of shape {opened[name].shape} and {count:,} coords")
    stated, beside = dict(opened.attrs), dict(opened["coords"].attrs)
    about = json.loads(stated["tumortrace"]) if "tumortrace" in stated else {}
    um = _number(stated.get("tile_size_um")) or (
        _number(stated.get("tile_size")) if stated.get("unit") == "um" else None
    )
    unit: Unit = "um" if um else "px"
    side = um or _number(beside.get("patch_size_level0")) or _times(beside)
    pixels = _number(stated.get("tile_size_px"))
    resolution = about.get("resolution") or (um / pixels if um and pixels else None)
    body = about.get("body") or _text(stated.get("extractor", stated.get("encoder", "")))
    return FeatureFile(file, name, count, shape[1], unit, side, body, about.get("weights", ""), resolution, about)


def _times(attributes: Mapping[str, Any]) -> float | None:
    """CLAM's side of a patch in px of full resolution."""
    size, down = (_number(attributes.get(name)) for name in ("patch_size", "downsample"))
    return None if size is None else size * (down or (1 if _number(attributes.get("patch_level")) == 0 else 0)) or None


def _number(value: Any) -> float | None:
    """The first number of an attribute."""
    try:
        number = float(np.asarray(value).reshape(-1)[0])
    except (TypeError, ValueError, IndexError):
        return None
    return number if np.isfinite(number) else None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@dataclass(frozen=True)
class Written:
    """What a file of features is written from.

    Attributes:
        features: (N, D), float32 or float16; may be memory-mapped.
        places: Corners in px of full resolution, int, (N, 2).
        side: Of a tile, in px of full resolution.
        pixels: Side of a tile in px as the body was shown it.
        um: Um per px at full resolution.
        thumbnail: The slide's picture, uint8 (h, w, 3).
        about: What is told of it: `body`, `weights`, `resolution` (um per px of the tiles), and whatever else.
    """

    features: np.ndarray
    places: np.ndarray
    side: int
    pixels: int
    um: float
    thumbnail: np.ndarray
    about: Mapping[str, Any]

    def write(self, file: Path, layout: Layout) -> None:
        """Write it, whole or not at all; the same content gives the same bytes."""
        with replacing_hdf5(file) as target:
            target.attrs["tumortrace"] = json.dumps(self.about, sort_keys=True)
            target.attrs["extractor"] = self.about["body"]
            if layout == "stamp":
                coords = target.create_dataset("coords", data=(self.places * self.um).astype(np.float32))
                target.attrs.update(
                    {
                        "stamp_version": STAMP,
                        "unit": "um",
                        "tile_size_um": self.side * self.um,
                        "tile_size_px": self.pixels,
                        "feat_type": "tile",
                    }
                )
            else:
                coords = target.create_dataset("coords", data=self.places.astype(np.int64))
                coords.attrs.update({"patch_size": self.side, "patch_level": 0, "downsample": np.ones(2)})
                coords.attrs["patch_size_level0"] = self.side
            stored = target.create_dataset(
                "feats" if layout == "stamp" else "features", self.features.shape, self.features.dtype
            )
            for start in range(0, len(self.features), _PIECE):
                stored[start : start + _PIECE] = self.features[start : start + _PIECE]
            target.create_dataset("thumbnail", data=self.thumbnail, compression="gzip")
