"""Data as people keep it, opened into a `Cohort` by looking at what is there.

Each layout is one file of this package: `recognises(path)` looks, `read(path, options)` opens, and registering both
as a `Layout` makes it known. Adding a layout is adding a file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from tumortrace.cohorts.cohort import COLUMNS, Cohort
from tumortrace.cohorts.labels import binary_labels
from tumortrace.cohorts.tables import column_groups, parts_of_names
from tumortrace.errors import CohortError
from tumortrace.registry import Registry


class Reading(TypedDict, total=False):
    """How data are to be read: the options of `open_cohort`, which every verb that takes data takes too."""

    positive: str | None
    group_column: str | None
    group_from_name: str | None
    label_from_name: str | None
    resolution: float | None


#: Their names, under which runs record them.
READING = tuple(Reading.__annotations__)


@dataclass(frozen=True)
class Options:
    """What the user says about the data beyond where they are, for layouts; see `open_cohort`."""

    positive: str | None = None
    group_column: str | None = None
    group_from_name: str | None = None
    label_from_name: str | None = None


@dataclass(frozen=True)
class Layout:
    """One way of keeping data.

    Attributes:
        recognises: Whether a path looks like this layout, told quickly and without reading images.
        read: The cohort of a path that does; raises CohortError.
        rank: Layouts are tried in this order: the more particular ones first.
        looks_like: What the user would see, for messages.
        everything: Whether every image below the folder belongs to it, so that pictures written there would, too.
    """

    recognises: Callable[[Path], bool]
    read: Callable[[Path, Options], Cohort]
    rank: int
    looks_like: str
    everything: bool = False


LAYOUTS: Registry[Layout] = Registry("layout", "tumortrace.cohorts.layouts", CohortError)


def open_cohort(
    data: str | os.PathLike[str] | Cohort,
    *,
    positive: str | None = None,
    group_column: str | None = None,
    group_from_name: str | None = None,
    label_from_name: str | None = None,
    resolution: float | None = None,
) -> Cohort:
    """The cohort of data in any known layout, which is found out by looking.

    Args:
        data: A folder, a table, an HDF5 file, an image, or `synthetic:patches` or `synthetic:mri`. A cohort that is
            open already is returned as it is.
        positive: Name of the positive class, where its spelling does not tell.
        group_column: Column of the user's table that names the slide or patient.
        group_from_name: Regular expression that finds the slide or patient in each file's name (without extension):
            its one capturing group, or else all that it matches.
        label_from_name: The same for the class; it replaces labels found otherwise.
        resolution: Micrometres per pixel, where the data do not say; it replaces what they say.

    Returns:
        The cohort, with notes on everything that was assumed.

    Raises:
        CohortError: Nothing is there, no layout fits, or the data contradict themselves.

    Example:
        >>> import tempfile; from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("benign", "malignant"):
        ...     (folder / name).mkdir()
        ...     Image.new("RGB", (8, 8)).save(folder / name / f"p7_{name}.png")
        >>> cohort = open_cohort(folder, group_from_name=r"^(p\\d+)_")
        >>> cohort.layout, cohort.table["label"].tolist(), cohort.table["group"].tolist()
        ('class-folders', [0, 1], ['p7', 'p7'])
    """
    options = Options(positive, group_column, group_from_name, label_from_name)
    if resolution is not None and not 0 < resolution < 1000:
        raise CohortError(f"--resolution {resolution}", expected="micrometres per pixel, such as 0.5 or 0.97")
    if isinstance(data, Cohort):
        if options != Options() or resolution is not None:
            raise CohortError("options for reading", where=data.name, expected="none, as the cohort is open already")
        return data
    path = Path(data).expanduser()
    layouts = sorted((LAYOUTS[name] for name in LAYOUTS), key=lambda layout: layout.rank)
    try:
        layout = next((layout for layout in layouts if layout.recognises(path)), None)
        if (path / "run.json").is_file():
            raise CohortError("a run folder, which holds no data", where=data, remedy="name the folder of images")
        if layout is None:
            there = "no layout that is known here" if path.exists() else "there is no such file or folder"
            known = "; ".join(layout.looks_like for layout in layouts)
            raise CohortError(there, where=data, expected=f"one of: {known}")
        cohort = layout.read(path, options)
    except OSError as error:
        raise CohortError(f"cannot be read ({error.strerror or error})", where=error.filename or data) from None
    cohort = _with_groups(_with_labels(cohort, options), options)
    own = [column for column in cohort.table if column not in COLUMNS]
    return replace(cohort, table=cohort.table[[*COLUMNS, *own]], resolution=resolution or cohort.resolution)


def refuse_within(out: Path, data: object, cohort: Cohort) -> None:
    """Refuse a folder for results within data of which it would become part, as `train .` in a folder of images.

    Args:
        out: The folder to write.
        data: What the cohort was opened from.
        cohort: The cohort.

    Raises:
        CohortError: It lies there, and the layout takes every image below the folder.
    """
    if not isinstance(data, str | os.PathLike) or not os.path.isdir(data) or not LAYOUTS[cohort.layout].everything:
        return
    if out.resolve().is_relative_to(Path(data).resolve()):
        raise CohortError(
            "lies within the data, whose folders of images are the classes",
            where=out,
            expected="a folder elsewhere",
            remedy="choose another -o, or work from outside the data",
        )


def _with_labels(cohort: Cohort, options: Options) -> Cohort:
    if options.label_from_name is None:
        return cohort
    names = parts_of_names(cohort.table, options.label_from_name, "--label-from-name")
    labels = binary_labels(names.tolist(), positive=options.positive, where=f"labels in file names of {cohort.name}")
    notes = (*cohort.notes, f"labels come from file names ({options.label_from_name})")
    if labels.note:
        notes += (labels.note,)
    return replace(cohort, table=cohort.table.assign(label=labels.numbers), classes=labels.classes, notes=notes)


def _with_groups(cohort: Cohort, options: Options) -> Cohort:
    if options.group_from_name is not None:
        groups = parts_of_names(cohort.table, options.group_from_name, "--group-from-name")
        note = f"groups come from file names ({options.group_from_name}): {groups.nunique()} groups"
    else:
        found = column_groups(cohort.table, options.group_column, where=cohort.name)
        if found is None:
            return cohort
        groups, note = found
    return replace(cohort, table=cohort.table.assign(group=groups), notes=(*cohort.notes, note))
