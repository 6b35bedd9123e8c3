"""`tumortrace features`: texture descriptors to a table."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from tumortrace.cli.app import NO_OPTIONS, DataOptions, app


@app.command
def features(
    data: str,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("features.parquet"),
    descriptors: str | None = None,
    changes: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    pictures: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    options: DataOptions = NO_OPTIONS,
) -> None:
    """Compute texture descriptors of every image and write them as one table.

    Args:
        data: Any known layout.
        out: Table to write, `.parquet` or `.csv`.
        descriptors: Names separated by commas, as in `glcm,hog`; default all.
        changes: An argument of a descriptor, as in `glcm.distances=[1,2]`; may be given several times.
        pictures: Draw every descriptor for so many images of each class, into `<out>-pictures`.
    """
    from tumortrace.preparation.features import features

    names = [name.strip() for name in descriptors.split(",")] if descriptors else None
    features(data, out=out, descriptors=names, changes=changes or (), pictures=pictures, **asdict(options))
