"""What every section of a run's report, and its model card, can tell: the records, put in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tumortrace.errors import RunError
from tumortrace.reports.records import METRICS, Records, decimals

HEADLINES = ("auroc", "average_precision", "sensitivity", "specificity", "balanced_accuracy", "ece")


def story(records: Records) -> dict[str, Any]:
    """The variables that all templates of a run have.

    Args:
        records: Those of a run or of an evaluation.

    Returns:
        `run, name, title, data, model, recipe, recipe_text, metrics` (the judged split first), `metric_names, split,
        judged, headlines, classes, threshold, verdict, learner, probed, leakage_ruled_out`.

    Raises:
        RunError: recipe.yaml is damaged.
    """
    judged = records.judged
    extra = [name for name, entry in judged.items() if isinstance(entry, dict) and "value" in entry]
    names = METRICS | {name: name.replace("_", " ") for name in extra if name not in METRICS}
    recipe, recipe_text = _recipe(records.folder / "recipe.yaml")
    return {
        "run": records.run,
        "title": records.classes[1][:1].upper() + f"{records.classes[1][1:]} against {records.classes[0]}",
        "name": records.run.get("name") or records.folder.resolve().name,
        "data": records.run.get("data", {}),
        "model": records.model,
        "recipe": recipe,
        "recipe_text": recipe_text,
        "metrics": {name: records.metrics[name] for name in sorted(records.metrics, key=lambda n: n != records.split)},
        "metric_names": names,
        "split": records.split,
        "judged": judged,
        "headlines": [(METRICS[name], judged[name]) for name in HEADLINES if judged.get(name)],
        "classes": records.classes,
        "threshold": records.threshold,
        "verdict": _verdict(records),
        "learner": _learner(records),
        "probed": "head" in records.history,
        "leakage_ruled_out": str(records.run.get("leakage", "")).startswith("ruled out"),
    }


def _learner(records: Records) -> str | None:
    """A sentence on a classical learner, which has no parameters as networks have; None for a network."""
    architecture = records.model.get("architecture") or {}
    if architecture.get("name") != "texture":
        return None
    arguments = architecture.get("arguments") or {}
    on = f"on {len(arguments.get('descriptors') or ())} hand-made descriptors"
    trees = arguments.get("trees")
    if not trees:
        return f"Logistic regression {on}."
    one = "1 decision tree" if trees["trees"] == 1 else f"{trees['trees']:,} decision trees"
    return f"{one} {on}, {trees['nodes']:,} nodes, up to {trees['depth']} splits deep."


def _recipe(path: Path) -> tuple[dict[str, Any], str | None]:
    if not path.is_file():
        return {}, None
    text = path.read_text("utf-8", errors="replace")
    try:
        recipe = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RunError(f"not YAML ({error})", where=path, remedy="restore the file or run the verb again") from error
    return recipe if isinstance(recipe, dict) else {}, text


def _verdict(records: Records) -> list[str]:
    """How well, at which threshold, and whether leakage is ruled out: a sentence each."""
    judged = records.judged
    if not judged:
        return ["No metrics are on record for this run."]
    groups = judged.get("n_groups")
    of = f" of {groups:,} group{'s' * (groups > 1)} (slides or patients)" if groups else ""
    share = judged.get("prevalence")
    positives = "" if share is None else f", {100 * share:.1f} % of them {records.classes[1]}"
    sentences = [f"AUROC {records.metric('auroc')} on {judged.get('n', 0):,} {records.split} images{of}{positives}."]
    if judged.get("sensitivity") and judged.get("specificity"):
        policy = records.model.get("threshold_policy")
        sentences.append(
            f"At the threshold {decimals(judged.get('threshold'))}{f' (chosen by {policy})' if policy else ''}"
            f" sensitivity is {records.metric('sensitivity')} and specificity {records.metric('specificity')}."
        )
    if records.split == "validation" and _learner(records):
        sentences.append("There is no test split, but these images have chosen nothing.")
    elif records.split == "validation":
        sentences.append("There is no test split: these images also chose the epoch, so expect less on new ones.")
    if leakage := records.run.get("leakage"):
        sentences.append(f"Leakage between the splits is {leakage.rstrip('.')}.")
    else:
        sentences.append("Whether leakage between the splits is ruled out is not on record.")
    return sentences
