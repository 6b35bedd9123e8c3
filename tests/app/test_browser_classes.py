"""The pages of a model of four classes in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.test_browser import CHROMIUM, PATIENCE, TOKEN, Served, draw_slide
from tests.conftest import SMALL
from tumortrace import load_model, open_cohort, synthesise, train
from tumortrace.cohorts.store import open_store

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture(scope="module")
def tissues(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there: no browser to test the pages in")
    return synthesise("tissues", tmp_path_factory.mktemp("tissues") / "tissues", count=320, seed=2)


@pytest.fixture(scope="module")
def served(tissues: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server on a run of four classes."""
    folder = tmp_path_factory.mktemp("served")
    run = train(tissues, changes=[*SMALL, "epochs=1"], out=folder / "runs", seed=1)
    draw_slide(folder / "slides" / "stripes.png")
    served = Served([run], tissues, folder / "slides", folder / "workspace")
    served.start()
    yield served
    served.kill()


@pytest.fixture
def page(served: Served) -> Iterator[Any]:
    """A narrow tab in which nothing may go wrong."""
    complaints: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 390, "height": 844})
        context.set_default_timeout(PATIENCE)
        context.add_init_script(f"sessionStorage.setItem('token', '{TOKEN}')")
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"http://127.0.0.1:{served.port}/")
        yield page
        browser.close()
    assert not complaints


def test_a_patch_has_the_probability_of_each_class(page: Any, served: Served, tissues: Path) -> None:
    """Those of the model, the likeliest first; joined names break between classes, nothing is wider than the page."""
    page.wait_for_selector("#examples li small")
    captions = page.locator("#examples li small")
    joined = [text for text in captions.all_text_contents() if "+" in text]
    assert joined
    assert set(joined) <= {"✓ normal+benign", "✗ normal+benign", "✓ insitu+invasive", "✗ insitu+invasive"}
    lines = page.eval_on_selector_all(
        "#examples li small",
        "all => all.map(one => { const range = document.createRange(); range.selectNodeContents(one);"
        " return new Set([...range.getClientRects()].map(box => Math.round(box.top))).size; })",
    )
    assert max(lines) <= 2
    cohort = open_cohort(tissues)
    said = load_model(served.models[0], device="cpu").assess(open_store(cohort).images, [0]).by_class
    assert said is not None
    page.set_input_files("#files", cohort.table["path"].iloc[0])
    page.wait_for_selector("#one:not([hidden])")
    shown = dict(zip(page.locator("#facts dt").all_text_contents(), page.locator("#facts dd").all_text_contents()))
    assert shown["Likeliest class"] == said["predicted_class"][0]
    assert "Cannot be ruled out" in shown
    names = [name.removeprefix("Probability of ") for name in shown if name.startswith("Probability of ")]
    probabilities = [float(said[f"probability_{name}"][0]) for name in names]
    assert set(names) == set(cohort.class_names)
    assert probabilities == sorted(probabilities, reverse=True)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
