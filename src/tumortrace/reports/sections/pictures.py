"""Sections of pictures: right and wrong predictions, what the model looked at, and the slides it was run over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any

from matplotlib.figure import Figure

from tumortrace.reports.drawing import MUTED, NEGATIVE, name_rows
from tumortrace.reports.examples import outcome_title
from tumortrace.reports.page import Context, embed_picture
from tumortrace.reports.records import Records, read_json
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


def _examples(records: Records) -> list[Mapping[str, Any]]:
    home = records.folder / "examples"
    sheets = []
    for outcome, entry in read_json(home / "examples.json").get("outcomes", {}).items():
        picture = embed_picture(home, entry["sheet"], 1200)
        if picture is not None:
            shown = ", ".join(f"{image['id']} {decimals(image['probability'])}" for image in entry["shown"])
            title = outcome_title(outcome, records.classes)
            sheets.append({"picture": picture, "alt": f"{title}: {shown}", "title": title} | entry)
    return sheets


def tell_explanations(records: Records) -> Context | None:
    """`explanations` (see `_explained`) and the contact `sheets`; None where there is no picture."""
    folder = records.folder / "explanations"
    record = read_json(folder / "sheets.json")
    pictures = [embed_picture(folder, name, 1400) for name in record.get("figures", [])]
    sheets = record | {"pictures": [picture for picture in pictures if picture]}
    explanations = _explained(records)
    return {"explanations": explanations, "sheets": sheets} if explanations["pictured"] or sheets["pictures"] else None


def _explained(records: Records) -> Context:
    """The record of the explanations with the first pictures, in order and by id (where no two share one)."""
    folder = records.folder / "explanations"
    record = read_json(folder / "explanations.json")
    items = [
        item | {"picture": embed_picture(folder, item.get("figure"), 640)}
        for item in record.get("items", [])[:MOST_EXPLANATIONS]
    ]
    count = Counter(item.get("id") for item in items)
    by_id = {item["id"]: item["picture"] for item in items if item["picture"] and count[item.get("id")] == 1}
    pictured = [item for item in items if item["picture"]]
    return record | {"pictured": pictured, "by_id": by_id, "count": len(record.get("items", []))}


def tell_explanation_measures(records: Records) -> Context | None:
    """`measures`, the record with `random` (the last stage of randomisation) in each method, and `alt`."""
    measures = _measures(records)
    if measures is None:
        return None
    spoken = [
        f"{entry['title']} "
        + ", ".join(f"{title.lower()} {estimate(entry[key])}" for key, (title, _) in PANELS.items() if entry.get(key))
        for entry in measures["methods"].values()
    ]
    alt = {"explanation_measures": "Measures of the heat maps with 95 % intervals: " + "; ".join(spoken)}
    return {"measures": measures, "alt": alt}


def _measures(records: Records) -> Context | None:
    record = read_json(records.folder / "explanations" / "measures.json")
    if not record.get("methods"):
        return None
    methods = {}
    for name, entry in record["methods"].items():
        stages = entry.get("randomised") or []
        methods[name] = entry | {"random": stages[-1]["rank_correlation"] if stages else None}
    return record | {"methods": methods, "masked": any(entry.get("energy") for entry in methods.values())}


def draw_explanation_measures(records: Records) -> Figure | None:
    """Each method's measures with intervals; a dashed line where chance would be."""
    measures = _measures(records)
    if measures is None:
        return None
    methods = list(measures["methods"].values())[::-1]
    panels = [key for key in PANELS if any(entry.get(key) for entry in methods)]
    area = ((measures.get("chance") or {}).get("area") or {}).get("value")
    figure = Figure(figsize=(1.75 * len(panels) + 1.8, 1.2 + 0.34 * len(methods)), layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, key in zip(grid, panels, strict=True):
        title, chance = PANELS[key]
        level = area if chance is None else chance
        if level is not None:
            axes.axvline(level, linestyle="--", color=MUTED, linewidth=1)
        for row, entry in enumerate(methods):
            value = (entry.get(key) or {}).get("value")
            if value is None:
                continue
            colour = MUTED if entry.get("control") else NEGATIVE
            axes.plot(entry[key].get("ci95") or [value, value], [row, row], color=colour, linewidth=2)
            axes.plot(value, row, "o", color=colour, markersize=6)
        axes.set_title(title, fontsize=9.5, pad=6)
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(axis="y", visible=True)
    name_rows(grid[0], [str(entry["title"]) for entry in methods], 9)
    return figure


def tell_scans(records: Records) -> Context | None:
    """`scans`: the record of each, with its heat map; None where there is none."""
    scans = []
    for path in sorted(records.folder.glob("scans/*/scan.json")):
        record = read_json(path)
        heatmap = embed_picture(path.parent, (record.get("files") or {}).get("heatmap"), 1200)
        scans.append(record | {"name": path.parent.name, "heatmap": heatmap})
    return {"scans": scans} if scans else None
