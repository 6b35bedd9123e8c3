"""`tumortrace export`: a model as ONNX."""

from __future__ import annotations

from pathlib import Path

from tumortrace.cli.app import Out, app


@app.command
def export(run: Path, *, out: Out = None) -> None:
    """Write a model as ONNX with preprocessing, symmetries and calibration inside, compared with torch to 1e-5.

    Needs the extra `export`.

    Args:
        run: Run folder or bundle.
        out: File to write; default `model.onnx` in the bundle, where `serve` finds it.
    """
    from tumortrace.inference.export import export

    print(export(run, out=out))
