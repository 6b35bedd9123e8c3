"""The right and the wrong predictions that the model was surest of."""

from __future__ import annotations

from typing import Any

from tumortrace.reports.embedding import embed_picture
from tumortrace.reports.examples import outcome_title
from tumortrace.reports.records import Records, decimals, read_json
from tumortrace.reports.sections.explanations import explained

MOST = 10  # rows in the table


def context(records: Records) -> dict[str, Any] | None:
    """`mistakes`, `decided`, `explanations` for their pictures, and `examples`: a sheet for each outcome."""
    mistakes, examples = _mistakes(records), _examples(records)
    if not mistakes and not examples:
        return None
    decided = "decision" in records.predictions
    return {"mistakes": mistakes, "explanations": explained(records), "examples": examples, "decided": decided}


def _examples(records: Records) -> list[dict[str, Any]]:
    home = records.folder / "examples"
    outcomes = read_json(home / "examples.json").get("outcomes", {})
    sheets = []
    for outcome, found in outcomes.items():
        picture = embed_picture(home, found["sheet"], 1200)
        if picture is not None:
            shown = ", ".join(f"{each['id']} {decimals(each['probability'])}" for each in found["shown"])
            title = outcome_title(outcome, records.classes)
            sheets.append({"picture": picture, "alt": f"{title}: {shown}", "title": title} | found)
    return sheets


def _mistakes(records: Records) -> list[dict[str, Any]]:
    table = records.scored(records.split)
    if "prediction" not in table:
        return []
    wrong = table[table["prediction"].notna() & (table["prediction"] != table["label"])]
    sureness = wrong["probability"].where(wrong["prediction"] == 1, 1 - wrong["probability"])
    surest = wrong.loc[sureness.sort_values(ascending=False, kind="stable").index[:MOST]]
    surest = surest.astype(object).where(surest.notna(), None).assign(of=len(wrong))
    return [{str(name): value for name, value in row.items()} for row in surest.to_dict("records")]
