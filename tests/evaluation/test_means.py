"""Means over images with intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from tests.evaluation.plain import mean_with_interval


def test_single_images_as_scipy() -> None:
    """The interval is scipy's percentile bootstrap of the mean, up to the noise of replicates."""
    values = np.random.default_rng(1).gamma(2, size=80)
    found = mean_with_interval(values, replicates=4000)
    expected = bootstrap((values,), np.mean, method="percentile", rng=0, n_resamples=4000).confidence_interval
    assert found["value"] == pytest.approx(values.mean())
    np.testing.assert_allclose(found["ci95"], expected, atol=0.03)


def test_groups_are_drawn_whole() -> None:
    """Images that repeat within a slide are no more certain than the slides: the interval is that of slides' means."""
    slides = np.random.default_rng(2).normal(size=12)
    groups = [f"s{i // 10:02}" for i in range(120)]
    repeated = mean_with_interval(np.repeat(slides, 10), groups)
    np.testing.assert_allclose(repeated["ci95"], mean_with_interval(slides)["ci95"])
    single = mean_with_interval(np.repeat(slides, 10))["ci95"]
    assert single[1] - single[0] < 0.5 * (repeated["ci95"][1] - repeated["ci95"][0])


def test_what_is_not_defined_is_left_out_or_none() -> None:
    """NaN is not counted; without values there is no mean, and without two units no interval."""
    assert mean_with_interval([np.nan, 2.0, 4.0])["value"] == 3
    assert mean_with_interval([np.nan]) == {"value": None, "ci95": None, "n": 0}
    assert mean_with_interval([5.0]) == {"value": 5.0, "ci95": None, "n": 1}
    assert mean_with_interval([1.0, 2.0], ["a", None])["ci95"] is not None  # not all groups known: single images
