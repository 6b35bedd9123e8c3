"""What the page Patch offers to try: pictures of the run's own test split with their truth, else generated ones."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tumortrace.app.pictures import examples, png
from tumortrace.cohorts.layouts import open_cohort

CLASSES = ["normal", "tumour"]


def test_they_are_test_images_with_their_truth_and_the_runs_own_answer(
    client: TestClient, small_run: Path, tissue: Path
) -> None:
    """Every pixel is that of an image of the test split; the API says of it what predictions.csv says."""
    predictions = pd.read_csv(small_run / "predictions.csv", dtype={"id": str}).set_index("id")
    record = json.loads((small_run / "examples" / "examples.json").read_text())
    ids = {each["picture"]: each["id"] for found in record["outcomes"].values() for each in found["shown"]}
    files = open_cohort(tissue).table.set_index("id")["path"]
    offered = client.get("/api/examples").json()
    tested = predictions[predictions["split"] == "test"]
    outcomes = {
        (CLASSES[label], CLASSES[said]) for label, said in zip(tested["label"], tested["prediction"], strict=True)
    }
    assert {(each["truth"], each["called"]) for each in offered} == outcomes
    assert all(each["source"] == "test split" for each in offered)
    for each in offered:
        known = predictions.loc[ids[each["name"]]]
        assert known["split"] == "test"
        assert [each["truth"], each["called"]] == [CLASSES[int(known["label"])], CLASSES[int(known["prediction"])]]
        content = client.get(f"/api/examples/{each['name']}").content
        with Image.open(io.BytesIO(content)) as picture, Image.open(files[ids[each["name"]]]) as original:
            np.testing.assert_array_equal(np.asarray(picture), np.asarray(original.convert("RGB")))
        (said,) = client.post("/api/predict", files={"file": (each["name"], content)}).json()
        assert said["probability"] == pytest.approx(known["probability"], abs=1e-5)


def test_a_run_that_keeps_none_offers_generated_ones(small_run: Path, tmp_path: Path) -> None:
    """Older runs, a record of another split than test, a damaged record: then nothing is called a test image."""
    run = tmp_path / "run"
    shutil.copytree(small_run / "examples", run / "examples")
    file = run / "examples" / "examples.json"
    record = json.loads(file.read_text())
    assert {each.source for each in examples(run)} == {"test split"}
    older = {"outcomes": record["outcomes"]}
    without = {name: found | {"shown": [{"id": "a"}]} for name, found in record["outcomes"].items()}
    for damaged in (older, record | {"split": "calibration"}, record | {"outcomes": without}, {"split": "test"}, [], 0):
        file.write_text(json.dumps(damaged))
        offered = examples(run)
        assert {(each.source, each.truth, each.called) for each in offered} == {("generated", None, None)}
    with Image.open(io.BytesIO(png(offered[0]))) as picture:
        assert picture.size == (96, 96)
    file.write_text("{")
    assert examples(run)[0].source == "generated"


def test_an_evaluation_stands_in_for_them(small_run: Path, tmp_path: Path) -> None:
    """Where the run keeps none itself, those of an evaluation of it are offered, and are said to be that."""
    shutil.copytree(small_run / "examples", tmp_path / "evaluations" / "other" / "examples")
    offered = examples(tmp_path)
    assert {each.source for each in offered} == {"evaluation other"}
    kept = small_run / "examples" / offered[0].name
    assert png(offered[0]) == kept.read_bytes()


@pytest.mark.parametrize("name", ["generated-1.png", "examples.json", "true_positive.png", "..%2frun.json", "x"])
def test_nothing_else_is_handed_out(client: TestClient, name: str) -> None:
    """A name that is not on the list is not found, whatever lies in the folder."""
    assert client.get(f"/api/examples/{name}").status_code == 404
