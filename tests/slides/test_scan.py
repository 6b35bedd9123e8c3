"""A scan finds what is where it is, writes whole files, and refuses in one line."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from shapely.geometry import shape

from tumortrace.errors import ModelError, RunError, SlideError
from tumortrace.models.bundle import Assessment
from tumortrace.slides.scan import scan

DATA = os.environ.get("TUMORTRACE_DATA")
PALE, DARK = (225, 160, 190), (90, 50, 130)


def dark_share(images: np.ndarray) -> np.ndarray:
    """Stands for a model: the share of dark px."""
    return (images[..., 0] < 160).mean((1, 2))


def fake_model(predict: Callable[[np.ndarray], np.ndarray] = dark_share, **changes: Any) -> Any:
    info = {"name": "fake", "patch_size": (32, 32), "resolution": 1.0, "threshold": 0.5, "conformal": None}
    info |= {"classes": ("normal", "tumour"), "weights_sha256": "0" * 64}
    info |= changes

    def assess(images: np.ndarray) -> Assessment:
        probability = predict(images)
        positive = probability >= info["threshold"]
        words = np.where(positive, "positive", "negative")
        if info["conformal"] is not None:
            words[np.abs(probability - info["threshold"]) < 0.2] = "refer"
        return Assessment(probability, probability, positive.astype(int), words)

    return SimpleNamespace(info=SimpleNamespace(**info), assess=assess)


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """768 x 640 px of 0.5 um: tissue at x 64..576, y 128..512, its tumour at x 192..384, y 256..384."""
    pixels = np.full((640, 768, 3), 244, np.uint8)
    pixels[128:512, 64:576] = PALE
    pixels[256:384, 192:384] = DARK
    options = {"tile": (128, 128), "photometric": "rgb", "resolutionunit": "CENTIMETER", "metadata": None}
    tifffile.imwrite(tmp_path / "case $1.tiff", pixels, resolution=(2e4, 2e4), **options)
    return tmp_path / "case $1.tiff"


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of other things than the picture, which takes most of the time."""
    monkeypatch.setattr("tumortrace.slides.scan.draw_heatmap", lambda target, *_, **__: target.write_bytes(b"picture"))


@pytest.mark.usefixtures("undrawn")
def test_tumour_is_found_where_it_is(slide: Path, tmp_path: Path) -> None:
    """Tiles are 32 px at 1 um, so 64 px at 0.5 um; positive are the 3 x 2 that hold the tumour, of 8 x 6."""
    result = scan("run", slide, out=tmp_path / "out", model=fake_model(), batch_size=7)
    tiles = result.tiles
    columns = ["x", "y", "width", "height", "tissue", "sharpness", "in_focus"]
    assert list(tiles.columns) == [*columns, "probability", "prediction", "decision"]
    inside = tiles[tiles["tissue"] > 0.5]
    assert len(inside) == 48
    assert set(inside["width"]) == {64}
    positive = {(x, y) for x, y in tiles.loc[tiles["prediction"] == 1, ["x", "y"]].to_numpy()}
    assert positive == {(x, y) for x in (192, 256, 320) for y in (256, 320)}
    assert tiles.loc[tiles["prediction"] == 1, "probability"].min() > 0.99


def test_the_record_says_what_the_table_holds(slide: Path, tmp_path: Path) -> None:
    """scan.json, tiles.csv and the result agree, and the tissue has its area: 512 x 384 px of 0.25 um²."""
    result = scan("run", slide, out=tmp_path / "out", model=fake_model(), overlap=0.5)
    record = json.loads((tmp_path / "out" / "scan.json").read_text())
    tiles = pd.read_csv(tmp_path / "out" / "tiles.csv")
    assert record == result.record.as_json()
    pd.testing.assert_frame_equal(tiles, result.tiles)
    assert record["tissue_mm2"] == pytest.approx(512 * 384 * 0.25e-6, rel=0.03)
    assert record["tiles"] == len(tiles) > 150
    assert record["positive_tiles"] == (tiles["probability"] >= 0.5).sum()
    assert record["positive_share"] == pytest.approx(record["positive_tiles"] / len(tiles))
    assert record["max_probability"] == tiles["probability"].max()
    assert record["score"]["value"] == pytest.approx(tiles["probability"].nlargest(10).mean())
    assert record["resolution"] == pytest.approx(0.5, rel=1e-5)
    assert record["model"] == {"name": "fake", "weights_sha256": "0" * 64}
    assert record["notes"] == []
    assert "not a medical device" in record["research_use"].lower()
    files = [
        "heatmap.ome.tif",
        "heatmap.png",
        "outlines.geojson",
        "overview.jpg",
        "report.html",
        "scan.json",
        "tiles.csv",
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files
    with Image.open(tmp_path / "out" / record["files"]["heatmap"]) as picture:
        assert min(picture.size) > 500
    assert f"{record['positive_tiles']} of {len(tiles)} tiles positive" in result.summary
    assert "not a medical device" in result.summary.lower()


def test_a_slide_without_tissue_is_a_result(tmp_path: Path) -> None:
    """Bare glass gives no tiles, a heat map that says so, and a record without scores."""
    Image.new("RGB", (400, 300), (244, 244, 244)).save(tmp_path / "glass.png")
    result = scan("run", tmp_path / "glass.png", out=tmp_path / "out", model=fake_model(), resolution=0.5)
    record = result.record
    assert (record.tiles, record.positive_tiles, record.tissue_mm2) == (0, 0, 0)
    assert record.max_probability is record.score.value is record.positive_share is None
    assert record.tumour.share.value is record.tumour.mm2.value is None
    assert record.notes == ["no tissue found: 100 % bare glass; --tissue-mask FILE says where tissue is"]
    assert (record.tissue_by, record.left_out, record.no_tissue["glass"]) == ("darkness", 0, 1)
    assert (tmp_path / "out" / "heatmap.png").exists()
    assert pd.read_csv(tmp_path / "out" / "tiles.csv").empty


@pytest.mark.usefixtures("undrawn")
def test_an_unknown_resolution_is_refused_and_nothing_is_written(slide: Path, tmp_path: Path) -> None:
    """The message names --resolution; given it, the scan runs; another word goes before what the file states."""
    with Image.open(slide) as image:
        image.convert("RGB").save(tmp_path / "a.png", dpi=(72, 72))
    with pytest.raises(SlideError, match=r"trained at 1.*--resolution"):
        scan("run", tmp_path / "a.png", out=tmp_path / "out", model=fake_model())
    assert not (tmp_path / "out").exists()
    result = scan("run", tmp_path / "a.png", out=tmp_path / "out", model=fake_model(), resolution=0.25)
    assert set(result.tiles["width"]) == {128}
    assert set(scan("run", slide, out=tmp_path / "2", model=fake_model(), override_resolution=1.0).tiles["width"]) == {
        32
    }


@pytest.mark.usefixtures("undrawn")
def test_a_model_without_resolution_is_refused_until_it_is_stated(slide: Path, tmp_path: Path) -> None:
    """At the slide's own resolution there would be other tiles; the line names the remedy."""
    with pytest.raises(SlideError, match=r"states no resolution.*--patch-resolution"):
        scan("run", slide, out=tmp_path / "out", model=fake_model(resolution=None))
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("undrawn")
def test_the_caller_can_say_what_the_patches_had(slide: Path, tmp_path: Path) -> None:
    """--patch-resolution sets the tiles' scale, where the model states none and where it does, and is noted."""
    for stated, where in ((None, "a"), (0.25, "b")):
        model = fake_model(resolution=stated)
        result = scan("run", slide, out=tmp_path / where, model=model, patch_resolution=1.0)
        assert set(result.tiles["width"]) == {64}
        assert "as was asked" in result.record.notes[0]


@pytest.mark.usefixtures("undrawn")
def test_outlines_and_areas_are_those_of_the_tumour_whatever_the_overlap(slide: Path, tmp_path: Path) -> None:
    """The dark area has 192 x 128 px; a model that looks at a patch's middle finds it, and overlap swells it no more
    than by the step of the grid."""

    def middle(images: np.ndarray) -> np.ndarray:
        return dark_share(images[:, 12:20, 12:20])

    for overlap in (0.0, 0.75):
        record = scan("run", slide, out=tmp_path / str(overlap), model=fake_model(middle), overlap=overlap).record
        outlines = json.loads((tmp_path / str(overlap) / "outlines.geojson").read_text())
        area = sum(shape(feature["geometry"]).area for feature in outlines["features"])
        assert area == pytest.approx(192 * 128, rel=0.25)
        assert record.tumour.mm2.value == pytest.approx(192 * 128 * 0.25e-6, rel=0.25)
        assert record.tumour.share.value == pytest.approx(192 * 128 / (512 * 384), rel=0.25)


@pytest.mark.usefixtures("undrawn")
def test_referred_tiles_span_a_range(slide: Path, tmp_path: Path) -> None:
    """A model that refers has them counted, and the tumour's area from least to most."""
    model = fake_model(lambda images: np.clip(dark_share(images), 0.4, 0.6), conformal=SimpleNamespace(coverage=0.9))
    record = scan("run", slide, out=tmp_path / "out", model=model).record
    assert record.referred_tiles == record.tiles
    low, high = record.tumour.share.range
    assert (low, high) == (0, pytest.approx(1, abs=0.01))
    assert low < record.tumour.share.value < high


@pytest.mark.usefixtures("undrawn")
def test_enlarged_tiles_are_noted(slide: Path, tmp_path: Path) -> None:
    """A model of finer patches than the slide gets them enlarged, which the notes say."""
    result = scan("run", slide, out=tmp_path / "out", model=fake_model(resolution=0.25))
    assert set(result.tiles["width"]) == {16}
    assert "coarser" in result.record.notes[0]


@pytest.mark.usefixtures("undrawn")
def test_patches_need_not_be_square(slide: Path, tmp_path: Path) -> None:
    """patch_size is height before width, and the model gets it so."""
    shapes = []

    def predict(images: np.ndarray) -> np.ndarray:
        shapes.append(images.shape[1:])
        assert images.dtype == np.uint8
        return dark_share(images)

    tiles = scan("run", slide, out=tmp_path / "out", model=fake_model(predict, patch_size=(16, 48))).tiles
    assert set(shapes) == {(16, 48, 3)}
    assert set(tiles["width"]) == {96}
    assert set(tiles["height"]) == {32}


@pytest.mark.usefixtures("undrawn")
def test_interruption_leaves_no_file(slide: Path, tmp_path: Path) -> None:
    """Ctrl-C in the middle leaves the folder empty, and an earlier scan as it was."""

    def interrupted(images: np.ndarray) -> np.ndarray:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan("run", slide, out=tmp_path / "out", model=fake_model(interrupted), batch_size=4)
    assert list((tmp_path / "out").iterdir()) == []
    scan("run", slide, out=tmp_path / "out", model=fake_model())
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(KeyboardInterrupt):
        scan("run", slide, out=tmp_path / "out", model=fake_model(interrupted), batch_size=4)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.usefixtures("undrawn")
def test_only_a_scan_of_the_same_slide_is_replaced(slide: Path, tmp_path: Path) -> None:
    """The same slide may be scanned again; another slide's scan and strange files are kept."""
    out = tmp_path / "out"
    scan("run", slide, out=out, model=fake_model())
    assert scan("run", slide, out=out, model=fake_model(), overlap=0.5).record.overlap == 0.5
    Image.new("RGB", (400, 300), PALE).save(tmp_path / "other.png")
    with pytest.raises(RunError, match="choose another"):
        scan("run", tmp_path / "other.png", out=out, model=fake_model(), resolution=1.0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "tiles.csv").write_text("mine")
    with pytest.raises(RunError, match="choose another"):
        scan("run", slide, out=tmp_path / "mine", model=fake_model())
    assert (tmp_path / "mine" / "tiles.csv").read_text() == "mine"
    with pytest.raises(RunError, match="cannot be made"):
        scan("run", slide, out=slide, model=fake_model())


@pytest.mark.usefixtures("undrawn")
def test_default_folders(slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run folder takes its scans; for a bundle they land in the current folder."""
    (tmp_path / "run" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert scan("run", slide, model=fake_model()).folder == Path("run/scans/case $1")
    assert scan("run/model", slide, model=fake_model()).folder == tmp_path / "scan-case $1"


@pytest.mark.parametrize("output", [np.nan, 1.5, "short"])
def test_a_model_that_returns_no_probabilities_is_refused(output: object, slide: Path, tmp_path: Path) -> None:
    """NaN, values beyond 1 and a wrong count are a ModelError, and no file is written."""

    def predict(images: np.ndarray) -> np.ndarray:
        return np.zeros(1) if output == "short" else np.full(len(images), output)

    with pytest.raises(ModelError, match="one probability per tile"):
        scan("run", slide, out=tmp_path / "out", model=fake_model(predict))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"overlap": 0.95},
        {"overlap": -0.1},
        {"minimum_tissue": 2},
        {"batch_size": 0},
        {"resolution": 300.0},
        {"patch_resolution": 0.001},
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, Any], slide: Path) -> None:
    """The message names the option and its range."""
    with pytest.raises(SlideError, match=f"--{next(iter(wrong)).replace('_', '-')}.*expected"):
        scan("run", slide, model=fake_model(), **wrong)


@pytest.mark.skipif(not DATA, reason="TUMORTRACE_DATA is not set")
def test_a_real_slide(tmp_path: Path) -> None:
    """On a real section the dark epithelium is found in part of the tiles, none of which lies on bare glass."""
    file = Path(str(DATA)) / "slides" / "cmu-1-small-region.svs"
    result = scan("run", file, out=tmp_path, model=fake_model(patch_size=(96, 96), resolution=0.972))
    assert set(result.tiles["width"]) == {187}
    assert 60 < result.record.tiles < 100
    assert 0.1 < result.record.positive_share < 0.9
    assert result.record.tissue_mm2 == pytest.approx(0.56, abs=0.1)
