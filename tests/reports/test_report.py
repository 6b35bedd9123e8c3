"""The report says what the records say: number by number, and nothing more."""

from __future__ import annotations

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from tumortrace.errors import RunError
from tumortrace.reports import report as telling
from tumortrace.reports.drawing import Drawn
from tumortrace.reports.report import report, write_model_card, write_report

HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(1)>'


class Page(HTMLParser):
    """A report taken apart: the text of each metric cell and card, the tags, links and pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: dict[tuple[str, str], str] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._cell: tuple[str, str] | None = None
        self._silent = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        self._silent = tag == "style"
        if "data-metric" in found:
            self._cell = (str(found["data-split"]), str(found["data-metric"]))
            self.cells[self._cell] = ""

    def handle_endtag(self, tag: str) -> None:
        self._silent = False
        if tag == "td":
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.cells[self._cell] += data
        if not self._silent:
            self.text += data

    @property
    def mistakes(self) -> str:
        return self.text.partition("wrong predictions on")[2]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def shown(value: float) -> str:
    """A number as the reports print it, written down a second time."""
    sign = "−" if value < 0 else ""
    return sign + f"{abs(value):.3f}".removeprefix("0")


def cell(entry: dict) -> str:
    if entry["value"] is None:
        return "—"
    bounds = entry["ci95"]
    return shown(entry["value"]) + (f"[{shown(bounds[0])}, {shown(bounds[1])}]" if bounds else "")


def test_a_run_of_slides_speaks_of_slides(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where features of slides are learnt from, neither page nor card says image or patch of what is predicted."""
    monkeypatch.setattr(telling, "draw_figures", lambda *_: Drawn())
    run = tmp_path / "run"
    shutil.copytree(small_run, run, ignore=shutil.ignore_patterns("checkpoints", "figures", "examples", "drift.json"))
    record = json.loads((run / "run.json").read_text("utf-8"))
    record["data"]["layout"] = "slide-features"
    (run / "run.json").write_text(json.dumps(record))
    page = Page(write_report(run).read_text("utf-8")).text
    card = write_model_card(run).read_text("utf-8").partition("TRIPOD")[0]
    ours = re.compile(r"\bimage patches\b|\b(test|training|of these|tumour|normal|one|new) images?\b")
    assert not ours.search(page), ours.search(page)
    assert not ours.search(card), ours.search(card)
    assert "test slides" in page
    assert "in whole slides like those" in card


def lean(run: Path, folder: Path, *names: str) -> Path:
    """A copy of some records of a run; without predictions and history a report is written at once."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(run / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def page(reported: Path) -> Page:
    return Page((reported / "report.html").read_text("utf-8"))


def test_metric_table_equals_the_record(run: Path, page: Page) -> None:
    """Each cell of the metric table is its metric's value and interval on record, at three decimals."""
    metrics = json.loads((run / "metrics.json").read_text())
    expected = {
        (split, name): cell(entry)
        for split, entries in metrics.items()
        for name, entry in entries.items()
        if isinstance(entry, dict) and "value" in entry
    }
    assert len(expected) == 39
    assert {key: text.strip() for key, text in page.cells.items()} == expected


def test_story_is_complete(run: Path, page: Page) -> None:
    """The verdict, the data, the decisions, the mistakes and the origin of everything are told, from the records."""
    metrics = json.loads((run / "metrics.json").read_text())["test"]
    table = pd.read_csv(run / "predictions.csv")
    test = table[table["split"] == "test"]
    wrong = test[test["label"] != test["prediction"]]
    sureness = wrong["probability"].where(wrong["prediction"] == 1, 1 - wrong["probability"])
    for told in (
        "Research use only. Not a medical device.",
        f"AUROC {cell(metrics['auroc']).replace('[', ' [')} on 412 test images of 9 groups",
        "Leakage between the splits is ruled out",
        "5f0c" * 16,
        "ab12" * 16,
        "near duplicates",
        "random initialisation, seed 0",
        "tumortrace train synthetic:patches --recipe tumortrace --seed 0",
        f"{100 * (test['decision'] == 'refer').mean():.1f} %",
        f"The 10 of {len(wrong)} wrong predictions",
        "Grad-CAM",
        "slide-1.svs",
        "12.3 % of the tissue, 1.520 mm² (9.1 % to 17.9 %: referred tiles",
        ".944, the mean of some tiles; interval none: all was read",
        "What voids it",
    ):
        assert told in page.words, told
    assert "not available" not in page.words.lower()
    assert "None" not in page.words
    surest = wrong.loc[sureness.sort_values(ascending=False).index[:10], "id"]
    places = [page.mistakes.index(name) for name in surest]
    assert places == sorted(places)


def test_report_is_one_file(page: Page) -> None:
    """There is no script, no link out of the page and no picture that is not inside it; each picture has words."""
    assert {"script", "link", "iframe", "object"}.isdisjoint(tag for tag, _ in page.tags)
    pictures = [found for tag, found in page.tags if tag == "img"]
    assert len(pictures) == 7 + 4 + 2 + 1  # figures, explanations, those of mistakes, the heat map
    for found in pictures:
        kind, _, content = str(found["src"]).partition(";base64,")
        assert kind in ("data:image/svg+xml", "data:image/png")
        assert base64.b64decode(content, validate=True)
        assert len(str(found["alt"])) > 10
    for tag, found in page.tags:
        assert tag != "a" or str(found["href"]).startswith("#")
        assert not any(name.startswith("on") for name in found)
    targets = {found["id"] for _, found in page.tags if "id" in found}
    assert {str(found["href"])[1:] for tag, found in page.tags if tag == "a"} <= targets


def test_altered_metric_is_shown(run: Path, tmp_path: Path) -> None:
    """A number changed in metrics.json changes in the table, the cards and the verdict, and nowhere is the old one."""
    lean(run, tmp_path, "metrics.json", "run.json")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    old = cell(metrics["test"]["auroc"])
    metrics["test"]["auroc"] = {"value": 0.123456, "ci95": [0.1, 0.2]}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    altered = Page(write_report(tmp_path).read_text("utf-8"))
    assert altered.cells["test", "auroc"].strip() == ".123[.100, .200]"
    assert "AUROC .123 [.100, .200] on 412 test images" in altered.words
    assert old.split("[")[0] not in altered.words


def test_missing_records_are_left_out(tmp_path: Path) -> None:
    """With only a run.json that says little, the report is written and says what is not available."""
    (tmp_path / "run.json").write_text('{"name": "bare", "status": "interrupted"}')
    bare = Page(write_report(tmp_path).read_text("utf-8"))
    assert "No metrics are on record" in bare.words
    assert "not finished: its status is “interrupted”" in bare.words
    assert "Seed not available" in re.sub(r"Seed\s*", "Seed ", bare.words)
    assert not any(tag == "img" for tag, _ in bare.tags)
    for heading in ("Audit", "Explanations", "Slide scans", "Most confident mistakes", "Decisions"):
        assert heading not in bare.words


def test_leakage_that_is_not_ruled_out_is_said_aloud(run: Path, tmp_path: Path) -> None:
    """Without groups and without a test split, the verdict and the limits say what that means."""
    lean(run, tmp_path, "metrics.json", "run.json")
    record = json.loads((tmp_path / "run.json").read_text())
    record["leakage"] = "not ruled out: slide or patient not known"
    record["data"]["groups"] = None
    (tmp_path / "run.json").write_text(json.dumps(record))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    del metrics["test"]
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    words = Page(write_report(tmp_path).read_text("utf-8")).words
    assert "Leakage between the splits is not ruled out: slide or patient not known." in words
    assert "There is no test split" in words
    assert "all numbers here are too good" in words


def test_hostile_names_are_only_text(run: Path, tmp_path: Path) -> None:
    """Markup in ids, class names, notes, findings and recipes is shown and never becomes part of the page."""
    lean(run, tmp_path, "metrics.json", "run.json", "audit.json", "scans/slide-1/scan.json")
    record = json.loads((tmp_path / "run.json").read_text())
    record["data"] |= {"classes": [HOSTILE, "$tumour$"], "name": HOSTILE, "notes": [HOSTILE]}
    record |= {"name": HOSTILE, "command": HOSTILE, "leakage": HOSTILE}
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "recipe.yaml").write_text(f"name: {json.dumps(HOSTILE)}\n")
    audit = json.loads((tmp_path / "audit.json").read_text())
    audit["findings"][0] |= {"name": HOSTILE, "message": HOSTILE, "examples": [HOSTILE], "verdict": '"><b>'}
    (tmp_path / "audit.json").write_text(json.dumps(audit))
    row = f'"{HOSTILE.replace(chr(34), chr(34) * 2)}",g,other,0,0.9,1,positive'
    (tmp_path / "predictions.csv").write_text(f"id,group,split,label,probability,prediction,decision\n{row}\n")
    hostile = Page(write_report(tmp_path).read_text("utf-8"))
    assert "script" not in {tag for tag, _ in hostile.tags}
    assert not any(name.startswith("on") for _, found in hostile.tags for name in found)
    assert hostile.text.count(HOSTILE) >= 8
    card = write_model_card(tmp_path).read_text("utf-8")
    assert "<script" not in card
    assert "<img" not in card
    assert """- &lt;script&gt;alert("1")&lt;/script&gt;""" in card


def test_hostile_id_among_the_mistakes_is_only_text(tmp_path: Path) -> None:
    """A wrong prediction whose id and missing group are awkward is listed as it is."""
    row = f'"{HOSTILE.replace(chr(34), chr(34) * 2)}",,test,0,0.9,1,positive'
    (tmp_path / "predictions.csv").write_text(f"id,group,split,label,probability,prediction,decision\n{row}\n")
    hostile = Page(write_report(tmp_path).read_text("utf-8"))
    assert HOSTILE in hostile.text
    assert "script" not in {tag for tag, _ in hostile.tags}
    assert "nan" not in hostile.words.lower().split()


def test_pictures_outside_the_folder_are_not_embedded(run: Path, tmp_path: Path) -> None:
    """A record cannot make the report carry a file from elsewhere, and a broken picture is left out."""
    lean(run, tmp_path, "run.json", "explanations/explanations.json")
    shutil.copy(run / "explanations" / "0.png", tmp_path / "secret.png")
    (tmp_path / "explanations" / "1.png").write_text("no picture")
    record = json.loads((tmp_path / "explanations" / "explanations.json").read_text())
    record["items"][0]["figure"] = "../secret.png"
    (tmp_path / "explanations" / "explanations.json").write_text(json.dumps(record))
    outside = Page(write_report(tmp_path).read_text("utf-8"))
    assert not any(tag == "img" for tag, _ in outside.tags)


def test_explanations_that_share_an_id_keep_their_own_pictures(run: Path, tmp_path: Path) -> None:
    """Two explained images of one name show two pictures, and neither is given to a mistake of that name."""
    lean(run, tmp_path, "run.json", "explanations/explanations.json", "explanations/0.png", "explanations/1.png")
    record = json.loads((tmp_path / "explanations" / "explanations.json").read_text())
    record["items"] = [item | {"id": "twin"} for item in record["items"][:2]]
    (tmp_path / "explanations" / "explanations.json").write_text(json.dumps(record))
    (tmp_path / "predictions.csv").write_text("id,split,label,probability,prediction\ntwin,other,0,0.9,1\n")
    tags = Page(write_report(tmp_path).read_text("utf-8")).tags
    pictures = [found["src"] for tag, found in tags if tag == "img" and "twin" in str(found["alt"])]
    assert len(set(pictures)) == len(pictures) == 2


def test_share_of_positives_far_from_training_is_noticed(run: Path, tmp_path: Path) -> None:
    """Predictions that are 3 % positive after training on 40 % carry a warning."""
    lean(run, tmp_path, "metrics.json", "model/model.json")
    assert "far apart" not in write_report(tmp_path).read_text("utf-8")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    metrics["test"]["confusion_matrix"] = {"tn": 240, "fp": 4, "fn": 160, "tp": 8}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    words = Page(write_report(tmp_path).read_text("utf-8")).words
    assert "2.9 % of the test images are, and 40.0 % were in training" in words
    assert "far apart" in words


def test_model_card_carries_the_metrics(run: Path, tmp_path: Path) -> None:
    """Each row of the card's metric table is the record's, and what no record holds is called not available."""
    copy = lean(run, tmp_path, "metrics.json", "run.json", "model/model.json", "recipe.yaml")
    text = write_model_card(copy).read_text("utf-8")
    entry = json.loads((run / "metrics.json").read_text())["test"]
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]*?) \|", text, flags=re.MULTILINE))
    for label, name in {"AUROC": "auroc", "Log loss": "nll", "Matthews correlation": "mcc", "F1": "f1"}.items():
        assert rows[label].replace(" [", "[").strip() == cell(entry[name])
    assert rows["Negative predictive value"].strip() == "—"
    assert "Research use only. Not a medical device." in text
    assert "Fairness across patient groups: not available" in text
    assert "\n\n\n" not in text


def test_what_the_verdict_is_worth(run: Path, tmp_path: Path) -> None:
    """An interval that reaches down to chance and few slides are said aloud, and so is what nobody measured."""
    lean(run, tmp_path, "metrics.json", "run.json")
    first = Page(write_report(tmp_path).read_text("utf-8")).words
    assert "no better than guessing" not in first
    assert "These images come from 9 slides or patients only" in first
    assert "tumortrace evaluate RUN DATA measures it" in first
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    metrics["test"]["auroc"] = {"value": 0.61, "ci95": [0.499, 0.72]}
    metrics["test"]["n_groups"] = None
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    there = lean(run, tmp_path / "evaluations" / "clinic", "metrics.json")
    (there / "evaluation.json").write_text(
        '{"verb": "evaluate", "data": {"name": "the clinic"}, "notes": ["two left out"]}'
    )
    second = Page(write_report(tmp_path).read_text("utf-8")).words
    assert "That interval begins at .499: the model may be no better than guessing." in second
    assert "the intervals take each image for independent" in second
    assert "in 61 of 100 cases" in second
    assert "tumortrace evaluate RUN DATA" not in second
    assert "the clinic: two left out." in second


def test_the_check_before_training_is_told(run: Path, tmp_path: Path) -> None:
    """Without audit.json the findings are those of the training's own check, with what it was let pass."""
    lean(run, tmp_path, "run.json")
    record = json.loads((tmp_path / "run.json").read_text())
    finding = {"name": "exact-copies", "verdict": "error", "count": 4, "message": "4 pictures twice"}
    record["audit"] = {"findings": [finding], "allowed": ["exact-copies"]}
    (tmp_path / "run.json").write_text(json.dumps(record))
    words = Page(write_report(tmp_path).read_text("utf-8")).words
    assert "Trained in spite of: exact-copies." in words
    assert "4 pictures twice" in words
    record["audit"] = {"findings": [], "allowed": []}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert "found nothing that stands against" in Page(write_report(tmp_path).read_text("utf-8")).words


def test_report_told_anew_holds_what_has_come_since(run: Path, tmp_path: Path) -> None:
    """An evaluation made later stands in the report and the card after `report`; other folders are refused."""
    lean(run, tmp_path, "metrics.json", "run.json")
    assert "On other data" not in report(tmp_path).read_text("utf-8")
    there = lean(run, tmp_path / "evaluations" / "clinic", "metrics.json")
    (there / "evaluation.json").write_text('{"verb": "evaluate", "data": {"name": "the clinic"}}')
    assert "On other data" in report(tmp_path).read_text("utf-8")
    assert "| clinic | 412 |" in (tmp_path / "model_card.md").read_text("utf-8")
    assert "the clinic" in report(there).read_text("utf-8")
    assert not (there / "model_card.md").exists()
    (tmp_path / "run.json").write_text('{"verb": "prepare"}')
    with pytest.raises(RunError, match="'prepare'"):
        report(tmp_path)
    (tmp_path / "run.json").write_text('{"verb": "crossval", "name": "first"}')
    assert "No fold is on record" in report(tmp_path).read_text("utf-8")
