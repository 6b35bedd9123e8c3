"""What a data set's own tables and folders hold, also where they contradict themselves.

`open_cohort` leaves out or refuses what it cannot use. The audit is to name it, row by row: a `Source` has every row of
the label table and every image beside it, and a cohort even where `open_cohort` refuses one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.files import absolute_paths, list_images
from tumortrace.cohorts.labels import binary_labels
from tumortrace.cohorts.layouts import LAYOUTS, open_cohort
from tumortrace.cohorts.layouts.table import FILE_COLUMNS, table_in
from tumortrace.cohorts.tables import column_groups, files_by_id, read_table, standard_columns, unique_ids
from tumortrace.errors import CohortError

_READ_FURTHER = ["split", "x", "y", "width", "height"]


def _no_rows() -> pd.DataFrame:
    return pd.DataFrame({"id": [], "text": [], "file": []}, dtype=object)


@dataclass(frozen=True)
class Source:
    """A cohort with what its files hold beyond it.

    Attributes:
        cohort: The cohort; where `open_cohort` refuses, of the rows that can be used.
        listed: Every row of the label table: `id`, `text` (the label), `file` (missing where there is none), by line.
        unlisted: Images that no row and no class folder names.
        refusal: Why `open_cohort` refuses the data, or nothing.
    """

    cohort: Cohort
    listed: pd.DataFrame = field(default_factory=_no_rows)
    unlisted: tuple[str, ...] = ()
    refusal: str = ""


def open_source(data: str | os.PathLike[str] | Cohort, **reading: Any) -> Source:
    """The cohort of `data` and what lies beside it.

    Args:
        data: As `open_cohort` takes it.
        **reading: Options of `open_cohort`.

    Raises:
        CohortError: No layout fits, or nothing usable is left.

    Example:
        >>> import tempfile; from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (8, 8)).save(folder / "a.png")
        >>> _ = (folder / "labels.csv").write_text("file,label\\na.png,benign\\nb.png,malignant\\nc.png,maybe\\n")
        >>> source = open_source(folder)
        >>> len(source.cohort), source.listed["file"].notna().tolist(), "1 class (benign)" in source.refusal
        (1, [True, False, False], True)
    """
    table = None if isinstance(data, Cohort) else _label_table(Path(data).expanduser())
    try:
        cohort = open_cohort(data, **reading)
    except CohortError as error:
        if table is None:
            raise
        listed, rows = _listed(table)
        return Source(_leniently(table, listed, rows, reading, error), listed, _beside(listed), str(error))
    if table is not None and cohort.layout in ("kaggle", "table"):
        listed, _ = _listed(table)
        return Source(cohort, listed, _beside(listed))
    if cohort.layout == "class-folders" and isinstance(data, str | os.PathLike):
        folder = Path(data).expanduser()
        images = absolute_paths(folder, list_images(folder).images)
        return Source(cohort, unlisted=tuple(sorted(set(images) - set(cohort.table["path"]))))
    return Source(cohort)


def read_alone(text: str, classes: tuple[str, str]) -> int | None:
    """1 or 0 for a text that names one of the classes or is known by its spelling; None for any other.

    Example:
        >>> [read_alone(text, ("a", "b")) for text in ("B", "Tumour", "no", "2", "")]
        [1, 1, 0, None, None]
    """
    for label, name in enumerate(classes):
        if text.strip().casefold() == name.casefold():
            return label
    for other in ("0", "1"):
        try:
            label = binary_labels([text, other]).numbers[0]
        except CohortError:
            continue
        return None if pd.isna(label) else int(label)
    return None


def _label_table(path: Path) -> Path | None:
    """The table that the layout of `path` opens, or None."""
    layouts = sorted((LAYOUTS[name] for name in LAYOUTS), key=lambda layout: layout.rank)
    layout = next((layout for layout in layouts if layout.recognises(path)), None)
    if layout not in (LAYOUTS["kaggle"], LAYOUTS["table"]):
        return None
    if path.is_file():
        return path
    if layout is LAYOUTS["table"]:
        return table_in(path)
    tables = [file for file in sorted(path.iterdir()) if file.name[0] != "."]
    return min((file for file in tables if file.name.endswith("train_labels.csv")), key=lambda file: len(file.name))


def _listed(file: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every row as id, text and file, and the table as it stands."""
    rows, _ = read_table(file, keep_repeats=True)
    column = next((name for name in (*FILE_COLUMNS, "id") if name in rows), None)
    if column is None:
        raise CohortError(
            "no column says where the images are", where=file, expected=f"{', '.join(FILE_COLUMNS)} or id"
        )
    texts = rows[column].astype(str)
    files = _find(texts.tolist(), file)
    ids = rows["id"] if "id" in rows else pd.Series(unique_ids(texts.tolist())[0], rows.index, dtype=object)
    text = rows["label"] if "label" in rows else pd.Series("", rows.index, dtype=object)
    return pd.DataFrame({"id": ids, "text": text, "file": pd.Series(files, rows.index, dtype=object)}), rows


def _find(texts: Sequence[str], table: Path) -> list[str | None]:
    """The file of each text: beside the table or in one of the folders that layouts look into; the best one counts."""
    home = Path(os.path.abspath(table.parent))
    best: list[str | None] = [None] * len(texts)
    for place in (home / "train", home / table.stem, home / "images", home):
        if None in best and place.is_dir():
            images = list_images(place).images
            found = files_by_id([text.replace("\\", "/").removeprefix("./") for text in texts], place, images)
            best = found if found.count(None) < best.count(None) else best
    return [found or _as_it_stands(text) for found, text in zip(best, texts, strict=True)]


def _as_it_stands(text: str) -> str | None:
    file = text.partition("::")[0]
    return text if os.path.isabs(file) and os.path.isfile(file) else None


def _beside(listed: pd.DataFrame) -> tuple[str, ...]:
    """Images in the folders of the listed ones that no row names."""
    known = set(listed["file"].dropna())
    folders = {os.path.dirname(file) for file in known if "::" not in file}
    there = {
        os.path.join(folder, name) for folder in folders for name in list_images(Path(folder)).images if "/" not in name
    }
    return tuple(sorted(there - known))


def _leniently(
    file: Path, listed: pd.DataFrame, rows: pd.DataFrame, reading: dict[str, Any], refusal: CohortError
) -> Cohort:
    """The cohort of the rows that have a file, each id and label once; labels that cannot be read are missing."""
    classes = _classes(listed["text"], reading.get("positive"))
    texts = {text: read_alone(text, classes) for text in listed["text"].unique()}
    usable = listed[listed["file"].notna() & (listed["id"] != "")].drop_duplicates(["id", "text"])
    if usable.empty:
        raise refusal
    table = rows.loc[usable.index].drop(columns=["path"], errors="ignore")
    table = table.assign(id=usable["id"], path=usable["file"], label=usable["text"].map(texts))
    try:
        table = standard_columns(table, file)
    except CohortError:  # a split or a number that is none, as the refusal says
        table = standard_columns(table.drop(columns=_READ_FURTHER, errors="ignore"), file)
    groups = column_groups(table, reading.get("group_column"), where=file)
    table = table if groups is None else table.assign(group=groups[0])
    notes = (f"cannot be trained on as it is: {refusal}", *([groups[1]] if groups else []))
    return Cohort(file.stem, "table", table, classes, reading.get("resolution"), notes)


def _classes(texts: pd.Series, positive: str | None) -> tuple[str, str]:
    """Names of the classes after the two commonest labels that are known to be two classes."""
    common = [text for text in texts.str.strip().value_counts().index if text][:6]
    for one in common:
        for other in common:
            try:
                labels = binary_labels([one, other], positive=positive)
            except CohortError:
                continue
            return labels.classes
    return "negative", "positive"
