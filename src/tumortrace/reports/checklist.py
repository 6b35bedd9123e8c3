"""Reporting guidelines item by item: what each asks, and what the records of a run answer."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import ChainableUndefined, Environment

from tumortrace.evaluation.measures import TITLES
from tumortrace.images.augmentation import Augmentation
from tumortrace.reports.records import Records, read_json
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


def read_checklist(name: str) -> dict[str, Any]:
    """A guideline as it is shipped: `name`, `source` and `items`, each with `number`, `asks` and perhaps `fields`.

    Example:
        >>> len(read_checklist("claim-2024")["items"])
        44
    """
    content: dict[str, Any] = yaml.safe_load((files(__package__) / "checklists" / f"{name}.yaml").read_text("utf-8"))
    return content


def fill(name: str, records: Records, told: dict[str, Any]) -> Checklist:
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
        found = {
            label: None if expression is None else _text(environment.compile_expression(expression)(**known))
            for label, expression in (item.get("fields") or {}).items()
        }
        answer = "; ".join(f"{label}: {value or MISSING}" for label, value in found.items())
        items.append(Item(str(item["number"]), item["asks"], answer if any(found.values()) else MISSING))
    return Checklist(shipped["name"], shipped["source"], tuple(items))


def _summaries(records: Records, told: dict[str, Any]) -> dict[str, Any]:
    """What several items ask for and no single field holds."""
    splits = (told["data"].get("splits") or {}).items()
    findings = (records.run.get("audit") or {}).get("findings")
    plain = Augmentation().model_dump(mode="json")
    augmentation = told["recipe"].get("augmentation") or {}
    return {
        "images_of_splits": {name: part.get("images") for name, part in splits},
        "positives_of_splits": {name: part.get("positives") for name, part in splits},
        "groups_of_splits": {name: part.get("groups") for name, part in splits if part.get("groups") is not None},
        "findings": None if findings is None else [finding["name"] for finding in findings] or "none",
        "measures": [label for name, label in TITLES.items() if name in told["judged"]],
        "figure_names": sorted(path.stem.replace("_", " ") for path in records.folder.glob("figures/*.svg")),
        "elsewhere": [
            f"{entry['name']} ({entry['metrics'].get('n', 0):,} images, AUROC {_text(entry['metrics'].get('auroc'))})"
            for entry in evaluations(records)
        ],
        "gaps": [line["text"].rstrip(".") for line in unknown(records)] if told["judged"] else None,
        "corruptions": sorted(records.stress.get("corruptions") or {}),
        "explained_by": read_json(records.folder / "explanations" / "explanations.json").get("method"),
        "groups": _extremes(told["judged"].get("groups") or []),
        "subgroup_columns": list(told["judged"].get("subgroups") or {}),
        "calibrated": read_json(records.folder / "calibration.json"),
        "unlike": read_json(records.folder / "distribution.json"),
        "augmented": {name: value for name, value in augmentation.items() if value != plain.get(name)},
    }


def _extremes(groups: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The lowest and the highest accuracy of a slide or patient."""
    known = [group["accuracy"] for group in groups if (group.get("accuracy") or {}).get("value") is not None]
    known.sort(key=lambda entry: float(entry["value"]))
    return {"lowest": known[0], "highest": known[-1], "measured": len(known)} if known else None


def _text(value: Any) -> str | None:
    """A value of a record in a line; None where there is none."""
    if isinstance(value, dict) and "value" in value:
        return estimate(value)
    if isinstance(value, dict):
        parts = {key: _text(each) for key, each in value.items()}
        return ", ".join(f"{key} {part}" for key, part in parts.items() if part) or None
    if isinstance(value, (list, tuple)):
        return ", ".join(part for each in value if (part := _text(each))) or None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.4g}"
    return None if value is None else str(value) or None
