"""Situations that users of this field bring, as a table: what is there, what is typed, what is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

Subject = Literal["pixels", "slides", "resolution", "folders", "tables", "layouts", "runs"]
Test = TypeVar("Test", bound=Callable[..., None])


@dataclass(frozen=True)
class Situation:
    """A row: `there` is what lies on the user's disk, `typed` the command, `right` what it has to answer."""

    subject: Subject
    there: str
    typed: str
    right: str


SITUATIONS: list[Situation] = []


def situation(subject: Subject, *, there: str, typed: str, right: str) -> Callable[[Test], Test]:
    """Enter the situation that a test tries into the table; the docs show the rows of its subject."""

    def enter(test: Test) -> Test:
        SITUATIONS.append(Situation(subject, there, typed, right))
        return test

    return enter
