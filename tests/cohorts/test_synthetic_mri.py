"""Synthetic breast MRI slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import roc_auc_score

from tumortrace.cohorts.synthetic import open_synthetic, synthesise
from tumortrace.cohorts.synthetic.mri import draw_slice, plan_slices


def test_slices_lie_in_class_folders_four_to_a_patient(tmp_path: Path) -> None:
    """Grey 224x224 px; a patient has one class; the folder opens with benign as the negative class."""
    out = synthesise("mri", tmp_path / "mri", count=34, seed=2)
    table = pd.read_csv(out / "cohort.csv")
    assert list(table.columns) == ["id", "path", "label", "group", "split"]
    assert table["group"].value_counts().tolist() == [4] * 8 + [2]
    assert table.groupby("group")["label"].nunique().max() == 1
    assert (table["path"].str.startswith("Malignant/") == (table["label"] == 1)).all()
    pictures = [Image.open(out / path) for path in table["path"]]
    assert {(picture.mode, picture.size) for picture in pictures} == {("L", (224, 224))}
    cohort = open_synthetic(out)
    assert (cohort.classes, cohort.resolution, cohort.has_groups) == (("benign", "malignant"), None, True)


def test_brightness_does_not_give_the_class_away() -> None:
    """The ROC AUC of the mean grey level over 60 patients stays near chance; no picture is saturated or empty."""
    table = plan_slices(240, seed=1)[::4]
    pictures = np.stack([draw_slice(index, 1, bool(label)) for index, label in table["label"].items()])
    assert 0.25 < roc_auc_score(table["label"], pictures.mean(axis=(1, 2))) < 0.75
    assert (pictures.max(axis=(1, 2)) > 80).all()
    assert ((pictures == 255).mean(axis=(1, 2)) < 0.05).all()
