"""A slide score learnt from maps of 40 synthetic slides of 20 patients, as a nearly right model of patches draws."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from tumortrace.cli.main import run
from tumortrace.cohorts.synthetic.shapes import fill
from tumortrace.cohorts.synthetic.slide import outline_features
from tumortrace.cohorts.synthetic.slides import CLASSES, SHAPE, draw_lesions, plan_slides
from tumortrace.errors import PredictionsError
from tumortrace.evaluation.intervals import evaluate_table
from tumortrace.evaluation.table import read_predictions
from tumortrace.records.evaluation import NamedModel
from tumortrace.records.metrics import Metrics
from tumortrace.records.scans import ScanRecord
from tumortrace.records.slides import SlideScoreRecord
from tumortrace.records.tables import PREDICTIONS, TILES
from tumortrace.slides import slide_scoring
from tumortrace.slides.cohort import open_slides
from tumortrace.slides.identity import content_of
from tumortrace.slides.map_features import FEATURES
from tumortrace.slides.scanned import features_of, find_scans, seen_in_training
from tumortrace.slides.slide_model import apply_score, fit_score, logits
from tumortrace.slides.slide_scoring import divide

SIDE = 96


@dataclass(frozen=True)
class Material:
    """A table of slides and the folder of their scans."""

    table: Path
    scans: Path

    def score(self, out: Path, *options: str) -> int:
        """Call the verb."""
        return run(["slide-score", str(self.scans), str(self.table), "-o", str(out), *options])


def write_scan(folder: Path, slide: Path, tiles: pd.DataFrame, **more: object) -> None:
    """A finished scan of a slide."""
    folder.mkdir(parents=True, exist_ok=True)
    TILES.write(folder, tiles)
    described: dict[str, object] = {
        "slide": slide.name,
        "width": SHAPE[1],
        "height": SHAPE[0],
        "resolution": 1.0,
        "content": content_of(slide),
        "model": NamedModel(name="patches", weights_sha256="aa"),
        "positive_class": "tumour",
        "overlap": 0.0,
        "tiles": len(tiles),
        "threshold": 0.5,
    }
    ScanRecord.model_validate(described | more).write(folder)


def tiles_of(rng: np.random.Generator, largest: str) -> tuple[pd.DataFrame, dict[str, object]]:
    """The map of a slide: high where a tile's centre holds tumour, with noise; and its true outlines."""
    border, lesions = draw_lesions(rng, largest)
    tissue, tumour = fill([border], SHAPE), fill(lesions, SHAPE)
    rows = []
    for y in range(0, SHAPE[0] - SIDE + 1, SIDE):
        for x in range(0, SHAPE[1], SIDE):
            share = float(tissue[y : y + SIDE, x : x + SIDE].mean())
            if share >= 0.25:
                hit = tumour[y + 32 : y + 64, x + 32 : x + 64].any()
                chance = float(expit(rng.normal(4 if hit else -4, 1)))
                rows.append((x, y, SIDE, SIDE, share, chance, int(chance >= 0.5), "refer"))
    columns = ["x", "y", "width", "height", "tissue", "probability", "prediction", "decision"]
    return pd.DataFrame(rows, columns=columns), outline_features(lesions)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """40 slides of 20 patients: files that are only known by their content, outlines, and finished scans."""
    home = tmp_path_factory.mktemp("cohort")
    plan = plan_slides(40, 0)
    for number, (name, largest) in enumerate(zip(plan["id"], plan["largest"], strict=True)):
        slide, outlines, folder = home / f"{name}.tif", home / f"{name}.geojson", home / "scans" / name
        slide.write_bytes(b"II*\0" + name.encode())
        tiles, features = tiles_of(np.random.default_rng([5, number]), largest)
        outlines.write_text(json.dumps(features))
        write_scan(folder, slide, tiles)
    table = pd.DataFrame(
        {
            "slide": plan["id"] + ".tif",
            "label": [CLASSES[int(size != "negative")] for size in plan["largest"]],
            "patient": plan["patient"],
            "annotations": plan["id"] + ".geojson",
            "stage": plan["stage"],
        }
    )
    table.to_csv(home / "slides.csv", index=False)
    return Material(home / "slides.csv", home / "scans")


@pytest.fixture(scope="module")
def learnt(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the verb wrote."""
    out = tmp_path_factory.mktemp("learnt") / "score"
    assert material.score(out) == 0
    return out


def features(count: int, signal: float, seed: int = 0) -> pd.DataFrame:
    """Slides of so many patients, three of each, whose features carry so much of the label."""
    rng = np.random.default_rng(seed)
    label = np.repeat(rng.permutation(np.arange(count) % 2), 3)
    columns = {name: signal * label + rng.normal(size=len(label)) for name in FEATURES}
    split = np.repeat(np.array(["train", "calibration", "test"])[np.arange(count) * 3 // count], 3)
    group = np.repeat([f"p{number}" for number in range(count)], 3)
    ids = [f"s{number}" for number in range(len(label))]
    return pd.DataFrame({"id": ids, "group": group, "label": label, "split": split, **columns})


def test_slides_and_patients_not_seen_are_told_apart(learnt: Path) -> None:
    """AUROC of .95 or more by slide and by patient, each with an interval; splits share no patient."""
    metrics, record = Metrics.read(learnt), SlideScoreRecord.read(learnt)
    table = PREDICTIONS.read(learnt)
    assert len(read_predictions(learnt / "predictions.csv")) == len(table)
    assert set(table["split"]) == {"calibration", "test"}
    assert table.groupby("group")["split"].nunique().max() == 1
    assert metrics["test"]["auroc"].value >= 0.95
    assert record.by_patient["test"]["auroc"].value >= 0.95
    assert record.by_patient["test"]["auroc"].ci95 is not None
    assert record.by_patient["test"].operating_points.sensitivity_at_specificity["0.95"].ci95 is not None
    assert record.by_patient["test"].n == table.loc[table["split"] == "test", "group"].nunique()
    assert record.fitted.patients + table["group"].nunique() == 20
    assert record.leakage.startswith("not known")  # no run is named
    assert record.research_use
    page = (learnt / "report.html").read_text("utf-8")
    assert "Slides, patients, lesions" in page
    assert "Lesions found (FROC)" in page or "data:image" in page


def test_the_outlines_give_a_froc_and_the_table_a_kappa(learnt: Path) -> None:
    """A map that is nearly right finds nearly all lesions with hardly a false alarm; stages agree with the table's."""
    record = SlideScoreRecord.read(learnt)
    lesions = record.froc["test"]
    assert lesions.lesions > 0
    assert lesions.mean.value > 0.9
    assert lesions.mean.ci95 is not None
    assert {row.patient for row in record.patients if row.truth is None} == set()
    assert record.kappa["test"].value > 0.5
    for row in record.patients:
        assert all(size == "negative" for size in row.slides.values()) == (row.stage == "pN0")


def test_an_interrupted_score_is_called_again(
    material: Material,
    learnt: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ctrl-C while it learns, and while it writes: one line; the same call then ends with the same numbers."""
    for step in ("fit_score", "write_evaluation"):
        with monkeypatch.context() as patch:
            patch.setattr(slide_scoring, step, lambda *_, **__: signal.default_int_handler(signal.SIGINT, None))
            assert material.score(tmp_path / "out") == 1
        assert capsys.readouterr().err.splitlines()[-1].startswith("tumortrace: interrupted; ")
        assert not Metrics.file(tmp_path / "out").exists()
    assert material.score(tmp_path / "out") == 0
    for file in (PREDICTIONS.file(learnt), Metrics.file(learnt)):
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


def test_a_score_is_applied_to_slides_without_labels(material: Material, learnt: Path, tmp_path: Path) -> None:
    """The same probabilities for the same scans; nothing is learnt and nothing measured."""
    bare = pd.read_csv(material.table)[["slide"]]
    bare.to_csv(material.table.with_name("bare.csv"), index=False)
    elsewhere = Material(material.table.with_name("bare.csv"), material.scans)
    assert elsewhere.score(tmp_path / "new", "--score", str(learnt)) == 0
    again = PREDICTIONS.read(tmp_path / "new").set_index("id")["probability"]
    before = PREDICTIONS.read(learnt).set_index("id")["probability"]
    assert len(again) == 40
    assert again[before.index].to_numpy() == pytest.approx(before.to_numpy(), abs=0)
    assert not (tmp_path / "new" / "metrics.json").exists()
    assert not SlideScoreRecord.read(tmp_path / "new").fitted_here


def test_a_score_is_not_judged_on_what_it_learnt_from(
    material: Material, learnt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own cohort, labels and all: the test slides alone are judged; known by content, whatever they are called."""
    judged = PREDICTIONS.read(learnt)
    test = judged[judged["split"] == "test"].set_index("id")["probability"]
    table = pd.read_csv(material.table).drop(columns="patient")
    table.insert(0, "id", [f"renamed-{name}" for name in plan_slides(40, 0)["id"]])
    table.to_csv(material.table.with_name("renamed.csv"), index=False)
    renamed = Material(material.table.with_name("renamed.csv"), material.scans)
    for material_, prefix in ((material, ""), (renamed, "renamed-")):
        out = tmp_path / f"{prefix}out"
        assert material_.score(out, "--score", str(learnt)) == 0
        assert f"warning: {40 - len(test)} slides left out, as the score has learnt from them" in " ".join(
            capsys.readouterr().err.split()
        )
        again = PREDICTIONS.read(out).set_index("id")["probability"]
        assert sorted(again.index) == sorted(prefix + test.index)
        assert again[prefix + test.index].to_numpy() == pytest.approx(test.to_numpy(), abs=0)


def test_slides_that_the_patches_model_knows_only_train(material: Material, tmp_path: Path) -> None:
    """Patients in the run's training split are told, and stand in no split that is judged; nor do the table's own."""
    patients = sorted(set(pd.read_csv(material.table)["patient"]))[:8]
    pd.DataFrame({"id": [f"{name}-1" for name in patients], "group": patients, "split": "train"}).to_csv(
        tmp_path / "splits.csv", index=False
    )
    cohort = open_slides(material.table)
    scans, _ = find_scans(material.scans, cohort)
    seen, told = seen_in_training(tmp_path, scans)
    assert told.startswith("16 of 40 slides, or their patients, gave patches that it has learnt from")
    rows = features_of(scans)
    divided, notes = divide(rows, cohort, seen, 0)
    assert set(divided.loc[divided["group"].isin(patients), "split"]) == {"train"}
    assert set(divided["split"]) == {"train", "calibration", "test"}
    assert notes[0].startswith("16 slides of patients whose patches the model has learnt from: for training alone")
    given = rows.assign(
        split=np.where(rows["group"] == patients[0], "test", divided.set_index("id")["split"][rows["id"]])
    )
    kept, notes = divide(given, cohort, seen, 0)
    assert patients[0] not in set(kept["group"])
    assert notes[0].startswith("warning: 2 slides left out, as the patches' model has learnt from their patches")


def test_shuffled_labels_give_half(material: Material) -> None:
    """Of the same maps with labels in another order: .5 lies within the interval of the AUROC of patients not seen."""
    cohort = open_slides(material.table)
    rows = features_of(find_scans(material.scans, cohort)[0])
    shuffled = rows.assign(label=np.random.default_rng(1).permutation(rows["label"].to_numpy()))
    divided, _ = divide(shuffled, cohort, set(), 0)
    scored = apply_score(fit_score(divided), divided[divided["split"] == "test"])
    low, high = evaluate_table(scored, 0.5, replicates=200)["auroc"].ci95
    assert low < 0.5 < high


def test_labels_without_meaning_give_half() -> None:
    """Features that know nothing: AUROC of 3 x 40 slides not seen lies around .5, and the penalty is strong."""
    table = features(120, 0.0)
    fitted = fit_score(table)
    test = apply_score(fitted, table[table["split"] == "test"])
    assert abs(roc_auc_score(test["label"], test["probability"]) - 0.5) < 0.15
    assert fitted.penalty <= 0.01


def test_the_sum_is_that_of_a_logistic_regression() -> None:
    """Weights and standardisation on record give scikit-learn's logits; the test split changes nothing."""
    table = features(60, 0.7)
    fitted = fit_score(table)
    train, test = (table[table["split"] == name] for name in ("train", "test"))
    scaler = StandardScaler().fit(train[list(FEATURES)])
    model = LogisticRegression(C=fitted.penalty, max_iter=10_000).fit(
        scaler.transform(train[list(FEATURES)]), train["label"]
    )
    expected = model.decision_function(scaler.transform(test[list(FEATURES)]))
    assert logits(fitted, test) == pytest.approx(expected, abs=1e-9)
    other = table.copy()
    other.loc[other["split"] == "test", list(FEATURES)] = 9.0
    assert fit_score(other) == fitted
    assert set(apply_score(fitted, test)["decision"]) <= {"positive", "negative", "refer"}


def test_a_split_of_one_class_is_refused() -> None:
    """Calibration slides of one class: what is lacking, and what to do."""
    table = features(30, 1.0)
    with pytest.raises(PredictionsError, match="of 1 class to learn from in the calibration split"):
        fit_score(table[(table["split"] != "calibration") | (table["label"] == 1)])
