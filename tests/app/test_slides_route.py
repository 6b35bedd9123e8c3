"""Slides over HTTP: scanned as the command line scans them, shown as tiles, refused in JSON, kept over a restart."""

import io
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
from fastapi.testclient import TestClient
from PIL import Image
from shapely.geometry import shape

from tests.app.conftest import BASE
from tumortrace import load_model, scan
from tumortrace.app.server import create_app
from tumortrace.app.settings import Settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tissue: Path) -> Path:
    """A served folder with a slide of tissue patches side by side, and a file that is no slide."""
    served = tmp_path_factory.mktemp("slides")
    patches = [np.asarray(Image.open(path).convert("RGB")) for path in sorted((tissue / "patches").rglob("*.png"))[:20]]
    rows = [np.concatenate(patches[start : start + 5], axis=1) for start in range(0, 20, 5)]
    Image.fromarray(np.concatenate(rows)).save(served / "tissue.png")
    (served / "broken.svs").write_text("no slide")
    return served


@pytest.fixture(scope="module")
def settings(small_run: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings((small_run,), slides=folder, workspace=tmp_path_factory.mktemp("work"), device="cpu")


@pytest.fixture(scope="module")
def server(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings), base_url=BASE) as client:
        yield client


def finished(server: TestClient, job: str) -> dict[str, Any]:
    """The scan once it is done or has failed."""
    ends = time.monotonic() + 600
    while (found := server.get(f"/api/slides/{job}").json())["status"] in ("queued", "running"):
        assert time.monotonic() < ends
        time.sleep(0.1)
    return found


def started(server: TestClient, **form: Any) -> str:
    answer = server.post("/api/slides", **form)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


@pytest.fixture(scope="module")
def scanned(server: TestClient, folder: Path) -> str:
    """Id of a finished scan of the uploaded slide, with an overlap, under a name that means ill."""
    content = (folder / "tissue.png").read_bytes()
    upload = {"file": ("../../<b>etc\\my slide.png", content, "image/png")}
    form = {"overlap": "0.5", "resolution": "1.0"}
    job = started(server, files=upload, data=form)
    found = finished(server, job)
    assert found["status"] == "done", found
    return job


def test_a_scan_equals_the_command_lines(
    server: TestClient, scanned: str, folder: Path, small_run: Path, tmp_path: Path
) -> None:
    """tiles.csv and the outlines are those that `scan` writes for the same file and model."""
    model = load_model(small_run, device="cpu")
    mine = scan(small_run, folder / "tissue.png", out=tmp_path, model=model, overlap=0.5, resolution=1.0)
    table = pd.read_csv(io.StringIO(server.get(f"/api/slides/{scanned}/tiles.csv").text))
    pd.testing.assert_frame_equal(table, mine.tiles, rtol=0, atol=1e-5, check_dtype=False)
    found = server.get(f"/api/slides/{scanned}").json()
    assert (found["done"], found["total"]) == (len(table), len(table)) != (0, 0)
    for key in ("tiles", "positive_tiles", "outlines", "width", "height", "overlap", "tissue_mm2", "research_use"):
        assert found["result"][key] == mine.record.as_json()[key]
    theirs, ours = (json.loads(text)["features"] for text in (
        server.get(f"/api/slides/{scanned}/outlines.geojson").text, (tmp_path / "outlines.geojson").read_text(),
    ))  # fmt: skip
    assert [each["geometry"] for each in theirs] == [each["geometry"] for each in ours]
    assert all(shape(each["geometry"]).is_valid for each in theirs)


def test_the_heat_is_the_table_without_overlap(server: TestClient, scanned: str) -> None:
    """As many cells as tiles, with their probabilities; disjoint; the positive ones are the outlines."""
    heat = server.get(f"/api/slides/{scanned}/heat.json").json()
    table = pd.read_csv(io.StringIO(server.get(f"/api/slides/{scanned}/tiles.csv").text))
    assert [each["probability"] for each in heat["tiles"]] == table["probability"].tolist()
    boxes = [shapely.box(c["x"], c["y"], c["x"] + c["width"], c["y"] + c["height"]) for c in heat["tiles"]]
    assert shapely.union_all(boxes).area == pytest.approx(sum(box.area for box in boxes))
    slide = shapely.box(0, 0, heat["width"], heat["height"])
    positive = [box for box, cell in zip(boxes, heat["tiles"], strict=True) if cell["probability"] >= heat["threshold"]]
    outlines = server.get(f"/api/slides/{scanned}/outlines.geojson").json()["features"]
    area = sum(shape(each["geometry"]).area for each in outlines)
    assert area == pytest.approx(shapely.union_all(positive).intersection(slide).area)
    assert heat["positive_class"] == "tumour"


def test_the_slide_is_served_in_tiles(server: TestClient, scanned: str, folder: Path) -> None:
    """The descriptor names the size; a tile at full resolution shows the slide's own px."""
    with Image.open(folder / "tissue.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    height, width = pixels.shape[:2]
    descriptor = server.get(f"/api/slides/{scanned}/slide.dzi")
    assert descriptor.headers["content-type"] == "application/xml"
    assert f'Width="{width}" Height="{height}"' in descriptor.text
    answer = server.get(f"/api/slides/{scanned}/slide_files/{int(np.ceil(np.log2(max(width, height))))}/1_0.jpeg")
    assert answer.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(answer.content)) as image:
        tile = np.asarray(image).astype(int)
    assert np.abs(tile - pixels[:255, 253 : 253 + tile.shape[1]]).mean() < 6
    assert server.get(f"/api/slides/{scanned}/heatmap.png").content[:4] == b"\x89PNG"


def test_lists_name_what_is_there(server: TestClient, scanned: str, folder: Path) -> None:
    """The served folder's slides with their sizes, and the scans with harmless names."""
    listed = server.get("/api/slides").json()
    assert {each["name"]: each["bytes"] for each in listed["slides"]} == {
        name: (folder / name).stat().st_size for name in ("broken.svs", "tissue.png")
    }
    mine = next(each for each in listed["scans"] if each["id"] == scanned)
    assert mine["name"] == "my slide.png"
    assert mine["result"]["slide"] == "my slide.png"
    assert "/" not in server.get(f"/api/slides/{scanned}/tiles.csv").headers["content-disposition"]


def test_a_dense_scan_is_offered_where_the_model_allows_it(server: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default network pads, and is refused with the layer that does; of another one the scan is asked for it."""
    form = {"name": (None, "tissue.png"), "dense": (None, "true"), "overlap": (None, "0.5")}
    refused = server.post("/api/slides", files=form)
    assert refused.status_code == 422
    error = refused.json()["error"]
    assert "layer body." in error["cause"]
    assert "pads a patch at its border" in error["cause"]
    assert error["remedy"] == "leave out dense"
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("tumortrace.app.routes.slides.dense_overlap", lambda model, overlap: overlap)
    jobs = server.app.state.service.slides  # type: ignore[attr-defined]
    monkeypatch.setattr(jobs, "add", lambda name, **more: asked.append(more["options"]) or SimpleNamespace(id="1"))
    assert server.post("/api/slides", files=form).status_code == 202
    assert asked == [{"dense": True, "overlap": 0.5}]


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"files": {"name": (None, "tissue.png"), "dense": (None, "perhaps")}}, 422),
        ({"data": {"name": "broken.svs"}, "files": {"x": (None, "")}}, 422),
        ({"files": {"file": ("a.svs", b"no slide at all")}}, 422),
        ({"files": {"file": ("a.svs", b"")}}, 422),
        ({"files": {"name": (None, "../secret.png")}}, 404),
        ({"files": {"name": (None, "/etc/passwd")}}, 404),
        ({"files": {"name": (None, "tissue.png"), "model": (None, "other")}}, 404),
        ({"files": {"name": (None, "tissue.png"), "overlap": (None, "2")}}, 422),
        ({"files": {"name": (None, "tissue.png"), "overlap": (None, "nan")}}, 422),
        ({"files": {"name": (None, "tissue.png"), "resolution": (None, "x")}}, 422),
        ({"files": {"x": (None, "y")}}, 422),
        ({"files": {"name": (None, "tissue.png"), "file": ("a.svs", b"abc")}}, 422),
        ({"files": [("file", ("a.svs", b"abc")), ("file", ("b.svs", b"abc"))]}, 400),
        ({"files": {"other": ("a.svs", b"abc")}}, 400),
        ({"files": {"name": (None, "x" * 2000)}}, 413),
        ({"files": [(f"f{n}", (None, "x")) for n in range(30)]}, 413),
        ({"json": {"name": "tissue.png"}}, 415),
        ({"data": {"name": "tissue.png"}}, 415),
        ({}, 415),
        ({"content": b"--b\r\nrubbish", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400),
        ({"content": b"", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 415),
    ],
)
def test_what_cannot_be_scanned_is_refused(
    form: dict[str, Any], status: int, server: TestClient, settings: Settings
) -> None:
    """In JSON with a cause and a remedy, without a path of the server, and nothing is left of the upload."""
    before = sorted((settings.workspace / "slides").iterdir())
    answer = server.post("/api/slides", **form)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["cause"]
    assert error["remedy"]
    assert str(settings.workspace) not in answer.text
    assert sorted((settings.workspace / "slides").iterdir()) == before


@pytest.mark.parametrize("name", ["broken.svs", "unreadable.svs", "unopenable.tiff"])
def test_real_damaged_slides_are_refused(name: str, server: TestClient, real_data: Path) -> None:
    """Uploaded, each gets a 422 of one line."""
    answer = server.post("/api/slides", files={"file": (name, (real_data / "slides" / name).read_bytes())})
    assert answer.status_code == 422
    assert answer.json()["error"]["cause"].startswith(f"{name}: ")
    assert "\n" not in answer.json()["error"]["cause"]


@pytest.mark.parametrize(
    "path",
    [
        "0" * 32,
        "..",
        "%2e%2e%2f%2e%2e",
        "..%2fsecret/tiles.csv",
        "{id}/slide_files/9/99_0.jpeg",
        "{id}/slide_files/64/0_0.jpeg",
        "{id}/slide_files/../../job.json",
        "{id}/job.json",
        "{id}/..%2fjob.json",
        "{id}/scan/scan.json",
    ],
)
def test_what_is_not_there_is_not_found(path: str, server: TestClient, scanned: str) -> None:
    """Ids and names lead nowhere but to what was given out."""
    answer = server.get("/api/slides/" + path.format(id=scanned))
    assert answer.status_code in (404, 405)
    assert answer.json()["error"]["cause"]


def test_a_wrong_tile_is_refused(server: TestClient, scanned: str) -> None:
    """Levels and addresses that cannot be are a 422 with a cause."""
    for wrong in ("65/0_0", "-1/0_0", "x/0_0", "3/0", "3/0_0_0", "3/1_-1"):
        answer = server.get(f"/api/slides/{scanned}/slide_files/{wrong}.jpeg")
        assert answer.status_code == 422
        assert answer.json()["error"]["cause"]


def test_a_scan_that_fails_says_why(server: TestClient) -> None:
    """A slide without resolution, for a model that needs one, fails with cause and remedy; there are no results."""
    job = started(server, files={"name": (None, "tissue.png")})
    found = finished(server, job)
    assert found["status"] == "failed"
    assert "um per pixel" in found["error"]["cause"]
    assert "--resolution" in found["error"]["remedy"] or "resolution" in found["error"]["remedy"]
    for name in ("tiles.csv", "outlines.geojson", "heat.json", "heatmap.png"):
        answer = server.get(f"/api/slides/{job}/{name}")
        assert answer.status_code == 404
        assert "failed" in answer.json()["error"]["cause"]
    assert server.delete(f"/api/slides/{job}").status_code == 204
    assert server.get(f"/api/slides/{job}").status_code == 404


def test_a_model_without_resolution_asks_for_that_of_its_patches(
    server: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, before the slide is queued, by the field's name; with it, the scan is queued."""
    model = server.app.state.service.catalogue.get().model  # type: ignore[attr-defined]
    monkeypatch.setattr(model, "info", model.info.model_copy(update={"resolution": None}))
    answer = server.post("/api/slides", files={"name": (None, "tissue.png")})
    assert answer.status_code == 422
    assert "`patch_resolution`" in answer.json()["error"]["remedy"]
    fields = {"name": "tissue.png", "resolution": "1.0", "patch_resolution": "1.0"}
    job = started(server, files={name: (None, value) for name, value in fields.items()})
    assert finished(server, job)["status"] == "done"
    server.delete(f"/api/slides/{job}")


def test_a_finished_scan_outlasts_a_restart(
    server: TestClient, scanned: str, settings: Settings, small_run: Path, tmp_path: Path
) -> None:
    """Another server on a copy of the workspace shows the same scan, tiles and all."""
    shutil.copytree(settings.workspace, tmp_path / "work")
    again = Settings((small_run,), workspace=tmp_path / "work", device="cpu")
    with TestClient(create_app(again), base_url=BASE) as second:
        mine, theirs = (each.get(f"/api/slides/{scanned}").json() for each in (server, second))
        assert mine["result"] == theirs["result"]
        assert second.get(f"/api/slides/{scanned}/slide_files/3/0_0.jpeg").status_code == 200


def test_a_full_queue_is_told_before_the_slide_is_read(
    server: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with Retry-After, in JSON; nothing of the upload is kept."""
    jobs = server.app.state.service.slides  # type: ignore[attr-defined]
    monkeypatch.setattr(jobs, "_waiting", 0)
    before = sorted((settings.workspace / "slides").iterdir())
    answer = server.post("/api/slides", files={"file": ("a.png", b"x" * 1000)})
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "wait already" in answer.json()["error"]["cause"]
    assert sorted((settings.workspace / "slides").iterdir()) == before


def test_uploads_have_no_more_room_than_they_may(server: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slide that the workspace has no room for is a 413 that says what to delete."""
    files = server.app.state.service.slides.files  # type: ignore[attr-defined]
    monkeypatch.setattr(files, "room_for_upload", lambda: lambda count: False)
    answer = server.post("/api/slides", files={"file": ("a.png", b"x" * 1000)})
    assert answer.status_code == 413
    assert "delete" in answer.json()["error"]["remedy"]


def test_the_description_names_every_address(server: TestClient) -> None:
    """/openapi.json has the form of a start and the kinds of the answers."""
    paths = server.get("/openapi.json").json()["paths"]
    assert {path.removeprefix("/api/slides") for path in paths if path.startswith("/api/slides")} == {
        "",
        "/{id}",
        "/{id}/slide.dzi",
        "/{id}/slide_files/{level}/{tile}.jpeg",
        "/{id}/heat.json",
        "/{id}/tiles.csv",
        "/{id}/outlines.geojson",
        "/{id}/heatmap.png",
    }
    form = paths["/api/slides"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {"file", "name", "model", "overlap"} <= set(form["properties"])
