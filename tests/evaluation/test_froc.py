"""FROC by CAMELYON16's rules: cases worked by hand, and the major axis against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from shapely import MultiPolygon, Point, Polygon, affinity, box
from skimage.draw import polygon as fill
from skimage.measure import label, regionprops

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.froc import IGNORED, MISS, Detections, froc, lesions_of, major_axis, match


def slide(*detections: tuple[float, int], lesions: int = 0, group: str | None = None) -> Detections:
    """Detections as probability and what is hit."""
    chances, hits = zip(*detections, strict=True) if detections else ((), ())
    return Detections(np.array(chances, float), np.array(hits, np.int64), lesions, 0, group)


def test_three_slides_by_hand() -> None:
    """Two lesions on one slide, one on another, none on the third; worked out on paper.

    Surest first: .95 hits A; .9 false; .8 hits A again (nothing new); .7 hits B; .6, .5 and .4 false; .3 hits C.
    With 3 slides: from .95 on 0 alarms, 1/3 found; from .7 on 1/3 alarm, 2/3 found; from .3 on 4/3, all.
    """
    found = froc(
        [
            slide((0.95, 0), (0.9, MISS), (0.8, 0), (0.7, 1), lesions=2),
            slide((0.6, MISS), (0.3, 0), lesions=1),
            slide((0.5, MISS), (0.4, MISS)),
        ],
        replicates=50,
    )
    assert [found.sensitivity[rate].value for rate in ("0.25", "0.5", "1", "2", "4", "8")] == pytest.approx(
        [1 / 3, 2 / 3, 2 / 3, 1, 1, 1]
    )
    assert found.mean.value == pytest.approx((1 / 3 + 2 / 3 + 2 / 3 + 3) / 6)
    assert np.allclose(found.curve, [(0, 0), (0, 1 / 3), (1 / 3, 2 / 3), (4 / 3, 1)])
    assert (found.slides, found.lesions) == (3, 3)


def test_isolated_cells_are_neither_hit_nor_false() -> None:
    """The surest detection lies in isolated cells: the curve is as if it were not there."""
    assert froc([slide((0.99, IGNORED), (0.5, 0), lesions=1)], replicates=5).curve == [(0, 0), (0, 1)]


def test_a_lesion_that_is_missed_stays_missed() -> None:
    """However low the threshold, sensitivity ends at one half; false alarms without end do not help."""
    alarms = [(0.01 * number, MISS) for number in range(1, 30)]
    found = froc([slide((0.5, 0), *alarms, lesions=2)], replicates=5)
    assert found.sensitivity["8"].value == 0.5  # all alarms are below .5
    assert froc([slide((0.05, 0), *alarms, lesions=2)], replicates=5).sensitivity["8"].value == 0


def test_equal_probabilities_are_called_together() -> None:
    """A false alarm as sure as the hit counts with it: no threshold parts them."""
    assert froc([slide((0.5, MISS), (0.5, 0), lesions=1)], replicates=5).sensitivity["0.5"].value == 0
    assert froc([slide((0.5, MISS), (0.5, 0), lesions=1)], replicates=5).sensitivity["1"].value == 1


def test_without_lesions_nothing_is_defined() -> None:
    """Slides without tumour alone; no slide at all is refused."""
    found = froc([slide((0.5, MISS))], replicates=5)
    assert found.mean.value is None
    assert found.mean.ci95 is None
    assert found.curve == []
    with pytest.raises(PredictionsError, match="no slide"):
        froc([])


def test_intervals_draw_patients_whole() -> None:
    """Ten copies of a slide are surer than one patient's; where nothing differs, Wilson's of the patients."""
    hit, missed = slide((0.9, 0), lesions=1, group="a"), slide(lesions=1, group="b")
    two = froc([hit, missed] * 10, replicates=300)
    assert two.groups == 2
    assert two.mean.ci95 == (0, 1)  # a alone, or b alone
    apart = froc([slide((0.9, 0), lesions=1), slide(lesions=1)] * 10, replicates=300)
    assert 0.2 < apart.mean.ci95[0] < apart.mean.ci95[1] < 0.8
    perfect = froc([slide((0.9, 0), lesions=1)] * 10, replicates=50)
    assert perfect.mean.ci95 == pytest.approx((0.7225, 1), abs=1e-3)  # Wilson of 10 in 10
    rare = froc([slide((0.9, 0), lesions=1), *[slide()] * 9], replicates=50)
    assert rare.mean.ci95 == pytest.approx((0.2065, 1), abs=1e-3)  # of 1 in 1, though many replicates have no lesion


def test_what_lies_close_is_one_lesion_and_holes_are_filled() -> None:
    """At .5 um/px: 70 um apart are joined, 80 um are not; a hole is part of the lesion, as is what lies in it."""
    first = box(0, 0, 800, 800)  # 400 um
    assert len(lesions_of([first, box(800 + 140, 0, 1740, 800)], 0.5)) == 1
    assert len(lesions_of([first, box(800 + 160, 0, 1760, 800)], 0.5)) == 2
    ring = Polygon(first.exterior.coords, [box(100, 100, 700, 700).exterior.coords])
    (lesion,) = lesions_of([MultiPolygon([ring, box(390, 390, 410, 410)])], 0.5)
    assert match([[400, 250], [400, 400]], [0.5, 0.5], [lesion]).hit.tolist() == [0, 0]
    assert lesions_of([], 0.5) == []


def test_isolated_cells_end_at_200_um() -> None:
    """Discs of 199 and 201 um: with the widening, major axes of 274 and 276 um. A far spot of 60 um is isolated."""
    small, large = (Point(0, 0).buffer(across / 2, quad_segs=64) for across in (199, 201))
    assert [lesions_of([disc], 1.0)[0].isolated for disc in (small, large)] == [True, False]
    spot = affinity.translate(Point(0, 0).buffer(30), 1000, 0)
    lesions = lesions_of([large, spot], 1.0)
    found = match([[0, 130], [0, 145], [1000, 60], [1000, 70]], [0.9, 0.8, 0.7, 0.6], lesions, "patient")
    assert found.hit.tolist() == [0, MISS, IGNORED, MISS]  # 37.5 um beyond the edge still hits
    assert (found.lesions, found.isolated, found.group) == (1, 1, "patient")


def test_the_major_axis_is_that_of_the_filled_polygon() -> None:
    """As scikit-image measures it on pixels, as the challenge did, of a slanted irregular outline."""
    rng = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    reach = rng.uniform(60, 120, 40)
    outline = affinity.rotate(
        Polygon(np.stack([250 + 2 * reach * np.cos(angles), 250 + reach * np.sin(angles)], 1)), 30
    )
    mask = np.zeros((500, 500), int)
    x, y = np.asarray(outline.exterior.coords).T
    mask[fill(y, x, mask.shape)] = 1
    (region,) = regionprops(label(mask))
    assert major_axis(outline) == pytest.approx(region.axis_major_length, rel=0.005)


def test_what_is_no_probability_is_refused() -> None:
    """Above 1, or not one for each place."""
    with pytest.raises(PredictionsError, match="from 0 to 1"):
        match([[0, 0]], [1.5], [])
    with pytest.raises(PredictionsError, match="2 places and 1"):
        match([[0, 0], [1, 1]], [0.5], [])
