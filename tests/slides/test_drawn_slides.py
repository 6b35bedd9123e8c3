"""From drawn slides to the verdict on slides of other patients, by the verbs that a user types, one after another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tumortrace.cli.main import run
from tumortrace.records.metrics import Metrics
from tumortrace.records.plans import CrossvalRecord, Spread
from tumortrace.records.slides import SlideScoreRecord

pytestmark = pytest.mark.slow


def typed(*words: object) -> None:
    """A call that succeeds."""
    assert run([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of tiles of 20 slides, and its scans and features of 40 slides of 20 other patients."""
    home = tmp_path_factory.mktemp("drawn")
    typed("synth", "slides", home / "teach", "--count", 20, "--seed", 7)
    typed("tile", home / "teach" / "slides.csv", "-o", home / "tiles")
    typed("train", home / "tiles", "--recipe", "tumortrace-fast", "-o", home / "runs")
    model = next((home / "runs").iterdir())
    typed("synth", "slides", home / "cohort", "--count", 40)
    typed("scan", model, home / "cohort" / "slides.csv", "-o", home / "scans")
    typed("embed-slides", model, home / "cohort" / "slides.csv", "-o", home / "features")
    return home


def dealt(labels: pd.Series) -> np.ndarray:
    """Labels of slides, two of each patient in a row, in which patients have each other's."""
    pairs = labels.to_numpy().reshape(-1, 2)
    return pairs[np.random.default_rng(1).permutation(len(pairs))].ravel()


def shuffled(table: Path) -> Path:
    """A table beside another one with the labels dealt anew."""
    known = pd.read_csv(table)
    known["label"] = dealt(known["label"])
    known = known.drop(columns=["annotations", "stage"], errors="ignore")
    known.to_csv(table.with_name("shuffled.csv"), index=False)
    return table.with_name("shuffled.csv")


def test_a_slide_score_tells_patients_apart_that_it_has_not_seen(home: Path) -> None:
    """AUROC of .95 or more by slide and patient; lesions are found, and stages are those of the table."""
    typed("slide-score", home / "scans", home / "cohort" / "slides.csv", "-o", home / "score")
    record = SlideScoreRecord.read(home / "score")
    assert Metrics.read(home / "score")["test"]["auroc"].value >= 0.95
    assert record.by_patient["test"]["auroc"].value >= 0.95
    assert record.froc["test"].lesions > 5
    assert record.froc["test"].mean.value > 0.8
    assert record.kappa["test"].value > 0.5
    typed("slide-score", home / "scans", shuffled(home / "cohort" / "slides.csv"), "-o", home / "by-chance")
    low, high = Metrics.read(home / "by-chance")["test"]["auroc"].ci95
    assert low < 0.5 < high


def across(data: Path, out: Path) -> Spread:
    """The AUROC of slide-attention on patients not seen, over five folds of 8 slides."""
    typed("crossval", data, "--recipe", "slide-attention", "-o", out)
    spread = CrossvalRecord.read(next(out.iterdir())).recipes["slide-attention"].summary["auroc"]
    assert spread is not None
    return spread


def test_attention_learns_from_labels_of_slides_alone(home: Path) -> None:
    """AUROC of .95 or more over the folds of patients; of labels dealt anew nothing is learnt."""
    assert across(home / "features", home / "bags").mean >= 0.95
    for name in (home / "features").glob("*.h5"):
        (home / "dealt").mkdir(exist_ok=True)
        (home / "dealt" / name.name).symlink_to(name)
    table = pd.read_csv(home / "features" / "slides.csv")
    table["label"] = dealt(table["label"])
    table.to_csv(home / "dealt" / "slides.csv", index=False)
    low, high = across(home / "dealt", home / "bags-by-chance").ci95
    assert low < 0.5 < high
