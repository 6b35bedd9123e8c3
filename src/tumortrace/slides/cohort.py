"""Slides with what is known of them, from a folder or a table: label, patient, split, annotations."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from tumortrace.cohorts.columns import column_groups, listed, split_column, with_label
from tumortrace.cohorts.findings import count
from tumortrace.cohorts.labels import Labels, binary_labels, is_blank
from tumortrace.cohorts.names import masks_among, split_of
from tumortrace.cohorts.tables import examples, files_by_id, files_by_path, read_table, standard_columns, unique_ids
from tumortrace.errors import CohortError, SlideError, shown
from tumortrace.images.readers import slide_suffixes
from tumortrace.records.remote import at_hand
from tumortrace.records.tables import SLIDES
from tumortrace.records.user_tables import SUFFIXES, read_header
from tumortrace.slides.listing import find_slides

SLIDE_COLUMNS = ("slide", "path", "image", "file")
"""Columns that say where a slide is, the first that is there being taken."""
PATIENT_COLUMNS = ("patient", "case", "group")
ANNOTATION_COLUMNS = ("annotations", "annotation")
_UNLABELLED = Labels(pd.Series(dtype="Int64"), ("negative", "positive"), None)


@dataclass(frozen=True)
class SlideEntry:
    """A slide and what is known of it.

    Attributes:
        id: Name of the file without its ending, or more of its path where names repeat, or what the table says.
        path: The slide's file.
        label: 1 positive, 0 negative, None where not known.
        group: The patient, else the slide's id.
        split: `train`, `validation`, `calibration` or `test`, None where none is named.
        annotations: File with outlines, None where none is named.
    """

    id: str
    path: Path
    label: int | None = None
    group: str = ""
    split: str | None = None
    annotations: Path | None = None


@dataclass(frozen=True)
class SlideCohort:
    """Slides of one folder or table.

    Attributes:
        entries: In the order of the table, or of the files' names.
        classes: Names of the negative and the positive class.
        notes: What was assumed while reading.
    """

    entries: tuple[SlideEntry, ...]
    classes: tuple[str, str] = ("negative", "positive")
    notes: tuple[str, ...] = ()


def open_slides(data: str | Path, *, positive: str | None = None, patient_pattern: str | None = None) -> SlideCohort:
    """The slides of a folder, of a table, or the one slide that is named.

    In a folder, the sub-folders give labels where they are two classes and it is plain or named which is positive.
    A CSV, TSV or Parquet table has a column `slide`, `path`, `image` or `file`, relative to the table, and may have
    `id`, `label`, `patient` (or `case`, `group`), `split` and `annotations`; other columns are left alone.

    Args:
        data: Folder, table or slide, or `synthetic:slides?count=40&seed=0`.
        positive: Name of the positive class.
        patient_pattern: Regular expression whose first group (else all of it) is the patient in the slide's id.

    Raises:
        SlideError: There is no slide, a file of the table is missing, a slide is named twice, an id does not fit the
            pattern, or a patient stands on two sides.
        CohortError: The table cannot be read, says nowhere where slides are, or its labels are not of two classes.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("p1_a", "p1_b"):
        ...     (folder / f"{name}.svs").touch()
        >>> _ = (folder / "labels.csv").write_text("slide,label,split\\np1_a.svs,tumor,test\\np1_b,normal,test\\n")
        >>> cohort = open_slides(folder / "labels.csv", patient_pattern="^([^_]+)")
        >>> [(entry.id, entry.label, entry.group, entry.split) for entry in cohort.entries], cohort.classes
        ([('p1_a', 1, 'p1', 'test'), ('p1_b', 0, 'p1', 'test')], ('normal', 'tumor'))
    """
    data = slides_place(data)
    if data.is_file() and data.suffix.lower() in SUFFIXES:
        cohort = _of_table(data, positive)
    elif data.is_dir():
        cohort = _of_folder(data, positive)
    elif data.is_file():
        cohort = SlideCohort((SlideEntry(data.stem, data, group=data.stem),))
    else:
        raise SlideError(
            "no such file or folder", where=data, expected="slides, a folder or a table", remedy="correct it"
        )
    if patient_pattern is not None:
        cohort = _with_patients(cohort, patient_pattern, data)
    _refuse_two_sides(cohort.entries, data)
    return cohort


def slides_place(data: str | Path) -> Path:
    """Where slides are; of `synthetic:slides?count=40&seed=0` the table in the cache, where they are drawn once.

    Raises:
        CohortError: A specification that is none of slides.
    """
    if not str(data).startswith("synthetic:"):
        return at_hand(data, _opened_one_by_one)
    from tumortrace.cohorts.synthetic import cached_synthetic, parse_synthetic

    return SLIDES.file(cached_synthetic(*parse_synthetic(str(data), ("slides",))))


def _opened_one_by_one(names: Sequence[str]) -> set[str]:
    """Slides that are fetched from a store when they are opened: those of one file each."""
    if any(Path(name).suffix.lower() in (".mrxs", ".vms", ".vmu") for name in names):
        return set()
    slides = [name for name in names if Path(name).suffix.lower() in slide_suffixes() - {".dcm"}]
    return set(slides) - set(masks_among(slides))


def join(cohorts: Sequence[SlideCohort]) -> SlideCohort:
    """Slides that are named together, each file and DICOM series once; ids that repeat get the file's folder too.

    Raises:
        SlideError: A patient stands on two sides.
    """
    named = {entry.path: entry for cohort in reversed(cohorts) for entry in reversed(cohort.entries)}
    entries = [named[path] for path in find_slides([entry.path for cohort in cohorts for entry in cohort.entries])]
    counts = Counter(entry.id for entry in entries)
    kept = tuple(entry if counts[entry.id] == 1 else _renamed(entry) for entry in entries)
    _refuse_two_sides(kept, cohorts[0].entries[0].path.parent)
    known = [cohort.classes for cohort in cohorts if any(entry.label is not None for entry in cohort.entries)]
    notes = tuple(dict.fromkeys(note for cohort in cohorts for note in cohort.notes))
    return SlideCohort(kept, known[0] if known else cohorts[0].classes, notes)


def _renamed(entry: SlideEntry) -> SlideEntry:
    path = entry.path.resolve()
    name = f"{path.parent.name}/{path.name}"
    return replace(entry, id=name, group=name if entry.group == entry.id else entry.group)


def _of_folder(folder: Path, positive: str | None) -> SlideCohort:
    files = {os.path.relpath(file, folder).replace(os.sep, "/"): file for file in find_slides([folder])}
    masks = masks_among(list(files))
    relative = [path for path in files if path not in set(masks)]
    ids, notes = unique_ids(relative)
    if masks:
        notes.append(f"{count(len(masks), 'mask')} of slides beside them left out, such as {masks[0]}")
    notes += [
        f"{table.name} in it is not read: name {table} in place of the folder for its labels, patients and annotations"
        for table in sorted(folder.iterdir())
        if table.suffix.lower() in SUFFIXES and not set(SLIDE_COLUMNS).isdisjoint(read_header(table))
    ]
    parents = [path.split("/")[:-1] for path in relative]
    splits = [split_of(parts[0]) if parts else None for parts in parents]
    if all(splits):
        parents = [parts[1:] for parts in parents]
    else:
        splits = [None] * len(relative)
    labels = _folder_labels([parts[0] if parts else "" for parts in parents], positive, folder)
    numbers = _numbers(labels, len(relative))
    entries = zip(ids, (files[path] for path in relative), numbers, splits, strict=True)
    return SlideCohort(
        tuple(SlideEntry(id_, file, label, id_, split) for id_, file, label, split in entries),
        labels.classes,
        (*notes, *([labels.note] if labels.note else [])),
    )


def _folder_labels(names: list[str], positive: str | None, where: Path) -> Labels:
    """Labels by the folder of each slide, where there are two and it is plain or named which is positive."""
    if len(set(names)) != 2 or "" in names:
        if positive is None:
            return _UNLABELLED
        found = f"slides in {len(set(names))} folders"
        raise CohortError(found, where=where, expected="two class folders for --positive", remedy="leave it out")
    try:
        return binary_labels(names, positive=positive, where=where)
    except CohortError:
        if positive is None:  # two folders that are no classes, such as those of two scanners
            return _UNLABELLED
        raise


def _of_table(file: Path, positive: str | None) -> SlideCohort:
    table, notes = read_table(file)
    column = next((name for name in SLIDE_COLUMNS if name in table), None)
    if column is None:
        raise CohortError(
            f"columns {listed(list(table.columns))}, of which none says where the slides are",
            where=file,
            expected=f"a column {', '.join(SLIDE_COLUMNS)}",
            remedy="rename the column",
        )
    paths = _files(table, column, file)
    _refuse_twice(paths, table, column, file)
    if named := split_column(table):
        table = table.assign(split=table[named])
        notes.append(f"splits come from column {named!r}")
    table = standard_columns(table, file)
    ids, repeats = _ids(table, paths, file)
    table, said = with_label(table, file)
    texts = table["label"].tolist() if "label" in table else [""] * len(table)
    labels = _labels(texts, positive, file)
    entries = zip(
        ids, paths, _numbers(labels, len(table)), _groups(table, column, ids, file), table["split"], strict=True
    )
    outlines = _annotations(table, file)
    return SlideCohort(
        tuple(
            SlideEntry(id_, path, label, group, split if isinstance(split, str) else None, beside)
            for (id_, path, label, group, split), beside in zip(entries, outlines, strict=True)
        ),
        labels.classes,
        (*notes, *repeats, *(said if "label" in table else []), *([labels.note] if labels.note else [])),
    )


def _labels(texts: list[str], positive: str | None, where: Path) -> Labels:
    """Labels of the texts; where all slides are of one class, by the spelling of that class."""
    kinds = {text.strip() for text in texts if not is_blank(text)}
    opposites = ("0", "1") if kinds <= {"0", "1"} else ("normal", "tumor")
    for opposite in opposites if len(kinds) == 1 else ():
        with suppress(CohortError):
            labels = binary_labels([*texts, opposite], positive=positive, where=where)
            return labels._replace(numbers=labels.numbers[:-1])
    return binary_labels(texts, positive=positive, where=where)


def _numbers(labels: Labels, count: int) -> list[int | None]:
    if labels.numbers.empty:
        return [None] * count
    return [None if pd.isna(number) else int(number) for number in labels.numbers]


def _files(table: pd.DataFrame, column: str, file: Path) -> list[Path]:
    """The slide of each row: by its path from the table's folder, else by its name among the slides below that."""
    texts = table[column].tolist()
    paths = files_by_path(texts, file.parent)
    if None in paths:
        inside = [os.path.relpath(slide, file.parent).replace(os.sep, "/") for slide in _below(file.parent)]
        by_name = files_by_id(texts, file.parent, inside)
        paths = [one or other for one, other in zip(paths, by_name, strict=True)]
    missing = table[[path is None for path in paths]]
    if len(missing):
        raise SlideError(
            f"{len(missing)} of {len(table)} slides are not there: {examples(missing, column)}",
            where=file,
            expected=f"files named from {os.path.abspath(file.parent)}",
            remedy=f"correct the column {shown(column)}",
        )
    return [_one(Path(path)) for path in paths if path is not None]


def _below(folder: Path) -> list[Path]:
    try:
        return find_slides([folder])
    except SlideError:
        return []


def _one(path: Path) -> Path:
    """The slide's file; of a folder with the files of one DICOM series, the first of them."""
    if not path.is_dir():
        return path
    inside = find_slides([path])
    if len(inside) > 1:
        raise SlideError(f"a folder of {len(inside)} slides", where=path, expected="one slide", remedy="name its file")
    return inside[0]


def _refuse_twice(paths: Sequence[Path], table: pd.DataFrame, column: str, file: Path) -> None:
    twice = pd.Series([str(path.resolve()) for path in paths], index=table.index).duplicated(keep=False)
    if twice.any():
        found = f"a slide stands in several rows: {examples(table[twice], column)}"
        raise SlideError(found, where=file, expected="one row per slide", remedy="remove the wrong rows")


def _ids(table: pd.DataFrame, paths: Sequence[Path], file: Path) -> tuple[list[str], list[str]]:
    if "id" in table and (table["id"] != "").all():
        twice = table[table["id"].duplicated(keep=False)]
        if len(twice):
            found = f"ids stand in several rows: {examples(twice, 'id')}"
            raise SlideError(found, where=file, expected="one row per slide", remedy="correct the column 'id'")
        return table["id"].tolist(), []
    home = os.path.abspath(file.parent)
    return unique_ids([os.path.relpath(path, home).replace(os.sep, "/") for path in paths])


def _groups(table: pd.DataFrame, column: str, ids: Sequence[str], file: Path) -> list[str]:
    """The patient of each slide, the slide itself where none is named."""
    others = table.drop(columns=[column, *(["group"] if table["group"].isna().all() else [])])
    named = next((name for name in PATIENT_COLUMNS if name in others), None)
    if named is not None:
        groups: Sequence[object] = others[named].tolist()
    else:
        grouped = column_groups(others, None, file)
        groups = [None] * len(ids) if grouped is None else grouped[0].tolist()
    return [
        str(group).strip() if isinstance(group, str) and group.strip() else id_
        for group, id_ in zip(groups, ids, strict=True)
    ]


def _annotations(table: pd.DataFrame, file: Path) -> list[Path | None]:
    column = next((name for name in ANNOTATION_COLUMNS if name in table), None)
    if column is None:
        return [None] * len(table)
    texts = [text.strip() for text in table[column]]
    paths = files_by_path(texts, file.parent)
    missing = table[[bool(text) and path is None for text, path in zip(texts, paths, strict=True)]]
    if len(missing):
        raise SlideError(
            f"{len(missing)} files of annotations are not there: {examples(missing, column)}",
            where=file,
            expected=f"files named from {os.path.abspath(file.parent)}",
            remedy=f"correct the column {shown(column)}, or leave it blank",
        )
    return [Path(path) if text and path else None for text, path in zip(texts, paths, strict=True)]


def _with_patients(cohort: SlideCohort, pattern: str, where: Path) -> SlideCohort:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise SlideError(
            f"no pattern: {pattern!r} ({error})", where=where, expected="a regular expression", remedy="correct it"
        ) from None
    entries = []
    for entry in cohort.entries:
        match = compiled.search(entry.id)
        patient = (match[1] if compiled.groups else match[0]) if match else None
        if not patient:
            raise SlideError(
                f"no patient in {shown(entry.id)}",
                where=where,
                expected=f"names that {pattern!r} finds",
                remedy="correct the pattern",
            )
        entries.append(replace(entry, group=patient))
    return replace(cohort, entries=tuple(entries))


def _refuse_two_sides(entries: Sequence[SlideEntry], where: Path) -> None:
    sides: dict[str, dict[str, str]] = {}
    for entry in entries:
        if entry.split is not None:
            sides.setdefault(entry.group, {}).setdefault(entry.split, entry.id)
    both = {patient: splits for patient, splits in sides.items() if len(splits) > 1}
    if both:
        patient, splits = next(iter(both.items()))
        told = " and ".join(f"{split} ({id_})" for split, id_ in splits.items())
        raise SlideError(
            f"{len(both)} patients stand on two sides, such as {shown(patient)} in {told}",
            where=where,
            expected="all slides of a patient in one split",
            remedy="correct the splits",
        )
