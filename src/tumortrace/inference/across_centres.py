"""Whether the features of compared probes tell tissue or hospital, on the same images and with as many neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tumortrace.evaluation.centres import centre_differences, robustness
from tumortrace.records.centres import CentreRecord
from tumortrace.records.metrics import Estimate
from tumortrace.records.tables import CENTRES


@dataclass(frozen=True)
class Across:
    """What compared runs have on record of their features.

    Attributes:
        measured: Of each run, by name.
        differences: Second minus first, by both names.
        notes: What has to be said.
    """

    measured: dict[str, CentreRecord] = field(default_factory=dict)
    differences: dict[tuple[str, str], dict[str, Estimate]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def across_centres(folders: Mapping[str, Path], replicates: int, seed: int) -> Across:
    """Measure what runs have on record of their features anew, with the median of the numbers of neighbours they took.

    Args:
        folders: Of the runs, by name; those of no probe, or without centres, are passed over.
        replicates: Number of bootstrap replicates.
        seed: Of the replicates.

    Returns:
        Nothing where fewer than two runs have centres; nothing but a note where these are of other images.
    """
    records = {name: record for name, folder in folders.items() if (record := CentreRecord.find(folder))}
    tables = {name: CENTRES.read(folders[name]) for name in records}
    if len(records) < 2:
        return Across()
    told = {(record.column, *tables[name]["id"], *tables[name]["centre"]) for name, record in records.items()}
    if len(told) > 1:
        return Across(notes=["robustness across centres was measured on other images: it is not set side by side"])
    counts = sorted(record.neighbours for record in records.values())
    neighbours = counts[(len(counts) - 1) // 2]
    draws = {"replicates": replicates, "seed": seed}
    return Across(
        {name: robustness(near, records[name].column, neighbours, **draws) for name, near in tables.items()},
        centre_differences(tables, neighbours, **draws),
    )
