"""Numbers over folds: the corrected t by hand, each fold by scikit-learn, and pooled predictions."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student
from sklearn.metrics import accuracy_score, brier_score_loss, confusion_matrix, f1_score, roc_auc_score

from tests.evaluation.plain import pooled, summarise_folds
from tumortrace.errors import PredictionsError
from tumortrace.evaluation.folds import corrected_t


def test_the_corrected_t_by_hand() -> None:
    """Mean .03, s .02, five folds: t = .03 / (.02 √(1/5 + 1/4)) = 2.2361, and t(4) at .975 is 2.7764."""
    values = [0.01, 0.05, 0.03, 0.05, 0.01]
    found = corrected_t(values, ratio=0.25)
    assert found.mean == pytest.approx(0.03)
    assert found.sd == pytest.approx(0.02)
    assert found.t == pytest.approx(2.2360679775)
    assert found.ci95 == pytest.approx((0.03 - 2.7764451 * 0.0134164079, 0.03 + 2.7764451 * 0.0134164079))
    assert found.p == pytest.approx(2 * (1 - student.cdf(2.2360679775, 4)))


def test_equal_folds_are_no_certainty() -> None:
    """No interval and no p-value from folds that are all equal, or from one; undefined folds are left out."""
    assert corrected_t([0.9, 0.9, 0.9], 0.5).ci95 is None
    assert corrected_t([0.0, 0.0], 0.5).p is None
    assert corrected_t([0.9], 0.5).sd is None
    assert corrected_t([0.8, math.nan, 0.9], 0.5).n == 2
    with pytest.raises(PredictionsError, match="0 folds"):
        corrected_t([math.nan], 0.5)


def test_the_corrected_interval_covers_where_the_plain_one_does_not() -> None:
    """Fold values correlated by their overlap (ρ = 1/k) are covered as often as promised; plainly they are not."""
    rng = np.random.default_rng(0)
    k, truth, hits, plain = 5, 0.8, 0, 0
    for _ in range(600):
        shared = rng.normal(0, math.sqrt(1 / k))
        values = truth + 0.05 * (shared + rng.normal(0, math.sqrt(1 - 1 / k), k))
        low, high = corrected_t(values.tolist(), 1 / (k - 1)).ci95
        hits += low <= truth <= high
        half = student.ppf(0.975, k - 1) * values.std(ddof=1) / math.sqrt(k)
        plain += abs(values.mean() - truth) <= half
    assert 0.925 <= hits / 600 <= 0.975
    assert plain / 600 < 0.87


def out_of_fold(repeats: int = 1, n: int = 90) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    label = np.tile([0, 1, 0], n // 3)
    rows = []
    for recipe, skill in (("plain", 1.0), ("better", 1.6)):
        for repeat in range(1, repeats + 1):
            probability = 1 / (1 + np.exp(-rng.normal(skill * (2 * label - 1), 1.5)))
            fold = np.random.default_rng(repeat).permutation(np.arange(n) % 3) + 1
            rows.append(
                pd.DataFrame(
                    {
                        "id": [f"i{i:02}" for i in range(n)],
                        "group": pd.array([None] * n, dtype="string"),
                        "recipe": recipe,
                        "repeat": repeat,
                        "fold": fold,
                        "label": label,
                        "probability": probability,
                        "prediction": (probability >= 0.3 + 0.1 * fold).astype(int),
                    }
                )
            )
    return pd.concat(rows, ignore_index=True)


def test_each_fold_and_the_summary_agree_with_scikit_learn() -> None:
    """Per fold and pooled, metrics are scikit-learn's on the fold's own calls; the mean is their mean."""
    table = out_of_fold()
    found = summarise_folds(table, replicates=30)
    for recipe, part in table.groupby("recipe"):
        outcome = found["recipes"][recipe]
        values = []
        for row in outcome["folds"]:
            fold = part[part["fold"] == row["fold"]]
            assert row["n"] == len(fold)
            assert row["auroc"] == pytest.approx(roc_auc_score(fold["label"], fold["probability"]))
            assert row["f1"] == pytest.approx(f1_score(fold["label"], fold["prediction"]))
            values.append(accuracy_score(fold["label"], fold["prediction"]))
            assert row["accuracy"] == pytest.approx(values[-1])
        assert outcome["summary"]["accuracy"]["mean"] == pytest.approx(np.mean(values))
        assert outcome["summary"]["accuracy"]["sd"] == pytest.approx(np.std(values, ddof=1))
        pooled = outcome["pooled"]
        assert pooled["brier"]["value"] == pytest.approx(brier_score_loss(part["label"], part["probability"]))
        tn, fp, fn, tp = confusion_matrix(part["label"], part["prediction"]).ravel()
        assert pooled["confusion_matrix"] == {"tn": tn, "fp": fp, "fn": fn, "tp": tp}
        assert pooled["specificity"]["value"] == pytest.approx(tn / (tn + fp))
        assert pooled["threshold"] is None
    assert found["ratio"] == pytest.approx(0.5)


def test_recipes_are_compared_on_the_same_folds() -> None:
    """The difference is the mean of the folds' differences, tested by the corrected t, with Holm over both tests."""
    table = out_of_fold(repeats=2)
    found = summarise_folds(table, replicates=10)
    (pair,) = found["comparisons"]
    recipes = found["recipes"]
    differences = [
        y["auroc"] - x["auroc"] for x, y in zip(recipes["plain"]["folds"], recipes["better"]["folds"], strict=True)
    ]
    assert (pair["first"], pair["second"]) == ("plain", "better")
    assert pair["differences"]["auroc"]["mean"] == pytest.approx(np.mean(differences))
    t = np.mean(differences) / (np.std(differences, ddof=1) * math.sqrt(1 / 6 + 0.5))
    assert pair["tests"]["auroc"]["t"] == pytest.approx(t)
    assert pair["tests"]["auroc"]["p"] == pytest.approx(2 * student.sf(abs(t), 5))
    small, large = sorted(test["p"] for test in pair["tests"].values())
    corrected = sorted(test["p_holm"] for test in pair["tests"].values())
    assert corrected == pytest.approx([min(1, 2 * small), max(min(1, 2 * small), large)])


def test_repeats_of_an_image_are_drawn_together() -> None:
    """Two equal repeats of ungrouped images give the interval of one repeat: they are no new images."""
    once = out_of_fold()
    twice = pd.concat([once, once.assign(repeat=2)], ignore_index=True)
    one, two = (pooled(table[table["recipe"] == "plain"], replicates=600) for table in (once, twice))
    assert two["auroc"]["value"] == pytest.approx(one["auroc"]["value"])
    width = [np.ptp(entry["auroc"]["ci95"]) for entry in (one, two)]
    assert width[1] == pytest.approx(width[0], rel=0.2)
    assert "images with all their repeats" in two["intervals"]
    assert two["n_groups"] is None


def test_a_fold_of_one_class_is_left_out_of_the_mean() -> None:
    """Where a fold does not define a metric, it is None there, and the summary says over how many folds it goes."""
    table = out_of_fold()
    table.loc[table["fold"] == 2, "label"] = 1
    outcome = summarise_folds(table, replicates=10)["recipes"]["plain"]
    assert outcome["folds"][1]["auroc"] is None
    assert outcome["summary"]["auroc"]["n"] == 2
