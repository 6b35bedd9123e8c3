"""Situations that users of this field bring, as a table: what is there, what is typed, what is right."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, get_args

Subject = Literal["pixels", "slides", "resolution", "folders", "tables", "layouts", "runs", "stores"]
Test = TypeVar("Test", bound=Callable[..., None])


@dataclass(frozen=True)
class Situation:
    """A row: what lies `there` on the user's disk, what is `typed`, what is `right`; and the `file` of its test."""

    subject: Subject
    there: str
    typed: str
    right: str
    file: str = ""


SITUATIONS: list[Situation] = []


def situation(subject: Subject, *, there: str, typed: str, right: str) -> Callable[[Test], Test]:
    """Enter the situation that a test tries into the table; the docs show the rows of its subject."""

    def enter(test: Test) -> Test:
        SITUATIONS.append(Situation(subject, there, typed, right, test.__module__.rpartition(".")[2]))
        return test

    return enter


DOCUMENT = Path(__file__).parents[2] / "docs" / "situations.md"
TITLES: dict[Subject, str] = {
    "layouts": "Data sets as they are distributed",
    "folders": "Folders",
    "tables": "Tables",
    "pixels": "Pixels",
    "resolution": "Resolution",
    "slides": "Slides",
    "runs": "Runs: resuming, predicting, exporting, models of others",
    "stores": "Object stores and web servers",
}
HEAD = """# What users of this field bring, and what becomes of it

Each row is tried by a test in `tests/situations/`, on small data laid out like the real ones.
`python -m tests.situations` writes this page from the tests.
"""


def document() -> str:
    """The rows of all tests here as Markdown, by subject, in the order of the files."""
    for file in sorted(Path(__file__).parent.glob("test_*.py")):
        importlib.import_module(f"tests.situations.{file.stem}")
    parts = [HEAD]
    for subject in get_args(Subject):
        rows = sorted((row for row in SITUATIONS if row.subject == subject), key=lambda row: row.file)  # stable
        lines = [f"| {_cell(row.there)} | {_typed(row.typed)} | {_cell(row.right)} |" for row in rows]
        parts.append(
            "\n".join([f"## {TITLES[subject]}", "", "| there | typed | right |", "| --- | --- | --- |", *lines, ""])
        )
    return "\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _typed(text: str) -> str:
    return f"`{text}`" if text.startswith("tumortrace") else _cell(text)
