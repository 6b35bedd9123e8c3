"""Shares with intervals against SciPy's Wilson interval, and their coverage where a share is near 1."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, binomtest

from tests.evaluation.plain import evaluate_table, share_with_interval


def wilson(successes: int, trials: int) -> list[float]:
    return list(binomtest(successes, trials).proportion_ci(method="wilson"))


@pytest.mark.parametrize("holds", [True, False])
def test_what_holds_of_every_image_is_no_certainty(holds: bool) -> None:
    """Of 12 groups of 5 images, all or none: Wilson's interval of 12, where drawing groups gives one of width 0."""
    found = share_with_interval([holds] * 60, np.repeat(np.arange(12), 5).astype(str))
    assert found["value"] == float(holds)
    assert found["ci95"] == pytest.approx(wilson(12 * holds, 12))


def test_no_images_have_no_share() -> None:
    """Undefined is None, not 0."""
    assert share_with_interval([]) == {"value": None, "ci95": None}


def test_the_interval_holds_a_share_near_one() -> None:
    """Of 15 groups each fails as a whole 3 times in 100: 200 such cohorts, in most of which all groups hold."""
    hits, cohorts = 0, 200
    for seed in range(cohorts):
        failing = np.random.default_rng(seed).random(15) < 0.03
        low, high = share_with_interval(np.repeat(~failing, 4), np.repeat(np.arange(15), 4), replicates=100)["ci95"]
        hits += low <= 0.97 <= high
    assert hits >= binom.ppf(0.0005, cohorts, 0.95)  # by drawing groups alone, 73 of 200


def test_a_metric_without_an_error_counts_the_groups_that_it_is_of() -> None:
    """Sensitivity 1 in 6 of 20 slides, specificity 1 in all: Wilson's intervals of 6 and 20; AUROC is said to be so."""
    rows = pd.DataFrame({"group": np.repeat(np.arange(20), 10).astype(str)})
    rows["label"] = ((np.arange(200) % 10 < 3) & (np.arange(200) < 60)).astype(int)
    rows["probability"] = np.where(rows["label"] == 1, 0.9, 0.1)
    found = evaluate_table(rows, 0.5, replicates=100)
    assert found["sensitivity"]["ci95"] == pytest.approx(wilson(6, 6))
    assert found["specificity"]["ci95"] == pytest.approx(wilson(20, 20))
    assert found["accuracy"]["ci95"] == pytest.approx(wilson(20, 20))
    assert "No replicate differs in auroc" in found["intervals"]
