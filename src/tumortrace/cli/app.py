"""The application that verbs join, and the options that several of them share."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter, Token, convert, validators

from tumortrace import __version__


def _convert(type_: Any, tokens: Sequence[Token]) -> Any:
    """As cyclopts does, but 1.5 is not rounded where a whole number is asked for, and nan and inf are no numbers."""
    value = convert(type_, tokens)
    if isinstance(value, int | float) and not isinstance(value, bool):
        given = float(tokens[0].value) if "." in tokens[0].value else value
        if not math.isfinite(value) or given != value:
            raise ValueError
    return value


app = App(
    name="tumortrace",
    default_parameter=Parameter(converter=_convert),
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


def require_resume_alone(verb: Callable[..., Any], given: Mapping[str, Any], beside: Collection[str] = ()) -> None:
    """Refuse options beside `--resume`, which would be passed over: everything comes from the record.

    Args:
        verb: The verb's function, whose defaults tell what was given.
        given: Its arguments by name.
        beside: Options that may stand there.

    Raises:
        RunError: Naming the first that was given.
    """
    from tumortrace.errors import RunError

    defaults = {name: parameter.default for name, parameter in inspect.signature(verb).parameters.items()}
    differ = [name for name, value in given.items() if value != defaults[name] and name not in {"resume", *beside}]
    if not differ:
        return
    name = {"changes": "set", "options": next((n for n, v in asdict(given["options"]).items() if v is not None), "")}
    option = "data" if differ[0] == "data" else "--" + name.get(differ[0], differ[0]).replace("_", "-")
    raise RunError(
        f"{option} and --resume",
        expected="--resume alone, which takes everything from the record",
        remedy="leave one of them out",
    )
