"""POST /api/predict answers what `tumortrace predict` says of the same files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tumortrace import load_model
from tumortrace import predict as predict_cohort


def uploads(paths: list[Path]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", (path.name, path.read_bytes())) for path in paths]


def test_many_files_are_answered_in_order_as_predict_does(
    client: TestClient, small_run: Path, tissue: Path, patches: list[Path]
) -> None:
    """Forty files in one request: the same labels and, to 1e-5, probabilities as the cohort's; decisions likewise."""
    table = predict_cohort(small_run, tissue).set_index("id")
    info = load_model(small_run).info
    assert info.conformal is not None
    chosen = patches[:40]
    answers = client.post("/api/predict", files=uploads(chosen)).json()
    assert [answer["name"] for answer in answers] == [path.name for path in chosen]
    for answer in answers:
        expected = table.loc[Path(answer["name"]).stem]
        assert answer["label"] == info.classes[expected["prediction"]]
        assert answer["decision"] == expected["decision"]
        assert answer["probability"] == pytest.approx(expected["probability"], abs=1e-5)


def test_real_files_of_every_kind_are_answered_as_predict_does(
    client: TestClient, small_run: Path, real_data: Path, tmp_path: Path
) -> None:
    """Original Kaggle TIFFs, JPEGs, PNGs of odd sizes and MRI slices: the same label, the same probability to 1e-5."""
    info = load_model(small_run).info
    found = [sorted((real_data / folder).glob("*.*"))[:6] for folder in ("kaggle/train", "pcam/valid/1", "idc/1")]
    found.append(sorted((real_data / "mri" / "images").glob("*.*"))[:3])
    chosen = [path for kind in found for path in kind]
    assert all(found)
    for path in chosen:
        shutil.copy(path, tmp_path)
    expected = predict_cohort(small_run, tmp_path).set_index("id")
    answers = client.post("/api/predict", files=uploads(chosen)).json()
    for path, answer in zip(chosen, answers, strict=True):
        row = expected.loc[path.stem]
        assert answer["label"] == info.classes[row["prediction"]]
        assert answer["probability"] == pytest.approx(row["probability"], abs=1e-5)


def test_a_file_that_is_no_image_is_refused_with_cause_and_remedy(client: TestClient, patches: list[Path]) -> None:
    """The answer is 422, names the file and not the place where it was decoded; the next good request works."""
    answer = client.post("/api/predict", files=[("file", ("../../etc/notes.png", b"not an image"))])
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["cause"].startswith("notes.png: ")
    assert error["remedy"]
    assert "/tmp" not in answer.text
    assert client.post("/api/predict", files=uploads(patches[:1])).status_code == 200


def test_another_size_is_resized_as_predict_resizes(client: TestClient, small_run: Path, tmp_path: Path) -> None:
    """A patch of 50 x 61 pixels has the probability that `predict` gives the file."""
    noise = np.random.default_rng(0).integers(0, 256, (50, 61, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "odd.png")
    expected = predict_cohort(small_run, tmp_path / "odd.png")["probability"][0]
    (answer,) = client.post("/api/predict", files=uploads([tmp_path / "odd.png"])).json()
    assert answer["probability"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/api/predict", 405),
        ("POST", "/api/predict", 415),
        ("POST", "/api/predict?model=none", 404),
        ("POST", "/api/explain?method=none&model", 404),
    ],
)
def test_every_refusal_has_a_cause_and_a_remedy(client: TestClient, method: str, path: str, status: int) -> None:
    """Whatever is wrong, the answer is JSON in one form."""
    answer = client.request(method, path, files=[("file", b"x")] if "model" in path else None)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"cause", "remedy"}
    assert all(answer.json()["error"].values())


def test_it_is_alive_and_measured(client: TestClient) -> None:
    """/healthz says ok; /metrics counts what was asked."""
    assert client.get("/healthz").json() == {"status": "ok"}
    counted = 'tumortrace_requests_total{method="GET",route="/healthz",status="200"}'
    assert counted in client.get("/metrics").text
