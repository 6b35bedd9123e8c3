"""Data as people keep it, opened into a `Cohort` by looking at what is there.

Adding a layout is adding a file to this package: a class after the Protocol `Layout`, an instance of it registered
under its name in `LAYOUTS`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, Unpack

import pandas as pd

from tumortrace.cohorts.cohort import COLUMNS, Cohort, Reading, ReadingOptions, Source
from tumortrace.cohorts.columns import column_groups
from tumortrace.cohorts.damage import refuse_damaged, refuse_lost_tables
from tumortrace.cohorts.files import AS_CSV, images_beside, is_spreadsheet, only_folder
from tumortrace.cohorts.labels import binary_labels, commonest_classes, read_alone
from tumortrace.cohorts.levels import group_folders, parts_by_pattern, relative
from tumortrace.cohorts.shards import shards_of
from tumortrace.cohorts.tables import standard_columns, unique_ids
from tumortrace.errors import CohortError, plain
from tumortrace.records.remote import at_hand, mirrored
from tumortrace.records.run import RunRecord
from tumortrace.records.stores import told, url_of
from tumortrace.registry import Registry


@dataclass(frozen=True)
class Listing:
    """What the tables and folders of data hold, also what cannot be used, for the audit to name.

    Attributes:
        rows: Every row of the label table, indexed by its line: `id`, `text` (the label), `file` (missing where there
            is none), and all columns of the table; empty where the data have no such table.
        strays: Absolute paths of images beside the others that no row and no class folder names.
        table: The label table.
    """

    rows: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"id": [], "text": [], "file": []}, dtype=object))
    strays: tuple[str, ...] = ()
    table: Path | None = None

    @classmethod
    def of_table(cls, table: Path, rows: pd.DataFrame, column: str, files: Sequence[str | None]) -> Listing:
        """The listing of a label table.

        Args:
            table: The table.
            rows: All its rows, as `read_table` reads them.
            column: Which of its columns names the images.
            files: The file of each row, as the layout finds them.
        """
        ids = rows["id"] if "id" in rows else pd.Series(unique_ids(rows[column].tolist())[0], rows.index, dtype=object)
        text = rows.get("label", "")
        named = pd.Series(list(files), rows.index, dtype=object)
        return cls(rows.assign(id=ids, text=text, file=named), tuple(images_beside(named.dropna())), table)


class Layout(Protocol):
    """One way of keeping data.

    Attributes:
        rank: Layouts are tried in this order: the more particular ones first.
        looks_like: What the user would see, for messages.
        everything: Whether every image below the folder belongs to it, so that pictures written there would, too.
        columns: Options of `Reading` that name its columns or fields: `label_column`, `image_column`.
    """

    rank: int
    looks_like: str
    everything: bool = False
    columns: tuple[str, ...] = ()

    def recognises(self, path: Path) -> bool:
        """Whether a path looks like this layout, told quickly and without reading images."""

    def read(self, path: Path, reading: Reading) -> Cohort:
        """The cohort of a path that does.

        Raises:
            CohortError: The data cannot be used, or contradict themselves.
        """

    def listing(self, path: Path, reading: Reading) -> Listing:
        """What tables and folders hold beyond the cohort, for the audit; files are found as `read` finds them.

        Raises:
            CohortError: Not even that can be told.
        """
        return Listing()


LAYOUTS: Registry[Layout] = Registry("layout", "tumortrace.cohorts.layouts", CohortError)


def open_cohort(
    data: str | os.PathLike[str] | Cohort | Source, reading: Reading | None = None, **options: Unpack[ReadingOptions]
) -> Cohort:
    """The cohort of data in any known layout, which is found out by looking.

    Args:
        data: A folder, a table, an HDF5 file, an image, also as an URL (s3, gs, hf, https), or `synthetic:patches` or
            `synthetic:mri`. A cohort that is open already is returned as it is; of a `Source`, what it came from is
            opened again.
        reading: How to read the data.
        **options: The same as keywords: the fields of `Reading`.

    Returns:
        The cohort, with notes on everything that was assumed, and its `source`.

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
        >>> open_cohort(cohort.source).fingerprint == cohort.fingerprint
        True
    """
    reading = replace(reading or Reading(), **options)
    if isinstance(data, Cohort):
        if reading != Reading():
            raise CohortError("options for reading", where=data.name, expected="none, as the cohort is open already")
        return data
    if isinstance(data, Source):
        reading = replace(data.reading, **options)
        data = data.path
    path = at_hand(data)
    with _told(path):
        layout, place = _layout_of(path)
        cohort = layout.read(place, reading)
    for option in ("label_column", "image_column"):
        if getattr(reading, option) and option not in layout.columns:
            found = f"--{option.replace('_', '-')} for data that are read as {cohort.layout}"
            raise CohortError(found, where=path, expected="a table", remedy="name the table instead of its folder")
    if place != path:
        note = f"opened {place.relative_to(path).as_posix()}/, the one folder of images in {path}"
        cohort = replace(cohort, notes=(note, *cohort.notes))
    cohort = _with_groups(_with_labels(cohort, reading, path), reading, path)
    cohort = cohort.in_order(reading.class_order, path)
    own = [column for column in cohort.table if column not in COLUMNS]
    return replace(
        cohort,
        table=cohort.table[[*COLUMNS, *own]],
        resolution=reading.resolution or cohort.resolution,
        source=Source(_named(data, path), reading),
        bits=reading.bits,
    )


@dataclass(frozen=True)
class Opened:
    """A cohort with what its files hold beyond it.

    Attributes:
        cohort: The cohort; where `open_cohort` refuses, of the rows that can be used.
        listing: Every row and every image beside them.
        refusal: Why `open_cohort` refuses the data, or nothing.
    """

    cohort: Cohort
    listing: Listing = field(default_factory=Listing)
    refusal: str = ""


def open_unlabelled(data: str | os.PathLike[str], **options: Unpack[ReadingOptions]) -> Cohort:
    """The images of a folder, at any depth, or one image, whatever its folders are called.

    Raises:
        CohortError: There are none.
    """
    path = at_hand(data)
    with _told(path):
        cohort = LAYOUTS["unlabelled"].read(path, Reading(**options))
    return replace(cohort, source=Source(_named(data, path), Reading(**options)))


def open_leniently(data: str | os.PathLike[str] | Cohort, **options: Unpack[ReadingOptions]) -> Opened:
    """The cohort of `data` and what lies beside it, for the audit, which is to name what `open_cohort` refuses.

    Args:
        data: As `open_cohort` takes it.
        **options: The fields of `Reading`.

    Raises:
        CohortError: No layout fits, or nothing usable is left.

    Example:
        >>> import tempfile; from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (8, 8)).save(folder / "a.png")
        >>> _ = (folder / "labels.csv").write_text("file,label\\na.png,benign\\nb.png,malignant\\nc.png,maybe\\n")
        >>> opened = open_leniently(folder)
        >>> len(opened.cohort), opened.listing.rows["file"].notna().tolist(), "1 class (benign)" in opened.refusal
        (1, [True, False, False], True)
    """
    refusal = None
    try:
        cohort = open_cohort(data, **options)
    except CohortError as error:
        refusal = error
    if isinstance(data, Cohort):
        return Opened(cohort)
    path = at_hand(data)
    if refusal is None:
        with _told(path):
            return Opened(cohort, LAYOUTS[cohort.layout].listing(_layout_of(path)[1], Reading(**options)))
    try:
        with _told(path):
            layout, place = _layout_of(path)
            listing = layout.listing(place, Reading(**options))
    except CohortError:
        raise refusal from None
    return Opened(_usable(listing, Source(told(data), Reading(**options)), refusal), listing, str(refusal))


def refuse_within(out: Path, cohort: Cohort) -> None:
    """Refuse a folder for results within data of which it would become part, as `train .` in a folder of images.

    Args:
        out: The folder to write.
        cohort: The cohort.

    Raises:
        CohortError: It lies there, and the layout takes every image below the folder.
    """
    data = mirrored(cohort.source.path) if cohort.source else None
    if data is None or not data.is_dir() or not LAYOUTS[cohort.layout].everything:
        return
    if out.resolve().is_relative_to(data.resolve()):
        raise CohortError(
            "lies within the data, whose folders of images are the classes",
            where=out,
            expected="a folder elsewhere",
            remedy="choose another -o, or work from outside the data",
        )


def _named(data: str | os.PathLike[str], path: Path) -> str:
    """The data as a record names them."""
    return told(data) if url_of(data) or not path.exists() else os.path.abspath(path)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into one line."""
    try:
        yield
    except OSError as error:
        raise CohortError(f"cannot be read ({error.strerror or error})", where=error.filename or path) from None


def _layout_of(path: Path) -> tuple[Layout, Path]:
    """The layout, and the folder where it begins: further down where one folder after the other is the only one."""
    refuse_lost_tables(path)
    layouts = sorted((LAYOUTS[name] for name in LAYOUTS), key=lambda layout: layout.rank)
    layout = next((layout for layout in layouts if layout.recognises(path)), None)
    if RunRecord.exists(path):
        raise CohortError("a run folder, which holds no data", where=path, remedy="name the folder of images")
    if layout is None or layout is layouts[-1] or path.is_file():
        refuse_damaged(path, depth=4 if layout is None else 0)
    if layout is None:
        if is_spreadsheet(path.name) and path.is_file():
            raise CohortError("a spreadsheet", where=path, expected="a table of text", remedy=AS_CSV)
        if not path.exists():
            generated = "synthetic:patches, synthetic:tissues and synthetic:mri are generated"
            remedy = f"check the path; {generated}"
            raise CohortError("there is no such file or folder", where=path, expected="data", remedy=remedy)
        if path.is_dir() and (single := _files_known(path, layouts)):
            names = ", ".join(map(str, single[:3]))
            raise CohortError("a folder around files that are data each", where=path, remedy=f"name one: {names}")
        known = "; ".join(layout.looks_like for layout in layouts)
        raise CohortError(_what_lies(path), where=path, expected=f"one of: {known}")
    inner: Path | None = path
    while layout is layouts[-1] and path.is_dir() and inner and (inner := only_folder(inner)):
        deeper = next((other for other in layouts[:-1] if other.recognises(inner)), None)
        if deeper:
            return deeper, inner
    return layout, path


def _what_lies(path: Path) -> str:
    """What there is instead of data."""
    if not path.is_dir():
        return "no layout that is known here"
    files = shards_of(path, re.compile(".+"))
    if not files:
        return "a folder without files"
    many = "1 file" if len(files) == 1 else f"{len(files):,} files"
    return f"no images or tables that are known here, but {many} such as {plain(files[0].name)}"


def _files_known(folder: Path, layouts: Sequence[Layout]) -> list[Path]:
    """Those of a folder's first files that open by themselves."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))[:20]
    files = [file for file in files if file.suffix.lower() != ".txt"]  # which may be a table, but mostly is a text
    return [file for file in files if any(layout.recognises(file) for layout in layouts)]


def _with_labels(cohort: Cohort, reading: Reading, path: Path) -> Cohort:
    if reading.label_from_name is None:
        return cohort
    names = parts_by_pattern(cohort.table, reading.label_from_name, "--label-from-name", path)
    where = f"labels in names of {cohort.name}"
    labels = binary_labels(names.tolist(), positive=reading.positive, merge=reading.merge, where=where)
    notes = (*cohort.notes, f"labels come from names ({reading.label_from_name})")
    if labels.note:
        notes += (labels.note,)
    return replace(cohort, table=labels.into(cohort.table), notes=notes, **labels.naming)


def _with_groups(cohort: Cohort, reading: Reading, path: Path) -> Cohort:
    """Groups by the pattern that is asked for, else from a column, else from folders that are named as patients."""
    if reading.group_from_name is not None:
        groups = parts_by_pattern(cohort.table, reading.group_from_name, "--group-from-name", path)
        note = f"groups come from names ({reading.group_from_name}): {groups.nunique():,} groups"
    elif named := column_groups(cohort.table, reading.group_column, where=cohort.name):
        groups, note = named
    elif any(image.part for image in cohort.images) and cohort.table["group"].notna().any():
        return cohort
    else:
        folders = group_folders(_names_below(cohort, path))
        if folders is None:
            return cohort
        names, level = folders
        groups = pd.Series(names, index=cohort.table.index, dtype="string")
        told = ", ".join(sorted(set(names))[:2])
        note = f"groups come from the folders of level {level} ({told}, ...): {groups.nunique():,} groups"
        note += "; --group-from-name takes others"
    return replace(cohort, table=cohort.table.assign(group=groups), notes=(*cohort.notes, note))


def _names_below(cohort: Cohort, path: Path) -> list[str]:
    """Each image by its path below the data, and within a file of many by its id, which may have folders too."""
    parts = [bool(image.part) for image in cohort.images]
    paths = cohort.table["id"].tolist() if all(parts) else relative(cohort.table["path"].tolist(), path)
    return list(paths)


def _usable(listing: Listing, source: Source, refusal: CohortError) -> Cohort:
    """The cohort of the rows that have a file, each id and label once; labels that cannot be read are missing."""
    rows, reading = listing.rows, source.reading
    usable = rows[rows["file"].notna() & (rows["id"] != "")].drop_duplicates(["id", "text"])
    if listing.table is None or usable.empty:
        raise refusal
    classes = commonest_classes(rows["text"], reading.positive)
    texts = {text: read_alone(text, classes) for text in rows["text"].unique()}
    table = usable.drop(columns=["path", "text"], errors="ignore").rename(columns={"file": "path"})
    table = table.assign(label=usable["text"].map(texts))
    try:
        table = standard_columns(table, listing.table)
    except CohortError:  # a split or a number that is none, as the refusal says
        further = ["split", "x", "y", "width", "height"]
        table = standard_columns(table.drop(columns=further, errors="ignore"), listing.table)
    groups = column_groups(table, reading.group_column, where=listing.table)
    table = table if groups is None else table.assign(group=groups[0])
    notes = (f"cannot be trained on as it is: {refusal}", *([groups[1]] if groups else []))
    return Cohort(
        listing.table.stem, "table", table, classes, reading.resolution, notes, source=source, bits=reading.bits
    )
