"""Several slides in one call: each is attempted, whatever becomes of the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from tumortrace.cohorts.findings import Example, Finding, count
from tumortrace.errors import RunError, TumorTraceError
from tumortrace.models.precision import Asked
from tumortrace.models.runtimes import Backend
from tumortrace.records.output import differing, require_folder
from tumortrace.records.progress import say
from tumortrace.records.scans import ScanRecord
from tumortrace.records.stores import url_of
from tumortrace.records.user_tables import SUFFIXES
from tumortrace.slides.cohort import SlideCohort, SlideEntry, join, open_slides
from tumortrace.slides.dense import dense_overlap
from tumortrace.slides.failures import say_failed
from tumortrace.slides.identity import content_of
from tumortrace.slides.memory import BATCHES, held_by_batch, largest_within
from tumortrace.slides.naming import names_of
from tumortrace.slides.result import ScanResult, default_folder, holds, made_with, maps_of, same_slide
from tumortrace.slides.scale import patch_resolution_of
from tumortrace.slides.scan import scan
from tumortrace.slides.shares import Share, ShareKept, shares_of
from tumortrace.slides.summary import Summary
from tumortrace.slides.tissue_mask import require_one_slide
from tumortrace.work.hands import Hands, HandsOptions
from tumortrace.work.pieces import carry_out
from tumortrace.work.worker import Tell

if TYPE_CHECKING:
    from tumortrace.models.bundle import Model

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def scan_slides(
    run: Path,
    slides: Sequence[Path],
    *,
    out: Path | None = None,
    overlap: float = 0.0,
    resolution: float | None = None,
    override_resolution: float | None = None,
    patch_resolution: float | None = None,
    read_level: str = "auto",
    tissue_mask: Path | None = None,
    bits: int | None = None,
    plane: int | None = None,
    dense: bool = False,
    precision: Asked = "auto",
    backend: Backend | None = None,
    positive: str | None = None,
    patient_pattern: str | None = None,
    max_memory: str | None = None,
    device: str = "auto",
    **hands: Unpack[HandsOptions],
) -> int:
    """Run over whole slides: heat map, table of tiles, tumour outlines for QuPath, slide score.

    Interrupted or killed, it goes on where it stopped when called again in the same way: slides that are complete
    with the same content, model and settings are not scanned again. A slide that cannot be scanned is told at the end,
    and the others are scanned all the same. Of several slides, `slides.csv` and `report.html` beside their folders tell
    all, the most suspicious first.

    Args:
        run: Run folder or bundle.
        slides: Slides to scan, folders of them at any depth, or tables (CSV, TSV, Parquet) with a column slide, path,
            image or file and, if known, label, patient and split; the files of a DICOM series are one slide.
        out: Folder to write; default `scans` in the run folder; each slide gets a folder in it, named apart from those
            of other slides of its name.
        overlap: Share of its side by which a tile overlaps the next, from 0 to 0.9.
        resolution: Micrometres per pixel of a slide that does not state it.
        override_resolution: Micrometres per pixel in place of what slides state.
        patch_resolution: Micrometres per pixel of the model's training patches, where it does not state it.
        read_level: Number of the level from which tiles are read, 0 for full resolution; `auto` takes the coarsest that
            is no coarser than the tiles.
        tissue_mask: PNG or TIFF of any size that covers the whole slide, of one slide: what is not zero is tissue.
        bits: Bits that deep slides hold whose files do not say, such as 12 for 12 bits stored in 16.
        plane: Number of the plane of focus to read, from 1, of OME-TIFFs and ImageJ's stacks; default the middle one.
        dense: Let the network pass over whole regions at once, for overlapping tiles; refused where it is padded.
        precision: `auto`, `fp32` or `bf16`: bfloat16 by default where the hardware has it, it is quicker and of some
            hundred tiles of the slide at most 1 in 500 calls differ.
        backend: What computes: `torch`, by default; or `onnx`, `openvino` or `int8`, the file that `export` wrote, by
            default where RUN names it (`RUN/model/model.onnx`) or holds nothing else.
        positive: Name of the positive class, where labels of slides do not tell it.
        patient_pattern: Regular expression whose first group is the patient in a slide's name.
        max_memory: Memory that the scan, or each of its workers, may take, such as 4GB: as many tiles are read and
            computed at a time as keep within it.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        **hands: Who scans: `workers` or `cluster`, as in `tumortrace.work.hands.Hands`; slides are divided among them.

    Returns:
        1 where a slide could not be scanned, else 0.

    Raises:
        SlideError: There is no slide in a folder that is named, a table does not fit its slides, one mask is given for
            several, the resolution of the model's patches is not known, or the memory is too little.
        CohortError: A table cannot be read.
        ModelError: The model cannot be loaded.
        RunError: Interrupted.
    """
    from tumortrace.models.bundle import described, load_model

    cohort = _cohort(slides, positive, patient_pattern)
    files = [entry.path for entry in cohort.entries]
    require_one_slide(tissue_mask, len(files), "scan")
    folders = folders_for(run, files, out)
    require_folder(folders[0].parent)
    summary = Summary(folders[0].parent) if len(files) > 1 else None
    divided = Hands(**hands)
    begin = partial(load_model, run, device=device, backend=backend)
    whole = not divided.elsewhere or dense or max_memory is not None
    model = begin() if whole else described(run)  # workers load it; nobody waits for torch here
    model.require_preparation(None, files[0].name)
    patch_resolution_of(model.info.resolution, patch_resolution)
    exact = dense_overlap(model, overlap) if dense else overlap
    if exact != overlap:
        say(f"note: tiles overlap by {exact:.6g}, as the network's stride asks")
    if summary is not None:
        wanted = maps_of(model.info.weights_sha256, exact, float(model.info.threshold))
        _require_alike(summary.folder, folders, wanted)
    if max_memory is not None:  # what is too little for every slide is refused at once
        largest_within(max_memory, BATCHES, held_by_batch(model))
    for note in cohort.notes:
        say(f"note: {note}")
    outcomes: list[ScanResult | str] = []

    def receive(number: int, outcome: ScanResult | Exception) -> None:
        entry = cohort.entries[number]
        if not isinstance(outcome, ScanResult):
            if summary is None or not isinstance(outcome, TumorTraceError):
                raise outcome
            say(f"scan: {entry.path.name} could not be scanned: {outcome.found}")
        outcomes.append(outcome if isinstance(outcome, ScanResult) else str(outcome))
        if summary is not None:
            summary.add(entry, outcomes[-1])
        if isinstance(outcome, ScanResult):
            if summary is None:
                _tell([outcome])
            say(f"scan: {outcome.summary}")
            print(outcome.folder)

    options = _Options(
        run=run,
        overlap=overlap,
        max_memory=max_memory,
        resolution=resolution,
        override_resolution=override_resolution,
        patch_resolution=patch_resolution,
        read_level=read_level,
        tissue_mask=tissue_mask,
        bits=bits,
        plane=plane,
        dense=dense,
        precision=precision,
        renew=False,
    )

    def scanned_by_all(
        do: Callable[..., object], pieces: Sequence[Any], receive: Callable[..., object], places: Sequence[Path]
    ) -> None:
        carry_out(
            partial(do, options),
            pieces,
            receive,
            begin=begin if divided.elsewhere else lambda: model,
            places=places,
            title="scanning",
            hands=divided,
            accelerated=device in ("auto", "cuda"),
        )

    shares = [(files[number], folders[number], share) for number, share in shares_of(files, divided)]
    try:
        scanned_by_all(_share, shares, lambda *_: None, [file for file, *_ in shares])
        scanned_by_all(_scan, list(zip(files, folders, strict=True)), receive, files)
    finally:  # a slide that is refused does not keep those before it out of the report
        scanned = [outcome for outcome in outcomes if isinstance(outcome, ScanResult)]
        if summary is not None:
            _tell(scanned)
            if (page := summary.report()) is not None:
                say(f"scan: all slides: {page}")
        if scanned and scanned[-1].folder.resolve().is_relative_to(run.resolve()):
            from tumortrace.reports.report import renew_report  # torch comes with it

            renew_report(run, scanned[-1].folder)
    failed = [outcome for outcome in outcomes if isinstance(outcome, str)]
    return say_failed("scan", "scanned", failed, len(files))


class _Options(TypedDict):
    """Arguments of `scan` that all slides of a call share."""

    run: Path
    overlap: float
    max_memory: str | None
    resolution: float | None
    override_resolution: float | None
    patch_resolution: float | None
    read_level: str
    tissue_mask: Path | None
    bits: int | None
    plane: int | None
    dense: bool
    precision: Asked
    renew: bool


def _scan(options: _Options, model: Model, piece: tuple[Path, Path], tell: Tell) -> ScanResult:
    """Scan one slide of several; its tiles stay on the disk."""
    slide, folder = piece
    result = scan(slide=slide, out=folder, model=model, progress=tell, **options)
    return replace(result, tiles=result.tiles.head(0))


def _share(options: _Options, model: Model, piece: tuple[Path, Path, Share], tell: Tell) -> None:
    """Keep a share of a slide; what refuses it refuses the slide, and is told then."""
    slide, folder, share = piece
    with suppress(ShareKept):
        scan(slide=slide, out=folder, model=model, progress=tell, share=share, **options)


def _cohort(paths: Sequence[Path], positive: str | None, patient_pattern: str | None) -> SlideCohort:
    """The slides of all that is named; a slide that is missing is one that cannot be scanned, as is told at the end."""
    parts = []
    for path in paths:
        if url_of(path) or path.exists() or path.suffix.lower() in SUFFIXES:
            parts.append(open_slides(path, positive=positive, patient_pattern=patient_pattern))
        else:
            parts.append(SlideCohort((SlideEntry(path.stem, path, group=path.stem),)))
    return join(parts)


def _require_alike(folder: Path, mine: Sequence[Path], wanted: dict[str, object]) -> None:
    """Refuse to put scans beside those of other slides that one score cannot hold for.

    Raises:
        RunError: There are some.
    """
    for file in sorted(folder.glob(f"*/{ScanRecord.FILE}")):
        if file.parent in mine or (record := ScanRecord.recognise(file.parent)) is None:
            continue
        if differs := differing(made_with(record), wanted):
            raise RunError(
                f"holds a scan of another slide, {record.slide}, that was made otherwise: {'; '.join(differs)}",
                where=folder,
                expected="scans that are made alike",
                remedy="choose another folder with -o",
            )


def _tell(scans: Sequence[ScanResult]) -> None:
    """Say what there is to say of slides, each matter once: with their number and examples where there are several.

    Notes that differ in numbers alone are one matter.
    """
    slides: dict[str, dict[str, str]] = {}
    for result in scans:
        for line in result.record.notes:
            slides.setdefault(_NUMBER.sub("#", line), {}).setdefault(result.folder.name, line)
    for told in slides.values():
        first = next(iter(told.values()))
        if len(scans) == 1:
            say(f"note: {first}")
            continue
        alike = "" if len(set(told.values())) == 1 else "for example "
        message = f"{count(len(told), 'slide')}: {alike}{first}"
        say(f"note: {Finding('slides', 'note', len(told), message, examples=tuple(map(Example, told))).line}")


def folders_for(run: Path, files: Sequence[Path], out: Path | None) -> list[Path]:
    """A folder for each slide, named by `names_of`; one that holds the scan of another slide is left as it is."""

    def place(name: str) -> Path:
        return default_folder(run, name) if out is None else out / name

    def free(name: str, file: Path) -> bool:
        holder, content = holds(place(name)), content_of(file)
        if holder is None or not content or same_slide(holder, (file.name, content)):
            return True
        say(f"scan: {place(name)} holds the scan of another slide, {holder[0]}, and is left as it is")
        return False

    return [place(name) for name in names_of(files, free)]
