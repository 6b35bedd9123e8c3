"""POST /api/explain and /api/seen draw what the functions behind them give."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tumortrace import load_model
from tumortrace.images.decoding import read_image
from tumortrace.inference.explain import METHODS, heat_map


def picture(answer_bytes: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(answer_bytes)))


def ask(client: TestClient, path: Path, address: str) -> np.ndarray:
    answer = client.post(address, files={"file": (path.name, path.read_bytes())})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return picture(answer.content)


@pytest.fixture(scope="module")
def warm(small_run: Path, patches: list[Path]) -> Path:
    """A patch in which something speaks for the positive class."""
    model = load_model(small_run)
    return next(path for path in patches if heat_map(model, read_image(path)).any())


def test_the_heat_is_transparent_exactly_where_the_map_has_none(
    client: TestClient, small_run: Path, warm: Path
) -> None:
    """A page can lay it over the patch at any strength; opacity follows the size of the heat."""
    heat = heat_map(load_model(small_run), read_image(warm))
    layer = ask(client, warm, "/api/explain?layer=heat")
    assert layer.shape == (*heat.shape, 4)
    assert (layer[..., 3][heat == 0] == 0).all()
    inner = (heat > 0) & (heat < np.quantile(heat[heat > 0], 0.99))
    assert np.corrcoef(layer[..., 3][inner], heat[inner])[0, 1] > 0.999


@pytest.mark.parametrize("method", sorted(METHODS))
def test_over_the_patch_is_the_patch_where_there_is_no_heat(client: TestClient, warm: Path, method: str) -> None:
    """Every method is drawn; the crop that the network does not see keeps its pixels."""
    image = read_image(warm)
    over = ask(client, warm, f"/api/explain?method={method.replace('+', '%2B')}")
    assert over.shape == image.shape
    assert np.array_equal(over[:32], image[:32])  # the crop is the inner 32 of 96 pixels
    assert not np.array_equal(over, image)


def test_what_was_seen_is_the_centre_crop(client: TestClient, patches: list[Path]) -> None:
    """The small run crops the inner 32 x 32 pixels and leaves them as they are."""
    assert np.array_equal(ask(client, patches[0], "/api/seen"), read_image(patches[0])[32:64, 32:64])


def test_an_unknown_method_is_refused_with_those_that_are_known(client: TestClient, patches: list[Path]) -> None:
    """422, naming them."""
    files = {"file": patches[0].read_bytes()}
    for address in ("/api/explain?method=tea-leaves", "/api/explain?layer=skirt"):
        answer = client.post(address, files=files)
        assert answer.status_code == 422
        assert "grad-cam" in answer.json()["error"]["cause"] or "overlay" in answer.json()["error"]["cause"]


def test_models_are_listed_and_described(client: TestClient, small_run: Path) -> None:
    """Name, classes, threshold and the metrics of the run, as its files have them."""
    info = load_model(small_run).info
    (name,) = client.get("/api/models").json()
    assert name == {"name": small_run.name, "default": True, "positive_class": "tumour"}
    described = client.get("/api/model").json()
    assert described["threshold"] == info.threshold
    assert described["backend"] == "torch"
    assert described["training_fingerprint"] == info.training.fingerprint
    assert described["metrics"]["test"]["auroc"]["ci95"] is not None
    assert "not for diagnosis" in described["research_use"]
