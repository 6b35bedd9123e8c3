"""What referral brings, against plain loops over images."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import binomtest

from tests.evaluation.plain import abstention
from tumortrace.evaluation.abstention import KEPT
from tumortrace.evaluation.conformal import Conformal, fit_conformal


def cohort(seed, n=500):
    random = np.random.default_rng(seed)
    label = (random.random(n) < 0.4).astype(int)
    return pd.DataFrame({"label": label, "probability": expit(2 * random.normal(2 * label - 1))})


def of(table, coverage):
    return fit_conformal(table["label"], table["probability"], coverage)


@pytest.mark.parametrize("seed", range(3))
def test_shares_are_those_of_a_loop_over_the_images(seed):
    """Coverage, set sizes, referrals and errors, image by image, with Wilson's interval as scipy has it."""
    fitted, table = of(cohort(seed), 0.85), cohort(seed + 50)
    low, high = fitted.quantiles
    found = abstention(table, 0.4, fitted, replicates=20)["decisions"]
    assert found["coverage"] == 0.85
    counted = {name: [] for name in found if name not in ("coverage", "unit")}
    for label, p in zip(table["label"], table["probability"], strict=True):
        members = (p <= low, 1 - p <= high)
        called = 1 if p >= 0.4 else 0
        decided = sum(members) == 1 and members[called]
        counted["coverage_positive" if label else "coverage_negative"].append(members[label])
        for size, name in enumerate(("empty", "single", "double")):
            counted[name].append(sum(members) == size)
        counted["referred"].append(not decided)
        if decided:
            counted["right"].append(called == label)
        counted["positive_called_negative" if label else "negative_called_positive"].append(decided and called != label)
    for name, answers in counted.items():
        interval = binomtest(int(sum(answers)), len(answers)).proportion_ci(method="wilson")
        assert found[name]["value"] == pytest.approx(np.mean(answers)), name
        assert found[name]["ci95"] == pytest.approx([interval.low, interval.high], abs=1e-9), name


def test_risk_and_coverage_are_those_of_leaving_out_the_least_certain():
    """Without ties: errors among the k farthest from the threshold in logits, for every k; the area is their mean."""
    table = cohort(3, n=250)
    threshold = 0.3
    distance = np.log(table["probability"] / (1 - table["probability"])) - np.log(threshold / (1 - threshold))
    order = np.argsort(-np.abs(distance.to_numpy()))
    wrong = ((table["probability"] >= threshold) != table["label"]).to_numpy()[order]
    risk = np.cumsum(wrong) / np.arange(1, 251)
    found = abstention(table, threshold, None, replicates=20)
    assert found["decisions"] is None
    assert found["aurc"]["value"] == pytest.approx(risk.mean())
    for kept, entry in zip(KEPT, found["risk_coverage"]["risk"], strict=True):
        assert entry["value"] == pytest.approx(risk[round(kept * 250) - 1])


def test_images_of_one_certainty_are_left_out_in_random_order():
    """With all images alike the risk is the error at every coverage, whatever the order of the rows."""
    table = pd.DataFrame({"label": [0] * 3 + [1] * 7, "probability": 0.8})
    for rows in (table, table.iloc[::-1]):
        found = abstention(rows, 0.5, None, replicates=5)
        assert found["aurc"]["value"] == pytest.approx(0.3)
        assert all(entry["value"] == pytest.approx(0.3) for entry in found["risk_coverage"]["risk"])


def test_triage_keeps_its_sensitivity_and_spares_work():
    """Over 100 simulated cohorts the mean sensitivity is at least the .95 asked for, and specificity likewise."""
    reached = []
    for seed in range(100):
        fitted = of(cohort(seed, 300), 0.95)
        found = abstention(cohort(seed + 1000, 600), 0.5, None, fitted, replicates=2)["triage"]
        reached.append([found[name]["value"] for name in ("sensitivity", "specificity", "decided")])
    mean, error = np.mean(reached, axis=0), np.std(reached, axis=0) / 10
    assert (mean[:2] > 0.95 - 3 * error[:2]).all()
    assert 0.5 < mean[2] < 1


def test_groups_widen_the_intervals():
    """Where slides are known whole slides are drawn, so that twenty slides of like images say less than 500 images."""
    random = np.random.default_rng(0)
    slide = np.repeat(np.arange(20), 25)
    shift = random.normal(0, 2, 20)[slide]
    label = (random.random(500) < 0.4).astype(int)
    table = pd.DataFrame({"label": label, "probability": expit(2 * random.normal(2 * label - 1) + shift)})
    fitted = Conformal(coverage=0.9, quantiles=(0.6, 0.6))
    widths = []
    for known in (table, table.assign(group=slide.astype(str))):
        found = abstention(known, 0.5, fitted, replicates=200)
        low, high = found["decisions"]["coverage_positive"]["ci95"]
        widths.append(high - low)
    assert widths[1] > 1.3 * widths[0]


def test_what_is_not_defined_says_so():
    """Without positives their coverage is None; where everything is referred, none is right; JSON can hold it."""
    table = pd.DataFrame({"label": [0, 0], "probability": [0.0, 1.0]})
    found = abstention(table, 0.5, Conformal(coverage=0.9, quantiles=(None, None)), replicates=5)
    assert found["decisions"]["coverage_positive"] == {"value": None, "ci95": None}
    assert found["decisions"]["right"]["value"] is None
    assert found["decisions"]["referred"]["value"] == 1
    json.dumps(found, allow_nan=False)
