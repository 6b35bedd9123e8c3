"""Foci, detections, features of maps, sizes and stages: by hand, and against scikit-image and scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit
from skimage.measure import label, regionprops
from sklearn.metrics import cohen_kappa_score

from tumortrace.errors import SlideError
from tumortrace.evaluation.metastases import STAGES
from tumortrace.records.slides import PatientStage
from tumortrace.records.tables import TILES
from tumortrace.slides.foci import detections, foci, grid_of
from tumortrace.slides.map_features import FEATURES, map_features
from tumortrace.slides.stages import agreement, known_stage, slide_size, stages


def map_of(plane: np.ndarray, side: int = 100, overlap: float = 0.0) -> pd.DataFrame:
    """Tiles of a map, NaN where there is no tissue."""
    row, column = np.nonzero(~np.isnan(plane))
    step = side * (1 - overlap)
    places = {"x": np.rint(column * step).astype(int), "y": np.rint(row * step).astype(int)}
    return pd.DataFrame({**places, "width": side, "height": side, "probability": plane[row, column]})


def test_foci_are_the_parts_that_share_edges() -> None:
    """As scikit-image labels them with 4 neighbours; areas and surest cells agree, gaps in the tissue part them."""
    plane = np.random.default_rng(1).uniform(size=(30, 40))
    plane[10] = np.nan
    parts = foci(grid_of(map_of(plane), 0.0, 0.5), 0.5)
    truth = regionprops(label(np.nan_to_num(plane) >= 0.5, connectivity=1), np.nan_to_num(plane))
    assert sorted(part.cells for part in parts) == sorted(int(region.area) for region in truth)
    assert sorted(part.highest for part in parts) == pytest.approx(sorted(region.intensity_max for region in truth))
    assert sum(part.area for part in parts) == pytest.approx((plane >= 0.5).sum() * 0.05**2)


@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_extents_by_hand(overlap: float) -> None:
    """An L of 3 by 4 cells: the ends lie 2 and 3 steps apart; a line of 5; one cell alone is as long as its side."""
    plane = np.zeros((9, 9))
    plane[0:3, 0] = plane[2, 0:4] = 0.8
    plane[6, 2:7] = 0.7
    plane[8, 8] = 0.6
    parts = foci(grid_of(map_of(plane, 100, overlap), overlap, 2.0), 0.5)
    step = 200 * (1 - overlap)
    assert [part.extent for part in parts] == pytest.approx([5 * step, (np.sqrt(13) + 1) * step, step])
    assert [part.cells for part in parts] == [5, 6, 1]


def test_the_surest_place_stands_for_its_surroundings() -> None:
    """Two peaks 500 um apart, and what lies at their feet; below .1 nothing is detected."""
    plane = np.full((1, 12), 0.05)
    plane[0, 2:5] = 0.6, 0.9, 0.7
    plane[0, 8:10] = 0.8, 0.75
    grid = grid_of(map_of(plane), 0.0, 1.0)
    assert detections(grid, 1.0).tolist() == [3, 8]
    assert detections(grid, 1.0, apart=10).tolist() == [3, 8]  # neighbours of a cell never count by themselves
    assert len(detections(grid, 1.0, least=0.95)) == 0


def test_features_by_hand() -> None:
    """Three of four tiles above .5, of 100 um: two of them a focus; all features are there and finite."""
    plane = np.array([[0.95, 0.6, 0.1, 0.7]])
    features = map_features(map_of(plane), 0.0, 1.0)
    assert list(features) == list(FEATURES)
    assert np.isfinite(list(features.values())).all()
    assert features["highest"] == pytest.approx(logit(0.95))
    assert features["top_ten"] == pytest.approx(logit(plane.mean()))
    assert features["median"] == pytest.approx(logit(0.65))
    assert features["area_50"] == pytest.approx(np.log(1 + 3))
    assert features["area_90"] == pytest.approx(np.log(2))
    assert (features["foci_50"], features["foci_90"]) == pytest.approx((np.log(3), np.log(2)))
    assert features["focus_extent_50"] == pytest.approx(np.log(1 + 2))
    assert features["focus_mean_50"] == pytest.approx(0.775)


def test_a_slide_without_tiles_is_as_one_without_suspicion(tmp_path: Path) -> None:
    """Every feature is as of a map of zeros, also where the empty table comes from a file."""
    empty = map_features(map_of(np.full((1, 1), np.nan)), 0.0, 1.0)
    none = map_features(map_of(np.zeros((3, 3))), 0.0, 1.0)
    assert empty == none
    TILES.write(tmp_path, map_of(np.full((1, 1), np.nan)))
    assert map_features(TILES.read(tmp_path), 0.0, 1.0) == none


def test_size_classes_follow_the_longest_focus() -> None:
    """At .25 um/px and tiles of 400 px (100 um): 1, 3 and 21 tiles in a line; a slide called negative has no size."""
    for cells, name in ((0, "itc"), (1, "itc"), (3, "micro"), (21, "macro")):
        plane = np.zeros((3, 25))
        plane[1, :cells] = 0.9
        grid = grid_of(map_of(plane, 400), 0.0, 0.25)
        assert slide_size(grid, 0.5, True) == name
        assert slide_size(grid, 0.5, False) == "negative"


def test_agreement_of_stages_by_hand() -> None:
    """Quadratic kappa against scikit-learn; without any truth there is none; the truth is read as it is written."""
    names = ["pN0", "pN0(i+)", "pN1mi", "pN1", "pN2", "pN1"]
    truth = ["pN0", "pN0", "pN1mi", "pN2", "pN2", "pN1"]
    patients = [
        PatientStage(patient=f"p{number}", probability=0.5, stage=stage, truth=true)
        for number, (stage, true) in enumerate(zip(names, truth, strict=True))
    ]
    found = agreement(patients, replicates=200)
    expected = cohen_kappa_score(names, truth, labels=list(STAGES), weights="quadratic")
    assert found.value == pytest.approx(expected)
    assert found.ci95[0] < expected <= found.ci95[1]
    alike = agreement([row.model_copy(update={"truth": row.stage}) for row in patients])
    assert alike.ci95 == pytest.approx((2 * 6 / (6 + 1.959964**2) - 1, 1))  # Wilson of 6 in 6: n / (n + z²)
    assert agreement([row.model_copy(update={"truth": None}) for row in patients]) is None
    with pytest.raises(SlideError, match="a stage 'pN9'"):
        known_stage("pN9", "slides.csv")


def test_patients_are_as_suspicious_as_their_worst_slide() -> None:
    """Highest probability, label of any slide, stage from all slides, truth from the table."""
    table = pd.DataFrame(
        {
            "id": list("abc"),
            "group": ["p", "p", "q"],
            "split": "test",
            "label": [0, 1, 0],
            "probability": [0.2, 0.9, 0.1],
            "size": ["itc", "micro", "negative"],
        }
    )
    first, second = stages(table, {"p": "pN1"})
    assert (first.patient, first.label, first.probability, first.stage, first.truth) == ("p", 1, 0.9, "pN1mi", "pN1")
    assert (second.stage, second.truth, second.slides) == ("pN0", None, {"c": "negative"})
