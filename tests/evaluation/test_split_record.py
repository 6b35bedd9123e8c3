"""The full record of a split: what it holds, where its intervals come from, and cases worked by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from tests.evaluation.plain import each_group, each_subgroup, evaluate_table, split_record
from tumortrace.errors import PredictionsError


def table(n: int = 200, groups: int | None = None, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    label = np.arange(n) % 2
    probability = 1 / (1 + np.exp(-random.normal(1.2 * (2 * label - 1), 1.0)))
    result = pd.DataFrame({"label": label, "probability": probability})
    return result if groups is None else result.assign(group=[f"s{i:02}" for i in random.integers(0, groups, n)])


def entries(record: Any, path: str = "") -> Iterator[tuple[str, dict]]:
    """Every value with its interval, wherever it stands."""
    if isinstance(record, dict) and "value" in record:
        yield path, record
    elif isinstance(record, dict | list):
        for key, part in record.items() if isinstance(record, dict) else enumerate(record):
            yield from entries(part, f"{path}/{key}")


def test_every_value_has_its_interval() -> None:
    """Each value of a table with both classes lies in an interval of its own; the record is strict JSON."""
    record = split_record(table(groups=15), 0.4, replicates=100)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    found = dict(entries(record))
    assert len(found) > 13 + 8 + 12 + 6 + 78 + 15 * 5 - 20
    for path, entry in found.items():
        assert set(entry) == {"value", "ci95"}, path
        if entry["ci95"] is not None:
            assert entry["ci95"][0] <= entry["value"] <= entry["ci95"][1], path
    undefined = [path for path, entry in found.items() if entry["ci95"] is None]
    assert all(path.startswith("/groups/") for path in undefined)


def test_plain_metrics_are_those_of_evaluate_table() -> None:
    """What was there before is unchanged, the intervals among it."""
    data = table(groups=12)
    record, plain = split_record(data, 0.4, replicates=50), evaluate_table(data, 0.4, replicates=50)
    assert {name: record[name] for name in plain} == plain


def test_metrics_at_half_are_those_of_a_threshold_of_half() -> None:
    """Values, intervals and confusion matrix at .5 are those that `evaluate_table` finds at .5."""
    for data in (table(), table(groups=12)):
        half, plain = split_record(data, 0.8, replicates=60)["at_half"], evaluate_table(data, 0.5, replicates=60)
        assert half["threshold"] == 0.5
        assert {name: plain[name] for name in half} == half


def test_report_by_class_has_the_intervals_of_the_same_shares() -> None:
    """Recall of the positive class is sensitivity, precision of the negative one the npv: with the same intervals."""
    for data in (table(), table(groups=12)):
        record = split_record(data, 0.6, replicates=60)
        report = record["classification_report"]
        assert report["positive"]["recall"] == record["sensitivity"]
        assert report["negative"]["recall"] == record["specificity"]
        assert report["positive"]["precision"] == record["precision"]
        assert report["negative"]["precision"] == record["npv"]
        assert report["positive"]["f1"] == record["f1"]
        assert report["macro"]["recall"] == record["balanced_accuracy"]
        assert report["weighted"]["recall"]["value"] == pytest.approx(record["accuracy"]["value"])
        assert [report[row]["support"] for row in report] == [100, 100, 200, 200]


def test_proportions_without_groups_have_wilsons_interval() -> None:
    """Precision of the negative class, without groups, has scipy's Wilson interval."""
    record = split_record(table(), 0.5, replicates=30)
    cells = record["confusion_matrix"]
    theirs = binomtest(cells["tn"], cells["tn"] + cells["fn"]).proportion_ci(method="wilson")
    assert record["classification_report"]["negative"]["precision"]["ci95"] == pytest.approx([theirs.low, theirs.high])


def test_operating_point_is_read_anew_in_each_replicate() -> None:
    """Its interval is that of the best point of every bootstrap sample, and wider than at a fixed threshold."""
    data = table(400, seed=3)
    record = split_record(data, 0.5, replicates=300)
    free = record["operating_points"]["sensitivity_at_specificity"]["0.90"]
    negative = np.sort(data.loc[data["label"] == 0, "probability"])
    threshold = float(np.nextafter(negative[int(0.9 * len(negative)) - 1], 1))
    kept = evaluate_table(data.assign(group=np.arange(400)), threshold, replicates=300)["sensitivity"]
    assert free["value"] == kept["value"]
    assert np.diff(free["ci95"]) > 1.2 * np.diff(kept["ci95"])


#: label, probability, threshold; and what pencil and paper give.
BY_HAND: dict[str, tuple[tuple[list[int], list[float], float], dict[str, float | None]]] = {
    "eight images": (
        ([0, 0, 0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.3, 0.6, 0.7, 0.4, 0.8, 0.9], 0.5),
        {
            "classification_report/negative/precision": 3 / 4,
            "classification_report/negative/recall": 3 / 5,
            "classification_report/negative/f1": 2 / 3,
            "classification_report/positive/precision": 2 / 4,
            "classification_report/positive/recall": 2 / 3,
            "classification_report/positive/f1": 4 / 7,
            "classification_report/macro/precision": 5 / 8,
            "classification_report/macro/f1": 13 / 21,
            "classification_report/weighted/precision": (5 * 0.75 + 3 * 0.5) / 8,
            "classification_report/weighted/f1": (5 * 2 / 3 + 3 * 4 / 7) / 8,
            "operating_points/sensitivity_at_specificity/0.90": 2 / 3,
            "operating_points/specificity_at_sensitivity/0.90": 3 / 5,
            "decision_curve/19/model": 2 / 8 - 2 / 8,
            "decision_curve/19/all": 3 / 8 - 5 / 8,
            "decision_curve/7/model": 3 / 8 - 4 / 8 / 4,  # from .2 on, the image at .2 included: all but one
            "decision_curve/7/all": 3 / 8 - 5 / 8 / 4,
        },
    ),
    "nothing called positive": (
        ([0, 0, 0, 1], [0.1, 0.2, 0.3, 0.4], 0.5),
        {
            "classification_report/positive/precision": None,
            "classification_report/positive/recall": 0,
            "classification_report/positive/f1": 0,
            "classification_report/negative/f1": 6 / 7,
            "classification_report/macro/precision": None,
            "classification_report/macro/f1": 3 / 7,
            "classification_report/weighted/precision": None,
            "classification_report/weighted/f1": 3 / 4 * 6 / 7,
            "operating_points/sensitivity_at_specificity/0.99": 1,
            "at_half/precision": None,
        },
    ),
    "positives only": (
        ([1, 1, 1, 1], [0.1, 0.6, 0.7, 0.8], 0.5),
        {
            "classification_report/negative/precision": 0,
            "classification_report/negative/recall": None,
            "classification_report/negative/f1": 0,
            "classification_report/macro/recall": None,
            "classification_report/macro/f1": 3 / 7,
            "classification_report/weighted/recall": 3 / 4,
            "classification_report/weighted/f1": 6 / 7,
            "operating_points/sensitivity_at_specificity/0.90": None,
            "operating_points/specificity_at_sensitivity/0.95": None,
            "decision_curve/19/model": 3 / 4,
            "decision_curve/19/all": 1,
        },
    ),
    "all at the threshold": (
        ([0, 1], [0.5, 0.5], 0.5),
        {
            "classification_report/negative/precision": None,
            "classification_report/positive/precision": 1 / 2,
            "at_half/sensitivity": 1,
            "at_half/npv": None,
            "operating_points/sensitivity_at_specificity/0.90": 0,
            "operating_points/specificity_at_sensitivity/0.90": 0,
            "decision_curve/19/model": 0,
            "decision_curve/20/model": 0,
        },
    ),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_worked_by_hand(case: str) -> None:
    """Values are those of pencil and paper, and None where not defined, never 0 or 1."""
    (label, probability, threshold), expected = BY_HAND[case]
    record = split_record(pd.DataFrame({"label": label, "probability": probability}), threshold, replicates=20)
    found = {path[1:]: entry["value"] for path, entry in entries(record)}
    for path, value in expected.items():
        assert found[path] == (value if value is None else pytest.approx(value, abs=1e-12)), path


def test_groups_are_measured_one_by_one() -> None:
    """Each group's figures are those of its own images, counted with pandas; shares have scipy's Wilson interval."""
    data = table(150, groups=7, seed=2)
    rows = each_group(data, 0.45)
    assert [row["group"] for row in rows] == sorted(data["group"].unique())
    for row in rows:
        own = data[data["group"] == row["group"]]
        called = own["probability"] >= 0.45
        assert (row["n"], row["positives"]) == (len(own), int(own["label"].sum()))
        assert row["prevalence"] == pytest.approx(own["label"].mean())
        assert row["positive_share"]["value"] == pytest.approx(called.mean())
        assert row["accuracy"]["value"] == pytest.approx((called == (own["label"] == 1)).mean())
        assert row["sensitivity"]["value"] == pytest.approx(called[own["label"] == 1].mean())
        assert row["specificity"]["value"] == pytest.approx((~called[own["label"] == 0]).mean())
        positive, negative = (own.loc[own["label"] == side, "probability"].to_numpy() for side in (1, 0))
        assert row["auroc"]["value"] == pytest.approx((positive[:, None] > negative).mean())
        theirs = binomtest(int(called.sum()), len(own)).proportion_ci(method="wilson")
        assert row["positive_share"]["ci95"] == pytest.approx([theirs.low, theirs.high])


def test_what_a_group_does_not_define_is_none() -> None:
    """A slide without tumour has neither sensitivity nor AUROC; without groups there are no rows."""
    data = pd.DataFrame({"label": [0, 0, 1], "probability": [0.2, 0.9, 0.7], "group": ["a", "a", "b"]})
    first, second = each_group(data, 0.5)
    undefined = {"value": None, "ci95": None}
    assert (first["sensitivity"], first["auroc"], second["specificity"]) == (undefined, undefined, undefined)
    assert first["specificity"]["value"] == 0.5
    assert each_group(data.assign(group=["a", None, "b"]), 0.5) == []
    assert each_group(data.drop(columns="group"), 0.5) == []


def test_subgroups_are_measured_apart() -> None:
    """Each level has the record of its own rows; rows without a value are a level; groups are still drawn whole."""
    data = table(120, groups=9).assign(scanner=["A", "B", None] * 40, site=[1, 2] * 60)
    found = each_subgroup(data, 0.5, ["scanner", "site"], replicates=40)
    assert list(found) == ["scanner", "site"]
    assert list(found["scanner"]) == ["A", "B", "not known"]
    assert found["scanner"]["A"] == evaluate_table(data[data["scanner"] == "A"], 0.5, replicates=40)
    assert found["scanner"]["not known"]["n"] == 40
    assert found["site"]["1"]["auroc"]["value"] is None  # labels alternate as sites do
    assert "groups" in found["scanner"]["B"]["intervals"]


@pytest.mark.parametrize(
    ("column", "told"), [("hospital", "no column 'hospital'"), ("age", "51 different values; expected at most 50")]
)
def test_columns_that_make_no_subgroups_are_refused(column: str, told: str) -> None:
    """An unknown column, and one with a value for nearly every image, are refused in a line."""
    data = table(51).assign(age=np.arange(51))
    with pytest.raises(PredictionsError, match=told) as refusal:
        split_record(data, 0.5, subgroups=[column], replicates=5)
    assert "\n" not in str(refusal.value)
