"""The heat as a pyramid: read back by tifffile, each tile's probability where the tile lies."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.slides.test_scan import fake_model
from tests.slides.test_scan import slide as slide  # a fixture
from tumortrace.slides.heat_pyramid import heat_levels, write_heat
from tumortrace.slides.scan import scan
from tumortrace.slides.tiling import cells


@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_a_px_is_the_probability_of_its_tile(
    slide: Path, tmp_path: Path, overlap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the middle of every cell and the stated size of a px; NaN outside; both sides as long as the slide's."""
    monkeypatch.setattr("tumortrace.slides.scan.draw_heatmap", lambda target, *_, **__: target.write_bytes(b"picture"))
    result = scan("run", slide, out=tmp_path / "out", model=fake_model(), overlap=overlap)
    heat = tifffile.imread(tmp_path / "out" / "heatmap.ome.tif")
    with tifffile.TiffFile(tmp_path / "out" / "heatmap.ome.tif") as tiff:
        assert tiff.is_ome
        stated = tifffile.xml2dict(tiff.ome_metadata or "")["OME"]["Image"]["Pixels"]
    assert heat.dtype == np.float32
    assert stated["PhysicalSizeXUnit"] == "µm"
    side = stated["PhysicalSizeX"]
    assert (side * heat.shape[1], stated["PhysicalSizeY"] * heat.shape[0]) == pytest.approx((384, 320), rel=1e-4)
    shown = cells(result.tiles, overlap)
    columns = ((shown["x"] + shown["width"] / 2) * 0.5 / side).astype(int)
    rows = ((shown["y"] + shown["height"] / 2) * 0.5 / side).astype(int)
    np.testing.assert_array_equal(heat[rows, columns], shown["probability"].astype(np.float32))
    assert np.isnan(heat[0, 0])
    covered = (shown["width"] * shown["height"]).sum() / (768 * 640)
    assert np.isfinite(heat).mean() == pytest.approx(covered, rel=0.02)


def test_levels_and_resolution_are_read_back(tmp_path: Path) -> None:
    """Each level half the one before, with its values and its resolution; the same levels give the same bytes."""
    values = np.random.default_rng(0).random((600, 1000)).astype(np.float32)
    levels = [values, values[::2, ::2], values[::4, ::4]]
    for name in ("a.ome.tif", "b.ome.tif"):
        write_heat(tmp_path / name, levels, (8000, 4800), 0.25)
    assert (tmp_path / "a.ome.tif").read_bytes() == (tmp_path / "b.ome.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        read = tiff.series[0].levels
        assert [level.shape for level in read] == [(600, 1000), (300, 500), (150, 250)]
        for level, wanted in zip(read, levels, strict=True):
            np.testing.assert_array_equal(level.asarray(), wanted)
        across = [level.pages[0].tags["XResolution"].value for level in read]
    assert [den / num * 1e4 for num, den in across] == pytest.approx([2, 4, 8])


def test_levels_of_a_large_map_are_bounded() -> None:
    """A slide of 400,000 px keeps to 4,096 px; without tiles all is NaN."""
    import pandas as pd

    rows = pd.DataFrame({"x": [0], "y": [0], "width": [64], "height": [64], "probability": [0.75]})
    levels = heat_levels(rows, (400_000, 1000))
    assert levels[0].shape == (10, 4096)
    assert levels[0][0, 0] == 0.75
    assert np.isnan(heat_levels(rows[:0], (4000, 3000))[0]).all()
