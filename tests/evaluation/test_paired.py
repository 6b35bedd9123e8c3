"""Paired tests and intervals against definitions worked out slowly, scipy, and the bootstrap by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, norm
from sklearn.metrics import accuracy_score, average_precision_score, brier_score_loss, roc_auc_score

from tests.evaluation.plain import paired_differences
from tumortrace.errors import PredictionsError
from tumortrace.evaluation.comparisons import delong, holm, mcnemar


def made(seed: int, n: int = 60, ties: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and two models' probabilities of the same images, with ties."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    label[:2] = 0, 1
    shared = rng.normal(size=n)
    scores = [1 / (1 + np.exp(-(label + shared + rng.normal(size=n)))) for _ in range(2)]
    first, second = ([score.round(1) for score in scores]) if ties else scores
    return label, first, second


def psi(positive: float, negative: float) -> float:
    return 1.0 if positive > negative else 0.5 if positive == negative else 0.0


def slow_delong(label: np.ndarray, scores: list[np.ndarray]) -> tuple[list[float], np.ndarray]:
    """AUROCs and their covariance by the definition of DeLong et al. (1988), pair by pair."""
    pos, neg = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    m, n = len(pos), len(neg)
    v10 = np.array([[np.mean([psi(s[i], s[j]) for j in neg]) for i in pos] for s in scores])
    v01 = np.array([[np.mean([psi(s[i], s[j]) for i in pos]) for j in neg] for s in scores])
    theta = v10.mean(axis=1)
    s10 = sum(np.outer(v - theta, v - theta) for v in v10.T) / (m - 1)
    s01 = sum(np.outer(v - theta, v - theta) for v in v01.T) / (n - 1)
    return theta.tolist(), s10 / m + s01 / n


@pytest.mark.parametrize("seed", range(6))
def test_delong_is_its_definition(seed: int) -> None:
    """AUROCs are scikit-learn's, the standard error and p-value those of the definition computed pair by pair."""
    label, first, second = made(seed, 24, ties=seed % 2 == 0)
    found = delong(label, first, second)
    aurocs, covariance = slow_delong(label, [first, second])
    assert found.auroc == pytest.approx(aurocs, abs=1e-12)
    assert found.auroc == pytest.approx((roc_auc_score(label, first), roc_auc_score(label, second)), abs=1e-12)
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert found.standard_error == pytest.approx(error, rel=1e-9)
    assert found.p == pytest.approx(2 * norm.sf(abs(aurocs[1] - aurocs[0]) / error), rel=1e-9)


def test_delong_agrees_with_the_bootstrap() -> None:
    """With many images its standard error is that of paired resampling, by image and by group."""
    label, first, second = made(1, 240, ties=False)
    group = np.random.default_rng(0).integers(0, 60, 240)
    scores = [first * 0.8 + group % 7 * 0.03, second]  # the first errs alike within a group
    rows_of = [np.flatnonzero(group == g) for g in range(60)]

    def auroc(label: np.ndarray, score: np.ndarray) -> float:
        return float((score[label == 1, None] > score[label == 0]).mean())

    rng = np.random.default_rng(3)
    for by, rows in ((None, [np.array([row]) for row in range(240)]), (group, rows_of)):
        drawn = []
        for _ in range(500):
            chosen = np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])
            drawn.append(np.subtract(*(auroc(label[chosen], s[chosen]) for s in scores)))
        assert delong(label, *scores, by).standard_error == pytest.approx(np.std(drawn), rel=0.12)


@pytest.mark.parametrize("seed", [0, 1])
def test_delong_by_group_is_the_definition_of_obuchowski(seed: int) -> None:
    """The variance by Obuchowski (1997), cluster by cluster, of positive sums, negative sums and their product."""
    label, first, second = made(seed, 30)
    group = np.random.default_rng(seed).integers(0, 7, 30)
    pos, neg = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    m, n = len(pos), len(neg)
    variance = np.zeros((2, 2))
    v10 = [{i: np.mean([psi(s[i], s[j]) for j in neg]) for i in pos} for s in (first, second)]
    v01 = [{j: np.mean([psi(s[i], s[j]) for i in pos]) for j in neg} for s in (first, second)]
    theta = [np.mean(list(values.values())) for values in v10]
    clusters = [(pos[group[pos] == g], neg[group[neg] == g]) for g in np.unique(group)]
    both = sum(len(p) > 0 for p, _ in clusters), sum(len(q) > 0 for _, q in clusters), len(clusters)
    for r, s in product(range(2), repeat=2):
        x = [[sum(v10[k][i] for i in p) - len(p) * theta[k] for p, _ in clusters] for k in (r, s)]
        y = [[sum(v01[k][j] for j in q) - len(q) * theta[k] for _, q in clusters] for k in (r, s)]
        s10 = both[0] / ((both[0] - 1) * m) * np.dot(x[0], x[1])
        s01 = both[1] / ((both[1] - 1) * n) * np.dot(y[0], y[1])
        s11 = both[2] / (both[2] - 1) * (np.dot(x[0], y[1]) + np.dot(y[0], x[1]))
        variance[r, s] = s10 / m + s01 / n + s11 / (m * n)
    expected = np.sqrt(variance[0, 0] + variance[1, 1] - variance[0, 1] - variance[1, 0])
    assert delong(label, first, second, group).standard_error == pytest.approx(expected, rel=1e-9)


def test_delong_by_group_counts_repeated_images_once() -> None:
    """Every image five times, as a group, gives nearly the error of once; taken as independent it would halve."""
    label, first, second = made(2, 80)
    once = delong(label, first, second)
    copied = [np.repeat(values, 5) for values in (label, first, second)]
    grouped = delong(*copied, np.repeat(np.arange(80), 5))
    assert grouped.standard_error == pytest.approx(once.standard_error, rel=1e-9)
    assert delong(label, first, second, np.arange(80)) == once
    assert delong(*copied).standard_error < 0.5 * once.standard_error


def test_delong_without_a_difference_is_not_certain() -> None:
    """A model against itself has no p-value, and one class alone is refused."""
    label, first, _ = made(3)
    same = delong(label, first, first)
    assert (same.difference, same.z, same.p) == (0.0, None, None)
    with pytest.raises(PredictionsError, match="only images of class 1"):
        delong([1, 1], [0.1, 0.2], [0.1, 0.2])


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (5, 1), (1, 8), (7, 7), (40, 21), (0, 6)])
def test_mcnemar_is_the_binomial_test(only_first: int, only_second: int) -> None:
    """The exact p-value is scipy's binomial test of the discordant pairs; images of one group each change nothing."""
    first = np.array([1] * only_first + [0] * only_second + [1, 1, 0])
    second = np.array([0] * only_first + [1] * only_second + [1, 1, 0])
    found = mcnemar(first, second)
    total = only_first + only_second
    expected = binomtest(only_second, total).pvalue if total else 1.0
    assert (found.only_first, found.only_second) == (only_first, only_second)
    assert found.p == pytest.approx(expected, rel=1e-12)
    assert mcnemar(first, second, np.arange(len(first))) == found


def test_mcnemar_by_group_counts_all_swaps() -> None:
    """With groups the p-value is the share of all swaps of whole groups that differ as much, listed one by one."""
    rng = np.random.default_rng(4)
    first, second, group = rng.random(40) < 0.6, rng.random(40) < 0.85, rng.integers(0, 9, 40)
    sums = np.array([(second[group == g].astype(int) - first[group == g]).sum() for g in range(9)])
    reached = [abs(np.dot(signs, sums)) >= abs(sums.sum()) for signs in product((-1, 1), repeat=9)]
    assert mcnemar(first, second, group).p == pytest.approx(np.mean(reached), rel=1e-12)
    five = [np.repeat(values, 5) for values in (first, second, np.arange(40))]
    assert mcnemar(*five).p == pytest.approx(mcnemar(first, second).p)


def test_holm_by_hand() -> None:
    """Sorted .005, .01, .03, .04 times 4, 3, 2, 1, never falling, at most 1; undefined ones are not counted."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, None, 0.6]) == [1.0, None, 1.0]
    assert holm([]) == []


def tables(n: int = 60, groups: int | None = None) -> dict[str, pd.DataFrame]:
    label, *scores = made(5, n)
    rng = np.random.default_rng(1)
    ids = [f"i{row:03}" for row in rng.permutation(n)]
    group = pd.array(ids if groups is None else [f"g{row % groups}" for row in range(n)], dtype="string")
    base = pd.DataFrame({"id": ids, "group": group, "label": label})
    return {
        name: base.assign(probability=score, prediction=(score >= cut).astype(int))
        for name, score, cut in zip("ab", scores, (0.5, 0.7), strict=True)
    }


@pytest.mark.parametrize("groups", [None, 12])
def test_paired_differences_by_hand(groups: int | None) -> None:
    """Values are scikit-learn's; intervals are percentiles over replicates that draw the same images for both."""
    both = tables(groups=groups)
    found = paired_differences(both, replicates=25, seed=7)["a", "b"]
    a, b = both["a"], both["b"]
    codes = pd.factorize(a["group"], sort=True)[0]
    rng = np.random.default_rng(7)
    drawn: dict[str, list[float]] = {"auroc": [], "accuracy": [], "brier": []}

    def measured(table: pd.DataFrame, rows: np.ndarray) -> tuple[float, float, float]:
        part = table.iloc[rows]
        label, probability = part["label"], part["probability"]
        right = accuracy_score(label, part["prediction"])
        return roc_auc_score(label, probability), right, brier_score_loss(label, probability)

    units = codes.max() + 1
    for _ in range(25):
        times = np.bincount(rng.integers(units, size=units), minlength=units)
        rows = np.repeat(np.arange(len(a)), times[codes])
        for name, x, y in zip(drawn, measured(a, rows), measured(b, rows), strict=True):
            drawn[name].append(y - x)
    everything = np.arange(len(a))
    for name, x, y in zip(drawn, measured(a, everything), measured(b, everything), strict=True):
        assert found[name]["value"] == pytest.approx(y - x, abs=1e-12)
        assert found[name]["ci95"] == pytest.approx(np.quantile(drawn[name], [0.025, 0.975]), abs=1e-12)
    precision = [average_precision_score(t["label"], t["probability"]) for t in (a, b)]
    assert found["average_precision"]["value"] == pytest.approx(precision[1] - precision[0])


def test_paired_differences_do_not_depend_on_the_order_of_rows() -> None:
    """Shuffled rows give the same intervals, without groups too; other images are refused."""
    both = {name: table.drop(columns="group") for name, table in tables().items()}
    shuffled = {name: table.sample(frac=1, random_state=3) for name, table in both.items()}
    assert paired_differences(shuffled, replicates=20) == paired_differences(both, replicates=20)
    with pytest.raises(PredictionsError, match="not the same images"):
        paired_differences({"a": both["a"], "b": both["b"].iloc[1:]})


def test_what_is_not_defined_has_no_difference() -> None:
    """With one class only the AUROC's difference is None, not 0."""
    both = {name: table[table["label"] == 1] for name, table in tables().items()}
    found = paired_differences(both, replicates=10)["a", "b"]
    assert found["auroc"] == {"value": None, "ci95": None}
    assert found["sensitivity"]["value"] is not None
