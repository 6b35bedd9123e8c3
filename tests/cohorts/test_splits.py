"""Splits: disjoint by group, stratified, deterministic, respectful of what the data bring, and honest about leakage."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.splits import DEFAULT_FRACTIONS, Splits, assign_splits, read_splits, verify_disjoint
from tumortrace.errors import SplitError


def cohort_of(groups: int | None, images: int = 400, seed: int = 0, split: object = None) -> Cohort:
    """Images whose groups differ in size and in share of the positive class, or none known."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"id": [f"image{row:05d}" for row in range(images)], "path": "", "split": split})
    if groups is None:
        table["group"], rate = None, np.full(images, 0.4)
    else:
        sizes = rng.pareto(2, groups) + 0.2
        member = np.concatenate([np.arange(groups), rng.choice(groups, images - groups, p=sizes / sizes.sum())])
        table["group"], rate = [f"patient{number:03d}" for number in member], rng.beta(1, 1.5, groups)[member]
    table["label"] = (rng.random(images) < rate).astype(int)
    return Cohort("made", "table", table)


def joined(splits: Splits, cohort: Cohort) -> pd.DataFrame:
    return splits.table.merge(cohort.table[["id", "label"]], on="id", validate="one_to_one")


def as_mapping(splits: Splits) -> dict[str, str]:
    return dict(zip(splits.table["id"], splits.table["split"], strict=True))


@pytest.mark.parametrize("seed", range(25))
def test_random_cohorts_are_divided_without_leakage_near_the_wanted_shares(seed: int) -> None:
    """No group stands in two splits, every split has both classes, and shares and class balance are near."""
    groups = int(np.random.default_rng(seed).integers(30, 120))
    cohort = cohort_of(groups, images=2000, seed=seed)
    splits = assign_splits(cohort, seed=seed)
    rows = joined(splits, cohort)
    assert len(rows) == len(cohort)
    assert rows[["group", "split"]].drop_duplicates()["group"].is_unique
    for name, wanted in DEFAULT_FRACTIONS.items():
        part = rows[rows["split"] == name]
        assert set(part["label"]) == {0, 1}
        assert len(part) / len(rows) == pytest.approx(wanted, abs=0.05)
        assert part["label"].mean() == pytest.approx(rows["label"].mean(), abs=0.12)
    assert splits.leakage == f"ruled out: splits share no slide or patient ({groups} groups)"


@pytest.mark.parametrize("groups", [4, 5, 6, 8])
@pytest.mark.parametrize("seed", range(10))
def test_few_groups_still_fill_every_split_with_both_classes_where_possible(groups: int, seed: int) -> None:
    """Each split has a group; each has a class as soon as as many groups hold that class as there are splits."""
    cohort = cohort_of(groups, images=60, seed=seed)
    rows = joined(assign_splits(cohort, seed=seed), cohort)
    holders = {label: cohort.table.loc[cohort.table["label"] == label, "group"].nunique() for label in (0, 1)}
    assert rows["split"].nunique() == 4
    for label in (0, 1):
        assert rows.loc[rows["label"] == label, "split"].nunique() == min(4, holders[label])


def test_pure_groups_are_paired_so_that_each_split_has_both_classes() -> None:
    """Eight groups of one class each: every one of four splits gets one of each."""
    table = pd.DataFrame({"group": np.repeat(list("ABCDEFGH"), [50, 3, 9, 20, 31, 7, 2, 5]), "path": "", "split": None})
    table["label"] = table["group"].isin(list("ACEG")).astype(int)
    cohort = Cohort("pure", "table", table.assign(id=[str(row) for row in range(len(table))]))
    rows = joined(assign_splits(cohort), cohort)
    assert (rows.groupby("split")["label"].nunique() == 2).all()
    assert rows["split"].nunique() == 4


def test_too_few_groups_are_refused_with_the_numbers() -> None:
    """Three patients cannot fill four splits, and the message says how many there are and how many are needed."""
    with pytest.raises(SplitError, match=r"3 groups to divide .*; expected at least 4 groups.*--split random"):
        assign_splits(cohort_of(3))


def test_a_class_in_one_group_only_goes_to_training_and_is_noted() -> None:
    """Training needs both classes most; splits left with one class are named."""
    table = pd.DataFrame({"group": np.repeat(list("ABCDEF"), 20), "path": "", "split": None})
    table["label"] = (table["group"] == "C").astype(int)
    cohort = Cohort("rare", "table", table.assign(id=[str(row) for row in range(len(table))]))
    splits = assign_splits(cohort)
    assert as_mapping(splits)["45"] == "train"
    assert "the calibration split holds no image of positive" in splits.notes


@pytest.mark.parametrize("groups", [None, 25])
def test_order_of_rows_plays_no_part_but_the_seed_does(groups: int | None) -> None:
    """Permuted rows give the same splits; another seed gives others."""
    cohort = cohort_of(groups)
    shuffled = Cohort("made", "table", cohort.table.sample(frac=1, random_state=3))
    first = as_mapping(assign_splits(cohort, seed=7))
    assert first == as_mapping(assign_splits(shuffled, seed=7))
    assert first != as_mapping(assign_splits(cohort, seed=8))


def test_without_groups_the_split_is_stratified_and_leakage_not_ruled_out() -> None:
    """Each class is divided 70/10/10/10 to within one image."""
    cohort = cohort_of(None)
    splits = assign_splits(cohort)
    rows = joined(splits, cohort)
    for label in (0, 1):
        per_split = rows[rows["label"] == label]["split"].value_counts()
        for name, share in DEFAULT_FRACTIONS.items():
            assert abs(per_split[name] - share * per_split.sum()) <= 1.5
    assert splits.leakage.startswith("not ruled out: no slide or patient is known")


def test_partly_known_groups_stay_whole_and_leakage_is_not_ruled_out() -> None:
    """A group that is known is never cut, though other images have none."""
    cohort = cohort_of(20)
    table = cohort.table.copy()
    table.loc[table.index % 3 == 0, "group"] = None
    splits = assign_splits(Cohort("part", "table", table))
    assert splits.table[["group", "split"]].dropna().drop_duplicates()["group"].is_unique
    assert "not ruled out: the slide or patient of 134 of 400 images is not known" in splits.leakage


def test_random_split_despite_groups_says_how_many_leak() -> None:
    """`by_group=False` is allowed and counts the groups on both sides, as pandas counts them."""
    cohort = cohort_of(20)
    splits = assign_splits(cohort, by_group=False)
    leaking = sum(len(set(names)) > 1 for _, names in splits.table.groupby("group")["split"])
    assert leaking > 5
    assert f"on both sides: {leaking} of 20 groups" in splits.leakage


def given(groups: int, names: dict[str, float]) -> Cohort:
    """A cohort whose groups bring their splits, in these shares."""
    cohort = cohort_of(groups)
    order = sorted(cohort.table["group"].unique())
    ends = np.round(np.cumsum(list(names.values())) * len(order)).astype(int)
    of_group = {group: list(names)[int(np.searchsorted(ends, at, side="right"))] for at, group in enumerate(order)}
    return Cohort("given", "table", cohort.table.assign(split=cohort.table["group"].map(of_group)))


def test_given_splits_are_kept_and_calibration_is_half_of_validation_by_group() -> None:
    """Training and test stay untouched; validation and calibration share the given validation's groups."""
    cohort = given(40, {"train": 0.5, "validation": 0.25, "test": 0.25})
    splits = assign_splits(cohort)
    rows = splits.table.merge(cohort.table[["id", "label", "split"]], on="id", suffixes=("", "_given"))
    kept = rows["split_given"] != "validation"
    assert (rows.loc[kept, "split"] == rows.loc[kept, "split_given"]).all()
    assert set(rows.loc[~kept, "split"]) == {"validation", "calibration"}
    assert rows[~kept].groupby("split")["label"].nunique().eq(2).all()
    assert any("calibration is" in note and "validation split, by group" in note for note in splits.notes)


def test_calibration_and_validation_come_out_of_training_where_none_is_given_and_never_out_of_test() -> None:
    """With train and test given, test keeps every image."""
    cohort = given(40, {"train": 0.6, "test": 0.4})
    splits = assign_splits(cohort)
    test_ids = set(cohort.table.loc[cohort.table["split"] == "test", "id"])
    assert set(splits.table.loc[splits.table["split"] == "test", "id"]) == test_ids
    assert set(splits.table["split"]) == set(DEFAULT_FRACTIONS)


def test_validation_of_one_group_is_left_alone_and_calibration_comes_out_of_training() -> None:
    """One patient cannot be halved without leakage."""
    cohort = given(20, {"train": 0.75, "validation": 0.05, "test": 0.2})
    splits = assign_splits(cohort)
    assert any("of the data's own train split" in note for note in splits.notes)
    assert set(splits.table["split"]) == set(DEFAULT_FRACTIONS)


def test_no_test_split_is_invented_where_the_data_bring_splits() -> None:
    """Train and validation given: test stays absent, and that is said."""
    splits = assign_splits(given(30, {"train": 0.7, "validation": 0.3}))
    assert set(splits.table["split"]) == {"train", "validation", "calibration"}
    assert any("no test split" in note for note in splits.notes)


def test_unlabelled_images_and_images_without_a_given_split_stay_out() -> None:
    """Unlabelled rows are in no split; labelled ones without a split among others are left out with a note."""
    table = given(30, {"train": 0.7, "validation": 0.3}).table.copy()
    table.loc[:4, "label"] = pd.NA
    table.loc[5:14, "split"] = pd.NA
    splits = assign_splits(Cohort("holes", "table", table))
    assert len(splits.table) == len(table) - 15
    assert any(note.startswith("10 labelled images have no split") for note in splits.notes)


def test_unsplit_images_are_training_where_only_test_is_given() -> None:
    """Marking the test images alone is enough."""
    table = given(30, {"train": 0.7, "test": 0.3}).table.copy()
    table.loc[table["split"] == "train", "split"] = pd.NA
    splits = assign_splits(Cohort("half", "table", table))
    assert set(splits.table["split"]) == set(DEFAULT_FRACTIONS)
    assert len(splits.table) == len(table)


def test_a_group_in_several_given_splits_is_refused_by_name_unless_random_is_asked_for() -> None:
    """The message names the group; `by_group=False` lets it pass and says so."""
    table = given(30, {"train": 0.7, "validation": 0.3}).table.copy()
    row = table.index[table["group"] == "patient000"][0]
    table.loc[row, "split"] = "validation"
    with pytest.raises(SplitError, match="1 group stands in several splits: patient000"):
        assign_splits(Cohort("crossed", "table", table))
    assert "on both sides" in assign_splits(Cohort("crossed", "table", table), by_group=False).leakage


def test_a_training_split_without_labels_is_told_with_what_to_do() -> None:
    """As where the file of PatchCamelyon's training labels is missing: no word of other splits, but of labels."""
    table = cohort_of(12).table
    split = pd.Series(["train", "validation", "test"] * len(table))[: len(table)].to_numpy()
    table = table.assign(split=split, label=table["label"].where(split != "train"))
    with pytest.raises(SplitError, match=r"of test, validation, and none to train on.* What to do: label those"):
        assign_splits(Cohort("unlabelled", "table", table))


def test_an_id_in_two_splits_is_refused() -> None:
    """Also where no group is known."""
    table = pd.DataFrame({"id": ["a", "a"], "group": [None, None], "split": ["train", "test"]})
    with pytest.raises(SplitError, match="1 id stands in several splits: a"):
        verify_disjoint(table)


@pytest.mark.parametrize(
    "fractions", [{"train": 0.5}, {"train": 1.2, "test": -0.2}, {"train": 0.5, "exam": 0.5}, {"test": 1.0}, {}]
)
def test_senseless_fractions_are_refused(fractions: dict[str, float]) -> None:
    """They must name known splits, hold training and add up to 1."""
    with pytest.raises(SplitError, match="add up to 1"):
        assign_splits(cohort_of(20), fractions=fractions)


def test_fewer_splits_can_be_asked_for() -> None:
    """Only the named splits are made."""
    splits = assign_splits(cohort_of(20), fractions={"train": 0.8, "test": 0.2})
    assert set(splits.table["split"]) == {"train", "test"}


def test_one_class_or_no_label_is_refused() -> None:
    """Nothing can be learned from either."""
    cohort = cohort_of(20)
    with pytest.raises(SplitError, match="all labelled images are of one class"):
        assign_splits(Cohort("one", "table", cohort.table.assign(label=1)))
    with pytest.raises(SplitError, match="no image carries a label"):
        assign_splits(Cohort("none", "table", cohort.table.assign(label=None)))


def test_splits_file_reads_back_as_written(tmp_path) -> None:
    """Also with ids such as 007 and NA, and with images whose group is not known."""
    table = cohort_of(20).table.copy()
    table.loc[0, "id"], table.loc[1, "id"], table.loc[2, "group"] = "007", "NA", None
    cohort = Cohort("file", "table", table)
    splits = assign_splits(cohort)
    splits.table.to_csv(tmp_path / "splits.csv", index=False)
    back = read_splits(tmp_path / "splits.csv", cohort)
    pd.testing.assert_frame_equal(back.table, splits.table)
    assert back.leakage == splits.leakage


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.assign(id="x" + table["id"]), "400 ids that the cohort lacks: ximage00000, "),
        (lambda table: table.drop(columns="group"), "no column 'group'"),
        (lambda table: table.replace("test", "exam"), "unknown splits: exam"),
        (lambda table: pd.concat([table, table[:2]]), "2 ids that come twice"),
        (lambda table: table.assign(group=table["group"].where(table.index != 3, "x")), "1 ids whose group is another"),
        (lambda table: table.assign(group=table["group"].where(table.index != 3)), "1 ids whose group is another"),
        (lambda table: table.assign(split=np.where(table.index % 2, "train", "test")), "stand in several splits"),
    ],
)
def test_a_splits_file_that_does_not_fit_is_refused(change, message: str, tmp_path) -> None:
    """Unknown ids, other groups, unknown splits, repeats and leakage each give one line."""
    cohort = cohort_of(20)
    change(assign_splits(cohort).table).to_csv(tmp_path / "splits.csv", index=False)
    with pytest.raises(SplitError, match=message):
        read_splits(tmp_path / "splits.csv", cohort)


def copied(cohort: Cohort, pictures: int, seed: int = 0) -> dict[str, str]:
    """Pictures of three images each, drawn from anywhere in the cohort."""
    drawn = np.random.default_rng(seed).permutation(cohort.table["id"].to_numpy(str))[: 3 * pictures]
    return {identity: f"digest{number % pictures}" for number, identity in enumerate(drawn)}


def reached(edges: dict[str, set[str]], start: str) -> set[str]:
    """All that hangs together with `start`, step by step."""
    found, waiting = {start}, [start]
    while waiting:
        fresh = edges[waiting.pop()] - found
        found |= fresh
        waiting += fresh
    return found


@pytest.mark.parametrize("by_group", [True, False])
@pytest.mark.parametrize("groups", [None, 200])
def test_copies_stay_on_one_side(groups: int | None, by_group: bool) -> None:
    """No picture stands in two splits, no group in two (unless cut on purpose), and a note says what is joined."""
    cohort = cohort_of(groups, images=900)
    copies = copied(cohort, 30)
    splits = assign_splits(cohort, by_group=by_group, copies=copies)
    rows = joined(splits, cohort).assign(picture=lambda table: table["id"].map(copies))
    assert rows.groupby("picture")["split"].nunique().eq(1).all()
    if groups and by_group:
        assert rows.groupby("group")["split"].nunique().eq(1).all()
    else:
        assert "90 images share pictures, pixel for pixel: they are divided as 30 sets, copies together" in splits.notes
    for name, wanted in DEFAULT_FRACTIONS.items():
        assert (rows["split"] == name).mean() == pytest.approx(wanted, abs=0.05)
    without = assign_splits(cohort, by_group=by_group)
    assert joined(without, cohort).assign(p=rows["picture"]).groupby("p")["split"].nunique().gt(1).any()
    assert without.notes == ()


def test_groups_that_share_pictures_are_one_for_splitting() -> None:
    """They are what hangs together through pictures; groups of their own in the table, as they were."""
    cohort = cohort_of(60, images=600)
    copies = copied(cohort, 12)
    table = cohort.table.assign(picture=cohort.table["id"].map(copies))
    edges: dict[str, set[str]] = {group: set() for group in table["group"]}
    for _, part in table.dropna(subset=["picture"]).groupby("picture"):
        for group in part["group"]:
            edges[group] |= set(part["group"])
    splits = assign_splits(cohort, copies=copies)
    split = splits.table.drop_duplicates("group").set_index("group")["split"]
    larger = [reached(edges, group) for group in edges]
    assert all(len(set(split[list(component)])) == 1 for component in larger)
    together = {frozenset(component) for component in larger if len(component) > 1}
    told = f"{sum(map(len, together))} groups share pictures, pixel for pixel: they are divided as {len(together)} set"
    assert any(note.startswith(told) for note in splits.notes)
    assert splits.table["group"].nunique() == 60


def test_copies_stay_together_where_the_data_s_own_validation_is_halved() -> None:
    """What the data bring is kept, copies across it too: these are for the audit to refuse."""
    cohort = cohort_of(None, images=400)
    table = cohort.table.assign(split=np.where(cohort.table.index % 4 == 0, "validation", "train"))
    own = Cohort("own", "table", table)
    ids = table.loc[table["split"] == "validation", "id"].tolist()
    copies = {identity: f"digest{number // 2}" for number, identity in enumerate(ids[:40])}
    copies |= {ids[0]: "both", table["id"][1]: "both"}
    splits = assign_splits(own, copies=copies)
    split = as_mapping(splits)
    stands: dict[str, set[str]] = {}
    for identity, picture in copies.items():
        stands.setdefault(picture, set()).add(split[identity])
    assert [picture for picture, names in stands.items() if len(names) > 1] == ["both"]
    assert split[table["id"][1]] == "train"
    assert set(split.values()) == {"train", "validation", "calibration"}


def test_too_few_units_after_joining_are_refused_in_words() -> None:
    """Five patients that all share one picture cannot be divided, and the line says why there are so few."""
    cohort = cohort_of(5, images=60)
    first = cohort.table.drop_duplicates("group")["id"]
    with pytest.raises(SplitError, match=r"1 group, those that share pictures being one, to divide into"):
        assign_splits(cohort, copies=dict.fromkeys(first, "same"))
