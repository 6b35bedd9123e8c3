"""The review queue over HTTP."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tumortrace.app.server import create_app
from tumortrace.app.settings import Settings

BASE = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def reviewing(small_run: Path, tissue: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server that reviews the synthetic tissue, its predictions made."""
    settings = Settings((small_run,), review=str(tissue), workspace=tmp_path_factory.mktemp("review"))
    with TestClient(create_app(settings), base_url=BASE) as client:
        for _ in range(600):
            if client.get("/api/review").json()["state"] == "ready":
                break
            time.sleep(0.1)
        yield client


def test_without_data_there_is_no_queue(client: TestClient) -> None:
    """The page can say so, and the rest is not found with a remedy."""
    assert client.get("/api/review").json() == {"state": "none"}
    refused = client.post("/api/review/next", json={})
    assert refused.status_code == 404
    assert "--review" in refused.json()["error"]["remedy"]


def test_a_label_is_in_the_file_once_it_is_answered(reviewing: TestClient) -> None:
    """Given, told in the status, downloaded, taken back."""
    status = reviewing.get("/api/review").json()
    assert (status["images"], status["reviewed"], status["classes"]) == (400, 0, ["normal", "tumour"])
    item = reviewing.post("/api/review/next", json={"reader": "me", "limit": 1}).json()[0]
    assert reviewing.get("/api/review/corrections.csv").status_code == 404
    address = f"/api/review/patches/{item['key']}/label"
    answer = reviewing.put(address, json={"label": "tumour", "reviewer": "A"}).json()
    assert answer["patch"]["given"] == "tumour"
    assert (answer["status"]["reviewed"], answer["status"]["recent"][0]["id"]) == (1, item["id"])
    with open(status["file"], newline="") as lines:
        on_disk = list(csv.DictReader(lines))
    assert [(row["id"], row["label"], row["reviewer"]) for row in on_disk] == [(item["id"], "tumour", "A")]
    assert list(csv.DictReader(io.StringIO(reviewing.get("/api/review/corrections.csv").text))) == on_disk
    other = reviewing.put(address, json={"label": "normal", "reviewer": "B"}).json()
    assert (other["patch"]["given"], other["patch"]["given_by"]) == ("tumour", "A")
    assert reviewing.delete(address, params={"expected": "normal"}).json()["patch"]["given"] == "tumour"
    assert reviewing.delete(address, params={"expected": "tumour"}).json()["status"]["reviewed"] == 0


def test_pictures_of_a_patch(reviewing: TestClient) -> None:
    """The patch and, transparent where there is none, its heat, both of the model's patch size."""
    key = reviewing.post("/api/review/next", json={"limit": 1}).json()[0]["key"]
    shapes = []
    for name in ("patch", "heat"):
        answer = reviewing.get(f"/api/review/patches/{key}/{name}.png")
        assert answer.headers["content-type"] == "image/png"
        shapes.append(np.asarray(Image.open(io.BytesIO(answer.content))).shape)
    assert shapes == [(96, 96, 3), (96, 96, 4)]


def test_what_cannot_be_is_refused(reviewing: TestClient) -> None:
    """An unknown patch is 404, another label and a body that is none are 422, all with a cause and a remedy."""
    key = reviewing.post("/api/review/next", json={"limit": 1}).json()[0]["key"]
    asked = [
        (reviewing.get("/api/review/patches/nothing/patch.png"), 404),
        (reviewing.put("/api/review/patches/..%2f..%2fetc/label", json={"label": "tumour"}), 404),
        (reviewing.put(f"/api/review/patches/{key}/label", json={"label": "perhaps"}), 422),
        (reviewing.put(f"/api/review/patches/{key}/label", content=b"label=tumour"), 422),
        (reviewing.post("/api/review/next", json={"limit": 10_000}), 422),
    ]
    for answer, status in asked:
        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"cause", "remedy"}
