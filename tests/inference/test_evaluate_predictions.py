"""`tumortrace evaluate --predictions`: any model's table, as its owner has it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tumortrace import evaluate_predictions
from tumortrace.cli.main import run
from tumortrace.errors import CohortError, PredictionsError
from tumortrace.evaluation.split_record import split_record
from tumortrace.inference import evaluate as measured


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """No figures and few replicates: what is told is tested elsewhere, but for the test that asks for a report."""
    record = measured.split_record
    monkeypatch.setattr(measured, "split_record", lambda *a, **k: record(*a, **(k | {"replicates": 30})))
    if "report" not in request.node.name:
        monkeypatch.setattr(measured, "trust_records", lambda *_: {})
        monkeypatch.setattr(measured, "write_report", lambda folder: folder / "report.html")


def rows(n: int = 60, seed: int = 1, names: tuple[object, object] = (0, 1)) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    label = random.integers(0, 2, n)
    probability = np.clip(random.normal(0.35 + 0.3 * label, 0.2), 0, 1).round(2)
    return pd.DataFrame({"label": np.where(label == 1, names[1], names[0]), "probability": probability})


def written(folder: Path, table: pd.DataFrame, name: str = "theirs.csv") -> Path:
    path = folder / name
    table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)
    return path


def metrics(folder: Path, split: str = "test") -> dict:
    return json.loads((folder / "metrics.json").read_text())[split]


def about(folder: Path) -> dict:
    return json.loads((folder / "evaluation.json").read_text())


def test_outputs_are_those_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two columns are enough: predictions, metrics, record, figures and report are written; research use is said."""
    out = tmp_path / "out"
    assert run(["evaluate", "--predictions", str(written(tmp_path, rows())), "-o", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(out)
    assert "Research use only" in said.err
    table = pd.read_csv(out / "predictions.csv", dtype={"id": str})
    assert list(table) == ["id", "group", "split", "label", "probability", "prediction"]
    assert table["id"].tolist() == [str(row) for row in range(1, 61)]
    assert metrics(out) == split_record(rows(), 0.5, replicates=30).as_json()
    assert about(out)["command"].startswith("tumortrace evaluate --predictions ")


def test_report_of_a_table(tmp_path: Path) -> None:
    """The page tells what is known of a stranger's predictions, and what is not."""
    table = rows(80, names=("benign", "malignant")).assign(group=[f"p{i % 8}" for i in range(80)], site=["N", "S"] * 40)
    out = evaluate_predictions(written(tmp_path, table), out=tmp_path / "out", threshold=0.4, subgroups=["site"])
    page = (out / "report.html").read_text("utf-8")
    for told in (
        "Research use only",
        "Malignant against benign",
        "8 groups (slides or patients)",
        "what the model has seen of them is not on record",
        "Whether model or threshold have been chosen on these images is not on record",
        "By site",
        "Before is .5",
        "All 8 slides or patients",
        "beforehand (fixed:0.4)",
    ):
        assert told in page, told
    names = {path.stem for path in (out / "figures").glob("*.svg")}
    assert names >= {"roc", "precision_recall", "decision_curve", "confusion_matrix", "confusion_matrix_at_half"}
    assert names >= {"before_after", "accuracy_by_group", "reliability", "probability_histogram"}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_names_of_classes(tmp_path: Path, kind: str) -> None:
    """Class names known by their spelling need no option, others need --positive; both give the metrics of 0 and 1."""
    expected = metrics(evaluate_predictions(written(tmp_path, rows(), f"numbers.{kind}"), out=tmp_path / "0"))
    known = written(tmp_path, rows(names=("benign", "malignant")), f"known.{kind}")
    assert metrics(evaluate_predictions(known, out=tmp_path / "1")) == expected
    other = written(tmp_path, rows(names=("basal", "luminal")), f"other.{kind}")
    with pytest.raises(CohortError, match="which of the classes basal, luminal is positive is not known"):
        evaluate_predictions(other, out=tmp_path / "2")
    found = evaluate_predictions(other, positive="luminal", out=tmp_path / "2")
    assert metrics(found) == expected
    assert about(found)["classes"] == ["basal", "luminal"]


def test_naming_the_other_class_swaps_exactly(tmp_path: Path) -> None:
    """For numbers, known names and others: sensitivity and specificity change places to the last digit."""
    for place, (names, first, second, held) in enumerate(
        [
            ((0, 1), "1", "0", None),
            (("benign", "malignant"), "malignant", "benign", None),
            (("basal", "luminal"), "luminal", "basal", "luminal"),
        ]
    ):
        path = written(tmp_path, rows(names=names).assign(decision="refer"), f"{place}.csv")
        options = {"threshold": 0.45, "probability_of": held}
        one = evaluate_predictions(path, positive=first, out=tmp_path / f"{place}a", **options)
        other = evaluate_predictions(path, positive=second, out=tmp_path / f"{place}b", **options)
        before, after = metrics(one), metrics(other)
        assert before["sensitivity"] == after["specificity"]
        assert before["specificity"] == after["sensitivity"]
        assert before["precision"]["value"] == after["npv"]["value"]
        assert before["auroc"]["value"] == pytest.approx(after["auroc"]["value"], abs=1e-12)
        assert about(one)["classes"] == about(other)["classes"][::-1]


def test_probability_of_class_zero(tmp_path: Path) -> None:
    """A table that holds the probability of class 0 is read as such."""
    table = rows()
    turned = table.assign(probability=1 - table["probability"])
    plain = evaluate_predictions(written(tmp_path, table), out=tmp_path / "a", positive="0")
    held = evaluate_predictions(
        written(tmp_path, turned, "b.csv"), out=tmp_path / "b", positive="0", probability_of="0"
    )
    assert metrics(held)["auroc"]["value"] == pytest.approx(metrics(plain)["auroc"]["value"], abs=1e-9)


def test_splits_and_subgroups_and_ids(tmp_path: Path) -> None:
    """Each split is measured apart; ids, decisions and further columns are kept; subgroups are on record."""
    table = rows().assign(id=[f"{i:03}" for i in range(60)], split=["test", "validation"] * 30, decision="refer")
    table["scanner"] = ["A"] * 20 + ["B"] * 40
    out = evaluate_predictions(written(tmp_path, table), out=tmp_path / "out", subgroups=["scanner"])
    written_table = pd.read_csv(out / "predictions.csv", dtype={"id": str})
    assert written_table["id"].tolist() == table["id"].tolist()
    assert {"decision", "scanner"} <= set(written_table)
    assert metrics(out)["n"] == metrics(out, "validation")["n"] == 30
    assert {level: part["n"] for level, part in metrics(out)["subgroups"]["scanner"].items()} == {"A": 10, "B": 20}


def test_what_looks_wrong_is_said(tmp_path: Path) -> None:
    """Probabilities of the other class, other calls, groups that are not complete and training rows are pointed out."""
    table = rows(200).assign(prediction=0, group=["a", None] * 100, split="train")
    table["probability"] = 1 - table["probability"]
    notes = " ".join(about(evaluate_predictions(written(tmp_path, table), out=tmp_path / "out"))["notes"])
    for told in ("AUROC is below .5", "column prediction is not used", "100 rows have no group", "flatter it"):
        assert told in notes


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            "label,probability\nbenign,.1\nmalignant,.9\nmaligant,.8\n",
            "row 3, column label: found maligant; expected",
        ),
        ("label,probability\nbenign,.1\n,.9\nmalignant,.9\n", "row 2, column label: found nothing"),
        ("label,probability\n0,.1\n2,.9\n", "row 2, column label: found 2"),
        ("id,label,probability\na,0,.1\nb,1,1.9\n", "row 2 (id b), column probability: found 1.9"),
        ("id,label,probability\na,0,.1\na,1,.9\n", "row 2 (id a), column id: found a; expected each id once"),
        ("label,probability,split\n0,.1,test\n1,.9,\n", "row 2, column split: found nothing"),
        ("label,probability,decision\n0,.1,negative\n1,.9,maybe\n", "row 2, column decision: found maybe"),
        ("label,score\n0,.1\n", "no column 'probability'"),
    ],
)
def test_rows_that_cannot_be_evaluated_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, told: str
) -> None:
    """One line says file, row and field, and nothing is written."""
    path = tmp_path / "theirs.csv"
    path.write_text(content)
    assert run(["evaluate", "--predictions", str(path), "-o", str(tmp_path / "out")]) == 1
    line = capsys.readouterr().err
    assert told in line
    assert str(path) in line
    assert line.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["evaluate"], "no run and data"),
        (["evaluate", "run", "--predictions", "theirs.csv"], "a run and --predictions"),
        (["evaluate", "run", "data", "--threshold", "0.3"], "--threshold for a run"),
        (["evaluate", "run", "data", "--probability-of", "x"], "--probability-of for a run"),
        (["evaluate", "--predictions", "theirs.csv", "--group-column", "x"], "--group-column with --predictions"),
        (["evaluate", "--predictions", "theirs.csv", "--threshold", "50"], "threshold 50"),
        (["evaluate", "--predictions", "theirs.csv", "--subgroup", "age"], "no column 'age'"),
        (["evaluate", "--predictions", "theirs.csv", "--positive", "tumour"], "no class named 'tumour'"),
        (["evaluate", "--predictions", "missing.csv"], "no such file"),
        (["evaluate", "--predictions", "theirs.csv", "-o", "arun"], "the folder of a run"),
    ],
)
def test_wrong_calls_are_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    """What does not go together, or is not there, is refused in one line."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path, rows())
    (tmp_path / "arun").mkdir()
    (tmp_path / "arun" / "run.json").write_text("{}")
    assert run(words) == 1
    line = capsys.readouterr().err
    assert told in line
    assert line.count("\n") == 1


def test_one_class_only_is_undefined_and_not_refused(tmp_path: Path) -> None:
    """Negatives alone: what they do not define is null, in every part of the record."""
    out = evaluate_predictions(written(tmp_path, rows().assign(label=0)), out=tmp_path / "out")
    found = metrics(out)
    undefined = {"value": None, "ci95": None}
    assert found["auroc"] == found["sensitivity"] == found["at_half"]["sensitivity"] == undefined
    assert found["operating_points"]["sensitivity_at_specificity"]["0.95"] == undefined
    assert found["classification_report"]["macro"]["recall"] == undefined
    named = evaluate_predictions(
        written(tmp_path, rows().assign(label="malignant"), "n.csv"), positive="malignant", out=tmp_path / "n"
    )
    assert metrics(named)["specificity"] == undefined


def test_random_tables_swap_exactly_through_the_door(tmp_path: Path) -> None:
    """Random tables, with ties on the threshold: both ways round the counts are each other's."""
    for seed in range(6):
        table = rows(int(np.random.default_rng(seed).integers(4, 40)), seed=seed)
        table["probability"] = table["probability"].round(1)
        path = written(tmp_path, table, f"{seed}.csv")
        cells = []
        for positive in ("1", "0"):
            out = evaluate_predictions(path, positive=positive, threshold=0.3, out=tmp_path / f"{seed}{positive}")
            cells.append(metrics(out)["confusion_matrix"])
        assert cells[1] == {
            one: cells[0][other] for one, other in zip(("tn", "fp", "fn", "tp"), ("tp", "fn", "fp", "tn"))
        }


def test_no_table_is_cut_short(tmp_path: Path) -> None:
    """A row longer than the header is refused, not cut."""
    path = tmp_path / "theirs.csv"
    path.write_text("label,probability\n0,.1\n1,.9,7\n")
    with pytest.raises(PredictionsError, match="line 3 has 3 fields"):
        evaluate_predictions(path, out=tmp_path / "out")
