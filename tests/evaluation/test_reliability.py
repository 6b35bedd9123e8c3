"""Calibration errors against other implementations, and the Brier score taken apart by hand and against Murphy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import binom
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss, log_loss

from tests.evaluation.plain import before_and_after
from tumortrace.evaluation.measures import measure
from tumortrace.evaluation.reliability import CALIBRATION
from tumortrace.evaluation.table import check_arrays
from tumortrace.evaluation.tally import tally


def sample(seed, n=900, temperature=2.0):
    random = np.random.default_rng(seed)
    logit = random.normal(0, 3, n)
    return logit, (random.random(n) < expit(logit / temperature)).astype(int)


def equal_mass(probability, outcome, bins=15):
    """Nixon et al.: images in order, cut into bins of equal size."""
    order = np.argsort(probability, kind="stable")
    parts = np.array_split(order, bins)
    return sum(len(p) * abs(probability[p].mean() - outcome[p].mean()) for p in parts) / len(probability)


def equal_width(probability, outcome, bins=15):
    """Guo et al.: what the images of a bin of probability predict in excess of what they are."""
    return np.abs(np.histogram(probability, bins, (0, 1), weights=probability - outcome)[0]).sum() / len(probability)


@pytest.mark.parametrize("seed", range(10))
def test_measures_are_those_of_other_implementations(seed):
    """Brier and log loss by scikit-learn, equal widths by numpy, equal masses by cutting the sorted images."""
    logit, label = sample(seed)
    probability = expit(logit)
    found = measure(tally(check_arrays(label, probability)), 0.5, CALIBRATION)
    assert found["brier"] == pytest.approx(brier_score_loss(label, probability), abs=1e-12)
    assert found["nll"] == pytest.approx(log_loss(label, probability), abs=1e-12)
    assert found["ece"] == pytest.approx(equal_mass(probability, label), abs=1e-9)
    likelier = np.maximum(probability, 1 - probability)
    assert found["adaptive_ece"] == pytest.approx(equal_mass(likelier, (probability >= 0.5) == label), abs=1e-9)
    widths = [equal_width(p, y) for p, y in ((probability, label), (1 - probability, 1 - label))]
    assert found["classwise_ece"] == pytest.approx(np.mean(widths), abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_the_brier_score_is_the_sum_of_its_parts(seed):
    """Reliability - resolution + uncertainty, exactly, and the parts are those of scikit-learn's isotonic shares."""
    random = np.random.default_rng(seed)
    logit, label = sample(seed, n=int(random.integers(5, 400)))
    label[:2] = 0, 1
    probability = expit(logit).round(int(random.integers(1, 6)))
    found = measure(tally(check_arrays(label, probability)), 0.5, CALIBRATION)
    parts = found["brier_reliability"] - found["brier_resolution"] + found["brier_uncertainty"]
    assert found["brier"] == pytest.approx(parts, abs=1e-12)
    shares = IsotonicRegression().fit(probability, label).predict(probability)
    again = ((shares - label) ** 2).mean()
    assert found["brier_reliability"] == pytest.approx(((probability - label) ** 2).mean() - again, abs=1e-9)
    assert found["brier_resolution"] == pytest.approx(label.mean() * (1 - label.mean()) - again, abs=1e-9)


def test_where_shares_rise_the_parts_are_murphys():
    """Ten images, three distinct forecasts, worked by hand from Murphy's sums over them."""
    probability = np.array([0.2] * 4 + [0.5] * 2 + [0.7] * 4)
    label = np.array([0, 0, 0, 1, 0, 1, 1, 1, 1, 1])
    found = measure(tally(check_arrays(label, probability)), 0.5, CALIBRATION)
    # shares .25, .5 and 1 of 4, 2 and 4 images; prevalence .6
    assert found["brier_reliability"] == pytest.approx((4 * 0.05**2 + 0 + 4 * 0.3**2) / 10)
    assert found["brier_resolution"] == pytest.approx((4 * 0.35**2 + 2 * 0.1**2 + 4 * 0.4**2) / 10)
    assert found["brier_uncertainty"] == pytest.approx(0.24)


def test_an_overconfident_model_is_better_after_than_before():
    """At twice the right logit, every error is larger before; the intervals hold their values."""
    logit, label = sample(0, n=2500)
    found = before_and_after(
        pd.DataFrame({"label": label, "logit": logit, "probability": expit(logit / 2)}), replicates=100
    )
    for name in ("ece", "adaptive_ece", "classwise_ece", "brier", "brier_reliability", "nll"):
        assert found["before"][name]["value"] > found["after"][name]["value"], name
    assert found["before"]["brier_resolution"]["value"] == pytest.approx(found["after"]["brier_resolution"]["value"])
    for side in found.values():
        for entry in side.values():
            assert entry["ci95"][0] <= entry["value"] <= entry["ci95"][1]


def test_errors_of_a_perfect_model_may_be_nothing():
    """Where probabilities are true, intervals of all three calibration errors begin at 0, in most of 30 cohorts."""
    hits = dict.fromkeys(("ece", "adaptive_ece", "classwise_ece"), 0)
    for seed in range(30):
        random = np.random.default_rng(seed)
        chance = random.uniform(0.1, 0.8, 400)
        table = pd.DataFrame({"label": (random.random(400) < chance).astype(int), "probability": chance})
        found = before_and_after(table, replicates=100, seed=seed)["after"]
        for name in hits:
            hits[name] += found[name]["ci95"][0] == 0
    assert min(hits.values()) >= binom.ppf(0.0005, 30, 0.95), hits  # by the basic bootstrap 7 to 15


def test_without_logits_there_is_no_before():
    """Predictions of another model have probabilities alone; one lacking logit is as none."""
    table = pd.DataFrame({"label": [0, 1, 1], "probability": [0.1, 0.6, 0.7]})
    assert before_and_after(table, replicates=5)["before"] is None
    assert before_and_after(table.assign(logit=[1.0, None, 2.0]), replicates=5)["before"] is None
