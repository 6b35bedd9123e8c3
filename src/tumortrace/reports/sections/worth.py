"""What the verdict is worth: how sure it is, and what nobody has measured."""

from __future__ import annotations

from typing import Any

from tumortrace.reports.evaluations import evaluations
from tumortrace.reports.records import Records, decimals, interval, read_json

FEW_GROUPS = 10


def context(records: Records) -> dict[str, Any] | None:
    """`sure` and `unknown`, a sentence each; None where no metric is on record."""
    return {"sure": sure(records), "unknown": unknown(records)} if records.judged else None


def sure(records: Records) -> list[dict[str, str]]:
    """How far the numbers can be trusted: `text` and `kind` (error, warning or an empty text)."""
    judged, told = records.judged, []
    auroc = judged.get("auroc") or {}
    bounds = auroc.get("ci95")
    if auroc and auroc.get("value") is None:
        told.append(_line("The AUROC is not defined: these images are not of both classes.", "error"))
    elif auroc and not bounds:
        told.append(_line("The AUROC has no interval, so how sure it is cannot be said.", "warning"))
    elif bounds:
        others = "other slides or patients" if judged.get("n_groups") else "other images"
        told.append(
            _line(
                f"With {others} of the same kind, the AUROC may well lie anywhere in {interval(auroc)} (95 % interval)."
            )
        )
        if bounds[0] <= 0.5:
            told.append(
                _line(
                    f"That interval begins at {decimals(bounds[0])}: the model may be no better than guessing.", "error"
                )
            )
    groups = judged.get("n_groups")
    if groups and groups < FEW_GROUPS:
        of = f"{groups} slide{'s' if groups > 1 else ''} or patient{'s' if groups > 1 else ''}"
        told.append(
            _line(f"These images come from {of} only: the intervals are rough, and rather too narrow.", "warning")
        )
    elif not groups:
        told.append(
            _line("Slide or patient is not known, so the intervals take each image for independent.", "warning")
        )
    if records.foreign:
        told.append(_line("Whether model or threshold have been chosen on these images is not on record.", "warning"))
    elif records.split == "test":
        told.append(_line("The test split has chosen nothing: neither weights, nor epoch, nor threshold."))
    members = len(records.run.get("members") or [])
    if members:
        told.append(_line(f"These are {members} networks, joined once; other seeds give somewhat other numbers."))
    elif records.run.get("verb") == "train":
        told.append(_line("This is one training from one seed; another seed gives somewhat other numbers."))
    return told


def unknown(records: Records) -> list[dict[str, str]]:
    """What no record answers: `text`, and the `command` that would."""
    told = []
    trained = records.run.get("verb") in ("train", "ensemble")
    if trained and not evaluations(records):
        text = "How well it does on data from elsewhere: another hospital, scanner or staining."
        told.append({"text": text, "command": "tumortrace evaluate RUN DATA"})
    if trained and not read_json(records.folder / "stress" / "stress.json"):
        text = "What blur, stain, compression and the like do to it."
        told.append({"text": text, "command": "tumortrace stress RUN DATA"})
    if trained:
        text = "How far other folds and fresh models would spread."
        recipe = (records.run.get("arguments") or {}).get("recipe", "NAME")
        told.append({"text": text, "command": f"tumortrace crossval DATA --recipe {recipe}"})
    told.append({"text": "Whether all labels are right: the metrics take them as they are.", "command": ""})
    if not records.judged.get("subgroups"):
        text = "Whether it errs more for some patients than for others: no record holds age, sex or origin."
        told.append({"text": text, "command": ""})
    told.append(
        {"text": "Whether anybody is better off with it: nothing here has been clinically validated.", "command": ""}
    )
    return told


def _line(text: str, kind: str = "") -> dict[str, str]:
    return {"text": text, "kind": kind}
