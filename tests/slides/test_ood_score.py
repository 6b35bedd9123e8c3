"""How unlike the training images an image is has one name, `ood_score`, wherever it is written or read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from tests.slides.test_scan import fake_model
from tumortrace import load_model, open_cohort
from tumortrace.app import catalogue
from tumortrace.inference.predict import predict
from tumortrace.inference.stress import stress
from tumortrace.models.bundle import Assessment
from tumortrace.records.tables import TILES
from tumortrace.slides.scan import scan

PAGE = Path(catalogue.__file__).parent / "static" / "patch.js"


def test_every_table_and_answer_calls_it_ood_score(small_run: Path, tissue: Path, tmp_path: Path) -> None:
    """The tables of `train`, `predict` and `stress`, the API's answer, and the page's own CSV."""
    cohort = open_cohort(tissue)
    stressed = stress(small_run, cohort, images=4, corruptions=["blur"], out=tmp_path / "stress")
    tables = [
        pd.read_csv(small_run / "predictions.csv"),
        predict(small_run, cohort),
        pd.read_csv(stressed / "predictions" / "clean.csv"),
    ]
    for table in tables:
        assert "ood_score" in table
        assert "ood" not in table
    model = load_model(small_run)
    (answer,) = catalogue.assess(model, "a", np.zeros((1, *model.info.patch_size, 3), np.uint8))
    assert "ood_score" in answer
    assert "ood" not in answer
    columns = re.search(r"const columns = (\[.*?\]);", PAGE.read_text("utf-8"))
    assert columns is not None
    assert set(json.loads(columns[1])) <= {"name", "notes", *answer}  # the route adds what decoding showed
    assert "ood_score" in json.loads(columns[1])


def test_a_scan_calls_it_ood_score(tmp_path: Path) -> None:
    """tiles.csv has the score of each tile under that name."""
    model = fake_model()
    plain = model.assess

    def scored(images: np.ndarray) -> Assessment:
        said, score = plain(images), np.full(len(images), 0.25)
        return Assessment(said.logit, said.probability, said.prediction, said.decision, score, score <= 1)

    model.assess = scored
    Image.new("RGB", (128, 128), (90, 50, 130)).save(tmp_path / "a.png")
    scan("run", tmp_path / "a.png", out=tmp_path / "out", model=model, resolution=1.0)
    assert set(TILES.read(tmp_path / "out")["ood_score"]) == {0.25}


def test_the_name_of_earlier_versions_is_read(tmp_path: Path) -> None:
    """A table that an earlier version wrote calls it `ood`."""
    rows = pd.DataFrame({"probability": [0.5], "ood": [0.25]})
    rows.to_csv(tmp_path / "tiles.csv", index=False)
    assert list(TILES.read(tmp_path)) == ["probability", "ood_score"]
