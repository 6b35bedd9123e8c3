"""Sets of images as a whole, by the commands that a user types: clean ones are among the slides, pale ones are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tumortrace import evaluate, load_model, open_cohort
from tumortrace.cli.main import run as tumortrace
from tumortrace.cohorts.store import open_store
from tumortrace.errors import ModelError
from tumortrace.evaluation.drift import drift_line
from tumortrace.images.corruptions import corrupt
from tumortrace.inference.export import export
from tumortrace.models.drift import choose_images, keep_reference
from tumortrace.records.evaluation import PredictRecord
from tumortrace.records.metrics import Drift, DriftRecord
from tumortrace.records.scans import ScanRecord
from tumortrace.slides.scan import scan

SLIDES = 20


@pytest.fixture(scope="module")
def pictures(tissue: Path) -> np.ndarray:
    """The patches that the small run has learnt from, and others, in random order."""
    images = np.asarray(open_store(open_cohort(tissue)).images)
    return images[np.random.default_rng(0).permutation(len(images))]


@pytest.fixture(scope="module")
def run(small_run: Path, pictures: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run, had its images been of twenty slides of one kind; it may be written into."""
    folder = Path(shutil.copytree(small_run, tmp_path_factory.mktemp("copy") / "run"))
    model = load_model(folder)
    components = model.assess(pictures[:320]).components
    assert components is not None
    places, group = choose_images(pd.Series(np.arange(320) % SLIDES).astype(str), np.zeros(320, bool))
    model.drift = keep_reference(components[places], group)
    model.save(folder / "model")
    return folder


def laid_out(folder: Path, images: np.ndarray) -> Path:
    """A folder of labelled pictures."""
    for number, image in enumerate(images):
        (folder / str(number % 2)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / str(number % 2) / f"{number:03}.png")
    return folder


@pytest.fixture(scope="module")
def sets(pictures: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Eighty pictures as they are, and with the stain made pale."""
    folder, clean = tmp_path_factory.mktemp("sets"), pictures[320:]
    pale = corrupt(clean, [str(number) for number in range(len(clean))], "stain-pale", 4)
    return {"clean": laid_out(folder / "clean", clean), "pale": laid_out(folder / "pale", pale)}


def test_training_keeps_a_sample_of_its_images(small_run: Path) -> None:
    """Numbers of slides instead of names; every split is placed in drift.json, and the report has the section."""
    drift = load_model(small_run).drift
    assert drift is not None
    splits = pd.read_csv(small_run / "splits.csv", dtype=str)
    training = splits[splits["split"] == "train"]
    assert drift.info.groups == training["group"].nunique()
    assert drift.info.images == len(training) == len(drift.components)
    record = DriftRecord.read(small_run)
    assert set(record.splits) == set(splits["split"]) - {"train"}
    assert record.splits["test"].images == (splits["split"] == "test").sum()
    assert (small_run / "figures" / "drift.svg").is_file()
    assert "The images as a whole" in (small_run / "report.html").read_text("utf-8")


def test_predict_says_where_the_set_lies(
    run: Path, sets: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line and a typed record beside the predictions, whose columns stay as they were."""
    for name, verdict in (("clean", "among"), ("pale", "further")):
        out = tmp_path / f"{name}.csv"
        assert tumortrace(["predict", str(run), str(sets[name]), "-o", str(out)]) == 0
        drift = PredictRecord.read_file(Path(f"{out}.json")).drift  # type: ignore[union-attr]
        assert drift is not None
        assert (drift.verdict, drift.images, drift.known_groups) == (verdict, 80, SLIDES)
        told = "".join(capsys.readouterr()).replace("\n", " ")
        assert drift_line(drift) in told
        assert ("warning: as a whole these 80 images" in told) == (verdict == "further")
        assert "components" not in pd.read_csv(out)


def test_evaluate_has_a_section(run: Path, sets: dict[str, Path], tmp_path: Path) -> None:
    """The record, the sentence and the figure, at the place where `predict` puts the set."""
    assert tumortrace(["evaluate", str(run), str(sets["pale"]), "-o", str(tmp_path / "out")]) == 0
    record = DriftRecord.read(tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert record.splits["test"].verdict == "further"
    assert "test: as a whole these 80 images lie further from the training images than 20 of 20" in page
    assert (tmp_path / "out" / "figures" / "drift.svg").is_file()


def test_few_images_are_not_judged(
    run: Path, pictures: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line says how many there are and how many it takes."""
    laid_out(tmp_path / "few", 255 - pictures[:10])
    assert tumortrace(["predict", str(run), str(tmp_path / "few"), "-o", str(tmp_path / "few.csv")]) == 0
    assert "too few images (10 of 32)" in "".join(capsys.readouterr()).replace("\n", " ")


def old(run: Path, folder: Path) -> Path:
    """The run as an earlier version wrote it."""
    shutil.copytree(run, folder)
    info = json.loads((folder / "model" / "model.json").read_text())
    del info["drift"]
    (folder / "model" / "model.json").write_text(json.dumps(info))
    (folder / "model" / "drift.safetensors").unlink()
    return folder


def test_a_model_of_before_opens_and_says_so(
    run: Path, sets: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its predictions are the same to the last digit; `evaluate` writes no drift.json."""
    before = old(run, tmp_path / "old")
    for name, model in (("new", run), ("old", before)):
        assert tumortrace(["predict", str(model), str(sets["clean"]), "-o", str(tmp_path / f"{name}.csv")]) == 0
    assert (tmp_path / "new.csv").read_bytes() == (tmp_path / "old.csv").read_bytes()
    assert "the model keeps no reference" in "".join(capsys.readouterr()).replace("\n", " ")
    assert not DriftRecord.exists(evaluate(before, sets["clean"], out=tmp_path / "out"))


@pytest.mark.parametrize("fault", ["bit", "gone", "images"])
def test_a_damaged_reference_is_refused(run: Path, tmp_path: Path, fault: str) -> None:
    """In one line that names the file."""
    bundle = Path(shutil.copytree(run / "model", tmp_path / "model"))
    file = bundle / "drift.safetensors"
    if fault == "bit":
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    elif fault == "gone":
        file.unlink()
    else:
        info = json.loads((bundle / "model.json").read_text())
        info["drift"]["images"] -= 1
        (bundle / "model.json").write_text(json.dumps(info))
    with pytest.raises(ModelError, match=r"drift.safetensors") as refused:
        load_model(bundle)
    assert "\n" not in str(refused.value)


def test_an_exported_model_says_the_same(run: Path, sets: dict[str, Path], pictures: np.ndarray) -> None:
    """ONNX Runtime answers the features, and the bundle around it carries the reference."""
    pytest.importorskip("onnxruntime")
    export(run)
    torch, onnx = (load_model(run, backend=backend) for backend in ("torch", "onnx"))
    said = [model.judge_set(model.assess(pictures[320:]).components)[0] for model in (torch, onnx)]
    values = [drift.distance.value for drift in said if drift is not None and drift.distance is not None]
    assert values[0] == pytest.approx(values[1], abs=1e-5)


class Interrupted(Exception):
    """A scan that is ended by whoever looks on."""


def test_a_slide_is_judged_over_its_tiles(run: Path, pictures: np.ndarray, tmp_path: Path) -> None:
    """A slide put together of pale patches; interrupted and taken up again it ends with the same record."""
    height, width = pictures.shape[1:3]
    pale = corrupt(pictures[:64], [str(number) for number in range(64)], "stain-pale", 3)
    slide = pale.reshape(8, 8, height, width, 3).swapaxes(1, 2).reshape(8 * height, 8 * width, 3)
    Image.fromarray(slide).save(tmp_path / "pale.png")
    model, told = load_model(run), {"resolution": 0.5, "patch_resolution": 0.5, "minimum_tissue": 0.0, "batch_size": 16}

    def end(done: int, _: int) -> None:
        if done >= 32:
            raise Interrupted

    whole = scan(run, tmp_path / "pale.png", out=tmp_path / "whole", model=model, **told)
    drift = whole.record.drift
    assert drift is not None
    assert drift.images == whole.record.tiles >= 32
    assert drift.verdict == "further"
    assert drift_line(drift) in whole.record.notes
    with pytest.raises(Interrupted):
        scan(run, tmp_path / "pale.png", out=tmp_path / "parts", model=model, progress=end, **told)
    parts = scan(run, tmp_path / "pale.png", out=tmp_path / "parts", model=model, **told)
    assert parts.record.drift == drift == ScanRecord.read(tmp_path / "parts").drift


def test_images_are_spread_over_slides() -> None:
    """Large slides give no more than small ones, known images come first, and tiny slides are left out."""
    group = pd.Series(["large"] * 3000 + ["small"] * 40 + ["tiny"] * 7)
    first = np.zeros(len(group), bool)
    first[:50] = True
    places, numbers = choose_images(group, first)
    assert numbers is not None
    assert np.bincount(numbers).tolist() in ([1000, 40], [40, 1000])
    assert set(np.flatnonzero(first)) <= set(places)
    assert "tiny" not in set(group[places])
    alone, none = choose_images(pd.Series(["only"] * 100), np.zeros(100, bool))
    assert (len(alone), none) == (100, None)
    many, numbers = choose_images(pd.Series(np.arange(6000) % 100), np.zeros(6000, bool))
    assert (len(many), len(set(group_of(many)))) == (2000, 40)
    assert numbers is not None


def group_of(places: np.ndarray) -> list[int]:
    return (places % 100).tolist()


def test_nothing_is_kept_of_images_that_are_alike() -> None:
    """Or of too few."""
    assert keep_reference(np.ones((100, 4)), None) is None
    assert keep_reference(np.random.default_rng(0).normal(size=(20, 4)), None) is None


def test_a_record_reads_as_it_was_written(tmp_path: Path) -> None:
    """With what it lacks left at its default."""
    DriftRecord(split="test", splits={"test": Drift(images=3, minimum=32)}).write(tmp_path)
    assert DriftRecord.read(tmp_path).splits["test"].verdict is None
