"""Numbers and names as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np


def decimals(value: float | None, places: int = 3) -> str:
    """A number with `places` decimals and no zero before the point; a dash where it is not defined.

    Example:
        >>> decimals(0.9534), decimals(-0.25, 2), decimals(1.0), decimals(None)
        ('.953', '−.25', '1.000', '—')
    """
    if value is None or not np.isfinite(value):
        return "—"
    text = f"{abs(value):.{places}f}"
    sign = "−" if value < 0 and float(text) else ""
    return sign + (text[1:] if text.startswith("0.") else text)


class Measured(Protocol):
    """A number and its 95 % interval, such as `records.metrics.Estimate`."""

    @property
    def value(self) -> float | None:
        """The number."""

    @property
    def ci95(self) -> Sequence[float | None] | None:
        """The interval."""


class Bounded(Protocol):
    """Whatever has a 95 % interval."""

    @property
    def ci95(self) -> Sequence[float | None] | None:
        """The interval."""


def interval(entry: Bounded | Mapping[str, Any] | None, before: str = "") -> str:
    """The 95 % interval of an entry, or of its JSON, in square brackets, or nothing where there is none."""
    bounds = entry.get("ci95") if isinstance(entry, Mapping) else entry and entry.ci95
    return f"{before}[{decimals(bounds[0])}, {decimals(bounds[1])}]" if bounds else ""


def estimate(entry: Measured | None) -> str:
    """A metric with its interval, such as `.953 [.941, .964]`.

    Example:
        >>> from tumortrace.records.metrics import Estimate
        >>> estimate(Estimate(value=0.953, ci95=(0.941, 0.964))), estimate(None)
        ('.953 [.941, .964]', '—')
    """
    return f"{decimals(entry.value)}{interval(entry, ' ')}" if entry else "—"


def signed(value: float | None) -> str:
    """A difference with its sign.

    Example:
        >>> signed(0.0123), signed(-0.5), signed(0.0)
        ('+.012', '−.500', '.000')
    """
    text = decimals(value)
    return f"+{text}" if value is not None and value > 0 and text.strip(".0") else text


def p_text(p: float | None) -> str:
    """A p-value for reading.

    Example:
        >>> p_text(0.0312), p_text(0.00001), p_text(None)
        ('.031', '< .001', '—')
    """
    return "< .001" if p is not None and p < 0.001 else decimals(p)


def called(name: str) -> str:
    """What to call a class: its name, which a number alone would not make plain.

    Example:
        >>> called("1"), called("tumour")
        ('class 1', 'tumour')
    """
    return f"class {name}" if name.strip().lstrip("+-").isdecimal() else name


def enumerate_kinds(counts: Mapping[str, int]) -> str:
    """What there is of each kind, such as `2 errors, 1 note`; kinds without any are left out.

    Example:
        >>> enumerate_kinds({"error": 2, "warning": 0, "note": 1})
        '2 errors, 1 note'
    """
    return ", ".join(f"{count} {kind}{'s' * (count > 1)}" for kind, count in counts.items() if count)
