"""`tumortrace explain`: what the model looked at."""

from __future__ import annotations

from pathlib import Path

from tumortrace.cli.app import Out, app


@app.command
def explain(run: Path, images: list[Path], /, *, out: Out = None, device: str = "auto") -> None:
    """Draw what the model looked at in each image (Grad-CAM).

    Args:
        run: Run folder or bundle.
        images: Images to explain.
        out: Folder to write; default `explanations` in the run folder.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
    """
    from tumortrace.inference.explain import explain

    print(explain(run, images, out=out, device=device))
