"""Everything that can go wrong, as one tree.

::

    TumorTraceError
    ├── DataError            the user's data
    │   ├── CohortError      a folder, table or HDF5 file that does not open as a cohort
    │   ├── ImageError       one image that cannot be decoded
    │   ├── SlideError       one whole slide that cannot be read
    │   └── SplitError       a split that cannot be made without leakage
    ├── PredictionsError     a predictions table that cannot be evaluated
    ├── RecipeError          a recipe, or a change to one, that is not valid
    ├── ModelError           a model or bundle that is unknown, damaged or does not fit
    ├── RunError             a run folder that is missing, incomplete or does not fit
    ├── ServeError           a server that cannot be set up as asked
    └── MissingDependencyError   an optional library that is not installed

Each carries what was found, where, what was expected and what to do, and prints as one line, in which no value takes
more than 80 characters.
"""

from __future__ import annotations

import re

LONGEST = 80
"""Characters of a value that a message shows."""

_PATH, _PART = 300, 2000  # characters of a path, and of one part of a message
_QUOTED = (
    re.compile(  # short ones match too, so that their ends open nothing; the end closes, so that one pass is enough
        r"""(?<!\w)(b?)('(?:[^'\\]|\\.?)*+(?:'|\Z)|"(?:[^"\\]|\\.?)*+(?:"|\Z))""",
        re.DOTALL,
    )
)
_WORD = re.compile(rf"\S{{{LONGEST + 1},}}")


def shortened(text: str) -> str:
    """A message in which quoted values, and words that are no path, are cut at `LONGEST` characters.

    Whatever prints a message passes it through here, so that a value which is a picture or a whole document does not
    bury what is said of it.

    Example:
        >>> shortened(f"no column {'x' * 200!r} there") == f"no column '{'x' * 80}...' there"
        True
    """
    text = _QUOTED.sub(_cut_quoted, text)
    text = _WORD.sub(_cut_word, text)
    return text if len(text) <= _PART else text[:_PART] + "..."


def shown(value: object) -> str:
    """A value of any type as a message shows it: quoted as Python does, one line, at most `LONGEST` characters of it.

    Example:
        >>> shown("a"), len(shown(list(range(100))))
        ("'a'", 83)
    """
    text = repr(value)
    if isinstance(value, str | bytes):
        return shortened(text)
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def plain(value: object) -> str:
    """A name or text as a message shows it without quotes: one line, at most `LONGEST` characters of it.

    Example:
        >>> plain("a  b"), len(plain("a b " * 100))
        ('a b', 83)
    """
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def _cut_quoted(match: re.Match[str]) -> str:
    mark, value = match.groups()
    return match[0] if len(value) <= LONGEST + 2 else f"{mark}{value[: LONGEST + 1]}...{value[0]}"


def _cut_word(match: re.Match[str]) -> str:
    word = match[0]
    longest = _PATH if "/" in word or "\\" in word or "..." in word else LONGEST
    return word if len(word) <= longest else word[:longest] + "..."


class TumorTraceError(Exception):
    """A refusal that the user can act on.

    Args:
        found: What was found, as a sentence without full stop.
        where: File, row or field.
        expected: What was expected instead.
        remedy: What to do, as a sentence without full stop.

    Example:
        >>> print(CohortError("no column 'label'", where="labels.csv", expected="columns id,label", remedy="rename it"))
        labels.csv: no column 'label'; expected columns id,label. What to do: rename it.
    """

    def __init__(
        self, found: str, *, where: object = None, expected: str | None = None, remedy: str | None = None
    ) -> None:
        self.found = shortened(found)
        self.where = None if where is None else shortened(str(where))
        self.expected = None if expected is None else shortened(expected)
        self.remedy = None if remedy is None else shortened(remedy)
        line = f"{self.where}: {self.found}" if self.where else self.found
        if self.expected:
            line += f"; expected {self.expected}"
        line += "."
        if self.remedy:
            line += f" What to do: {self.remedy}."
        super().__init__(" ".join(line.split()))

    def __reduce__(self) -> tuple[object, ...]:  # for workers: subclasses are made of other arguments
        return _restored, (type(self), self.args), self.__dict__


def _restored(kind: type[TumorTraceError], arguments: tuple[object, ...]) -> TumorTraceError:
    return kind.__new__(kind, *arguments)


class DataError(TumorTraceError):
    """The user's data."""


class CohortError(DataError):
    """A folder, table or HDF5 file that does not open as a cohort.

    Attributes:
        classes: All classes there, where it is only not known which of them are positive; else empty.
    """

    classes: tuple[str, ...] = ()


class ImageError(DataError):
    """One image that cannot be decoded."""


class SlideError(DataError):
    """One whole slide that cannot be read."""


class SplitError(DataError):
    """A split that cannot be made without leakage."""


class PredictionsError(TumorTraceError):
    """A predictions table that cannot be evaluated."""


class RecipeError(TumorTraceError):
    """A recipe, or a change to one, that is not valid."""


class ModelError(TumorTraceError):
    """A model or bundle that is unknown, damaged or does not fit."""


class RunError(TumorTraceError):
    """A run folder that is missing, incomplete or does not fit."""


class ServeError(TumorTraceError):
    """A server that cannot be set up as asked."""


class MissingDependencyError(TumorTraceError):
    """An optional library that is not installed."""
