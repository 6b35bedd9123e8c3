import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_curve, roc_curve

from tests.evaluation.plain import classification
from tumortrace.errors import PredictionsError
from tumortrace.evaluation.curves import curves, reliability_bins, roc_band
from tumortrace.evaluation.replicates import Replicates


def _sample(seed, n=300, decimals=2):
    random = np.random.default_rng(seed)
    label = np.append([0, 1], random.integers(0, 2, n - 2))
    return label, np.round(np.clip(random.normal(0.4 + 0.2 * label, 0.3), 0, 1), decimals)


def test_points_agree_with_scikit_learn():
    """ROC and precision-recall points and their thresholds are scikit-learn's, ties included."""
    for seed in range(20):
        label, probability = _sample(seed)
        ours = curves(label, probability)
        fpr, tpr, thresholds = roc_curve(label, probability, drop_intermediate=False)
        assert (ours.fpr, ours.tpr, ours.roc_threshold) == tuple(map(pytest.approx, (fpr, tpr, thresholds)))
        precision, recall, thresholds = precision_recall_curve(label, probability)
        assert ours.recall == pytest.approx(recall[:-1][::-1])
        assert ours.precision == pytest.approx(precision[:-1][::-1])
        assert ours.pr_threshold == pytest.approx(thresholds[::-1])


def test_reliability_bins_add_up_to_the_calibration_error():
    """The gaps of the bins, weighted by count, are `ece`; counts add up to n; bars are Wilson intervals."""
    for decimals in (1, 2, 9):
        label, probability = _sample(3, 400, decimals)
        ours = reliability_bins(label, probability)
        gaps = np.abs(ours.share - ours.probability) @ ours.count / len(label)
        assert gaps == pytest.approx(classification(label, probability)["ece"], abs=1e-12)
        assert ours.count.sum() == len(label)
        for share, count, low, high in zip(ours.share, ours.count, ours.share_low, ours.share_high):
            interval = binomtest(round(share * count), int(count)).proportion_ci(method="wilson")
            assert (low, high) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_one_class_has_no_roc_curve():
    """With one class the ROC and precision-recall points are empty, the reliability bins are not."""
    ours = curves([1, 1], [0.2, 0.8])
    assert len(ours.fpr) == len(ours.precision) == 0
    assert reliability_bins([1, 1], [0.2, 0.8]).count.tolist() == [1, 1]


def test_band_surrounds_the_curve():
    """The band contains the curve nearly everywhere, is wider by group than by image, and has no width nowhere."""
    label, probability = _sample(1, 400, 9)
    table = pd.DataFrame({"label": label, "probability": probability})
    grid, low, high = roc_band(Replicates(table, 100))
    own = curves(label, probability)
    height = np.interp(grid, own.fpr, own.tpr)
    assert np.mean((low <= height) & (height <= high)) > 0.95
    assert (high - low)[5:60].min() > 0.01
    table["group"] = (np.argsort(np.argsort(probability)) // 40).astype(str)  # neighbours in score share a slide
    _, low_group, high_group = roc_band(Replicates(table, 100))
    assert (high_group - low_group).mean() > 1.5 * (high - low).mean()


def test_band_refuses_settings_that_make_none():
    """One grid point makes no band."""
    with pytest.raises(PredictionsError):
        roc_band(Replicates(pd.DataFrame({"label": [0, 1], "probability": [0.2, 0.8]})), points=1)
