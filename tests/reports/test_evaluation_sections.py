"""Sections of a report on metrics, thresholds, groups and examples: each number is that of the record."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.evaluation.plain import split_record
from tumortrace.reports.examples import write_examples
from tumortrace.reports.records import read_records
from tumortrace.reports.report import write_report
from tumortrace.reports.sections.performance import (
    draw_accuracy_by_group,
    draw_decision_curve,
    draw_precision_recall,
    draw_roc,
)
from tumortrace.reports.sections.threshold import draw_before_after, draw_confusion_matrix_at_half


class Cells(HTMLParser):
    """The text of each cell that names its place in the record."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self._path: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        path = dict(attrs).get("data-record")
        if path:
            self._path = path
            self.found[path] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._path = None

    def handle_data(self, data: str) -> None:
        if self._path:
            self.found[self._path] += data


def expected(entry: dict) -> str:
    def shown(number: float) -> str:
        return ("−" if number < 0 else "") + re.sub(r"^0", "", f"{abs(number):.3f}")

    if entry["value"] is None:
        return "—"
    return shown(entry["value"]) + (f"[{', '.join(map(shown, entry['ci95']))}]" if entry["ci95"] else "")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation with groups, a subgroup column and pictures."""
    folder = tmp_path_factory.mktemp("evaluated")
    random = np.random.default_rng(5)
    label = random.integers(0, 2, 150)
    table = pd.DataFrame(
        {
            "id": [f"image-{i:03}" for i in range(150)],
            "group": [f"s{i % 14:02}" for i in range(150)],
            "split": "test",
            "label": label,
            "probability": 1 / (1 + np.exp(-random.normal(1.1 * (2 * label - 1), 1.2))),
            "scanner": np.where(np.arange(150) % 2, "A", "B"),
        }
    )
    table["prediction"] = (table["probability"] >= 0.4).astype(int)
    table.to_csv(folder / "predictions.csv", index=False)
    record = split_record(table, 0.4, subgroups=["scanner"], replicates=60)
    (folder / "metrics.json").write_text(json.dumps({"test": record}))
    about = {"verb": "evaluate", "classes": ["normal", "tumour"], "model": {"threshold": 0.4}, "notes": []}
    (folder / "evaluation.json").write_text(json.dumps(about))
    images = np.zeros((150, 24, 24, 3), np.uint8)
    images[..., 0] = np.arange(150)[:, None, None]  # an image is known again by its red
    write_examples(folder, table, images, np.arange(150), ("normal", "tumour"))
    write_report(folder)
    return folder


def test_each_cell_is_its_entry_of_the_record(evaluated: Path) -> None:
    """By class, operating points, before and after, by group and subgroup: value and interval to three places."""
    cells = Cells((evaluated / "report.html").read_text("utf-8")).found
    kinds = {path.split("/")[1] for path in cells}
    assert kinds >= {"classification_report", "operating_points", "at_half", "groups", "subgroups"}
    assert len(cells) == 12 + 6 + 2 * 8 + 14 * 5 + 2 * 4
    record = json.loads((evaluated / "metrics.json").read_text())
    for path, text in cells.items():
        entry = record
        for key in path.split("/"):
            entry = entry[int(key)] if isinstance(entry, list) else entry[key]
        assert text.strip() == expected(entry), path


def test_sheets_show_the_surest_of_each_outcome(evaluated: Path) -> None:
    """Right and wrong, most confident first, at most eight, as pandas sorts them; each has a picture."""
    table = pd.read_csv(evaluated / "predictions.csv")
    record = json.loads((evaluated / "examples" / "examples.json").read_text())
    outcomes = record["outcomes"]
    assert record["split"] == "test"
    assert sum(found["images"] for found in outcomes.values()) == 150
    for outcome, (label, prediction) in {
        "true_positive": (1, 1),
        "true_negative": (0, 0),
        "false_positive": (0, 1),
        "false_negative": (1, 0),
    }.items():
        own = table[(table["label"] == label) & (table["prediction"] == prediction)]
        surest = own.sort_values("probability", ascending=prediction == 0).head(8)
        found = outcomes[outcome]
        assert [each["id"] for each in found["shown"]] == surest["id"].tolist()
        assert [each["probability"] for each in found["shown"]] == pytest.approx(surest["probability"].tolist())
        assert found["images"] == len(own) > 0
        with Image.open(evaluated / "examples" / found["sheet"]) as sheet:
            reds = set(np.asarray(sheet.convert("RGB"))[..., 0][_red_only(sheet)].tolist())
        assert {int(name[-3:]) for name in surest["id"]} <= reds
        kept = {each["id"]: each["picture"] for each in found["shown"] if each["picture"]}
        assert list(kept) == surest["id"].tolist()[:2]
        for name, picture in kept.items():
            with Image.open(evaluated / "examples" / picture) as image:
                assert np.unique(np.asarray(image).reshape(-1, 3), axis=0).tolist() == [[int(name[-3:]), 0, 0]]
    page = (evaluated / "report.html").read_text("utf-8")
    assert page.count("data:image/png") == 4
    assert "False negatives: tumour taken for normal" in page


def _red_only(sheet: Image.Image) -> np.ndarray:
    pixels = np.asarray(sheet.convert("RGB"))
    return (pixels[..., 1] == 0) & (pixels[..., 2] == 0)


def test_outcome_without_images_has_no_sheet(tmp_path: Path) -> None:
    """Where nothing is wrong, no sheet is written, and the record says none."""
    table = pd.DataFrame({"id": ["a", "b"], "label": [0, 1], "probability": [0.1, 0.9], "prediction": [0, 1]})
    write_examples(tmp_path, table, np.zeros((2, 8, 8, 3), np.uint8), np.arange(2), ("n", "p"))
    outcomes = json.loads((tmp_path / "examples" / "examples.json").read_text())["outcomes"]
    assert outcomes["false_positive"] == {"images": 0, "shown": [], "sheet": None}
    names = {f"{outcome}{number}.png" for outcome in ("true_positive", "true_negative") for number in ("", "-1")}
    assert {path.name for path in (tmp_path / "examples").glob("*.png")} == names


def test_figures_are_drawn_from_the_record(evaluated: Path, tmp_path: Path) -> None:
    """The decision curve, the dots before and after and the groups are the record's; ROC and PR curves have bands."""
    records = read_records(evaluated)
    record = records.judged.as_json()
    for draw in (draw_roc, draw_precision_recall):
        figure = draw(records)
        assert figure is not None
        assert "95 % band" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    figure = draw_decision_curve(records)
    assert figure is not None
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines["Model"].get_ydata()) == [point["model"]["value"] for point in record["decision_curve"]]
    figure = draw_before_after(records)
    assert figure is not None
    shown = {round(float(x), 9) for line in figure.axes[0].lines for x in np.asarray(line.get_xdata(), float)}
    for name in ("sensitivity", "specificity", "f1"):
        assert {round(record[name]["value"], 9), round(record["at_half"][name]["value"], 9)} <= shown
    assert draw_confusion_matrix_at_half(records) is not None
    figure = draw_accuracy_by_group(records)
    assert figure is not None
    named = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    worst = min(record["groups"], key=lambda row: (row["accuracy"]["value"], row["n"]))
    assert named[-1] == f"{worst['group']} ({worst['n']})"


def test_half_is_not_shown_twice(evaluated: Path, tmp_path: Path) -> None:
    """Where the threshold is .5 there is no before and after."""
    table = pd.read_csv(evaluated / "predictions.csv")
    (tmp_path / "metrics.json").write_text(json.dumps({"test": split_record(table, 0.5, replicates=10)}))
    records = read_records(tmp_path)
    assert draw_before_after(records) is None
    assert draw_confusion_matrix_at_half(records) is None
