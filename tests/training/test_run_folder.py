"""What a finished run folder holds, and that its records agree with independent tools."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from tests.conftest import SMALL
from tumortrace import load_model, open_cohort
from tumortrace.cohorts.store import open_store
from tumortrace.errors import SplitError
from tumortrace.training.train import train


def predictions(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "predictions.csv", dtype={"id": str, "group": str})


def test_everything_is_there(small_run: Path) -> None:
    """All files of the format, a finished status, and a report that opens by itself."""
    for name in (
        "run.json", "recipe.yaml", "splits.csv", "history.csv", "predictions.csv", "metrics.json", "log.txt",
        "report.html", "model_card.md", "model/weights.safetensors", "model/model.json",
        "checkpoints/last.safetensors", "checkpoints/best.safetensors",
    ):  # fmt: skip
        assert (small_run / name).stat().st_size > 0, name
    assert list((small_run / "figures").glob("*.png"))
    record = json.loads((small_run / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["leakage"].startswith("ruled out")
    assert record["weights"]["origin"].startswith("random")
    assert record["duration_s"] > 0
    assert not list(small_run.rglob("*.tmp"))


def test_metrics_agree_with_scikit_learn(small_run: Path) -> None:
    """metrics.json is what scikit-learn computes from predictions.csv, to 1e-9."""
    table, metrics = predictions(small_run), json.loads((small_run / "metrics.json").read_text())
    for split, part in table.groupby("split"):
        found = {
            name: entry["value"]
            for name, entry in metrics[split].items()
            if isinstance(entry, dict) and "value" in entry
        }
        label, probability, predicted = part["label"], part["probability"], part["prediction"]
        assert (predicted == (probability >= metrics[split]["threshold"])).all()
        expected = {
            "auroc": reference.roc_auc_score(label, probability),
            "average_precision": reference.average_precision_score(label, probability),
            "accuracy": reference.accuracy_score(label, predicted),
            "balanced_accuracy": reference.balanced_accuracy_score(label, predicted),
            "sensitivity": reference.recall_score(label, predicted),
            "specificity": reference.recall_score(label, predicted, pos_label=0),
            "f1": reference.f1_score(label, predicted),
            "mcc": reference.matthews_corrcoef(label, predicted),
            "brier": reference.brier_score_loss(label, probability),
            "nll": reference.log_loss(label, probability),
        }
        assert found == pytest.approx(found | expected, rel=0, abs=1e-9)
        tn, fp, fn, tp = reference.confusion_matrix(label, predicted).ravel()
        assert metrics[split]["confusion_matrix"] == {"tn": tn, "fp": fp, "fn": fn, "tp": tp}
        assert metrics[split]["n"] == len(part)
        assert metrics[split]["n_groups"] == part["group"].nunique()


def test_splits_share_no_slide(small_run: Path) -> None:
    """No slide stands in two splits, and every split that is reported has predictions for all of its images."""
    splits = pd.read_csv(small_run / "splits.csv", dtype=str)
    assert splits.groupby("group")["split"].nunique().max() == 1
    assert set(splits["split"]) == {"train", "validation", "calibration", "test"}
    for split, part in predictions(small_run).groupby("split"):
        assert set(part["id"]) == set(splits.loc[splits["split"] == split, "id"])


def test_the_bundle_gives_the_recorded_probabilities(tissue: Path, small_run: Path) -> None:
    """Loaded again, the model predicts what predictions.csv records: one preprocessing for training and serving."""
    cohort = open_cohort(tissue)
    probability = pd.Series(load_model(small_run).predict(open_store(cohort).images), index=cohort.table["id"])
    table = predictions(small_run)
    np.testing.assert_allclose(table["probability"], probability.loc[table["id"]], rtol=0, atol=1e-6)


def test_threshold_and_calibration_see_the_calibration_split_alone(small_run: Path) -> None:
    """Changing every test and validation label and logit leaves calibration as it was."""
    from tumortrace.models.bundle import load_model
    from tumortrace.training.finish import calibrate
    from tumortrace.training.recipe import load_recipe

    info = load_model(small_run).info
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {"split": ["calibration"] * 60 + ["test"] * 60 + ["validation"] * 60, "label": rng.integers(0, 2, 180)}
    )
    logits = rng.normal(size=180) + rows["label"].to_numpy()
    first, *_ = calibrate(info, load_recipe("tumortrace"), rows, logits)
    other = rows.assign(label=rows["label"].where(rows["split"] == "calibration", 1 - rows["label"]))
    second, *_ = calibrate(
        info, load_recipe("tumortrace"), other, np.where(rows["split"] == "calibration", logits, -logits)
    )
    assert (first.calibration, first.threshold, first.conformal) == (
        second.calibration,
        second.threshold,
        second.conformal,
    )
    shifted = rows.assign(label=1 - rows["label"])
    assert calibrate(info, load_recipe("tumortrace"), shifted, logits)[0].calibration != first.calibration


def test_history_has_a_row_per_epoch(small_run: Path) -> None:
    """Epochs count from 1; every metric is there; the best epoch on record has the largest validation AUROC."""
    history = pd.read_csv(small_run / "history.csv")
    assert history["epoch"].tolist() == [1, 2]
    assert {"train_loss", "validation_loss", "validation_auroc", "validation_f1", "learning_rate"} <= set(history)
    best = json.loads((small_run / "run.json").read_text())["best_epoch"]
    assert history["epoch"][history["validation_auroc"].idxmax()] == best


def test_one_class_in_a_split_is_refused(tissue: Path, tmp_path: Path) -> None:
    """A calibration split without positives is refused before anything is trained."""
    cohort = open_cohort(tissue)
    split = np.where(cohort.table["label"] == 1, "train", "calibration")
    split[:40], split[40:80] = "validation", "train"
    table = cohort.table.assign(split=split, group=cohort.table["id"])
    with pytest.raises(SplitError, match="calibration"):
        train(type(cohort)("bad", "table", table, cohort.classes), out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_unlabelled_images_serve_no_training(tissue: Path, tmp_path: Path) -> None:
    """Images without a label stand in no split, are not decoded, and do not change what is learnt from the others."""
    cohort = open_cohort(tissue)
    label = cohort.table["label"].where(cohort.table.index % 10 != 0)
    run = train(
        type(cohort)("part", "table", cohort.table.assign(label=label), cohort.classes),
        changes=[*SMALL, "epochs=1"],
        out=tmp_path,
    )
    splits = pd.read_csv(run / "splits.csv", dtype=str)
    assert set(splits["id"]) == set(cohort.table["id"][label.notna()])
    assert json.loads((run / "run.json").read_text())["data"]["images"] == label.notna().sum()


def test_breast_mri_slices_train_and_the_crop_is_pointed_out(tmp_path: Path) -> None:
    """Grey slices by patient go through the same road; that a histology crop sees only their centre is said."""
    run = train("synthetic:mri?count=80", changes=[*SMALL, "epochs=1"], out=tmp_path)
    record = json.loads((run / "run.json").read_text())
    assert record["data"]["positive_class"] == "malignant"
    assert record["leakage"].startswith("ruled out")
    assert any("centre 32x32 px of images of 224x224 px alone" in note for note in record["data"]["notes"])
    assert "centre 32x32 px" in (run / "report.html").read_text(encoding="utf-8")
