"""What the audit returns: its record, quarantine, refusal, the quick part; and what it says of real data."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tumortrace.cohorts.audit import Audit, check, refuse
from tumortrace.cohorts.cohort import Cohort, Reading, ReadingOptions, Source
from tumortrace.cohorts.findings import Finding
from tumortrace.cohorts.layouts import open_cohort, open_leniently
from tumortrace.cohorts.looks import as_table, look_at
from tumortrace.cohorts.splits import assign_splits
from tumortrace.errors import DataError

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


def cohort(table: pd.DataFrame, notes: tuple[str, ...] = ()) -> Cohort:
    return Cohort("planted", "table", table, ("normal", "tumour"), notes=notes)


def finding(audit: Audit, name: str) -> Finding:
    (found,) = [each for each in audit.findings if each.name == name]
    return found


def path_of(table: pd.DataFrame, identity: str) -> Path:
    return Path(table.loc[table["id"] == identity, "path"].item())


def break_files(table: pd.DataFrame) -> None:
    path_of(table, "A0").write_bytes(b"not an image")
    path_of(table, "B1").unlink()
    path_of(table, "C2").write_bytes(path_of(table, "C2").read_bytes()[:300])


def test_a_clean_folder_is_described_and_nothing_is_found(clean: pd.DataFrame) -> None:
    """Counts by class and split; what was assumed on opening is a note of the audit, not a finding."""
    audit = check(cohort(clean, notes=("groups come from file names",)))
    assert (audit.findings, audit.errors, audit.warnings, len(audit.quarantine)) == ((), (), (), 0)
    assert (audit.images, audit.groups, audit.classes) == (48, 6, {"normal": 24, "tumour": 24})
    assert audit.splits["train"] == {"normal": 8, "tumour": 8}
    assert audit.notes == ("groups come from file names",)


def test_quarantine_names_each_image_to_leave_out_once_and_why(clean: pd.DataFrame) -> None:
    """Undecodable ones, both copies with conflicting labels, and the copy that stands nearer to training."""
    break_files(clean)
    shutil.copy(path_of(clean, "A4"), path_of(clean, "A5"))
    shutil.copy(path_of(clean, "E0"), path_of(clean, "B0"))
    quarantine = check(cohort(clean)).quarantine
    assert list(quarantine.columns) == ["id", "path", "finding", "reason"]
    assert dict(zip(quarantine["id"], quarantine["finding"], strict=True)) == {
        "A0": "unreadable",
        "B1": "files-missing",
        "C2": "truncated",
        "A4": "copies-conflict",
        "A5": "copies-conflict",
        "B0": "copies-across-splits",
    }
    assert quarantine["reason"].str.len().gt(10).all()
    left = clean[~clean["id"].isin(quarantine["id"])]
    assert check(cohort(left)).findings == ()


def test_findings_come_errors_first(clean: pd.DataFrame) -> None:
    """Then warnings, then notes."""
    break_files(clean)
    Image.open(path_of(clean, "D0")).crop((0, 0, 16, 9)).save(path_of(clean, "D0"))
    Image.open(path_of(clean, "D1")).convert("RGBA").save(path_of(clean, "D1"))
    verdicts = [each.verdict for each in check(cohort(clean)).findings]
    assert verdicts == ["error", "error", "error", "warning", "note"]


def test_splits_that_are_to_be_used_take_the_place_of_the_data_s_own(clean: pd.DataFrame) -> None:
    """A random split that cuts through groups is an error; its leakage sentence is passed on."""
    whole = cohort(clean.assign(split=None))
    by_group = check(whole, splits=assign_splits(whole))
    at_random = check(whole, splits=assign_splits(whole, by_group=False))
    assert by_group.findings == ()
    assert [each.name for each in at_random.errors] == ["groups-across-splits"]
    assert any("on both sides" in note for note in at_random.notes)


def test_the_record_is_plain_json(clean: pd.DataFrame) -> None:
    """As reports read it; empty fields of an example are left out."""
    break_files(clean)
    record = json.loads(json.dumps(check(cohort(clean)).to_record().as_json()))
    names = {"cohort", "images", "classes", "groups", "splits", "findings", "notes", "quarantined"}
    assert set(record) == names | {"data", "fingerprint", "unit"}
    found = {each["name"]: each for each in record["findings"]}["unreadable"]
    assert set(found) == {"name", "verdict", "count", "message", "remedy", "examples"}
    assert set(found["examples"][0]) == {"id", "path", "says"}


def test_an_empty_cohort_and_one_without_a_sound_image_are_audited(clean: pd.DataFrame, tmp_path: Path) -> None:
    """Nothing to see is no crash."""
    assert check(cohort(clean[:0])).findings == ()
    audit = check(cohort(clean.assign(path=str(tmp_path / "none.png"))))
    assert finding(audit, "files-missing").count == 48


def test_the_quick_part_opens_no_file(clean: pd.DataFrame) -> None:
    """Broken files and copies pass unseen; missing files and leaking groups do not."""
    break_files(clean)
    shutil.copy(path_of(clean, "E0"), path_of(clean, "B0"))
    clean.loc[clean["id"] == "F0", "split"] = "train"
    audit = check(cohort(clean), quick=True)
    assert [each.name for each in audit.findings] == ["files-missing", "groups-across-splits"]


def test_the_quick_part_finds_exact_copies_in_decoded_pixels(clean: pd.DataFrame) -> None:
    """Given the pixels that training has decoded anyway; blank pictures are no copies there either."""
    shutil.copy(path_of(clean, "E0"), path_of(clean, "B0"))
    for identity in ("A2", "F2"):
        Image.new("RGB", (16, 16), "white").save(path_of(clean, identity))
    looks = as_table([look_at(np.asarray(Image.open(path)))[0] for path in clean["path"]])
    audit = check(cohort(clean), quick=True, looks=looks)
    assert [each.name for each in audit.errors] == ["copies-across-splits"]
    assert {each.id for each in audit.errors[0].examples} == {"B0", "E0"}


def test_errors_refuse_unless_each_is_allowed_by_name(clean: pd.DataFrame) -> None:
    """The refusal names every error and the flag; what was allowed and needed is returned for the record."""
    break_files(clean)
    audit = check(cohort(clean))
    with pytest.raises(DataError, match=r"(?s)files-missing.*truncated.*unreadable.*--allow files-missing"):
        refuse(audit)
    with pytest.raises(DataError, match="truncated") as refused:
        refuse(audit, ["files-missing", "unreadable"])
    assert "files-missing" not in str(refused.value)
    needed = refuse(audit, ["files-missing", "unreadable", "truncated", "copies-conflict"])
    assert sorted(needed) == ["files-missing", "truncated", "unreadable"]


@pytest.mark.parametrize("data", ["synthetic:patches?count=300", "synthetic:mri?count=120"])
def test_nothing_is_found_in_clean_synthetic_data(data: str) -> None:
    """Smooth by nature, grey by nature, labelled by patient: none of it is a fault."""
    opened = open_cohort(data)
    assert check(opened, splits=assign_splits(opened)).findings == ()


real = pytest.mark.skipif("TUMORTRACE_DATA" not in os.environ, reason="TUMORTRACE_DATA is not set")


def folder(name: str) -> Path:
    return Path(os.environ["TUMORTRACE_DATA"], name)


@real
def test_pcam_has_the_copies_that_are_known() -> None:
    """10,000 files of 9,171 pictures, 1,500 of 1,407, all positive; no copy across splits, near or exact."""
    opened = open_cohort(folder("pcam"))
    audit = check(opened.where(opened.table["label"] == 1))
    assert finding(audit, "copies-within-split").message == (
        "exact copies: train 1: 10,000 files, 9,171 distinct pictures; "
        "validation 1: 1,500 files, 1,407 distinct pictures"
    )
    assert finding(audit, "copies-within-split").count == 829 + 93
    assert [each.name for each in audit.errors] == ["class-absent"]
    assert not [each.name for each in audit.findings if each.name.startswith("near")]


@real
def test_idc_split_at_random_leaks_patients() -> None:
    """At least 90 of 95, without a look at the pictures."""
    opened = open_cohort(folder("idc"), group_from_name=r"^(\d+)_")
    audit = check(opened, splits=assign_splits(opened, by_group=False), quick=True)
    assert [each.name for each in audit.errors] == ["groups-across-splits"]
    assert audit.errors[0].count >= 90
    assert "patients leak" in audit.errors[0].message


@real
def test_the_masks_of_the_mri_slices_are_left_out_aloud() -> None:
    """A folder of images beside one of masks; the masks alone are noticed by what they show."""
    cohort = open_cohort(folder("mri"), label_from_name="^(benign|malignant)")
    assert len(cohort) == 24
    assert any("left out 24 files named as masks" in note for note in cohort.notes)
    assert finding(check(folder("mri") / "masks"), "mask-like").count == 24


@real
def test_broken_files_are_told_one_by_one() -> None:
    """All files of fuzzing corpora: most are cut off or unreadable, each with its reason, and none stops the audit."""
    files = sorted(str(file) for file in folder("malformed").rglob("*") if file.is_file())
    table = pd.DataFrame({"id": files, "path": files, "label": None, "group": None, "split": None})
    audit = check(Cohort("malformed", "table", table))
    broken = [each for each in audit.errors if each.name in ("unreadable", "truncated")]
    assert len(broken) == 2
    assert len(files) / 2 < sum(each.count for each in broken) < len(files)
    assert all(example.says for each in broken for example in each.examples)


def test_the_audit_finds_the_files_that_the_cohort_reads(tmp_path: Path) -> None:
    """Where the same names lie beside the table and in train/, the stray beside those that were read is told."""
    for folder in (tmp_path, tmp_path / "train"):
        folder.mkdir(exist_ok=True)
        for number, name in enumerate(("a", "b", "c", "d")):
            Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(folder / f"{name}.png")
    Image.new("RGB", (8, 8), "white").save(tmp_path / "read-stray.png")
    Image.new("RGB", (8, 8), "white").save(tmp_path / "train" / "unread-stray.png")
    (tmp_path / "labels.csv").write_text("file,label\na.png,0\nb.png,1\nc.png,0\nd.png,1\n")
    opened = open_leniently(tmp_path)
    assert set(opened.listing.rows["file"]) == set(opened.cohort.table["path"])
    assert [Path(path).name for path in opened.listing.strays] == ["read-stray.png"]


def test_a_cohort_knows_how_to_be_opened_again(tmp_path: Path) -> None:
    """By its source, whole or with its labelled rows alone; a choice of rows has none."""
    for number, name in enumerate(("a_1", "b_1", "a_2", "b_2")):
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_text("file,label\na_1.png,x\nb_1.png,y\na_2.png,x\nb_2.png,\n")
    cohort = open_cohort(tmp_path, positive="y", group_from_name="^(.)_", resolution=0.5)
    assert cohort.source == Source(str(tmp_path), Reading("y", None, "^(.)_", None, 0.5))
    assert open_cohort(cohort.source).fingerprint == cohort.fingerprint
    assert open_cohort(cohort.labelled.source).labelled.fingerprint == cohort.labelled.fingerprint
    assert Source.recorded(cohort.source.arguments()) == cohort.source
    assert cohort.where(cohort.table["label"].notna()).source is None


def test_the_options_of_reading_are_the_same_as_keywords() -> None:
    """`ReadingOptions` types what `Reading` holds."""
    assert list(ReadingOptions.__annotations__) == [option.name for option in fields(Reading)]
