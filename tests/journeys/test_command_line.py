"""The command line as a user types it."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tumortrace import __version__
from tumortrace.cli.main import main, run
from tumortrace.cli.verbs import VERBS, Verb


def kaggle_folder(folder: Path, tissue: Path, count: int = 6) -> Path:
    """A folder in the competition's layout, of synthetic patches."""
    source = pd.read_csv(tissue / "cohort.csv", dtype={"id": str})
    for name, part in (("train", source[:count]), ("test", source[count : 2 * count])):
        (folder / name).mkdir(parents=True)
        for identity, path in zip(part["id"], part["path"], strict=True):
            Image.open(tissue / path).save(folder / name / f"{identity}.tif")
    source[:count][["id", "label"]].to_csv(folder / "train_labels.csv", index=False)
    submission = source[count : 2 * count][["id"]].iloc[::-1].assign(label=0)
    submission.to_csv(folder / "sample_submission.csv", index=False)
    return folder


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    """`tumortrace --help` imports none of torch, pandas, numpy, nor what reads words and draws other helps."""
    program = (
        "import sys; from tumortrace.cli.main import run; run(['--help'])\n"
        "heavy = {'torch', 'pandas', 'numpy', 'cyclopts', 'rich', 'pydantic', 'asyncio', 'importlib.metadata'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "train" in done.stdout


def test_the_interpreter_runs_it_too() -> None:
    """`python -m tumortrace` is the command line."""
    done = subprocess.run([sys.executable, "-m", "tumortrace", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == __version__


def test_predicting_loads_no_more_than_it_needs(small_run: Path, tissue: Path, tmp_path: Path) -> None:
    """A network of ours predicts without the libraries of other networks, of figures and of fits."""
    program = (
        "import sys; from tumortrace.cli.main import run\n"
        "code = run(['predict', *sys.argv[1:3], '-o', sys.argv[3]])\n"
        "unneeded = {'timm', 'torchvision', 'torch._dynamo', 'matplotlib', 'sklearn', 'scipy.stats', 'optuna'}\n"
        "print(code, sorted(unneeded & set(sys.modules)), file=sys.stderr)"
    )
    picture = next(tissue.rglob("*.png"))
    command = [sys.executable, "-c", program, str(small_run), str(picture), str(tmp_path / "predictions.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "0 []"


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each verb explains itself and exits with 0."""
    assert run([verb, "--help"]) == 0
    assert "Usage" in capsys.readouterr().out


def test_a_verb_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One row and its function make a verb: names, types, defaults and help come from the function."""
    (tmp_path / "blends.py").write_text(
        "from collections.abc import Sequence\n"
        "from pathlib import Path\n"
        "def blend(runs: Sequence[str | Path], *, changes: Sequence[str] = (), seed: int = 7, deep: bool = False):\n"
        '    """Blend runs.\n\n    Args:\n        runs: Those to blend.\n        seed: Of the blend.\n    """\n'
        "    print(runs, changes, seed, deep)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(VERBS, "blend", Verb("blends:blend"))
    monkeypatch.setattr(Verb, "summary", property(lambda verb: verb.function))
    assert run(["blend", "a", "b", "--set", "x=1", "--set", "y=2", "--deep"]) == 0
    assert "[PosixPath('a'), PosixPath('b')] ['x=1', 'y=2'] 7 True" in capsys.readouterr().out
    assert run(["blend", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Blend runs." in shown
    assert "Of the blend." in shown
    assert run(["blend", "a", "--seed", "-1"]) == 2


def test_garbage_is_looked_for_while_a_verb_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not while it is loaded, and after a wrong call too."""
    told = "import gc\nprint('loaded', gc.isenabled())\ndef count():\n    print('works', gc.isenabled())\n"
    (tmp_path / "counts.py").write_text(told)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(VERBS, "count", Verb("counts:count"))
    monkeypatch.setattr(gc, "freeze", lambda: print("frozen"))  # this process has garbage of other tests
    for words, code in ((["count"], 0), (["count", "--none"], 2)):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == code
        assert gc.isenabled()
        assert capsys.readouterr().out.splitlines() == (
            ["loaded False", "frozen", "works True"] if not code else ["frozen"]
        )


def test_the_list_of_verbs_tells_what_their_functions_say(capsys: pytest.CaptureFixture[str]) -> None:
    """Each verb has the first line of its function's docstring, though none of the functions is imported."""
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, verb in VERBS.items():
        assert verb.summary
        assert " ".join(verb.summary.split()[:4]).replace("`", "") in " ".join(shown.split()), name


@pytest.mark.parametrize(
    "call",
    [
        ["trian"],
        ["train"],
        ["train", "x", "--nonsense"],
        ["train", "x", "--seed=-1"],
        ["predict"],
        ["synth", "cells", "x"],
        ["check"],
    ],
)
def test_a_wrong_call_exits_with_2_or_a_line(call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong call is 2, `train` without anything a refusal; neither shows a traceback."""
    assert run(call) == (1 if call == ["train"] else 2)
    shown = capsys.readouterr()
    assert "Traceback" not in shown.out + shown.err
    assert (shown.out + shown.err).strip()


def test_a_refusal_is_one_line_and_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is not there, an unknown recipe, a run that is none: one line each on standard error."""
    for call in (
        ["train", str(tmp_path / "none")],
        ["train", "synthetic:patches?count=40", "--recipe", "none"],
        ["predict", str(tmp_path), str(tmp_path)],
        ["train", "--resume", str(tmp_path)],
        ["explain", str(tmp_path), str(tmp_path / "a.png")],
    ):
        assert run(call) == 1, call
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("tumortrace: ")


def test_kaggle_journey(tissue: Path, small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A submission has exactly the sample's ids in its order; a missing image is refused, nothing is written."""
    data, out = kaggle_folder(tmp_path / "kaggle", tissue), tmp_path / "submission.csv"
    sample = pd.read_csv(data / "sample_submission.csv", dtype={"id": str})
    assert run(["predict", str(small_run), str(data), "--submission", "-o", str(out)]) == 0
    written = pd.read_csv(out, dtype={"id": str})
    assert written.columns.tolist() == ["id", "label"]
    assert written["id"].tolist() == sample["id"].tolist()
    assert written["label"].between(0, 1).all()
    assert written["label"].nunique() > 2
    assert run(["predict", str(small_run), str(data), "--submission", "--labels", "-o", str(out)]) == 0
    assert set(pd.read_csv(out)["label"]) <= {0, 1}

    everything = tmp_path / "all.csv"
    assert run(["predict", str(small_run), str(data), "-o", str(everything)]) == 0
    table = pd.read_csv(everything, dtype={"id": str})
    assert table.columns.tolist() == [
        "id", "label", "probability", "prediction", "decision", "ood_score", "in_distribution",
    ]  # fmt: skip
    assert len(table) == 12
    assert table.set_index("id").loc[sample["id"], "label"].isna().all()
    assert set(table["decision"]) <= {"positive", "negative", "refer"}

    out.unlink()
    next((data / "test").iterdir()).unlink()
    capsys.readouterr()
    assert run(["predict", str(small_run), str(data), "--submission", "-o", str(out)]) == 1
    assert "1 of 6 ids have no image" in capsys.readouterr().err
    assert not out.exists()


def test_predictions_do_not_depend_on_company(tissue: Path, small_run: Path, tmp_path: Path) -> None:
    """One image alone, in a folder, as PNG or as TIFF has the same probability."""
    image = sorted((tissue / "patches").iterdir())[3]
    alone = tmp_path / "alone.csv"
    assert run(["predict", str(small_run), str(image), "-o", str(alone)]) == 0
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(image, folder / "x.png")
    for number, other in enumerate(sorted((tissue / "patches").iterdir())[10:40]):
        Image.open(other).save(folder / f"{number}.tif")
    together = tmp_path / "together.csv"
    assert run(["predict", str(small_run), str(folder), "-o", str(together)]) == 0
    found = pd.read_csv(together, dtype={"id": str}).set_index("id")["probability"]
    assert found["x"] == pytest.approx(pd.read_csv(alone)["probability"][0], abs=1e-6)


def test_a_shift_in_the_share_of_positives_is_said(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """White patches alone are all predicted alike, which is nothing like training: a warning says so."""
    folder = tmp_path / "white"
    folder.mkdir()
    for number in range(60):
        Image.fromarray(np.full((96, 96, 3), 255, np.uint8)).save(folder / f"{number}.png")
    assert run(["predict", str(small_run), str(folder), "-o", str(tmp_path / "p.csv")]) == 0
    assert re.search(r"warning: (0\.0|100\.0)% of 60 images are predicted", capsys.readouterr().err)


def test_evaluate_leaves_out_what_the_run_has_used(
    tissue: Path, small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On its own data only the test split is left; renamed copies of training images alone are refused, and images that
    chose the epoch are measured under the name of validation when there are no others."""
    out = tmp_path / "evaluation"
    assert run(["evaluate", str(small_run), str(tissue), "-o", str(out)]) == 0
    splits = pd.read_csv(small_run / "splits.csv", dtype=str).set_index("id")["split"]
    table = pd.read_csv(out / "predictions.csv", dtype={"id": str})
    assert set(table["id"]) == set(splits.index[splits == "test"])
    recorded = pd.read_csv(small_run / "predictions.csv", dtype={"id": str}).set_index("id")["probability"]
    np.testing.assert_allclose(table["probability"], recorded.loc[table["id"]], atol=1e-6)

    source = pd.read_csv(tissue / "cohort.csv", dtype={"id": str})
    for identity, path, label in zip(source["id"], source["path"], source["label"], strict=True):
        target = tmp_path / splits[identity] / str(label) / f"renamed-{identity}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tissue / path, target)
    capsys.readouterr()
    assert run(["evaluate", str(small_run), str(tmp_path / "train")]) == 1
    assert "were used to train" in capsys.readouterr().err
    assert run(["evaluate", str(small_run), str(tmp_path / "validation"), "-o", str(out)]) == 0
    assert json.loads((out / "metrics.json").read_text())["validation"]["n"] == (splits == "validation").sum()


def test_explain_and_scan(tissue: Path, small_run: Path, tmp_path: Path) -> None:
    """Pictures, tables and records are written where asked."""
    images = [str(path) for path in sorted((tissue / "patches").iterdir())[:2]]
    assert run(["explain", str(small_run), *images, "-o", str(tmp_path / "why")]) == 0
    assert len(list((tmp_path / "why").glob("*.png"))) == 2
    slide = tmp_path / "slide.png"
    strip = np.concatenate([np.asarray(Image.open(path)) for path in images * 2], axis=1)
    Image.fromarray(np.concatenate([strip] * 4)).save(slide)
    assert run(["scan", str(small_run), str(slide), "--resolution", "1", "-o", str(tmp_path / "scans")]) == 0
    tiles = pd.read_csv(tmp_path / "scans" / "slide" / "tiles.csv")
    assert tiles["probability"].between(0, 1).all()
    assert (tmp_path / "scans" / "slide" / "heatmap.png").stat().st_size > 0


def test_train_from_the_command_line(tissue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`train` prints the run folder; cnn-64 has the published number of parameters on record."""
    call = ["train", str(tissue), "--recipe", "cnn-64", "--epochs", "1", "-o", str(tmp_path), "--seed", "4"]
    assert run(call) == 0
    folder = Path(capsys.readouterr().out.strip())
    record = json.loads((folder / "run.json").read_text())
    assert record["parameters"] == {"total": 1_401_617, "trainable": 1_401_617}
    assert "--epochs" in record["command"] or "epochs=1" in record["command"]
    assert os.listdir(tmp_path) == [folder.name]
