"""What stands beside prepared images: labels, failures, the picture to look at, and the record."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from tumortrace.cohorts.cohort import COLUMNS, Cohort
from tumortrace.cohorts.images import fit, read_image
from tumortrace.cohorts.layouts.prepared import TABLE
from tumortrace.errors import DataError
from tumortrace.imaging.preprocessing import Preprocessing
from tumortrace.preparation.before_after import draw_before_after, examples
from tumortrace.preparation.pictures import describe, record_of
from tumortrace.preparation.prepared_folder import PreparedFolder
from tumortrace.runs.files import write_csv
from tumortrace.runs.progress import say
from tumortrace.runs.provenance import RESEARCH_USE, versions


def finish(
    folder: PreparedFolder,
    cohort: Cohort,
    names: list[str],
    size: tuple[int, int],
    steps: Preprocessing,
    before_after: int,
) -> None:
    """Write everything but the images, the record that makes them a cohort last.

    Args:
        folder: With the outcome of every row.
        cohort: What was prepared.
        names: File names of the images, by row.
        size: Height and width in pixels that the images had.
        steps: What was done to them.
        before_after: Images in the picture; 0 draws none.

    Raises:
        DataError: No image could be read.
    """
    outcomes = [folder.outcomes[row] for row in range(len(cohort))]
    rows = [row for row, outcome in enumerate(outcomes) if "failed" not in outcome]
    if not rows:
        raise DataError("none of the images can be read", where=cohort.name, remedy="run `tumortrace check`")
    counts = {
        "images": len(cohort),
        "prepared": len(rows),
        "failed": len(cohort) - len(rows),
        "resized": sum(outcomes[row]["resized"] for row in rows),
        "stain_unchanged": sum(outcomes[row]["unchanged"] for row in rows),
    }
    notes = _notes(counts, size, steps)
    resolution, note = _resolution(cohort, size, steps)
    _write_failed(folder.folder / "failed.csv", cohort, outcomes)
    if before_after:
        _draw(folder, cohort, names, examples(cohort.table["label"], rows, before_after), size, steps.crop)
    columns = [*COLUMNS, *(column for column in ("x", "y") if column in cohort.table)]
    table = cohort.table.loc[rows, columns]
    table = table.assign(path=["images/" + names[row] for row in rows])
    if steps.stain != "none":
        table["stain_unchanged"] = [int(outcomes[row]["unchanged"]) for row in rows]
    write_csv(folder.folder / TABLE, table)
    if hasattr(os, "sync"):
        os.sync()
    folder.write_record(
        {
            "status": "complete",
            "source": {
                "name": cohort.name,
                "layout": cohort.layout,
                "fingerprint": folder.request["data"],
                "size": list(size),
                "resolution": cohort.resolution,
                "notes": list(cohort.notes),
            },
            "steps": describe(steps),
            "preprocessing": record_of(steps),
            "super_resolution": steps.super_resolution and steps.super_resolution.describe(),
            "classes": list(cohort.classes),
            "positive_class": cohort.positive_class,
            "resolution": resolution,
            "size": list(steps.output_size(size)),
            "counts": counts,
            "notes": [*notes, *note],
            "versions": versions(),
            "use": RESEARCH_USE,
        }
    )
    for line in (*notes, *note):
        say(f"note: {line}")
    say(f"prepare: {len(rows):,} images in {folder.folder} ({describe(steps)}). {RESEARCH_USE}")


def _notes(counts: dict[str, int], size: tuple[int, int], steps: Preprocessing) -> list[str]:
    """What is to be said about images that did not go the usual way."""
    of = f"of {counts['images']:,} images"
    notes = []
    if counts["failed"]:
        notes.append(f"{counts['failed']:,} {of} could not be read and are left out: see failed.csv")
    if counts["resized"]:
        notes.append(f"{counts['resized']:,} {of} were not {size[1]}x{size[0]} pixels and were resized first")
    if counts["stain_unchanged"]:
        notes.append(
            f"{counts['stain_unchanged']:,} {of} hold too little tissue to normalise its stain ({steps.stain}), or one "
            "stain only, and keep theirs: see column stain_unchanged in labels.csv"
        )
    if steps.crop is not None:
        notes.append(
            f"the images are cropped already: train with --set preprocessing.crop=null where a recipe crops to "
            f"{steps.crop} px as well"
        )
    return notes


def _resolution(cohort: Cohort, size: tuple[int, int], steps: Preprocessing) -> tuple[float | None, list[str]]:
    """Micrometres per pixel of the prepared images, and a note where they have none that holds in both directions."""
    if cohort.resolution is None:
        return None, []
    kept = [min(side, steps.crop or side) for side in size]
    factors = [before / after for before, after in zip(kept, steps.output_size(size), strict=True)]
    if abs(factors[0] - factors[1]) > 1e-9:
        return None, ["the resolution is not known, as height and width were resized differently"]
    return cohort.resolution * factors[0], []


def _write_failed(file: Path, cohort: Cohort, outcomes: list[dict[str, Any]]) -> None:
    failed = [row for row, outcome in enumerate(outcomes) if "failed" in outcome]
    if not failed:
        file.unlink(missing_ok=True)
        return
    table = cohort.table.loc[failed, ["id", "path"]]
    write_csv(file, table.assign(reason=[outcomes[row]["failed"] for row in failed]))


def _draw(
    folder: PreparedFolder, cohort: Cohort, names: list[str], rows: list[int], size: tuple[int, int], crop: int | None
) -> None:
    before = [fit(read_image(cohort.table["path"][row]), size) for row in rows]
    after = [read_image(folder.images / names[row]) for row in rows]
    labels = cohort.table["label"]
    titles = ["no label" if pd.isna(labels[row]) else cohort.classes[labels[row]] for row in rows]
    draw_before_after(folder.folder / "before_after.png", before, after, titles, crop)
