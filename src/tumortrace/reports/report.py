"""The HTML report and the model card of a run, from what its folder has on record."""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from jinja2 import ChainableUndefined, Environment, PackageLoader
from markupsafe import Markup
from PIL import Image

from tumortrace.errors import RunError
from tumortrace.reports.figures import draw_figures
from tumortrace.reports.records import METRICS, Records, decimals, interval, read_json, read_records, read_table
from tumortrace.runs.files import write_text

REPORT = "report.html"
HEADLINES = ("auroc", "average_precision", "sensitivity", "specificity", "balanced_accuracy", "ece")
MISTAKES = 10  # rows in the table of confident mistakes
PICTURES = 12  # explanations that are embedded


class _NotAvailable(ChainableUndefined):
    """What a template shows for a value that no record holds."""

    def __str__(self) -> str:
        return "not available"

    __html__ = __str__


def write_report(run: Path) -> Path:
    """Write report.html: one file that tells the story of a run and opens anywhere, offline and without scripts.

    Its figures are drawn afresh (see `draw_figures`), so that they never disagree with the numbers. What no record
    holds is left out or called not available.

    Args:
        run: The run folder.

    Returns:
        Path of report.html, in the run folder.

    Raises:
        RunError: There is no such run, or a record is damaged.

    Example:
        >>> import tempfile
        >>> run = Path(tempfile.mkdtemp())
        >>> _ = (run / "metrics.json").write_text('{"test": {"n": 9, "auroc": {"value": 0.9, "ci95": null}}}')
        >>> "AUROC .900 on 9 test images" in write_report(run).read_text("utf-8")
        True
    """
    run = Path(run)
    drawn = {path.stem: path for path in draw_figures(run) if path.suffix == ".svg"}
    records = read_records(run)
    page = render(
        "report.html.j2",
        **_story(records),
        figures={name: embed_svg(path) for name, path in drawn.items()},
        alt=_alternative_texts(records),
        decisions=_decisions(records),
        shares=_shares(records),
        mistakes=_mistakes(records),
        audit=read_json(run / "audit.json"),
        explanations=_explanations(run / "explanations"),
        scans=[_scan(path.parent) for path in sorted(run.glob("scans/*/scan.json"))],
    )
    write_text(run / REPORT, page)
    return run / REPORT


def write_model_card(run: Path) -> Path:
    """Write model_card.md: what the model of a run is for, how well it does, and where it must not be trusted.

    Args:
        run: The run folder.

    Returns:
        Path of model_card.md, in the run folder.

    Raises:
        RunError: There is no such run, or a record is damaged.

    Example:
        >>> import tempfile
        >>> run = Path(tempfile.mkdtemp())
        >>> _ = (run / "run.json").write_text('{"name": "first"}')
        >>> write_model_card(run).read_text("utf-8").splitlines()[0]
        '# Model card: first'
    """
    run = Path(run)
    write_text(run / "model_card.md", render("model_card.md.j2", **_story(read_records(run))))
    return run / "model_card.md"


def render(template: str, **context: Any) -> str:
    """A template of this room, filled in; text from records is escaped."""
    environment = Environment(
        loader=PackageLoader("tumortrace.reports"),
        autoescape=True,
        undefined=_NotAvailable,
        finalize=lambda value: "not available" if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "decimals": _defined(decimals),
        "interval": _defined(interval),
        "percent": _defined(lambda share: f"{100 * share:.1f} %"),
        "thousands": _defined(lambda count: f"{count:,}" if isinstance(count, int) else count),
        "duration": _defined(_duration),
        "md": _markdown,
        "mdcode": _markdown_code,
    }
    return environment.get_template(template).render(**context)


def _defined(function: Any) -> Any:
    """The filter `function`, which passes a value that no record holds on as a dash."""
    return lambda value, *rest: "—" if value is None or isinstance(value, _NotAvailable) else function(value, *rest)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def _markdown(value: object) -> Markup:
    """Text for one line of Markdown, in which no character acts as markup."""
    text = " ".join(str("not available" if value is None else value).split())
    plain = "".join(f"\\{character}" if character in "\\`*_[]|#" else character for character in text)
    return Markup(html.escape(plain, quote=False))


def _markdown_code(value: object) -> Markup:
    if value is None or isinstance(value, _NotAvailable):
        return Markup("not available")
    return Markup("`" + " ".join(str(value).replace("`", "'").split()) + "`")


def _story(records: Records) -> dict[str, Any]:
    """What the report and the model card both tell."""
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
        "candidates": _candidates(records),
        "learner": _learner(records),
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


def _candidates(records: Records) -> list[dict[str, Any]]:
    """What a probe or a learner chose from; `folds` and `spread` where folds of the training split chose."""
    history = records.history
    if "head" not in history:
        return []
    names = [str(name) for name in history]
    mean = next((name for name in names if name.startswith("folds_") and not name.endswith("_std")), None)
    table = history if mean is None else history.assign(folds=history[mean], spread=history[f"{mean}_std"])
    metric = None if mean is None else mean.removeprefix("folds_")
    named = METRICS.get(str(metric), str(metric).capitalize())
    return [{str(key): value for key, value in row.items()} | {"by": named} for row in table.to_dict("records")]


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


def _alternative_texts(records: Records) -> dict[str, str]:
    """What each figure shows, in words and numbers, for those who cannot see it."""
    cells = records.judged.get("confusion_matrix") or {}
    counts = ", ".join(
        f"{cells.get(key, '—')} {words}"
        for key, words in {
            "tn": "true negatives",
            "fp": "false positives",
            "fn": "false negatives",
            "tp": "true positives",
        }.items()
    )
    on = f"on the {records.split} split"
    chosen = decimals(records.model.get("threshold"))
    return {
        "roc": f"ROC curve {on}: AUROC {records.metric('auroc')}",
        "precision_recall": f"Precision-recall curve {on}: average precision {records.metric('average_precision')}",
        "reliability": f"Observed share against predicted probability {on}: ECE {records.metric('ece')}",
        "confusion_matrix": f"Confusion matrix {on}: {counts}",
        "learning_curves": f"Loss and metrics, training and validation, over {len(records.history)} "
        + ("candidates" if "head" in records.history else "epochs"),
        "importances": f"Fall of the validation AUROC when a descriptor is shuffled: {_first(records, 'importances')}",
        "feature_importances": f"Share of the importance by feature: {_first(records, 'feature_importances')}",
        "probability_histogram": f"Histogram of predicted probabilities by class {on}",
        "threshold": f"Sensitivity, specificity, precision and F1 by threshold; {chosen} was chosen",
    }


def _first(records: Records, name: str) -> str:
    """The first five rows of a table of importances in words."""
    table = read_table(records.folder / f"{name}.csv").head(5)
    if table.empty:
        return "not available"
    by = "descriptor" if name == "importances" else "feature"
    value = "auroc_fall" if name == "importances" else "importance"
    return ", ".join(f"{row[by]} {decimals(row[value])}" for row in table.to_dict("records"))


def _decisions(records: Records) -> list[dict[str, Any]]:
    """Per split, the shares of each decision, and how often those that were made are right."""
    table = records.predictions
    if not {"split", "decision"} <= set(table) or table["decision"].isna().all():
        return []
    rows = []
    for split, part in table.groupby("split", sort=False):
        shares = part["decision"].value_counts(normalize=True)
        row: dict[str, Any] = {key: float(shares.get(key, 0)) for key in ("positive", "negative", "refer")}
        decided = part[part["decision"].isin(["positive", "negative"]) & part["label"].notna()]
        right = (decided["decision"] == "positive") == (decided["label"] == 1)
        rows.append(row | {"split": split, "images": len(part), "right": right.mean() if len(right) else None})
    return rows


def _shares(records: Records) -> dict[str, Any]:
    """The share of images predicted positive beside that of training, and whether they are far apart."""
    cells = records.judged.get("confusion_matrix")
    trained = records.model.get("training", {}).get("prevalence")
    if not cells or not sum(cells.values()) or not trained:
        return {}
    predicted = (cells["tp"] + cells["fp"]) / sum(cells.values())
    return {"predicted": predicted, "training": trained, "far": not 2 / 3 <= predicted / trained <= 3 / 2}


def _mistakes(records: Records) -> list[dict[str, Any]]:
    """The wrong predictions of the judged split that the model was surest of."""
    table = records.scored(records.split)
    if "prediction" not in table:
        return []
    wrong = table[table["prediction"].notna() & (table["prediction"] != table["label"])]
    sureness = wrong["probability"].where(wrong["prediction"] == 1, 1 - wrong["probability"])
    surest = wrong.loc[sureness.sort_values(ascending=False, kind="stable").index[:MISTAKES]]
    surest = surest.astype(object).where(surest.notna(), None).assign(of=len(wrong))
    return [{str(name): value for name, value in row.items()} for row in surest.to_dict("records")]


def _explanations(folder: Path) -> dict[str, Any]:
    """The record of the explanations with the first pictures, in order and by id (where no two share one)."""
    record = read_json(folder / "explanations.json")
    items = [item | {"picture": _embed(folder, item.get("figure"), 640)} for item in record.get("items", [])[:PICTURES]]
    count = Counter(item.get("id") for item in items)
    by_id = {item["id"]: item["picture"] for item in items if item["picture"] and count[item.get("id")] == 1}
    pictured = [item for item in items if item["picture"]]
    return record | {"pictured": pictured, "by_id": by_id, "count": len(record.get("items", []))}


def _scan(folder: Path) -> dict[str, Any]:
    record = read_json(folder / "scan.json")
    return record | {"name": folder.name, "heatmap": _embed(folder, (record.get("files") or {}).get("heatmap"), 1200)}


def _embed(folder: Path, name: str | None, side: int) -> str | None:
    """A picture of `folder`, scaled to `side` pixels at most, as a data URI; None if it is missing or unreadable."""
    path = (folder / str(name)).resolve()
    if not name or not path.is_relative_to(folder.resolve()):  # a record names files of its own folder only
        return None
    try:
        with Image.open(path) as file:
            picture = file.convert("RGB")
        picture.thumbnail((side, side))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", optimize=True)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    return _data_uri(buffer.getvalue(), "image/png")


def embed_svg(path: Path) -> str:
    return _data_uri(path.read_bytes(), "image/svg+xml")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
