"""The law of learning curves against curves whose parameters are known, and against NumPy's straight line."""

from __future__ import annotations

import numpy as np
import pytest

from tumortrace.evaluation.power_law import extrapolate, fit_power_law

SIZES = np.array([50, 150, 500, 1500, 5000])


@pytest.mark.parametrize(("floor", "scale", "exponent"), [(0.0, 0.9, 0.3), (0.04, 2.0, 0.6), (0.1, 0.5, 0.2)])
def test_a_law_is_found_again(floor: float, scale: float, exponent: float) -> None:
    """From exact points, the error at ten times the largest size is the law's."""
    law = fit_power_law(SIZES, floor + scale * SIZES**-exponent)
    assert law is not None
    assert law(50_000) == pytest.approx(floor + scale * 50_000**-exponent, rel=0.01)


def test_three_sizes_are_a_line_in_logarithms() -> None:
    """Without a floor the fit is NumPy's straight line through the logarithms, whatever the noise."""
    sizes, error = np.array([10, 10, 100, 1000]), np.array([0.3, 0.34, 0.2, 0.08])
    slope, height = np.polyfit(np.log(sizes), np.log(error), 1)
    law = fit_power_law(sizes, error)
    assert law is not None
    assert law.floor == 0
    assert law.exponent == pytest.approx(-slope, rel=1e-4)
    assert law.scale == pytest.approx(np.exp(height), rel=1e-3)


def test_an_error_that_does_not_fall_has_exponent_0() -> None:
    """A curve that rises is called flat: more images are never said to harm."""
    law = fit_power_law([10, 100, 1000], [0.1, 0.12, 0.15])
    assert law is not None
    assert law.exponent == pytest.approx(0, abs=1e-6)


def test_too_few_sizes_are_no_law() -> None:
    """Two sizes, however many runs."""
    assert fit_power_law([10, 10, 100, 100], [0.3, 0.2, 0.1, 0.1]) is None
    assert extrapolate([10, 100], [0.3, 0.1], [1000]) is None


def test_the_range_holds_the_law_and_grows_with_the_distance() -> None:
    """Three noisy runs of each size; beyond the last size the range widens in proportion to the error."""
    random = np.random.default_rng(3)
    images = np.repeat(SIZES, 3)
    error = 0.8 * images**-0.3 * np.exp(random.normal(0, 0.08, len(images)))
    found = extrapolate(images, error, [500, 50_000], replicates=100)
    assert found is not None
    values, ranges = found
    assert (ranges[:, 0] <= values).all()
    assert (values <= ranges[:, 1]).all()
    relative = np.diff(ranges)[:, 0] / values
    assert relative[1] > 1.5 * relative[0]
