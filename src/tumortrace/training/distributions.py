"""How one value of a recipe is drawn: from choices, from a range, or as a list of variable length.

The forms that a space's file writes are

- `{choice: [adam, muon]}`, or `{choice: {weak: {...}, strong: {...}}}`, whose names stand for larger values;
- `{int: [low, high]}` or `{int: [low, high, step]}`, both ends included; `log: true` draws on a logarithmic scale;
- `{float: [low, high]}`, likewise;
- `{list: [shortest, longest], of: ...}`: a list of variable length whose items are drawn one by one, `of` being one of
  the above, or a mapping from an item's fields to the above or to constants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tumortrace.training.documents import as_number

if TYPE_CHECKING:
    from optuna import Trial

FORMS = "{choice: [...]}, {int: [low, high]}, {float: [low, high]} or {list: [shortest, longest], of: ...}"


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    options: dict[str, Any] | list[Any]

    def suggest(self, trial: Trial, name: str) -> Any:
        """The value that the trial draws for `name`."""
        chosen = trial.suggest_categorical(name, list(self.options))
        return self.options[chosen] if isinstance(self.options, dict) else chosen


@dataclass(frozen=True)
class Range:
    """A number between two ends, both included."""

    low: float
    high: float
    step: float | None
    log: bool
    whole: bool

    def suggest(self, trial: Trial, name: str) -> Any:
        """The value that the trial draws for `name`."""
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)


@dataclass(frozen=True)
class Items:
    """A list of variable length; `fields` holds a distribution or constant per field of an item, or one at None."""

    shortest: int
    longest: int
    fields: dict[str | None, Any]

    def suggest(self, trial: Trial, name: str) -> Any:
        """The list that the trial draws: `name.length`, then `name.0.field`, `name.0.other`, `name.1.field` ..."""
        length = trial.suggest_int(f"{name}.length", self.shortest, self.longest)
        return [self._item(trial, f"{name}.{index}") for index in range(length)]

    def _item(self, trial: Trial, name: str) -> Any:
        if None in self.fields:
            return self.fields[None].suggest(trial, name)
        return {
            field: value.suggest(trial, f"{name}.{field}") if isinstance(value, Choice | Range) else value
            for field, value in self.fields.items()
        }


def parse_distribution(path: str, form: Any) -> Choice | Range | Items:
    """The distribution that a form stands for.

    Raises:
        ValueError: It is none of the known ones.

    Example:
        >>> parse_distribution("optimiser.lr", {"float": [0.001, 0.1], "log": True})
        Range(low=0.001, high=0.1, step=None, log=True, whole=False)
    """
    match form:
        case {"choice": dict() | list() as options, **rest} if options and not rest:
            if isinstance(options, dict):
                return Choice(options)
            if all(isinstance(option, str | int | float | None) for option in options):
                return Choice([as_number(option) for option in options])
            raise ValueError(f"{path}: choices that are no plain values need names, as in {{choice: {{name: value}}}}")
        case {"int": list() as ends, **rest} | {"float": list() as ends, **rest} if set(rest) <= {"log"}:
            return _range(path, ends, bool(rest.get("log", False)), whole="int" in form)
        case {"list": [int() as shortest, int() as longest], "of": dict() as of, **rest} if not rest:
            if not 0 <= shortest <= longest:
                raise ValueError(f"{path}: a list of {shortest} to {longest} items")
            return Items(shortest, longest, _fields(path, of))
    raise ValueError(f"{path}: {form!r} is none of {FORMS}")


def _fields(path: str, of: dict[str, Any]) -> dict[str | None, Any]:
    if {"choice", "int", "float"} & set(of):
        return {None: parse_distribution(path, of)}
    return {
        name: parse_distribution(f"{path}.{name}", value) if isinstance(value, dict) else value
        for name, value in of.items()
    }


def _range(path: str, ends: list[Any], log: bool, whole: bool) -> Range:
    numbers = [as_number(end) for end in ends]
    allowed = int if whole else (int, float)
    if len(numbers) not in (2, 3) or not all(isinstance(n, allowed) and not isinstance(n, bool) for n in numbers):
        raise ValueError(f"{path}: {ends!r} is no range of {'whole ' * whole}numbers [low, high] or [low, high, step]")
    low, high, step = (*numbers, None)[:3]
    if low > high or (log and (low <= 0 or step is not None)) or (step is not None and step <= 0):
        raise ValueError(f"{path}: {ends!r} is an impossible range{' on a logarithmic scale' * log}")
    return Range(low, high, step, log, whole)
