"""A super-resolution generator learnt on a cohort's own patches.

The generator is ESRGAN's residual-in-residual dense network (Wang et al. 2018), learnt from pairs of a patch and its
downsampled version: first by mean absolute error alone, then with a small adversarial loss beside it. It is then
used on patches that are not downsampled, at a finer resolution than it has seen, where it may turn texture into nuclei
that are not there.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from safetensors.torch import save_file

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.copies import exact_copies
from tumortrace.cohorts.looks import Looks
from tumortrace.cohorts.splits import assign_splits
from tumortrace.errors import DataError, ImageError, RunError, SplitError
from tumortrace.images.decoding import fit, read_image
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.images.super_resolution import SuperResolution, check_images, restoration_quality
from tumortrace.models.device import resolve_device
from tumortrace.records.files import replacing, sha256, write_json
from tumortrace.records.progress import say, track
from tumortrace.records.record import Open

if TYPE_CHECKING:
    from tumortrace.preparation.generator_learner import Settings

GENERATOR = "super_resolution.safetensors"
MOST_LEARNT, MOST_MEASURED = 5000, 300  # images to learn from and to measure on
HELD_OUT = 300  # patches to measure on, at most, where the caller names none


def learn_super_resolution(
    images: np.ndarray,
    rows: np.ndarray,
    out: Path,
    *,
    held_out: np.ndarray | None = None,
    scale: int = 4,
    steps: int = 1500,
    blocks: int = 1,
    filters: int = 24,
    batch_size: int = 8,
    crop: int = 64,
    learning_rate: float = 1e-3,
    adversarial_share: float = 0.2,
    adversarial_weight: float = 0.002,
    seed: int = 0,
    device: str = "auto",
) -> Path:
    """Learn a generator, write its weights, and beside them a record of how it was learnt and how good it is.

    The defaults are for two CPU cores and about ten minutes; the published ESRGAN has 23 blocks and 64 filters and
    learns for days on a GPU. An interrupted call is taken up where it stopped when it is made again with the same
    arguments; it ends bit for bit where an undisturbed one does (CPU, same machine).

    Args:
        images: uint8, shape (N, H, W, 3), a memory map will do.
        rows: Which of them to learn from. They must come from the training split alone: a generator that has seen
            test images makes the test worthless.
        out: `.safetensors` file to write; the record has the same name and ends in `.json`.
        held_out: Rows to measure on, best of other slides; default a tenth of `rows`, which are then not learnt from.
        scale: 2, 4 or 8.
        steps: Gradient steps in all.
        blocks: Residual-in-residual dense blocks.
        filters: Channels between the blocks.
        batch_size: Crops per step.
        crop: Side of a crop in pixels, before it is downsampled.
        learning_rate: Of Adam at the start; falls to a tenth along a cosine until the adversarial part, then stays.
        adversarial_share: Share of the steps, the last ones, with adversarial loss; 0 leaves it out.
        adversarial_weight: Weight of that loss; the mean absolute error of pixels in [0, 1] has weight 1.
        seed: Same seed, same generator.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".

    Returns:
        `out`, which `SuperResolution(weights=...)` takes.

    Raises:
        DataError: Images, rows or settings that nothing can be learnt from.
        SplitError: A row both learnt from and held out.
        RunError: There is a finished generator already, or an unfinished one of other settings or images.

    Example:
        >>> import tempfile
        >>> patches = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
        >>> out = Path(tempfile.mkdtemp()) / "generator.safetensors"
        >>> path = learn_super_resolution(patches, np.arange(8), out, steps=2, filters=4, batch_size=2, crop=16)
        >>> SuperResolution(weights=str(path))(patches[:1]).shape
        (1, 128, 128, 3)
    """
    from tumortrace.preparation.generator_learner import Learner, Settings  # loads spandrel

    out = Path(out)
    settings = Settings(
        scale=scale,
        steps=steps,
        blocks=blocks,
        filters=filters,
        batch_size=batch_size,
        crop=crop,
        learning_rate=learning_rate,
        adversarial_share=adversarial_share,
        adversarial_weight=adversarial_weight,
        seed=seed,
    )
    _check(images, out, settings)
    rows, held_out = _parts(rows, held_out, len(images), seed)
    settings = replace(settings, data=_digest(images, rows, held_out))
    checkpoint, record_file = out.with_suffix(".checkpoint.safetensors"), out.with_suffix(".json")
    if not checkpoint.exists() and (taken := [file for file in (out, record_file) if file.exists()]):
        raise RunError("this file is there already", where=taken[0], remedy="name another one, or remove it")
    learner = Learner(images, rows, checkpoint, settings, resolve_device(device))
    learner.resume()
    learner.run(np.asarray(images[held_out]))
    with replacing(out) as temporary:
        save_file({name: value.cpu().contiguous() for name, value in learner.generator.state_dict().items()}, temporary)
    quality = restoration_quality(SuperResolution(scale=scale, weights=str(out)), images[held_out], scale=scale)
    record: Open = learner.record() | {
        "images": {"learnt_from": len(rows), "held_out": len(held_out)},
        "held_out": quality,
        "sha256": sha256(out),
    }
    write_json(record_file, record)
    checkpoint.unlink(missing_ok=True)
    return out


def _check(images: np.ndarray, out: Path, settings: Settings) -> None:
    check_images(images)
    if out.suffix != ".safetensors":
        raise DataError(f"a file ending in {out.suffix!r}", where=out, expected=".safetensors", remedy="name it so")
    if settings.scale not in (2, 4, 8):
        raise DataError(f"scale {settings.scale}", expected="2, 4 or 8", remedy="use 4")
    for name, least in {"steps": 1, "blocks": 1, "filters": 3, "batch_size": 1, "crop": 16}.items():
        if getattr(settings, name) < least:
            raise DataError(f"{name} {getattr(settings, name)}", expected=f"{least} or more", remedy="leave it out")
    if not 0 <= settings.adversarial_share <= 1:
        raise DataError(f"adversarial_share {settings.adversarial_share}", expected="0 to 1", remedy="leave it out")
    if min(images.shape[1:3]) < 16:
        raise DataError(f"images of {images.shape[1]}x{images.shape[2]} pixels", expected="16x16 or larger")


def _parts(rows: np.ndarray, held_out: np.ndarray | None, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from and rows to measure on, checked to be there and disjoint."""
    rows = np.asarray(rows, np.int64)
    if held_out is None:
        drawn = np.random.default_rng(seed).permutation(rows)
        held_out, rows = np.split(drawn, [min(HELD_OUT, max(1, len(rows) // 10))])
    held_out = np.asarray(held_out, np.int64)
    for name, part in (("to learn from", rows), ("held out", held_out)):
        if part.ndim != 1 or not len(part) or part.min() < 0 or part.max() >= count:
            raise DataError(f"no usable rows {name}", expected=f"numbers from 0 to {count - 1}, at least two in all")
    if both := len(np.intersect1d(rows, held_out)):
        raise SplitError(
            f"{both} patches both learnt from and held out", expected="none", remedy="give disjoint `rows`, `held_out`"
        )
    return np.sort(rows), np.sort(held_out)


def _digest(images: np.ndarray, rows: np.ndarray, held_out: np.ndarray) -> str:
    """Tells whether an unfinished learning was of these data: shape, rows, and pixels of a sample of 64."""
    digest = hashlib.sha256(repr(images.shape).encode())
    sample = images[rows[np.unique(np.linspace(0, len(rows) - 1, 64).astype(int))]]
    for array in (rows, held_out, sample):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


# The generator that `prepare --learn` learns on a cohort's training images.


def generator_request(steps: Preprocessing, learn: bool, seed: int) -> Open | None:
    """What decides how images are enlarged, known before a generator is learnt."""
    if learn:
        return {"method": "learnt", "scale": (steps.super_resolution or SuperResolution()).scale, "seed": seed}
    return None if steps.super_resolution is None else steps.super_resolution.describe()


def with_learnt_generator(
    steps: Preprocessing, cohort: Cohort, size: tuple[int, int], out: Path, seed: int, device: str
) -> tuple[Preprocessing, Cohort]:
    """The steps with a generator learnt on training images, and the cohort with the splits that say which these are.

    The generator is kept in `out` with its record. It learns from whole patches, at most 5,000, and is measured on
    validation images where there are any.

    Raises:
        SplitError: The cohort has splits but none for training, or cannot be split.
        DataError: Hardly any training image can be read.
    """
    cohort = _with_splits(cohort, seed)
    file = out / GENERATOR
    if not (file.is_file() and file.with_suffix(".json").is_file()):
        training = _readable(cohort, "train", size, MOST_LEARNT)
        if len(training) < 2:
            raise DataError(f"{len(training)} training images can be read", where=cohort.name, expected="more")
        measured = _readable(cohort, "validation", size, MOST_MEASURED)
        rows = np.arange(len(training) + len(measured))
        learn_super_resolution(
            np.stack(training + measured),
            rows[: len(training)],
            file,
            held_out=rows[len(training) :] if measured else None,
            scale=(steps.super_resolution or SuperResolution()).scale,
            seed=seed,
            device=device,
        )
    scale = (steps.super_resolution or SuperResolution()).scale
    learnt = SuperResolution(scale=scale, weights=str(file)).pinned()
    return steps.model_copy(update={"super_resolution": learnt}), cohort


def _with_splits(cohort: Cohort, seed: int) -> Cohort:
    if cohort.table["split"].notna().any():
        if not (cohort.table["split"] == "train").any():
            raise SplitError("no training images to learn super-resolution from", where=cohort.name, expected="some")
        return cohort
    seen = Looks(cohort).table
    splits = assign_splits(cohort, seed=seed, copies=exact_copies(cohort.table["id"], seen))
    split = cohort.table["id"].map(splits.table.set_index("id")["split"])
    note = f"split here, so that super-resolution learns from training images alone; leakage {splits.leakage}"
    say(f"note: {note}")
    return replace(cohort, table=cohort.table.assign(split=split), notes=(*cohort.notes, note))


def _readable(cohort: Cohort, split: str, size: tuple[int, int], most: int) -> list[np.ndarray]:
    """At most `most` images of a split, evenly spread; those that cannot be read are told with the others later."""
    paths: pd.Series = cohort.table.loc[(cohort.table["split"] == split).fillna(False), "path"]
    chosen = paths.iloc[np.unique(np.linspace(0, len(paths) - 1, most).astype(int))] if len(paths) else paths
    images = []
    for path in track(chosen, f"reading {split} images", total=len(chosen)):
        try:
            images.append(fit(read_image(path, cohort.bits), size))
        except ImageError:
            continue
    return images
