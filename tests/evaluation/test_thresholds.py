from itertools import pairwise

import numpy as np
import pytest

from tests.evaluation.plain import classification
from tumortrace.errors import PredictionsError, RecipeError
from tumortrace.evaluation.thresholds import fit_threshold, parse_policy

ABOVE_ONE = float(np.nextafter(1.0, 2.0))


def _brute_force(label, probability, policy):
    """The best (lowest among equals) of all candidates, each judged by its own metrics."""
    levels = sorted(set(probability.tolist()))
    ends = [0.0, *levels, 1.0]
    candidates = [(low + high) / 2 for low, high in pairwise(ends)]
    if levels[-1] == 1.0:
        candidates[-1] = ABOVE_ONE
    best, chosen = None, None
    for threshold in candidates:
        result = classification(label, probability, threshold)
        fn, fp = result["confusion_matrix"]["fn"], result["confusion_matrix"]["fp"]
        sensitivity, specificity = result["sensitivity"], result["specificity"]
        score = {
            "f1": (round(result["f1"], 12),),
            "youden": (round(sensitivity + specificity, 12),),
            "sensitivity>=0.9": (sensitivity >= 0.9, specificity, sensitivity),
            "specificity>=0.75": (specificity >= 0.75, sensitivity, specificity),
            "cost:fn=5,fp=1": (-5 * fn - fp,),
        }[policy]
        if best is None or score > best:
            best, chosen = score, threshold
    return chosen


@pytest.mark.parametrize("policy", ["f1", "youden", "sensitivity>=0.9", "specificity>=0.75", "cost:fn=5,fp=1"])
def test_threshold_is_the_best_of_all(policy):
    """On random tables with ties and certainties, no other threshold serves the policy better."""
    for seed in range(15):
        random = np.random.default_rng(seed)
        n = int(random.integers(4, 40))
        label = np.append([0, 1], random.integers(0, 2, n - 2))
        probability = np.round(np.clip(random.normal(0.4 + 0.2 * label, 0.35), 0, 1), 1 + seed % 3)
        assert fit_threshold(label, probability, policy) == pytest.approx(_brute_force(label, probability, policy))


@pytest.mark.parametrize(
    ("policy", "threshold"),
    [
        ("f1", 0.35),
        ("youden", 0.35),
        ("sensitivity>=0.95", 0.35),
        ("specificity>=0.95", 0.75),
        ("cost:fn=1,fp=100", 0.75),
        ("cost:fn=100,fp=1", 0.35),
        ("fixed:0.5", 0.5),
    ],
)
def test_thresholds_worked_by_hand(policy, threshold):
    """Six images, one negative among the positives: every policy has the threshold that pencil and paper give."""
    label, probability = [0, 0, 1, 0, 1, 1], [0.1, 0.3, 0.4, 0.7, 0.8, 0.9]
    assert fit_threshold(label, probability, policy) == pytest.approx(threshold)


def test_among_equals_the_lowest_or_the_better():
    """Equal Youden indices take the lower threshold; a demand on sensitivity takes what else comes free."""
    label, probability = [0, 1, 0, 1], [0.2, 0.4, 0.6, 0.8]
    assert fit_threshold(label, probability, "youden") == pytest.approx(0.3)
    assert fit_threshold([0, 1, 1], [0.2, 0.4, 0.6], "sensitivity>=0.5") == pytest.approx(0.3)
    assert fit_threshold([0, 0, 1], [0.2, 0.4, 0.6], "specificity>=0.5") == pytest.approx(0.5)


def test_extremes():
    """Neighbouring floats are still told apart; certain negatives need a threshold above 1; separable data split."""
    near = np.nextafter(0.5, 1)
    assert fit_threshold([0, 1], [0.5, near], "f1") == near
    assert fit_threshold([0, 1], [1.0, 0.2], "specificity>=1") == ABOVE_ONE
    assert fit_threshold([0, 1], [0.0, 1.0], "youden") == 0.5
    assert fit_threshold([1, 0], [0.0, 1.0], "sensitivity>=1") == 0.0


def test_policies_parse():
    """Spaces and the order of costs do not matter."""
    assert parse_policy("cost: fp=1, fn=2.5").numbers == {"fn": 2.5, "fp": 1.0}
    assert parse_policy("sensitivity >= .9").numbers == {"least": 0.9}


@pytest.mark.parametrize(
    "policy",
    [
        "",
        "best",
        "f2",
        "sensitivity>0.9",
        "sensitivity>=95",
        "specificity>=0",
        "sensitivity>=nan",
        "fixed:1.5",
        "fixed:",
        "cost:fn=5",
        "cost:fn=5,fn=1",
        "cost:fn=0,fp=1",
        "cost:fn=-1,fp=1",
        "cost:fn=1e999,fp=1",
        None,
        0.5,
    ],
)
def test_unknown_policy_is_refused(policy):
    """What is not a policy is refused with those that are."""
    with pytest.raises(RecipeError, match="youden"):
        fit_threshold([0, 1], [0.1, 0.9], policy)


def test_one_class_is_refused_unless_fixed():
    """One class fits no threshold; a fixed one needs no data."""
    with pytest.raises(PredictionsError, match="only images of class 1"):
        fit_threshold([1, 1], [0.1, 0.9], "f1")
    assert fit_threshold([], [], "fixed:0.25") == 0.25
