"""Fixtures that all rooms share: a small synthetic cohort, a small trained run, the real data where they are there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: one thread for each of several processes
    os.environ.setdefault("OMP_NUM_THREADS", "1")

SMALL = (
    "preprocessing.crop=32",
    "augmentation.stain=0.02",
    "model.arguments={stem: 8, widths: [8, 16], depths: [1, 1], dropout: 0.2}",
    "batch_size=32",
    "epochs=2",
)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep what the tests decode and generate out of the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("TUMORTRACE_CACHE")
    os.environ["TUMORTRACE_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["TUMORTRACE_CACHE"]
    else:
        os.environ["TUMORTRACE_CACHE"] = before


@pytest.fixture(scope="module", autouse=True)
def blank_figures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Figures are composed everywhere and painted only where tests look at them, as painting takes most of a run."""
    if request.path.parent.name == "reports" or request.node.get_closest_marker("painted"):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tumortrace.reports.drawing.paint", _leave_blank)
        yield


def _leave_blank(figure: Figure, file: Path, kind: str, title: str) -> None:
    if kind == ".svg":
        file.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>')
    else:
        Image.new("RGB", (8, 8)).save(file, "PNG")


@pytest.fixture(scope="session")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 400 synthetic patches of at least eight slides."""
    from tumortrace import synthesise

    return synthesise("patches", tmp_path_factory.mktemp("tissue") / "patches", count=400, seed=3)


@pytest.fixture(scope="session")
def small_run(tissue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of the default recipe with a much smaller network. Tests must not write into it."""
    from tumortrace import train

    return train(tissue, changes=SMALL, out=tmp_path_factory.mktemp("runs"), seed=1)


@pytest.fixture(scope="module")
def few_replicates() -> Iterator[None]:
    """A short bootstrap after each training, for files that do not look at its intervals."""
    from tumortrace.evaluation.split_record import split_record

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tumortrace.training.finish.split_record", partial(split_record, replicates=20))
        yield


def renew_no_part(folder: Path) -> None:
    """In place of `renew_report`: the report of a fold or a member, which other tests look at, stays an empty file."""
    from tumortrace.records.run import Run
    from tumortrace.reports.report import renew_report

    if Run(folder).record.verb == "train":
        (folder / "report.html").write_text("")
    else:
        renew_report(folder)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images that `TUMORTRACE_DATA` names."""
    folder = os.environ.get("TUMORTRACE_DATA")
    if not folder:
        pytest.skip("TUMORTRACE_DATA is not set: no real images to test on")
    return Path(folder)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of a model hub that cannot be reached; `tests/models/hubs.py` fills it."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TUMORTRACE_WEIGHTS", str(tmp_path / "none"))
    return folder
