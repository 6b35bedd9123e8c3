"""Tables that users bring: one reader for all of them, whatever program wrote them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.situations.situation import situation
from tumortrace.cli.main import run
from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.material import without
from tumortrace.errors import PredictionsError
from tumortrace.evaluation.table import read_predictions
from tumortrace.preparation.features import read_features
from tumortrace.preparation.second_look import second_look
from tumortrace.records.evaluation import EvaluationRecord
from tumortrace.records.tables import PREDICTIONS

NAMES = ["NA", "None", "nan", "null", "007", "1e5"]


def predictions(count: int = 40) -> pd.DataFrame:
    """Predictions of a good model, with names that are easily lost."""
    label = np.arange(count) % 2
    return pd.DataFrame(
        {
            "id": [f"{row:03d}" for row in range(count)],
            "group": [NAMES[row % len(NAMES)] for row in range(count)],
            "label": label,
            "probability": (label * 0.5 + np.random.default_rng(0).random(count) * 0.6).clip(0, 1).round(3),
        }
    )


def written(kind: str, folder: Path) -> Path:
    """The same table as different programs write it."""
    table = predictions()
    file = folder / "of-another-model.csv"
    if kind == "semicolons and decimal commas":
        table.to_csv(file, sep=";", decimal=",", index=False)
    elif kind == "capitals and blanks in headings":
        table.rename(columns={"label": " Label", "probability": "PROBABILITY ", "id": "ID"}).to_csv(file, index=False)
    elif kind == "tabs":
        file = file.with_suffix(".tsv")
        table.to_csv(file, sep="\t", index=False)
    elif kind == "an index without a name":
        table.to_csv(file)
    elif kind == "a byte order mark":
        table.to_csv(file, index=False, encoding="utf-8-sig")
    elif kind == "UTF-16 with tabs":
        file = file.with_suffix(".txt")
        table.to_csv(file, sep="\t", index=False, encoding="utf-16")
    else:
        table.to_csv(file, index=False)
    return file


@situation(
    "tables",
    there="predictions of any model with semicolons, decimal commas, tabs, capitals, an index or a byte order mark",
    typed="tumortrace evaluate --predictions FILE",
    right="the numbers of the plain CSV; groups named NA or 007 stay groups",
)
@pytest.mark.parametrize(
    "kind",
    [
        "semicolons and decimal commas",
        "capitals and blanks in headings",
        "tabs",
        "an index without a name",
        "a byte order mark",
        "UTF-16 with tabs",
    ],
)
def test_predictions_are_read_whoever_wrote_them(kind: str, tmp_path: Path) -> None:
    plain = read_predictions(written("plain", tmp_path))
    table = read_predictions(written(kind, tmp_path))
    pd.testing.assert_frame_equal(table, plain)
    assert table["group"].tolist() == predictions()["group"].tolist()
    assert table["probability"].tolist() == predictions()["probability"].tolist()


def test_such_predictions_are_evaluated_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """With an index and semicolons at once; the dropped column is told, and a subgroup found by its heading."""
    file = tmp_path / "a.csv"
    predictions().assign(Scanner="A").to_csv(file, sep=";", decimal=",")
    out = tmp_path / "out"
    assert run(["evaluate", "--predictions", str(file), "-o", str(out), "--subgroup", "Scanner"]) == 0
    record = EvaluationRecord.read(out)
    assert record.data.groups == len(NAMES)
    assert record.subgroups == ["scanner"]
    assert "a.csv: column without a name dropped" in record.notes
    assert "column without a name dropped" in capsys.readouterr().err


def test_a_probability_that_is_none_is_named(tmp_path: Path) -> None:
    """Thousands' points beside decimal commas are no number, and a word is named with its row."""
    for text in ("1.000,5", "high", ""):
        file = tmp_path / "a.csv"
        file.write_text(f"id;label;probability\na;1;0,5\nb;0;{text}\n")
        with pytest.raises(PredictionsError, match=r"row 2 \(id b\), column probability"):
            read_predictions(file)


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """Images whose ids are words for nothing, or numbers."""
    for name in NAMES:
        Image.new("RGB", (16, 16), (hash(name) % 200, 90, 120)).save(tmp_path / f"{name}.png")
    rows = [f"{name}.png;{name};{number % 2};{name}" for number, name in enumerate(NAMES)]
    (tmp_path / "labels.csv").write_text("\n".join(["Path;ID;Label;Patient", *rows]), encoding="utf-8")
    return tmp_path


@situation(
    "tables",
    there="ids and patients named NA, None, nan, null, 007",
    typed="tumortrace train DATA --set leave_out=LIST",
    right="these images alone are left out, and the list may have semicolons",
)
def test_lists_of_ids_keep_words_for_nothing(named: Path, tmp_path: Path) -> None:
    cohort = open_cohort(named / "labels.csv")
    assert cohort.table["id"].tolist() == cohort.table["group"].tolist() == NAMES
    listed = tmp_path / "not-these.csv"
    listed.write_text(";ID;why\n0;NA;blurred\n1;007;a mark\n2;null;\n")
    left = without(cohort, str(listed))
    assert left.table["id"].tolist() == ["None", "nan", "1e5"]
    assert left.notes[-1] == "3 of 6 images are left out, as not-these.csv says"


def test_features_and_second_looks_keep_words_for_nothing(named: Path, tmp_path: Path) -> None:
    """Tables that other verbs write and read again."""
    table = tmp_path / "features.csv"
    assert run(["features", str(named / "labels.csv"), "-o", str(table), "--descriptors", "intensity"]) == 0
    features, _ = read_features(table)
    assert features["id"].tolist() == features["group"].tolist() == NAMES
    cohort = open_cohort(named / "labels.csv")
    calls = cohort.table[["id", "group", "label"]].assign(split="test", probability=[0.9, 0.9, 0.1, 0.9, 0.9, 0.9])
    PREDICTIONS.write(tmp_path / "run", calls)
    doubted, _ = second_look(cohort, tmp_path / "run")
    assert set(doubted["id"]) <= set(NAMES)
    assert len(second_look(Cohort("mine", "table", cohort.table), tmp_path / "run")[0]) == len(doubted) > 0


@situation(
    "tables",
    there="a table of labels that Excel saved in Windows' own encoding (cp1252), or one with `|` between its columns",
    typed="tumortrace check DATA",
    right="the first is refused with what to save it as, never passed over; the second is read",
)
def test_tables_of_other_encodings_are_not_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"im{number}.png" for number in range(8)]
    (tmp_path / "images").mkdir()
    for number, name in enumerate(names):
        Image.new("RGB", (16, 16), (20 * number, 9, 9)).save(tmp_path / "images" / name)
    rows = [f"{name};{('gutartig', 'bösartig')[place % 2]}" for place, name in enumerate(names)]
    text = "\n".join(["image;label", *rows])
    (tmp_path / "labels.csv").write_bytes(text.encode("cp1252"))
    assert run(["check", str(tmp_path), "--positive", "bösartig", "-o", str(tmp_path.parent / "audit")]) == 1
    assert "not UTF-8 text. What to do: save it as CSV in UTF-8" in capsys.readouterr().err
    (tmp_path / "labels.csv").write_text(text.replace(";", "|"), "utf-8")
    cohort = open_cohort(tmp_path, positive="bösartig")
    assert cohort.table["label"].tolist() == [0, 1] * 4
