"""A scan that was killed goes on where it stopped and ends with the same files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.slides.test_scan import dark_share, fake_model
from tumortrace.cli.main import main
from tumortrace.errors import RunError
from tumortrace.records.journal import Journal
from tumortrace.records.scans import ScanRecord
from tumortrace.slides import shares
from tumortrace.slides.result import JOURNAL, only_scan
from tumortrace.slides.scan import scan
from tumortrace.slides.shares import ShareKept
from tumortrace.work.hands import Hands

BATCH, TILES = 7, 60


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tumortrace.slides.scan.draw_heatmap", lambda target, *_, **__: target.write_bytes(b"picture"))


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """320 x 192 px of tissue whose shade differs from tile to tile: 10 x 6 tiles of 32 px."""
    random = np.random.default_rng(0)
    pixels = random.integers(80, 220, (192, 320, 1)) * np.ones(3) + random.integers(-20, 20, (192, 320, 3))
    pixels[..., 1] -= 60
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


class Stop(Exception):
    """Raised by a test's progress or model."""


def stopping(after: int) -> Callable[[np.ndarray], np.ndarray]:
    """A model that fails once it has been called `after` times."""
    calls = []

    def predict(images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        if len(calls) > after:
            raise Stop
        return dark_share(images)

    return predict


def run(slide: Path, out: Path, predict: Callable[[np.ndarray], np.ndarray] = dark_share, **more: object) -> bytes:
    """tiles.csv and outlines of a scan."""
    scan("run", slide, out=out, resolution=1.0, batch_size=BATCH, model=fake_model(predict), **more)  # type: ignore[arg-type]
    return (out / "tiles.csv").read_bytes() + (out / "outlines.geojson").read_bytes()


def test_an_interrupted_scan_goes_on_and_ends_the_same(slide: Path, tmp_path: Path) -> None:
    """What was predicted is not predicted again, progress begins where it stopped, and the files are identical."""
    whole = run(slide, tmp_path / "whole")
    with pytest.raises(Stop):
        run(slide, tmp_path / "cut", stopping(3))
    assert [path.name for path in (tmp_path / "cut").iterdir()] == [JOURNAL]
    seen: list[tuple[int, int]] = []
    counts: list[int] = []

    def counted(images: np.ndarray) -> np.ndarray:
        counts.append(len(images))
        return dark_share(images)

    assert run(slide, tmp_path / "cut", counted, progress=lambda *where: seen.append(where)) == whole
    assert sum(counts) == TILES - 3 * BATCH
    assert seen[0] == (3 * BATCH, TILES)
    assert seen[-1] == (TILES, TILES)
    assert not (tmp_path / "cut" / JOURNAL).exists()


def test_shares_of_a_slide_are_gathered(slide: Path, tmp_path: Path) -> None:
    """Of nine batches three shares: in any order, one interrupted; the scan asks for the rest, and ends the same."""
    whole, out = run(slide, tmp_path / "whole"), tmp_path / "out"
    counts: list[int] = []
    seen: list[tuple[int, int]] = []

    def counted(images: np.ndarray) -> np.ndarray:
        counts.append(len(images))
        return dark_share(images)

    def keep(number: int, **more: object) -> None:
        with pytest.raises(ShareKept):
            run(slide, out, counted, share=(number, 3), **more)

    keep(2)
    assert counts == [7, 7, 4]
    keep(0)
    with pytest.raises(Stop):
        run(slide, out, stopping(1), share=(1, 3))
    assert {path.name[:10] for path in out.iterdir()} == {"unfinished"}
    shutil.copytree(out, tmp_path / "again")
    counts.clear()
    assert run(slide, out, counted) == whole
    assert counts == [7, 7, 7, 7, 4], "the third share does not go on from what is known"
    assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}

    out = tmp_path / "again"
    counts.clear()
    keep(1, progress=lambda *where: seen.append(where))
    keep(1)
    assert counts == [7, 7]
    assert seen == [(7, 21), (14, 21), (21, 21)]
    assert run(slide, out, stopping(0)) == whole
    counts.clear()
    run(slide, out, counted, share=(1, 3))  # of what is complete nothing is to be done
    assert not counts


def test_shares_of_anything_else_are_not_gathered(slide: Path, tmp_path: Path) -> None:
    """Another overlap gives other tiles; what is left of such shares goes with the scan that is complete."""
    with pytest.raises(ShareKept):
        run(slide, tmp_path / "out", share=(0, 2))
    assert run(slide, tmp_path / "out", overlap=0.5) == run(slide, tmp_path / "whole", overlap=0.5)
    assert not list((tmp_path / "out").glob("unfinished*"))


def test_large_slides_are_divided_where_workers_would_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the bytes of their files, into two for each worker at most; not where there are slides enough."""
    monkeypatch.setattr(shares, "LARGE", 100)
    files = [tmp_path / name for name in ("small", "large", "huge")]
    for file, size in zip(files, (99, 100, 900), strict=True):
        file.write_bytes(b" " * size)
    assert shares.shares_of(files, Hands()) == []
    assert shares.shares_of(files[1:2], Hands(2)) == [(0, (0, 2)), (0, (1, 2))]
    assert shares.shares_of(files[2:], Hands(2)) == [(0, (number, 4)) for number in range(4)]
    assert [slide for slide, _ in shares.shares_of(files, Hands(cluster="local"))] == [1, 1] + [2] * 18
    assert shares.shares_of([*files, files[0]], Hands(2)) == []


def test_progress_can_cancel(slide: Path, tmp_path: Path) -> None:
    """Whatever the callback raises ends the scan; the next call goes on."""

    def cancel(done: int, total: int) -> None:
        if done >= 2 * BATCH:
            raise Stop

    with pytest.raises(Stop):
        run(slide, tmp_path / "out", progress=cancel)
    first: list[int] = []
    assert run(slide, tmp_path / "out", progress=lambda done, _: first.append(done)) == run(slide, tmp_path / "whole")
    assert first[0] == 2 * BATCH


def test_a_killed_process_leaves_what_the_next_one_finishes(slide: Path, tmp_path: Path) -> None:
    """SIGKILL in the fourth batch: nothing but the journal is there, and a second process ends with the same files."""
    program = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from tests.slides.test_scan import dark_share, fake_model
        from tumortrace.slides.scan import scan

        calls = []
        def predict(images):
            calls.append(1)
            if len(calls) == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            return dark_share(images)

        scan("run", sys.argv[1], out=sys.argv[2], resolution=1.0, batch_size=7, model=fake_model(predict))
        """
    )
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "src")])}
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", program, slide, out], env=environment, check=False)
    assert done.returncode == -9
    assert JOURNAL in [path.name for path in out.iterdir()]
    assert not (out / "scan.json").exists()
    assert run(slide, out) == run(slide, tmp_path / "whole")
    names = {path.name for path in out.iterdir()}
    assert names == {"scan.json", *ScanRecord.read(out).files.values()}
    for name in names - {"scan.json"}:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_request_to_end_is_answered_with_a_line(
    slide: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM, as clusters and containers send it, says like Ctrl-C what to do; nobody else's handler is lost."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("tumortrace.slides.batch.scan", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    ready = SimpleNamespace(require_preparation=lambda *_: None, info=SimpleNamespace(resolution=1.0))
    monkeypatch.setattr("tumortrace.models.bundle.load_model", lambda *_, **__: ready)
    with pytest.raises(SystemExit) as left:
        main(["scan", "run", str(slide)])
    assert left.value.code == 1
    line = capsys.readouterr().err
    assert line == f"tumortrace: {slide}: interrupted. What to do: the same command goes on where it stopped.\n"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("cut", [1, 40, 400, 1000])
def test_a_torn_journal_is_read_up_to_the_tear(cut: int, slide: Path, tmp_path: Path) -> None:
    """However many bytes of its end are lost, the files end the same."""
    with pytest.raises(Stop):
        run(slide, tmp_path / "out", stopping(4))
    journal = tmp_path / "out" / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-cut])
    assert run(slide, tmp_path / "out") == run(slide, tmp_path / "whole")


def test_a_changed_byte_is_noticed(slide: Path, tmp_path: Path) -> None:
    """A digit that changed on the disk is not believed: that batch and those after it are predicted again."""
    with pytest.raises(Stop):
        run(slide, tmp_path / "out", stopping(4))
    journal = tmp_path / "out" / JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    at = lines[2].index(b"0.") + 2
    lines[2] = lines[2][:at] + (b"1" if lines[2][at : at + 1] != b"1" else b"2") + lines[2][at + 1 :]
    journal.write_bytes(b"".join(lines))
    first: list[int] = []
    assert run(slide, tmp_path / "out", progress=lambda done, _: first.append(done)) == run(slide, tmp_path / "whole")
    assert first[0] == BATCH


def test_other_settings_begin_anew(slide: Path, tmp_path: Path) -> None:
    """Rows of another grid or another model are not taken over."""
    with pytest.raises(Stop):
        run(slide, tmp_path / "out", stopping(4))
    first: list[int] = []
    run(slide, tmp_path / "out", overlap=0.5, progress=lambda done, _: first.append(done))
    assert first[0] == 0
    with pytest.raises(Stop):
        run(slide, tmp_path / "out", stopping(4))
    first.clear()
    settings = {"out": tmp_path / "out", "resolution": 1.0, "batch_size": BATCH}
    other = fake_model(weights_sha256="1" * 64)
    scan("run", slide, model=other, progress=lambda done, _: first.append(done), **settings)  # type: ignore[arg-type]
    assert first[0] == 0


def test_a_full_disk_is_told_and_what_was_found_stays(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names the file; with room again, the scan goes on and ends the same."""
    flush, calls = os.fsync, list[int]()

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        flush(handle)

    out, seen = tmp_path / "out", list[int]()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left on device: .*unfinished.jsonl"):
            run(slide, out)
    assert run(slide, out, progress=lambda done, _: seen.append(done)) == run(slide, tmp_path / "whole")
    assert seen[0] >= 2 * BATCH


def test_nothing_torn_stays_behind_new_rows(tmp_path: Path) -> None:
    """Rows that are added to a torn journal end the file, however long the torn line was."""
    file = tmp_path / JOURNAL
    Journal(file, {"slide": "a"}).append(np.linspace(0, 1, 200).tolist())
    file.write_bytes(file.read_bytes()[:-1])
    Journal(file, {"slide": "a"}).append([0.0, 1.0])
    assert len(file.read_bytes().splitlines()) == 2
    assert Journal(file, {"slide": "a"}).entries == [[0.0, 1.0]]


def test_another_slides_journal_is_kept(slide: Path, tmp_path: Path) -> None:
    """A folder that holds the unfinished scan of another slide is refused."""
    with pytest.raises(Stop):
        run(slide, tmp_path / "out", stopping(4))
    slide.rename(tmp_path / "b.png")
    with pytest.raises(RunError, match="choose another"):
        run(tmp_path / "b.png", tmp_path / "out")


def test_a_kill_between_the_last_files_is_mended(slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the picture and the table written and the record not, the next call finishes without predicting."""

    def fails(*_: object, **__: object) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr("tumortrace.slides.scan.describe", fails)
        with pytest.raises(Stop):
            run(slide, tmp_path / "out")
    assert (tmp_path / "out" / "tiles.csv").exists()
    run(slide, tmp_path / "out", stopping(0))
    assert json.loads((tmp_path / "out" / "scan.json").read_text())["tiles"] == TILES


def test_two_scans_do_not_write_into_one_folder(slide: Path, tmp_path: Path) -> None:
    """While one scan holds the folder, another is refused in one line; afterwards it is free."""
    (tmp_path / "out").mkdir()
    with only_scan(tmp_path / "out"), pytest.raises(RunError, match="another scan"):
        run(slide, tmp_path / "out")
    run(slide, tmp_path / "out")


def test_rows_come_back_to_the_last_bit(tmp_path: Path) -> None:
    """Numbers, truth values and words are those that were put in, over several batches."""
    random = np.random.default_rng(1)
    rows = pd.DataFrame({"probability": random.random(50), "in_distribution": random.random(50) < 0.5})
    rows["decision"] = np.where(rows["probability"] > 0.5, "positive", "refer")
    journal = Journal(tmp_path / JOURNAL, {"slide": "a"})
    for start in range(0, 50, 20):
        journal.append(rows.iloc[start : start + 20].to_dict("list"))
    kept = [pd.DataFrame(entry) for entry in Journal(tmp_path / JOURNAL, {"slide": "a"}).entries]
    pd.testing.assert_frame_equal(pd.concat(kept, ignore_index=True), rows)
