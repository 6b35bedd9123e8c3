"""The synthetic whole slide, as openslide, tifffile and QuPath see it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from matplotlib.path import Path as Curve
from PIL import Image

from tumortrace.cohorts.synthetic import synthesise
from tumortrace.errors import CohortError

openslide = pytest.importorskip("openslide", reason="needs the extra `slides`")


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One slide in a folder."""
    return synthesise("slide", tmp_path_factory.mktemp("slide"), seed=3)


def test_openslide_reads_a_pyramid_with_its_resolution(slide: Path) -> None:
    """Four levels that halve, 1 um per pixel, tissue in the middle and glass in the corner."""
    with openslide.OpenSlide(slide) as opened:
        assert opened.level_dimensions == ((3072, 2048), (1536, 1024), (768, 512), (384, 256))
        assert float(opened.properties["openslide.mpp-x"]) == pytest.approx(1.0)
        assert float(opened.properties["openslide.mpp-y"]) == pytest.approx(1.0)
        corner = np.asarray(opened.read_region((0, 0), 0, (60, 60)).convert("RGB"))
        assert corner.min() > 190
        small = np.asarray(opened.read_region((0, 0), 3, (384, 256)).convert("RGB"), float)
    assert 0.4 < (small.min(axis=2) < 190).mean() < 0.9


def test_each_level_is_the_mean_of_the_one_above(slide: Path) -> None:
    """Tiles of 256 px; further pages are marked as reduced and equal 2x2 block means."""
    with tifffile.TiffFile(slide) as file:
        assert all(page.is_tiled and page.tile == (256, 256) for page in file.pages)
        assert [page.subfiletype for page in file.pages] == [0, 1, 1, 1]
        upper, lower = file.pages[0].asarray().astype(float), file.pages[1].asarray().astype(float)
    means = upper.reshape(1024, 2, 1536, 2, 3).mean(axis=(1, 3))
    assert np.abs(means - lower).max() <= 0.5


def test_the_outlines_are_those_of_the_mask(slide: Path) -> None:
    """Points inside the GeoJSON polygons (x before y, pixels of level 0) are tumour in the 1/8 mask; others are not."""
    mask = np.asarray(Image.open(slide.with_name("slide_mask.png")))
    assert mask.shape == (256, 384)
    features = json.loads(slide.with_name("slide.geojson").read_text())["features"]
    assert len(features) >= 3
    y, x = np.mgrid[:256, :384] * 8
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    inside = np.zeros(mask.size, bool)
    for feature in features:
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        assert feature["properties"]["classification"]["name"] == "Tumor"
        inside |= Curve(ring).contains_points(points)
    assert (inside.reshape(mask.shape) != (mask > 0)).mean() < 0.001
    record = json.loads(slide.with_name("slide.json").read_text())
    assert record["complete"]
    assert record["tumour_fraction"] == pytest.approx(inside.mean(), abs=0.005)


def test_the_tumour_is_darker_than_the_rest_of_the_tissue(slide: Path) -> None:
    """What the outlines enclose holds more haematoxylin: less red light at level 3."""
    with tifffile.TiffFile(slide) as file:
        small = file.pages[3].asarray().astype(float)
    tumour = np.asarray(Image.open(slide.with_name("slide_mask.png"))) > 0
    tissue = small.min(axis=2) < 190
    assert small[tumour, 0].mean() < small[tissue & ~tumour, 0].mean() - 20


def test_a_file_of_the_user_is_not_written_over(tmp_path: Path) -> None:
    """A TIFF that is there already is refused and kept."""
    mine = tmp_path / "mine.tif"
    mine.write_bytes(b"mine")
    with pytest.raises(CohortError, match="not a synthetic slide"):
        synthesise("slide", mine)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.tif"]
    assert mine.read_bytes() == b"mine"
