"""A cohort of slides and their scans, side by side: which scan is of which slide, and what the maps hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tumortrace.cohorts.findings import count
from tumortrace.errors import RunError, shown
from tumortrace.evaluation.froc import Detections, lesions_of, match
from tumortrace.records.scans import ScanRecord
from tumortrace.records.tables import SPLITS, TILES
from tumortrace.slides.annotations import read_annotations
from tumortrace.slides.annotations.classes import Classes
from tumortrace.slides.annotations.region import polygonal
from tumortrace.slides.cohort import SlideCohort, SlideEntry
from tumortrace.slides.foci import detections, grid_of
from tumortrace.slides.identity import content_of
from tumortrace.slides.map_features import map_features
from tumortrace.slides.result import made_with

FITTED_ON = ("train", "validation", "calibration")
"""Splits whose patches a model has learnt from or was chosen and calibrated by."""


@dataclass(frozen=True)
class Scanned:
    """A slide of the cohort and its finished scan."""

    entry: SlideEntry
    folder: Path
    record: ScanRecord

    @property
    def resolution(self) -> float:
        """Um per px of level 0.

        Raises:
            RunError: The scan states none.
        """
        if not self.record.resolution:
            raise RunError(
                "a scan without resolution",
                where=self.folder,
                expected="um per px, as sizes of foci are in um",
                remedy="scan the slide anew with --resolution",
            )
        return self.record.resolution

    @property
    def tiles(self) -> pd.DataFrame:
        """Its tiles."""
        return TILES.read(self.folder)


def find_scans(folder: Path, cohort: SlideCohort) -> tuple[list[Scanned], list[str]]:
    """The scans of a cohort's slides, in the order of the cohort, and notes on slides without one.

    A scan is known to be of a slide by the slide's content, wherever either has been moved to.

    Raises:
        RunError: There is no scan in the folder, none is of a slide of the cohort, a slide is there twice, or
            scans are of different models or grids.
    """
    scans: dict[str, list[tuple[Path, ScanRecord]]] = {}
    for file in sorted(folder.rglob(ScanRecord.FILE)):
        record = ScanRecord.read(file.parent)
        scans.setdefault(record.content, []).append((file.parent, record))
    if not scans:
        raise RunError("no finished scan", where=folder, expected="the folder that `scan` wrote", remedy="scan first")
    _refuse_copies(cohort.entries)
    kept, missing = [], []
    for entry in cohort.entries:
        content = content_of(entry.path)
        of_slide = scans.get(content, []) if content else []
        if len(of_slide) > 1:
            where = " and ".join(str(place) for place, _ in of_slide[:2])
            raise RunError(f"{len(of_slide)} scans of {entry.id}", where=where, expected="one", remedy="remove one")
        kept += [Scanned(entry, *of_slide[0])] if of_slide else []
        missing += [] if of_slide else [entry.id]
    if not kept:
        raise RunError(
            f"no scan is of one of the {len(cohort.entries)} slides of the table",
            where=folder,
            expected="scans of these slides, as they are now",
            remedy="scan them: tumortrace scan RUN TABLE",
        )
    _require_alike(kept)
    some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    return kept, [f"{count(len(missing), 'slide')} without a scan left out: {some}"] if missing else []


def _refuse_copies(entries: Sequence[SlideEntry]) -> None:
    """Refuse files of the same content, which would count twice, and might stand on two sides.

    Raises:
        RunError: There are some.
    """
    first: dict[str, SlideEntry] = {}
    for entry in entries:
        content = content_of(entry.path)
        if content and (other := first.setdefault(content, entry)) is not entry:
            raise RunError(
                f"the same slide twice: {shown(other.id)} and {shown(entry.id)} have the same content",
                where=entry.path,
                expected="each slide once",
                remedy="leave one of them out",
            )


def _require_alike(scans: list[Scanned]) -> None:
    first, wanted = scans[0], made_with(scans[0].record)
    for other in scans[1:]:
        differs = [name for name, value in made_with(other.record).items() if value != wanted[name]]
        if differs:
            raise RunError(
                f"scans with different {differs[0]}",
                where=f"{first.folder} and {other.folder}",
                expected="scans that were made alike",
                remedy="scan all slides with one model and the same options",
            )


def features_of(scans: list[Scanned]) -> pd.DataFrame:
    """A row for each slide: `id`, `group`, `label`, `split` and the features of its map."""
    rows = [
        {
            "id": scan.entry.id,
            "group": scan.entry.group,
            "label": scan.entry.label,
            "split": scan.entry.split,
            **map_features(scan.tiles, scan.record.overlap, scan.resolution),
        }
        for scan in scans
    ]
    table = pd.DataFrame(rows)
    names = {name: table[name].astype("string") for name in ("id", "group", "split")}
    return table.assign(label=table["label"].astype("Int64"), **names)


def detections_of(scan: Scanned, classes: Classes) -> Detections | None:
    """What the map detects on a slide, judged by the outlines of its lesions.

    Args:
        scan: Of the slide.
        classes: What the classes of its annotations mean: lesions are what is positive.

    Returns:
        None where the slide has no annotations and is not known to be without tumour.

    Raises:
        SlideError: Its annotations cannot be read, or it is not known what one of their classes means.
    """
    entry, record = scan.entry, scan.record
    if entry.annotations is not None:
        areas = classes.areas(read_annotations(entry.annotations, (record.width, record.height)), entry.annotations)
        tumour = polygonal(areas.positive)
        lesions = [] if tumour is None else lesions_of([tumour], scan.resolution)
    elif entry.label == 0:
        lesions = []
    else:
        return None
    tiles = scan.tiles
    grid = grid_of(tiles, record.overlap, scan.resolution)
    places = detections(grid, scan.resolution)
    return match(grid.middle[places], grid.probability[places], lesions, entry.group)


def seen_in_training(run: Path | None, scans: list[Scanned]) -> tuple[set[str], str]:
    """Slides whose patches the model of the scans has learnt from, by the groups that its run has on record.

    Args:
        run: Of the model; None where it is not known.
        scans: Of the cohort.

    Returns:
        Ids of the slides, and a sentence.
    """
    used = pd.DataFrame() if run is None else used_by(run)
    if "group" not in used:
        return (
            set(),
            "not known: name the run of the patches' model with --run, to learn whether it has seen the slides",
        )
    names = names_in(used)
    seen = {scan.entry.id for scan in scans if learnt_from(scan.entry, names)}
    unknown = int(used["group"].isna().sum())
    if seen:
        return seen, f"{len(seen)} of {len(scans)} slides, or their patients, gave patches that it has learnt from"
    if unknown:
        return seen, f"not known: {run} does not say from which slides {count(unknown, 'image')} came"
    return seen, f"ruled out, as far as names tell: {run} has learnt from none of the {count(len(scans), 'slide')}"


def used_by(run: Path) -> pd.DataFrame:
    """The patches that a run has learnt or chosen by: `id` and `group`; none where it keeps no splits."""
    splits = SPLITS.find(run)
    return splits[splits["split"].isin(FITTED_ON)] if "group" in splits else pd.DataFrame()


def names_in(used: pd.DataFrame) -> frozenset[str]:
    """Names, in lower case, of the patches and groups of `used_by`."""
    return frozenset(
        str(name).casefold() for column in ("id", "group") for name in used.get(column, pd.Series(dtype=str)).dropna()
    )


def learnt_from(entry: SlideEntry, names: frozenset[str]) -> bool:
    """Whether some of the patches that `names_in` names are of the slide or its patient."""
    return not names.isdisjoint(name.casefold() for name in (entry.id, entry.group, entry.path.stem, entry.path.name))
