"""The report in a browser: no page that scrolls sideways on a phone, in light and in dark, and readable in both."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
PHONE = 390  # CSS pixels
#: Contrast of text and ground by WCAG 2.1, of every paragraph, cell and caption that shows text.
CONTRAST = """() => {
  const light = c => c.map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const parts = text => text.match(/[\\d.]+/g).map(Number);
  const ground = node => { for (; node; node = node.parentElement) {
    const c = parts(getComputedStyle(node).backgroundColor); if (c.length < 4 || c[3] > .9) return c; }
    return [255, 255, 255]; };
  return [...document.querySelectorAll(
    'p, td, th, li, figcaption, caption, small, dt, dd, h1, h2, h3, a, pre, code, .banner span, .cards *')]
    .filter(node => node.innerText.trim() && node.offsetParent).map(node => {
      const [a, b] = [light(parts(getComputedStyle(node).color).slice(0, 3)), light(ground(node).slice(0, 3))];
      return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), node.innerText.slice(0, 40)]; })
    .filter(([ratio]) => ratio < 4.5);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM.is_file():
        pytest.skip(f"{CHROMIUM} is not there: pages are not looked at in a browser")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as player:
        chromium = player.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_on_a_phone(browser: Any, reported: Path, scheme: str) -> None:
    """At 390 pixels the page is no wider than the screen, no picture is broken, and all text stands out enough."""
    page = browser.new_page(viewport={"width": PHONE, "height": 844}, color_scheme=scheme)
    page.goto((reported / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE
    assert page.evaluate("[...document.images].filter(image => !image.naturalWidth).map(image => image.alt)") == []
    assert page.evaluate(CONTRAST) == []
    page.close()


def test_headings_follow_each_other(browser: Any, reported: Path) -> None:
    """One heading of the first level, none skips a level; every table's header cells say what they head."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((reported / "report.html").as_uri())
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(node => +node.tagName[1])")
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.evaluate("document.querySelectorAll('th:not([scope])').length") == 0
    page.close()
