"""Uploads to `POST /api/predict`: what `predict` says of files is said of them, and what it refuses is refused."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from fastapi.testclient import TestClient
from PIL import Image

from tests.situations.models import made_model
from tests.situations.situation import situation
from tumortrace.app.server import create_app
from tumortrace.app.settings import Settings

TRAINED = 0.97


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server on a model of 32 px at .97 um/px."""
    folder = tmp_path_factory.mktemp("served")
    settings = Settings((made_model(folder / "made", resolution=TRAINED),), workspace=folder / "work")
    with TestClient(create_app(settings), base_url="http://127.0.0.1:8000") as client:
        yield client


def noise(side: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)


def png(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def asked(client: TestClient, content: bytes, **query: object) -> tuple[int, dict]:
    answer = client.post("/api/predict", files={"file": ("a.png", content)}, params=query)
    return answer.status_code, answer.json()[0] if answer.status_code == 200 else answer.json()["error"]


@situation(
    "pixels",
    there="an upload that is turned by EXIF and four times too large",
    typed="POST /api/predict",
    right="answered, with both in `notes`; a plain patch has none",
)
def test_notes_say_what_decoding_showed(client: TestClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    status, said = asked(client, png(noise(128), exif=exif))
    assert status == 200
    assert said["notes"] == [
        "1 image with an EXIF orientation: shown turned or mirrored against the pixels",
        "1 image has to shrink by more than 2 to 32x32 pixels, and what is fine in them is lost",
    ]
    assert asked(client, png(noise()))[1]["notes"] == []


@situation(
    "pixels",
    there="an upload of 12 bits in 16, which the file does not state",
    typed="POST /api/predict?bits=12",
    right="the 8-bit copy's answer; without bits refused (422), which names them",
)
def test_bits_are_asked_for_and_heeded(client: TestClient) -> None:
    deep = bytes(imagecodecs.png_encode(np.rint(noise() * (4095 / 255)).astype(np.uint16)))
    status, refusal = asked(client, deep)
    assert (status, "may be read much too dark" in refusal["cause"]) == (422, True)
    assert "bits=12" in refusal["remedy"]
    expected = asked(client, png(noise()))[1]["probability"]
    assert asked(client, deep, bits=12)[1]["probability"] == pytest.approx(expected, abs=1e-6)
    assert asked(client, deep, bits=7)[0] == 422
    assert "as bits=9 says" in asked(client, deep, bits=9)[1]["cause"]


@situation(
    "resolution",
    there="an upload of .25 um/px to a model that learnt from .97",
    typed="POST /api/predict?resolution=0.25",
    right="refused (422); resample=true or allow=resolution-mismatch answer, with a note",
)
def test_another_resolution_is_refused_by_the_server_too(client: TestClient) -> None:
    large = png(noise(140))
    status, refusal = asked(client, large, resolution=0.25)
    assert status == 422
    assert "1 image has 0.25 um per pixel, the patches that the model learnt from 0.97" in refusal["cause"]
    assert "resample=true brings the middle of each to the model's resolution, resolution says" in refusal["remedy"]
    assert "allow=resolution-mismatch" in refusal["remedy"]
    status, said = asked(client, large, resolution=0.25, allow="resolution-mismatch")
    assert (status, any("0.25 um per pixel" in note for note in said["notes"])) == (200, True)
    span = 32 * TRAINED / 0.25
    edge = (140 - span) / 2
    box = (edge, edge, edge + span, edge + span)
    by_hand = np.asarray(Image.fromarray(noise(140)).resize((32, 32), Image.Resampling.LANCZOS, box))
    resampled = asked(client, large, resolution=0.25, resample=True)[1]["probability"]
    assert resampled == pytest.approx(asked(client, png(by_hand))[1]["probability"], abs=1e-6)
    stated = png(noise(140), dpi=(101600, 101600))
    assert asked(client, stated)[0] == 422
    assert asked(client, stated, resample=True)[1]["probability"] == pytest.approx(resampled, abs=1e-6)


@situation(
    "resolution",
    there="the same upload, or one of doubtful bits, to the other addresses that take patches",
    typed="POST /api/explain, /api/seen, /api/patch",
    right="refused as by /api/predict, and answered with the same words",
)
@pytest.mark.parametrize("address", ["explain", "seen", "patch"])
def test_every_address_refuses_what_predict_refuses(address: str, client: TestClient) -> None:
    deep = bytes(imagecodecs.png_encode(np.rint(noise() * (4095 / 255)).astype(np.uint16)))
    for content, query, told, more in (
        (png(noise(140)), {"resolution": 0.25}, "0.25 um per pixel", {"allow": "resolution-mismatch"}),
        (png(noise(140)), {"resolution": 0.25}, "0.25 um per pixel", {"resample": True}),
        (deep, {}, "may be read much too dark", {"bits": 12}),
    ):
        answer = client.post(f"/api/{address}", files={"file": ("a.png", content)}, params=query)
        assert (answer.status_code, told in answer.json()["error"]["cause"]) == (422, True)
        assert answer.json()["error"]["cause"] == asked(client, content, **query)[1]["cause"]
        answer = client.post(f"/api/{address}", files={"file": ("a.png", content)}, params=query | more)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")


@situation(
    "slides",
    there="a slide of 12 bits that does not say so, and a model that learnt from such images",
    typed="POST /api/slides",
    right="scanned and shown by the model's bits; its planes of focus by the field `plane`",
)
def test_slides_are_shown_as_they_are_scanned(tmp_path: Path) -> None:
    """Deep Zoom tiles are as bright as those of the 8-bit copy without the field `bits`; of the plane that was read."""
    (tmp_path / "slides").mkdir()
    smooth = np.asarray(Image.fromarray(noise(16)).resize((256, 256), Image.Resampling.BICUBIC))
    deep = np.rint(smooth * (4095 / 255)).astype(np.uint16)
    options = {"photometric": "rgb", "tile": (128, 128), "resolution": (1e4, 1e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "slides" / "deep.tif", deep, metadata=None, **options)
    stack = np.stack([smooth, smooth // 4, smooth // 9])
    tifffile.imwrite(tmp_path / "slides" / "stack.ome.tif", stack, ome=True, metadata={"axes": "ZYXS"}, **options)
    model = made_model(tmp_path / "made", resolution=1.0, bits=12)
    settings = Settings((model,), slides=tmp_path / "slides", workspace=tmp_path / "work", device="cpu")
    forms = {"deep.tif": {}, "stack.ome.tif": {"plane": "1", "resolution": "1"}}
    with TestClient(create_app(settings), base_url="http://127.0.0.1:8000") as server:
        jobs = {}
        for name, form in forms.items():
            fields = {key: (None, value) for key, value in (form | {"name": name}).items()}
            jobs[name] = server.post("/api/slides", files=fields).json()["id"]
        for job in jobs.values():
            ends = time.monotonic() + 300
            while (scan := server.get(f"/api/slides/{job}").json())["status"] in ("queued", "running"):
                assert time.monotonic() < ends
                time.sleep(0.1)
            assert scan["status"] == "done", scan["error"]
            answer = server.get(f"/api/slides/{job}/slide_files/8/0_0.jpeg")
            tile = np.asarray(Image.open(io.BytesIO(answer.content))).astype(int)
            assert np.abs(tile - smooth[: tile.shape[0], : tile.shape[1]]).mean() < 6
        assert scan["result"]["plane"] == 1
        refused = server.post("/api/slides", files={"name": (None, "deep.tif"), "plane": (None, "2")})
        assert (refused.status_code, "no planes of focus" in refused.json()["error"]["cause"]) == (422, True)


def test_a_mask_is_no_patch_for_the_server_either(client: TestClient) -> None:
    """Refused until it is allowed."""
    mask = np.zeros((32, 32), np.uint8)
    mask[8:20, 8:20] = 255
    status, refusal = asked(client, png(mask))
    assert (status, "masks among the pictures" in refusal["cause"]) == (422, True)
    assert asked(client, png(mask), allow="mask-like")[0] == 200
