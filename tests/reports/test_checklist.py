"""The guidelines at the end of the model card: every item, and no answer that no record gives."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tumortrace.reports.checklist import CHECKLISTS, Checklist, fill, read_checklist
from tumortrace.reports.records import read_records
from tumortrace.reports.report import write_model_card
from tumortrace.reports.story import story

#: Numbers of the items as the papers' tables print them: Collins et al. 2024 (27 items, 52 with their parts) and
#: Tejani et al. 2024 (44).
TRIPOD = (
    "1 2 3a 3b 3c 4 5a 5b 6a 6b 6c 7 8a 8b 8c 9a 9b 9c 10 11 12a 12b 12c 12d 12e 12f 12g 13 14 15 16 17 "
    "18a 18b 18c 18d 18e 18f 19 20a 20b 20c 21 22 23a 23b 24 25 26 27a 27b 27c"
)
NUMBERS = {"tripod-ai": TRIPOD.split(" "), "claim-2024": [str(number) for number in range(1, 45)]}
#: What a run cannot know of itself, whatever its records hold.
NEVER = {
    "tripod-ai": ["3b", "3c", "5b", "6a", "6c", "8b", "8c", "14", "17", "18a", "18b", "18c", "18d", "19", "25"],
    "claim-2024": ["4", "5", "11", "15", "16", "17", "18", "34", "41", "44"],
}


def filled(run: Path, name: str) -> Checklist:
    records = read_records(run)
    return fill(name, records, story(records))


@pytest.mark.parametrize("name", CHECKLISTS)
def test_every_item_is_there_once_and_says_what_it_asks(name: str) -> None:
    """The items are the guideline's own, in order, each with a few words."""
    items = read_checklist(name)["items"]
    assert [str(item["number"]) for item in items] == NUMBERS[name]
    assert all(5 <= len(item["asks"]) <= 120 for item in items)


@pytest.mark.parametrize("name", CHECKLISTS)
def test_without_records_every_answer_is_not_available(name: str, tmp_path: Path) -> None:
    """A run that has written nothing down answers no item: no default stands in for a record."""
    (tmp_path / "run.json").write_text('{"name": "bare"}')
    checklist = filled(tmp_path, name)
    assert checklist.answered == 0
    assert {item.answer for item in checklist.items} == {"not available"}


@pytest.mark.parametrize("name", CHECKLISTS)
def test_what_no_record_holds_stays_not_available(name: str, run: Path) -> None:
    """With every record there is, ethics, funding, annotators and the like are still not made up."""
    answers = {item.number: item.answer for item in filled(run, name).items}
    assert {number: answers[number] for number in NEVER[name]} == dict.fromkeys(NEVER[name], "not available")
    assert sum(answer != "not available" for answer in answers.values()) >= len(answers) // 2


def test_answers_are_the_records(run: Path) -> None:
    """Answers carry the fields' values as written down, and say of each part that is missing that it is."""
    tripod = {item.number: item.answer for item in filled(run, "tripod-ai").items}
    claim = {item.number: item.answer for item in filled(run, "claim-2024").items}
    auroc = json.loads((run / "metrics.json").read_text())["test"]["auroc"]
    shown = [f"{number:.3f}".removeprefix("0") for number in (auroc["value"], *auroc["ci95"])]
    assert tripod["23a"].startswith(f"AUROC: {shown[0]} [{shown[1]}, {shown[2]}]; ")
    assert tripod["23a"].endswith("in groups of people: not available")
    assert tripod["10"] == "images: 2,612; slides or patients: 36; images judged on: 412; reasons: not available"
    assert claim["23"] == "versions: python 3.11.9, torch 2.9.0, numpy 2.3.1"
    assert claim["24"] == "weights started from: random initialisation, seed 0; SHA-256: not available"
    cells = json.loads((run / "metrics.json").read_text())["test"]["confusion_matrix"]
    assert claim["39"] == f"false positives: {cells['fp']}; false negatives: {cells['fn']}"


def test_the_card_has_both_tables(run: Path, tmp_path: Path) -> None:
    """The card prints every item of both guidelines as a row of three cells and counts the answered ones."""
    for name in ("run.json", "metrics.json", "recipe.yaml"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    text = write_model_card(tmp_path).read_text("utf-8")
    for title, name in {"TRIPOD+AI": "tripod-ai", "CLAIM 2024": "claim-2024"}.items():
        part = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in part.splitlines() if line.startswith("| ")][2:]
        assert [row[0].strip() for row in rows] == NUMBERS[name]
        assert {len(row) for row in rows} == {3}
        answered = sum(row[2].strip() != "not available" for row in rows)
        assert f"Answered, wholly or in part: {answered} of {len(rows)}." in part
