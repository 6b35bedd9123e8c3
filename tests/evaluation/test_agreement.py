"""Agreement of calls against SciPy's Wilson interval and a loop over drawn groups."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from tests.evaluation.plain import agreement
from tumortrace.errors import PredictionsError


def test_single_images_have_wilsons_interval() -> None:
    """17 of 20 alike: SciPy's interval; a group for some images only changes nothing."""
    first, second = [1] * 20, [1] * 17 + [0] * 3
    expected = binomtest(17, 20).proportion_ci(method="wilson")
    for group in (None, ["a"] * 19 + [None], ["a"] * 20):
        found = agreement(first, second, group)
        assert found["value"] == 0.85
        assert found["ci95"] == pytest.approx([expected.low, expected.high])


def test_whole_groups_are_drawn() -> None:
    """The percentiles of a plain loop over drawn groups, which differ in size and in agreement."""
    random = np.random.default_rng(0)
    group = np.repeat(np.arange(12), random.integers(1, 20, 12))
    first = random.integers(0, 2, len(group))
    second = np.where(random.random(len(group)) < group / 12, first, 1 - first)
    found = agreement(first, second, group.astype(str), replicates=4000)
    shares = []
    for _ in range(4000):
        drawn = np.concatenate([np.flatnonzero(group == one) for one in random.integers(0, 12, 12)])
        shares.append((first[drawn] == second[drawn]).mean())
    assert found["value"] == (first == second).mean()
    assert found["ci95"] == pytest.approx(list(np.quantile(shares, [0.025, 0.975])), abs=0.02)


def test_arrays_that_do_not_fit_are_refused() -> None:
    """Lengths that differ, and calls that are none."""
    with pytest.raises(PredictionsError, match="one length"):
        agreement([0, 1], [0])
    with pytest.raises(PredictionsError, match="column label"):
        agreement([0, 2], [0, 1])
