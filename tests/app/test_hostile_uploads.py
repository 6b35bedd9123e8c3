"""Uploads that mean harm, or are merely broken, are refused, and the next good request works."""

from __future__ import annotations

import io
import os
import pickle
import signal
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tumortrace.app.server import create_app
from tumortrace.app.settings import Limits, Settings

BASE = "http://127.0.0.1:8000"


def send(client: TestClient, content: bytes, name: str = "a.png") -> Response:
    return client.post("/api/predict", files={"file": (name, content)})


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """A PNG whose head promises so many pixels and whose body has `rows`."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_fuzzed_files_are_answered_or_refused_with_a_cause(
    client: TestClient, real_data: Path, patches: list[Path]
) -> None:
    """Hundreds of broken files: never 5xx; a refusal has a cause that shows no path of ours."""
    good = patches[0].read_bytes()
    before = send(client, good).json()
    statuses: dict[int, int] = {}
    for file in sorted(path for path in (real_data / "malformed").rglob("*") if path.is_file()):
        answer = send(client, file.read_bytes(), file.name)
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        assert answer.status_code in (200, 422), file
        if answer.status_code == 422:
            error = answer.json()["error"]
            assert error["cause"].startswith(file.name)
            assert error["remedy"]
            assert "/tmp" not in error["cause"]
    assert sum(statuses.values()) > 300
    assert statuses[422] > 200
    assert send(client, good).json() == before


def refused(client: TestClient, content: bytes, words: str, name: str = "a.png") -> None:
    """The upload is answered 422 with these words."""
    answer = send(client, content, name)
    assert answer.status_code == 422, answer.text
    assert words in answer.json()["error"]["cause"]


@pytest.fixture(scope="module")
def strict(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server with little patience, that takes little at once."""
    limits = Limits(decode_seconds=1, body_bytes=8 << 20, files=3, decoders=1)
    settings = Settings((small_run,), limits=limits, workspace=tmp_path_factory.mktemp("workspace"))
    with TestClient(create_app(settings), base_url=BASE) as client:
        yield client


@pytest.fixture(scope="module")
def narrow(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server whose decoder has 64 MiB to work in."""
    limits = Limits(decode_bytes=64 << 20, decoders=1)
    settings = Settings((small_run,), limits=limits, workspace=tmp_path_factory.mktemp("workspace"))
    with TestClient(create_app(settings), base_url=BASE) as client:
        yield client


@pytest.mark.parametrize(
    "content",
    [
        b"",
        pickle.dumps(os.getcwd),
        b"PK\x03\x04" + bytes(100),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://127.0.0.1:1/x.png'/></svg>",
        b"http://127.0.0.1:1/x.png",
        b"/etc/passwd",
        b"#!/bin/sh\nid\n",
    ],
    ids=["empty", "pickle", "zip", "postscript", "svg", "address", "path", "program"],
)
def test_what_is_no_image_is_not_run_fetched_or_opened(client: TestClient, content: bytes) -> None:
    """Pickles, archives, programs, addresses, pictures that name other files: no image."""
    assert send(client, content).status_code == 422


def test_a_bomb_of_pixels_is_refused_before_it_is_decoded(client: TestClient) -> None:
    """A head that promises 3,600 megapixels, in 80 bytes."""
    refused(client, png(60000, 60000), "too many pixels")


def test_many_pages_are_refused(client: TestClient) -> None:
    """A patch is one picture; a TIFF of a hundred is something else."""
    page, stream = Image.new("RGB", (8, 8)), io.BytesIO()
    page.save(stream, "TIFF", save_all=True, append_images=[page] * 99)
    refused(client, stream.getvalue(), "100 pages")


def test_what_takes_too_much_memory_is_refused_and_the_next_is_served(narrow: TestClient, patches: list[Path]) -> None:
    """Twenty-five megapixels do not fit into 64 MiB; the process, or its successor, goes on."""
    stream = io.BytesIO()
    Image.new("RGB", (5000, 5000)).save(stream, "PNG")
    refused(narrow, stream.getvalue(), "memory")
    assert send(narrow, patches[0].read_bytes()).status_code == 200


def test_what_takes_too_long_is_ended_and_the_next_is_served(strict: TestClient, patches: list[Path]) -> None:
    """A TIFF of 90,000 tiny pages keeps its reader busy; it is killed and replaced."""
    tags = ((256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 1))
    page = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    ends = [8 + number * (len(page) + 4) for number in range(1, 90_000)]
    content = b"II*\0" + struct.pack("<I", 8) + b"".join(page + struct.pack("<I", end) for end in (*ends, 0))
    refused(strict, content, "takes more than 1 s")
    assert send(strict, patches[0].read_bytes()).status_code == 200


def test_a_decoder_that_dies_is_replaced(strict: TestClient, patches: list[Path]) -> None:
    """Killed from outside between two uploads: the first after it may be refused, the second is served."""
    (worker,) = strict.app.state.service.decoder.workers  # type: ignore[attr-defined]
    os.kill(worker.pid, signal.SIGKILL)
    time.sleep(0.2)
    assert send(strict, patches[0].read_bytes()).status_code in (200, 422)
    assert send(strict, patches[0].read_bytes()).status_code == 200


def test_bodies_that_are_too_long_are_refused_declared_or_not(strict: TestClient) -> None:
    """413 by the declared length, and by what comes in where none is declared; 413 for too many files."""
    assert send(strict, bytes(9 << 20)).status_code == 413

    def pieces() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        yield from [bytes(1 << 20)] * 9

    answer = strict.post("/api/predict", content=pieces(), headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status_code == 413
    assert "8,388,608" in answer.json()["error"]["cause"]
    many = strict.post("/api/predict", files=[("file", ("a", b"x"))] * 4)
    assert many.status_code == 413
    assert "4 files" in many.json()["error"]["cause"]


@pytest.mark.parametrize(
    "body", [b"", b"--x", b"--x\r\n\r\n\r\n--x--", b"\0" * 100, b"--x\r\nContent-Disposition: x\r\n"]
)
def test_a_broken_form_is_refused(client: TestClient, body: bytes) -> None:
    """400 or 422, with a cause."""
    answer = client.post("/api/predict", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]["cause"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../../etc/cron.d/x.png", "x.png"),
        ("C:\\Users\\x.png", "x.png"),
        ("<img src=x onerror=alert(1)>.png", "<img src=x onerror=alert(1)>.png"),
        ("a" * 1000 + ".png", "a" * 200),
        ("..", ".."),
    ],
)
def test_names_are_shown_and_never_used(client: TestClient, patches: list[Path], name: str, shown: str) -> None:
    """A name comes back without its folders, as JSON; where the server keeps uploads, nothing stays."""
    answer = send(client, patches[0].read_bytes(), name)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()[0]["name"] == shown
    folder = Path(client.app.state.service.decoder._folder.name)  # type: ignore[attr-defined]
    assert list(folder.iterdir()) == []


def test_metadata_do_not_come_back(client: TestClient) -> None:
    """What a picture says of its patient is in no answer."""
    stream, secret = io.BytesIO(), PngInfo()
    secret.add_text("Patient", "Jane Roe")
    Image.new("RGB", (96, 96), "pink").save(stream, "PNG", pnginfo=secret)
    assert b"Jane" in stream.getvalue()
    for address in ("/api/predict", "/api/explain", "/api/seen"):
        answer = client.post(address, files={"file": ("a.png", stream.getvalue())})
        assert answer.status_code == 200
        assert b"Jane" not in answer.content
