"""Tiles cover the tissue, know their share of it, and are read in order a bounded number ahead."""

import threading
import time

import numpy as np
import pandas as pd
import pytest

from tumortrace.errors import SlideError
from tumortrace.slides.heatmap import heat_array
from tumortrace.slides.tiling import cells, read_tiles, tile_tissue


def test_tissue_share_equals_counting_pixels() -> None:
    """With one px of mask per px of slide, each share is the mean of the mask under the tile, white beyond the edge."""
    mask = np.random.default_rng(1).random((73, 101)) < 0.4
    tiles = tile_tissue(mask, (101, 73), (20, 16), overlap=0.25, minimum_tissue=0)
    padded = np.pad(mask, 40)
    for x, y, width, height, tissue in tiles.itertuples(index=False):
        assert (width, height) == (20, 16)
        counted = padded[40 + y : 40 + y + height, 40 + x : 40 + x + width].mean()
        assert tissue == pytest.approx(counted, abs=1e-4)
    assert sorted(set(tiles["x"])) == [0, 15, 30, 45, 60, 75, 90]  # ceil((101 - 20) / 15) + 1 columns
    assert sorted(set(tiles["y"])) == [0, 12, 24, 36, 48, 60]


def test_shares_are_exact_on_a_coarse_mask() -> None:
    """A tile that covers thumbnail px in part counts that part: 3 of 4 quarters of 4 px are 56.25 %, by hand."""
    mask = np.array([[True, False], [False, False]])
    tiles = tile_tissue(mask, (80, 80), (40, 40), overlap=0.75, minimum_tissue=0.5)
    shares = {(row.x, row.y): row.tissue for row in tiles.itertuples()}
    assert shares == {(0, 0): 1, (10, 0): 0.75, (20, 0): 0.5, (0, 10): 0.75, (10, 10): 0.5625, (0, 20): 0.5}


@pytest.mark.parametrize("overlap", [0, 0.5, 0.9])
def test_the_whole_slide_is_covered(overlap: float) -> None:
    """Whatever the overlap and an odd scale, no px of tissue is left without a tile."""
    tiles = tile_tissue(np.ones((50, 50), bool), (997, 503), (93.4, 61.7), overlap=overlap, minimum_tissue=0)
    seen = np.zeros((503, 997), bool)
    for x, y, width, height, _ in tiles.itertuples(index=False):
        seen[y : y + height, x : x + width] = True
    assert seen.mean() > 0.999
    assert not tiles.duplicated(["x", "y"]).any()


def test_tiles_with_little_tissue_are_left_out() -> None:
    """The limit belongs to what is kept, and no tissue means no tile even at a limit of 0."""
    mask = np.zeros((40, 40), bool)
    mask[:10, :10] = True
    assert len(tile_tissue(mask, (40, 40), (20, 20), overlap=0, minimum_tissue=0.25)) == 1
    assert len(tile_tissue(mask, (40, 40), (20, 20), overlap=0, minimum_tissue=0.26)) == 0
    assert len(tile_tissue(mask, (40, 40), (20, 20), overlap=0, minimum_tissue=0)) == 1


class CountingSlide:
    """Gives each region's x as its colour, at uneven speed, and counts what was asked for."""

    def __init__(self) -> None:
        self.asked, self.lock = 0, threading.Lock()

    def read_region(
        self, x: int, y: int, width: int, height: int, *, size: tuple[int, int], level: object
    ) -> np.ndarray:
        with self.lock:
            self.asked += 1
        time.sleep(0.002 * (x % 3))
        if x == 200:
            raise SlideError("damaged")
        return np.full((size[1], size[0], 3), x, np.uint8)


def test_tiles_are_read_in_order_and_a_bounded_number_ahead() -> None:
    """Threads do not change the order, and no more than `ahead` tiles are under way or waiting."""
    slide, table = CountingSlide(), pd.DataFrame({"x": range(60), "y": 0, "width": 8, "height": 8})
    for taken, image in enumerate(read_tiles(slide, table, (3, 2), ahead=7)):  # type: ignore[arg-type]
        assert image.shape == (2, 3, 3)
        assert image[0, 0, 0] == taken
        time.sleep(0.1 if taken == 0 else 0)  # time enough for threads that know no bound
        assert slide.asked <= taken + 7
    assert slide.asked == 60


def test_damage_found_while_reading_reaches_the_caller() -> None:
    """An error in a thread is raised where the tiles are used, and reading stops."""
    slide, table = CountingSlide(), pd.DataFrame({"x": range(195, 255), "y": 0, "width": 8, "height": 8})
    with pytest.raises(SlideError, match="damaged"):
        list(read_tiles(slide, table, (3, 2), ahead=7))  # type: ignore[arg-type]
    assert slide.asked < 20


def test_heat_is_the_mean_of_the_tiles_over_a_pixel() -> None:
    """Two tiles that overlap by half average where both lie; elsewhere there is nothing (by hand)."""
    columns = {"x": [0, 10], "y": [0, 0], "width": [20, 20], "height": [20, 20], "probability": [0.2, 0.6]}
    heat = heat_array(pd.DataFrame(columns), (40, 40), (4, 4))
    expected = np.full((4, 4), np.nan)
    expected[:2, :3] = [0.2, 0.4, 0.6]
    np.testing.assert_allclose(heat, expected)
    assert np.isnan(heat_array(pd.DataFrame(columns).iloc[:0], (40, 40), (2, 2))).all()


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 2 / 3, 0.9])
@pytest.mark.parametrize("side", [96, 187, 33])
def test_cells_lie_side_by_side_in_the_middle_of_their_tiles(overlap: float, side: int) -> None:
    """Painted px by px, every px between the first and the last belongs to exactly one cell, which lies in the middle
    of its tile to a px."""
    tiles = tile_tissue(np.ones((50, 40), bool), (800, 1000), (side, side), overlap=overlap, minimum_tissue=0)
    shown = cells(tiles.assign(probability=0.5), overlap)
    count = np.zeros((1400, 1400), int)
    for x, y, width, height in shown[["x", "y", "width", "height"]].to_numpy():
        count[y : y + height, x : x + width] += 1
    filled = np.argwhere(count)
    (top, left), (bottom, right) = filled.min(0), filled.max(0) + 1
    assert (count[top:bottom, left:right] == 1).all()
    middle = (shown["x"] + shown["width"] / 2) - (tiles["x"] + tiles["width"] / 2)
    assert middle.abs().max() <= 1
    assert (shown["probability"] == 0.5).all()
    if overlap == 0:
        assert shown.drop(columns="probability").equals(tiles)
