"""Reporting guidelines item by item: what each asks, and what the records of a run answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import ChainableUndefined, Environment

from tumortrace.evaluation.measures import TITLES
from tumortrace.images.augmentation import Augmentation
from tumortrace.records.evaluation import ExplanationsRecord
from tumortrace.records.metrics import CalibrationRecord, DistributionRecord, Estimate, GroupMetrics
from tumortrace.reports.page import Context
from tumortrace.reports.records import Records
from tumortrace.reports.story import evaluations, unknown
from tumortrace.reports.wording import estimate

#: The guidelines, in the order in which the model card goes through them.
CHECKLISTS = ("tripod-ai", "claim-2024")
MISSING = "not available"


@dataclass(frozen=True)
class Item:
    """One item of a guideline.

    Attributes:
        number: As the guideline counts.
        asks: What it asks for, in our words.
        answer: What the records say; "not available" where they say nothing.
    """

    number: str
    asks: str
    answer: str

    @property
    def answered(self) -> bool:
        """Whether the records say anything."""
        return self.answer != MISSING


@dataclass(frozen=True)
class Checklist:
    """A guideline, answered from records: its name, where it was published, its items."""

    name: str
    source: str
    items: tuple[Item, ...]

    @property
    def answered(self) -> int:
        """How many items the records answer, wholly or in part."""
        return sum(item.answered for item in self.items)


@cache
def read_checklist(name: str) -> Context:
    """A guideline as it is shipped: `name`, `source` and `items`, each with `number`, `asks` and perhaps `fields`.

    Example:
        >>> len(read_checklist("claim-2024")["items"])
        44
    """
    content: Context = yaml.safe_load((files(__package__) / "checklists" / f"{name}.yaml").read_text("utf-8"))
    return content


def fill(name: str, records: Records, told: Context) -> Checklist:
    """A guideline with what the records of a run answer; nothing else is ever filled in.

    Args:
        name: One of `CHECKLISTS`.
        records: Of the run.
        told: What `story` makes of them.
    """
    shipped, environment, known = (
        read_checklist(name),
        Environment(undefined=ChainableUndefined),
        told | _summaries(records, told),
    )
    items = []
    for item in shipped["items"]:
        answers = {
            _worded(label, records.unit): expression and _text(environment.compile_expression(expression)(**known))
            for label, expression in (item.get("fields") or {}).items()
        }
        answer = "; ".join(f"{label}: {value or MISSING}" for label, value in answers.items())
        items.append(Item(str(item["number"]), item["asks"], answer if any(answers.values()) else MISSING))
    return Checklist(shipped["name"], shipped["source"], tuple(items))


def _worded(label: str, unit: str) -> str:
    """A field's name, of slides where they are what is predicted."""
    return label if unit == "image" else label.replace("images", "slides").replace("pixels of a patch", "bags of tiles")


def _summaries(records: Records, told: Context) -> Context:
    """What several items ask for and no single field holds."""
    splits, audit, judged = records.run.data.splits, records.run.audit, records.judged
    calibrated, unlike = CalibrationRecord.find(records.folder), DistributionRecord.find(records.folder)
    explained = ExplanationsRecord.find(records.folder / "explanations")
    plain = Augmentation().model_dump(mode="json")
    augmentation = told["recipe"].get("augmentation") or {}
    return {
        "images_of_splits": {name: part.images for name, part in splits.items()},
        "positives_of_splits": {name: part.positives for name, part in splits.items()},
        "groups_of_splits": {name: part.groups for name, part in splits.items() if part.groups is not None},
        "findings": [finding.name for finding in audit.findings] or "none" if audit else None,
        "measures": [label for name, label in TITLES.items() if name in judged],
        "figure_names": sorted(path.stem.replace("_", " ") for path in records.folder.glob("figures/*.svg")),
        "elsewhere": [
            f"{entry.name} ({entry.metrics.n:,} {records.unit}s, AUROC {estimate(entry.metrics.get('auroc'))})"
            for entry in evaluations(records)
        ],
        "gaps": [line["text"].rstrip(".") for line in unknown(records)] if records.measured else None,
        "corruptions": sorted(records.stress.corruptions) if records.stress else [],
        "explained_by": explained.method if explained else None,
        "groups": _extremes(judged.groups or []),
        "subgroup_columns": list(judged.subgroups),
        "calibrated": calibrated.as_json() if calibrated else {},
        "unlike": unlike.as_json() if unlike else {},
        "augmented": {name: value for name, value in augmentation.items() if value != plain.get(name)},
    }


def _extremes(groups: list[GroupMetrics]) -> Context | None:
    """The lowest and the highest accuracy of a slide or patient."""
    known = [(entry.value, entry) for group in groups if (entry := group.get("accuracy")) and entry.value is not None]
    if not known:
        return None
    lowest, highest = (choose(known, key=lambda pair: pair[0])[1] for choose in (min, max))
    return {"lowest": lowest.as_json(), "highest": highest.as_json(), "measured": len(known)}


def _text(value: Any) -> str | None:
    """A value of a record in a line; None where there is none."""
    if isinstance(value, dict) and "value" in value:
        return estimate(Estimate.model_validate(value))
    if isinstance(value, dict):
        parts = {key: _text(part) for key, part in value.items()}
        return ", ".join(f"{key} {part}" for key, part in parts.items() if part) or None
    if isinstance(value, (list, tuple)):
        return ", ".join(text for part in value if (text := _text(part))) or None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.4g}"
    return None if value is None else str(value) or None
