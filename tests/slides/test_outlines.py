"""Outlines are valid polygons that cover exactly the positive tiles, holes included, in the form QuPath reads."""

import json
import uuid
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
from shapely.geometry import shape

from tumortrace.records.scans import Ranged
from tumortrace.slides.outlines import outlines_geojson, tumour_polygons
from tumortrace.slides.score import slide_score, tumour_area


def tiles_of(grid: np.ndarray, side: int = 10, step: int | None = None) -> pd.DataFrame:
    """Tiles of `side` px every `step` px, with the grid as their predictions."""
    step = step or side
    rows, columns = np.indices(grid.shape)
    table = {"x": columns.ravel() * step, "y": rows.ravel() * step, "width": side, "height": side}
    called = grid.ravel().astype(int)
    words = np.where(called == 1, "positive", "negative")
    return pd.DataFrame(table | {"probability": called * 0.9, "prediction": called, "decision": words})


def raster(tiles: pd.DataFrame, slide: tuple[int, int]) -> np.ndarray:
    """The positive tiles painted px by px: the independent truth."""
    canvas = np.zeros((slide[1], slide[0]), bool)
    for x, y, width, height in tiles.loc[tiles["prediction"] == 1, ["x", "y", "width", "height"]].to_numpy():
        canvas[y : y + height, x : x + width] = True
    return canvas


def written(tiles: pd.DataFrame, slide: tuple[int, int], resolution: float | None = None) -> dict[str, Any]:
    """What a program would read from the file."""
    polygons = tumour_polygons(tiles, slide)
    content = outlines_geojson(polygons, tiles, slide_name="a.svs", positive_class="tumour", resolution=resolution)
    return json.loads(json.dumps(content, allow_nan=False))


@pytest.mark.parametrize("step", [10, 5, 7])
@pytest.mark.parametrize("seed", range(4))
def test_outlines_cover_the_positive_tiles_and_nothing_else(seed: int, step: int) -> None:
    """Read back, they are valid, disjoint, and contain the middles of exactly the px that positive tiles paint."""
    grid = np.random.default_rng(seed).random((12, 9)) < 0.55
    tiles, slide = tiles_of(grid, step=step), (9 * step - 3, 12 * step + 20)
    parts = [shape(feature["geometry"]) for feature in written(tiles, slide)["features"]]
    truth = raster(tiles, slide)
    assert len(parts) >= 1
    assert all(part.is_valid and part.geom_type == "Polygon" for part in parts)
    assert sum(part.area for part in parts) == truth.sum() == shapely.union_all(parts).area
    y, x = np.nonzero(np.ones_like(truth))
    covered = shapely.contains_xy(shapely.union_all(parts), x + 0.5, y + 0.5).reshape(truth.shape)
    np.testing.assert_array_equal(covered, truth)


def test_holes_and_islands_survive_the_file() -> None:
    """A ring around a hole with an island in it: two features, one hole, tiles that touch in a corner stay apart."""
    grid = np.ones((7, 7))
    grid[1:6, 1:6] = 0
    grid[3, 3] = 1
    features = written(tiles_of(grid), (70, 70), resolution=0.5)["features"]
    ring, island = (shape(feature["geometry"]) for feature in features)
    assert [len(ring.interiors), len(island.interiors)] == [1, 0]
    assert (ring.area, island.area, shapely.Polygon(ring.interiors[0]).area) == (2400, 100, 2500)
    assert not ring.contains(island)
    diagonal = written(tiles_of(np.eye(3)), (30, 30))["features"]
    assert len(diagonal) == 3


def test_features_say_what_qupath_reads() -> None:
    """Type, UUID, class with colour, and numbers alone as measurements; rings are closed, whole-numbered and wound
    as the standard says."""
    grid = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1]])
    tiles = tiles_of(grid)
    tiles.loc[0, "probability"] = 0.7
    content = written(tiles, (30, 30), resolution=0.5)
    assert content["type"] == "FeatureCollection"
    assert "not a medical device" in content["research_use"].lower()
    first, second = content["features"]
    assert first["type"] == "Feature"
    assert uuid.UUID(first["id"]) != uuid.UUID(second["id"])
    assert first["properties"]["objectType"] == "annotation"
    assert first["properties"]["classification"] == {"name": "tumour", "color": [200, 0, 0]}
    measurements = first["properties"]["measurements"]
    assert measurements == {
        "Area px^2": 200,
        "Area mm^2": pytest.approx(200 * 0.25e-6),
        "Tiles": 2,
        "Mean probability": pytest.approx(0.8),
        "Max probability": pytest.approx(0.9),
    }
    (ring,) = first["geometry"]["coordinates"]
    assert ring[0] == ring[-1]
    assert {tuple(corner) for corner in ring} == {(0, 0), (20, 0), (20, 10), (0, 10)}
    assert len(ring) == 5
    assert shapely.is_ccw(shape(first["geometry"]).exterior)
    assert written(tiles, (30, 30), resolution=0.5) == content
    assert "Area mm^2" not in written(tiles, (30, 30))["features"][0]["properties"]["measurements"]


def test_a_slide_without_positive_tiles_has_no_outlines() -> None:
    """The file is still a collection, with nothing in it."""
    assert written(tiles_of(np.zeros((3, 3))), (30, 30))["features"] == []
    assert written(tiles_of(np.zeros((0, 0))), (30, 30))["features"] == []


def test_the_score_is_the_mean_of_the_ten_highest() -> None:
    """By hand: 1 to 20 hundredths, of which 11 to 20 count; fewer tiles all count; none have no score."""
    score = slide_score(pd.DataFrame({"probability": np.arange(1, 21)[::-1] / 100}))
    assert score.value == pytest.approx(0.155)
    assert score.ci95 is None
    assert slide_score(pd.DataFrame({"probability": [0.2]})).value == 0.2
    assert slide_score(pd.DataFrame({"probability": []})).value is None


def test_tumour_area_counts_tissue_only_and_spans_the_referred_tiles() -> None:
    """A slide of 40 x 40 px of 2 um, its upper half tissue, four tiles across; of the tissue, 1/4 is surely tumour,
    1/4 called tumour but referred, 1/4 called normal but referred."""
    mask = np.zeros((40, 40), bool)
    mask[:20] = True
    tiles = pd.DataFrame({"x": [0, 10, 20, 30], "y": 0, "width": 10, "height": 40})
    tiles["prediction"], tiles["decision"] = [1, 1, 0, 0], ["positive", "refer", "refer", "negative"]
    found = tumour_area(tiles, mask, (40, 40), 2.0, 0.9)
    assert found.share == Ranged(value=0.5, range=(0.25, 0.75))
    assert found.mm2.value == pytest.approx(0.0016)
    assert found.mm2.range == pytest.approx((0.0008, 0.0024))
    assert "not a confidence interval" in found.definition
    unsure = tumour_area(tiles, mask, (40, 40), None, None)
    assert unsure.share == Ranged(value=0.5, range=None)
    assert unsure.mm2 == Ranged(value=None, range=None)
    nothing = tumour_area(tiles, np.zeros_like(mask), (40, 40), 2.0, 0.9)
    assert nothing.share == nothing.mm2 == Ranged(value=None, range=None)
