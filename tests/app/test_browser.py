"""The pages in a real browser: used with keyboard, narrow screen, token, and a server that is killed."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.images.test_dicom import dicom
from tumortrace.app.routes.pages import LINKS
from tumortrace.cli.main import run

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = Path("/usr/bin/chromium")
PATIENCE = 60_000  # milliseconds; a scan begins with a process that loads torch
TOKEN = "a-token-for-the-browser"
# The outline of what has the focus; a hidden file field shows it on its button.
FOCUS_SEEN = """() => {
  const here = document.activeElement;
  const shown = here.matches(".unseen") ? here.parentElement.querySelector(".button") : here;
  return getComputedStyle(shown).outlineStyle;
}"""
PROGRAM = "from tumortrace.cli.main import main; main()"


@dataclass
class Served:
    """`tumortrace serve` in a process of its own, which can be killed and started again at the same address."""

    models: list[Path]
    data: Path
    slides: Path
    workspace: Path
    port: int = 0
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        call = ["serve", *map(str, self.models), "--review", str(self.data), "--slides", str(self.slides)]
        call += ["--workspace", str(self.workspace), "--port", str(self.port), "--token", TOKEN, "--device", "cpu"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *call], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        assert self.process.stderr is not None
        said = []
        for line in self.process.stderr:
            said.append(line)
            if match := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                self.port = int(match[1])
                return
        raise AssertionError("".join(said))

    def kill(self) -> None:
        """As a power cut would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    @property
    def corrections(self) -> list[dict[str, str]]:
        """The rows of the corrections file."""
        file = next(self.workspace.glob("review/*/corrections.csv"))
        with open(file, newline="") as lines:
            return list(csv.DictReader(lines, strict=True))


@pytest.fixture(scope="module")
def served(small_run: Path, tissue: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server on the small run, with a token, the synthetic tissue to review and a small slide."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there: no browser to test the pages in")
    folder = tmp_path_factory.mktemp("served")
    draw_slide(folder / "slides" / "stripes.png")
    served = Served([small_run, stricter(small_run, folder)], tissue, folder / "slides", folder / "workspace")
    served.start()
    yield served
    served.kill()


def stricter(run: Path, folder: Path) -> Path:
    """The same run under another name, whose model calls nothing tumour."""
    copy = Path(shutil.copytree(run, folder / "stricter"))
    file = copy / "model" / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"threshold": 0.999999, "conformal": None}))
    return copy


def draw_slide(path: Path) -> None:
    """Stripes of stained tissue of rising darkness on white, 960x672 px."""
    pixels = np.full((672, 960, 3), 245, np.uint8)
    noise = np.random.default_rng(0).integers(-20, 20, (480, 768, 3))
    shade = np.linspace(1.15, 0.6, 768)[None, :, None]
    pixels[96:576, 96:864] = np.clip(np.array([190, 110, 165]) * shade + noise, 0, 255).astype(np.uint8)
    path.parent.mkdir()
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def browser(served: Served) -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Tab:
    """A page with what its console complained about; knows the token unless told otherwise."""

    page: Any
    base: str
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str) -> Any:
        self.page.goto(self.base + path)
        return self.page


@pytest.fixture
def tab(browser: Any, served: Served) -> Iterator[Tab]:
    """A tab in which nothing may go wrong: an error or a breach of the policy fails the test."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, accept_downloads=True)
    context.set_default_timeout(PATIENCE)
    tab = Tab(context.new_page(), f"http://127.0.0.1:{served.port}")
    context.add_init_script(f"sessionStorage.setItem('token', sessionStorage.getItem('token') ?? '{TOKEN}')")
    tab.page.on("console", lambda said: tab.complaints.append(said.text) if said.type == "error" else None)
    tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
    yield tab
    context.close()
    assert not tab.complaints


def opacity(page: Any, selector: str) -> float:
    return float(page.eval_on_selector(selector, "element => getComputedStyle(element).opacity"))


def test_a_patch_has_the_command_lines_probability(
    tab: Tab, small_run: Path, patches: list[Path], tmp_path: Path
) -> None:
    """Uploaded, it gets what `predict` writes; the heat is there and its strength follows the keyboard."""
    assert run(["predict", str(small_run), str(patches[0]), "-o", str(tmp_path / "p.csv"), "--device", "cpu"]) == 0
    with open(tmp_path / "p.csv", newline="") as lines:
        said = next(csv.DictReader(lines))
    page = tab.open("/")
    page.set_input_files("#files", str(patches[0]))
    page.wait_for_selector("#heat:not([hidden])")
    shown = float(page.get_attribute("#probability", "data-value"))
    assert shown == pytest.approx(float(said["probability"]), abs=1e-5)
    assert page.text_content("#decision") == said["decision"]
    assert page.evaluate("[...document.images].every(image => !image.checkVisibility() || image.naturalWidth > 0)")
    assert re.search(r"Of 100 patches .* were tumour \(95 % interval \d+ to \d+", page.text_content("#meaning"))
    before = opacity(page, "#heat")
    page.focus("#strength")
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    assert opacity(page, "#heat") == pytest.approx(before - 0.2)
    assert page.text_content("#strength-shown") == "40 %"


def test_many_files_become_a_table_and_a_csv(tab: Tab, patches: list[Path], tmp_path: Path) -> None:
    """Each has its row, what is no image the reason, all together a line; the CSV has those that were predicted."""
    (tmp_path / "broken <b>.png").write_bytes(b"no image")
    page = tab.open("/")
    page.set_input_files("#files", [*map(str, patches[:3]), str(tmp_path / "broken <b>.png")])
    page.wait_for_selector("#one:not([hidden])")
    rows = page.locator("#rows tr")
    assert rows.count() == 4
    assert "What to do" in rows.nth(3).text_content()
    assert "broken <b>.png" in rows.nth(3).text_content()
    assert "Too few images (3 of 32)" in page.locator("#many-drift").text_content()
    with page.expect_download() as download:
        page.click("#csv")
    table = list(csv.DictReader(open(download.value.path(), newline="")))  # noqa: SIM115
    assert [row["name"] for row in table] == [path.name for path in patches[:3]]
    columns = ["name", "label", "probability", "decision", "in_distribution", "ood_score", "model", "notes"]
    assert list(table[0]) == columns
    tab.complaints = [said for said in tab.complaints if "422" not in said]  # the browser notes each refused request


GIVE = """([kind, files]) => {
  const carried = new DataTransfer();
  for (const [name, content] of files) {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    carried.items.add(new File([bytes], name));
  }
  const options = { bubbles: true, cancelable: true };
  document.body.dispatchEvent(kind === "drop"
    ? new DragEvent("drop", { ...options, dataTransfer: carried })
    : new ClipboardEvent("paste", { ...options, clipboardData: carried }));
}"""


def give(page: Any, kind: str, *files: Path) -> None:
    """Drop files anywhere on the page, or paste them."""
    page.evaluate(GIVE, [kind, [[path.name, base64.b64encode(path.read_bytes()).decode()] for path in files]])


def test_dropped_and_pasted_files_and_dicom_have_the_command_lines_probability(
    tab: Tab, small_run: Path, patches: list[Path], tmp_path: Path
) -> None:
    """Dropped together, pasted alone; a slice as DICOM is shown too. No name is a formula in the CSV."""
    given = tmp_path / "given"
    given.mkdir()
    first, last = (Path(shutil.copy(patches[place], given / name)) for place, name in ((0, "=1+1.png"), (-1, "b.png")))
    slice_ = dicom(given / "slice.dcm", np.random.default_rng(0).integers(0, 4096, (120, 120), np.uint16))
    assert run(["predict", str(small_run), str(given), "-o", str(tmp_path / "p.csv"), "--device", "cpu"]) == 0
    with open(tmp_path / "p.csv", newline="") as lines:
        said = {row["id"]: float(row["probability"]) for row in csv.DictReader(lines)}
    page = tab.open("/")
    give(page, "drop", first, slice_)
    page.wait_for_function("() => document.querySelectorAll('#rows td.n').length === 2")
    give(page, "paste", last)
    page.wait_for_function("() => document.querySelectorAll('#rows td.n').length === 3")
    page.wait_for_selector("#heat:not([hidden])")
    with page.expect_download() as download:
        page.click("#csv")
    with open(download.value.path(), newline="") as lines:
        table = {row["name"]: float(row["probability"]) for row in csv.DictReader(lines)}
    wanted = {"'=1+1.png": said["=1+1"], "slice.dcm": said["slice"], "b.png": said["b"]}
    assert table == pytest.approx(wanted, abs=1e-5)
    page.click("#rows button:has-text('slice.dcm')")
    page.wait_for_function("() => document.querySelector('#one-name').textContent === 'slice.dcm'")
    page.wait_for_function("() => document.querySelector('#patch').naturalWidth === 96")


def test_an_example_of_the_run_is_shown_with_its_truth(tab: Tab, small_run: Path) -> None:
    """The runs' own test images are offered as such; the probability of one is that on record."""
    record = json.loads((small_run / "examples" / "examples.json").read_text())
    (known,) = (
        each for each in record["outcomes"]["true_positive"]["shown"] if each["picture"] == "true_positive-1.png"
    )
    page = tab.open("/")
    page.wait_for_selector("#examples:not([hidden])")
    assert "the run's test split" in page.text_content("#examples-title")
    page.focus("#examples button[aria-label='Example 1: tumour, called tumour']")
    page.keyboard.press("Enter")
    page.wait_for_selector("#heat:not([hidden])")
    shown = float(page.get_attribute("#probability", "data-value"))
    assert shown == pytest.approx(known["probability"], abs=1e-5)
    assert f"tumour (test split of {small_run.name})" in page.text_content("#facts")


def test_a_patch_without_heat_is_said_to_have_none(tab: Tab, patches: list[Path]) -> None:
    """An empty layer is not left to look like a fault; with another method there is heat again."""
    nothing = io.BytesIO()
    Image.new("RGBA", (96, 96)).save(nothing, "PNG")
    page = tab.open("/")
    page.route("**/api/explain?*method=grad-cam&*", lambda route: route.fulfill(body=nothing.getvalue()))
    page.set_input_files("#files", str(patches[0]))
    page.wait_for_selector("#heat:not([hidden])")
    page.wait_for_function(
        "() => document.querySelector('#heat-caption').textContent.includes('nothing in this patch')"
    )
    page.select_option("#method", "occlusion")
    page.wait_for_function("() => document.querySelector('#heat-caption').textContent.includes('blue against it')")


def test_another_model_is_chosen_for_the_same_image(tab: Tab, patches: list[Path]) -> None:
    """What is shown is judged anew by the model chosen, whose name the next page remembers."""
    page = tab.open("/")
    page.wait_for_selector("#examples button[aria-label$=': tumour, called tumour']")
    page.click("#examples button[aria-label$=': tumour, called tumour']")
    page.wait_for_selector("#heat:not([hidden])")
    assert page.text_content("#decision") != "negative"
    before = page.get_attribute("#probability", "data-value")
    page.select_option("#model", "stricter")
    page.wait_for_function("() => document.querySelector('#decision').textContent === 'negative'")
    assert page.get_attribute("#probability", "data-value") == before
    assert "stricter" in page.text_content("#facts")
    page = tab.open("/model")
    page.wait_for_function("() => document.querySelector('#model-name').textContent === 'stricter'")


def test_a_label_given_by_keyboard_survives_the_server(tab: Tab, served: Served) -> None:
    """Corrected by a key, on the disk, there after `kill -9` and a reload, and taken back by a key."""
    page = tab.open("/review")
    page.wait_for_selector("#item:not([hidden])")
    first = another_than(page, "")
    other = page.text_content("#correct span").removeprefix("Correct to ")
    page.keyboard.press("c")
    second = another_than(page, first)
    assert [(row["id"], row["label"]) for row in served.corrections] == [(first, other)]
    page.wait_for_load_state("networkidle")
    served.kill()
    served.start()
    page.reload()
    assert another_than(page, "") == second
    assert first in page.text_content("#recent")
    assert page.text_content("#counts").startswith("1 of 400 patches labelled")
    page.keyboard.press("a")
    third = another_than(page, second)
    assert [row["id"] for row in served.corrections] == [first, second]
    page.keyboard.press("u")
    assert another_than(page, third) == second
    page.wait_for_function("() => document.querySelector('#counts').textContent.startsWith('1 of')")
    page.keyboard.press("u")
    assert another_than(page, second) == first
    assert served.corrections == []


def another_than(page: Any, earlier: str) -> str:
    """The id of the patch that is shown, once it is another one and can be labelled."""
    changed = """earlier => !document.querySelector('#item').ariaBusy
        && !['', earlier].includes(document.querySelector('#item-name').textContent.split(' ')[0])"""
    page.wait_for_function(changed, arg=earlier)
    return str(page.text_content("#item-name").split(" ")[0])


def test_the_token_is_asked_for_once(browser: Any, served: Served) -> None:
    """Without it nothing is shown; a wrong one is asked for again; then the whole tab knows it."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{served.port}/model")
    for token in ("wrong", TOKEN):
        page.wait_for_selector("#ask[open]")
        page.fill("#token", token)
        page.keyboard.press("Enter")
        page.wait_for_function("token => sessionStorage.getItem('token') === token", arg=token)
    page.wait_for_selector("#metric-auroc")
    page.goto(f"http://127.0.0.1:{served.port}/docs")
    page.wait_for_selector("#operations section")
    assert not page.locator("#ask[open]").count()
    assert TOKEN not in page.content()
    context.close()


def test_a_slide_is_scanned_and_its_heat_follows_the_controls(tab: Tab, served: Served) -> None:
    """Progress to result; opacity and threshold change the layer live; CSV as the server wrote it; removed."""
    page = tab.open("/slide")
    page.wait_for_selector("#served:not([hidden])")
    page.click("details summary")
    page.fill("#resolution", "1.0")
    page.click("#served button")
    page.wait_for_selector("#viewing:not([hidden])", timeout=4 * PATIENCE)
    page.wait_for_function("() => document.querySelector('#layer')?.width > 100")
    page.wait_for_load_state("networkidle")
    table = next(served.workspace.rglob("tiles.csv"))
    with open(table, newline="") as lines:
        probabilities = [float(row["probability"]) for row in csv.DictReader(lines)]
    assert page.text_content("#above") == f"{len(probabilities)} of {len(probabilities)} tiles shown."
    page.uncheck("#show-outlines")
    strong = heat_opacity(page)
    page.focus("#opacity")
    for _ in range(30):
        page.keyboard.press("ArrowLeft")
    assert page.text_content("#opacity-shown") == "30 %"
    assert heat_opacity(page) == pytest.approx(strong / 2, rel=0.06)
    page.uncheck("#show-heat")
    assert heat_opacity(page) == 0
    page.check("#show-heat")
    limit = round(sorted(probabilities)[len(probabilities) // 2], 2)
    page.eval_on_selector(
        "#threshold", "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", limit
    )
    above = sum(probability >= limit for probability in probabilities)
    assert page.text_content("#above") == f"{above} of {len(probabilities)} tiles shown."
    with page.expect_download() as download:
        page.click("#tiles")
    assert download.value.path().read_bytes() == table.read_bytes()
    page.click("#scan-list button:has-text('Remove')")
    page.wait_for_selector("#scans", state="hidden")
    assert not page.is_visible("#viewing")
    assert not table.exists()


def heat_opacity(page: Any) -> float:
    """The greatest opacity, 0 to 255, of the layer over the slide."""
    return float(
        page.eval_on_selector(
            "#layer",
            """layer => {
                const data = layer.getContext("2d").getImageData(0, 0, layer.width, layer.height).data;
                let most = 0;
                for (let place = 3; place < data.length; place += 4) most = Math.max(most, data[place]);
                return most;
            }""",
        )
    )


@pytest.mark.parametrize("path", [path for path, _, _ in LINKS])
def test_a_narrow_screen_and_a_keyboard_are_enough(tab: Tab, path: str) -> None:
    """Nothing is wider than a phone, the first Tab offers to skip to the content, and what is focused is seen."""
    page = tab.open(path)
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main, footer') !== null")
    assert page.evaluate(FOCUS_SEEN) != "none"


def test_the_model_page_shows_the_records(tab: Tab, small_run: Path) -> None:
    """A metric with its interval, the curve with a point per bin, and the card."""
    page = tab.open("/model")
    page.wait_for_selector("#card h1")
    row = page.text_content("#metric-auroc")
    assert re.search(r"AUROC(\.\d{3}|1\.000)\[", row)
    assert page.locator("#curve circle").count() == page.locator("#bins tr").count() > 2
    assert os.path.basename(small_run) == page.text_content("#model-name")
