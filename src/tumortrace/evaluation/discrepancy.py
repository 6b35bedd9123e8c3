"""How far two sets of images lie apart as wholes: maximum mean discrepancy, and the same of groups drawn from one.

Gretton et al. (2012), "A kernel two-sample test", Journal of Machine Learning Research 13, equation 3: the squared
discrepancy without bias, so that two sets of one kind have 0 on average, and less as often as more.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def kernel(one: ArrayLike, other: ArrayLike, bandwidth: float) -> Floats:
    """Gaussian kernel of rows (N, D) and (M, D): exp(-distance squared / (2 bandwidth squared)), float64, (N, M).

    Example:
        >>> kernel([[0.0, 0.0]], [[0.0, 0.0], [3.0, 4.0]], 5.0).round(4).tolist()
        [[1.0, 0.6065]]
    """
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.asarray(np.exp(-np.maximum(squared, 0) / (2 * bandwidth**2)))


def median_distance(rows: ArrayLike) -> float:
    """Median distance between two different rows, shape (N, D): the usual bandwidth; 0 where most are alike.

    Example:
        >>> median_distance([[0.0], [1.0], [3.0]])
        2.0
    """
    from scipy.spatial.distance import pdist

    return float(np.median(pdist(np.asarray(rows, np.float64))))


class Reference:
    """Rows that sets are compared with, and their groups.

    Args:
        rows: Shape (M, D), M at least 2.
        group: Number of each row's group, int, shape (M,). The first rows of a group stand for it where fewer are
            needed, so their order has to be random.
        bandwidth: Of the kernel, above 0.

    Example:
        >>> reference = Reference([[0.0], [1.0], [0.0], [1.0]], [0, 0, 1, 1], 1.0)
        >>> round(reference.discrepancy([[0.0], [1.0]]), 4), round(reference.discrepancy([[9.0], [8.0]]), 4)
        (-0.2623, 1.3442)
    """

    def __init__(self, rows: ArrayLike, group: ArrayLike, bandwidth: float) -> None:
        self.rows, self.bandwidth = np.asarray(rows, np.float64), bandwidth
        _, self.group = np.unique(np.asarray(group), return_inverse=True)
        self._drawn: dict[tuple[int, ...], Floats] = {}

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Rows of each group."""
        return np.bincount(self.group)

    @cached_property
    def _pairs(self) -> Floats:
        """Kernel of all rows with one another; of a row with itself 0."""
        values = kernel(self.rows, self.rows, self.bandwidth)
        np.fill_diagonal(values, 0)
        return values

    @cached_property
    def _within(self) -> float:
        count = len(self.rows)
        return float(self._pairs.sum() / (count * (count - 1)))

    def discrepancy(self, rows: ArrayLike) -> float:
        """Squared discrepancy of a set of rows, shape (N, D), N at least 2, from all rows here, without bias."""
        values = np.asarray(rows, np.float64)
        count = len(values)
        within = kernel(values, values, self.bandwidth).sum() - count
        return float(
            within / (count * (count - 1)) + self._within - 2 * kernel(values, self.rows, self.bandwidth).mean()
        )

    def interval(
        self, rows: ArrayLike, group: ArrayLike, *, replicates: int = 1000, seed: int = 0
    ) -> tuple[float, float]:
        """Its 95 % interval by percentile bootstrap over the set's groups; the rows here are taken as they are.

        A group that is drawn twice is two groups: pairs of a row with itself, or of rows from one group in two of its
        copies, are no pairs of a set, and do not count.

        Args:
            rows: Of the set, shape (N, D).
            group: What is drawn, of each row, shape (N,).
            replicates: How often.
            seed: Of the draws.
        """
        values, (_, member) = np.asarray(rows, np.float64), np.unique(np.asarray(group), return_inverse=True)
        count = int(member.max()) + 1
        inside = kernel(values, values, self.bandwidth)
        np.fill_diagonal(inside, 0)
        sums, sizes = _by_group(_by_group(inside, member).T, member), np.bincount(member).astype(np.float64)
        across = _by_group(kernel(values, self.rows, self.bandwidth).mean(1), member)
        drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), replicates).astype(np.float64)
        own, apart, alone = np.diag(sums), np.outer(sizes, sizes) - np.diag(sizes**2), sizes * (sizes - 1)
        total = _form(drawn, sums - np.diag(own)) + drawn @ own
        pairs = _form(drawn, apart) + drawn @ alone
        kept = pairs > 0
        found = total[kept] / pairs[kept] + self._within - 2 * (drawn[kept] @ across) / (drawn[kept] @ sizes)
        low, high = np.quantile(found, [0.025, 0.975])
        return float(low), float(high)

    def drawn(self, groups: int, images: int, *, draws: int, seed: int = 0) -> Floats:
        """Squared discrepancies of sets of groups drawn from here, from all rows of the other groups.

        Args:
            groups: How many a set has, at most half of those with so many images; of one, each group is a set.
            images: The first so many rows of each that is drawn.
            draws: Sets of more than one group.
            seed: Of the draws.

        Returns:
            One for each set, shape (sets,).
        """
        asked = (groups, images, draws, seed)
        if asked not in self._drawn:
            self._drawn[asked] = self._draw(*asked)
        return self._drawn[asked]

    def _draw(self, groups: int, images: int, draws: int, seed: int) -> Floats:
        first = _rank(self.group) < images
        able = np.flatnonzero(self.sizes >= images)
        count = len(self.sizes)
        if groups == 1:
            chosen = np.eye(count)[able]
        else:
            random = np.random.default_rng(seed)
            chosen = np.zeros((draws, count))
            for row in chosen:
                row[random.choice(able, groups, replace=False)] = 1
        by_group = _by_group(self._pairs, self.group)  # of each group with every row
        across, rest = _by_group(by_group[:, first].T, self.group[first]), _by_group(by_group.T, self.group)
        inner = _by_group(_by_group(self._pairs[np.ix_(first, first)], self.group[first]).T, self.group[first])
        size = np.bincount(self.group[first], minlength=count)
        others = 1 - chosen
        here, there = chosen @ size, others @ self.sizes
        apart = ((chosen @ across) * others).sum(1)
        return np.asarray(
            _form(chosen, inner) / (here * (here - 1))
            + _form(others, rest) / (there * (there - 1))
            - 2 * apart / (here * there)
        )


def _by_group(values: Floats, group: NDArray[np.int64]) -> Floats:
    """Sums of rows by group, of which each has some."""
    starts = np.concatenate([[0], np.cumsum(np.bincount(group))[:-1]])
    return np.asarray(np.add.reduceat(values[np.argsort(group, kind="stable")], starts))


def _form(weights: Floats, matrix: Floats) -> Floats:
    """The quadratic form of each row of weights."""
    return np.asarray(((weights @ matrix) * weights).sum(1))


def _rank(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each row its place among those of its group, from 0."""
    order = np.argsort(group, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(group))[:-1]])
    rank = np.empty(len(group), np.int64)
    rank[order] = np.arange(len(group)) - np.repeat(starts, np.bincount(group))
    return rank
