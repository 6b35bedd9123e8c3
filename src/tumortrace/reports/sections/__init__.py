"""The sections of a run's report, in the order in which it tells its story.

A section NAME is up to two files, found by themselves:

- `templates/sections/NAME.html.j2`, its content below the heading. It sees what `reports.story.story` and its own
  `context` return, and `figures` (name to data URI); `macros.html.j2` has the usual pieces (import them with context).
- `sections/NAME.py`, where something has to be computed or drawn first: `context(records) -> dict | None` returns
  further variables for the template, or None where no record has anything to show, and the section is left out; its
  optional `FIGURES` (name to a function of `Records` that returns a matplotlib figure or None) are drawn into
  `figures/` with the others.

What a record lacks within a section is called not available by the template itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from tumortrace.reports.figures import Drawings
from tumortrace.reports.records import Records


@dataclass(frozen=True)
class Section:
    """One section of the report.

    Attributes:
        name: Of its files, and its anchor in the page.
        heading: Above it.
        link: In the list of contents; the heading where empty.
    """

    name: str
    heading: str
    link: str = ""

    @property
    def template(self) -> str:
        """Path of its template."""
        return f"sections/{self.name}.html.j2"

    @cached_property
    def _module(self) -> ModuleType | None:
        module = f"{__name__}.{self.name}"
        return import_module(module) if find_spec(module) else None

    @property
    def figures(self) -> Drawings:
        """What it draws."""
        return getattr(self._module, "FIGURES", {})

    def context(self, records: Records) -> dict[str, Any] | None:
        """Its own variables; None where it has nothing to show."""
        return self._module.context(records) if self._module else {}


SECTIONS = (
    Section("worth", "What this is worth", "Worth"),
    Section("data", "Data and split", "Data"),
    Section("audit", "Audit"),
    Section("training", "Training"),
    Section("importances", "Descriptors"),
    Section("metrics", "Metrics"),
    Section("groups", "By slide or patient", "Groups"),
    Section("elsewhere", "On other data"),
    Section("calibration", "Calibration"),
    Section("threshold", "Threshold"),
    Section("decisions", "Decisions"),
    Section("distribution", "Images unlike the training data", "Likeness"),
    Section("mistakes", "Right and wrong", "Mistakes"),
    Section("robustness", "Robustness"),
    Section("explanations", "Explanations"),
    Section("explanation_measures", "Whether to believe the explanations", "Believing them"),
    Section("scans", "Slide scans", "Slides"),
    Section("reproduce", "How to reproduce", "Reproduce"),
    Section("limits", "What voids it"),
)
