"""The picture of augmented patches."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tumortrace.reports.exploration import augmentation_figure


def boxes(figure: Figure) -> list[tuple[float, float]]:
    """Left edge and width of the square in each panel that has one."""
    return [(p.get_x(), p.get_width()) for axes in figure.axes for p in axes.patches if isinstance(p, Rectangle)]


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_each_original_stands_before_its_own_draws(kind: type) -> None:
    """Row by row the pixels that were given, of either type, with names that look like markup."""
    rng = np.random.default_rng(0)
    originals = rng.integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    draws = rng.integers(0, 256, (2, 3, 64, 64, 3), dtype=np.uint8)
    given = draws if kind is np.uint8 else (draws / 255).astype(kind)
    figure = augmentation_figure(originals, given, names=["$x$ \\frac", "<b>"])
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    expected = [panel for k in range(2) for panel in (originals[k], *given[k])]
    assert all(map(np.array_equal, shown, expected))
    with io.BytesIO() as file:
        figure.savefig(file, format="png")
        assert file.tell() > 10_000
    assert boxes(figure) == [(31.5, 32), (15.5, 32), (15.5, 32), (15.5, 32)] * 2
    assert "Not a medical device" in figure.get_supxlabel()


def test_the_centre_square_follows_the_scale_and_is_left_out_where_it_is_all() -> None:
    """A 32 px crop shown at 64 px is all centre; a 64 px crop shown at 128 px has a centre of 64 px."""
    originals = np.zeros((1, 96, 96, 3), np.uint8)
    assert boxes(augmentation_figure(originals, np.zeros((1, 1, 64, 64, 3)), scale=2)) == [(31.5, 32)]
    scaled = augmentation_figure(originals, np.zeros((1, 1, 128, 128, 3)), scale=2)
    assert boxes(scaled) == [(31.5, 32), (31.5, 64)]
    assert boxes(augmentation_figure(originals, np.zeros((1, 0, 64, 64, 3)), centre=0)) == []


def test_draws_of_other_originals_are_refused() -> None:
    """As many rows of draws, and of names, as originals."""
    with pytest.raises(ValueError, match="2 originals, 3 rows"):
        augmentation_figure(np.zeros((2, 8, 8, 3), np.uint8), np.zeros((3, 1, 8, 8, 3)))
    with pytest.raises(ValueError, match="1 names"):
        augmentation_figure(np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 1, 8, 8, 3)), names=["a"])
