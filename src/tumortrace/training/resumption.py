"""Taking up a run on the data that it began with, wherever they are now, and on no others."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from tumortrace.cohorts.cohort import Source
from tumortrace.cohorts.contents import contents, difference
from tumortrace.cohorts.material import Material
from tumortrace.errors import RunError
from tumortrace.records.command import command_line
from tumortrace.records.run import Run
from tumortrace.records.stores import url_of


def resumed_by(verb: str) -> str:
    """The verb whose `--resume` takes up a run of `verb`.

    Example:
        >>> resumed_by("learning-curve"), resumed_by("tune")
        ('train', 'tune')
    """
    return {"learning-curve": "train", "ensemble": "train"}.get(verb, verb)


def source_of(run: Run, data: str | Path | None, call: str) -> Source:
    """Where the data of a run are, and how they are read.

    Args:
        run: The run.
        data: Where they are now; None asks its record.
        call: How to give an opened cohort, for the message.

    Raises:
        RunError: The record names no place, or nothing is there.
    """
    arguments = run.record.arguments.model_dump()
    source = Source.recorded(arguments if data is None else arguments | {"data": str(data)})
    if source is None:
        raise RunError("it was given an opened cohort", where=run.folder, remedy=f"call {call}")
    if data is not None or source.path.startswith("synthetic:") or url_of(source.path):
        return source
    # older records name the data as seen from the folder in which the run began, mostly one above its own
    folders = [Path(), *run.folder.resolve().parents]
    places = (folder / Path(source.path).expanduser() for folder in folders)
    place = next((place for place in places if place.exists()), None)
    if place is None:
        command = command_line(resumed_by(run.record.verb), "DATA", resume=run.folder)
        raise RunError(
            "the data are no longer there",
            where=source.path,
            remedy=f"put them back, or say where they are: `{command}`",
        )
    return Source(str(place), source.reading)


def recognise(run: Run, material: Material) -> None:
    """Refuse data that are not those of a run; where they lie elsewhere, or were put there anew, its record says so.

    Contents are compared where the fingerprint, which names and times of change of the files go into, is another.

    Raises:
        RunError: They hold other images or labels.
    """
    record, cohort = run.record, material.cohort
    place = cohort.source.path if cohort.source else None
    changes: dict[str, object] = {}
    if cohort.fingerprint != record.data.fingerprint:
        _require_the_same(run, material, place or cohort.name)
        changes["data"] = record.data.model_copy(update={"fingerprint": cohort.fingerprint}).as_json()
    if place and record.arguments.data != place:
        changes["arguments"] = record.arguments.model_copy(update={"data": place}).as_json()
    if changes:
        run.update(**changes)


def _require_the_same(run: Run, material: Material, place: str) -> None:
    began = run.record.data
    if began.images and len(material.cohort) != began.images:
        _refuse(f"{len(material.cohort):,} images, and {began.images:,} when the run began", place)
    if not began.contents.rows:
        _refuse("names, sizes, times or labels are not those of the run, which is too old to tell more", place)
    if changed := difference(began.contents, contents(material.cohort, material.store)):
        _refuse(f"the data have changed since the run began: {changed}", place)


def _refuse(found: str, place: str) -> NoReturn:
    raise RunError(found, where=place, expected="the run's images and labels", remedy="restore them, or start anew")
