"""Over 200 simulated cohorts, bootstrap intervals contain what is known to be true."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from tests.evaluation.plain import evaluate_table
from tumortrace.evaluation.inverted_tests import brier_reliability_interval, gap_interval
from tumortrace.evaluation.measures import gaps
from tumortrace.evaluation.replicates import Replicates

COHORTS, REPLICATES = 200, 120
SHIFT = 0.08  # every probability is too high by this much, so that the calibration error is known
SPREAD = 0.35
METRICS = ("auroc", "sensitivity", "specificity", "f1", "brier", "ece")
# Percentile intervals of so few replicates of a few hundred images are a little narrow: .93 where .95 is wanted.
LEAST = int(binom.ppf(0.0005, COHORTS, 0.93))


def cohort(random: np.random.Generator, groups: int | None) -> pd.DataFrame:
    """Images whose true chance to be positive is uniform on [.1, .8], or, by group, its sum of two such parts."""
    if groups is None:
        chance = random.uniform(0.1, 0.8, 400)
        return pd.DataFrame({"label": (random.random(400) < chance).astype(int), "probability": chance + SHIFT})
    each = 12
    centre = np.repeat(random.uniform(0.1, 0.8 - SPREAD, groups), each)
    chance = centre + random.uniform(0, SPREAD, groups * each)
    label = (random.random(groups * each) < chance).astype(int)
    group = np.repeat(np.arange(groups), each).astype(str)
    return pd.DataFrame({"label": label, "probability": chance + SHIFT, "group": group})


def truth(grouped: bool) -> dict[str, float]:
    """The metrics of the population, by integration over the chance to be positive."""
    edges = np.linspace(0.1, 0.8, 20001)
    chance = (edges[1:] + edges[:-1]) / 2
    if grouped:  # the sum of uniform [.1, .45] and [0, .35] is triangular
        density = SPREAD - np.abs(chance - 0.1 - SPREAD)
        assert np.isclose(0.8 - SPREAD, 0.1 + SPREAD)
    else:
        density = np.ones_like(chance)
    density = density / density.sum()
    positive, negative = density * chance, density * (1 - chance)
    called = chance + SHIFT >= 0.5
    tp, fp, fn = positive[called].sum(), negative[called].sum(), positive[~called].sum()
    below = np.cumsum(negative) - negative / 2
    return {
        "auroc": float(positive @ below / positive.sum() / negative.sum()),
        "sensitivity": float(tp / (tp + fn)),
        "specificity": float(1 - fp / negative.sum()),
        "f1": float(2 * tp / (2 * tp + fp + fn)),
        "brier": float(positive @ (1 - chance - SHIFT) ** 2 + negative @ (chance + SHIFT) ** 2),
        "ece": SHIFT,
    }


@pytest.mark.parametrize("groups", [None, 40])
def test_intervals_contain_the_truth(groups: int | None) -> None:
    """Each metric's interval contains its true value in about 95 % of cohorts; half as wide, it would not."""
    true = truth(groups is not None)
    hits = dict.fromkeys(METRICS, 0)
    halved = dict.fromkeys(METRICS, 0)
    for seed in range(COHORTS):
        table = cohort(np.random.default_rng(seed), groups)
        found = evaluate_table(table, 0.5, replicates=REPLICATES, seed=seed)
        for metric in METRICS:
            low, high = found[metric]["ci95"]
            hits[metric] += low <= true[metric] <= high
            middle, half = (low + high) / 2, (high - low) / 4
            halved[metric] += middle - half <= true[metric] <= middle + half
    assert min(hits.values()) >= LEAST, hits
    assert max(halved.values()) < 0.85 * COHORTS, halved


@pytest.mark.parametrize("groups", [None, 40])
def test_calibration_error_of_a_perfect_model_may_be_nothing(groups: int | None) -> None:
    """Of a model whose probabilities are true, the interval of the calibration error begins at 0 nine times in ten."""
    hits = 0
    for seed in range(100):
        table = cohort(np.random.default_rng(seed), groups)
        table["probability"] -= SHIFT
        hits += gap_interval(Replicates(table, REPLICATES, seed), gaps)[0] == 0
    assert hits >= binom.ppf(0.0005, 100, 0.95)  # plain percentiles: never; mirrored ones: a third


@pytest.mark.parametrize("groups", [None, 40])
def test_reliability_of_the_brier_score_contains_the_truth(groups: int | None) -> None:
    """It begins at 0 where the probabilities are true, and contains the square of a shift where they are too high."""
    perfect = shifted = 0
    for seed in range(60):
        table = cohort(np.random.default_rng(seed), groups)
        low, high = brier_reliability_interval(Replicates(table, 60, seed))
        shifted += low <= SHIFT**2 <= high
        table["probability"] -= SHIFT
        perfect += brier_reliability_interval(Replicates(table, 60, seed))[0] == 0
    assert perfect >= binom.ppf(0.0005, 60, 0.95), perfect  # the basic bootstrap's: 38 and, by group, 49
    assert shifted >= binom.ppf(0.0005, 60, 0.93), shifted
