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

Each carries what was found, where, what was expected and what to do, and prints as one line.
"""

from __future__ import annotations


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
        self.found = found
        self.where = None if where is None else str(where)
        self.expected = expected
        self.remedy = remedy
        line = f"{self.where}: {found}" if self.where else found
        if expected:
            line += f"; expected {expected}"
        line += "."
        if remedy:
            line += f" What to do: {remedy}."
        super().__init__(" ".join(line.split()))


class DataError(TumorTraceError):
    """The user's data."""


class CohortError(DataError):
    """A folder, table or HDF5 file that does not open as a cohort."""


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
