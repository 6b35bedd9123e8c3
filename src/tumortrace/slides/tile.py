"""Patches out of annotated slides, as a cohort that opens like any other."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack

import pandas as pd
from pydantic import JsonValue

from tumortrace.cohorts.findings import count
from tumortrace.errors import SlideError, TumorTraceError
from tumortrace.records.files import sha256
from tumortrace.records.progress import say
from tumortrace.records.provenance import RESEARCH_USE
from tumortrace.records.record import Open
from tumortrace.records.tiles import PREVIEWS, TiledSlide, TilingRecord
from tumortrace.slides.annotations import read_annotations
from tumortrace.slides.annotations.classes import Classes, UnknownClassError
from tumortrace.slides.annotations.files import annotations_of
from tumortrace.slides.cohort import SlideCohort, SlideEntry, join, open_slides
from tumortrace.slides.failures import say_failed
from tumortrace.slides.identity import content_of
from tumortrace.slides.tiles.folder import TilesFolder
from tumortrace.slides.tiles.planning import plan_slide
from tumortrace.slides.tiles.preview import draw_preview
from tumortrace.slides.tiles.sampling import UNLABELLED, Sampling, choose, quotas
from tumortrace.slides.tiles.settings import Settings
from tumortrace.slides.tiles.shards import probabilities, require_alike, write_shard
from tumortrace.slides.tissue_mask import require_one_slide
from tumortrace.work.hands import Hands, HandsOptions
from tumortrace.work.pieces import carry_out, nothing
from tumortrace.work.worker import Tell

if TYPE_CHECKING:
    from tumortrace.models.bundle import Model

PROCEDURE = 1  # raised whenever the same arguments give other tiles
_PICTURE = 1024  # px, of the longer side of a preview
_UNNAMED = ("negative", "positive")


def tile(
    slides: Sequence[Path],
    *,
    out: Path,
    annotations: Path | None = None,
    annotation_classes: Sequence[str] = (),
    label_by: Literal["centre-third", "share", "centre"] = "centre-third",
    share: float = 0.5,
    leave_out: Sequence[Literal["edge", "mixed"]] = (),
    size: int = 96,
    resolution: float = 0.97,
    slide_resolution: float | None = None,
    override_resolution: float | None = None,
    overlap: float = 0.0,
    minimum_tissue: float = 0.25,
    per_slide: int | None = None,
    balanced: bool = False,
    mine: Path | None = None,
    positive: str | None = None,
    patient_pattern: str | None = None,
    bits: int | None = None,
    plane: int | None = None,
    read_level: str = "auto",
    tissue_mask: Path | None = None,
    unlabelled: Literal["leave-out", "tile"] = "leave-out",
    seed: int = 0,
    device: str = "auto",
    **hands: Unpack[HandsOptions],
) -> int:
    """Cut labelled tiles out of annotated slides, as a data set that `check` and `train` open.

    A slide without annotations has negative tiles where its own label is negative; else `unlabelled` says what becomes
    of it. What is interrupted or killed goes on where it stopped when called again in the same way, and ends with the
    same bytes. A slide that cannot be tiled is told at the end.

    Args:
        slides: Slides, folders of them, or a table of slides with `slide` and perhaps `label`, `patient`, `split`,
            `annotations`.
        out: Folder to write.
        annotations: Folder of annotations named as the slides (`a.geojson` of QuPath, `a.xml` of ASAP, `a_mask.png` or
            `.tif`), or the file of one slide; default beside the slides.
        annotation_classes: What a class of annotations means, `NAME=positive`, `negative` (cut out of positive),
            `exclude` (no tiles there) or `ignore` (as if not drawn); NAME `none` for annotations without class. Tumor,
            metastases, normal and the like are known.
        label_by: What makes a tile positive: `centre-third`, any of it in the middle third (PatchCamelyon's rule);
            `share` of its area; `centre`, its middle point.
        share: For `share`, how much, above 0.
        leave_out: `edge`, tiles that reach beyond the slide; `mixed`, tiles of which a part is positive.
        size: Side of a tile in px.
        resolution: Micrometres per px of the tiles.
        slide_resolution: Micrometres per px of slides that state none.
        override_resolution: Micrometres per px in place of what slides state.
        overlap: Share of its side by which a tile overlaps the next, from 0 to 0.9.
        minimum_tissue: Smallest share of tissue in a tile.
        per_slide: At most so many tiles of a slide and class, drawn at random.
        balanced: As many tiles of both classes.
        mine: Run or bundle: of negative tiles those are taken that it is surest are positive, instead of drawn ones.
        positive: Name of the positive class of slides, where folders or the table name classes.
        patient_pattern: Regular expression that finds the patient in a slide's name: its group, or all that it matches.
        bits: Bits that deep slides hold whose files do not say, such as 12 for 12 bits stored in 16.
        plane: Number of the plane of focus to read, from 1, of OME-TIFFs and ImageJ's stacks; default the middle one.
        read_level: Number of the level from which tiles are read, 0 for full resolution; `auto` takes the coarsest that
            is no coarser than the tiles.
        tissue_mask: PNG or TIFF of any size that covers the whole slide, of one slide: what is not zero is tissue.
        unlabelled: What becomes of slides of which nothing says what is tumour: `leave-out`, or `tile`: tiles without
            label, to predict.
        seed: Of the draw.
        device: Where the model of `--mine` computes: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        **hands: Who cuts: `workers` or `cluster`, as in `tumortrace.work.hands.Hands`; slides are divided among them.

    Returns:
        1 where a slide could not be tiled, else 0.

    Raises:
        SlideError: There are no slides or no tiles, a value is out of range, or it is not known what a class means.
        RunError: `out` holds something else, or it was interrupted.
    """
    settings = Settings(
        size,
        resolution,
        slide_resolution,
        override_resolution,
        overlap,
        minimum_tissue,
        label_by,
        share,
        tuple(leave_out),
        Classes.of(annotation_classes),
        bits,
        plane,
        read_level,
        tissue_mask,
        unlabelled,
    )
    sampling = Sampling(per_slide, balanced, seed, mine is not None)
    cohort = join([open_slides(path, positive=positive, patient_pattern=patient_pattern) for path in slides])
    require_one_slide(tissue_mask, len(cohort.entries), "tile")
    files, divided = annotations_of(cohort.entries, annotations), Hands(**hands)
    begin: Callable[[], Model | None] = nothing
    if mine is not None:
        from tumortrace.models.bundle import load_model

        model = load_model(mine, device=device)
        model.require_preparation(None, cohort.entries[0].path.name)
        require_alike(model, size, resolution, mine)
        sampling = replace(sampling, weights=model.info.weights_sha256)
        begin = partial(load_model, mine, device=device) if divided.elsewhere else lambda: model
    request: Open = {
        "procedure": PROCEDURE,
        "settings": settings.request,
        "slides": [_identity(entry, file) for entry, file in zip(cohort.entries, files, strict=True)],
        "sampling": sampling.request,
    }
    folder = TilesFolder(out, request)
    with folder.locked():
        if (record := folder.complete) is None:
            for note in cohort.notes:
                say(f"note: {note}")
            folder.begin()
            record = _fill(folder, cohort, files, settings, sampling, begin, divided)
        else:
            say("tile: complete already with the same slides and settings")
    return _tell(out, record)


def _identity(entry: SlideEntry, annotations: Path | None) -> list[JsonValue]:
    """By what a slide and what is known of it are known again."""
    drawn = None if annotations is None or not annotations.is_file() else sha256(annotations)
    return [entry.id, content_of(entry.path), entry.label, entry.group, entry.split, drawn]


def _fill(
    folder: TilesFolder,
    cohort: SlideCohort,
    files: Sequence[Path | None],
    settings: Settings,
    sampling: Sampling,
    begin: Callable[[], Model | None],
    hands: Hands,
) -> TilingRecord:
    """Plan all slides, then cut them."""
    entries = cohort.entries
    failed = _plan(folder, entries, files, settings, hands)
    numbers = sorted(folder.planned)
    plans = [folder.planned[number] for number in numbers]
    shares = quotas([{int(k): v for k, v in plan.candidates.items()} for plan in plans], sampling)
    total = sum(sum(quota.values()) for quota in shares)
    if len(failed) == len(entries):
        raise SlideError(
            f"{count(len(entries), 'slide')}, of which none could be tiled, as told above",
            where=folder.folder,
            remedy="mend what is told of them",
        )
    if not total:
        raise SlideError(
            f"no tile in {count(len(plans), 'slide')}: {_why(plans)}",
            where=folder.folder,
            expected="annotations beside the slides, or slides with labels",
            remedy="see `tumortrace tile --help` for how they are found; --unlabelled tile cuts tiles without label",
        )
    unmet = [] if failed else settings.classes.unmet(name for plan in plans for name in plan.outlined)
    notes = [f"--class {said} changes nothing: no outline is of this class" for said in unmet]
    for note in notes:
        say(f"note: {note}")
    names = ("normal", "tumour") if cohort.classes == _UNNAMED else cohort.classes
    cuts = {
        number: _Cut(
            entries[number],
            files[number],
            plan,
            folder.plan_file(number),
            *folder.names(number, entries[number].id),
            quota,
        )
        for number, plan, quota in zip(numbers, plans, shares, strict=True)
        if number not in folder.cut
    }
    cuts = {number: cut for number, cut in cuts.items() if cut.wanted}
    left = list(cuts)

    def receive(place: int, outcome: TiledSlide | Exception) -> None:
        if isinstance(outcome, Exception):
            failed[left[place]] = _refused(entries[left[place]], outcome)
        else:
            folder.add_cut(left[place], outcome)

    carry_out(
        partial(_cut, folder.folder, settings, sampling, names),
        list(cuts.values()),
        receive,
        begin=begin,
        places=[entries[number].path for number in left],
        title="cutting tiles of",
        hands=hands,
    )
    slides = [
        TiledSlide(id=entry.id, failed=failed[number])
        if number in failed
        else folder.cut.get(number, folder.planned.get(number, TiledSlide(id=entry.id)))
        for number, entry in enumerate(entries)
    ]
    record = TilingRecord(
        status="incomplete" if failed else "complete",
        classes=list(names),
        size=settings.size,
        resolution=settings.resolution,
        label_by=settings.rule,
        slides=slides,
        notes=[*cohort.notes, *notes],
        use=RESEARCH_USE,
    )
    folder.write(record)
    if not failed:
        folder.clear()
    return record


def _why(plans: Sequence[TiledSlide]) -> str:
    return next((note for plan in plans for note in plan.notes[-1:]), "no tissue")


def _refused(entry: SlideEntry, error: Exception) -> str:
    if not isinstance(error, TumorTraceError):  # such as a full disk, which is no fault of the slide
        raise error
    say(f"tile: {entry.path.name} could not be tiled: {error}")
    return str(error)


def _plan(
    folder: TilesFolder,
    entries: Sequence[SlideEntry],
    files: Sequence[Path | None],
    settings: Settings,
    hands: Hands,
) -> dict[int, str]:
    """Plan each slide that is not planned yet; those that fail, with the reason.

    Raises:
        SlideError: It is not known what classes mean, of all slides.
    """
    failed: dict[int, str] = {}
    unknown: dict[str, Path | None] = {}
    left = [number for number in range(len(entries)) if number not in folder.planned]

    def receive(place: int, outcome: tuple[TiledSlide, pd.DataFrame] | Exception) -> None:
        number = left[place]
        if isinstance(outcome, UnknownClassError):
            unknown.update({name: unknown.get(name, files[number]) for name in outcome.names})
        elif isinstance(outcome, Exception):
            failed[number] = _refused(entries[number], outcome)
        else:
            folder.add_plan(number, *outcome)

    carry_out(
        partial(_planned, settings),
        [(entries[number], files[number]) for number in left],
        receive,
        places=[entries[number].path for number in left],
        title="finding tissue of",
        hands=hands,
    )
    if unknown:
        raise UnknownClassError(sorted(unknown), next(iter(unknown.values())))
    return failed


def _planned(
    settings: Settings, _: None, piece: tuple[SlideEntry, Path | None], __: Tell
) -> tuple[TiledSlide, pd.DataFrame]:
    return plan_slide(*piece, settings)


@dataclass(frozen=True)
class _Cut:
    """A slide whose tiles are to be cut.

    Attributes:
        entry: The slide.
        file: Of its annotations.
        plan: What tiles it has, those in the table `tiles`.
        shard: To be written, relative to the folder, as is `preview`.
        quota: How many of each label.
    """

    entry: SlideEntry
    file: Path | None
    plan: TiledSlide
    tiles: Path
    shard: str
    preview: str
    quota: Mapping[int, int]

    @property
    def wanted(self) -> int:
        """How many tiles in all."""
        return sum(min(self.quota.get(int(label), 0), there) for label, there in self.plan.candidates.items())


def _cut(
    folder: Path,
    settings: Settings,
    sampling: Sampling,
    names: tuple[str, str],
    model: Model | None,
    cut: _Cut,
    tell: Tell,
) -> TiledSlide:
    """Write the tiles of a slide, and its picture."""
    entry, plan, tiles = cut.entry, cut.plan, pd.read_parquet(cut.tiles)
    assert plan.level is not None
    written, wanted = 0, cut.wanted

    def progress(number: int) -> None:
        nonlocal written
        written += number
        tell(written, wanted)

    tell(0, wanted)
    with settings.open(entry.path) as slide:
        scores = None
        if model is not None:
            negative = tiles["label"] == 0
            scores = probabilities(model, slide, tiles[negative], settings.size, plan.level)
            tiles.loc[negative, "probability"] = scores
        chosen = choose(tiles, cut.quota, entry.id, sampling.seed, scores)
        rows = chosen.assign(
            label=chosen["label"].astype("Int64").mask(chosen["label"] == UNLABELLED),
            id=[f"{entry.id}_{x}_{y}" for x, y in zip(chosen["x"], chosen["y"], strict=True)],
            group=entry.group or entry.id,
            split=entry.split,
            slide=entry.id,
            side=chosen["width"],
            level=plan.level,
            resolution=settings.resolution,
        )
        write_shard(folder / cut.shard, slide, rows, settings.size, plan.level, progress)
        size = slide.width, slide.height
        regions = [] if cut.file is None else read_annotations(cut.file, size, [])
        thumbnail = slide.thumbnail(_PICTURE)
    draw_preview(folder / cut.preview, thumbnail, size, chosen, regions, settings.classes, names, entry.id)
    counts = {label: int((chosen["label"] == int(label)).sum()) for label in plan.candidates}
    return plan.model_copy(update={"file": cut.shard, "preview": cut.preview, "tiles": counts})


def _tell(out: Path, record: TilingRecord) -> int:
    """Say what there is now; 1 where slides failed."""
    for slide in record.slides:
        for note in slide.notes:
            say(f"note: {slide.id}: {note}")
    tiled = [slide for slide in record.slides if slide.file]
    totals = [sum(slide.tiles.get(str(label), 0) for slide in tiled) for label in (0, 1, UNLABELLED)]
    negative, positive = record.classes
    told = f"{totals[1]:,} {positive} and {totals[0]:,} {negative}"
    told += f", {totals[2]:,} without label. {RESEARCH_USE}" if totals[2] else f". {RESEARCH_USE}"
    say(f"tile: {count(sum(totals), 'tile')} of {count(len(tiled), 'slide')}: {told}")
    say(f"tile: look at {out / PREVIEWS}; then: tumortrace check {shlex.quote(str(out))}")
    print(out)
    return say_failed("tile", "tiled", [slide.failed for slide in record.slides if slide.failed], len(record.slides))
