"""What the pages show of a model is what the run has on record."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from scipy.stats import binomtest

from tumortrace import load_model
from tumortrace.app.on_record import on_record, reliability
from tumortrace.evaluation.tally import BINS
from tumortrace.reports.records import read_records
from tumortrace.reports.sections.trust import draw_reliability


@pytest.fixture
def shown(client: TestClient, small_run: Path) -> dict:
    return client.get(f"/api/records/{small_run.name}").json()


def test_metrics_are_those_of_the_judged_split(shown: dict, small_run: Path) -> None:
    """Each with its interval, as metrics.json has them."""
    test = json.loads((small_run / "metrics.json").read_text())["test"]
    assert shown["judged"]["split"] == "test"
    assert shown["judged"]["n"] == test["n"]
    named = {metric["name"]: metric for metric in shown["judged"]["metrics"]}
    assert {"auroc", "sensitivity", "specificity", "brier"} <= set(named)
    for name, metric in named.items():
        assert metric["value"] == test[name]["value"]
        assert metric["ci95"] == test[name]["ci95"]


def test_decision_rule_and_data_are_the_bundles(shown: dict, small_run: Path) -> None:
    """Threshold, classes, patch size and the training data's fingerprint."""
    model = json.loads((small_run / "model" / "model.json").read_text())
    assert shown["threshold"] == model["threshold"]
    assert shown["classes"] == model["classes"]
    assert shown["crop"] == 32
    assert shown["data"]["fingerprint"] == model["training"]["fingerprint"]
    assert next(method["name"] for method in shown["methods"]) == "grad-cam"


def test_reliability_counts_what_the_test_predictions_hold(shown: dict, small_run: Path) -> None:
    """Every bin's share is counted anew from predictions.csv; its interval is SciPy's Wilson interval."""
    table = pd.read_csv(small_run / "predictions.csv")
    table = table[table["split"] == "test"]
    assert sum(each["n"] for each in shown["reliability"]) == len(table)
    for each in shown["reliability"]:
        labels = table["label"][table["probability"].between(each["low"], each["high"])]
        assert each["n"] == len(labels)
        assert each["share"] == pytest.approx(labels.mean())
        interval = binomtest(int(labels.sum()), len(labels)).proportion_ci(method="wilson")
        assert each["ci95"] == pytest.approx([interval.low, interval.high])


def test_reliability_of_ties_and_of_nothing() -> None:
    """Images of one probability share a bin, and no images have none."""
    labels = np.array([0, 1] * 20)
    one = reliability(pd.DataFrame({"label": labels, "probability": 0.5}))
    assert [(each["n"], each["share"]) for each in one] == [(40, 0.5)]
    assert reliability(pd.DataFrame({"label": [], "probability": []})) == []


def test_a_bundle_alone_says_that_nothing_was_measured(small_run: Path) -> None:
    """Without the run around it there are no metrics, and none are made up."""
    bundle = small_run / "model"
    found = on_record("alone", bundle, load_model(bundle, device="cpu"))
    assert found["judged"] is None
    assert found["reliability"] == []
    assert found["verdict"] == ""
    assert found["card"] is None


def test_the_card_is_shown_without_what_could_run(small_run: Path, tmp_path: Path) -> None:
    """HTML, script addresses and styles in a model card stay text or are dropped."""
    (tmp_path / "model_card.md").write_text(
        "# Card\n\n<script>alert(1)</script>\n\n[x](javascript:alert(1)) ![y](http://elsewhere/a.png)\n\n"
        "| a | b |\n| --- | ---: |\n| 1 | 2 |\n"
    )
    card = on_record("m", tmp_path, load_model(small_run, device="cpu"))["card"]
    assert "&lt;script&gt;" in card
    assert '<td class="n">2</td>' in card
    for forbidden in ("<script", 'javascript:alert(1)"', "<img", "style="):
        assert forbidden not in card


def test_an_unknown_model_is_not_found(client: TestClient) -> None:
    """With the names of those that there are."""
    answer = client.get("/api/records/nothing")
    assert answer.status_code == 404
    assert "choose one of" in answer.json()["error"]["remedy"]


def test_the_page_has_the_bins_of_the_report(shown: dict, small_run: Path) -> None:
    """Means and shares of the page's bins are the points of the report's figure, as many as the calibration error's."""
    figure = draw_reliability(read_records(small_run))
    assert figure is not None
    points = figure.axes[0].lines[1].get_xydata()
    assert points == pytest.approx(np.array([[each["mean"], each["share"]] for each in shown["reliability"]]))
    assert len(points) <= BINS
