"""Classes of data by what a trained model knows of them, and names that are not plain words."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.situations.situation import situation
from tumortrace.cli.main import run
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.errors import shortened
from tumortrace.inference.unseen import open_data
from tumortrace.models.bundle import load_model

pytestmark = pytest.mark.usefixtures("few_replicates")

TINY = ["--epochs", "1", "--set", "preprocessing.crop=32"]
TINY += ["--set", "model.arguments={stem: 8, widths: [8, 16], depths: [1, 1], dropout: 0.2}"]
CLASSES = ("normal", "benign", "In situ", "Invasive, lobular")


def _folder(root: Path, names: tuple[str, ...], seed: int = 0, count: int = 12) -> Path:
    pixels = np.random.default_rng(seed)
    for shade, name in enumerate(names):
        for number in range(count):
            file = root / name / f"patient_{number % 6}" / f"{seed}_{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture = pixels.integers(60 + 20 * shade, 160 + 20 * shade, (40, 40, 3)).astype(np.uint8)
            Image.fromarray(picture).save(file)
    return root


@pytest.fixture(scope="module")
def merged_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on four classes, of which two were merged."""
    root = tmp_path_factory.mktemp("known")
    data = _folder(root / "data", CLASSES)
    options = ["--merge", "healthy=normal,benign", "--positive", "in situ,Invasive, lobular"]
    assert run(["train", str(data), *options, *TINY, "--out", str(root / "runs")]) == 0
    return next((root / "runs").iterdir())


@situation(
    "tables",
    there="new images in the folders of classes that a model was trained on, some of them merged then",
    typed="tumortrace evaluate RUN DATA",
    right="read as the model's run read them, aloud: nothing has to be said twice",
)
def test_data_of_a_models_classes_open_as_its_run_read_them(
    merged_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _folder(tmp_path / "new", CLASSES, seed=1, count=6)
    (data / "In situ").rename(data / "IN-SITU")
    assert run(["predict", str(merged_run), str(data), "-o", str(tmp_path / "p.csv")]) == 0
    said = capsys.readouterr()
    assert "classes are read as the model's" in said.out + said.err
    table = pd.read_csv(tmp_path / "p.csv")
    assert table["class"].value_counts().to_dict() == {"healthy": 12, "In situ": 6, "Invasive, lobular": 6}
    assert table["label"].sum() == 12


@situation(
    "tables",
    there="data in which a class that the model takes for tumour counts as normal",
    typed="tumortrace evaluate RUN DATA --positive 'in situ'",
    right="refused, with the classes to name",
)
def test_a_class_on_the_other_side_is_refused(
    merged_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _folder(tmp_path / "new", CLASSES, seed=2, count=3)
    merge = ["--merge", "healthy=normal,benign"]
    out = ["-o", str(tmp_path / "e")]
    assert run(["evaluate", str(merged_run), str(data), "--positive", "in situ", *merge, *out]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "class 'Invasive, lobular' is negative here and not to the model" in said
    assert "--positive 'In situ,Invasive, lobular'" in said or "--positive 'Invasive, lobular,In situ'" in said


@situation(
    "tables",
    there="classes that a model of several does not know",
    typed="tumortrace evaluate RUN DATA --positive in_situ",
    right="refused by name, with those that it knows",
)
def test_classes_that_the_model_does_not_know_are_named(
    merged_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _folder(tmp_path / "new", ("adipose", "stroma", "in_situ"), seed=3, count=3)
    out = ["-o", str(tmp_path / "e")]
    assert run(["evaluate", str(merged_run), str(data), "--positive", "in_situ", *out]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "classes that the model does not know: adipose, stroma" in said
    assert "--merge" in said


@situation(
    "folders",
    there="generated tissue, or images that `prepare` wrote, of four classes that the folder itself names",
    typed="tumortrace check tissues --merge normal=benign,normal",
    right="merged; what is made of classes of one side stays on it, of both sides it is asked for",
)
def test_classes_that_data_state_themselves_are_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By every verb, and said twice only where it is two things."""
    tissues, prepared = tmp_path / "tissues", tmp_path / "prepared"
    assert run(["synth", "tissues", str(tissues), "--count", "96"]) == 0
    merge = ["--merge", "well=benign,normal"]
    assert run(["prepare", str(tissues), str(prepared), "--crop", "16"]) == 0
    for data in (tissues, prepared):
        before = open_cohort(data)
        cohort = open_cohort(data, merge=["well=benign,normal"])
        assert cohort.class_names == ("well", "insitu", "invasive")
        assert cohort.positive_names == ("insitu", "invasive")
        assert cohort.table["label"].tolist() == before.table["label"].tolist()
        well = before.table["class_name"].isin(["benign", "normal"])
        assert cohort.table["class_name"].eq("well").tolist() == well.tolist()
        assert open_cohort(data, merge=["well=benign,normal", "ill=insitu,invasive"]).classes == ("well", "ill")
        invasive = open_cohort(data, positive="invasive")
        assert invasive.table["label"].eq(1).tolist() == before.table["class_name"].eq("invasive").tolist()
    assert run(["check", str(prepared), *merge, "-o", str(tmp_path / "audit")]) == 0
    capsys.readouterr()
    assert run(["check", str(tissues), "--merge", "mixed=benign,insitu"]) == 1
    said = capsys.readouterr().err
    assert "of classes that count as tumour and classes that do not" in said
    assert "--positive" in said
    mixed = open_cohort(tissues, merge=["mixed=benign,insitu"], positive="mixed,invasive")
    assert mixed.classes == ("normal", "mixed+invasive")


def test_classes_that_data_state_are_the_models_where_it_knows_them(
    merged_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A prepared folder that keeps classes which the model's run merged; sides are the model's."""
    model = load_model(merged_run)
    folder = _folder(tmp_path / "new", CLASSES, seed=5, count=6)
    prepared = tmp_path / "prepared"
    steps = ["--size", "40", "--positive", "Invasive, lobular"]
    assert run(["prepare", str(folder), str(prepared), *steps]) == 0
    record = json.loads((prepared / "prepared.json").read_text())
    assert record["positive_names"] == ["Invasive, lobular"]
    model.info = model.info.model_copy(update={"preparation": record})
    cohort = open_data(model, prepared)
    assert cohort.class_names == ("healthy", "In situ", "Invasive, lobular")
    assert cohort.positive_names == ("In situ", "Invasive, lobular")
    assert any("classes are read as the model's" in note for note in cohort.notes)


def test_names_with_commas_among_others(tmp_path: Path) -> None:
    """They are told apart in `--positive`, `--merge` and `--class-order`, in any spelling of case."""
    data = _folder(tmp_path / "data", CLASSES, count=2)
    cohort = open_cohort(
        data, positive="In Situ,invasive, lobular", class_order="Normal,benign,In situ,Invasive, Lobular"
    )
    assert cohort.class_names == CLASSES
    assert cohort.positive_names == CLASSES[2:]
    merged = open_cohort(data, merge=["bad=Invasive, lobular,in situ", "good=normal,benign"], positive="bad")
    assert merged.classes == ("good", "bad")


def test_quotes_in_short_values_cut_no_remedy() -> None:
    """The end of a short quoted value does not begin another; a long one is cut as ever."""
    remedy = "say --group-from-name '^([^/]+)/' " + "which takes level one of them " * 5 + "or don't"
    assert shortened(remedy) == remedy
    nested = "no class named '\"normal' as folders " + "and what to do about it " * 6
    assert shortened(nested) == nested
    assert shortened(f"'a' and {'b' * 200!r} end") == f"'a' and '{'b' * 80}...' end"


def test_classes_are_no_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The column that keeps each image's class is not offered as that of slides or patients."""
    data = _folder(tmp_path / "data", CLASSES, count=3)
    for place in data.glob("*/patient_*"):
        for file in place.iterdir():
            file.rename(place.parent / f"{place.name[-1]}{file.name}")
        shutil.rmtree(place)
    run(["check", str(data), "--positive", "in situ", "-o", str(tmp_path / "audit")])
    said = capsys.readouterr()
    assert "groups-unknown" in said.out + said.err
    assert "--group-column" not in said.out + said.err
