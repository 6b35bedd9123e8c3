"""The audit: each fault planted in a small folder is found, a clean folder is left alone, real data tell the known."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tumortrace.cohorts.audit import Audit, check
from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.findings import Finding
from tumortrace.cohorts.splits import assign_splits

SPLITS = {"A": "train", "B": "train", "C": "validation", "D": "calibration", "E": "test", "F": "test"}


@pytest.fixture
def clean(tmp_path: Path) -> pd.DataFrame:
    """Six groups of eight distinct coloured pictures, both classes in each, with splits by group."""
    rng = np.random.default_rng(0)
    rows = []
    for group, split in SPLITS.items():
        for number in range(8):
            path = tmp_path / f"{group}{number}.png"
            pixels = rng.normal((200, 120, 180), 25, (16, 16, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(path)
            rows.append({"id": path.stem, "path": str(path), "label": number % 2, "group": group, "split": split})
    return pd.DataFrame(rows)


def audited(table: pd.DataFrame, notes: tuple[str, ...] = ()) -> Audit:
    return check(Cohort("planted", "table", table, ("normal", "tumour"), notes=notes))


def finding(audit: Audit, name: str) -> Finding:
    (found,) = [each for each in audit.findings if each.name == name]
    return found


def path_of(table: pd.DataFrame, identity: str) -> str:
    return table.loc[table["id"] == identity, "path"].item()


def test_a_clean_folder_has_notes_only(clean: pd.DataFrame) -> None:
    """Class balance, and nothing else."""
    audit = audited(clean)
    assert [(each.verdict, each.name) for each in audit.findings] == [("note", "class-balance")]
    assert (audit.images, audit.classes, audit.errors, len(audit.quarantine)) == (
        48,
        {"normal": 24, "tumour": 24},
        (),
        0,
    )


def unreadable(table: pd.DataFrame) -> None:
    Path(path_of(table, "A0")).write_bytes(b"not an image")
    Path(path_of(table, "B1")).unlink()
    Path(path_of(table, "C2")).write_bytes(Path(path_of(table, "C2")).read_bytes()[:300])


def odd_size(table: pd.DataFrame) -> None:
    for identity in ("A0", "A1"):
        Image.open(path_of(table, identity)).crop((0, 0, 16, 9)).save(path_of(table, identity))


def blank(table: pd.DataFrame) -> None:
    for identity in ("A0", "E1"):  # the same white picture in two splits: no leak
        Image.new("RGB", (16, 16), "white").save(path_of(table, identity))
    Image.fromarray(np.random.default_rng(0).integers(240, 245, (16, 16, 3), np.uint8)).save(path_of(table, "C3"))


def grey(table: pd.DataFrame) -> None:
    for identity in ("A0", "A1", "B0"):
        Image.open(path_of(table, identity)).convert("L").save(path_of(table, identity))


def unlabelled(table: pd.DataFrame) -> None:
    table.loc[table["id"].isin(["A0", "B1", "E3", "E4"]), "label"] = None


def one_class(table: pd.DataFrame) -> None:
    table["label"] = 0


def clashing_ids(table: pd.DataFrame) -> None:
    table.loc[table["id"] == "A1", "id"] = "A0"


def repeated_row(table: pd.DataFrame) -> None:
    table.loc[len(table)] = table.loc[0]


def copy_within(table: pd.DataFrame) -> None:
    for target in ("A2", "A4", "A6"):  # compression differs, pixels do not
        Image.open(path_of(table, "A0")).save(path_of(table, target), compress_level=1)


def copy_with_other_label(table: pd.DataFrame) -> None:
    shutil.copy(path_of(table, "A0"), path_of(table, "A1"))


def copy_across_splits(table: pd.DataFrame) -> None:
    shutil.copy(path_of(table, "E0"), path_of(table, "A0"))


def copy_across_tuning_splits(table: pd.DataFrame) -> None:
    shutil.copy(path_of(table, "C0"), path_of(table, "D0"))


def copy_across_groups(table: pd.DataFrame) -> None:
    shutil.copy(path_of(table, "A0"), path_of(table, "B0"))


def unknown_groups(table: pd.DataFrame) -> None:
    table.loc[table["group"].isin(["A", "F"]), "group"] = None


def crossing_group(table: pd.DataFrame) -> None:
    table.loc[table["id"].isin(["A0", "B0"]), "split"] = "test"


def pure_groups(table: pd.DataFrame) -> None:
    table["label"] = table["group"].isin(["A", "C", "F"]).astype(int)


def telling_size(table: pd.DataFrame) -> None:
    for path in table.loc[table["label"] == 1, "path"]:
        Image.open(path).crop((0, 0, 12, 12)).save(path)


def telling_type(table: pd.DataFrame) -> None:
    for row in table.index[table["label"] == 1]:
        target = table.loc[row, "path"].replace(".png", ".bmp")
        Image.open(table.loc[row, "path"]).save(target)
        table.loc[row, "path"] = target


def telling_grey(table: pd.DataFrame) -> None:
    for path in table.loc[table["label"] == 1, "path"]:
        Image.open(path).convert("L").save(path)


@pytest.mark.parametrize(
    ("plant", "name", "verdict", "count", "says"),
    [
        (unreadable, "unreadable", "error", 3, "3 of 48 images cannot be decoded"),
        (odd_size, "odd-size", "warning", 2, "2 of 48 images are not 16x16 pixels (1 other sizes)"),
        (blank, "blank", "warning", 3, "3 images are blank or nearly so, 2 of them labelled positive"),
        (grey, "grey-among-colour", "note", 3, "3 images are grey among 45 coloured ones"),
        (unlabelled, "unlabelled", "note", 4, "4 of 48 images carry no label"),
        (one_class, "class-absent", "error", 48, "no labelled image is of tumour"),
        (clashing_ids, "id-repeated", "error", 1, "1 id comes more than once, with different labels or pictures"),
        (repeated_row, "id-repeated", "warning", 1, "1 id comes more than once, for the same picture"),
        (copy_within, "copies-within-split", "warning", 3, "train normal: 8 files, 5 distinct pictures"),
        (copy_with_other_label, "copies-conflict", "error", 2, "1 pictures stand in 2 files with both labels"),
        (copy_across_splits, "copies-across-splits", "error", 2, "1 pictures stand in several splits (train, test)"),
        (copy_across_tuning_splits, "copies-across-splits", "warning", 2, "(validation, calibration)"),
        (copy_across_groups, "copies-across-groups", "warning", 2, "1 pictures stand in several groups"),
        (unknown_groups, "groups-unknown", "warning", 16, "the slide or patient of 16 of 48 images is not known"),
        (crossing_group, "groups-across-splits", "error", 2, "2 of 6 groups"),
        (pure_groups, "groups-of-one-class", "note", 6, "every group is of one class"),
        (telling_size, "shortcut", "warning", 48, "size in pixels alone tells the label: 12x12 is always tumour"),
        (telling_type, "shortcut", "warning", 48, "file type alone tells the label: .bmp is always tumour"),
        (telling_grey, "shortcut", "warning", 48, "being grey or coloured alone tells the label"),
    ],
)
def test_a_planted_fault_is_found(
    clean: pd.DataFrame, plant: Callable[[pd.DataFrame], None], name: str, verdict: str, count: int, says: str
) -> None:
    """With its verdict, how many it concerns, and a sentence."""
    plant(clean)
    found = finding(audited(clean), name)
    assert (found.verdict, found.count) == (verdict, count)
    assert says in found.message


def test_a_shared_white_patch_is_no_leak(clean: pd.DataFrame) -> None:
    """Blank pictures are alike everywhere; only their labels can conflict."""
    blank(clean)
    names = {each.name for each in audited(clean).findings}
    assert not names & {"copies-across-splits", "copies-across-groups"}


def test_findings_come_errors_first_and_notes_of_the_cohort_are_passed_on(clean: pd.DataFrame) -> None:
    """Errors, warnings, notes; what was assumed on opening is a note."""
    odd_size(clean)
    unreadable(clean)
    audit = audited(clean, notes=("groups come from file names",))
    verdicts = [each.verdict for each in audit.findings]
    assert verdicts == sorted(verdicts, key=["error", "warning", "note"].index)
    assert finding(audit, "assumed").message == "groups come from file names"
    assert [each.name for each in audit.errors] == ["unreadable"]


def test_quarantine_names_each_image_to_leave_out_once(clean: pd.DataFrame) -> None:
    """Undecodable ones, both copies with conflicting labels, and the copy that stands nearer to training."""
    unreadable(clean)
    shutil.copy(path_of(clean, "A4"), path_of(clean, "A5"))
    shutil.copy(path_of(clean, "E0"), path_of(clean, "B0"))
    audit = audited(clean)
    assert dict(zip(audit.quarantine["id"], audit.quarantine["finding"], strict=True)) == {
        "A0": "unreadable",
        "B1": "unreadable",
        "C2": "unreadable",
        "A4": "copies-conflict",
        "A5": "copies-conflict",
        "B0": "copies-across-splits",
    }
    assert list(audit.quarantine.columns) == ["id", "path", "finding"]
    left = clean[~clean["id"].isin(audit.quarantine["id"])]
    assert audited(left).errors == ()


def test_splits_that_are_to_be_used_take_the_place_of_the_data_s_own(clean: pd.DataFrame) -> None:
    """A random split that cuts through groups is an error; its leakage sentence is passed on."""
    cohort = Cohort("planted", "table", clean.assign(split=None))
    by_group = check(cohort, splits=assign_splits(cohort))
    at_random = check(cohort, splits=assign_splits(cohort, by_group=False))
    assert by_group.errors == ()
    assert [each.name for each in at_random.errors] == ["groups-across-splits"]
    assert "on both sides" in finding(at_random, "split").message


def test_the_record_is_plain_json(clean: pd.DataFrame) -> None:
    """As reports read it."""
    unreadable(clean)
    record = json.loads(json.dumps(audited(clean).to_json()))
    assert set(record) == {"cohort", "images", "classes", "findings"}
    assert set(record["findings"][0]) == {"name", "verdict", "count", "message", "remedy", "examples"}
    assert record["findings"][0]["examples"][0].startswith("A0: ")


def test_an_empty_cohort_and_one_without_a_sound_image_are_audited(clean: pd.DataFrame, tmp_path: Path) -> None:
    """Nothing to see is no crash."""
    assert audited(clean[:0]).findings == ()
    audit = audited(clean.assign(path=str(tmp_path / "none.png")))
    assert finding(audit, "unreadable").count == 48


real = pytest.mark.skipif("TUMORTRACE_DATA" not in os.environ, reason="TUMORTRACE_DATA is not set")


def real_cohort(name: str, pattern: str) -> Cohort:
    """Files of the real data as a cohort: class from the folder, patient from the name of IDC's files."""
    paths = sorted(Path(os.environ["TUMORTRACE_DATA"], name).glob(pattern))
    table = pd.DataFrame({"id": [path.stem for path in paths], "path": [str(path) for path in paths]})
    table["label"] = [int(path.parent.name) for path in paths]
    parents = [path.parent.parent.name for path in paths]
    table["split"] = [{"train": "train", "valid": "validation"}.get(parent) for parent in parents]
    table["group"] = [path.stem.partition("_")[0] if name == "idc" else None for path in paths]
    return Cohort(name, "class_folders", table, ("0", "1"))


@real
def test_pcam_has_the_copies_that_are_known() -> None:
    """Positive patches only: 10,000 files of 9,171 pictures, 1,500 of 1,407, and none across the splits."""
    audit = check(real_cohort("pcam", "*/1/*.jpg"))
    assert finding(audit, "copies-within-split").message == (
        "train 1: 10,000 files, 9,171 distinct pictures; validation 1: 1,500 files, 1,407 distinct pictures"
    )
    assert [each.name for each in audit.errors] == ["class-absent"]


@real
def test_idc_split_at_random_puts_nearly_every_patient_on_both_sides() -> None:
    """At least 90 of 95."""
    cohort = real_cohort("idc", "*/*.png")
    audit = check(cohort, splits=assign_splits(cohort, by_group=False))
    assert finding(audit, "groups-across-splits").count >= 90
