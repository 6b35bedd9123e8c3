"""Local binary patterns on patches worked out by hand. Neighbours count from the right, counter-clockwise."""

from __future__ import annotations

import numpy as np
import pytest

from tumortrace.texture.lbp import ROTATION_INVARIANT, UNIFORM, lbp_median, lbp_mvm, mean_codes, median_codes, mvm_codes

E, NE, N, NW, W, SW, S, SE = (1 << bit for bit in range(8))


def patch(*rows: list[int]) -> np.ndarray:
    return np.array([rows], np.uint8)


def test_mean_and_median_tell_different_things() -> None:
    """Window 90 0 0 / 1 2 3 / 0 0 0 has mean 96/9 = 10.7 and median 0: one neighbour above it, or all of them."""
    grey = patch([90, 0, 0], [1, 2, 3], [0, 0, 0])
    assert mean_codes(grey)[0, 1, 1] == NW
    assert median_codes(grey)[0, 1, 1] == 255


def test_a_neighbour_equal_to_the_mean_counts() -> None:
    """Window 3 5 7 / 3 5 7 / 3 5 7 has mean and median 5: right, above and below are at least that."""
    grey = patch([3, 5, 7], [3, 5, 7], [3, 5, 7])
    assert mean_codes(grey)[0, 1, 1] == E | NE | N | S | SE
    assert median_codes(grey)[0, 1, 1] == E | NE | N | S | SE


def test_means_are_not_rounded() -> None:
    """Window of eight 1 and one 0 has mean 8/9, which a 1 exceeds and a 0 does not."""
    assert mean_codes(patch([1, 1, 1], [1, 1, 0], [1, 1, 1]))[0, 1, 1] == 255 - E


def test_borders_are_mirrored() -> None:
    """At the corner of 8 0 / 0 0 the window is 8 8 0 / 8 8 0 / 0 0 0: mean 32/9, median 0."""
    grey = patch([8, 0], [0, 0])
    assert mean_codes(grey)[0, 0, 0] == N | NW | W
    assert median_codes(grey)[0, 0, 0] == 255


def test_multi_variance_median_codes() -> None:
    """A bright pixel in the middle of 5x5 dark ones, 9 among 0.

    Its eight neighbours and itself have it in their windows: there mean 1, variance 81/9 - 1 = 8, median 0; elsewhere
    all are 0. So the maps of mean and variance are a 3x3 square, that of the median is 0 everywhere. In the middle of
    the square all neighbours are equal; at its right edge the three on the right are less; at its upper right corner
    only those to the left and below remain. Outside everything is at least 0.
    """
    grey = np.zeros((1, 5, 5), np.uint8)
    grey[0, 2, 2] = 9
    found = mvm_codes(grey)
    edge, corner = 255 - E - NE - SE, W | SW | S
    for name in ("mean", "variance"):
        code = found[name][0]
        assert code[2, 2] == 255
        assert code[2, 3] == edge
        assert code[1, 3] == corner
        assert code[0, 0] == code[4, 2] == 255
    assert (found["median"] == 255).all()


def test_multi_variance_median_tells_mean_from_variance() -> None:
    """Columns 0 0 0 | 6 6 6 | 0 6 0: what mean, variance and median make of a step and a line.

    Mean in column 3 (windows 0 6 6) is 4, in column 4 (6 6 6) 6, in column 5 (6 6 0) 4; variance there 8, 0, 8;
    median 6, 6, 6. At column 4 the mean is the largest, the variance the smallest, the median equal to both sides.
    """
    row = [0, 0, 0, 6, 6, 6, 0, 6, 0]
    found = mvm_codes(patch(*[row] * 5))
    assert found["mean"][0, 2, 4] == N | S
    assert found["variance"][0, 2, 4] == 255
    assert found["median"][0, 2, 4] == 255
    assert found["variance"][0, 2, 3] == 255 - E - NE - SE


def test_multi_variance_median_against_its_definition() -> None:
    """Pixel by pixel, with NumPy's mean, variance and median, on few levels, so that many are equal."""
    grey = np.random.default_rng(4).integers(0, 4, (1, 7, 6), dtype=np.uint8)
    padded = np.pad(grey[0], 1, mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).astype(float)
    maps = {
        "mean": windows.sum(axis=(2, 3)),  # sums and whole numbers, so that equal ones are equal
        "variance": np.rint(81 * windows.var(axis=(2, 3))),
        "median": np.median(windows, axis=(2, 3)),
    }
    places = [(0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1)]
    for name, values in maps.items():
        wide = np.pad(values, 1, mode="symmetric")
        for row, column in np.ndindex(7, 6):
            neighbours = [wide[1 + row + down, 1 + column + right] for down, right in places]
            code = sum(1 << bit for bit, value in enumerate(neighbours) if value >= values[row, column])
            assert mvm_codes(grey)[name][0, row, column] == code, (name, row, column)


def test_kinds_of_codes() -> None:
    """58 of 256 codes are uniform; runs count by their ones, whatever their place; all else is one kind."""
    assert len(set(UNIFORM.tolist())) == 59
    assert (UNIFORM == 58).sum() == 256 - 58
    assert [ROTATION_INVARIANT[code] for code in (0, 1, 128, 0b11000001, 255, 0b101)] == [0, 1, 1, 3, 8, 9]
    assert UNIFORM[0] == 0
    assert UNIFORM[255] == 57


@pytest.mark.parametrize("describe", [lbp_median, lbp_mvm])
def test_shares_add_up(describe: object) -> None:
    """Each histogram of 59 kinds has sum 1."""
    images = np.random.default_rng(1).integers(0, 256, (2, 12, 9, 3), dtype=np.uint8)
    values = describe(images)[1]  # type: ignore[operator]
    np.testing.assert_allclose(values.reshape(2, -1, 59).sum(axis=2), 1)
