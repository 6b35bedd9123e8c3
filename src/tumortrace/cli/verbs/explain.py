"""`tumortrace explain`: what the model looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tumortrace.cli.app import Out, app


@app.command
def explain(
    run: Path,
    images: list[Path],
    /,
    *,
    method: Annotated[list[str] | None, Parameter(negative="")] = None,
    out: Out = None,
    device: str = "auto",
) -> None:
    """Draw what the model looked at in each image.

    Args:
        run: Run folder or bundle.
        images: Images to explain.
        method: `grad-cam` (default), `grad-cam++`, `layer-cam`, `integrated-gradients` or `occlusion`; may be repeated.
        out: Folder to write; default `explanations` in the run folder.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
    """
    from tumortrace.inference.explain import explain

    print(explain(run, images, methods=method or ("grad-cam",), out=out, device=device))
