"""How many callers `tumortrace serve` bears: writes docs/serve.json, and its numbers into docs/serve.md.

    python benchmarks/serve.py RUN [--requests 10000] [--images FOLDER]

It starts the server as a user does and asks it over loopback from this process, whose own work counts against the
server: on two cores both share them. Three measurements: 16 callers of which each asks again once it is answered; 100
callers at the same moment; and the memory of the server with all its processes over many requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- measured: written by benchmarks/serve.py -->", "<!-- end of measured -->"
PAGE = os.sysconf("SC_PAGE_SIZE")


Measured = tuple[list[float], Counter[int], float]


class Caller:
    """One connection that is kept; the least work that a caller can have."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, request: bytes) -> tuple[int, float]:
        """Status, and seconds from the first byte sent to the last received."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        assert self.reader is not None
        started = time.perf_counter()
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None
        await self.reader.readexactly(int(length[1]))
        return int(head.split(b" ", 2)[1]), time.perf_counter() - started


def requests(images: Path) -> list[bytes]:
    """A request to predict each image of a folder."""
    found = []
    for path in sorted(each for each in images.rglob("*") if each.suffix.lower() in (".png", ".jpg", ".tif")):
        head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{path.name}"\r\n\r\n'.encode()
        body = head + path.read_bytes() + b"\r\n--b--\r\n"
        address = "POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        found.append(f"{address}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return found


async def closed_loop(port: int, work: list[bytes], callers: int, total: int) -> Measured:
    """Latencies, statuses and duration of `total` requests by callers that each wait for their answer."""
    seconds: list[float] = []
    statuses: Counter[int] = Counter()
    left = iter(range(total))

    async def call() -> None:
        caller = Caller(port)
        for number in left:
            status, taken = await caller.ask(work[number % len(work)])
            statuses[status] += 1
            seconds.append(taken)

    started = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(callers)))
    return seconds, statuses, time.perf_counter() - started


def memory(process: int) -> int:
    """Resident bytes of a process and its children."""
    own = int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return own + sum(memory(int(child)) for child in children)


def start(run: Path, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """The server and its port."""
    log = folder / "log.txt"
    program = "import sys; from tumortrace.cli.main import main; main(sys.argv[1:])"
    call = [sys.executable, "-c", program, "serve", str(run.resolve()), "--port", "0", "--device", "cpu"]
    with open(log, "wb") as target:
        server = subprocess.Popen(call, stderr=target, cwd=folder)
    for _ in range(600):
        if match := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text()):
            return server, int(match[1])
        if server.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit(log.read_text())


def load() -> float:
    """Share of the machine's time that is taken, over two seconds and before anything is measured."""

    def ticks() -> np.ndarray:
        return np.array(Path("/proc/stat").read_text().splitlines()[0].split()[1:], dtype=float)

    before = ticks()
    time.sleep(2)
    spent = ticks() - before
    return float(1 - (spent[3] + spent[4]) / spent.sum())


def measure(run: Path, images: Path, total: int) -> dict:
    """All three measurements."""
    work = requests(images)
    with tempfile.TemporaryDirectory() as folder:
        busy = load()
        server, port = start(run, Path(folder))
        try:
            asyncio.run(closed_loop(port, work, 16, 400))  # warm
            seconds, statuses, duration = asyncio.run(closed_loop(port, work, 16, 2000))
            burst, burst_statuses, _ = asyncio.run(closed_loop(port, work, 100, 1000))
            early = memory(server.pid)
            asyncio.run(closed_loop(port, work, 16, total))
            late = memory(server.pid)
        finally:
            server.terminate()
            code = server.wait(60)
    quantiles = {name: round(float(np.quantile(seconds, share)), 4) for name, share in QUANTILES.items()}
    return {
        "model": json.loads((run / "model" / "model.json").read_text())["name"],
        "images": f"{len(work):,} of {images.name}",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "busy_before": round(busy, 3),
        "sixteen": {
            "requests": len(seconds),
            "per_second": round(len(seconds) / duration, 1),
            **quantiles,
            "statuses": dict(statuses),
        },
        "hundred": {
            "requests": len(burst),
            "p99": round(float(np.quantile(burst, 0.99)), 4),
            "statuses": dict(burst_statuses),
        },
        "memory": {
            "requests": total,
            "before_mib": round(early / 2**20, 1),
            "after_mib": round(late / 2**20, 1),
            "change": round(late / early - 1, 4),
        },
        "exit_code": code,
    }


QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "slowest": 1.0}


def table(found: dict) -> str:
    """The numbers as they stand in docs/serve.md."""
    sixteen, hundred, kept = found["sixteen"], found["hundred"], found["memory"]
    rows = [
        ("16 callers, each asks again once answered", f"{sixteen['per_second']:.0f} answers per second"),
        ("half of them, and 99 of 100, within", f"{sixteen['p50']:.3f} s, {sixteen['p99']:.3f} s"),
        ("100 callers at the same moment", f"99 of 100 within {hundred['p99']:.2f} s; {_told(hundred['statuses'])}"),
        (f"memory over {kept['requests']:,} requests", f"{kept['before_mib']:.0f} MiB to {kept['after_mib']:.0f} MiB"),
        ("machine", f"{found['machine']}, shared with the callers; {found['busy_before']:.0%} busy before"),
    ]
    return "\n".join(["| measured | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])


def _told(statuses: dict) -> str:
    return ", ".join(f"{count:,} times {status}" for status, count in sorted(statuses.items()))


def main() -> None:
    """Measure and write."""
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("run", type=Path)
    reader.add_argument("--requests", type=int, default=10_000)
    reader.add_argument("--images", type=Path, required=True)
    reader.add_argument("--out", type=Path, default=ROOT / "docs" / "serve.json")
    given = reader.parse_args()
    found = measure(given.run, given.images, given.requests)
    given.out.write_text(json.dumps(found, indent=2) + "\n")
    print(table(found))
    page = given.out.with_suffix(".md")
    if page.is_file():
        text = page.read_text()
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        page.write_text(f"{before}{BEGIN}\n{table(found)}\n{END}{after}")


if __name__ == "__main__":
    main()
