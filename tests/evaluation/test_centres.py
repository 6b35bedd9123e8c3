"""Robustness of features across centres: croma's values, cases by hand, and what intervals and differences must be."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from tests.evaluation.centres_reference import CANDIDATES, KEPT, cases
from tumortrace.evaluation.centres import (
    NEIGHBOURS,
    centre_differences,
    neighbourhoods,
    robustness,
    usual_neighbours,
)


def test_index_margin_and_neighbours_are_those_of_croma() -> None:
    """Forty cohorts of 2 to 4 classes and 2 to 5 centres, values kept from croma 1.0.1."""
    assert NEIGHBOURS == CANDIDATES
    kept = json.loads(KEPT.read_text())
    assert len(kept) == 40
    assert sum("margin" in values for values in kept) > 30
    for case, expected in zip(cases(), kept, strict=True):
        near = neighbourhoods(*case)
        count = usual_neighbours(near)
        measured = robustness(near, "center", count, replicates=2)
        assert count == expected.pop("k")
        assert {name: getattr(measured, name).value for name in expected} == pytest.approx(expected, abs=1e-9)
        if "margin" not in expected:
            assert measured.margin_support.value < 1


def by_hand() -> pd.DataFrame:
    """Eight images on a quarter circle, two classes, two centres; the last two are of one slide."""
    degrees = np.array([0, 1, 2, 3, 50, 51, 52, 53])
    features = np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1).astype(np.float32)
    kinds, centres = np.array([0, 0, 0, 1, 1, 1, 1, 0]), np.array(list("aabaabbb"))
    return neighbourhoods(features, kinds, centres, np.array([0, 1, 2, 3, 4, 5, 6, 6]))


def test_neighbours_by_hand() -> None:
    near = by_hand()
    # image 0 (class 0, a): the five nearest are 1 (0, a), 2 (0, b), 3 (1, a), 4 (1, a), 5 (1, b)
    assert near.loc[0, ["same_class_5", "same_centre_5", "named_5"]].tolist() == [1, 2, 1]
    # image 7 (class 0, b): 6 is of its slide; 5 (1, b), 4 (1, a), 3 (1, a), 2 (0, b), 1 (0, a)
    assert near.loc[7, ["same_class_5", "same_centre_5", "named_5"]].tolist() == [1, 1, 1]
    # of the six that may be near it, 0 and 1 are of its class elsewhere, 5 of its centre and another class
    assert near.loc[7, ["share_same_class", "share_same_centre"]].tolist() == pytest.approx([2 / 6, 1 / 6])
    assert near["margin"].isna().all()  # five of each kind are not there


def test_blind_neighbours_reach_what_chance_is_said_to_be() -> None:
    """With features that tell nothing, the index lies around `chance`, also where centres differ in their classes."""
    random = np.random.default_rng(4)
    kinds = np.concatenate([np.arange(600) % 2, (np.arange(600) % 6 == 0).astype(int)])
    centres, groups = np.repeat(["a", "b"], 600), np.arange(1200)
    near = neighbourhoods(random.normal(size=(1200, 8)).astype(np.float32), kinds, centres, groups)
    measured = robustness(near, "center", 21, replicates=200)
    assert measured.chance == pytest.approx(measured.index.value, abs=0.02)
    assert measured.centres == {"a": 600, "b": 600}
    assert set(measured.by_centre) == {"a", "b"}


def test_intervals_draw_slides_and_hold_the_value() -> None:
    random = np.random.default_rng(1)
    kinds, slides = np.arange(400) % 2, np.repeat(np.arange(20), 20)
    centres = np.where(slides < 10, "a", "b")
    features = random.normal(size=(400, 5)) + 3 * random.normal(size=(20, 5))[slides] + kinds[:, None]
    near = neighbourhoods(features.astype(np.float32), kinds, centres, slides)
    by_slide = robustness(near, "center", 11, replicates=300)
    alone = robustness(near.assign(group=np.arange(400)), "center", 11, replicates=300)
    for measured in (by_slide, alone):
        low, high = measured.index.ci95
        assert low < measured.index.value < high
    assert np.ptp(by_slide.index.ci95) > 1.5 * np.ptp(alone.index.ci95)


def test_differences_are_paired() -> None:
    """A body against itself differs by nothing, and by a shift of its margins by exactly that shift."""
    near = neighbourhoods(*next(cases()))
    moved = near.assign(margin=near["margin"] + 0.125)
    same = centre_differences({"one": near, "two": near, "three": moved}, 11, replicates=50)
    assert same["one", "two"]["index"].ci95 == (0, 0)
    assert same["one", "three"]["margin"].value == pytest.approx(0.125)
    assert same["one", "three"]["margin"].ci95 == pytest.approx((0.125, 0.125))


def test_one_centre_or_class_alone_has_no_index() -> None:
    features = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    near = neighbourhoods(features, np.arange(30) % 2, np.repeat(["a", "b"], 15), np.repeat(["a", "b"], 15))
    measured = robustness(near.assign(centre="a"), "center", usual_neighbours(near), replicates=9)
    assert measured.margin.value is None
    confounded = neighbourhoods(features, np.repeat([0, 1], 15), np.repeat(["a", "b"], 15), np.arange(30))
    told = robustness(confounded, "center", 5, replicates=9)
    assert told.index.value is None
    assert told.chance is None
    assert told.support.value == 0
