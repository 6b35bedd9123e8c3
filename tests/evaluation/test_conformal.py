import json
import math

import numpy as np
import pytest

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.conformal import decide, fit_conformal, prediction_sets


def _cohort(random, n, positive):
    """Images of a miscalibrated model: positives score higher, but not by as much as it says."""
    label = (random.random(n) < positive).astype(int)
    return label, 1 / (1 + np.exp(-3 * random.normal(1.2 * label - 0.6)))


def test_quantiles_are_the_finite_sample_ones():
    """The quantile is the ceil((n + 1) coverage)-th smallest score of the class; with 8 images of 9 needed, None."""
    probability = np.arange(1, 20) / 20
    fitted = fit_conformal(np.zeros(19, int), probability, 0.9)
    assert fitted == {"coverage": 0.9, "quantiles": [18 / 20, None], "n": [19, 0]}
    for n, exists in ((8, False), (9, True)):
        quantile = fit_conformal([1] * n, [0.25] * n, 0.9)["quantiles"][1]
        assert quantile == (0.75 if exists else None)
    json.dumps(fitted, allow_nan=False)


def test_rank_is_not_pushed_up_by_rounding():
    """Whole ranks stay whole: (99 + 1) x coverage for every coverage in per cent."""
    scores = np.arange(1, 100) / 100
    for per_cent in range(1, 100):
        assert fit_conformal(np.zeros(99, int), scores, per_cent / 100)["quantiles"][0] == scores[per_cent - 1]


def test_coverage_holds_in_each_class():
    """Over 200 simulated cohorts, each class is covered as promised, and no more than the finite sample explains."""
    coverage, covered, wrong = 0.9, [], []
    for seed in range(200):
        random = np.random.default_rng(seed)
        fitted = fit_conformal(*_cohort(random, 150, 0.3), coverage)
        label, probability = _cohort(random, 2000, 0.6)  # another prevalence: the guarantee is per class
        sets = prediction_sets(probability, fitted["quantiles"])
        decision = decide(probability, 0.5, fitted["quantiles"])
        covered.append([sets[label == k, k].mean() for k in (0, 1)])
        wrong.append([(decision[label == k] == name).mean() for k, name in ((0, "positive"), (1, "negative"))])
    mean, error = np.mean(covered, axis=0), np.std(covered, axis=0) / math.sqrt(200)
    assert (mean > coverage - 3 * error).all()
    assert (mean < coverage + 1 / 35 + 3 * error).all()
    assert (np.mean(wrong, axis=0) < 1 - coverage + 3 * error).all()


@pytest.mark.parametrize(
    ("quantiles", "threshold", "expected"),
    [
        ([0.5, 0.6], 0.5, ["negative", "refer", "positive"]),  # both classes at 0.5
        ([0.3, 0.3], 0.5, ["negative", "refer", "positive"]),  # neither class at 0.5
        ([0.5, 0.3], 0.5, ["negative", "refer", "positive"]),  # only negative at 0.5, but called positive
        ([0.5, 0.3], 0.6, ["negative", "negative", "positive"]),
        ([None, 0.5], 0.5, ["negative", "refer", "refer"]),  # too few negatives: positive is never decided
        ([0.5, None], 0.5, ["refer", "refer", "positive"]),
        ([None, None], 0.5, ["refer", "refer", "refer"]),
        (None, 0.5, ["negative", "positive", "positive"]),
    ],
)
def test_decisions_worked_by_hand(quantiles, threshold, expected):
    """An image is decided where exactly one class remains and the threshold agrees, else referred."""
    assert decide([0.1, 0.5, 0.9], threshold, quantiles).tolist() == expected


def test_a_calibration_image_at_the_quantile_is_covered():
    """The image that defines the quantile belongs to its own set, whatever the rounding."""
    for seed in range(50):
        random = np.random.default_rng(seed)
        label, probability = _cohort(random, 80, 0.5)
        sets = prediction_sets(probability, fit_conformal(label, probability, 0.8)["quantiles"])
        for k in (0, 1):
            own = label == k
            assert sets[own, k].sum() >= math.ceil(0.8 * (own.sum() + 1) - 1e-9)


def test_no_images_give_no_decisions():
    """An empty array stays one."""
    assert decide([], 0.5, [0.5, 0.5]).tolist() == []


@pytest.mark.parametrize("coverage", [0, 1, 90, math.nan])
def test_impossible_coverage_is_refused(coverage):
    """A coverage outside (0, 1) is refused."""
    with pytest.raises(PredictionsError, match="coverage"):
        fit_conformal([0, 1], [0.1, 0.9], coverage)


def test_impossible_probability_is_refused():
    """A probability that is none is refused by row."""
    with pytest.raises(PredictionsError, match="row 2"):
        decide([0.1, 1.1], 0.5, None)
