"""Folds share no group, hold each image once, resemble each other, and do not depend on the order of the rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.folds import assign_folds, fold_splits, folds_by, groups_on_both_sides
from tumortrace.errors import SplitError


def cohort(groups: int = 20, seed: int = 0) -> Cohort:
    """Slides of 5 to 60 patches, each with a share of positives of its own."""
    rng = np.random.default_rng(seed)
    group = np.repeat([f"s{number:02}" for number in range(groups)], rng.integers(5, 60, groups))
    share = dict(zip(np.unique(group), rng.beta(2, 3, groups), strict=True))
    label = (rng.random(len(group)) < [share[name] for name in group]).astype(int)
    ids = [f"i{number:04}" for number in range(len(group))]
    return Cohort("mine", "table", pd.DataFrame({"id": ids, "path": "", "label": label, "group": group, "split": None}))


@pytest.mark.parametrize("by_group", [True, False])
def test_each_image_is_in_one_fold_of_each_repeat(by_group: bool) -> None:
    """Folds are disjoint and complete, of like size and class balance; by group they share no slide."""
    data = cohort()
    table = assign_folds(data, 4, 2, by_group=by_group)
    assert not table.duplicated(["id", "repeat"]).any()
    assert all(set(part) == set(data.table["id"]) for _, part in table.groupby("repeat")["id"])
    rows = table.merge(data.table[["id", "label"]], on="id")
    found = rows.groupby(["repeat", "fold"])["label"].agg(["size", "mean"])
    assert len(found) == 8
    assert found["size"].to_numpy() == pytest.approx(len(data) / 4, rel=0.1)
    assert found["mean"].to_numpy() == pytest.approx(data.table["label"].mean(), abs=0.05)
    assert groups_on_both_sides(table) == (0 if by_group else 20)
    one, two = (table[table["repeat"] == repeat].set_index("id")["fold"] for repeat in (1, 2))
    assert (one != two.loc[one.index]).any()


def test_the_seed_decides_and_the_order_of_rows_does_not() -> None:
    """Same seed, same folds from shuffled rows; another seed, other folds."""
    data = cohort()
    shuffled = Cohort("mine", "table", data.table.sample(frac=1, random_state=1))
    first = assign_folds(data, 5, seed=3)
    pd.testing.assert_frame_equal(assign_folds(shuffled, 5, seed=3), first)
    assert not assign_folds(data, 5, seed=4).equals(first)


@pytest.mark.parametrize("by_group", [True, False])
def test_the_fold_is_the_test_split_and_the_rest_is_divided(by_group: bool) -> None:
    """Test is exactly the fold; train, validation and calibration share the rest, by group where asked."""
    data = cohort()
    data.table.loc[:50, "split"] = "test"  # the data's own splits play no part
    table = assign_folds(data, 4, by_group=by_group)
    splits = fold_splits(data, table, 1, 2, seed=1, by_group=by_group)
    of = splits.table.set_index("id")["split"]
    assert set(of.index[of == "test"]) == set(table.loc[table["fold"] == 2, "id"])
    assert set(of) == {"train", "validation", "calibration", "test"}
    assert len(of) == len(data)
    assert (of == "train").sum() > 0.6 * (of != "test").sum()
    assert splits.leakage.startswith("ruled out" if by_group else "present")
    assert splits.notes[0] == "fold 2 of 4, repeat 1 of 1, is the test split"


def test_what_cannot_be_divided_is_refused() -> None:
    """More folds than slides, a single fold, and ids that come twice."""
    with pytest.raises(SplitError, match="3 slides or patients for 4 folds"):
        assign_folds(cohort(3), 4)
    with pytest.raises(SplitError, match="at least 2 folds"):
        assign_folds(cohort(), 1)
    twice = cohort().table
    twice.loc[1, "id"] = twice.loc[0, "id"]
    with pytest.raises(SplitError, match="come twice: i0000"):
        assign_folds(Cohort("mine", "table", twice), 4)


def centres(**changes: object) -> Cohort:
    table = pd.DataFrame(
        {"id": list("abcdefgh"), "path": "", "label": [0, 1] * 4, "group": list("AABBCCDD"), "split": None}
    )
    return Cohort("mine", "table", table.assign(center=[1, 1, 1, 1, "x", "x", "y", "y"]).assign(**changes))


def test_each_centre_is_left_out_in_turn() -> None:
    table, names = folds_by(centres(), "center")
    assert names == ["1", "x", "y"]
    assert table.groupby("fold")["id"].agg("".join).tolist() == ["abcd", "ef", "gh"]
    assert set(table["repeat"]) == {1}


@pytest.mark.parametrize(
    ("changes", "column", "line"),
    [
        ({}, "hospital", "no column 'hospital'; expected one of center"),
        ({"center": [1] * 8}, "center", "1 different values"),
        ({"center": [1, None, 1, 1, 2, 2, 2, 2]}, "center", "1 empty cells"),
        ({"center": [1, 2, 1, 1, 2, 2, 2, 2]}, "center", "group A stands under several values of center"),
    ],
)
def test_what_cannot_be_left_out_by_centre(changes: dict[str, object], column: str, line: str) -> None:
    with pytest.raises(SplitError, match=line):
        folds_by(centres(**changes), column)
    if "stands under" in line:
        assert len(folds_by(centres(**changes), column, by_group=False)[1]) == 2
