"""A thousand random prediction tables against scikit-learn and scipy."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.special import xlogy
from scipy.stats import rankdata
from sklearn import metrics as reference

from tests.evaluation.plain import classification
from tumortrace.evaluation.curves import BENEFIT_NAMES, curves, net_benefit
from tumortrace.evaluation.measures import CALLED, MEASURES
from tumortrace.evaluation.split_record import REPORT_NAMES, class_scores
from tumortrace.evaluation.table import check_arrays
from tumortrace.evaluation.tally import confusion, tally
from tumortrace.evaluation.thresholds import AT_SPECIFICITY, POINT_NAMES, operating_points

TABLES = 1000
Table = tuple[np.ndarray, np.ndarray, float]


def random_tables() -> Iterator[Table]:
    """Labels, probabilities and a threshold: of many sizes, with ties, certainties and single classes."""
    for seed in range(TABLES):
        random = np.random.default_rng(seed)
        n = int(random.integers(2, 401))
        label = (random.random(n) < random.choice([0.02, 0.3, 0.5, 0.9])).astype(int)
        if seed % 10 == 0:
            label[:] = seed // 10 % 2
        probability = np.clip(random.normal(0.4 + 0.2 * label, 0.35), 0, 1)
        if seed % 3 == 0:
            probability = probability.round(int(random.integers(0, 3)))
        if seed % 7 == 0:
            probability = random.choice([0.0, 1e-300, 1e-9, 0.5, 1 - 1e-9, 1.0], n)
        threshold = float(random.choice([0.0, 0.5, 1.0, probability[0], random.random()]))
        yield label, probability, threshold


@pytest.fixture(scope="module")
def tables() -> list[Table]:
    return list(random_tables())


@pytest.fixture(scope="module")
def found(tables: list[Table]) -> list[dict]:
    return [classification(*table) for table in tables]


def same(ours: float | None, theirs: float) -> bool:
    if ours is None or math.isnan(theirs):
        return ours is None and math.isnan(theirs)
    return math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-12)


def test_there_is_something_of_everything(tables: list[Table]) -> None:
    """Among the tables are single classes, ties, certainties, two images and thresholds that lie on an image."""
    assert {2, 400} <= {len(label) for label, _, _ in tables}
    assert sum(len(set(label)) == 1 for label, _, _ in tables) >= 100
    assert sum(len(set(p)) < len(p) for _, p, _ in tables) >= 300
    assert sum(threshold in p for _, p, threshold in tables) >= 300
    assert sum(0.0 in p and 1.0 in p for _, p, _ in tables) >= 100


def test_ranking_metrics(tables: list[Table], found: list[dict]) -> None:
    """AUROC is the rank test's statistic (scipy); every fourth, like the average precision, is scikit-learn's too."""
    for number, ((label, probability, _), ours) in enumerate(zip(tables, found, strict=True)):
        positives, negatives = int(label.sum()), int((1 - label).sum())
        if positives == 0 or negatives == 0:
            assert ours["auroc"] is None
            assert ours["average_precision"] is None
            continue
        statistic = rankdata(probability)[label == 1].sum() - positives * (positives + 1) / 2
        assert same(ours["auroc"], statistic / positives / negatives)
        if number % 4 == 1:
            assert same(ours["auroc"], reference.roc_auc_score(label, probability))
            assert same(ours["average_precision"], reference.average_precision_score(label, probability))


def test_metrics_of_probabilities(tables: list[Table], found: list[dict]) -> None:
    """Brier score and log loss are their definitions' (scipy's xlogy); every fourth is scikit-learn's too."""
    tiny = np.finfo(float).eps
    for number, ((label, probability, _), ours) in enumerate(zip(tables, found, strict=True)):
        assert same(ours["brier"], float(((probability - label) ** 2).mean()))
        likely = np.clip(np.where(label == 1, probability, 1 - probability), tiny, 1 - tiny)
        assert same(ours["nll"], float(-xlogy(1, likely).mean()))
        if number % 4 == 1:
            both = np.column_stack([1 - probability, probability])
            assert same(ours["brier"], reference.brier_score_loss(label, probability, pos_label=1, labels=[0, 1]))
            assert same(ours["nll"], reference.log_loss(label, both, labels=[0, 1]))


def test_calibration_error(tables: list[Table], found: list[dict]) -> None:
    """The bins are those of scipy's mid-ranks."""
    for (label, probability, _), ours in zip(tables, found, strict=True):
        n = len(label)
        bins = np.floor(15 * (rankdata(probability) - 0.5) / n + 1e-9).astype(int)
        assert same(ours["ece"], float(np.abs(np.bincount(bins, probability - label)).sum() / n))


def test_metrics_of_calls(tables: list[Table], found: list[dict]) -> None:
    """The classification report by class, macro and weighted, and what follows from it, is scikit-learn's."""
    for (label, probability, threshold), ours in zip(tables, found, strict=True):
        call = (probability >= threshold).astype(int)
        scores = dict(
            zip(REPORT_NAMES, class_scores(confusion(tally(check_arrays(label, probability)), threshold)), strict=True)
        )
        by_class = reference.precision_recall_fscore_support(label, call, labels=[0, 1], zero_division=np.nan)
        for place, row in enumerate(("negative", "positive")):
            for score, values in zip(("precision", "recall", "f1"), by_class, strict=False):
                expected = float(values[place])
                if score == "f1" and not (label == place).any() and not (call == place).any():
                    expected = math.nan
                assert same(_none(scores[row, score]), expected), (row, score)
        defined = np.array(by_class[:3], dtype=float)
        support = by_class[3]
        for place, score in enumerate(("precision", "recall", "f1")):
            assert same(_none(scores["macro", score]), float(defined[place].mean()))
            weighted = sum(value * times for value, times in zip(defined[place], support) if times) / support.sum()
            assert same(_none(scores["weighted", score]), float(weighted))
        assert same(ours["specificity"], float(by_class[1][0]))
        assert same(ours["sensitivity"], float(by_class[1][1]))
        assert same(ours["precision"], float(by_class[0][1]))
        assert same(ours["npv"], float(by_class[0][0]))
        assert same(ours["accuracy"], float((label == call).mean()))
        assert same(ours["balanced_accuracy"], float(by_class[1].mean()))
        cells = np.bincount(2 * label + call, minlength=4)
        assert [ours["confusion_matrix"][name] for name in ("tn", "fp", "fn", "tp")] == cells.tolist()
        if 0 < call.sum() < len(call) and 0 < label.sum() < len(label):
            correlation = np.corrcoef(label, call)[0, 1]
            assert same(ours["mcc"], float(correlation))
        else:
            assert ours["mcc"] is None
    assert set(CALLED) < set(MEASURES)


def _none(value: float) -> float | None:
    return None if math.isnan(value) else value


def test_operating_points(tables: list[Table]) -> None:
    """The best sensitivity at a given specificity, and the reverse, by trying every threshold."""
    for label, probability, _ in tables[:300]:
        ours = dict(zip(POINT_NAMES, operating_points(tally(check_arrays(label, probability))), strict=True))
        positives, negatives = int(label.sum()), int((1 - label).sum())
        if positives == 0 or negatives == 0:
            assert all(math.isnan(value) for value in ours.values())
            continue
        called = probability[None, :] >= np.append(np.unique(probability), 2.0)[:, None]
        sensitivity = (called & (label == 1)).sum(1) / positives
        specificity = (~called & (label == 0)).sum(1) / negatives
        for (kind, given), value in ours.items():
            best, allowed = (sensitivity, specificity) if kind == AT_SPECIFICITY else (specificity, sensitivity)
            assert value == max(best[allowed >= float(given)])


def test_net_benefit(tables: list[Table]) -> None:
    """Net benefit is that of its definition, counted image by image."""
    for label, probability, _ in tables[::7]:
        ours = dict(zip(BENEFIT_NAMES, net_benefit(tally(check_arrays(label, probability))), strict=True))
        for (kind, threshold), value in ours.items():
            act = probability >= threshold if kind == "model" else np.ones(len(label), bool)
            weight = threshold / (1 - threshold)
            expected = np.where(label == 1, 1.0, -weight)[act].sum() / len(label)
            assert value == pytest.approx(expected, abs=1e-9)


def test_curves(tables: list[Table]) -> None:
    """The points of the ROC and precision-recall curves are scikit-learn's."""
    for label, probability, _ in tables[1::4]:
        ours = curves(label, probability)
        if len(set(label)) == 1:
            assert len(ours.fpr) == len(ours.recall) == 0
            continue
        fpr, tpr, _ = reference.roc_curve(label, probability, drop_intermediate=False)
        np.testing.assert_allclose(ours.fpr, fpr, atol=1e-12)
        np.testing.assert_allclose(ours.tpr, tpr, atol=1e-12)
        precision, recall, _ = reference.precision_recall_curve(label, probability)
        np.testing.assert_allclose(ours.recall, recall[:-1][::-1], atol=1e-12)
        np.testing.assert_allclose(ours.precision, precision[:-1][::-1], atol=1e-12)
