"""Pictures of the pages for docs/screenshots/, of synthetic tissue alone: no picture in them is of a patient.

    python benchmarks/screenshots.py [--run RUN] [--only PAGE ...]

RUN is a run on synthetic patches; without it, one is trained as `tumortrace demo` does. Needs playwright and Chromium.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from tumortrace import open_cohort, synthesise, train

OUT = Path(__file__).parents[1] / "docs" / "screenshots"
CHROMIUM = "/usr/bin/chromium"
WIDTHS = {"wide": (1280, 900), "narrow": (390, 844)}
PATIENCE = 300_000  # milliseconds
MOST_BYTES = 200_000
SERVE = "from tumortrace.cli.main import main; main()"


def patch(page: Any, patches: list[str]) -> None:
    """Several patches, the first of them with its heat."""
    page.wait_for_selector("#examples li")
    page.set_input_files("#files", patches[:1])
    page.wait_for_selector("#heat:not([hidden])")
    page.click("details summary")
    page.wait_for_function("() => document.querySelector('#seen').naturalWidth > 0")


def slide(page: Any, patches: list[str]) -> None:
    """A slide with heat map and outlines, scanned where it has not been."""
    page.wait_for_selector("#served:not([hidden])")
    page.wait_for_load_state("networkidle")
    shown = page.locator("#scan-list button:has-text('Show')")
    if shown.count():
        shown.first.click()
    else:
        page.click("#served button")
    page.wait_for_selector("#viewing:not([hidden])")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(3000)


def review(page: Any, patches: list[str]) -> None:
    """The queue after three labels."""
    page.wait_for_selector("#item:not([hidden])")
    while page.evaluate("() => document.querySelector('#share').value") < 3:
        page.keyboard.press("a")
        page.wait_for_timeout(1500)
    page.keyboard.press("h")
    page.wait_for_selector("#heat:not([hidden])")


def model(page: Any, patches: list[str]) -> None:
    """Metrics and calibration."""
    page.wait_for_selector("#card h1")


def docs(page: Any, patches: list[str]) -> None:
    """The API."""
    page.wait_for_selector("#operations section")


PAGES: dict[str, tuple[str, Callable[[Any, list[str]], None]]] = {
    "patch": ("/", patch),
    "slide": ("/slide", slide),
    "review": ("/review", review),
    "model": ("/model", model),
    "api": ("/docs", docs),
}


def keep(png: bytes, name: str) -> None:
    """Write a picture with as many colours as stay below the limit, without metadata."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    target = OUT / f"{name}.png"
    while True:
        picture.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.FLOYDSTEINBERG).save(target, optimize=True)
        if target.stat().st_size < MOST_BYTES:
            break
        picture = picture.crop(
            (0, 0, picture.width, picture.height - 60)
        )  # the top shows more than fewer colours would
    print(f"{target.name}: {picture.width}x{picture.height}, {target.stat().st_size:,} bytes")


def main() -> None:
    """Generate, serve, look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--only", nargs="*", choices=PAGES, default=list(PAGES))
    arguments = parser.parse_args()
    run: Path | None = arguments.run
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary)
        tissue = synthesise("patches", folder / "tissue", count=200, seed=11)
        synthesise("slide", folder / "slides" / "synthetic.tif", seed=0)
        if run is None:
            data = synthesise("patches", folder / "training", count=2400)
            run = train(data, recipe="tumortrace-fast", out=folder / "runs", epochs=12)
        call = ["serve", str(run.resolve()), "--port", "0", "--review", str(tissue), "--slides", str(folder / "slides")]
        call += ["--workspace", "tumortrace-workspace"]  # the page shows it, and it is to be no path of this machine
        server = subprocess.Popen([sys.executable, "-c", SERVE, *call], stderr=subprocess.PIPE, text=True, cwd=folder)
        try:
            table = open_cohort(tissue).table
            shoot(playwright, _address(server), table["path"][table["label"] == 1].tolist(), arguments.only)
        finally:
            server.terminate()
            server.communicate()


def _address(server: subprocess.Popen[str]) -> str:
    assert server.stderr is not None
    for line in server.stderr:
        if match := re.search(r"http://127\.0\.0\.1:\d+", line):
            return match[0]
    raise SystemExit("the server did not start")


def shoot(playwright: Any, address: str, patches: list[str], only: list[str]) -> None:
    """All pages at both widths, light, and one of them dark."""
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    looks = [(width, "light", name) for width in WIDTHS for name in only] + [("wide", "dark", "patch")]
    for width, scheme, name in looks:
        wide, high = WIDTHS[width]
        context = browser.new_context(viewport={"width": wide, "height": high}, color_scheme=scheme)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        path, prepare = PAGES[name]
        page.goto(address + path)
        prepare(page, patches)
        page.wait_for_timeout(500)
        tall = page.evaluate("document.documentElement.scrollHeight")
        page.set_viewport_size({"width": wide, "height": min(tall, 1400 if width == "wide" else 1700)})
        page.wait_for_timeout(800)
        if name == "slide":
            page.click("#zoom-all")
            page.wait_for_timeout(1500)
        page.evaluate("scrollTo(0, 0)")
        page.wait_for_timeout(200)
        keep(page.screenshot(caret="initial"), f"{name}-{wide}" + ("-dark" if scheme == "dark" else ""))
        context.close()
    browser.close()


if __name__ == "__main__":
    main()
