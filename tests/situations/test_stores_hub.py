"""Data on the Hugging Face Hub, as its server answers: a stand-in on the loopback takes the client's own requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.situations.situation import situation
from tumortrace import open_cohort
from tumortrace.cli.main import run
from tumortrace.records.stores import Store

SECRET = "hf_s3cret"
REPOSITORY = "datasets/lab/patches"


class Hub(BaseHTTPRequestHandler):
    """A folder as a data set: its tree, and its files from any byte on; nothing without the token."""

    def __init__(self, folder: Path, *rest: object) -> None:
        self.folder = folder
        super().__init__(*rest)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        if self.headers.get("Authorization") != f"Bearer {SECRET}":
            self._answer(401, b"{}", {"X-Error-Code": "GatedRepo"})
        elif path.startswith(f"api/{REPOSITORY}/tree/main"):
            below = path.removeprefix(f"api/{REPOSITORY}/tree/main").strip("/")
            self._answer(
                200, json.dumps([self._told(file) for file in sorted(self.folder.rglob(f"{below}*"))]).encode()
            )
        elif path == f"api/{REPOSITORY}":
            self._answer(200, json.dumps({"id": "lab/patches", "sha": "0" * 40}).encode())
        elif (file := self.folder / path.removeprefix(f"{REPOSITORY}/resolve/main/")).is_file():
            content, (first, _, last) = file.read_bytes(), self._range.partition("-")
            part = content[int(first) : int(last or len(content)) + 1]
            span = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
            self._answer(206, part, {"Content-Range": span, "ETag": '"0"', "X-Repo-Commit": "0" * 40})
        else:
            self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_GET

    @property
    def _range(self) -> str:
        return (self.headers.get("Range") or "bytes=0-").removeprefix("bytes=")

    def _told(self, file: Path) -> dict[str, object]:
        name = file.relative_to(self.folder).as_posix()
        about = {"type": "directory" if file.is_dir() else "file", "path": name, "oid": sha1(name.encode()).hexdigest()}
        return about | {"size": 0 if file.is_dir() else file.stat().st_size}

    def _answer(self, code: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        """Nothing."""


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Eight small images of two classes."""
    for number in range(8):
        file = tmp_path / "classes" / ("normal", "tumor")[number % 2] / f"p{number}_{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8)).save(file)
    return tmp_path / "classes"


@pytest.fixture
def hub(classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stand-in serves these images; the token stands in the environment, and the cache is empty."""
    from huggingface_hub import HfFileSystem, constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, classes))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("TUMORTRACE_CACHE", str(tmp_path / "cache"))
    HfFileSystem.clear_instance_cache()  # which knows the address
    yield
    HfFileSystem.clear_instance_cache()
    server.shutdown()


@situation(
    "stores",
    there="a folder of class folders in a data set on the Hugging Face Hub, to be had with a token",
    typed="tumortrace check hf://datasets/ORG/NAME",
    right="the same cohort as on the disk; the token of the environment is recorded nowhere",
)
@pytest.mark.usefixtures("hub")
def test_a_cohort_on_the_hub(classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohort, here = open_cohort(f"hf://{REPOSITORY}"), open_cohort(classes)
    assert cohort.table[["id", "label"]].equals(here.table[["id", "label"]])
    assert cohort.origin == f"hf://{REPOSITORY}"
    assert run(["check", cohort.origin, "-o", str(tmp_path / "checked")]) == 0
    assert json.loads((tmp_path / "checked" / "audit.json").read_text())["data"] == cohort.origin
    for file in (file for file in tmp_path.rglob("*") if file.is_file()):
        assert SECRET.encode() not in file.read_bytes()
    assert SECRET not in "".join(capsys.readouterr())


@pytest.mark.usefixtures("hub")
def test_a_file_is_read_from_any_byte_on(classes: Path) -> None:
    """As an interrupted fetch goes on."""
    store = Store(f"hf://{REPOSITORY}")
    file = next(file for file in store.files() if file.name == "tumor/p3_3.png")
    assert file.time > 0
    with store.open(file, 50) as (stream, begins):
        assert begins == 50
        assert stream.read() == (classes / file.name).read_bytes()[50:]


@pytest.mark.usefixtures("hub")
def test_without_the_token_one_line_says_how_to_give_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing of a traceback."""
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert run(["check", f"hf://{REPOSITORY}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "HF_TOKEN" in line
