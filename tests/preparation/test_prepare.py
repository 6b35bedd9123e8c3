"""`prepare`: the same labels, groups and splits afterwards, every image accounted for, safe against interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tumortrace import open_cohort, synthesise
from tumortrace.errors import CohortError, DataError, RunError, SplitError
from tumortrace.images.decoding import read_image
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.images.super_resolution import SuperResolution
from tumortrace.preparation import learn_super_resolution as learning
from tumortrace.preparation import prepare as prepare_module
from tumortrace.preparation.prepare import prepare
from tumortrace.preparation.prepared_folder import safe_names

IDS = ["a", "A", "b/c", "../up", "µ 1", "NA", "007", "x" * 300, "con.", "ten\n10"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A table of forty 48x48 pictures with groups, splits, positions and odd ids; four are unlabelled."""
    folder = tmp_path / "data"
    (folder / "pictures").mkdir(parents=True)
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"id": [*IDS, *(f"p{row}" for row in range(30))]})
    table["path"] = [f"pictures/{row}.png" for row in range(40)]
    table["label"] = [None if row % 10 == 9 else ("benign", "malignant")[row % 2] for row in range(40)]
    table["group"] = [f"slide{row // 10}" for row in range(40)]
    table["split"] = [("train", "validation", "test", "train")[row // 10] for row in range(40)]
    table["x"], table["y"] = range(40), range(40, 80)
    table["center"] = [None if row == 3 else ("Lund", "Basel")[row // 20] for row in range(40)]
    table["mpp"] = 0.5
    for path in table["path"]:
        Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(folder / path)
    table.to_csv(folder / "cohort.csv", index=False)
    return folder


def record(out: Path) -> dict[str, Any]:
    return json.loads((out / "prepared.json").read_text("utf-8"))


def columns(data: Path) -> pd.DataFrame:
    table = open_cohort(data).table
    return table[["id", "label", "group", "split", "x", "y"]].assign(center=table["center"].fillna("").astype(str))


def test_the_outcome_opens_as_the_same_cohort(data: Path, tmp_path: Path) -> None:
    """Ids, labels, groups, splits, positions, centres, class names; resolution by the change of size; pixels."""
    steps = Preprocessing(crop=32, super_resolution=SuperResolution(scale=2), size=96, filter="lanczos")
    before = open_cohort(data, resolution=0.6)
    out = prepare(before, tmp_path / "out", steps)
    after = open_cohort(out)
    pd.testing.assert_frame_equal(columns(out), columns(data))
    assert after.layout == "prepared"
    assert after.classes == before.classes == ("benign", "malignant")
    assert after.resolution == pytest.approx(0.6 * 32 / 96)
    assert after.preparation is not None
    assert after.preparation["preprocessing"]["crop"] == 32
    assert after.preparation["counts"] == {
        "images": 40,
        "prepared": 40,
        "failed": 0,
        "resized": 0,
        "stain_unchanged": 0,
    }
    image = Image.fromarray(read_image(before.table["path"][5])[8:40, 8:40])
    twice = image.resize((64, 64), Image.Resampling.LANCZOS).resize((96, 96), Image.Resampling.LANCZOS)
    assert np.abs(read_image(after.table["path"][5]).astype(int) - np.asarray(twice)).max() <= 2
    assert not (out / "failed.csv").exists()
    assert Image.open(out / "before_after.png").width > 500


def test_unreadable_images_are_named(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They stand in failed.csv with the reason, are counted and said, and the others are all there."""
    (data / "pictures" / "3.png").write_bytes(b"no image")
    (data / "pictures" / "11.png").write_bytes((data / "pictures" / "12.png").read_bytes()[:500])
    Image.new("RGB", (20, 30), "purple").save(data / "pictures" / "12.png")
    out = prepare(data, tmp_path / "out", Preprocessing(stain="macenko"))
    failed = pd.read_csv(out / "failed.csv")
    assert failed["id"].tolist() == ["../up", "p1"]
    assert failed["reason"].str.len().min() > 5
    counts = record(out)["counts"]
    assert (counts["images"], counts["prepared"], counts["failed"], counts["resized"]) == (40, 38, 2, 1)
    assert len(open_cohort(out)) == 38
    assert "2 of 40 images could not be read and are left out: see failed.csv" in capsys.readouterr().err


def test_nothing_but_unreadable_images_is_refused(tmp_path: Path) -> None:
    """One line, and no cohort in the folder."""
    for name in ("benign", "malignant"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="none of 2 images"):
        prepare(tmp_path / "data", tmp_path / "out", Preprocessing(crop=32))


def test_what_the_tissue_guard_left_is_counted(tmp_path: Path) -> None:
    """Glass keeps its pixels; the table says which images these are."""
    for name in ("benign", "malignant"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (32, 32), (240, 238, 241)).save(tmp_path / "data" / name / f"{name}{number}.png")
    out = prepare(tmp_path / "data", tmp_path / "out", Preprocessing(stain="vahadane"), before_after=0)
    assert record(out)["counts"]["stain_unchanged"] == 6
    assert open_cohort(out).table["stain_unchanged"].tolist() == ["1"] * 6
    assert not (out / "before_after.png").exists()


def test_an_interrupted_call_is_taken_up(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done is kept, a picture cut short is made again, and the end is that of an undisturbed call."""
    monkeypatch.setattr(prepare_module, "PIECE", 4)
    steps = Preprocessing(crop=32, equalisation="histogram")
    whole = prepare(data, tmp_path / "whole", steps)
    piece = prepare_module.prepare_piece
    made: list[str] = []

    def interrupted(paths: list[str], *rest: Any) -> Any:
        if len(made) >= 20:
            raise KeyboardInterrupt
        made.extend(paths)
        return piece(paths, *rest)

    out = tmp_path / "out"
    monkeypatch.setattr(prepare_module, "prepare_piece", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(data, out, steps)
    with pytest.raises(CohortError, match="not finished"):
        open_cohort(out)
    kept = sorted((out / "images").iterdir())
    kept[0].write_bytes(kept[0].read_bytes()[:-9])
    with open(out / ".progress.jsonl", "a") as journal:
        journal.write('[39, {"unchan')
    made.clear()

    def counted(paths: list[str], *rest: Any) -> Any:
        made.extend(paths)
        return piece(paths, *rest)

    monkeypatch.setattr(prepare_module, "prepare_piece", counted)
    prepare(data, out, steps)
    assert len(made) == 21
    for file in ("labels.csv", *(f"images/{picture.name}" for picture in (whole / "images").iterdir())):
        assert (out / file).read_bytes() == (whole / file).read_bytes()
    made.clear()
    prepare(data, out, steps)
    assert made == []


KILLED = """
import sys, time
from tumortrace import prepare
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.preparation import prepare as module
module.PIECE = 2
piece, made = module.prepare_piece, []
module.prepare_piece = lambda *some: (made.append(1), time.sleep(600 if len(made) > 10 else 0), piece(*some))[2]
module.prepare(sys.argv[1], sys.argv[2], Preprocessing(crop=32))
"""


def test_a_killed_process_loses_nothing(data: Path, tmp_path: Path) -> None:
    """Killed in the middle, called again: the same files, and no other."""
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(data), str(out)])
    while len(list(out.glob("images/*.png"))) < 6 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() != 0
    prepare(data, out, Preprocessing(crop=32))
    assert len(list((out / "images").iterdir())) == 40
    pd.testing.assert_frame_equal(columns(out), columns(data))


def test_other_steps_or_data_in_the_same_folder_are_refused(data: Path, tmp_path: Path) -> None:
    """One line that says what differs; nothing is changed. So is a folder with something of the user's."""
    out = prepare(data, tmp_path / "out", Preprocessing(crop=32))
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    with pytest.raises(RunError, match="another steps"):
        prepare(data, out, Preprocessing(crop=40))
    with pytest.raises(RunError, match="another super-resolution"):
        prepare(data, out, Preprocessing(crop=32, super_resolution=SuperResolution()))
    os.utime(data / "pictures" / "0.png", ns=(1, 1))
    with pytest.raises(RunError, match="another data"):
        prepare(data, out, Preprocessing(crop=32))
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(RunError, match="holds no prepared images"):
        prepare(data, tmp_path / "mine", Preprocessing(crop=32))
    with pytest.raises(DataError, match="within the data"):
        prepare(data, data / "out", Preprocessing(crop=32))


def test_names_are_safe_and_unique() -> None:
    """One plain file name each, also where case does not count and where an id comes twice."""
    names = safe_names([*IDS, "a", "a"])
    assert len({name.lower() for name in names}) == len(names)
    assert all(len(name) < 130 and name.isascii() and "/" not in name and name[0] not in ".-" for name in names)
    assert safe_names(["synthetic-0-000001", "p_1.x"]) == ["synthetic-0-000001.png", "p_1.x.png"]


def test_a_learnt_generator_has_seen_training_images_alone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given splits are kept; the generator, its record and its hash are with the images."""
    learn = learning.learn_super_resolution
    seen: list[np.ndarray] = []

    def quickly(images: np.ndarray, rows: np.ndarray, out: Path, **settings: Any) -> Path:
        seen.append(images[rows])
        return learn(images, rows, out, **settings | {"steps": 2, "filters": 4, "batch_size": 2, "crop": 16})

    monkeypatch.setattr(learning, "learn_super_resolution", quickly)
    out = prepare(data, tmp_path / "out", Preprocessing(crop=16), learn=True)
    cohort = open_cohort(data)
    training = cohort.table.loc[cohort.table["split"] == "train", "path"]
    assert np.array_equal(seen[0], np.stack([read_image(path) for path in training]))
    generator = record(out)["super_resolution"]
    assert (generator["method"], generator["file"]) == ("generator", "super_resolution.safetensors")
    assert len(generator["sha256"]) == 64
    assert (out / "super_resolution.json").is_file()
    assert read_image(open_cohort(out).table["path"][0]).shape == (64, 64, 3)
    prepare(data, out, Preprocessing(crop=16), learn=True)
    assert len(seen) == 1
    without = cohort.where(cohort.table["split"] != "train")
    with pytest.raises(SplitError, match="no training images"):
        prepare(without, tmp_path / "none", Preprocessing(), learn=True)


def test_splits_made_for_learning_are_kept(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data without splits get theirs before the generator learns, by slide, and training will use the same."""
    table = pd.read_csv(data / "cohort.csv", dtype=str, keep_default_na=False).drop(columns="split")
    table.to_csv(data / "cohort.csv", index=False)
    learn = learning.learn_super_resolution
    quick = {"steps": 1, "filters": 4, "batch_size": 2, "crop": 16}
    monkeypatch.setattr(
        learning,
        "learn_super_resolution",
        lambda images, rows, out, **settings: learn(images, rows, out, **settings | quick),
    )
    after = open_cohort(prepare(data, tmp_path / "out", Preprocessing(crop=16), learn=True)).labelled.table
    assert after["split"].notna().all()
    assert len(after[["group", "split"]].drop_duplicates()) == after["group"].nunique()
    assert any("leakage ruled out" in note for note in open_cohort(tmp_path / "out").notes)


def test_the_verb(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Steps by option or by recipe; what contradicts itself is one line with exit code 1."""
    from tumortrace.cli.main import run

    tissue = synthesise("patches", tmp_path / "tissue", count=16)
    out = tmp_path / "out"
    options = ["--crop", "32", "--super-resolution", "lanczos", "--size", "64", "--filter", "lanczos"]
    assert run(["prepare", str(tissue), str(out), *options]) == 0
    assert capfd.readouterr().out.strip() == str(out)
    assert read_image(open_cohort(out).table["path"][0]).shape == (64, 64, 3)
    for wrong, says in (
        ([], "no step to take"),
        (["--recipe", "cnn-64", "--crop", "32"], "--recipe and --crop"),
        (["--scale", "2"], "--scale without --super-resolution"),
        (["--crop", "3"], "--crop: Input should be greater than or equal to 8"),
        (["--super-resolution", "missing.pth"], "missing.pth"),
    ):
        assert run(["prepare", str(tissue), str(tmp_path / "none"), *wrong]) == 1
        error = capfd.readouterr().err
        assert says in error
        assert error.count("\n") == 1
    assert not (tmp_path / "none").exists()
