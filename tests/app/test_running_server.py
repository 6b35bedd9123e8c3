"""The server as it is started, over real sockets: clients that dawdle, break off or come all at once; and its end."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKED = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
TOKEN = "a-token-that-is-long-enough"

Answer = tuple[int, dict[str, str], bytes]


class Server:
    """A started `tumortrace serve`."""

    def __init__(self, run: Path, folder: Path) -> None:
        self.log = open(folder / "log.txt", "w+")  # noqa: SIM115 - closed with the process
        program = "import sys; from tumortrace.cli.main import main; main(sys.argv[1:])"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "serve", str(run), "--port", "0", "--device", "cpu"],
            stderr=self.log,
            cwd=folder,
            env=os.environ | {"TUMORTRACE_TOKEN": TOKEN},
        )
        self.port = self._port(time.monotonic() + 90)

    def _port(self, deadline: float) -> int:
        while time.monotonic() < deadline and self.process.poll() is None:
            if match := re.search(r"http://127\.0\.0\.1:(\d+)", self.text()):
                return int(match[1])
            time.sleep(0.1)
        raise AssertionError(self.text())

    def text(self) -> str:
        return Path(self.log.name).read_text()

    def explanations(self) -> int:
        """How many were asked for: those answered and those that wait for the model."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        lines = connection.getresponse().read().decode().splitlines()
        counted = ('tumortrace_requests_total{method="POST",route="/api/explain"', "tumortrace_queue_images{")
        return sum(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith(counted))

    def post(
        self, content: bytes, name: str = "a.png", path: str = "/api/predict"
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", path, form(content, name), HEADERS)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()


HEADERS = {"Content-Type": "multipart/form-data; boundary=b", "Authorization": f"Bearer {TOKEN}"}


def form(content: bytes, name: str) -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return head.encode() + content + b"\r\n--b--\r\n"


@pytest.fixture(scope="module")
def server(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(small_run, tmp_path_factory.mktemp("server"))
    yield server
    server.process.kill()
    server.process.wait()
    server.log.close()


def test_it_says_where_it_is_and_what_it_is_for(server: Server) -> None:
    """One line with the address and that it is for research; without the token, 401."""
    assert "Research use only" in server.text()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", "/api/models")
    assert connection.getresponse().status == 401


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_examples_of_the_document_work(server: Server, patches: list[Path], tmp_path: Path) -> None:
    """Every curl line of docs/serve.md is answered with 2xx."""
    text = (Path(__file__).parents[2] / "docs" / "serve.md").read_text("utf-8")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert len(lines) >= 8
    shutil.copy(patches[0], tmp_path / "patch.png")
    Image.open(patches[1]).save(tmp_path / "other.tif")
    for line in lines:
        words = shlex.split(line.replace(":8000", f":{server.port}"))
        done = subprocess.run(
            [*words, "-sSf", "-H", f"Authorization: Bearer {TOKEN}"], cwd=tmp_path, capture_output=True, timeout=60
        )
        assert done.returncode == 0, (line, done.stderr)
    assert Image.open(tmp_path / "heat.png").size == Image.open(patches[0]).size


def test_clients_that_dawdle_or_break_off_hold_nobody_up(server: Server, patches: list[Path]) -> None:
    """With forty uploads begun and left, and twenty broken off, a good one is answered at once."""
    content = patches[0].read_bytes()
    begun = []
    for number in range(60):
        client = socket.create_connection(("127.0.0.1", server.port))
        body = form(content, "slow.png")
        head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        head = f"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n{head}\r\n"
        client.sendall(head.encode() + body[: len(body) // 2])
        begun.append(client) if number % 3 else client.close()
    started = time.monotonic()
    status, _, answer = server.post(content)
    assert status == 200, answer
    assert time.monotonic() - started < 10
    for client in begun:
        client.close()


def test_a_hundred_at_once_are_answered_or_asked_to_come_again(server: Server, patches: list[Path]) -> None:
    """Only 200 and 503, the latter with Retry-After; all of one file get one probability."""
    content = patches[0].read_bytes()
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda _: server.post(content), range(100)))
    assert set(Counter(status for status, _, _ in answers)) <= {200, 503}
    assert all("retry-after" in headers for status, headers, _ in answers if status == 503)
    found = [json.loads(body)[0]["probability"] for status, _, body in answers if status == 200]
    assert len(found) > 50
    assert max(found) - min(found) < 1e-5


def test_what_the_description_allows_is_answered_as_it_says(server: Server) -> None:
    """Requests made from /openapi.json, valid and invalid: no 5xx, and statuses, types and bodies as described."""
    authorised = {"Authorization": f"Bearer {TOKEN}"}
    address = f"http://127.0.0.1:{server.port}"
    description = schemathesis.openapi.from_url(f"{address}/openapi.json", headers=authorised)
    operations = [result.ok() for result in description.get_all_operations()]
    assert {"/api/predict", "/api/explain", "/api/model", "/metrics"} <= {operation.path for operation in operations}
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @hypothesis.settings(
                max_examples=4, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
            )
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: schemathesis.Case) -> None:
                case.call_and_validate(base_url=address, headers=authorised, checks=CHECKED)

            with suppress(hypothesis.errors.Unsatisfiable):  # nothing invalid can be asked of some
                ask()


def test_the_log_has_no_names_of_uploads_and_no_traceback(server: Server, patches: list[Path]) -> None:
    """A line per request: method, route, status, time."""
    server.post(b"no image", "Jane-Roe-1961.png", "/api/predict?model=Jane-Roe")
    server.post(patches[0].read_bytes(), "Jane-Roe-1961.png")
    wanted = ("POST /api/predict 200", "POST /api/predict 404")
    deadline = time.monotonic() + 30
    while not all(line in server.text() for line in wanted) and time.monotonic() < deadline:
        time.sleep(0.05)  # a line is written after its answer
    assert [line for line in wanted if line not in server.text()] == []
    assert "Jane" not in server.text()
    assert "Traceback" not in server.text()


def test_a_second_server_on_one_workspace_refuses_in_a_line(server: Server, small_run: Path) -> None:
    """What is refused only as it starts is one line and 1, too, without a traceback."""
    program = "import sys; from tumortrace.cli.main import main; main(sys.argv[1:])"
    call = [sys.executable, "-c", program, "serve", str(small_run), "--port", "0", "--device", "cpu"]
    done = subprocess.run(call, cwd=Path(server.log.name).parent, capture_output=True, text=True, timeout=90)
    assert done.returncode == 1
    address, refusal = done.stderr.splitlines()
    assert "http://" in address
    assert "another server uses it" in refusal


def test_on_sigterm_what_is_under_way_is_answered_first(server: Server, patches: list[Path]) -> None:
    """Requests sent just before the signal are answered 200; the program ends with 0 and leaves no process behind."""
    content = patches[0].read_bytes()
    children = [int(child) for child in _children(server.process.pid)]
    with ThreadPoolExecutor(8) as pool:
        before = server.explanations()
        answers = [pool.submit(server.post, content, "a.png", "/api/explain?method=occlusion") for _ in range(3)]
        deadline = time.monotonic() + 30
        while server.explanations() < before + 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        assert {answer.result()[0] for answer in answers} == {200}
    assert server.process.wait(30) == 0
    assert server.text().rstrip().endswith("serve: ended")
    assert len(children) >= 2
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


def _children(process: int) -> list[str]:
    """Of all threads: a child belongs to the one that started it."""
    return [child for file in Path(f"/proc/{process}/task").glob("*/children") for child in file.read_text().split()]
