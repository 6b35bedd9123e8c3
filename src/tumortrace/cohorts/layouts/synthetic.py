"""Tissue that TumorTrace generates itself: `synthetic:patches`, `synthetic:mri`, or a folder it wrote."""

from __future__ import annotations

from pathlib import Path

from tumortrace.cohorts.cohort import Cohort, Reading
from tumortrace.cohorts.layouts import LAYOUTS, Layout
from tumortrace.cohorts.renaming import read_again
from tumortrace.records.data import SyntheticRecord


class Synthetic(Layout):
    """Tissue by its specification, or in a folder."""

    rank = 10
    looks_like = "synthetic:patches, synthetic:tissues or synthetic:mri"

    def recognises(self, path: Path) -> bool:
        """Whether it is a specification (`synthetic:patches?count=200&seed=1`), or a folder with its cohort.json."""
        if str(path).startswith("synthetic:"):
            return True
        record = SyntheticRecord.recognise(path)
        return record is not None and record.layout == "synthetic"

    def read(self, path: Path, reading: Reading) -> Cohort:
        """The cohort of that tissue, which is generated once and then kept in the cache."""
        from tumortrace.cohorts.synthetic import cached_synthetic, open_synthetic, parse_synthetic

        if str(path).startswith("synthetic:"):
            kind, count, seed = parse_synthetic(str(path))
            path = cached_synthetic(kind, count, seed)
        cohort = open_synthetic(path)
        return read_again(cohort, reading, cohort.name)


LAYOUTS.register("synthetic")(Synthetic())
