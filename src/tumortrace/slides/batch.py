"""Several slides in one call: each is attempted, whatever becomes of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from tumortrace.errors import RunError, SlideError, TumorTraceError
from tumortrace.images.decoding import IMAGE_SUFFIXES
from tumortrace.images.dicom import is_dicom, series_of
from tumortrace.records.progress import say
from tumortrace.reports.report import renew_report
from tumortrace.slides.result import default_folder
from tumortrace.slides.scan import scan

_SLIDES = IMAGE_SUFFIXES | {".bif", ".mrxs", ".ndpi", ".scn", ".svs", ".svslide", ".vms", ".vmu", ".czi"}


def scan_slides(
    run: Path,
    slides: Sequence[Path],
    *,
    out: Path | None = None,
    overlap: float = 0.0,
    resolution: float | None = None,
    override_resolution: float | None = None,
    patch_resolution: float | None = None,
    device: str = "auto",
) -> int:
    """Run over whole slides: heat map, table of tiles, tumour outlines for QuPath, slide score.

    Interrupted or killed, it goes on where it stopped when called again in the same way. A slide that cannot be
    scanned is told at the end, and the others are scanned all the same.

    Args:
        run: Run folder or bundle.
        slides: Slides to scan, or folders of them; the files of a DICOM series are one slide.
        out: Folder to write; default `scans` in the run folder; each slide gets a folder in it.
        overlap: Share of its side by which a tile overlaps the next, from 0 to 0.9.
        resolution: Micrometres per pixel of a slide that does not state it.
        override_resolution: Micrometres per pixel in place of what slides state.
        patch_resolution: Micrometres per pixel of the model's training patches, where it does not state it.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.

    Returns:
        1 where a slide could not be scanned, else 0.

    Raises:
        SlideError: There is no slide in a folder that is named.
        ModelError: The model cannot be loaded.
        RunError: Interrupted.
    """
    from tumortrace.models.bundle import load_model

    files = find_slides(slides)
    folders = folders_for(run, files, out)
    model = load_model(run, device=device)
    model.require_preparation(None, files[0].name)
    failed: list[str] = []
    last = None
    try:
        for slide, folder in zip(files, folders, strict=True):
            try:
                result = scan(
                    run,
                    slide,
                    out=folder,
                    overlap=overlap,
                    resolution=resolution,
                    override_resolution=override_resolution,
                    patch_resolution=patch_resolution,
                    model=model,
                    renew=False,
                )
            except TumorTraceError as error:
                if len(files) == 1:
                    raise
                failed.append(str(error))
                say(f"scan: {slide.name} could not be scanned: {error.found}")
                continue
            last = result.folder
            for note in result.record.notes:
                say(f"note: {note}")
            say(f"scan: {result.summary}")
            print(result.folder)
    except KeyboardInterrupt:
        raise RunError("interrupted", where=slide, remedy="the same command goes on where it stopped") from None
    finally:  # a slide that is refused does not keep those before it out of the report
        if last is not None:
            renew_report(run, last)
    if failed:
        say(f"scan: {len(failed)} of {len(files)} slides could not be scanned:")
        for line in failed:
            say(f"  {line}")
    return int(bool(failed))


def find_slides(paths: Sequence[Path]) -> list[Path]:
    """The slides that are named, and those in folders that are, each once and each DICOM series once.

    Raises:
        SlideError: A folder holds none.
    """
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(file for file in path.iterdir() if file.is_file() and _may_be_slide(file))
        if not inside:
            raise SlideError("no slide in this folder", where=path, expected="slides", remedy="name the slides' files")
        files += inside
    kept: dict[object, Path] = {}
    for file in files:
        series = series_of(file) if file.is_file() and is_dicom(str(file)) else None
        kept.setdefault((file.resolve().parent, series) if series else file.resolve(), file)
    return list(kept.values())


def folders_for(run: Path, files: Sequence[Path], out: Path | None) -> list[Path]:
    """A folder for each slide, named by its file, and where several bear one name by their folders too.

    Example:
        >>> [folder.name for folder in folders_for(Path("r"), [Path("a/x.svs"), Path("b/x.svs")], Path("out"))]
        ['a-x', 'b-x']
    """
    homes = [default_folder(run, file) if out is None else out / file.stem for file in files]
    several = {home for home, count in Counter(homes).items() if count > 1}
    apart = [
        home.with_name(home.name.removesuffix(file.stem) + f"{file.resolve().parent.name}-{file.stem}")
        if home in several
        else home
        for home, file in zip(homes, files, strict=True)
    ]
    still = {home for home, count in Counter(apart).items() if count > 1}
    return [
        home.with_name(f"{home.name}-{blake2b(str(file.resolve()).encode(), digest_size=3).hexdigest()}")
        if home in still
        else home
        for home, file in zip(apart, files, strict=True)
    ]


def _may_be_slide(file: Path) -> bool:
    return not file.name.startswith(".") and (
        file.suffix.lower() in _SLIDES or (not file.suffix and is_dicom(str(file)))
    )
