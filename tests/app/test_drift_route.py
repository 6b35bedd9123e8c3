"""POST /api/drift says of several patches as a whole what `tumortrace predict` says of them."""

from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient

from tumortrace import load_model
from tumortrace.app.catalogue import components_text


def uploads(paths: list[Path]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", (path.name, path.read_bytes())) for path in paths]


def test_patches_are_judged_together(client: TestClient, small_run: Path, patches: list[Path]) -> None:
    """What two requests answered is judged as one set; components are given where they are asked for."""
    components = []
    for start in (0, 20):
        answers = client.post("/api/predict?components=true", files=uploads(patches[start : start + 20])).json()
        components += [answer["components"] for answer in answers]
    told = client.post("/api/drift", json={"components": components}).json()
    model = load_model(small_run)
    assert told["drift"]["images"] == 40
    assert told["verdict"] is None, "the small run has too few slides"
    assert "too few slides or patients" in told["line"]
    assert model.drift is not None
    plain = client.post("/api/predict", files=uploads(patches[:1])).json()
    assert plain[0]["components"] is None
    few = client.post("/api/drift", json={"components": components[:5]}).json()
    assert few["line"].startswith("too few images (5 of 32)")


def test_what_no_model_gave_is_refused(client: TestClient, small_run: Path) -> None:
    """Another length, no base64, numbers that are none, groups of other images: 422 with a remedy."""
    drift = load_model(small_run).drift
    assert drift is not None
    good = components_text(drift.components[0])
    nan = components_text(drift.components[0] * float("nan"))
    for body in ({"components": ["!"]}, {"components": [good, good[:8]]}, {"components": [nan]}, {"components": []}):
        answer = client.post("/api/drift", json=body)
        assert answer.status_code == 422, body
        assert answer.json()["error"]["remedy"]
    assert client.post("/api/drift", json={"components": [good], "groups": ["a", "b"]}).status_code == 422
