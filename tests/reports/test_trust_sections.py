"""The sections on calibration, decisions and likeness say what the records say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from tests.reports.conftest import make_run
from tumortrace.evaluation.abstention import outside_line, trust_records
from tumortrace.records.metrics import Choice
from tumortrace.records.model import ModelRecord
from tumortrace.reports.report import write_report
from tumortrace.reports.story import calibration_in_words
from tumortrace.reports.wording import decimals


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run with all the records, a third of whose test images are strange, and its page."""
    run = make_run(tmp_path_factory.mktemp("trust") / "run")
    table = pd.read_csv(run / "predictions.csv", dtype={"id": str, "group": str})
    raw = 2 * logit(table["probability"].clip(1e-6, 1 - 1e-6))
    score = np.where((table["split"] == "test") & (np.arange(len(table)) % 3 == 0), 1.7, 0.5)
    table = table.assign(logit=raw, ood_score=score, in_distribution=score <= 1)
    table.to_csv(run / "predictions.csv", index=False)
    model = json.loads((run / "model" / "model.json").read_text())
    model |= {"triage": {"coverage": 0.95, "quantiles": [0.8, 0.75]}, "ood": {"quantile": 0.99}}
    (run / "model" / "model.json").write_text(json.dumps(model))
    choice = Choice(why="the recipe asks for it", cross_validated_nll={"temperature": 0.4567, "platt": 0.4321})
    for record in trust_records(table[table["label"].notna()], model, choice):
        record.write(run)
    return run, write_report(run).read_text("utf-8")


def section(page: str, name: str) -> str:
    """The text of one section, tags left out."""
    found = re.search(rf'<h2 id="{name}">.*?</section>', page, re.DOTALL)
    assert found, name
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", found[0]))


def test_calibration_is_told_before_and_after(told: tuple[Path, str]) -> None:
    """Every measure of calibration.json stands in the page with its interval, the choice with its reason."""
    run, page = told
    text, record = section(page, "calibration"), json.loads((run / "calibration.json").read_text())
    for side in ("before", "after"):
        assert len(record[side]) == 8
        for name, entry in record[side].items():
            low, high = (decimals(end) for end in entry["ci95"])
            assert f"{decimals(entry['value'])} [{low}, {high}]" in text, (side, name)
    assert "the recipe asks for it" in text
    assert "temperature .457, platt .432" in text
    assert (run / "figures" / "calibration.svg").is_file()


def test_decisions_are_told_with_their_promise(told: tuple[Path, str]) -> None:
    """Coverage reached by class, set sizes, referrals and the share decided at 95 % sensitivity are the record's."""
    run, page = told
    text, record = section(page, "decisions"), json.loads((run / "abstention.json").read_text())
    for name, entry in record["decisions"].items():
        if isinstance(entry, dict):
            assert f"{100 * entry['value']:.1f} %" in text, name
    decided = record["triage"]["decided"]
    low, high = (f"{100 * end:.1f}%" for end in decided["ci95"])
    expected = f"sensitivityandspecificity,{100 * decided['value']:.1f}%[{low},{high}]"
    assert expected in text.replace(" ", "")
    assert "at most 10 % are decided wrongly" in text
    assert "A new scanner, stain, laboratory or hospital" in text
    assert (run / "figures" / "risk_coverage.svg").is_file()


def test_strange_images_are_counted_and_warned_of(told: tuple[Path, str]) -> None:
    """The share of every split is the record's; a third of the judged split is a warning."""
    run, page = told
    text, record = section(page, "distribution"), json.loads((run / "distribution.json").read_text())
    for part in record["splits"].values():
        assert f"{100 * part['outside']['value']:.1f} %" in text
    assert "Many of the test images do not look like the training data" in text
    assert (run / "figures" / "likeness.svg").is_file()


def test_without_the_records_the_page_says_less(tmp_path: Path) -> None:
    """An older run has no section on likeness, no table before and after, and no sentence on triage."""
    page = write_report(make_run(tmp_path / "run")).read_text("utf-8")
    assert 'id="distribution"' not in page
    assert "Before" not in section(page, "calibration")
    assert "decided without a person" not in section(page, "decisions").replace("called", "")


def test_a_few_strange_images_are_no_warning() -> None:
    """One in a hundred is what the limit is made for; a third is not."""
    usual, strange = pd.Series([False] + [True] * 99), pd.Series([False, True, True] * 40)
    assert outside_line(usual).startswith("1.0 % [")
    assert outside_line(strange).startswith("warning: 33.3 % [")


def test_images_of_one_slide_are_strange_together() -> None:
    """A tenth of 400 images: apart, a warning; as one slide of ten, which may be chance, none."""
    strange = pd.Series(np.arange(400) >= 40)
    assert outside_line(strange).startswith("warning: 10.0 % [")
    assert outside_line(strange, pd.Series(np.arange(400) // 40).astype(str)).startswith("10.0 % [0.0 %, ")


@pytest.mark.parametrize(
    ("calibration", "says"),
    [
        ({"method": "temperature", "slope": 0.5}, "divided by 2.000; by itself the model was too sure"),
        ({"method": "temperature", "slope": 2.0}, "divided by .500; by itself the model was not sure enough"),
        ({"method": "isotonic", "slope": 1.0, "knots": [0, 1, 2], "values": [0, 1, 2]}, "through 3 points"),
        ({"method": "none"}, "No calibration"),
    ],
)
def test_calibration_in_words(calibration: dict[str, object], says: str) -> None:
    """Each method has its sentence."""
    assert says in str(calibration_in_words(ModelRecord.model_validate({"calibration": calibration})))
    assert calibration_in_words(ModelRecord()) is None
