"""Who may come in, and what every answer carries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tumortrace.app.server import create_app
from tumortrace.app.settings import Settings
from tumortrace.cli.main import run
from tumortrace.errors import ServeError

TOKEN = "a-token-that-is-long-enough"


def test_every_answer_forbids_foreign_scripts_and_frames(client: TestClient) -> None:
    """Pages, answers and refusals alike carry the policy; none allows inline scripts or styles."""
    for path in ("/", "/healthz", "/api/predict", "/nothing", "/static/index.html"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[", "localhost@evil.example:80"])
def test_on_loopback_a_foreign_name_is_turned_away(client: TestClient, host: str) -> None:
    """A page that lets its own name point to 127.0.0.1 gets nothing."""
    assert client.get("/healthz", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:99", "[::1]:8000", "LOCALHOST"])
def test_on_loopback_its_own_names_are_let_in(client: TestClient, host: str) -> None:
    """Whatever the port, as a tunnel may have changed it."""
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_a_page_of_another_origin_cannot_post(client: TestClient) -> None:
    """The server's own origin may; others, null, and what is no address may not."""
    origins = (("http://127.0.0.1:8000", 415), ("http://evil.example", 403), ("null", 403), ("http://[", 403))
    for origin, status in origins:
        assert client.post("/api/predict", headers={"Origin": origin}).status_code == status


def test_a_token_opens_the_api_and_its_absence_leaves_the_pages(small_run: Path, tmp_path: Path) -> None:
    """Without the token /api, /metrics and the description are 401; pages and /healthz stay open."""
    settings = Settings((small_run,), host="0.0.0.0", token=TOKEN, workspace=tmp_path)
    client = TestClient(create_app(settings), base_url="http://tumour.example")
    for path in ("/api/predict", "/metrics", "/openapi.json", "/api/nothing"):
        for header in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": f"Basic {TOKEN}"}):
            refused = client.get(path, headers=header)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
        assert client.get(path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code in (200, 404, 405)
    assert client.get("/").status_code == client.get("/healthz").status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "::", "laboratory.example"])
def test_elsewhere_than_on_loopback_a_token_is_needed(host: str) -> None:
    """It refuses to start."""
    with pytest.raises(ServeError, match="--token"):
        Settings((Path("run"),), host=host)
    assert not Settings((Path("run"),), host=host, token=TOKEN).loopback


@pytest.mark.parametrize("token", ["", "short", "with a blank in the middle", "nön-ascii-token-here"])
def test_a_weak_token_is_refused(token: str) -> None:
    """One that is short, or cannot be sent in a header."""
    with pytest.raises(ServeError, match="token"):
        Settings((Path("run"),), token=token)


def test_the_verb_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No model, no token: one line and 1."""
    monkeypatch.delenv("TUMORTRACE_TOKEN", raising=False)
    for call in (["serve", str(tmp_path)], ["serve", str(tmp_path), "--host", "0.0.0.0"]):
        assert run(call) == 1
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "call",
    ["from tumortrace.cli.main import main; main(['serve', 'run'])", "import tumortrace; tumortrace.serve('run')"],
)
def test_without_the_extra_it_says_what_to_install(call: str) -> None:
    """The verb in one line; the function with an error of ours whose line it is."""
    hidden = "import sys; sys.modules['uvicorn'] = None; "
    done = subprocess.run([sys.executable, "-c", hidden + call], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert "uvicorn" in said
    assert said.endswith("What to do: pip install 'tumortrace[serve]'.")
    assert "ModuleNotFoundError" not in done.stderr
    assert len(done.stderr.splitlines()) == 1 or "MissingDependencyError" in said
