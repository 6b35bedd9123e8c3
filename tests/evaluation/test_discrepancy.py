"""Maximum mean discrepancy against scikit-learn's kernel, a double loop, and sets drawn in full."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics.pairwise import rbf_kernel

from tumortrace.evaluation.discrepancy import Reference, kernel, median_distance

BANDWIDTH = 2.5


def rows(seed: int, count: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (count, 5))


def plain(one: np.ndarray, other: np.ndarray, pairs: list[tuple[int, int]] | None = None) -> float:
    """Gretton's estimator by loops; of `one` only the named ordered pairs where given."""

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-((a - b) ** 2).sum() / (2 * BANDWIDTH**2)))

    mine = pairs or [(i, j) for i in range(len(one)) for j in range(len(one)) if i != j]
    theirs = [(i, j) for i in range(len(other)) for j in range(len(other)) if i != j]
    within = np.mean([k(one[i], one[j]) for i, j in mine]) + np.mean([k(other[i], other[j]) for i, j in theirs])
    return float(within - 2 * np.mean([k(a, b) for a in one for b in other]))


def test_the_kernel_is_scikit_learns() -> None:
    """Whose gamma is 1 / (2 bandwidth squared)."""
    one, other = rows(0, 7), rows(1, 4)
    np.testing.assert_allclose(kernel(one, other, BANDWIDTH), rbf_kernel(one, other, gamma=1 / (2 * BANDWIDTH**2)))
    apart = [np.linalg.norm(a - b) for a, b in combinations(one, 2)]
    assert median_distance(one) == pytest.approx(np.median(apart))


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_discrepancy_is_that_of_a_double_loop(shift: float) -> None:
    """Of sets of unequal size, alike or not."""
    reference = Reference(rows(0, 12), np.arange(12) // 3, BANDWIDTH)
    new = rows(1, 9, shift)
    assert reference.discrepancy(new) == pytest.approx(plain(new, reference.rows), abs=1e-12)


def test_sets_of_one_kind_have_none_on_average() -> None:
    """Unbiased at any size: means over 300 sets of 3 and of 30 lie within three standard errors of 0."""
    random = np.random.default_rng(0)
    for count in (3, 30):
        values = []
        for _ in range(300):
            reference = Reference(random.normal(size=(40, 5)), np.arange(40), BANDWIDTH)
            values.append(reference.discrepancy(random.normal(size=(count, 5))))
        assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))


def test_each_group_is_measured_against_all_others() -> None:
    """Its first images against every image of the rest, as the loop does; groups with fewer are not drawn."""
    group = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2])
    reference = Reference(rows(2, 10), group, BANDWIDTH)
    for images, able in ((2, [0, 1, 2]), (3, [0, 2])):
        expected = [plain(reference.rows[group == g][:images], reference.rows[group != g]) for g in able]
        np.testing.assert_allclose(reference.drawn(1, images, draws=99), expected, atol=1e-12)


def test_groups_drawn_together_are_one_set() -> None:
    """Draws of two of five groups, of two images each, are among the ten that there are, against the other three."""
    group = np.repeat(np.arange(5), 3)
    reference = Reference(rows(3, 15), group, BANDWIDTH)
    every = []
    for pair in combinations(range(5), 2):
        mine = np.concatenate([reference.rows[group == g][:2] for g in pair])
        every.append(plain(mine, reference.rows[~np.isin(group, pair)]))
    drawn = reference.drawn(2, 2, draws=200, seed=1)
    assert np.abs(drawn[:, None] - np.array(every)).min(1).max() < 1e-12
    assert len(np.unique(drawn.round(10))) == 10


def test_a_drawn_row_is_no_pair_with_its_copy() -> None:
    """A replicate of three images, one of them twice, by a loop over pairs of different images."""
    reference, new = Reference(rows(4, 6), np.arange(6), BANDWIDTH), rows(5, 3, 0.5)
    low, high = reference.interval(new, np.arange(3), replicates=4000)
    values = []
    for drawn in np.ndindex(3, 3, 3):
        pairs = [(i, j) for i in range(3) for j in range(3) if i != j and drawn[i] != drawn[j]]
        if pairs:
            values.append(plain(new[list(drawn)], reference.rows, pairs))
    assert np.quantile(values, 0.025) == pytest.approx(low, abs=0.01)
    assert np.quantile(values, 0.975) == pytest.approx(high, abs=0.01)


@pytest.mark.parametrize("groups", [None, 25])
def test_the_interval_holds_the_distance(groups: int | None) -> None:
    """Of 100 sets of a shifted kind it holds the distance of a very large one in at least 88; of groups, too."""
    random = np.random.default_rng(0)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        member = np.arange(count) if groups is None else np.arange(count) // 4
        own = 0 if groups is None else 0.5 * random.normal(size=(int(member.max()) + 1, 5))[member]
        return random.normal(0.4, 1, (count, 5)) + own, member

    reference = Reference(random.normal(size=(100, 5)), np.arange(100), BANDWIDTH)
    truth = reference.discrepancy(draw(3000)[0])
    held = 0
    for _ in range(100):
        low, high = reference.interval(*draw(100), replicates=300)
        held += low <= truth <= high
    assert held >= 88
