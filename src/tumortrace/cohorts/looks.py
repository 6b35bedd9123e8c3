"""What one decoding shows of each image: form, digest, spread, colour, sharpness, ink, and a small grey picture.

It is seen while the patch store decodes, or else when first asked for, and kept in the cache, so that audit, splits
and evaluation look at each picture once.
"""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from tumortrace.cohorts.cache import store_folder
from tumortrace.cohorts.cohort import Cohort
from tumortrace.errors import ImageError
from tumortrace.images.decoding import Facts, read_with_facts
from tumortrace.images.parts import content_of
from tumortrace.images.reference import ImageRef
from tumortrace.images.stain import find_ink
from tumortrace.records.files import replacing
from tumortrace.records.progress import track

SIDE = 32  # of the small picture
VERSION = 3  # raised whenever a look shows something else
NEARLY_BLANK = 4.0  # standard deviation of the liveliest channel, of 255; the faintest tissue of PCam has 9
_BATCH = 64  # images per task
_SMALL = 1 << 18  # bytes up to which images are looked at together
_MANY = 2000  # images from which on starting processes pays; threads wait for each other over small images
_ENDS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG": b"IEND\xaeB`\x82"}  # first and last bytes of JPEG and PNG


class Look(NamedTuple):
    """What is seen of one image.

    Attributes:
        problem: `missing`, `truncated` or `unreadable`; None for a sound image, and only then the rest is known.
        reason: Why it cannot be decoded.
        format, kind, orientation, frames, origin, quality, note, bits, resolution: As `images.Facts` has them.
        height, width: In pixels.
        digest: See `digest_of`.
        two_valued: Whether there are two grey values at most, as in a mask.
        spread: Standard deviation of the liveliest channel, of 255, over a thinned grid.
        colour: Mean difference between the channels of a pixel, of 255, over a thinned grid.
        sharpness: Detail of 1 px against that of 4 px, in octaves (see `sharpness`).
        ink: Share of the area that is green or blue as no stain of H&E is.
        black: Share of the area that is black.
    """

    problem: str | None = None
    reason: str | None = None
    format: str | None = None
    kind: str | None = None
    orientation: int | None = None
    frames: int | None = None
    origin: str | None = None
    quality: int | None = None
    note: str | None = None
    bits: int | None = None
    resolution: float | None = None
    height: int | None = None
    width: int | None = None
    digest: str | None = None
    two_valued: bool | None = None
    spread: float = np.nan
    colour: float = np.nan
    sharpness: float = np.nan
    ink: float = np.nan
    black: float = np.nan


_TYPES = {
    "string": "problem reason format kind origin note digest",
    "Int64": "orientation frames quality bits height width",
}
_DTYPES = (
    {name: dtype for dtype, names in _TYPES.items() for name in names.split()}
    | {"two_valued": "boolean"}
    | dict.fromkeys(("resolution", "spread", "colour", "sharpness", "ink", "black"), "float64")
)


def inspect(
    paths: Sequence[str], workers: int | None = None, bits: int | None = None
) -> tuple[pd.DataFrame, np.ndarray]:
    """What decoding shows of each image, in parallel and with a progress bar.

    Args:
        paths: Image files, or rows of HDF5 arrays.
        workers: Processes (threads, for few images); default one per core.
        bits: As for `images.decoding.read_image`.

    Returns:
        The fields of `Look` as columns, one row per path, and small grey pictures: uint8, shape (N, 32, 32), zero where
        there is none.

    Example:
        >>> import tempfile
        >>> file = tempfile.mkdtemp() + "/a.png"
        >>> Image.new("RGB", (8, 6), "white").save(file)
        >>> table, small = inspect([file, "none.png"])
        >>> table["problem"].tolist(), table["width"].tolist(), small.shape
        ([<NA>, 'missing'], [8, <NA>], (2, 32, 32))
    """
    from joblib import Parallel, delayed  # here, as a single image is opened without

    workers = workers or os.cpu_count() or 1
    batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
    backend = "loky" if len(paths) > _MANY and workers > 1 else "threading"
    parallel = Parallel(n_jobs=workers, backend=backend, return_as="generator", pre_dispatch="4*n_jobs")
    looks: list[Look] = []
    small = np.zeros((len(paths), SIDE, SIDE), np.uint8)
    done: Iterator[tuple[Look, np.ndarray | None]] = (
        each for batch in parallel(delayed(_look_all)(batch, bits) for batch in batches) for each in batch
    )
    for row, (look, picture) in enumerate(track(done, "opening files", total=len(paths))):
        looks.append(look)
        if picture is not None:
            small[row] = picture
    return as_table(looks), small


class Looks:
    """What decoding shows of each image of a cohort, in the order of its table, kept in the cache.

    What is missing there is looked at when first asked for. Files that cannot be decoded are looked at each time.

    Args:
        cohort: The images.
        cache: Folder to use instead of `cache_folder()`.
        workers: As for `inspect`.

    Attributes:
        table: The fields of `Look` as columns.
        small: Small grey pictures: uint8, shape (N, 32, 32), zero where there is none.

    Example:
        >>> import tempfile
        >>> file = tempfile.mkdtemp() + "/a.png"
        >>> Image.new("RGB", (8, 6), "white").save(file)
        >>> table = pd.DataFrame({"id": ["a"], "path": file, "label": 1, "group": None, "split": None})
        >>> looks = Looks(Cohort("mine", "table", table))
        >>> looks.table["height"].tolist(), looks.small.shape
        ([6], (1, 32, 32))
    """

    def __init__(self, cohort: Cohort, cache: Path | None = None, workers: int | None = None) -> None:
        self._paths = cohort.table["path"].tolist()
        self._folder = store_folder(cohort, cache) / f"looks-{VERSION}"
        self._workers, self._bits = workers, cohort.bits

    @property
    def table(self) -> pd.DataFrame:
        return self._all[0]

    @property
    def small(self) -> np.ndarray:
        return self._all[1]

    def known(self) -> np.ndarray:
        """Whether each image has been looked at, bool, told without reading what was seen."""
        known = np.zeros(len(self._paths), bool)
        for part in self._parts():
            first, last, number = map(int, part.stem.split("-"))
            known[first : last + 1] |= number == last + 1 - first
        return known

    def keep(self, rows: np.ndarray, looks: Sequence[Look] | pd.DataFrame, small: np.ndarray) -> None:
        """Keep what was seen of images that are sound.

        Args:
            rows: Which images, int, ascending.
            looks: What was seen.
            small: Their small grey pictures.
        """
        table = looks if isinstance(looks, pd.DataFrame) else as_table(looks)
        sound = table["problem"].isna().to_numpy()
        if sound.any():
            rows = np.asarray(rows)[sound]
            pictures = [picture.tobytes() for picture in small[sound]]
            with replacing(self._folder / f"{rows[0]:08d}-{rows[-1]:08d}-{len(rows)}.parquet") as temporary:
                table[sound].assign(row=rows, small=pictures).to_parquet(temporary)

    @cached_property
    def _all(self) -> tuple[pd.DataFrame, np.ndarray]:
        small = np.zeros((len(self._paths), SIDE, SIDE), np.uint8)
        parts = [part for file in self._parts() if (part := self._read(file)) is not None]
        tables = []
        if parts:
            kept = pd.concat(parts).drop_duplicates("row").set_index("row")
            small[kept.index] = np.frombuffer(b"".join(kept.pop("small")), np.uint8).reshape(-1, SIDE, SIDE)
            tables.append(kept)
        rows = np.setdiff1d(np.arange(len(self._paths)), kept.index if parts else [])
        if len(rows):
            seen, small[rows] = inspect([self._paths[row] for row in rows], self._workers, self._bits)
            with suppress(OSError):  # a cache that cannot be written keeps nothing
                self.keep(rows, seen, small[rows])
            tables.append(seen.set_index(rows))
        table = pd.concat(tables) if tables else as_table([])
        return table.sort_index().reset_index(drop=True).astype(_DTYPES), small

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob("[0-9]*.parquet"))

    def _read(self, part: Path) -> pd.DataFrame | None:
        try:
            return pd.read_parquet(part)[["row", "small", *Look._fields]]
        except (OSError, ValueError, KeyError):  # damaged, or of another version: it is looked at anew
            part.unlink(missing_ok=True)
            return None


def as_table(looks: Sequence[Look]) -> pd.DataFrame:
    """Looks as a table with the types that findings rely on."""
    return pd.DataFrame(list(looks), columns=list(Look._fields)).astype(_DTYPES)


def showing(looks: pd.DataFrame) -> pd.Series:
    """Whether a decoded image shows something, by its row of looks: it is neither blank nor a mask."""
    mask = looks["two_valued"].fillna(False).astype(bool)
    return looks["digest"].notna() & (looks["spread"] >= NEARLY_BLANK) & ~mask


def digest_of(image: np.ndarray) -> str:
    """What a picture is known again by: BLAKE2b of its pixels, 128 bits, hexadecimal.

    Args:
        image: uint8, shape (height, width, 3).

    Example:
        >>> black, grey = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 9, np.uint8)
        >>> digest_of(black) == digest_of(black.copy()), digest_of(black) == digest_of(grey)
        (True, False)
    """
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).hexdigest()


def look_at(image: np.ndarray) -> tuple[Look, np.ndarray]:
    """What the pixels alone show, and the small grey picture: uint8, shape (32, 32).

    Args:
        image: uint8, shape (height, width, 3).
    """
    looks, small = look_at_all(image[None])
    return looks[0], small[0]


def look_at_all(images: np.ndarray) -> tuple[list[Look], np.ndarray]:
    """What the pixels of each image show, and small grey pictures: uint8, shape (N, 32, 32).

    Args:
        images: uint8, shape (N, height, width, 3).
    """
    count, height, width = images.shape[:3]
    thinned = images[:, :: max(1, height // 32), :: max(1, width // 32)].reshape(count, -1, 3)
    channels = np.ascontiguousarray(thinned.transpose(0, 2, 1), dtype=np.float32)
    pictures = [Image.fromarray(image) for image in images]
    grey = [picture.convert("L") for picture in pictures]
    # Antialiased, and the same for mirrored pictures.
    small = [picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR) for picture in pictures]
    ink = find_ink(np.stack([np.asarray(picture.convert("HSV")) for picture in small]).astype(np.float32) / 255)
    columns = {
        "height": [height] * count,
        "width": [width] * count,
        "digest": [digest_of(image) for image in images],
        "two_valued": [256 - picture.histogram().count(0) <= 2 for picture in grey],
        "spread": channels.std(axis=2).max(axis=1).tolist(),
        "colour": (channels.max(axis=1) - channels.min(axis=1)).mean(axis=1).tolist(),
        "sharpness": _sharpness(np.stack([np.asarray(picture) for picture in grey])).tolist(),
        "ink": (ink.green | ink.blue).mean(axis=(1, 2)).tolist(),
        "black": ink.black.mean(axis=(1, 2)).tolist(),
    }
    looks = [Look(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
    return looks, np.stack([np.asarray(picture.convert("L")) for picture in small])


def sharpness(grey: np.ndarray) -> float:
    """How much detail of one pixel there is against detail of four, in octaves; a blurred picture has little.

    The variance of block means falls from one block size to the next by the variance within blocks, which is the
    detail of that scale (the variance decomposition of a Haar transform). A straight edge alone gives -2, white noise
    +4, a picture blurred by a Gaussian of 2 px about -3.

    Args:
        grey: Numbers of shape (height, width).

    Returns:
        log2 of the ratio; NaN for a picture of less than 8 px.

    Example:
        >>> noise = np.random.default_rng(0).integers(0, 255, (64, 64))
        >>> round(sharpness(noise))
        4
    """
    return float(_sharpness(grey[None])[0])


def _sharpness(grey: np.ndarray) -> np.ndarray:
    """`sharpness` of pictures of shape (N, height, width)."""
    height, width = (side // 8 * 8 for side in grey.shape[1:])
    if not height or not width:
        return np.full(len(grey), np.nan)
    means: np.ndarray = grey[:, :height, :width].astype(np.float32)
    means -= means.mean(axis=(1, 2), keepdims=True)
    variances = [np.square(means).mean(axis=(1, 2))]
    for _ in range(3):
        rows = means[:, ::2] + means[:, 1::2]
        means = (rows[:, :, ::2] + rows[:, :, 1::2]) / 4
        variances.append(np.square(means).mean(axis=(1, 2)))
    fine, _, coarse = np.subtract(variances[:-1], variances[1:]).astype(float) + 0.5  # .5: noise of rounding
    return np.log2(fine / coarse)


def _look_all(paths: Sequence[str], bits: int | None) -> list[tuple[Look, np.ndarray | None]]:
    """What decoding shows of each file; small pictures of one size are looked at together, which is faster."""
    seen: dict[int, tuple[Look, np.ndarray | None]] = {}
    alike: dict[tuple[int, ...], list[tuple[int, np.ndarray, Facts]]] = {}
    for row, path in enumerate(paths):
        try:
            image, facts = read_with_facts(path, bits=bits)
        except ImageError as error:
            seen[row] = Look(problem=_problem(path, error.found), reason=error.found), None
            continue
        if image.nbytes > _SMALL:
            ((look, small),) = look_of([path], image[None], [facts])
            seen[row] = look, small
        else:
            alike.setdefault(image.shape, []).append((row, image, facts))
    for parts in alike.values():
        rows, images, facts_of = zip(*parts, strict=True)
        seen |= zip(rows, look_of([paths[row] for row in rows], np.stack(images), facts_of), strict=True)
    return [seen[row] for row in range(len(paths))]


def look_of(paths: Sequence[str], images: np.ndarray, facts: Sequence[Facts]) -> list[tuple[Look, np.ndarray | None]]:
    """What is seen of images that have been read, and their small grey pictures: none where a file is damaged.

    Args:
        paths: Where they are.
        images: uint8, shape (N, height, width, 3).
        facts: How they are stored.
    """
    seen: list[tuple[Look, np.ndarray | None]] = []
    for path, known, look, small in zip(paths, facts, *look_at_all(images), strict=True):
        if known.format == "PNG" and (chunk := _damaged_chunk(path)):
            reason = f"damaged: the checksum of its part {chunk} is wrong"
            seen.append((Look(problem="unreadable", reason=reason), None))
        else:
            seen.append((look._replace(**known._asdict()), small))
    return seen


def _damaged_chunk(path: str) -> str:
    """The first part of a PNG whose checksum is wrong, or nothing; decoders may pass over it and make up pixels."""
    content = content_of(ImageRef.parse(path))
    start = 8
    while start + 12 <= len(content):
        end = start + 8 + int.from_bytes(content[start : start + 4])
        chunk = content[start + 4 : end]
        if zlib.crc32(chunk) != int.from_bytes(content[end : end + 4]):
            return chunk[:4].decode("ascii", "replace")
        if chunk[:4] == b"IEND":
            break
        start = end + 4
    return ""


def _problem(path: str, reason: str) -> str:
    """Which problem it is: a file that lacks its format's last bytes was cut off."""
    file = ImageRef.parse(path).file
    if not os.path.exists(file):
        return "missing"
    if ImageRef.parse(path).part:
        return "unreadable"
    if re.search(r"\(.*truncated", reason, re.IGNORECASE):
        return "truncated"
    try:
        with open(file, "rb") as opened:
            start = opened.read(8)
            opened.seek(0, os.SEEK_END)
            opened.seek(max(0, opened.tell() - 64))
            tail = opened.read()
    except OSError:
        return "unreadable"
    ends = [last for first, last in _ENDS.items() if start.startswith(first)]
    return "truncated" if ends and ends[0] not in tail else "unreadable"
