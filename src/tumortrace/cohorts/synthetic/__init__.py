"""Synthetic tissue, slides and breast MRI, made by procedure: the same seed gives the same pictures.

Pictures for demonstrations and tests; a model trained on them says nothing about patients.
Research use only, not a medical device.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Literal, get_args

from tumortrace.cohorts.synthetic.folder import PROCEDURE, is_record, open_synthetic, refusing
from tumortrace.cohorts.synthetic.mri import write_slices
from tumortrace.cohorts.synthetic.patches import write_patches
from tumortrace.cohorts.synthetic.slide import is_whole_slide, write_slide
from tumortrace.cohorts.synthetic.slides import write_slides
from tumortrace.errors import CohortError
from tumortrace.records.data import SyntheticRecord
from tumortrace.records.remote import cache_folder

__all__ = ["Kind", "cached_synthetic", "open_synthetic", "parse_synthetic", "synthesise"]

Kind = Literal["patches", "tissues", "slide", "slides", "mri"]

COHORTS: tuple[Kind, ...] = ("patches", "tissues", "mri")
MINIMUM, MAXIMUM = 16, 999_999  # two patches on each of eight slides; six digits in an id
FEWEST_SLIDES = 4  # two of a patient with tumour, two of one without
COUNTS = {"patches": 2000, "tissues": 2000, "slide": 1, "slides": 40, "mri": 200}
"""How many `synth` makes of each kind unless told."""
_SPELLING = "write for example synthetic:patches?count=200&seed=1"
_POOL_FROM = 1000  # below, starting processes takes longer than it saves


def synthesise(kind: Kind, out: Path, *, count: int = 2000, seed: int = 0, workers: int | None = None) -> Path:
    """Synthetic data written to `out`; the same arguments give the same bytes, whatever `workers`.

    - "patches": H&E-like patches of 96x96 px at 1 um per pixel in `patches/`, tumour masks (0, 255) in `masks/`.
      Labelled as PatchCamelyon: 1 when the centre 32x32 px hold tumour. Groups are slides, on three scanners.
    - "tissues": the same of four classes, normal, benign, in situ and invasive, the last two being tumour.
    - "slide": one pyramidal TIFF with true outlines; see `write_slide`.
    - "slides": smaller ones, two of a patient, with metastases of all size classes, and a table; see `write_slides`.
    - "mri": breast MRI slices of 224x224 px in `Benign/` and `Malignant/`, four to a patient.

    Args:
        kind: What to make.
        out: Folder (for a slide also a .tif name). A synthetic cohort there is written over, anything else refused.
        count: Number of pictures, at least 16 (slides: 4); a slide is always one.
        seed: Seed, 0 or more.
        workers: Processes; by default as many as there are cores, at most 8, for a cohort big enough to gain by it.

    Returns:
        The folder, or the slide's file.

    Raises:
        CohortError: When `out` holds something else, or an argument is out of range.

    Example:
        >>> import tempfile
        >>> out = synthesise("patches", Path(tempfile.mkdtemp()) / "tissue", count=16, seed=1)
        >>> sorted(path.name for path in out.iterdir())
        ['cohort.csv', 'cohort.json', 'masks', 'patches']
    """
    _check(kind, count, seed)
    out = Path(out)
    if workers is None:
        workers = min(os.cpu_count() or 1, 8) if count >= _POOL_FROM or kind == "slides" else 1
    with refusing(out):
        if kind == "slide":
            return write_slide(out, seed)
        if kind == "mri":
            write_slices(out, count, seed, workers)
        elif kind == "slides":
            write_slides(out, count, seed, workers)
        else:
            write_patches(out, count, seed, workers, tissues=kind == "tissues")
    return out


def parse_synthetic(spec: str, kinds: tuple[Kind, ...] = COHORTS) -> tuple[Kind, int, int]:
    """Kind, count and seed that `synthetic:KIND?count=N&seed=N` asks for; unless told 2000 (slides: 40) and 0.

    Args:
        spec: The specification.
        kinds: That may be asked for.

    Raises:
        CohortError: When the kind or an option is unknown or out of range.

    Example:
        >>> parse_synthetic("synthetic:patches?count=200&seed=1")
        ('patches', 200, 1)
    """
    scheme, _, rest = spec.partition(":")
    kind, _, query = rest.partition("?")
    values = {"count": COUNTS["slides"] if kind == "slides" else 2000, "seed": 0}
    said: set[str] = set()
    for part in query.split("&") if query else []:
        name, _, value = part.partition("=")
        if name not in values or name in said or not (value.isascii() and value.isdecimal()) or len(value) > 15:
            raise CohortError(
                f"cannot read {part!r}", where=spec, expected="count=N or seed=N, once each", remedy=_SPELLING
            )
        said.add(name)
        values[name] = int(value)
    chosen = {known: known for known in kinds}.get(kind)  # type: ignore[call-overload]
    if scheme != "synthetic" or chosen is None:
        expected = " or ".join(f"synthetic:{known}" for known in kinds)
        raise CohortError("no synthetic cohort of this name", where=spec, expected=expected, remedy=_SPELLING)
    _check(chosen, values["count"], values["seed"])
    return chosen, values["count"], values["seed"]


def cached_synthetic(kind: Kind, count: int = 2000, seed: int = 0) -> Path:
    """The folder (or slide file) of synthetic data in the cache, made when first asked for.

    The cache is the user's cache folder, or the folder that the environment variable `TUMORTRACE_CACHE` names.

    Raises:
        CohortError: When an argument is out of range or the cache cannot be written.
    """
    _check(kind, count, seed)
    root = cache_folder() / "synthetic"
    name = f"{kind}-{seed}" if kind == "slide" else f"{kind}-{count}-{seed}"
    home = root / f"{name}-v{PROCEDURE}"
    if not _whole(kind, home):
        with refusing(root):
            root.mkdir(parents=True, exist_ok=True)
            making = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=root))
            try:
                synthesise(kind, making, count=count, seed=seed)
                if not _whole(kind, home):  # another process may have been faster
                    shutil.rmtree(home, ignore_errors=True)
                    making.rename(home)
            finally:
                shutil.rmtree(making, ignore_errors=True)
    return home / "slide.tif" if kind == "slide" else home


def _check(kind: str, count: int, seed: int) -> None:
    if kind not in get_args(Kind):
        expected = "one of " + ", ".join(get_args(Kind))
        raise CohortError(f"no synthetic data of kind {kind!r}", expected=expected, remedy="choose one of these")
    least = FEWEST_SLIDES if kind == "slides" else MINIMUM
    if kind != "slide" and not least <= count <= MAXIMUM:
        expected = f"{least} to {MAXIMUM}"
        raise CohortError(f"count is {count}", expected=expected, remedy="choose another count")
    if seed < 0:
        raise CohortError(f"seed is {seed}", expected="0 or more", remedy="choose another seed")


def _whole(kind: str, home: Path) -> bool:
    """Whether the cache holds this data, complete."""
    if kind == "slide":
        return is_whole_slide(home / "slide.tif")
    if kind == "slides":
        return is_record(home / SyntheticRecord.FILE) and not (home / SyntheticRecord.UNFINISHED).exists()
    try:
        open_synthetic(home)
    except CohortError:
        return False
    return True
