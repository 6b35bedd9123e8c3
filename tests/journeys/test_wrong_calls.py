"""What people type wrong: one clear line, and nothing of theirs lost, overwritten or silently passed over."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tumortrace.cli.main import run
from tumortrace.inference.evaluate import evaluate
from tumortrace.records.evaluation import EvaluationRecord

Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a call that must be refused with exit code 1 and one line, which is returned."""

    def call(*words: object) -> str:
        capsys.readouterr()
        assert run([str(word) for word in words]) == 1, words
        lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
        assert len(lines) == 1, lines
        assert lines[0].startswith("tumortrace: ")
        return lines[0]

    return call


def class_folders(folder: Path) -> Path:
    """Two class folders of two small pictures each."""
    for number, name in enumerate(("benign", "malignant")):
        (folder / name).mkdir(parents=True)
        for k in range(2):
            Image.new("RGB", (16, 16), (90 * number, 40 * k, 120)).save(folder / name / f"{name}-{k}.png")
    return folder


@pytest.mark.parametrize("value", ["1.5", "0.4", "nan", "1e3"])
def test_a_fraction_is_not_rounded_to_a_whole_number(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--epochs 1.5` is a wrong call, not one epoch."""
    assert run(["train", "synthetic:patches?count=40", "--epochs", value]) == 2
    assert value in "".join(capsys.readouterr())


def test_nan_is_no_resolution_and_whole_numbers_still_pass(capsys: pytest.CaptureFixture[str]) -> None:
    """Not-a-number and infinity are wrong calls; `2.0` is 2, which the next check then judges."""
    for value in ("nan", "inf"):
        assert run(["check", "nothing-here", "--resolution", value]) == 2
    assert run(["check", "nothing-here", "--resolution", "0.5", "--seed", "2.0"]) == 1
    assert "no such file or folder" in capsys.readouterr().err


def test_synth_takes_counts_literally(tmp_path: Path, refused: Refused) -> None:
    """No count of 0 becomes the default, no slide has a count, and a slide is no PNG."""
    assert "count is 0" in refused("synth", "patches", tmp_path / "a", "--count", 0)
    assert "--count for a slide" in refused("synth", "slide", tmp_path / "b", "--count", 3)
    assert "a slide as .png" in refused("synth", "slide", tmp_path / "c.png")
    assert list(tmp_path.iterdir()) == []


def test_predictions_are_refused_where_they_cannot_be_written_before_any_work(
    tissue: Path, small_run: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder, a file as a folder, what is read itself and a run's own records: told before the model is loaded."""
    monkeypatch.setattr("tumortrace.inference.predict.load_model", lambda *_, **__: pytest.fail("loaded"))
    (tmp_path / "file").touch()
    table = shutil.copy(tissue / "cohort.csv", tmp_path / "labels.csv")
    (tmp_path / "run.json").write_text("{}")
    assert f"{tmp_path}: is a folder" in refused("predict", small_run, tissue, "-o", tmp_path)
    assert "cannot be written" in refused("predict", small_run, tissue, "-o", tmp_path / "file" / "p.csv")
    assert "is what the call reads" in refused("predict", small_run, table, "-o", table)
    assert "run's own records" in refused("predict", small_run, tissue, "-o", table)
    assert "--labels without --submission" in refused("predict", small_run, tissue, "--labels")
    assert Path(table).read_bytes() == (tissue / "cohort.csv").read_bytes()


def test_a_runs_report_is_not_overwritten_by_other_verbs(
    tissue: Path, small_run: Path, tmp_path: Path, refused: Refused
) -> None:
    """`check`, `explore`, `compare` and `evaluate` do not write into a run's folder, nor where there is a file."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    (tmp_path / "file").touch()
    for target, told in ((folder, "the folder of a run"), (tmp_path / "file", "is a file")):
        for call in (
            ("check", tissue),
            ("explore", tissue),
            ("compare", small_run, small_run),
            ("evaluate", small_run, tissue),
        ):
            assert told in refused(*call, "-o", target), call
    assert [path.name for path in folder.iterdir()] == ["run.json"]


def test_train_says_at_once_that_nothing_can_be_written(tmp_path: Path, refused: Refused) -> None:
    """A file in the place of the runs' folder is told before the data are looked at."""
    (tmp_path / "file").touch()
    for call in (["train"], ["train", "--members", 2], ["train", "--fractions", "10%,100%"], ["crossval"], ["tune"]):
        assert "is a file" in refused(*call, tmp_path / "nothing", "-o", tmp_path / "file")


def test_results_do_not_become_data(tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """`train .` within a folder of class folders would make `runs/` a third class: refused, nothing is left there."""
    data = class_folders(tmp_path / "data")
    monkeypatch.chdir(data)
    assert "runs: lies within the data" in refused("train", ".")
    assert "runs: lies within the data" in refused("train", ".", "--members", 2)
    assert "lies within the data" in refused("explore", ".", "--no-check")
    assert "is the folder of the data" in refused("check", ".", "-o", ".")
    assert sorted(path.name for path in data.iterdir()) == ["benign", "malignant"]


def test_resume_takes_nothing_but_the_folder(small_run: Path, refused: Refused) -> None:
    """An option beside `--resume` would be passed over; it is refused by name."""
    for option in (["--epochs", 5], ["--positive", "x"], ["--set", "a=1"], ["--device", "cpu"], ["--seed", 1]):
        assert f"{option[0]} and --resume" in refused("train", "--resume", small_run, *option)
    assert "--folds and --resume" in refused("crossval", "--resume", small_run, "--folds", 3)
    assert "--trials and --resume" in refused("tune", "--resume", small_run, "--trials", 3)
    assert "--workers" not in refused("tune", "--resume", small_run, "--workers", 2)


def test_what_is_misspelt_is_told_with_what_may_be_meant(tmp_path: Path, refused: Refused) -> None:
    """American spelling of a field is recognised, and letters exchanged; the data are not opened."""
    data = tmp_path / "nothing"
    assert "is optimiser meant?" in refused("train", data, "--set", "optimizer.lr=0.1")
    assert "is crop meant?" in refused("recipes", "cnn-64", "--set", "preprocessing.corp=32")


def test_a_wrong_network_costs_no_look_at_the_data(tmp_path: Path, refused: Refused) -> None:
    """The network's name and arguments are judged first: the folder of the data, which is missing, is not reached."""
    assert "no model named 'resnet'" in refused("train", tmp_path / "nothing", "--set", "model.name=resnet")
    for call in (["train"], ["train", "--members", "2"], ["train", "--fractions", "10%,100%"], ["crossval"]):
        assert "'depht'" in refused(call[0], tmp_path / "nothing", *call[1:], "--set", "model.arguments.depht=3"), call


def test_run_and_data_exchanged(small_run: Path, tissue: Path, refused: Refused) -> None:
    """A run folder as data, and data as a run, are told apart from a folder of two odd classes."""
    assert "a run folder, which holds no data" in refused("train", small_run)
    assert "no model there" in refused("predict", tissue, small_run)
    assert "no positive class 'cancer'" in refused("train", tissue, "--positive", "cancer")
    assert "the same run twice" in refused("ensemble", small_run, small_run)
    assert "no such folder" in refused("serve", small_run, "--slides", tissue / "none")


def test_a_finding_that_is_not_there_is_not_allowed_silently(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--allow` with a misspelt name says that it changes nothing."""
    from tumortrace.cohorts.audit import check, refuse

    audit = check(class_folders(tmp_path / "data"), quick=True)
    refuse(audit, ["conflikt", "groups-across-splits"])
    assert capsys.readouterr().err == "note: --allow conflikt changes nothing: check finds nothing of this name here\n"


def test_evaluations_of_data_of_one_name_stand_side_by_side(
    tissue: Path, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hospitals' folders named alike do not overwrite each other's evaluation; the same data take their place."""

    def write(folder: Path, table: pd.DataFrame, threshold: float, about: EvaluationRecord, **_: object) -> Path:
        about.write(folder)
        return folder

    monkeypatch.setattr("tumortrace.inference.evaluate.write_evaluation", write)
    monkeypatch.setattr("tumortrace.inference.evaluate.renew_report", lambda *_: None)
    copied = shutil.copytree(small_run, tmp_path / "run")
    splits = pd.read_csv(small_run / "splits.csv", dtype=str).set_index("id")["split"]
    source = pd.read_csv(tissue / "cohort.csv", dtype={"id": str})
    test = source[source["id"].map(splits).eq("test")]
    for site, part in (("a", test), ("b", test.groupby("label").head(8))):
        for path, label in zip(part["path"], part["label"], strict=True):
            target = tmp_path / site / "patches" / ("tumour" if label else "normal") / Path(path).name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tissue / path, target)
    written = [evaluate(copied, tmp_path / site / "patches") for site in ("a", "b", "a")]
    assert [path.name for path in written] == ["patches", "patches-2", "patches"]
    images = [json.loads((path / "evaluation.json").read_text())["data"]["images"] for path in written]
    assert images == [len(test), 16, len(test)]


def test_fewer_explanations_leave_no_pictures_of_earlier_ones(tissue: Path, small_run: Path, tmp_path: Path) -> None:
    """The folder holds the pictures of the last call alone, and other files stay."""
    images = [str(path) for path in sorted((tissue / "patches").iterdir())[:2]]
    assert run(["explain", str(small_run), *images, "-o", str(tmp_path)]) == 0
    Image.new("RGB", (8, 8)).save(tmp_path / "mine.png")
    assert run(["explain", str(small_run), images[0], "-o", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["000.png", "mine.png"]


def test_words_may_stand_behind_options(small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images, slides and runs are taken wherever they stand in a call, all of them."""
    for verb, *options in (("explain", "--method", "occlusion"), ("scan", "--resolution", "0.5")):
        assert run([verb, str(small_run), *options, "a", "b"]) == 1, verb
        assert "no such file" in capsys.readouterr().err
