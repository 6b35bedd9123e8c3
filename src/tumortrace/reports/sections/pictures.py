"""Sections of pictures: right and wrong predictions, what the model looked at, and the slides it was run over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Any

from matplotlib.figure import Figure

from tumortrace.records.evaluation import (
    ExamplesRecord,
    ExplanationMeasures,
    ExplanationsRecord,
    MeasuredMethod,
    SheetsRecord,
)
from tumortrace.records.metrics import Estimate
from tumortrace.records.scans import ScanRecord
from tumortrace.reports.drawing import MUTED, NEGATIVE, ends, name_rows, number
from tumortrace.reports.examples import outcome_title
from tumortrace.reports.page import Context, embed_picture
from tumortrace.reports.records import Records
from tumortrace.reports.wording import decimals, estimate

MOST_MISTAKES = 10  # rows in the table
MOST_EXPLANATIONS = 12  # pictures
PANELS: dict[str, tuple[str, float | None]] = {  # title, what chance gives; None for the tumour's share of the area
    "pointing": ("Hottest pixel on tumour", None),
    "energy": ("Share of heat on tumour", None),
    "mask_auc": ("AUC against the mask", 0.5),
    "insertion_gain": ("Insertion, gain over others", 0.0),
    "random": ("Kept with random weights", 0.0),
}


def tell_mistakes(records: Records) -> Context | None:
    """`mistakes`, `decided`, `explanations` for their pictures, and `examples`: a sheet for each outcome."""
    mistakes, examples = _mistakes(records), _examples(records)
    if not mistakes and not examples:
        return None
    decided = "decision" in records.predictions
    return {"mistakes": mistakes, "explanations": _explained(records), "examples": examples, "decided": decided}


def _mistakes(records: Records) -> list[dict[Hashable, Any]]:
    """The wrong predictions that the model was surest of; `of` is the number of all."""
    table = records.scored(records.split)
    if "prediction" not in table:
        return []
    wrong = table[table["prediction"].notna() & (table["prediction"] != table["label"])]
    sureness = wrong["probability"].where(wrong["prediction"] == 1, 1 - wrong["probability"])
    surest = wrong.loc[sureness.sort_values(ascending=False, kind="stable").index[:MOST_MISTAKES]]
    return surest.astype(object).where(surest.notna(), None).assign(of=len(wrong)).to_dict("records")


def _examples(records: Records) -> list[Context]:
    record = ExamplesRecord.find(records.folder) or ExamplesRecord()
    sheets = []
    for outcome, entry in record.outcomes.items():
        picture = embed_picture(ExamplesRecord.file(records.folder).parent, entry.sheet, 1200)
        if picture is not None:
            shown = ", ".join(f"{image.id} {decimals(image.probability)}" for image in entry.shown)
            title = outcome_title(outcome, records.classes)
            sheets.append({**entry.as_json(), "picture": picture, "alt": f"{title}: {shown}", "title": title})
    return sheets


def tell_explanations(records: Records) -> Context | None:
    """`explanations` (see `_explained`) and the contact `sheets`; None where there is no picture."""
    folder = records.folder / "explanations"
    record = SheetsRecord.find(folder) or SheetsRecord()
    pictures = [embed_picture(folder, name, 1400) for name in record.figures]
    sheets: Context = record.as_json() | {"pictures": [picture for picture in pictures if picture]}
    explanations = _explained(records)
    return {"explanations": explanations, "sheets": sheets} if explanations["pictured"] or sheets["pictures"] else None


def _explained(records: Records) -> Context:
    """The record of the explanations with the first pictures, in order and by id (where no two share one)."""
    folder = records.folder / "explanations"
    record = ExplanationsRecord.find(folder) or ExplanationsRecord()
    shown = [(item, embed_picture(folder, item.figure, 640)) for item in record.items[:MOST_EXPLANATIONS]]
    count = Counter(item.id for item, _ in shown)
    by_id = {item.id: picture for item, picture in shown if picture and count[item.id] == 1}
    pictured = [item.as_json() | {"picture": picture} for item, picture in shown if picture]
    return record.as_json() | {"pictured": pictured, "by_id": by_id, "count": len(record.items)}


def tell_explanation_measures(records: Records) -> Context | None:
    """`measures`, the record with `random` (the last stage of randomisation) in each method, and `alt`."""
    record = _measures(records)
    if record is None:
        return None
    spoken = [
        f"{method.title} "
        + ", ".join(
            f"{title.lower()} {estimate(entry)}" for key, (title, _) in PANELS.items() if (entry := _panel(method, key))
        )
        for method in record.methods.values()
    ]
    alt = {"explanation_measures": "Measures of the heat maps with 95 % intervals: " + "; ".join(spoken)}
    methods = {
        name: method.as_json() | {"random": entry.as_json() if (entry := _panel(method, "random")) else None}
        for name, method in record.methods.items()
    }
    masked = any(method.energy for method in record.methods.values())
    return {"measures": record.as_json() | {"methods": methods, "masked": masked}, "alt": alt}


def _measures(records: Records) -> ExplanationMeasures | None:
    record = ExplanationMeasures.find(records.folder / "explanations")
    return record if record and record.methods else None


def _panel(method: MeasuredMethod, key: str) -> Estimate | None:
    """What a panel shows of a method; `random` is the last stage of randomisation."""
    if key == "random":
        return method.randomised[-1].rank_correlation if method.randomised else None
    entry = getattr(method, key)
    return entry if isinstance(entry, Estimate) else None


def draw_explanation_measures(records: Records) -> Figure | None:
    """Each method's measures with intervals; a dashed line where chance would be."""
    record = _measures(records)
    if record is None:
        return None
    methods = list(record.methods.values())[::-1]
    panels = [key for key in PANELS if any(_panel(method, key) for method in methods)]
    area = record.chance.area.value if record.chance.area else None
    figure = Figure(figsize=(1.75 * len(panels) + 1.8, 1.2 + 0.34 * len(methods)), layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, key in zip(grid, panels, strict=True):
        title, chance = PANELS[key]
        level = area if chance is None else chance
        if level is not None:
            axes.axvline(level, linestyle="--", color=MUTED, linewidth=1)
        for row, method in enumerate(methods):
            entry = _panel(method, key)
            colour = MUTED if method.control else NEGATIVE
            axes.plot(ends(entry), [row, row], color=colour, linewidth=2)
            axes.plot(number(entry), row, "o", color=colour, markersize=6)
        axes.set_title(title, fontsize=9.5, pad=6)
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(axis="y", visible=True)
    name_rows(grid[0], [method.title for method in methods], 9)
    return figure


def tell_scans(records: Records) -> Context | None:
    """`scans`: the record of each, with its heat map; None where there is none."""
    scans = []
    for path in sorted(records.folder.glob(f"scans/*/{ScanRecord.FILE}")):
        record = ScanRecord.read(path.parent)
        heatmap = embed_picture(path.parent, record.files.get("heatmap"), 1200)
        scans.append(record.as_json() | {"name": path.parent.name, "heatmap": heatmap})
    return {"scans": scans} if scans else None
