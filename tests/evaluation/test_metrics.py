import json
import math
import warnings

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn import metrics as reference

from tests.evaluation.plain import classification
from tumortrace.errors import PredictionsError
from tumortrace.evaluation.measures import MEASURES

EPSILON = np.finfo(float).eps
ABOVE_ONE = float(np.nextafter(1.0, 2.0))
TWO_BY_TWO = (
    [1] * 100 + [0] * 100,
    [0.9] * 90 + [0.1] * 10 + [0.1] * 70 + [0.9] * 30,
    0.5,
)  # 90 tp, 10 fn, 70 tn, 30 fp
PAIRS = ([0, 1] * 15, [j / 16 + side for j in range(1, 16) for side in (-0.01, 0.01)], 0.5)  # two images to a bin

BY_HAND = {
    "one wrong on each side": (
        ([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], 0.5),
        {"auroc": 3 / 4, "average_precision": 5 / 6, "accuracy": 0.5, "balanced_accuracy": 0.5, "sensitivity": 0.5}
        | {"specificity": 0.5, "precision": 0.5, "npv": 0.5, "f1": 0.5, "mcc": 0.0, "brier": 0.74 / 4, "ece": 0.35}
        | {"nll": -(2 * math.log(0.9) + 2 * math.log(0.4)) / 4},
    ),
    "perfect and certain": (
        ([0, 1], [0.0, 1.0], 0.5),
        {"auroc": 1, "average_precision": 1, "mcc": 1, "brier": 0, "ece": 0, "nll": EPSILON},
    ),
    "wrong and certain": (
        ([0, 1], [1.0, 0.0], 0.5),
        {"auroc": 0, "accuracy": 0, "mcc": -1, "brier": 1, "ece": 1, "nll": -math.log(EPSILON), "f1": 0, "npv": 0},
    ),
    "all tied, all called positive": (
        ([0, 1], [0.5, 0.5], 0.5),
        {"auroc": 0.5, "average_precision": 0.5, "sensitivity": 1, "specificity": 0, "npv": None, "mcc": None}
        | {"f1": 2 / 3, "ece": 0, "brier": 0.25, "nll": math.log(2)},
    ),
    "all tied, none called positive": (
        ([0, 1], [0.5, 0.5], 0.6),
        {"sensitivity": 0, "specificity": 1, "precision": None, "npv": 0.5, "f1": 0, "mcc": None},
    ),
    "positives only": (
        ([1, 1], [0.2, 0.8], 0.5),
        {"auroc": None, "average_precision": None, "balanced_accuracy": None, "specificity": None, "mcc": None}
        | {"sensitivity": 0.5, "precision": 1, "npv": 0, "f1": 2 / 3, "accuracy": 0.5, "brier": 0.34, "ece": 0.5},
    ),
    "negatives only": (
        ([0, 0], [0.2, 0.8], 0.5),
        {"auroc": None, "average_precision": None, "sensitivity": None, "specificity": 0.5, "precision": 0}
        | {"npv": 1, "f1": 0, "mcc": None, "balanced_accuracy": None},
    ),
    "negatives only, none called positive": (
        ([0, 0], [0.1, 0.2], 0.5),
        {"f1": None, "precision": None, "specificity": 1, "npv": 1, "accuracy": 1},
    ),
    "a single image": (
        ([1], [0.7], 0.5),
        {"accuracy": 1, "nll": -math.log(0.7), "ece": 0.3, "brier": 0.09, "npv": None},
    ),
    "at the threshold is positive": (([0, 1], [0.3, 0.3], 0.3), {"sensitivity": 1, "specificity": 0}),
    "threshold 0 calls all positive": (([0, 0, 1], [0.0, 0.5, 1.0], 0.0), {"precision": 1 / 3, "npv": None}),
    "threshold 1 calls certainty positive": (([0, 1], [0.9, 1.0], 1.0), {"accuracy": 1, "mcc": 1}),
    "a threshold above 1 calls none positive": (([0, 1], [0.9, 1.0], ABOVE_ONE), {"sensitivity": 0, "precision": None}),
    "a table of 200": (
        TWO_BY_TWO,
        {"accuracy": 0.8, "balanced_accuracy": 0.8, "sensitivity": 0.9, "specificity": 0.7, "precision": 0.75}
        | {"npv": 7 / 8, "f1": 9 / 11, "mcc": 6000 / math.sqrt(96e6), "auroc": 0.8},
    ),
    "ties between classes": (
        ([0, 0, 0, 1, 1], [0.2, 0.5, 0.5, 0.5, 0.8], 0.5),
        {"auroc": 5 / 6, "average_precision": 3 / 4},
    ),
    "the positive ranks last": (([1, 0, 0, 0], [0.1, 0.2, 0.3, 0.4], 0.5), {"auroc": 0, "average_precision": 0.25}),
    "tied images share a bin": (([0, 1, 1, 1], [0.5] * 4, 0.5), {"ece": 0.25}),
    "gaps cancel within a bin": (PAIRS, {"ece": 7 / 30}),
    "one missed of two": (
        ([1, 1, 0, 0], [0.9, 0.1, 0.2, 0.3], 0.5),
        {"mcc": 1 / math.sqrt(3), "npv": 2 / 3, "precision": 1, "f1": 2 / 3, "auroc": 0.5},
    ),
    "always the prevalence": (
        ([1] + [0] * 99, [0.01] * 100, 0.5),
        {"ece": 0, "brier": 0.0099, "nll": -0.01 * math.log(0.01) - 0.99 * math.log(0.99), "auroc": 0.5},
    ),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_metrics_worked_by_hand(case):
    """Every metric has the value that pencil and paper give, None where it is not defined, and never warns."""
    arguments, expected = BY_HAND[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = classification(*arguments)
    for metric, value in expected.items():
        assert result[metric] == (value if value is None else pytest.approx(value, abs=1e-12)), metric


def _random_tables():
    for seed in range(40):
        random = np.random.default_rng(seed)
        n = int(random.integers(4, 400))
        label = random.integers(0, 2, n)
        label[:2] = 0, 1
        probability = np.clip(random.normal(0.4 + 0.2 * label, 0.3), 0, 1)
        yield label, np.round(probability, int(random.integers(1, 4))) if seed % 3 else probability, random.random()


def _ece_by_loop(label, probability):
    ranks = rankdata(probability, method="average") - 0.5
    bins = [int(15 * rank / len(label) + 1e-9) for rank in ranks]
    gaps = [abs(sum(p - y for p, y, b in zip(probability, label, bins) if b == k)) for k in range(15)]
    return sum(gaps) / len(label)


def test_metrics_agree_with_scikit_learn():
    """On random tables with ties, every metric is scikit-learn's to 1e-12."""
    for label, probability, threshold in _random_tables():
        ours = classification(label, probability, threshold)
        call = probability >= threshold
        theirs = {
            "auroc": reference.roc_auc_score(label, probability),
            "average_precision": reference.average_precision_score(label, probability),
            "accuracy": reference.accuracy_score(label, call),
            "balanced_accuracy": reference.balanced_accuracy_score(label, call),
            "sensitivity": reference.recall_score(label, call),
            "specificity": reference.recall_score(label, call, pos_label=0),
            "precision": reference.precision_score(label, call, zero_division=np.nan),
            "npv": reference.precision_score(label, call, pos_label=0, zero_division=np.nan),
            "f1": reference.f1_score(label, call),
            "mcc": reference.matthews_corrcoef(label, call) if 0 < call.sum() < len(call) else math.nan,
            "brier": reference.brier_score_loss(label, probability),
            "nll": reference.log_loss(label, probability),
            "ece": _ece_by_loop(label, probability),
        }
        assert tuple(theirs) == tuple(MEASURES)
        for metric, value in theirs.items():
            assert ours[metric] == (None if math.isnan(value) else pytest.approx(value, abs=1e-12)), metric
        tn, fp, fn, tp = reference.confusion_matrix(label, call, labels=[False, True]).ravel().tolist()
        assert ours["confusion_matrix"] == {"tn": tn, "fp": fp, "fn": fn, "tp": tp}
        assert (ours["n"], ours["prevalence"]) == (len(label), pytest.approx(label.mean()))


def test_equal_mass_bins_differ_by_at_most_one_image():
    """Distinct probabilities fall into 15 bins of 66 or 67 images out of 1,000."""
    from tumortrace.evaluation.table import check_arrays
    from tumortrace.evaluation.tally import equal_mass_bins, tally

    place = equal_mass_bins(tally(check_arrays(np.arange(1000) % 2, np.random.default_rng(0).random(1000))))
    assert set(np.bincount(place).tolist()) == {66, 67}


def test_result_is_plain_json():
    """The result holds only Python numbers, so strict JSON takes it; float32 and boolean input is welcome."""
    result = classification(np.array([True, False]), np.array([0.5, 0.25], dtype=np.float32))
    assert json.loads(json.dumps(result, allow_nan=False))["brier"] == (0.25 + 0.0625) / 2


@pytest.mark.parametrize(
    ("label", "probability", "threshold", "message"),
    [
        ([], [], 0.5, "no rows"),
        ([0, 1], [0.1], 0.5, "shape"),
        ([0, 2], [0.1, 0.2], 0.5, "row 2, column label: found 2"),
        ([0, 1], [0.1, math.nan], 0.5, "row 2, column probability: found nothing"),
        ([0, 1], [-0.1, 0.2], 0.5, "row 1, column probability: found -0.1"),
        ([0, 1], [math.inf, 0.2], 0.5, "row 1, column probability: found inf"),
        ([0, 1], [0.1, 0.2], 50, "threshold 50"),
        ([0, 1], [0.1, 0.2], math.nan, "threshold nan"),
    ],
)
def test_impossible_input_is_refused(label, probability, threshold, message):
    """Impossible values are refused in one line that names row and column."""
    with pytest.raises(PredictionsError) as refusal:
        classification(label, probability, threshold)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
