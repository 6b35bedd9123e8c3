"""A report or a model card taken apart: every number it shows, and whether the records hold it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy.stats import binomtest

VOID = {"meta", "img", "br", "hr", "input", "link", "col"}
#: A number as the reports print it, that is no part of a word, a hash, a date or a version; perhaps with its unit.
NUMBER = re.compile(r"(?<![\w.,])(?<![\w]-)[−+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:e-?\d+)?(?![\w]|[.,]\d)(?: %)?")
_PRINTED = r"[−+]?\d*\.?\d+(?: %)?"
TRIPLE = re.compile(rf"(?<![\w.,])({_PRINTED}) \[({_PRINTED}), ({_PRINTED})\]")
#: What the sentences themselves say: the level of the intervals, and "of 100 images".
PROSE = {"95 %", "100"}
CITED = re.compile(r"\b(?:19|20)\d\d\b(?:;\d+\S*)?|doi:\S+|SHA-256|\bF1\b|CLAIM 2024|\(4\):\S+")
#: Sections that are told from a record of their own.
OWN_RECORDS = {
    "calibration": ["calibration.json"],
    "decisions": ["abstention.json"],
    "distribution": ["distribution.json"],
}
#: Long series are drawn, not printed.
LONGEST = 40


@dataclass
class Node:
    """An element of a page."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Node | str] = field(default_factory=list)

    def text(self) -> str:
        if self.tag in ("style", "script"):
            return ""
        alt = f" {self.attributes.get('alt', '')} " if self.tag == "img" else ""
        gap = " " if self.tag not in ("a", "code", "strong", "b", "em") else ""
        return alt + gap + "".join(each if isinstance(each, str) else each.text() for each in self.children) + gap

    def walk(self) -> Iterator[Node]:
        yield self
        for each in self.children:
            if isinstance(each, Node):
                yield from each.walk()

    def all(self, *tags: str) -> list[Node]:
        return [node for node in self.walk() if node.tag in tags]


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Node("root")
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        self._open[-1].children.append(node)
        if tag not in VOID:
            self._open.append(node)

    def handle_endtag(self, tag: str) -> None:
        while len(self._open) > 1 and self._open.pop().tag != tag:
            pass

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)


def parse(html: str) -> Node:
    builder = _Builder()
    builder.feed(re.sub(r'src="data:[^"]*"', 'src=""', html))
    return builder.root


@dataclass(frozen=True)
class Shown:
    """A number on a page: its section, what it stands beside, itself, and where it may come from."""

    section: str
    beside: str
    token: str
    pool: tuple[float, ...]

    @property
    def known(self) -> bool:
        """Whether a record holds it, at the precision that is shown."""
        return self.token in PROSE or in_pool(self.token, self.pool)


def in_pool(token: str, pool: tuple[float, ...]) -> bool:
    """Whether a number of the pool is printed as `token`."""
    percent = token.endswith("%")
    text = token.removesuffix("%").strip().replace(",", "").replace("−", "-").lstrip("+")
    places = len(text.partition(".")[2]) if "e" not in text else None
    value = float(text)
    for number in pool:
        scaled = 100 * number if percent else number
        if places is None:
            if f"{scaled:.4g}" == text or float(f"{scaled:.4g}") == value:
                return True
        elif places == 0 and not percent:
            if scaled == value:
                return True
        elif f"{scaled:.{places}f}" in (text, text.replace("-.", "-0.", 1), f"0{text}") or (
            places != 3 and len(text.strip("-0.")) <= 4 and f"{scaled:.4g}" in (text, f"0{text}")
        ):
            return True
    return False


class Evidence:
    """Everything that the folder of a run has on record."""

    def __init__(self, folder: Path) -> None:
        names = [path for path in sorted(folder.rglob("*.json")) if "checkpoints" not in path.parts]
        self.records: dict[str, Any] = {
            str(path.relative_to(folder)): json.loads(path.read_text("utf-8")) for path in names
        }
        recipe = folder / "recipe.yaml"
        self.recipe_text = recipe.read_text("utf-8") if recipe.is_file() else ""
        self.records["recipe.yaml"] = yaml.safe_load(self.recipe_text) if self.recipe_text else {}
        self.run = self.records.get("run.json", {})
        self.metrics = self.records["metrics.json"]
        self.judged = self.metrics["test" if "test" in self.metrics else "validation"]
        self.predictions = pd.read_csv(folder / "predictions.csv", dtype={"id": str, "group": str})
        self.history = pd.read_csv(folder / "history.csv") if (folder / "history.csv").is_file() else pd.DataFrame()
        self.strings = sorted(self._strings(), key=len, reverse=True)

    def pool(self, section: str) -> tuple[float, ...]:
        """Where the numbers of a section may come from: as little as it needs."""
        if section in ("cover", "worth"):
            found = [*numbers(self.judged, only_metrics=True), *self.in_words(), *numbers(self.run.get("data"))]
            found += numbers({key: part for key, part in self.records.items() if key.startswith("evaluations")})
        elif section == "data":
            found = [*numbers(self.run.get("data")), *self.shares(), *numbers(self.judged, only_metrics=True)]
        elif section == "training":
            found = [*numbers({key: value for key, value in self.run.items() if key != "data"}), *self.kept()]
            found += [len(self.history), *durations(self.run.get("duration_s"))]
        elif section in ("metrics", "elsewhere"):
            found = (
                [*numbers(self.metrics), *numbers(self.records)] if section == "elsewhere" else numbers(self.metrics)
            )
        elif section == "groups":
            found = [*numbers(self.judged.get("groups")), *numbers(self.judged.get("subgroups"))]
            found += [self.judged["threshold"], self.judged["n_groups"] or 0]
        elif section == "threshold":
            found = [*numbers(self.judged, only_metrics=True), *numbers(self.judged.get("at_half")), *self.shares()]
            found += [*numbers(self.records.get("model/model.json")), *numbers(self.judged.get("decision_curve"))]
        elif section == "robustness":
            found = list(series(self.records.get("stress/stress.json")))
        elif section in OWN_RECORDS:
            found = [*self.decided(), *self.temperature()] if section != "distribution" else []
            for name in (*OWN_RECORDS[section], "model/model.json"):
                found += numbers(self.records.get(name))
            found += numbers(self.judged, only_metrics=True)
        elif section == "checklist":
            made = [*numbers(self.records.get("model/model.json")), *numbers(self.records["recipe.yaml"])]
            others = {key: value for key, value in self.records.items() if key.startswith(("evaluations", "scans"))}
            found = [*numbers(self.run), *made, *numbers(self.judged, only_metrics=True), *self.in_words()]
            found += [*numbers(others), *self.temperature(), *numbers(self.records.get("distribution.json"))]
            calibrated = self.records.get("calibration.json") or {}
            found += [each for side in ("before", "after") for each in numbers((calibrated.get(side) or {}).get("ece"))]
            found += self.extremes()
        elif section == "reproduce":
            found = [*numbers(self.run), *durations(self.run.get("duration_s"))]
        else:
            found = [*numbers(self.records), *self.decided(), *self.kept(), *self.in_words(), *self.shares()]
            found += [*durations(self.run.get("duration_s")), *self.temperature()]
        return tuple(found)

    def of_images(self, names: set[str]) -> tuple[float, ...]:
        """The numbers of some images; of several, how many are shown of how many, too."""
        rows = self.predictions[self.predictions["id"].isin(names)].drop(columns=["id", "group"], errors="ignore")
        found = [float(value) for value in rows.to_numpy().ravel() if _is_number(value)]
        return tuple(found + ([len(names), *self.judged["confusion_matrix"].values()] if len(names) > 1 else []))

    def in_words(self) -> list[float]:
        """The AUROC, sensitivity and false positives as how many of 100."""
        values = {name: (self.judged.get(name) or {}).get("value") for name in ("auroc", "sensitivity", "specificity")}
        found = [round(100 * value) for name, value in values.items() if value is not None and name != "specificity"]
        return found + ([] if values["specificity"] is None else [round(100 * (1 - values["specificity"]))])

    def shares(self) -> list[float]:
        """Prevalence of each split, and the share predicted positive."""
        splits = (self.run.get("data") or {}).get("splits") or {}
        cells = self.judged["confusion_matrix"]
        predicted = (cells["tp"] + cells["fp"]) / max(sum(cells.values()), 1)
        return [part["positives"] / part["images"] for part in splits.values() if part["images"]] + [predicted]

    def extremes(self) -> list[float]:
        """The lowest and the highest accuracy of a group with their intervals, and how many groups have one."""
        found = [each["accuracy"] for each in self.judged.get("groups") or [] if each["accuracy"]["value"] is not None]
        ends = [pick(found, key=lambda entry: entry["value"]) for pick in (min, max)] if found else []
        return [len(found), *(number for entry in ends for number in numbers(entry))]

    def temperature(self) -> list[float]:
        """What logits are divided by: one over the slope on record."""
        slope = ((self.records.get("model/model.json") or {}).get("calibration") or {}).get("slope")
        return [1 / slope] if slope else []

    def kept(self) -> list[float]:
        """The metrics of the epoch that was kept."""
        rows = self.history[self.history["epoch"] == self.run.get("best_epoch")] if len(self.history) else self.history
        return [float(value) for value in rows.to_numpy().ravel() if _is_number(value)]

    def decided(self) -> list[float]:
        """Counts and shares that follow from the predictions, counted here a second time."""
        conformal = (self.records.get("model/model.json") or {}).get("conformal")
        found = [1 - conformal["coverage"]] if conformal else []
        for _, part in self.predictions.groupby("split"):
            decided = part[part["decision"].isin(["positive", "negative"])]
            right = (decided["decision"] == "positive") == (decided["label"] == 1)
            wrong = int((part["prediction"] != part["label"]).sum())
            found += [len(part), wrong, min(wrong, 10)]
            for name in ("positive", "negative", "refer"):
                found += share(part["decision"] == name, part.get("group"))
            found += share(right, decided.get("group"))
        return found

    def _strings(self) -> Iterator[str]:
        for value in strings(self.records):
            if len(value) > 3 and not re.fullmatch(r"[\d.,% ]+", value):
                yield " ".join(value.split())
        yield from self.predictions["id"]
        if "group" in self.predictions:
            yield from self.predictions["group"].dropna().unique()
        if self.recipe_text:
            yield " ".join(self.recipe_text.split())

    def without_record_text(self, text: str) -> str:
        """The text without what stands in a record word for word: notes, commands, names, hashes, times."""
        text = " ".join(text.split())
        for value in self.strings:
            for spelling in {value, value.rstrip("."), value[:10] if re.match(r"\d{4}-\d\d-\d\dT", value) else value}:
                if spelling in text:
                    text = re.sub(rf"(?<!\w){re.escape(spelling)}(?!\w)", " ", text)
        return CITED.sub(" ", text)


def share(holds: pd.Series, group: pd.Series | None) -> list[float]:
    """A share with the ends of its interval: of drawn groups, or Wilson's where none are known or none differs."""
    known = group is not None and group.notna().all() and len(set(group)) > 1
    trials, ends = len(holds), [0.0, 0.0]
    if group is not None and known:
        names, random = sorted(group.unique()), np.random.default_rng(0)
        images = [holds.to_numpy()[(group == name).to_numpy()] for name in names]
        trials = len(names)
        drawn = [np.concatenate([images[i] for i in random.integers(trials, size=trials)]).mean() for _ in range(1000)]
        ends = list(np.quantile(drawn, [0.025, 0.975]))
    if ends[0] == ends[1]:
        ends = list(binomtest(round(holds.mean() * trials), trials).proportion_ci(method="wilson"))
    return [float(number) for number in (holds.mean(), *ends)]


def numbers(record: Any, only_metrics: bool = False) -> list[float]:
    """Every number in a record, long series and (with `only_metrics`) nested tables left out."""
    if isinstance(record, dict):
        nested = ("classification_report", "decision_curve", "operating_points", "groups", "subgroups", "at_half")
        keys = [key for key in record if not (only_metrics and key in nested) and key != "decision_curve"]
        named = [float(key) for key in keys if re.fullmatch(r"\d*\.\d+", str(key))]  # as "0.95": {"value": ...}
        return named + [number for key in keys for number in numbers(record[key], only_metrics)]
    if isinstance(record, list):
        each = [numbers(part, only_metrics) for part in record]
        count = [] if all(_is_number(part) for part in record) else [float(len(record))]
        return count + [number for part in each for number in part] if sum(map(len, each)) <= LONGEST else []
    return [float(record)] if _is_number(record) else []


def series(record: Any) -> Iterator[float]:
    """Every number of a record with long series, the full tables of metrics at each point of them left out."""
    if isinstance(record, dict):
        for key, value in record.items():
            yield from () if key == "metrics" else series(value)
    elif isinstance(record, list):
        yield float(len(record))
        for value in record:
            yield from series(value)
    elif _is_number(record):
        yield float(record)


def strings(record: Any) -> Iterator[str]:
    if isinstance(record, dict):
        for key, value in record.items():
            yield str(key)
            yield from strings(value)
    elif isinstance(record, list):
        for value in record:
            yield from strings(value)
    elif isinstance(record, str):
        yield record


def triples(text: str) -> list[tuple[str, ...]]:
    """Every value with the ends of its interval, as a page or a card shows them: `.953 [.941, .964]`."""
    return TRIPLE.findall(" ".join(text.split()))


def entries(record: Any) -> Iterator[tuple[float, ...]]:
    """Every value with its ends that a record holds."""
    if isinstance(record, dict):
        value = record.get("value", record.get("mean"))
        if value is not None:
            yield from ((value, *record[name]) for name in ("ci95", "range", "range95") if record.get(name))
        for part in record.values():
            yield from entries(part)
    elif isinstance(record, list):
        for part in record:
            yield from entries(part)


def durations(seconds: float | None) -> list[float]:
    """Hours, minutes and seconds of a duration."""
    if seconds is None:
        return []
    minutes, rest = divmod(round(seconds), 60)
    return [minutes, rest, *divmod(minutes, 60)]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def tokens(text: str) -> list[str]:
    return [found.strip() for found in NUMBER.findall(text) if any(character.isdigit() for character in found)]


def take_apart(html: str, evidence: Evidence) -> list[Shown]:
    """Every number of a report; those of a row, a picture or a line that names an image belong to that image."""
    page = parse(html)
    shown = []
    ids = set(evidence.predictions["id"])
    main = page.all("main")[0]
    sections = main.all("section")
    cover = Node(
        "cover", {}, [each for each in main.children if not (isinstance(each, Node) and each.tag == "section")]
    )
    for node in (cover, *sections):
        name = node.attributes.get("aria-labelledby", "cover")
        pool = evidence.pool(name)
        for part in node.all("tr", "figure"):
            words = {word.strip(":,;.()") for word in part.text().split()}
            named = words & ids
            if named and not part.all("tr", "figure")[1:]:
                inner = evidence.without_record_text(part.text())
                own = evidence.of_images(named)
                shown += [Shown(name, inner, token, own) for token in tokens(inner)]
                part.children.clear()
        for cell in node.all("td"):
            if path := recorded(cell):
                own = tuple(numbers(entry_of(evidence.records, path)))
                shown += [Shown(name, " ".join(path), token, own) for token in tokens(cell.text())]
                cell.children.clear()
        text = evidence.without_record_text(node.text())
        for found in NUMBER.finditer(text):
            if any(character.isdigit() for character in found.group()):
                beside = text[max(0, found.start() - 60) : found.end() + 30]
                shown.append(Shown(name, beside, found.group().strip(), pool))
    return shown


def recorded(cell: Node) -> list[str]:
    """Where a cell says that its entry stands: a file, and names within it."""
    named = cell.attributes
    if "data-evaluation" in named:
        file = f"evaluations/{named['data-evaluation']}/metrics.json"
        return [file, named["data-split"], named["data-metric"]]
    if "data-metric" in named:
        return ["metrics.json", named["data-split"], named["data-metric"]]
    return ["metrics.json", *named["data-record"].split("/")] if "data-record" in named else []


def entry_of(record: Any, path: list[str]) -> Any:
    """What stands in a record under a row of names."""
    for name in path:
        record = record[name] if isinstance(record, dict) else record[int(name)]
    return record


def take_card_apart(markdown: str, evidence: Evidence) -> list[Shown]:
    """Every number of a model card; numbers of guidelines' items are none."""
    shown = []
    plain = re.sub(r"\\(.)", r"\1", markdown)
    for part in re.split(r"\n## ", plain):
        heading, _, body = part.partition("\n")
        checklist = heading.startswith(("TRIPOD", "CLAIM"))
        if checklist:
            body = re.sub(r"^\| \d+[a-g]? \| [^|]+\|", "|", body, flags=re.MULTILINE)
            body = re.sub(r"Answered, wholly or in part: \d+ of \d+\.", "", body)
        known = {"Data": "data", "Metrics": "metrics", "Limits": "worth"}
        name = "checklist" if checklist else known.get(heading, "card")
        name = "cover" if heading.startswith("# Model card") else name
        if heading == "Metrics":
            cells, body = _metric_cells(body, evidence)
            shown += cells
        text = evidence.without_record_text(body)
        for found in NUMBER.finditer(text):
            if any(character.isdigit() for character in found.group()):
                beside = text[max(0, found.start() - 60) : found.end() + 30]
                shown.append(Shown(heading, beside, found.group().strip(), evidence.pool(name)))
    return shown


#: The rows of the card's table of metrics.
ROWS = {
    "AUROC": "auroc",
    "Average precision": "average_precision",
    "Accuracy": "accuracy",
    "Balanced accuracy": "balanced_accuracy",
    "Sensitivity": "sensitivity",
    "Specificity": "specificity",
    "Precision": "precision",
    "Negative predictive value": "npv",
    "F1": "f1",
    "Matthews correlation": "mcc",
    "Brier score": "brier",
    "Log loss": "nll",
    "Calibration error (ECE)": "ece",
}


def _metric_cells(body: str, evidence: Evidence) -> tuple[list[Shown], str]:
    """The numbers of the table of metrics, each against its own entry, and the section without that table."""
    shown, rest, splits = [], [], list[str]()
    for line in body.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")] if line.startswith("| ") else []
        if cells[:1] == ["metric"]:
            splits = cells[1:]
        elif cells and cells[0] in ROWS:
            for split, cell in zip(splits, cells[1:], strict=True):
                entry = tuple(numbers(evidence.metrics[split][ROWS[cells[0]]]))
                shown += [Shown("Metrics", f"{split} {cells[0]}", token, entry) for token in tokens(cell)]
        else:
            rest.append(line)
    return shown, "\n".join(rest)
