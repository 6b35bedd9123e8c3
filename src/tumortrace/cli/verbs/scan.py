"""`tumortrace scan`: run over whole slides."""

from __future__ import annotations

from pathlib import Path

from tumortrace.cli.app import Out, app


@app.command
def scan(
    run: Path,
    slides: list[Path],
    /,
    *,
    out: Out = None,
    overlap: float = 0.0,
    resolution: float | None = None,
    patch_resolution: float | None = None,
    device: str = "auto",
) -> None:
    """Run over whole slides: heat map, table of tiles, tumour outlines for QuPath, slide score.

    Interrupted or killed, it goes on where it stopped when called again in the same way.

    Args:
        run: Run folder or bundle.
        slides: Slides to scan.
        out: Folder to write; default `scans` in the run folder; each slide gets a folder in it.
        overlap: Share of its side by which a tile overlaps the next, from 0 to 0.9.
        resolution: Micrometres per pixel of a slide that does not state it.
        patch_resolution: Micrometres per pixel of the model's training patches, where it does not state it.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
    """
    from tumortrace.errors import RunError
    from tumortrace.records.progress import say
    from tumortrace.reports.report import renew_report
    from tumortrace.slides.scan import scan

    result = None
    try:
        for slide in slides:
            folder = None if out is None else out / slide.stem
            result = scan(
                run,
                slide,
                out=folder,
                overlap=overlap,
                resolution=resolution,
                patch_resolution=patch_resolution,
                device=device,
                renew=False,
            )
            for note in result.record.notes:
                say(f"note: {note}")
            say(f"scan: {result.summary}")
            print(result.folder)
    except KeyboardInterrupt:
        raise RunError("interrupted", where=slide, remedy="the same command goes on where it stopped") from None
    finally:  # a slide that is refused does not keep those before it out of the report
        if result is not None:
            renew_report(run, result.folder)
