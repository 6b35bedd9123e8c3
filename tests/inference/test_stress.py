"""Stress tests: numbers from their own predictions, resumption, refusals, and what the page says."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tumortrace import load_model, open_cohort, stress, synthesise
from tumortrace.cli.main import run as tumortrace
from tumortrace.cohorts.store import open_store
from tumortrace.errors import CohortError, DataError, RunError
from tumortrace.images.corruptions import corrupt
from tumortrace.inference import stress as verb
from tumortrace.records.evaluation import StressRecord
from tumortrace.reports.stress import draw_loss

pytestmark = pytest.mark.painted

NAMES = ("jpeg", "symmetry")


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 synthetic patches that no run has seen."""
    return synthesise("patches", tmp_path_factory.mktemp("unseen") / "patches", count=60, seed=11)


@pytest.fixture(scope="module")
def run(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the small run, which may be written into."""
    return Path(shutil.copytree(small_run, tmp_path_factory.mktemp("copy") / "run"))


@pytest.fixture(scope="module")
def folder(run: Path, unseen: Path) -> Path:
    """A finished stress test in the run's own folder."""
    return stress(run, unseen, images=40, corruptions=NAMES, resolution=0.97)


def record(folder: Path) -> dict:
    return json.loads((folder / "stress.json").read_text())


def test_numbers_are_those_of_the_corrupted_pictures(run: Path, unseen: Path, folder: Path) -> None:
    """Probabilities are the model's for corrupted images, AUROC is scikit-learn's, the difference their difference."""
    found = record(folder)
    assert found["data"]["images"] == 40
    assert "--resolution 0.97" in found["command"], "how the data were read belongs to the command"
    clean = pd.read_csv(folder / "predictions" / "clean.csv", dtype={"id": str}).set_index("id")
    level = found["corruptions"]["jpeg"]["levels"][4]
    table = pd.read_csv(folder / "predictions" / "jpeg-5.csv", dtype={"id": str}).set_index("id")
    cohort = open_cohort(unseen).table.set_index("id")
    pictures = np.stack([_pixels(cohort.loc[one, "path"]) for one in table.index])
    model = load_model(run)
    expected = model.predict(corrupt(pictures, list(table.index), "jpeg", 5))
    np.testing.assert_allclose(table["probability"], expected, atol=1e-6)
    aurocs = [roc_auc_score(one["label"], one["probability"]) for one in (clean, table)]
    assert level["metrics"]["auroc"]["value"] == pytest.approx(aurocs[1])
    assert level["difference"]["auroc"]["value"] == pytest.approx(aurocs[1] - aurocs[0])
    assert level["amount"] == 10
    same = (clean["prediction"] == table["prediction"]).mean()
    assert level["agreement"]["value"] == pytest.approx(same)
    assert level["probability_change"] == pytest.approx((clean["probability"] - table["probability"]).abs().mean())
    assert level["referred"]["value"] == pytest.approx((table["decision"] == "refer").mean())
    for entry in (level["agreement"], level["referred"], level["out_of_distribution"]):
        assert entry["ci95"][0] <= entry["value"] <= entry["ci95"][1]
        assert entry["ci95"][0] < entry["ci95"][1]


def _pixels(path: str) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"))


def test_mirrored_patches_agree_for_a_model_of_the_symmetries(run: Path, folder: Path) -> None:
    """The default recipe averages the eight views: no call changes, and no probability beyond rounding."""
    assert load_model(run).info.symmetries
    clean = pd.read_csv(folder / "predictions" / "clean.csv")["probability"]
    levels = record(folder)["corruptions"]["symmetry"]["levels"]
    assert [level["agreement"]["value"] for level in levels] == [1.0] * 7
    for index in range(1, 8):
        turned = pd.read_csv(folder / "predictions" / f"symmetry-{index}.csv")["probability"]
        np.testing.assert_allclose(turned, clean, atol=1e-9)


def test_an_interrupted_test_goes_on_and_ends_the_same(
    run: Path, unseen: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was finished before the interruption is not done again; the records are those of an undisturbed test."""
    made = []

    def counted(images: np.ndarray, ids: list[str], name: str, strength: int, *, seed: int) -> np.ndarray:
        if len(made) == 2:
            made.append("interrupted")
            raise KeyboardInterrupt
        made.append(f"{name}-{strength}")
        return corrupt(images, ids, name, strength, seed=seed)

    monkeypatch.setattr(verb, "corrupt", counted)
    with pytest.raises(RunError, match=r"interrupted.*same command again"):
        stress(run, unseen, images=40, corruptions=("jpeg",), out=tmp_path)
    assert not (tmp_path / "stress.json").exists()
    stress(run, unseen, images=40, corruptions=("jpeg",), out=tmp_path)
    assert made == ["jpeg-1", "jpeg-2", "interrupted", "jpeg-3", "jpeg-4", "jpeg-5"]
    assert record(tmp_path)["clean"] == record(folder)["clean"]
    assert record(tmp_path)["corruptions"] == {"jpeg": record(folder)["corruptions"]["jpeg"]}


def test_the_run_report_tells_of_it(run: Path, folder: Path) -> None:
    """A section Robustness, with the figures that stress.html has; no script on either page."""
    report, page = (run / "report.html").read_text(), (folder / "stress.html").read_text()
    assert 'id="robustness"' in report
    loss = record(folder)["corruptions"]["jpeg"]["levels"][4]["difference"]["auroc"]
    assert f"{abs(loss['value']):.3f}".lstrip("0") in page
    for text in (report, page):
        assert "Research use only" in text
        assert "<script" not in text
    names = ["auroc", "contact_sheet", "ece", "loss", "symmetries", "thresholded"]
    assert sorted(path.stem for path in (folder / "figures").glob("*.png")) == names


def test_the_figure_of_losses_says_the_record(folder: Path) -> None:
    """Each cell is its strength's change of AUROC at three decimals, written down a second time."""
    figure = draw_loss(StressRecord.read(folder))
    assert figure is not None
    cells = [text.get_text() for text in figure.axes[0].texts]
    levels = record(folder)["corruptions"]["jpeg"]["levels"]
    losses = [round(level["difference"]["auroc"]["value"], 3) for level in levels]
    signs = ["+" if loss > 0 else "−" if loss < 0 else "" for loss in losses]
    assert cells == [sign + f"{abs(loss):.3f}".removeprefix("0") for sign, loss in zip(signs, losses, strict=True)]


def test_images_that_the_run_has_used_are_left_out(small_run: Path, tissue: Path, tmp_path: Path) -> None:
    """On the training data only the test split is measured; the record says so."""
    test = pd.read_csv(small_run / "splits.csv", dtype=str).query("split == 'test'")["id"]
    stress(small_run, tissue, images=1000, corruptions=("darker",), out=tmp_path)
    used = pd.read_csv(tmp_path / "predictions" / "clean.csv", dtype={"id": str})["id"]
    assert set(used) == set(test)
    assert any("left out: the run has used them" in note for note in record(tmp_path)["notes"])


def test_another_question_does_not_mix_into_the_folder(run: Path, unseen: Path, tissue: Path, folder: Path) -> None:
    """Other images or another seed are refused, and what differs is named."""
    with pytest.raises(RunError, match="another choice of images, seed"):
        stress(run, unseen, images=30, corruptions=NAMES, seed=1, resolution=0.97)
    with pytest.raises(RunError, match=r"another data.*choose another -o"):
        stress(run, tissue, images=40, corruptions=NAMES)


def test_images_that_were_put_there_anew_are_the_same(run: Path, unseen: Path, folder: Path) -> None:
    """Other times of the same bytes are no other data: what is finished is gone on with."""
    for file in unseen.rglob("*"):
        os.utime(file, (1, 1))
    assert stress(run, unseen, images=40, corruptions=NAMES, resolution=0.97) == folder


def test_refusals_are_one_line(run: Path, unseen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown corruptions, no image, the wrong class names: a line, exit code 1, and nothing is written."""
    with pytest.raises(DataError, match="no corruption 'rain'"):
        stress(run, unseen, corruptions=("rain",), out=tmp_path / "a")
    with pytest.raises(DataError, match="--images 0"):
        stress(run, unseen, images=0, out=tmp_path / "a")
    with pytest.raises(DataError, match="--as-sites -2"):
        stress(run, unseen, as_sites=-2, out=tmp_path / "a")
    swapped = replace(open_cohort(unseen), classes=("tumour", "normal"))
    with pytest.raises(CohortError, match="add --positive tumour"):
        stress(run, swapped, out=tmp_path / "a")
    assert not (tmp_path / "a").exists()
    capsys.readouterr()
    assert tumortrace(["stress", str(run), str(unseen), "--corruption", "rain", "-o", str(tmp_path / "a")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_site_is_one_draw_for_the_whole_set(small_run: Path, tmp_path: Path) -> None:
    """Its images share the draw, so that the set shifts as one; of a sign there are two sites, of a scanner more."""
    other = synthesise("patches", tmp_path / "other", count=48, seed=8)
    names = ["scanner", "stain-hue", "blur"]
    folder = stress(small_run, other, corruptions=names, as_sites=4, out=tmp_path / "stress")
    record = StressRecord.read(folder)
    sites = {name: record.corruptions[name].levels[2].sites for name in names}
    assert [len(sites[name]) for name in names] == [4, 2, 0]
    model = load_model(small_run)
    cohort = open_cohort(other)
    images = open_store(cohort).images
    changed = corrupt(images, [sites["scanner"][1].name] * len(images), "scanner", 3)
    said = model.assess(changed)
    called = said.prediction[cohort.table["label"] == 1].mean()
    assert sites["scanner"][1].metrics["sensitivity"].value == pytest.approx(called)
    assert sites["scanner"][1].metrics["sensitivity"].ci95 is not None
    assert 'data-sites="scanner"' in (folder / "stress.html").read_text("utf-8")
    alike = (changed.astype(int) - images).reshape(len(images), -1, 3).mean(1)
    mixed = (corrupt(images, list(cohort.table["id"]), "scanner", 3).astype(int) - images).reshape(len(images), -1, 3)
    assert alike.std(0).mean() < 0.7 * mixed.mean(1).std(0).mean()
