"""The application that verbs join, and the options that several of them share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter, validators

from tumortrace import __version__

app = App(
    name="tumortrace",
    help="Tumour classifiers for medical image patches that one can defend. Research use only, not a medical device.",
    version=__version__,
    suppress_keyboard_interrupt=False,  # the door turns it into a line and exit code 1
)

Seed = Annotated[int, Parameter(validator=validators.Number(gte=0))]
Out = Annotated[Path | None, Parameter(name=["--out", "-o"])]


@Parameter(name="*")
@dataclass(frozen=True)
class DataOptions:
    """How to read the data.

    Args:
        positive: Name of the positive class, where the data do not make it plain.
        group_column: Column of a table that names slide or patient.
        group_from_name: Regular expression that finds slide or patient in a file name.
        label_from_name: Regular expression that finds the label in a file name.
        resolution: Micrometres per pixel of the images, where the data do not say.
    """

    positive: str | None = None
    group_column: str | None = None
    group_from_name: str | None = None
    label_from_name: str | None = None
    resolution: float | None = None


NO_OPTIONS = DataOptions()
