"""Maps as `scan` writes them: found again by the slide's content, summed up, judged by outlines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy.special import logit

from tests.slides.test_scan import DARK, PALE, fake_model
from tumortrace.errors import RunError
from tumortrace.evaluation.froc import IGNORED
from tumortrace.slides.annotations.classes import Classes
from tumortrace.slides.cohort import open_slides
from tumortrace.slides.foci import foci, grid_of
from tumortrace.slides.scan import scan
from tumortrace.slides.scanned import detections_of, features_of, find_scans, seen_in_training


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A slide of .5 um/px with a dark spot of 96 x 64 um, another without, their scans, and a table with outlines."""
    monkeypatch.setattr("tumortrace.slides.scan.draw_heatmap", lambda target, *_, **__: target.write_bytes(b"picture"))
    for name, dark in (("a", True), ("b", False)):
        pixels = np.full((640, 768, 3), 244, np.uint8)
        pixels[128:512, 64:576] = PALE
        if dark:
            pixels[256:384, 192:384] = DARK
        options = {"tile": (128, 128), "photometric": "rgb", "resolutionunit": "CENTIMETER", "metadata": None}
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, resolution=(2e4, 2e4), **options)
        scan(tmp_path, tmp_path / f"{name}.tif", out=tmp_path / "scans" / name, model=fake_model())
    ring = [[192, 256], [384, 256], [384, 384], [192, 384], [192, 256]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, 0, 0]}},
    }
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    table = pd.DataFrame({"slide": ["a.tif", "b.tif"], "label": ["tumour", "normal"], "patient": ["p", "q"]})
    table.assign(annotations=["a.geojson", ""]).to_csv(tmp_path / "slides.csv", index=False)
    return tmp_path


def test_maps_of_real_scans_are_found_and_summed_up(home: Path) -> None:
    """By content, after the slide got another name; 3 x 2 tiles of 32 um are dark."""
    (home / "a.tif").rename(home / "renamed.tif")
    table = (home / "slides.csv").read_text().replace("a.tif", "renamed.tif")
    (home / "slides.csv").write_text(table)
    scans, notes = find_scans(home / "scans", open_slides(home / "slides.csv"))
    assert [(one.entry.group, one.folder.name) for one in scans] == [("p", "a"), ("q", "b")]
    assert notes == []
    rows = features_of(scans).set_index("group")
    assert rows["label"].tolist() == [1, 0]
    assert rows.loc["p", "highest"] == pytest.approx(logit(0.9999))
    assert rows.loc["p", "area_50"] == pytest.approx(np.log1p(6 * 0.032**2 / 0.01))
    assert rows.loc["q", "area_50"] == 0
    (focus,) = foci(grid_of(scans[0].tiles, 0.0, scans[0].resolution), 0.5)
    assert (focus.cells, focus.extent) == (6, pytest.approx(32 * (np.sqrt(5) + 1)))


def test_detections_are_judged_by_the_outlines(home: Path) -> None:
    """96 x 64 um are isolated cells; a slide without tumour needs no outlines; one with tumour does."""
    cohort = open_slides(home / "slides.csv")
    first, second = find_scans(home / "scans", cohort)[0]
    judged, clean = detections_of(first, Classes()), detections_of(second, Classes())
    assert judged.hit.tolist() == [IGNORED]
    assert (judged.lesions, judged.isolated, judged.group) == (0, 1, "p")
    assert (len(clean.hit), clean.lesions) == (0, 0)
    (home / "slides.csv").write_text("slide,label,patient\na.tif,tumour,p\nb.tif,normal,q\n")
    bare = find_scans(home / "scans", open_slides(home / "slides.csv"))[0][0]
    assert detections_of(bare, Classes()) is None


def test_a_slide_without_scan_is_told_and_one_scanned_twice_refused(home: Path) -> None:
    """The first is a note; of the second nobody could say which map counts."""
    cohort = open_slides(home / "slides.csv")
    (home / "scans" / "b" / "scan.json").rename(home / "scans" / "b" / "kept")
    scans, notes = find_scans(home / "scans", cohort)
    assert len(scans) == 1
    assert notes == ["1 slide without a scan left out: b"]
    scan(home, home / "a.tif", out=home / "scans" / "again", model=fake_model())
    with pytest.raises(RunError, match="2 scans of a"):
        find_scans(home / "scans", cohort)


@pytest.mark.parametrize(
    ("text", "seen", "line"),
    [
        ("id,group,split\nx1,P,train\n", {"a"}, "1 of 2 slides"),  # by the patient, whatever the case
        ("id,group,split\nx1,b.tif,validation\n", {"b"}, "1 of 2 slides"),  # by the slide's file
        ("id,group,split\nx1,p,test\n", set(), "ruled out"),
        ("id,group,split\nx1,,train\n", set(), "does not say from which slides 1 image came"),
    ],
)
def test_slides_are_known_by_the_groups_of_the_run(text: str, seen: set[str], line: str, home: Path) -> None:
    """Whatever has learnt, chosen or calibrated counts; the test split does not."""
    (home / "splits.csv").write_text(text)
    found, told = seen_in_training(home, find_scans(home / "scans", open_slides(home / "slides.csv"))[0])
    assert found == seen
    assert line in told
