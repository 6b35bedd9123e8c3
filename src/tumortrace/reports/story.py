"""What every section of a run's report, and its model card, can tell: the records, put in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tumortrace.errors import RunError
from tumortrace.evaluation.measures import TITLES, prominent
from tumortrace.reports.calibration import calibration_in_words
from tumortrace.reports.records import Records
from tumortrace.reports.verdict import learner, verdict


def story(records: Records) -> dict[str, Any]:
    """The variables that all templates of a run have.

    Args:
        records: Those of a run or of an evaluation.

    Returns:
        `run, name, title, data, model, recipe, recipe_text, metrics` (the judged split first), `metric_names, split,
        judged, headlines, classes, threshold, calibration, verdict, learner, probed, evaluation,
        leakage_ruled_out`.

    Raises:
        RunError: recipe.yaml is damaged.
    """
    judged = records.judged
    extra = [name for name, entry in judged.items() if isinstance(entry, dict) and "value" in entry]
    names = TITLES | {name: name.replace("_", " ") for name in extra if name not in TITLES}
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
        "headlines": [(title, judged[name]) for name, title in prominent().items() if judged.get(name)],
        "classes": records.classes,
        "threshold": records.threshold,
        "calibration": calibration_in_words(records.model),
        "verdict": verdict(records),
        "learner": learner(records),
        "probed": "head" in records.history,
        "evaluation": records.run.get("verb") == "evaluate",
        "leakage_ruled_out": str(records.run.get("leakage", "")).startswith("ruled out"),
    }


def _recipe(path: Path) -> tuple[dict[str, Any], str | None]:
    if not path.is_file():
        return {}, None
    text = path.read_text("utf-8", errors="replace")
    try:
        recipe = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RunError(f"not YAML ({error})", where=path, remedy="restore the file or run the verb again") from error
    return recipe if isinstance(recipe, dict) else {}, text
