"""Many slides in one call, by table and by folder: what becomes of each, and the summary over all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.reports.test_browser import CONTRAST
from tests.reports.test_browser import browser as browser  # a fixture
from tests.situations.conftest import Use
from tests.situations.situation import situation
from tests.situations.test_scan_batches import write_slide
from tests.slides.test_scan import dark_share
from tumortrace.cli.main import run
from tumortrace.records.tables import SCANNED

pytestmark = pytest.mark.usefixtures("use")


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """A slide with tumour, one without, one of bare glass, one that is broken; and a table of them."""
    folder = tmp_path / "slides"
    write_slide(folder / "calm.tiff")
    dark = np.full((256, 256, 3), (200, 110, 170), np.uint8)
    dark[:128] = (90, 50, 130)
    Image.fromarray(dark).save(folder / "tumour.png", dpi=(50800, 50800))
    Image.new("RGB", (256, 256), (244, 244, 244)).save(folder / "glass.png", dpi=(50800, 50800))
    (folder / "broken.svs").write_bytes(b"II*\0 torn")
    rows = "slide,label,patient,split\ncalm.tiff,0,p1,train\nbroken.svs,1,p2,train\ntumour.png,1,p3,test\nglass,0,p4,\n"
    (folder / "slides.csv").write_text(rows)
    return folder


WORDS = ["--resolution", "0.5"]


@situation(
    "slides",
    there="a table of slides with labels, patients and splits; one slide is broken",
    typed="tumortrace scan RUN slides.csv",
    right="slides.csv has a row for each; the broken one comes last, with exit code 1",
)
def test_a_table_of_slides(slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels, patients and splits travel; the order is the table's; the reason stands in the row."""
    assert run(["scan", "run", str(slides / "slides.csv"), "-o", str(tmp_path / "out"), *WORDS]) == 1
    table = SCANNED.read(tmp_path / "out").set_index("id")
    assert list(table.index) == ["calm", "broken", "tumour", "glass"]
    assert table["label"].tolist() == [0, 1, 1, 0]
    assert table["patient"].tolist() == ["p1", "p2", "p3", "p4"]
    assert table["split"].fillna("").tolist() == ["train", "train", "test", ""]
    assert table["status"].tolist() == ["ok", "failed", "ok", "ok"]
    assert "broken.svs" in table.loc["broken", "reason"]
    assert table["folder"].fillna("").tolist() == ["calm", "", "tumour", "glass"]
    assert table.loc["tumour", "tumour_mm2"] == pytest.approx(128 * 256 * 0.25e-6, rel=0.05)
    assert table.loc["glass", "tiles"] == 0
    assert pd.isna(table.loc["glass", "score"])
    assert "no tissue" in table.loc["glass", "notes"]
    assert capsys.readouterr().err.splitlines()[-2].startswith("scan: 1 of 4 slides could not be scanned")
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.index(">tumour</a>") < page.index(">calm</a>") < page.index(">glass</a>") < page.index("<b>broken</b>")
    assert 'href="tumour/report.html"' in page
    report = (tmp_path / "out" / "tumour" / "report.html").read_text()
    assert "Not a medical device" in report
    assert report.count("<figure>") >= 4
    assert "no tissue was seen" in (tmp_path / "out" / "glass" / "report.html").read_text()


def test_a_folder_of_slides_is_taken_alike(slides: Path, tmp_path: Path) -> None:
    """Without labels; the slides' own rows are the same as by the table."""
    (slides / "slides.csv").rename(tmp_path / "slides.csv")
    assert run(["scan", "run", str(slides), "-o", str(tmp_path / "out"), *WORDS]) == 1
    table = SCANNED.read(tmp_path / "out").set_index("id")
    assert sorted(table.index) == ["broken", "calm", "glass", "tumour"]
    assert table["label"].isna().all()
    assert table["patient"].tolist() == table.index.tolist()


@situation(
    "slides",
    there="a table whose folder is named for the results too",
    typed="tumortrace scan RUN slides.csv -o FOLDER",
    right="refused before any work: the user's slides.csv is not overwritten",
)
def test_the_table_itself_is_not_overwritten(slides: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A summary of scans may be replaced, nothing else."""
    before = (slides / "slides.csv").read_bytes()
    assert run(["scan", "run", str(slides / "slides.csv"), "-o", str(slides)]) == 1
    assert "holds slides.csv that is no summary of scans" in capsys.readouterr().err
    assert (slides / "slides.csv").read_bytes() == before


@situation(
    "slides",
    there="a scan of many slides that was killed",
    typed="the same `tumortrace scan` again",
    right="slides.csv and every report end with the same bytes, times apart",
)
def test_a_killed_call_ends_with_the_same_bytes(slides: Path, tmp_path: Path, use: Use) -> None:
    """After each slide the table is whole; what is kept is not computed again."""
    (slides / "broken.svs").unlink()
    (slides / "slides.csv").unlink()

    def command(out: str) -> list[str]:
        return ["scan", "run", str(slides), "-o", str(tmp_path / out), *WORDS]

    assert run(command("whole")) == 0

    def killed(images: np.ndarray) -> np.ndarray:
        if images[0, 0, 0, 0] < 100:
            raise KeyboardInterrupt
        return dark_share(images)

    use(killed)
    assert run(command("again")) == 1
    assert SCANNED.read(tmp_path / "again")["id"].tolist() == ["calm", "glass"]
    use()
    assert run(command("again")) == 0
    whole, again = (SCANNED.read(tmp_path / name).drop(columns="seconds") for name in ("whole", "again"))
    pd.testing.assert_frame_equal(whole, again)
    for file in sorted((tmp_path / "whole").rglob("*.*")):
        if file.name not in ("scan.json", "slides.csv"):
            other = tmp_path / "again" / file.relative_to(tmp_path / "whole")
            assert file.is_dir() or file.read_bytes() == other.read_bytes(), file


@situation(
    "slides",
    there="a computer with little memory",
    typed="tumortrace scan RUN SLIDES --max-memory 2GB",
    right="fewer tiles at a time, said in a line; refused where even few do not fit",
)
def test_memory_is_bounded(slides: Path, tmp_path: Path, use: Use, capsys: pytest.CaptureFixture[str]) -> None:
    """No call of the model has more tiles than was said, and the results are those without a bound."""
    seen: list[int] = []

    def counted(images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return dark_share(images)

    use(counted)
    words = ["scan", "run", str(slides / "calm.tiff"), *WORDS, "--overlap", "0.5"]
    assert run([*words, "-o", str(tmp_path / "a"), "--max-memory", "925MB"]) == 0
    assert "note: 16 tiles at a time in place of 128, to keep within 925MB" in capsys.readouterr().err
    assert max(seen) == 16
    assert run([*words, "-o", str(tmp_path / "b")]) == 0
    same = [(tmp_path / name / "calm" / "tiles.csv").read_bytes() for name in "ab"]
    assert same[0] == same[1]
    for text, line in (("500MB", "expected at least 0.89GB for this model"), ("much", "expected a size such as 4GB")):
        assert run([*words, "-o", str(tmp_path / "c"), "--max-memory", text]) == 1
        assert line in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


@pytest.fixture
def page(slides: Path, tmp_path: Path, browser: Any) -> Iterator[Any]:
    run(["scan", "run", str(slides / "slides.csv"), "-o", str(tmp_path / "out"), *WORDS])
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((tmp_path / "out" / "report.html").as_uri())
    yield page
    page.close()


def test_the_summary_sorts_and_searches_in_a_browser(page: Any) -> None:
    """Worst first; a click on a heading turns the order, unknown values stay last; links lead to the slide's report."""
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))

    def names() -> list[str]:
        rows = page.locator("#slides tbody tr:visible td:nth-child(2)")
        return [text.strip() for text in rows.all_inner_texts()]

    assert names() == ["tumour", "calm", "glass"]
    page.get_by_role("button", name="Slide").click()
    assert names() == ["calm", "glass", "tumour"]
    page.get_by_role("button", name="Slide").click()
    assert names() == ["tumour", "glass", "calm"]
    page.get_by_role("button", name="Score").click()
    assert names() == ["tumour", "calm", "glass"]
    page.get_by_role("button", name="Score").click()
    assert names() == ["calm", "tumour", "glass"]
    page.get_by_label("Search").fill("p3 test")
    assert names() == ["tumour"]
    assert page.locator("#count").inner_text() == "1 of 3"
    page.get_by_label("Search").fill("")
    assert len(names()) == 3
    assert page.locator("#broken li").count() == 1
    assert page.evaluate("[...document.images].filter(image => !image.naturalWidth).length") == 0
    assert page.evaluate(CONTRAST) == []
    page.locator("#slides a").first.click()
    assert page.get_by_role("heading", level=1).inner_text() == "calm.tiff"
    assert page.evaluate("[...document.images].filter(image => !image.naturalWidth).length") == 0
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(CONTRAST) == []
    assert errors == []


@situation(
    "slides",
    there="a folder of scans, to be filled up with slides scanned with another --overlap",
    typed="tumortrace scan RUN MORE --overlap 0.5 -o SCANS",
    right="refused with what differs, as one score cannot hold for both",
)
def test_scans_made_otherwise_are_kept_apart(slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same settings are added, others refused before a slide is read."""
    more = tmp_path / "more"
    for name in ("c", "d"):
        write_slide(more / f"{name}.tiff", side=128 if name == "c" else 192)
    (slides / "broken.svs").unlink()
    assert run(["scan", "run", str(slides / "calm.tiff"), str(slides / "glass.png"), "-o", str(tmp_path / "out")]) == 0
    words = ["scan", "run", str(more), "-o", str(tmp_path / "out")]
    assert run([*words, "--overlap", "0.5"]) == 1
    line = "holds a scan of another slide, calm.tiff, that was made otherwise: overlaps 0.0, now 0.5; expected"
    assert line in capsys.readouterr().err
    assert not (tmp_path / "out" / "c").exists()
    assert run(words) == 0
