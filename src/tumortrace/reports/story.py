"""A run put in words: what every section of its report, and its model card, can tell."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import yaml

from tumortrace.errors import RunError
from tumortrace.evaluation.measures import TITLES, prominent
from tumortrace.records.evaluation import EvaluationRecord
from tumortrace.records.metrics import Metrics, SplitMetrics
from tumortrace.records.model import CalibrationMap, ModelRecord
from tumortrace.records.run import Run
from tumortrace.reports.page import Context
from tumortrace.reports.records import Records
from tumortrace.reports.wording import decimals, interval

FEW_GROUPS = 10


def story(records: Records) -> Context:
    """The variables that all templates of a run have; records as their JSON, in which what is absent stays absent.

    Args:
        records: Those of a run or of an evaluation.

    Returns:
        `run, name, title, data, model, recipe, recipe_text, metrics` (the judged split first), `metric_names, split,
        judged, headlines, classes, unit` (what is predicted: image or slide)`, units, threshold, calibration, verdict,
        learner, probed, evaluation, leakage_ruled_out`.

    Raises:
        RunError: recipe.yaml is damaged.
    """
    run = records.run.as_json()
    judged = records.judged.as_json() if records.measured else {}
    names = TITLES | {name: name.replace("_", " ") for name in records.judged.estimates if name not in TITLES}
    recipe, recipe_text = _recipe(Run(records.folder).recipe_file)
    splits = sorted(records.metrics, key=lambda name: name != records.split)
    return {
        "run": run,
        "title": records.classes[1][:1].upper() + f"{records.classes[1][1:]} against {records.classes[0]}",
        "name": records.run.name or records.folder.resolve().name,
        "data": run.get("data", {}),
        "model": records.model.as_json(),
        "recipe": recipe,
        "recipe_text": recipe_text,
        "metrics": {name: records.metrics[name].as_json() for name in splits},
        "metric_names": names,
        "split": records.split,
        "judged": judged,
        "headlines": [(title, judged[name]) for name, title in prominent().items() if judged.get(name)],
        "classes": records.classes,
        "unit": records.unit,
        "units": f"{records.unit}s",
        "threshold": records.threshold,
        "calibration": calibration_in_words(records.model),
        "verdict": verdict(records),
        "learner": learner(records),
        "probed": "head" in records.history,
        "evaluation": records.run.verb == "evaluate",
        "leakage_ruled_out": records.run.leakage.startswith("ruled out"),
    }


def _recipe(path: Path) -> tuple[Context, str | None]:
    if not path.is_file():
        return {}, None
    text = path.read_text("utf-8", errors="replace")
    try:
        recipe = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RunError(f"not YAML ({error})", where=path, remedy="restore the file or run the verb again") from error
    return recipe if isinstance(recipe, dict) else {}, text


def verdict(records: Records) -> list[str]:
    """How well, on what, at which threshold, and whether leakage is ruled out: a sentence each.

    Args:
        records: Those of a run or of an evaluation.
    """
    judged = records.judged
    if not records.measured:
        return ["No metrics are on record for this run."]
    sentences = [_ranking(records)]
    if "sensitivity" in judged and "specificity" in judged:
        sentences.append(_calls(records))
    if records.split == "validation" and learner(records):
        sentences.append(f"There is no test split, but these {records.unit}s have chosen nothing.")
    elif records.split == "validation":
        sentences.append(
            f"There is no test split: these {records.unit}s also chose the epoch, so expect less on new ones."
        )
    if leakage := records.run.leakage:
        sentences.append(f"Leakage between the splits is {leakage.rstrip('.')}.")
    elif records.run.verb == "evaluate":
        seen = "; what the model has seen of them is not on record" if records.foreign else ""
        sentences.append(f"Nothing was fitted on these {records.unit}s here{seen}.")
    else:
        sentences.append("Whether leakage between the splits is ruled out is not on record.")
    return sentences


def _ranking(records: Records) -> str:
    """The AUROC, and what it means for one image of each class (Hanley & McNeil 1982)."""
    judged = records.judged
    groups, share = judged.n_groups, judged.prevalence
    of = f" of {groups:,} group{'s' * (groups > 1)} (slides or patients)" if groups else ""
    positives = "" if share is None else f", {100 * share:.1f} % of them {records.classes[1]}"
    auroc = records.value("auroc")
    meaning = ""
    if auroc is not None:
        meaning = (
            f": of one {records.classes[1]} and one {records.classes[0]} {records.unit}, the {records.classes[1]}"
            f" one gets the higher probability in {100 * auroc:.0f} of 100 cases"
        )
    on = f"on {judged.n:,} {records.split} {records.unit}s{of}{positives}"
    return f"AUROC {records.metric('auroc')} {on}{meaning}."


def _calls(records: Records) -> str:
    """Sensitivity and specificity at the threshold, and how many images of 100 that is."""
    policy = records.model.threshold_policy
    sentence = (
        f"At the threshold {decimals(records.judged.threshold)}{f' (chosen by {policy})' if policy else ''}"
        f" sensitivity is {records.metric('sensitivity')} and specificity {records.metric('specificity')}"
    )
    hits, spared = records.value("sensitivity"), records.value("specificity")
    if hits is None or spared is None:
        return f"{sentence}."
    return (
        f"{sentence}: of 100 {records.classes[1]} {records.unit}s {100 * hits:.0f} are found, and of 100"
        f" {records.classes[0]} {records.unit}s {100 * (1 - spared):.0f} are called {records.classes[1]} all the same."
    )


def learner(records: Records) -> str | None:
    """A sentence on a classical learner, which has no parameters as networks have; None for a network."""
    architecture = records.model.architecture
    if architecture.name != "texture":
        return None
    arguments: Context = {**architecture.arguments}
    on = f"on {len(arguments.get('descriptors') or ())} hand-made descriptors"
    trees = arguments.get("trees")
    if not trees:
        return f"Logistic regression {on}."
    one = "1 decision tree" if trees["trees"] == 1 else f"{trees['trees']:,} decision trees"
    return f"{one} {on}, {trees['nodes']:,} nodes, up to {trees['depth']} splits deep."


def calibration_in_words(model: ModelRecord) -> str | None:
    """A sentence on the calibration in a `model.json` of any format; None where it says nothing.

    Example:
        >>> platt = {"method": "platt", "slope": 0.5, "knots": [0.0], "values": [-1.2]}
        >>> calibration_in_words(ModelRecord.model_validate({"calibration": platt}))
        "Platt's scaling: the logit times .500, −1.200 added."
    """
    made = model.calibration
    if made is None and model.temperature:  # format 1
        made = CalibrationMap(method="temperature", slope=1 / model.temperature)
    if not made:
        return None
    slope = made.slope
    match made.method:
        case "temperature":
            sure = "too sure" if slope < 1 else "not sure enough" if slope > 1 else "as sure as it should be"
            return f"Temperature scaling: logits are divided by {decimals(1 / slope)}; by itself the model was {sure}."
        case "platt":
            return f"Platt's scaling: the logit times {decimals(slope)}, {decimals(made.values[0])} added."
        case "isotonic":
            return f"Isotonic regression: a rising curve through {len(made.knots)} points."
    return "No calibration: probabilities are the sigmoid of the model's own logits."


class Evaluated(NamedTuple):
    """What `evaluate` has measured with the model of a run; `metrics` are those of its `split`."""

    name: str
    split: str
    metrics: SplitMetrics
    record: EvaluationRecord


def evaluations(records: Records) -> list[Evaluated]:
    """The evaluations in the run's folder, by name."""
    made = []
    for path in sorted(records.folder.glob(f"evaluations/*/{EvaluationRecord.FILE}")):
        metrics = Metrics.find(path.parent) or Metrics({})
        split = next((name for name in ("test", "validation", *metrics) if name in metrics), "")
        if split:
            made.append(Evaluated(path.parent.name, split, metrics[split], EvaluationRecord.read(path.parent)))
    return made


def tell_worth(records: Records) -> Context | None:
    """What the verdict is worth: `sure` and `unknown`, sentences; None where no metric is on record."""
    return {"sure": sure(records), "unknown": unknown(records)} if records.measured else None


def sure(records: Records) -> list[dict[str, str]]:
    """How far the numbers can be trusted: `text` and `kind` (error, warning or an empty text)."""
    judged = records.judged
    told: list[tuple[str, str]] = []
    auroc, groups = judged.get("auroc"), judged.n_groups
    low = auroc.ci95[0] if auroc and auroc.ci95 else None
    if auroc and auroc.value is None:
        told.append((f"The AUROC is not defined: these {records.unit}s are not of both classes.", "error"))
    elif auroc and low is None:
        told.append(("The AUROC has no interval, so how sure it is cannot be said.", "warning"))
    elif low is not None:
        others = "other slides or patients" if groups else f"other {records.unit}s"
        text = f"With {others} of the same kind, the AUROC may well lie anywhere in {interval(auroc)} (95 % interval)."
        told.append((text, ""))
        if low <= 0.5:
            text = f"That interval begins at {decimals(low)}: the model may be no better than guessing."
            told.append((text, "error"))
    if groups and groups < FEW_GROUPS:
        of = f"{groups} slide{'s' if groups > 1 else ''} or patient{'s' if groups > 1 else ''}"
        told.append(
            (f"These {records.unit}s come from {of} only: the intervals are rough, and rather too narrow.", "warning")
        )
    elif not groups:
        told.append(
            (f"Slide or patient is not known, so the intervals take each {records.unit} for independent.", "warning")
        )
    if records.foreign:
        told.append(
            (f"Whether model or threshold have been chosen on these {records.unit}s is not on record.", "warning")
        )
    elif records.split == "test":
        told.append(("The test split has chosen nothing: neither weights, nor epoch, nor threshold.", ""))
    members = len(records.run.members)
    if members:
        told.append((f"These are {members} networks, joined once; other seeds give somewhat other numbers.", ""))
    elif records.run.verb == "train":
        told.append(("This is one training from one seed; another seed gives somewhat other numbers.", ""))
    return [{"text": text, "kind": kind} for text, kind in told]


def unknown(records: Records) -> list[dict[str, str]]:
    """What no record answers: `text`, and the `command` that would."""
    told: list[tuple[str, str]] = []
    trained = records.run.verb in ("train", "ensemble")
    if trained and not evaluations(records):
        text = "How well it does on data from elsewhere: another hospital, scanner or staining."
        told.append((text, "tumortrace evaluate RUN DATA"))
    if trained and not records.stress and records.unit == "image":
        told.append(("What blur, stain, compression and the like do to it.", "tumortrace stress RUN DATA"))
    if trained:
        recipe = records.run.arguments.recipe or "NAME"
        command = f"tumortrace crossval DATA --recipe {recipe}"
        told.append(("How far other folds and fresh models would spread.", command))
    told.append(("Whether all labels are right: the metrics take them as they are.", ""))
    if not records.judged.subgroups:
        told.append(("Whether it errs more for some patients than for others: no record holds age, sex or origin.", ""))
    told.append(("Whether anybody is better off with it: nothing here has been clinically validated.", ""))
    return [{"text": text, "command": command} for text, command in told]
