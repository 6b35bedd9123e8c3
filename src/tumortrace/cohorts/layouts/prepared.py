"""The folder that `tumortrace prepare` writes: prepared images, their labels, and a record of how they were made."""

from __future__ import annotations

from pathlib import Path

from tumortrace.cohorts.cohort import Cohort, Reading
from tumortrace.cohorts.layouts import LAYOUTS, Layout
from tumortrace.cohorts.renaming import read_again
from tumortrace.errors import CohortError
from tumortrace.records.data import PreparedRecord
from tumortrace.records.tables import LABELS
from tumortrace.records.user_tables import numbers, read_text

FILES = f"{PreparedRecord.FILE} and {LABELS.name}"


class Prepared(Layout):
    """Prepared images with the table and the record of their preparation."""

    rank = 15
    looks_like = "a folder that `tumortrace prepare` wrote"

    def recognises(self, path: Path) -> bool:
        """Whether it is a folder with the record of a preparation, finished or not."""
        return _record(path) is not None

    def read(self, path: Path, reading: Reading) -> Cohort:
        """The cohort with the labels, groups, splits and class names that the images had before."""
        record = _record(path)
        assert record is not None  # as `recognises` has found
        if record.status != "complete":
            raise CohortError(
                "its preparation was not finished", where=path, remedy="call `tumortrace prepare` again as before"
            )
        try:
            table, _ = read_text(LABELS.file(path), CohortError)
            table["label"] = numbers(table["label"]).astype("Int64")
            for column in ("group", "split"):
                table[column] = table[column].mask(table[column] == "")
            for column in {"x", "y"} & set(table.columns):
                table[column] = numbers(table[column]).convert_dtypes()
            table["path"] = [str(path.absolute() / name) for name in table["path"]]
            negative, positive = record.classes
            source = record.source
            notes = (f"images prepared from {source.name}: {record.steps}", *source.notes, *record.notes)
            name, made = path.absolute().name, record.as_json()
            cohort = Cohort(
                name,
                "prepared",
                table,
                (negative, positive),
                record.resolution,
                notes,
                made,
                class_names=tuple(record.class_names),
                positive_names=tuple(record.positive_names),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CohortError(
                f"damaged ({error})",
                where=path,
                expected=FILES,
                remedy="prepare the images again",
            ) from None
        return read_again(cohort, reading, path)


LAYOUTS.register("prepared")(Prepared())


def _record(path: Path) -> PreparedRecord | None:
    record = PreparedRecord.recognise(path)
    return record if record is not None and record.layout == "prepared" else None
