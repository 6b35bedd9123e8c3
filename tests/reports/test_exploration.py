"""The page of an exploration says what statistics.json says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tumortrace.errors import RunError
from tumortrace.records.data import ExplorationRecord
from tumortrace.reports.drawing import Drawn
from tumortrace.reports.exploration import (
    edges_figure,
    mean_images_figure,
    samples_figure,
    verdict,
    write_exploration,
)


def spread(value: float) -> dict[str, float]:
    return {"p5": value, "p25": value - 1, "median": value, "p75": value + 1, "p95": value}


def statistics(**changes: Any) -> dict[str, Any]:
    classes = [{"label": 0, "name": "<b>no</b>", "images": 7654}, {"label": 1, "name": "1", "images": 2346}]
    each = {"images": 5000, "labelled": 5000, "positives": 1173, "prevalence": 0.2346, "ci95": [0.22, 0.25]}
    stain = {"vector": [0.53, 0.72, 0.41], "spread": 3.37, "between_groups": 0.44}
    shifted = {"vector": [0.53, 0.72, 0.41], "shift": 6.28}
    cohort = {
        "name": "<i>mine</i>",
        "layout": "table",
        "images": 10000,
        "labelled": 10000,
        "positive_class": "1",
        "prevalence": 0.2346,
        "classes": classes,
        "resolution": 0.97,
        "notes": ["<u>assumed</u>"],
        "fingerprint": "abc123",
        "file_types": {".png": 10000},
        "splits": [{"split": "train", "images": 9999, "labelled": 9999, "positives": 2345, "prevalence": 0.2345}],
        "groups": {
            "count": 2,
            "images_without": 0,
            "images_each": {"min": 5000.0, "median": 5000.0, "max": 5000.0},
            "prevalence_each": {"min": 0.2346, "median": 0.2346, "max": 0.2346},
            "of_one_class": 0,
            "each": [{"group": "<s>A</s>", **each}, {"group": "B", **each}],
        },
    }
    sample = {
        "images": 2000,
        "undecodable": 3,
        "classes": classes,
        "usual_size": {"width": 96, "height": 96},
        "sizes": [{"width": 96, "height": 96, "images": 2000}],
        "modes": {"RGB": 2000},
        "grey": 0,
        "mean_colour": [{"label": 1, "name": "1", "red": spread(181), "green": spread(122), "blue": spread(163)}],
        "edges": [{"label": 1, "name": "1", "sobel": spread(31.4)}],
    }
    near = {"observed": 0.312, "chance": 0.104, "ratio": 3.04, "ci95": [2.51, 3.66], "images": 2000, "neighbours": 10}
    record = {
        "tumortrace": "0.1.0",
        "seed": 17,
        "cohort": cohort,
        "sample": sample,
        "stains": {
            "applies": True,
            "images": 1876,
            "haematoxylin": stain,
            "eosin": stain,
            "groups": [{"group": "B", "images": 40, "haematoxylin": shifted, "eosin": shifted}],
        },
        "map": {
            "features": ["a"] * 17,
            "explained_variance": [0.5, 0.2],
            "same_group": near,
            "same_class": None,
        },
        "augmentation": None,
        "audit": [{"name": "blank", "verdict": "warning", "count": 12, "message": "<em>m</em>", "remedy": "look"}],
        "shown": {"0": ["<a>"], "1": ["b"]},
    }
    return record | changes


def page(folder: Path, record: dict[str, Any], figures: tuple[str, ...] = ()) -> str:
    (folder / "statistics.json").write_text(json.dumps(record))
    (folder / "figures").mkdir(exist_ok=True)
    for name in figures:
        (folder / "figures" / f"{name}.svg").write_text("<svg/>")
    drawn = Drawn({name: folder / "figures" / f"{name}.svg" for name in figures})
    return write_exploration(folder, drawn).read_text("utf-8")


def test_numbers_are_those_of_the_record(tmp_path: Path) -> None:
    """Counts, shares, stains, ratios and findings stand on the page as the record has them."""
    told = page(tmp_path, statistics(), ("map_group",))
    numbers = ("10,000", "7,654", "2,346", "76.5 %", "23.5 %", "2,000", "181", "31.4", ".53", "3.4°", ".44", "6.3°")
    for number in (*numbers, "31.2 %", "10.4 %", "3.0", "[2.5, 3.7]", "(12)", "seed 17", "1,876", "0.97 µm"):
        assert number in told, number
    assert "Not a medical device" in told


def test_pictures_are_shown_as_what_they_are(tmp_path: Path) -> None:
    """A browser shows no PNG that calls itself an SVG."""
    page(tmp_path, statistics(), ("map_group",))
    picture = tmp_path / "samples_0.png"
    Image.new("RGB", (4, 4)).save(picture)
    told = write_exploration(tmp_path, Drawn({"samples_0": picture, "map_group": tmp_path / "figures/map_group.svg"}))
    text = told.read_text("utf-8")
    assert "data:image/png;base64,iVBOR" in text
    assert "data:image/svg+xml;base64,PHN2Zy" in text


def test_an_altered_record_alters_the_page(tmp_path: Path) -> None:
    """Nothing is kept from elsewhere: change the record and the page follows."""
    record = statistics()
    record["stains"]["images"] = 1234
    assert "1,234" in page(tmp_path, record)


def test_text_of_the_user_is_never_markup(tmp_path: Path) -> None:
    """Names of cohort, classes, groups, ids, notes and findings are escaped."""
    told = page(tmp_path, statistics(), ("map_group",))
    for hostile in ("<i>mine", "<b>no", "<s>A", "<u>ass", "<em>m", "<a>"):
        assert hostile not in told, hostile


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    """Without groups, stains, check and figures their parts say so or are missing, and nothing reads None."""
    groups = {"count": 0, "images_without": 10000, "images_each": None, "prevalence_each": None, "of_one_class": 0}
    record = statistics(stains={"applies": False, "reason": "the images are grey"}, audit=None)
    record["cohort"] |= {"groups": groups | {"each": []}, "splits": [], "resolution": None, "prevalence": None}
    record["cohort"]["labelled"] = 0
    record["map"] |= {"same_group": None}
    told = page(tmp_path, record)
    assert "Not H&amp;E: the images are grey" in told
    assert "none of them labelled" in told
    assert 'id="check"' not in told
    assert 'id="map"' not in told
    assert "None" not in told
    assert "<img" not in told


def test_verdict_says_when_groups_keep_together() -> None:
    """The sentence on batch effects follows from the interval, and a ratio of 1 inside it is no effect."""
    record = statistics()
    assert any("keep each on one side" in sentence for sentence in verdict(ExplorationRecord.model_validate(record)))
    record["map"]["same_group"] |= {"ratio": 1.1, "ci95": [0.9, 1.3]}
    assert any(
        "no sign of a batch effect" in sentence for sentence in verdict(ExplorationRecord.model_validate(record))
    )
    assert verdict(ExplorationRecord.model_validate(record))[-1] == "The check found 1 warning."


def test_missing_record_is_refused(tmp_path: Path) -> None:
    """A folder without statistics.json is refused, and no page appears."""
    with pytest.raises(RunError, match=r"no statistics\.json"):
        write_exploration(tmp_path, Drawn())
    assert list(tmp_path.iterdir()) == []


def test_the_centre_is_outlined_in_patches_only() -> None:
    """A patch has its centre 32x32 px outlined to scale; a picture of 512 px and one of 20 px have not."""
    images = [np.zeros((side, side, 3), np.uint8) for side in (64, 512, 20)]
    axes = samples_figure(images, "a", 0).axes[0]
    left, right = axes.images[0].get_extent()[:2]
    (outline,) = axes.patches
    assert outline.get_width() == pytest.approx((right - left) / 2)
    assert outline.get_x() + outline.get_width() / 2 == pytest.approx((left + right) / 2)


def test_pictures_of_odd_shapes_keep_their_proportions() -> None:
    """An image of 50x1 px is drawn fifty times as high as wide, inside its cell."""
    axes = samples_figure([np.zeros((50, 1, 3), np.uint8)], "a", 1).axes[0]
    left, right, bottom, top = axes.images[0].get_extent()
    assert (bottom - top) / (right - left) == pytest.approx(50)
    assert bottom <= 1


def test_difference_of_mean_images_has_no_mean() -> None:
    """The difference shown is positive minus negative, less its mean; with one class there is none."""
    means = {0: np.zeros((4, 4, 3)), 1: np.full((4, 4, 3), 10.0)}
    means[1][0, 0] += 16
    panels = [axes.images[0] for axes in mean_images_figure(means, {0: "a", 1: "b"}).axes if axes.images]
    change = panels[2].get_array()
    assert change is not None
    assert float(change.mean()) == pytest.approx(0)
    assert float(change[0, 0]) == pytest.approx(15)
    assert sum(bool(axes.images) for axes in mean_images_figure({1: means[1]}, {1: "b"}).axes) == 1


def test_edges_of_flat_images_are_black() -> None:
    """Images without edges are drawn without dividing by nothing."""
    axes = edges_figure({2: [np.full((16, 16, 3), 80, np.uint8)]}, {2: "unlabelled"}).axes[0]
    assert float(np.asarray(axes.images[1].get_array()).max()) < 0.02
