"""Patches to try on a page: right and wrong calls of a run's own test split, generated ones where none are kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tumortrace.app.pictures import as_png
from tumortrace.cohorts.synthetic.patches import draw_patch, slide_stain
from tumortrace.cohorts.synthetic.tissue import SCANNERS
from tumortrace.errors import RunError
from tumortrace.reports.examples import KEPT, OUTCOMES
from tumortrace.reports.records import read_json

GENERATED = 6
_ORDER = ("true_positive", "false_negative", "true_negative", "false_positive")


@dataclass(frozen=True)
class Example:
    """One picture to try.

    Attributes:
        name: Under which it is asked for.
        source: `test split` of the run, `evaluation NAME` of it, or `generated`.
        truth: 0 or 1, its label in the data; None for a generated one, which has none.
        called: 0 or 1, what the model called it when the run was made; None likewise.
        file: Where it lies; None for a generated one.
    """

    name: str
    source: str
    truth: int | None = None
    called: int | None = None
    file: Path | None = None


def examples(folder: Path) -> list[Example]:
    """What can be tried with a model: of its run's test split, else of its latest evaluation, else generated patches.

    Images that trained the model, or chose anything of it, are never among them.

    Args:
        folder: The run folder, or the bundle where there is no run around it.
    """
    evaluations = [path for path in folder.glob("evaluations/*/examples/examples.json") if path.is_file()]
    evaluations.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    own = _kept(folder / "examples", "test split")
    for record in evaluations:
        own = own or _kept(record.parent, f"evaluation {record.parents[1].name}")
    return own or [Example(f"generated-{number}.png", "generated") for number in range(1, GENERATED + 1)]


def png(example: Example) -> bytes:
    """The picture, every pixel as the model takes it.

    Raises:
        FileNotFoundError: It is gone.
    """
    return example.file.read_bytes() if example.file else _generated(int(example.name.split("-")[1].split(".")[0]))


def _kept(home: Path, source: str) -> list[Example]:
    """The pictures that a record of examples names; none where it is damaged or of another split."""
    try:
        record = read_json(home / "examples.json")
        shown = [each for found in record.get("outcomes", {}).values() for each in found["shown"]]
        kept = {each.get("picture") for each in shown} if record.get("split") == "test" else set()
    except (RunError, OSError, LookupError, TypeError, AttributeError):
        return []
    names = [(outcome, f"{outcome}-{number}.png") for outcome in _ORDER for number in range(1, KEPT + 1)]
    found = [(outcome, name) for outcome, name in names if name in kept and (home / name).is_file()]
    return [Example(name, source, *OUTCOMES[outcome], home / name) for outcome, name in found]


@cache
def _generated(number: int) -> bytes:
    """Half of them hold tumour in their centre; from several slides and scanners."""
    stain = slide_stain(f"example-{number}", SCANNERS[number % len(SCANNERS)])
    return as_png(draw_patch(number, 77, number % 2 == 1, stain)[0])
