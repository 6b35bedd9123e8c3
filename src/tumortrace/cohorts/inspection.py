"""What one decoding shows of each image: form, digest, spread, colour, sharpness, ink, and a small grey picture."""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image

from tumortrace.errors import ImageError
from tumortrace.images.decoding import read_with_facts
from tumortrace.images.reference import ImageRef
from tumortrace.images.stain import find_ink
from tumortrace.records.progress import track

SIDE = 32  # of the small picture
NEARLY_BLANK = 4.0  # standard deviation of the liveliest channel, of 255; the faintest tissue of PCam has 9
_BATCH = 64  # images per task
_MANY = 2000  # images from which on starting processes pays; threads wait for each other over small images
_ENDS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG": b"IEND\xaeB`\x82"}  # first and last bytes of JPEG and PNG


class Look(NamedTuple):
    """What is seen of one image.

    Attributes:
        problem: `missing`, `truncated` or `unreadable`; None for a sound image, and only then the rest is known.
        reason: Why it cannot be decoded.
        format, kind, orientation, frames, origin, quality, note: As `images.Facts` has them.
        height, width: In pixels.
        digest: BLAKE2b of shape and pixels, hexadecimal.
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
    height: int | None = None
    width: int | None = None
    digest: str | None = None
    two_valued: bool | None = None
    spread: float = np.nan
    colour: float = np.nan
    sharpness: float = np.nan
    ink: float = np.nan
    black: float = np.nan


_TYPES = {"string": "problem reason format kind origin note digest", "Int64": "orientation frames quality height width"}
_DTYPES = {name: dtype for dtype, names in _TYPES.items() for name in names.split()} | {"two_valued": "boolean"}


def inspect(paths: Sequence[str], workers: int | None = None) -> tuple[pd.DataFrame, np.ndarray]:
    """What decoding shows of each image, in parallel and with a progress bar.

    Args:
        paths: Image files, or rows of HDF5 arrays.
        workers: Processes (threads, for few images); default one per core.

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
    workers = workers or os.cpu_count() or 1
    batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
    backend = "loky" if len(paths) > _MANY and workers > 1 else "threading"
    parallel = Parallel(n_jobs=workers, backend=backend, return_as="generator", pre_dispatch="4*n_jobs")
    looks: list[Look] = []
    small = np.zeros((len(paths), SIDE, SIDE), np.uint8)
    done: Iterator[tuple[Look, np.ndarray | None]] = (
        each for batch in parallel(map(delayed(_look_all), batches)) for each in batch
    )
    for row, (look, picture) in enumerate(track(done, "opening files", total=len(paths))):
        looks.append(look)
        if picture is not None:
            small[row] = picture
    return as_table(looks), small


def as_table(looks: Sequence[Look]) -> pd.DataFrame:
    """Looks as a table with the types that findings rely on."""
    return pd.DataFrame(list(looks), columns=list(Look._fields)).astype(_DTYPES)


def showing(looks: pd.DataFrame) -> pd.Series:
    """Whether a decoded image shows something, by its row of looks: it is neither blank nor a mask."""
    mask = looks["two_valued"].fillna(False).astype(bool)
    return looks["digest"].notna() & (looks["spread"] >= NEARLY_BLANK) & ~mask


def glances(images: np.ndarray) -> pd.DataFrame:
    """Looks at images that are decoded already, uint8, shape (N, height, width, 3), with what `glance` sees of them."""
    return as_table([glance(image) for image in images])


def glance(image: np.ndarray) -> Look:
    """Size, digest, spread and colour of an image: what exact copies are found by.

    Args:
        image: uint8, shape (height, width, 3).
    """
    height, width = image.shape[:2]
    digest = hashlib.blake2b(image.tobytes(), digest_size=16, person=f"{height}x{width}".encode()[:16]).hexdigest()
    thinned = image[:: max(1, height // 32), :: max(1, width // 32)].reshape(-1, 3)
    channels = np.ascontiguousarray(thinned.T, dtype=np.float32)
    colour = float((channels.max(axis=0) - channels.min(axis=0)).mean())
    return Look(height=height, width=width, digest=digest, spread=float(channels.std(axis=1).max()), colour=colour)


def look_at(image: np.ndarray) -> tuple[Look, np.ndarray]:
    """What the pixels alone show, and the small grey picture: uint8, shape (32, 32).

    Args:
        image: uint8, shape (height, width, 3).
    """
    look = glance(image)
    picture = Image.fromarray(image)
    grey = picture.convert("L")
    small = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)  # antialiased, and the same for mirrored pictures
    ink = find_ink(np.asarray(small.convert("HSV"), np.float32) / 255)
    look = look._replace(
        two_valued=256 - grey.histogram().count(0) <= 2,
        sharpness=sharpness(np.asarray(grey)),
        ink=float((ink.green | ink.blue).mean()),
        black=float(ink.black.mean()),
    )
    return look, np.asarray(small.convert("L"))


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
    height, width = (side // 8 * 8 for side in grey.shape)
    if not height or not width:
        return np.nan
    means: np.ndarray = grey[:height, :width].astype(np.float32)
    means -= means.mean()
    variances = [_mean_square(means)]
    for _ in range(3):
        means = (means[::2, ::2] + means[1::2, ::2] + means[::2, 1::2] + means[1::2, 1::2]) / 4
        variances.append(_mean_square(means))
    fine, _, coarse = (np.subtract(variances[:-1], variances[1:]) + 0.5).tolist()  # .5: noise of rounding
    return float(np.log2(fine / coarse))


def _mean_square(values: np.ndarray) -> float:
    flat = values.ravel()
    return float(flat @ flat) / flat.size


def _look_all(paths: Sequence[str]) -> list[tuple[Look, np.ndarray | None]]:
    return [_look(path) for path in paths]


def _look(path: str) -> tuple[Look, np.ndarray | None]:
    try:
        image, facts = read_with_facts(path)
    except ImageError as error:
        return Look(problem=_problem(path, error.found), reason=error.found), None
    if facts.format == "PNG" and (chunk := _damaged_chunk(path)):
        return Look(problem="unreadable", reason=f"damaged: the checksum of its part {chunk} is wrong"), None
    look, small = look_at(image)
    return look._replace(**facts._asdict()), small


def _damaged_chunk(path: str) -> str:
    """The first part of a PNG whose checksum is wrong, or nothing; decoders may pass over it and make up pixels."""
    with open(path, "rb") as file:
        content = file.read()
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
