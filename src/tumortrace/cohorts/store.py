"""The patch store: every image decoded once, into one memory-mapped array in the cache."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from filelock import AcquireReturnProxy, FileLock, Timeout

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.images import fit, read_image
from tumortrace.errors import DataError, ImageError
from tumortrace.runs.files import write_json
from tumortrace.runs.progress import say, track

CHUNK_BYTES = 64 << 20  # what an interruption loses at most
SAMPLE = 256  # images looked at to find the usual size
_ROOM = "free space, or set TUMORTRACE_CACHE to a folder on another disk"


@dataclass(frozen=True)
class PatchStore:
    """All images of a cohort as one array.

    Attributes:
        images: Read-only memory map, uint8, shape (images, height, width, 3), rows in the order of the cohort's table.
        ids: Id of each row.
        size: Height and width in pixels.
        notes: How many images were resized, and which first.
    """

    images: np.ndarray
    ids: tuple[str, ...]
    size: tuple[int, int]
    notes: tuple[str, ...] = ()


def cache_folder() -> Path:
    """Where decoded data are kept: the environment variable TUMORTRACE_CACHE, else the user's cache folder."""
    return Path(os.environ.get("TUMORTRACE_CACHE") or platformdirs.user_cache_dir("tumortrace"))


def open_store(
    cohort: Cohort, *, size: tuple[int, int] | None = None, cache: Path | None = None, workers: int | None = None
) -> PatchStore:
    """The cohort's images as one memory-mapped array, decoded at the first call and opened at once afterwards.

    The array lies in the cache under the cohort's fingerprint and the size, so that data which change are decoded
    anew. An interrupted call is taken up where it stopped, a file damaged in length is made again, and a second
    process waits for the first.

    Args:
        cohort: The images; labels are not needed.
        size: Height and width in pixels to which other images are resized; default the most frequent one.
        cache: Folder to use instead of `cache_folder()`.
        workers: Threads that decode; default one per core (Pillow decodes outside Python's lock).

    Raises:
        DataError: Images that cannot be decoded (how many, and the first three), no image, or no room on the disk.

    Example:
        >>> import pandas as pd, tempfile; from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (6, 4), "red").save(folder / "a.png")
        >>> table = pd.DataFrame({"id": ["a"], "path": str(folder / "a.png"), "label": 1, "group": None, "split": None})
        >>> store = open_store(Cohort("mine", "table", table), cache=folder)
        >>> store.images.shape, store.images[0, 0, 0].tolist()
        ((1, 4, 6, 3), [255, 0, 0])
    """
    if not len(cohort):
        raise DataError("no image to decode", where=cohort.name, expected="at least one")
    home = (cache or cache_folder()) / "stores" / cohort.fingerprint[:32]
    try:
        size = size or _usual_size(cohort, home)
        folder = home / f"{size[0]}x{size[1]}"
        folder.mkdir(parents=True, exist_ok=True)
        if not _complete(_progress(folder, cohort, size), cohort):
            with _locked(folder):
                _fill(folder, cohort, size, workers or os.cpu_count() or 1)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))
        remedy = _ROOM if full else "set TUMORTRACE_CACHE to a folder that can be written"
        raise DataError(f"the patch store cannot be written ({error.strerror})", where=home, remedy=remedy) from None
    images = np.load(folder / "images.npy", mmap_mode="r")
    resized = _progress(folder, cohort, size)["resized"]
    return PatchStore(images, tuple(cohort.table["id"]), size, _notes(resized, cohort, size))


def _usual_size(cohort: Cohort, home: Path) -> tuple[int, int]:
    """The most frequent (height, width) of a sample spread over the cohort, kept for the next time."""
    kept = _read_json(home / "size.json")
    if kept.get("size"):
        return kept["size"][0], kept["size"][1]
    sizes: Counter[tuple[int, int]] = Counter()
    for row in np.unique(np.linspace(0, len(cohort) - 1, SAMPLE).astype(int)):
        try:
            height, width = read_image(cohort.table["path"][row]).shape[:2]
        except ImageError:
            continue  # told with all others when the store is filled
        sizes[height, width] += 1
    if not sizes:
        raise DataError("none of the images sampled can be decoded", where=cohort.name, remedy="run `tumortrace check`")
    size = max(sizes, key=lambda each: (sizes[each], each))
    write_json(home / "size.json", {"size": size})
    return size


def _locked(folder: Path) -> AcquireReturnProxy:
    """The lock of a folder, taken; the system drops it when its holder ends, however it ends."""
    lock = FileLock(folder / "lock")
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        say("another process is decoding the same images: waiting for it")
        return lock.acquire()


def _progress(folder: Path, cohort: Cohort, size: tuple[int, int]) -> dict[str, Any]:
    """The record of a store: how many `rows` are done, which were `resized` and which `failed`; empty if unsound."""
    record = _read_json(folder / "store.json")
    file = folder / "images.npy"
    image_bytes = size[0] * size[1] * 3
    header = len(_header(len(cohort), size))
    if record and file.is_file() and file.stat().st_size >= header + record["rows"] * image_bytes:
        whole = file.stat().st_size == header + len(cohort) * image_bytes
        if record["rows"] < len(cohort) or whole:
            return record
    return {"rows": 0, "resized": [], "failed": []}


def _complete(record: dict[str, Any], cohort: Cohort) -> bool:
    return record["rows"] == len(cohort) and not record["failed"]


def _fill(folder: Path, cohort: Cohort, size: tuple[int, int], workers: int) -> None:
    """Decode what is not decoded yet, or raise what could not be."""
    record = _progress(folder, cohort, size)
    if _complete(record, cohort):  # by another process, while this one waited
        return
    file = folder / "images.npy"
    if not record["rows"]:
        file.unlink(missing_ok=True)  # and not overwritten: whoever has it mapped keeps what he sees
    todo = len(cohort) - record["rows"]
    needed = todo * size[0] * size[1] * 3
    if shutil.disk_usage(folder).free < needed:
        raise DataError(f"no room for {needed / 1e9:.1f} GB of decoded images", where=folder, remedy=_ROOM)
    for _ in track(_decoding(folder, cohort, size, record, workers), "decoding images", total=todo):
        pass
    if record["failed"]:
        file.unlink()
        raise _undecodable(cohort.table["path"].iloc[record["failed"]].tolist(), len(cohort))


def _decoding(
    folder: Path, cohort: Cohort, size: tuple[int, int], record: dict[str, Any], workers: int
) -> Iterator[None]:
    """Fill the array chunk by chunk, yielding after each image; pixels to disk first, then the record of them."""
    paths = cohort.table["path"].tolist()
    image_bytes = size[0] * size[1] * 3
    header = _header(len(paths), size)
    step = max(1, CHUNK_BYTES // image_bytes)
    with open(folder / "images.npy", "r+b" if record["rows"] else "wb") as file, ThreadPoolExecutor(workers) as pool:
        file.write(header)
        for start in range(record["rows"], len(paths), step):
            chunk = paths[start : start + step]
            pixels = np.zeros((len(chunk), *size, 3), np.uint8)
            for row, outcome in enumerate(pool.map(_decode, chunk, pixels), start):
                if outcome:
                    record[outcome].append(row)
                yield
            file.seek(len(header) + start * image_bytes)
            file.write(pixels.data)
            file.flush()
            os.fsync(file.fileno())
            record["rows"] = start + len(chunk)
            write_json(folder / "store.json", record)


def _decode(path: str, target: np.ndarray) -> str:
    """Put the image into `target`; whether it was `resized` or `failed`, or neither."""
    try:
        image = read_image(path)
    except ImageError:
        return "failed"
    target[...] = fit(image, (target.shape[0], target.shape[1]))
    return "resized" if image.shape != target.shape else ""


def _undecodable(paths: list[str], total: int) -> DataError:
    first = ", ".join(Path(path).name for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
    return DataError(
        f"{len(paths)} of {total} images cannot be decoded: {first}",
        where=Path(paths[0]).parent,
        remedy="run `tumortrace check` to see why, and leave them out",
    )


def _notes(resized: list[int], cohort: Cohort, size: tuple[int, int]) -> tuple[str, ...]:
    if not resized:
        return ()
    first = ", ".join(cohort.table["id"][row] for row in resized[:3]) + (", ..." if len(resized) > 3 else "")
    return (f"{len(resized)} of {len(cohort)} images are not {size[1]}x{size[0]} pixels and are resized: {first}",)


def _header(rows: int, size: tuple[int, int]) -> bytes:
    """The bytes that stand before the pixels in a .npy file."""
    buffer = BytesIO()
    description = {"descr": "|u1", "fortran_order": False, "shape": (rows, *size, 3)}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
