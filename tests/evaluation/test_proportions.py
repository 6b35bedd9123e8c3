"""Intervals of shares, and thresholds that hold a share with a confidence."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from tumortrace.errors import PredictionsError, RecipeError
from tumortrace.evaluation.intervals import wilson
from tumortrace.evaluation.thresholds import fit_threshold, parse_policy, require_enough


@pytest.mark.parametrize("seed", range(5))
def test_a_confidence_is_the_bound_of_clopper_and_pearson(seed: int) -> None:
    """By SciPy's exact bound the threshold shows a sensitivity of .9; sparing one more negative, it would not."""
    label, probability = _binormal(np.random.default_rng(seed), 300)
    threshold = fit_threshold(label, probability, "sensitivity>=0.9@0.95")
    higher = probability[(label == 0) & (probability >= threshold)].min()
    found = [int((probability[label == 1] > each).sum()) for each in (higher, threshold)]
    bounds = [binomtest(k, label.sum(), alternative="greater").proportion_ci(0.95).low for k in found]
    assert bounds[0] < 0.9 <= bounds[1]


def test_wilson_solves_its_equation() -> None:
    """Both ends p of the interval satisfy |k / n - p| = z sqrt(p (1 - p) / n), which defines them."""
    z = norm.ppf(0.975)
    for k, n in [(1, 3), (9, 10), (120, 400)]:
        for p in wilson(k, n):
            assert abs(k / n - p) == pytest.approx(z * np.sqrt(p * (1 - p) / n), abs=1e-12)


def _binormal(random: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    label = (random.random(n) < 0.5).astype(int)
    return label, norm.cdf(random.normal(1.5 * (label - 0.5)))


@pytest.mark.parametrize("side", ["sensitivity", "specificity"])
def test_wanted_share_is_held_with_its_confidence(side: str) -> None:
    """Over 400 calibration sets the true share is at least .9 in 95 % of them; without a confidence, in about half."""
    held = {"@0.95": 0, "": 0}
    for seed in range(400):
        label, probability = _binormal(np.random.default_rng(seed), 200)
        for confidence in held:
            threshold = fit_threshold(label, probability, f"{side}>=0.9{confidence}")
            score = norm.ppf(threshold)  # the score at which the call turns; the true share follows from its law
            truth = norm.sf(score - 0.75) if side == "sensitivity" else norm.cdf(score + 0.75)
            held[confidence] += bool(truth >= 0.9)
    assert held["@0.95"] >= 365  # 380 expected, standard deviation 4.4
    assert 130 <= held[""] <= 270


def test_chosen_threshold_is_the_best_that_scipy_allows() -> None:
    """Its bound reaches the wanted sensitivity; that of the next threshold which spares a further negative does not."""
    for seed in range(30):
        label, probability = _binormal(np.random.default_rng(seed), 150)
        threshold = fit_threshold(label, probability, "sensitivity>=0.85@0.9")
        positive = np.sort(probability[label == 1])

        def bound(limit: float, positive: np.ndarray = positive) -> float:
            called = int((positive >= limit).sum())
            return binomtest(called, len(positive), alternative="greater").proportion_ci(0.9).low

        assert bound(threshold) >= 0.85
        negative = np.sort(probability[(label == 0) & (probability >= threshold)])
        assert len(negative) == 0 or bound(float(np.nextafter(negative[0], 1))) < 0.85


def test_too_few_images_for_a_confidence_are_refused() -> None:
    """59 positives can show a sensitivity of .95 with 95 % confidence, 58 cannot: 0.95 ** 58 > .05 >= 0.95 ** 59."""
    assert 0.95**58 > 0.05 >= 0.95**59
    for positives in (58, 59):
        label = [1] * positives + [0] * 5
        probability = np.linspace(0.9, 0.1, len(label))
        if positives == 59:
            assert fit_threshold(label, probability, "sensitivity>=0.95@0.95") < probability[58]
            continue
        with pytest.raises(PredictionsError, match="expected at least 59 to show") as refusal:
            fit_threshold(label, probability, "sensitivity>=0.95@0.95")
        assert "\n" not in str(refusal.value)
    require_enough("sensitivity>=0.95", 1, 1)  # without a confidence any number will do
    with pytest.raises(PredictionsError, match="3 negative images"):
        require_enough("specificity>=0.9@0.9", 3, 100)


def test_confidence_is_parsed_and_impossible_ones_refused() -> None:
    """A confidence lies between 0 and 1, and a share of 1 cannot be shown with one."""
    assert parse_policy("specificity >= .9 @ .8").numbers == {"least": 0.9, "confidence": 0.8}
    for policy in ("sensitivity>=0.9@1", "sensitivity>=0.9@0", "sensitivity>=1@0.95", "sensitivity>=0.9@95", "f1@0.9"):
        with pytest.raises(RecipeError, match="@C"):
            parse_policy(policy)
