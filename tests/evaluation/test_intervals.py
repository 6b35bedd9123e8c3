import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, norm
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from tests.evaluation.plain import classification, evaluate_table
from tumortrace.errors import PredictionsError
from tumortrace.evaluation.intervals import wilson
from tumortrace.evaluation.measures import MEASURES, measure
from tumortrace.evaluation.replicates import Replicates
from tumortrace.evaluation.table import check_table


def _table(n=200, seed=0, groups=None, shift=1.5):
    random = np.random.default_rng(seed)
    label = np.arange(n) % 2
    probability = norm.cdf(random.normal(shift * (label - 0.5)))
    table = pd.DataFrame({"label": label, "probability": probability})
    return table if groups is None else table.assign(group=[f"slide {i}" for i in random.integers(0, groups, n)])


def one_by_one(replicates):
    return (sample for block in replicates.tallies() for sample in block)


def test_wilson_agrees_with_scipy():
    """Wilson's interval is scipy's, ends included."""
    for k, n in [(0, 1), (1, 1), (0, 30), (30, 30), (3, 7), (500, 1000)]:
        for confidence in (0.8, 0.95, 0.99):
            theirs = binomtest(k, n).proportion_ci(confidence, method="wilson")
            assert wilson(k, n, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_values_are_those_without_intervals():
    """The values are those of `classification`, and the result is strict JSON with every metric."""
    table = _table()
    result = json.loads(json.dumps(evaluate_table(table, 0.4, replicates=50), allow_nan=False))
    plain = classification(table["label"], table["probability"], 0.4)
    for metric in MEASURES:
        assert result[metric]["value"] == plain[metric]
        low, high = result[metric]["ci95"]
        assert low <= plain[metric] <= high
    assert {key: result[key] for key in ("confusion_matrix", "threshold", "n", "prevalence")} == {
        key: plain[key] for key in ("confusion_matrix", "threshold", "n", "prevalence")
    }
    assert result["n_groups"] is None


def test_replicates_are_samples_of_the_rows():
    """Metrics of a replicate are scikit-learn's on the rows drawn, one by one; as many are drawn as there are."""
    table = _table(61).round(1)
    for sample in one_by_one(Replicates(table, 20, seed=3)):
        drawn = [np.repeat(sample.probability, times.astype(int)) for times in (sample.negative, sample.positive)]
        assert sum(len(rows) for rows in drawn) == len(table)
        label, probability = np.repeat([0, 1], [len(rows) for rows in drawn]), np.concatenate(drawn)
        values = measure(sample, 0.5)
        assert values["auroc"] == pytest.approx(roc_auc_score(label, probability), abs=1e-12)
        assert values["average_precision"] == pytest.approx(average_precision_score(label, probability), abs=1e-12)
        assert values["brier"] == pytest.approx(brier_score_loss(label, probability), abs=1e-12)
        assert values["ece"] == pytest.approx(classification(label, probability)["ece"], abs=1e-12)


def test_groups_are_drawn_whole():
    """In a replicate every row of a group appears as often as the group, and as many groups as there are."""
    table = _table(60, groups=7)
    predictions = check_table(table)
    for sample in one_by_one(Replicates(predictions, 20, seed=1)):
        times = dict(zip(sample.probability, sample.total))
        per_group = table.assign(times=table["probability"].map(times)).groupby("group")["times"]
        assert (per_group.min() == per_group.max()).all()
        assert per_group.first().sum() == predictions.n_groups == 7


def test_seed_decides_and_row_order_does_not():
    """The same seed gives the same intervals for rows in any order; another seed gives others."""
    for table in (_table(80), _table(80, groups=12)):
        first = evaluate_table(table, 0.5, replicates=60)
        shuffled = table.sample(frac=1, random_state=1)
        assert evaluate_table(shuffled, 0.5, replicates=60) == first
        assert evaluate_table(table, 0.5, replicates=60, seed=1)["auroc"] != first["auroc"]


def test_proportions_have_wilson_intervals_without_groups_and_bootstrap_ones_with():
    """Sensitivity of a table without groups has Wilson's interval, with groups the bootstrap's; the text says which."""
    table = _table(100, groups=20)
    matrix = evaluate_table(table, 0.5, replicates=100)["confusion_matrix"]
    low, high = wilson(matrix["tp"], matrix["tp"] + matrix["fn"])
    plain = evaluate_table(table.drop(columns="group"), 0.5, replicates=100)
    grouped = evaluate_table(table, 0.5, replicates=100)
    assert plain["sensitivity"]["ci95"] == [low, high]
    assert grouped["sensitivity"]["ci95"] != [low, high]
    assert "Wilson" in plain["intervals"]
    assert "No image has a group" in plain["intervals"]
    assert "whole groups (20 groups" in grouped["intervals"]
    assert "rough" not in grouped["intervals"]


def test_text_says_what_the_intervals_leave_out():
    """Few groups, one group, missing groups and intervals of no width are said aloud."""
    few = evaluate_table(_table(60, groups=4), 0.5, replicates=40)
    assert (few["n_groups"], "rough" in few["intervals"]) == (4, True)
    one = evaluate_table(_table(60, groups=1), 0.5, replicates=40)
    assert (one["n_groups"], "one group" in one["intervals"]) == (1, True)
    table = _table(60, groups=4)
    table.loc[3, "group"] = None
    partly = evaluate_table(table, 0.5, replicates=40)
    assert (partly["n_groups"], "Not every image has a group" in partly["intervals"]) == (None, True)
    certain = evaluate_table(_table(20, shift=20), 0.5, replicates=40)
    assert "No replicate differs in auroc" in certain["intervals"]


def test_a_perfect_score_is_no_certainty():
    """An AUROC, F1 or correlation of 1 has SciPy's Wilson interval of the rarer class's images, or of the groups
    that hold it; that of the reverse calls is its mirror; a score that cannot vary keeps width 0, and that is said."""
    rows = pd.DataFrame({"label": [0] * 30 + [1] * 12, "probability": [0.1] * 30 + [0.9] * 12})
    low = binomtest(12, 12).proportion_ci(method="wilson").low
    found = evaluate_table(rows, 0.5, replicates=40)
    for name in ("auroc", "average_precision", "balanced_accuracy", "f1"):
        assert found[name]["ci95"] == pytest.approx([low, 1]), name
    assert found["mcc"]["ci95"] == pytest.approx([2 * low - 1, 1])
    assert "mcc: Wilson score of as many trials as there are images of the rarer class" in found["intervals"]
    wrong = evaluate_table(rows.assign(label=1 - rows["label"]), 0.5, replicates=40)
    assert wrong["auroc"]["ci95"] == pytest.approx([0, 1 - low])
    assert wrong["mcc"]["ci95"] == pytest.approx([-1, 1 - 2 * low])
    many = rows.assign(group=[f"{row % 6}" for row in range(42)])
    six = binomtest(6, 6).proportion_ci(method="wilson").low
    assert evaluate_table(many, 0.5, replicates=40)["auroc"]["ci95"] == pytest.approx([six, 1])
    constant = evaluate_table(rows.assign(probability=0.3), 0.5, replicates=40)
    assert constant["auroc"]["ci95"] == [0.5, 0.5]
    assert re.search("auroc, balanced_accuracy.*: width 0 there is no certainty", constant["intervals"])


def test_undefined_metric_has_neither_value_nor_interval():
    """With one class, AUROC is null and accuracy is not."""
    result = evaluate_table(pd.DataFrame({"label": [1, 1], "probability": [0.2, 0.8]}), 0.5, replicates=20)
    assert result["auroc"] == {"value": None, "ci95": None}
    assert result["accuracy"]["ci95"] is not None


def test_interval_is_null_where_many_replicates_are_undefined():
    """Two groups of one class each: half of the replicates have no AUROC, so it has a value and no interval."""
    table = _table(40).assign(group=lambda rows: rows["label"].map({0: "a", 1: "b"}))
    result = evaluate_table(table, 0.5, replicates=100)
    assert result["auroc"]["value"] is not None
    assert result["auroc"]["ci95"] is None
    assert result["accuracy"]["ci95"] is not None


def test_width_is_that_of_theory():
    """The interval of the Brier score is 2 x 1.96 standard errors wide."""
    table = _table(1000)
    low, high = evaluate_table(table, 0.5, replicates=2000)["brier"]["ci95"]
    error = (table["probability"] - table["label"]) ** 2
    assert high - low == pytest.approx(2 * 1.96 * error.std() / np.sqrt(len(table)), rel=0.06)


def test_intervals_cover_the_truth():
    """About 95 of 100 intervals of AUROC contain the known truth, at a confidence of 50 % about half."""
    truth = norm.cdf(1.5 / np.sqrt(2))
    for confidence, name, least, most in ((0.95, "ci95", 0.88, 1.0), (0.5, "ci50", 0.32, 0.68)):
        hits = 0
        for seed in range(60):
            table = _table(120, seed=seed)
            low, high = evaluate_table(table, 0.5, replicates=60, confidence=confidence)["auroc"][name]
            hits += low <= truth <= high
        assert least <= hits / 60 <= most


def test_intervals_by_group_cover_the_truth_where_those_by_image_do_not():
    """Where half of the slides are read wrongly as a whole, only intervals by group contain the true accuracy."""
    hits = {"group": 0, "image": 0}
    for seed in range(40):
        random = np.random.default_rng(seed)
        skill = np.repeat(random.choice([0.5, 0.9], 30), 20)
        label = random.integers(0, 2, 600)
        right = random.random(600) < skill
        table = pd.DataFrame({"label": label, "probability": np.where(right == (label == 1), 0.8, 0.2)})
        table["group"] = np.repeat(np.arange(30), 20).astype(str)
        for unit, rows in (("group", table), ("image", table.drop(columns="group"))):
            low, high = evaluate_table(rows, 0.5, replicates=60)["accuracy"]["ci95"]
            hits[unit] += low <= 0.7 <= high
    assert hits["group"] >= 34
    assert hits["image"] <= 30


def test_ece_interval_is_not_pushed_up_by_its_bias():
    """The interval of the calibration error contains its value and the truth of a miscalibrated model."""
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(40):
        share = random.uniform(0.1, 0.9, 400)
        table = pd.DataFrame({"label": random.random(400) < share, "probability": share + 0.08})
        result = evaluate_table(table, 0.5, replicates=60)["ece"]
        low, high = result["ci95"]
        assert 0 <= low <= result["value"] <= high
        hits += low <= 0.08 <= high
    assert hits >= 30  # plain percentiles: 9


@pytest.mark.parametrize("settings", [{"replicates": 0}, {"confidence": 1}, {"confidence": 95}, {"threshold": 1.5}])
def test_impossible_settings_are_refused(settings):
    """Settings that make no interval are refused in one line."""
    with pytest.raises(PredictionsError):
        evaluate_table(_table(10), **({"threshold": 0.5} | settings))
