"""The patch store: every image decoded (and prepared) once, into one memory-mapped array in the cache."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from tumortrace.cohorts.cache import ArrayFile, Filling, store_folder, telling
from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.looks import Look, Looks, as_table, digest_of, look_at, look_of
from tumortrace.cohorts.resolution import stated_before
from tumortrace.errors import DataError, ImageError
from tumortrace.images.decoding import Facts, fit, fit_resolution, read_image, read_with_facts
from tumortrace.records.files import write_json
from tumortrace.records.progress import track

CHUNK_BYTES = 64 << 20  # what an interruption loses at most
SAMPLE = 256  # images looked at to find the usual size
PIECE = 64  # images decoded, or prepared, at a time
_POOL_FROM = 1000  # images; below, starting processes takes longer than it saves


Outcome = tuple[str, Look | None, np.ndarray | None]


@dataclass(frozen=True)
class PatchStore:
    """All images of a cohort as one array.

    Attributes:
        images: Read-only memory map, uint8, shape (images, height, width, 3), rows in the order of the cohort's table.
        ids: Id of each row.
        size: Height and width in pixels.
        notes: How many images were resized, and which first.
        folder: Where the array lies in the cache.
        resized: Rows whose image had another size.
        kept: What decoding showed of the images; None for pictures that were made of them.
        failed: Why rows could not be read, which are black then: only where `open_store` was asked to keep them.
    """

    images: np.ndarray
    ids: tuple[str, ...]
    size: tuple[int, int]
    notes: tuple[str, ...] = ()
    folder: Path | None = None
    resized: tuple[int, ...] = ()
    kept: Looks | None = None
    failed: Mapping[int, str] = field(default_factory=dict)

    @property
    def pictures(self) -> np.ndarray:
        """What sheets of examples show of each row, uint8, (images, height, width, 3): the images."""
        return self.images

    @property
    def sound(self) -> np.ndarray:
        """The rows that could be read, int64."""
        return np.setdiff1d(np.arange(len(self.images)), list(self.failed))

    @cached_property
    def looks(self) -> pd.DataFrame:
        """What decoding showed of each image: the fields of `Look` as columns, rows as in `images`."""
        return as_table([look_at(image)[0] for image in self.images]) if self.kept is None else self.kept.table

    @cached_property
    def digests(self) -> list[str]:
        """Digest of each row of `images`, by which evaluation knows a picture again."""
        known = [None] * len(self.images) if self.kept is None else self.looks["digest"].tolist()
        for row in self.resized:
            known[row] = None
        return [digest_of(self.images[row]) if pd.isna(digest) else digest for row, digest in enumerate(known)]


def open_store(
    cohort: Cohort,
    *,
    size: tuple[int, int] | None = None,
    resolution: float | None = None,
    keep_failed: bool = False,
    cache: Path | None = None,
    workers: int | None = None,
) -> PatchStore:
    """The cohort's images as one memory-mapped array, decoded at the first call and opened at once afterwards.

    The array lies in the cache under the cohort's fingerprint and the size, so that data which change are decoded
    anew. An interrupted call is taken up where it stopped, a file damaged in length is made again, and a second
    process waits for the first.

    Args:
        cohort: The images; labels are not needed.
        size: Height and width in pixels to which other images are resized; default the most frequent one.
        resolution: Um per px to which the images are resampled whose own is known, around their centres (see
            `images.decoding.fit_resolution`); default none.
        keep_failed: Leave images that cannot be read black and say which, instead of refusing the others with them.
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
    if cohort.has_bags:
        raise DataError(
            "features of slides, which hold no images",
            where=cohort.name,
            expected="images",
            remedy="train them with --recipe slide-attention, or name the folder of images",
        )
    if not len(cohort):
        raise DataError("no image to decode", where=cohort.name, expected="at least one")
    home, looks = store_folder(cohort, cache), Looks(cohort, cache, workers)
    with telling(home):
        size = size or _kept_usual_size(cohort, home)
        fitting = Fitting(cohort, resolution)
        array = ArrayFile(home / f"{size[0]}x{size[1]}{fitting.key}", len(cohort), size)
        if not array.complete:
            with array.locked("decoding"):
                _fill(array, cohort, looks, workers or os.cpu_count() or 1, fitting)
            failed = {int(row): reason for row, reason in array.record.failed.items()}
            if failed and not (keep_failed and len(failed) < len(cohort)):
                raise _undecodable(cohort.table["path"].iloc[list(failed)].tolist(), len(cohort), failed)
        else:
            failed = {}
    resized = array.record.resized
    notes = _notes(resized, cohort, size, resolution)
    return PatchStore(array.open(), tuple(cohort.table["id"]), size, notes, array.folder, tuple(resized), looks, failed)


class Fitting:
    """How images become patches: stretched to the size, or resampled to a resolution where theirs is known.

    Args:
        cohort: The images, and what is known of them before they are opened.
        resolution: Um per px wanted; None stretches all.
    """

    def __init__(self, cohort: Cohort, resolution: float | None) -> None:
        self._wanted, self._stated = resolution, stated_before(cohort)
        self.bits = cohort.bits

    @property
    def key(self) -> str:
        """What tells its patches from others of their size."""
        if self._wanted is None:
            return ""
        return f"-{self._wanted:g}um-{hashlib.sha256(self._stated.tobytes()).hexdigest()[:16]}"

    def fit(self, row: int, image: np.ndarray, facts: Facts, size: tuple[int, int]) -> np.ndarray:
        """The patch of the image of a row."""
        stated = self._stated[row] if np.isfinite(self._stated[row]) else facts.resolution
        if self._wanted is None or stated is None:
            return fit(image, size)
        return fit_resolution(image, size, self._wanted / float(stated))


def prepared_store(
    store: PatchStore,
    key: str,
    function: Callable[[np.ndarray], np.ndarray],
    description: str,
    *,
    workers: int | None = None,
) -> PatchStore:
    """The same rows after `function`, which is applied at the first call and not afterwards.

    The array lies in the cache beside the store's own, under `key`. As there, an interrupted call is taken up where
    it stopped, a file damaged in length is made again, and a second process waits for the first.

    Args:
        store: What `open_store` opened.
        key: Says all that the outcome depends on besides the images, such as `Preprocessing.preparation_key`.
        function: From uint8 (N, H, W, 3) to uint8 (N, h, w, 3), each image by itself; must be picklable.
        description: Text of the progress bar.
        workers: Processes; default one per core, at most 8, for a store big enough to gain by it.

    Raises:
        DataError: The cache cannot be written, or there is no room on the disk; and what `function` raises.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> store = PatchStore(np.zeros((3, 8, 8, 3), np.uint8), ("a", "b", "c"), (8, 8), folder=folder)
        >>> prepared = prepared_store(store, "inner", lambda images: images[:, 2:6, 2:6] + 1, "preparing images")
        >>> prepared.images.shape, int(prepared.images.min()), prepared.size
        ((3, 4, 4, 3), 1, (4, 4))
    """
    if store.folder is None:
        raise ValueError("the store does not lie in the cache")
    folder = store.folder / "prepared" / hashlib.sha256(key.encode()).hexdigest()[:32]
    height, width = function(store.images[:1]).shape[1:3]
    with telling(folder):
        array = ArrayFile(folder, len(store.images), (height, width))
        if not array.complete:
            with array.locked("preparing"):
                _prepare(array, store.images, function, description, workers)
    return replace(store, images=array.open(), size=(height, width), folder=folder, resized=(), kept=None)


def usual_size(cohort: Cohort) -> tuple[int, int]:
    """The most frequent (height, width) in pixels of a sample spread over the cohort: of 256 that can be decoded.

    Raises:
        DataError: No image can be decoded.
    """
    sizes: Counter[tuple[int, int]] = Counter()
    spread = np.unique(np.linspace(0, len(cohort) - 1, SAMPLE).astype(int))
    for number, row in enumerate([*spread, *np.setdiff1d(np.arange(len(cohort)), spread)]):
        if sizes and number >= SAMPLE:
            break
        try:
            height, width = read_image(cohort.table["path"].iloc[row], cohort.bits).shape[:2]
        except ImageError:
            continue  # told with all others when the store is filled
        sizes[height, width] += 1
    if not sizes:
        found = f"none of {len(cohort)} images can be decoded"
        raise DataError(found, where=cohort.name, remedy="run `tumortrace check` to see why")
    return max(sizes, key=lambda size: (sizes[size], size))


def _kept_usual_size(cohort: Cohort, home: Path) -> tuple[int, int]:
    """The usual size, kept for the next time."""
    try:
        height, width = json.loads((home / "size.json").read_text("utf-8"))["size"]
    except (OSError, ValueError, KeyError, TypeError):
        height, width = usual_size(cohort)
        write_json(home / "size.json", {"size": (height, width)})
    return height, width


def _fill(array: ArrayFile, cohort: Cohort, looks: Looks, workers: int, fitting: Fitting) -> None:
    """Decode what is not decoded yet."""
    if array.complete:  # by another process, while this one waited
        return
    if array.record.failed and any(_can_be_read(cohort, int(row)) for row in array.record.failed):
        array.file.unlink()
        array.record = Filling()
    todo = array.count - array.rows
    for _ in track(_decoding(array, cohort, looks, workers, fitting), "decoding images", total=todo):
        pass


def _can_be_read(cohort: Cohort, row: int) -> bool:
    """Whether an image that failed is there again, as after a change of rights."""
    try:
        read_image(cohort.table["path"].iloc[row], cohort.bits)
    except ImageError:
        return False
    return True


def _decoding(array: ArrayFile, cohort: Cohort, looks: Looks, workers: int, fitting: Fitting) -> Iterator[None]:
    """Fill the array chunk by chunk, with looks at what has not been looked at, yielding after each image."""
    paths, known = cohort.table["path"].tolist(), looks.known()
    step = max(1, CHUNK_BYTES // (array.size[0] * array.size[1] * 3))
    with array.filling() as file, ThreadPoolExecutor(workers) as pool:
        for start in range(array.rows, len(paths), step):
            stop = min(start + step, len(paths))
            pixels = np.zeros((stop - start, *array.size, 3), np.uint8)
            piece = max(1, min(PIECE, (stop - start) // (4 * workers)))
            parts = [slice(first, min(first + piece, stop)) for first in range(start, stop, piece)]
            seen: dict[int, tuple[Look, np.ndarray]] = {}
            targets = (pixels[part.start - start : part.stop - start] for part in parts)
            jobs = (
                [range(part.start, part.stop), paths[part], target, ~known[part]]
                for part, target in zip(parts, targets, strict=True)
            )
            decoded = pool.map(partial(_decode, fitting), *zip(*jobs, strict=True))
            for row, (outcome, look, small) in enumerate(chain.from_iterable(decoded), start):
                if outcome == "resized":
                    array.record.resized.append(row)
                elif outcome:
                    array.record.failed[str(row)] = outcome
                if look is not None and small is not None:
                    seen[row] = look, small
                yield
            if seen:
                sound, pictures = zip(*seen.values(), strict=True)
                looks.keep(np.array(list(seen)), sound, np.stack(pictures))
            array.append(file, pixels)


def _prepare(
    array: ArrayFile,
    images: np.ndarray,
    function: Callable[[np.ndarray], np.ndarray],
    description: str,
    workers: int | None,
) -> None:
    """Apply `function` to what is not prepared yet, piece by piece in parallel."""
    if array.complete:  # by another process, while this one waited
        return
    from joblib import Parallel, delayed

    first, todo = array.rows, array.count - array.rows
    jobs = workers or (min(os.cpu_count() or 1, 8) if todo >= _POOL_FROM else 1)
    pieces = (delayed(function)(images[start : start + PIECE]) for start in range(first, array.count, PIECE))
    done: list[np.ndarray] = []
    with array.filling() as file:
        prepared = Parallel(n_jobs=jobs, return_as="generator", pre_dispatch="4*n_jobs")(pieces)
        for image in track((image for piece in prepared for image in piece), description, total=todo):
            done.append(image)
            if len(done) * image.nbytes >= CHUNK_BYTES:
                array.append(file, np.stack(done))
                done.clear()
        if done:
            array.append(file, np.stack(done))


def _decode(
    fitting: Fitting, numbers: range, paths: list[str], target: np.ndarray, looking: np.ndarray
) -> list[Outcome]:
    """Put images into `target`: of each, whether it was `resized`, or why it failed, or nothing; and what was seen."""
    outcomes: list[Outcome] = []
    alike: dict[int, Facts] = {}
    for row, path in enumerate(paths):
        try:
            image, facts = read_with_facts(path, bits=fitting.bits)
            patch = fitting.fit(numbers[row], image, facts, (target.shape[1], target.shape[2]))
        except ImageError as error:
            outcomes.append((f"{error.found}: {error.remedy}" if error.remedy else error.found, None, None))
            continue
        target[row] = patch
        if patch is not image:
            look = look_of([path], image[None], [facts])[0] if looking[row] else (None, None)
            outcomes.append(("resized", *look))
            continue
        outcomes.append(("", None, None))
        if looking[row]:
            alike[row] = facts
    if alike:
        rows = list(alike)
        looks = look_of([paths[row] for row in rows], target[rows], list(alike.values()))
        for row, look in zip(rows, looks, strict=True):
            outcomes[row] = ("", *look)
    return outcomes


def _undecodable(paths: list[str], total: int, reasons: Mapping[int, str]) -> DataError:
    first = ", ".join(Path(path).name for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
    return DataError(
        f"{len(paths)} of {total} images cannot be decoded: {first} ({next(iter(reasons.values()))})",
        where=Path(paths[0]).parent,
        remedy="run `tumortrace check` to see why, and leave them out",
    )


def _notes(resized: list[int], cohort: Cohort, size: tuple[int, int], resolution: float | None) -> tuple[str, ...]:
    if not resized:
        return ()
    if resolution is not None:
        return (f"{len(resized)} of {len(cohort)} images were resampled to {resolution:g} um per pixel, or resized",)
    first = ", ".join(cohort.table["id"][row] for row in resized[:3]) + (", ..." if len(resized) > 3 else "")
    return (f"{len(resized)} of {len(cohort)} images are not {size[1]}x{size[0]} pixels and are resized: {first}",)
