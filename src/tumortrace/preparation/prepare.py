"""Images prepared once and kept: cropped, normalised, equalised, enlarged, as a cohort of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

from joblib import Parallel, delayed

from tumortrace.cohorts.cohort import Cohort, ReadingOptions
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.looks import Looks
from tumortrace.cohorts.store import usual_size
from tumortrace.cohorts.telling import tell
from tumortrace.errors import DataError
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.models.device import resolve_device
from tumortrace.preparation.learn_super_resolution import generator_request, with_learnt_generator
from tumortrace.preparation.pictures import Outcome, prepare_piece
from tumortrace.preparation.prepared_folder import PreparedFolder, finish, refuse_inside, safe_names
from tumortrace.records.data import PreparedRecord
from tumortrace.records.progress import say, track
from tumortrace.records.record import Open

PIECE = 32  # images between two lines of the journal
_POOL_FROM = 1000  # images; below, starting processes takes longer than it saves
_STEPS = {"crop", "stain", "equalisation", "super_resolution", "size", "filter"}


def prepare(
    data: str | os.PathLike[str] | Cohort,
    out: Path,
    preprocessing: Preprocessing,
    *,
    learn: bool = False,
    before_after: int = 4,
    seed: int = 0,
    device: str = "auto",
    workers: int | None = None,
    **reading: Unpack[ReadingOptions],
) -> Path:
    """A folder with the images after all steps but the normalisation of values, which opens as a cohort again.

    It holds `images/` (8-bit PNG), `labels.csv` (id, path, label, group, split; x and y where known), `prepared.json`
    (steps, source, counts, versions), `before_after.png`, and `failed.csv` where images could not be read. A call
    that was interrupted is taken up where it stopped when it is made again.

    Args:
        data: Any known layout, or an open cohort.
        out: Folder to write: new, empty, or begun by the same call.
        preprocessing: The steps.
        learn: Learn the generator for super-resolution on the training images first. Data without splits get theirs
            here, so that no test image has been learnt from.
        before_after: Images in the picture; 0 draws none.
        seed: Seed of the learning and of such splits.
        device: Where a generator computes: "auto", "cpu", "cuda", "cuda:1" or "mps".
        workers: Processes; default one per core, at most 8, where there are enough images to gain by it.
        **reading: How the data are read: options of `open_cohort`.

    Returns:
        `out`.

    Raises:
        CohortError: The data do not open.
        DataError: No image can be read, or `out` lies within the data.
        ModelError: The generator's file is missing or unfit.
        RunError: `out` holds something else, or images prepared otherwise.

    Example:
        >>> import tempfile; from tumortrace.cohorts.synthetic import synthesise
        >>> folder = Path(tempfile.mkdtemp())
        >>> out = prepare(synthesise("patches", folder / "a", count=16), folder / "b", Preprocessing(stain="macenko"))
        >>> cohort = open_cohort(out)
        >>> len(cohort), cohort.classes, cohort.preparation["counts"]["failed"]
        (16, ('normal', 'tumour'), 0)
    """
    out = Path(out)
    refuse_inside(out, data)
    enlargement = generator_request(preprocessing, learn, seed)
    cohort = open_cohort(data, **reading)
    if not len(cohort):
        raise DataError("no image to prepare", where=cohort.name, expected="at least one")
    for note in cohort.notes:
        say(f"note: {note}")
    size = usual_size(cohort)
    tell(cohort, Looks(cohort, workers=workers).table, size)
    request: Open = {
        "data": cohort.fingerprint,
        "steps": preprocessing.model_dump(mode="json", include=_STEPS - {"super_resolution"}),
        "super-resolution": enlargement,
    }
    folder = PreparedFolder(out, request)
    with folder.locked():
        if learn:
            preprocessing, cohort = with_learnt_generator(preprocessing, cohort, size, out, seed, device)
        names = safe_names(cohort.table["id"].tolist())
        folder.resume(names)
        _fill(folder, cohort, names, size, preprocessing, str(resolve_device(device)), workers)
        finish(folder, cohort, names, size, preprocessing, before_after)
    return out


def _fill(
    folder: PreparedFolder,
    cohort: Cohort,
    names: list[str],
    size: tuple[int, int],
    steps: Preprocessing,
    device: str,
    workers: int | None,
) -> None:
    """Prepare what is not there yet, in parallel."""
    todo = [row for row in range(len(cohort)) if row not in folder.outcomes]
    if folder.outcomes:
        say(f"{len(folder.outcomes):,} of {len(cohort):,} images are there already")
    if todo:
        folder.write_record(PreparedRecord(status="unfinished"))
    learnt = steps.super_resolution is not None and steps.super_resolution.weights is not None
    several = len(todo) >= _POOL_FROM and not learnt  # a generator uses all cores, or one GPU, by itself
    jobs = workers or (min(os.cpu_count() or 1, 8) if several else 1)
    paths = cohort.table["path"].tolist()
    pieces = [todo[start : start + PIECE] for start in range(0, len(todo), PIECE)]
    tasks = (
        delayed(prepare_piece)(
            [paths[row] for row in piece],
            [folder.images / names[row] for row in piece],
            size,
            steps,
            device,
            cohort.bits,
        )
        for piece in pieces
    )
    done = Parallel(n_jobs=jobs, return_as="generator", pre_dispatch="4*n_jobs")(tasks)

    def one_by_one() -> Iterator[Outcome]:
        for piece, outcomes in zip(pieces, done, strict=True):
            folder.add(piece, outcomes)
            yield from outcomes

    for _ in track(one_by_one(), "preparing images", total=len(todo)):
        pass
