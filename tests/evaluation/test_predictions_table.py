import numpy as np
import pandas as pd
import pytest

from tests.evaluation.plain import evaluate_table
from tumortrace.errors import PredictionsError
from tumortrace.evaluation.table import check_table, read_predictions
from tumortrace.records.files import write_csv


def _table(n=500):
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "id": [f"{i:04d}" for i in range(n)],
            "group": [f"{i % 9:02d}" for i in range(n)],
            "label": random.integers(0, 2, n),
            "probability": random.random(n) ** 9,
            "x": np.arange(n),
        }
    )


@pytest.mark.parametrize("kind", ["csv", "parquet", "CSV"])
def test_tables_come_back_as_written(tmp_path, kind):
    """Every digit of a probability, leading zeros of ids and further columns survive."""
    table, path = _table(), tmp_path / f"predictions.{kind}"
    table.to_parquet(path) if kind == "parquet" else write_csv(path, table)
    back = read_predictions(path)
    assert (back["probability"].to_numpy() == table["probability"].to_numpy()).all()
    assert back["id"].tolist() == table["id"].tolist()
    assert back["group"].tolist() == table["group"].tolist()
    assert back["x"].tolist() == table["x"].tolist()
    assert evaluate_table(back, 0.5, replicates=20) == evaluate_table(table, 0.5, replicates=20)


def test_names_that_look_like_nothing_or_numbers_stay_names(tmp_path):
    """`NA`, `null` and `1e5` are ids and groups; an empty cell is none; a byte order mark does no harm."""
    path = tmp_path / "p.csv"
    path.write_text("\ufeffid,group,label,probability\nNA,null,1,0.5\n1e5,,0,.25\n", encoding="utf-8")
    table = read_predictions(path)
    assert table["id"].tolist() == ["NA", "1e5"]
    assert table["group"].isna().tolist() == [False, True]
    checked = check_table(table)
    assert (checked.n_groups, checked.ungrouped) == (None, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a table without rows"),
        ("label,probability\n", "a table without rows"),
        ("id,probability\na,0.5\n", "no column 'label'"),
        ("id,label,probability\na,1,0.5\nb,0,\n", "row 2 (id b), column probability: found nothing"),
        ("id,label,probability\na,1,0.5\nb,0,high\n", "row 2 (id b), column probability: found high"),
        ("id,label,probability\na,1,0.5\nb,0,nan\n", "row 2 (id b), column probability: found nan"),
        ("id,label,probability\na,1,12\nb,0,55\n", "found 12.0 and 1 more such rows"),
        ("id,label,probability\na,benign,0.5\n", "row 1 (id a), column label: found benign"),
        ("id,label,probability\na,,0.5\n", "row 1 (id a), column label: found nothing"),
        ("id,label,probability\na,1,0,5\nb,1,0,5\n", "line 2 has 4 fields"),
        ("id,label,probability\na,1,0.5\nb,1,0,5\n", "line 3 has 4 fields"),
        ("label,probability\n1,0.5\n0.5,0.5\n", "row 2, column label: found 0.5"),
    ],
)
def test_broken_tables_are_refused_by_name(tmp_path, content, message):
    """A broken file is refused in one line with file, row and column; nothing is cut off or guessed."""
    path = tmp_path / "predictions.csv"
    path.write_text(content)
    with pytest.raises(PredictionsError) as refusal:
        read_predictions(path)
    assert message in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_files_that_are_no_tables_are_refused(tmp_path):
    """A missing file, a folder, another format, and bytes that are no table are refused."""
    (tmp_path / "p.xlsx").write_bytes(b"PK")
    (tmp_path / "p.parquet").write_bytes(b"PAR1 not really")
    (tmp_path / "p.csv").write_bytes(b"label,probability\n\xff\xfe,0.5\n")
    for name in ("missing.csv", ".", "p.xlsx", "p.parquet", "p.csv"):
        with pytest.raises(PredictionsError):
            read_predictions(tmp_path / name)


def test_rows_are_counted_in_the_table_given():
    """In a filtered table the row is named by its place there, and by its id."""
    table = _table(10).iloc[5:]
    table.loc[7, "probability"] = 2.0
    with pytest.raises(PredictionsError, match=r"row 3 \(id 0007\), column probability"):
        check_table(table)


@pytest.mark.parametrize(
    "groups",
    [[1, 2, 1, 2], ["a", "b", "a", "b"], pd.Categorical(["a", "b", "a", "b"]), pd.array([1, 2, 1, 2], "Int64")],
)
def test_groups_of_any_type(groups):
    """Numbers, texts and categories all name groups."""
    table = pd.DataFrame({"label": [0, 1, 0, 1], "probability": [0.1, 0.2, 0.3, 0.4], "group": groups})
    assert check_table(table).n_groups == 2
    assert check_table(table).group.tolist() == [0, 1, 0, 1]


def test_missing_labels_of_any_type_are_refused():
    """Missing nullable integers, None and text are no labels; booleans and whole floats are."""
    for label in (pd.array([1, None], "Int64"), [1, None], ["1", "x"], [1, -1]):
        with pytest.raises(PredictionsError, match="row 2, column label"):
            check_table(pd.DataFrame({"label": label, "probability": [0.1, 0.2]}))
    for label in ([True, False], [1.0, 0.0], pd.array([True, False], "boolean"), ["1", "0"]):
        assert check_table(pd.DataFrame({"label": label, "probability": [0.1, 0.2]})).label.tolist() == [1, 0]
