"""The verb `embed` against timm's own features."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import timm
import torch

from tests.models.hubs import publish
from tests.models.test_foundation import FORMS
from tumortrace import open_cohort, synthesise
from tumortrace.cli.main import run as command
from tumortrace.cohorts.store import open_store
from tumortrace.models.architecture import Network
from tumortrace.training.embed import embed

pytestmark = pytest.mark.painted


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen patches."""
    return synthesise("patches", tmp_path_factory.mktemp("embed") / "patches", count=16, seed=5)


@pytest.mark.parametrize("suffix", [".parquet", ".h5"])
def test_embeddings_are_the_bodys(
    data: Path,
    tmp_path: Path,
    suffix: str,
    hub_cache: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the command, in the cohort's order, from a hub's cache, normalised as the table says."""
    architecture, options, classes = FORMS["h-optimus-0"]
    options = options | {"img_size": 224, "patch_size": 56}
    body = publish(hub_cache, "bioptimus/H-optimus-0", architecture, options, classes=classes)
    out = tmp_path / f"embeddings{suffix}"
    assert command(["embed", str(data), "--body", "h-optimus-0", "-o", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    cohort = open_cohort(data)
    if suffix == ".parquet":
        table = pd.read_parquet(out)
        assert table["id"].tolist() == cohort.table["id"].tolist()
        assert table["label"].tolist() == cohort.table["label"].tolist()
        found, about = np.stack(table["embedding"]), pq.read_schema(out).metadata[b"tumortrace"]
    else:
        with h5py.File(out) as file:
            assert file["id"].asstr()[:].tolist() == cohort.table["id"].tolist()
            assert file["label"][:].tolist() == cohort.table["label"].tolist()
            found, about = file["features"][:], file.attrs["tumortrace"]
    record = json.loads(about)
    assert record["weights"]["licence"].startswith("Apache-2.0")
    assert record["preprocessing"]["size"] == 224
    images = torch.from_numpy(np.array(open_store(cohort).images)).permute(0, 3, 1, 2) / 255
    sized = torch.nn.functional.interpolate(images, (224, 224), mode="bicubic", antialias=True).clamp(0, 1)
    figures = record["preprocessing"]["normalisation"]
    mean, std = (torch.tensor(figures[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        expected = body((sized - mean) / std).numpy()  # type: ignore[operator]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_what_was_computed_is_kept(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second export runs no image through the body."""
    given = {"body": "resnet18", "weights": "random", "changes": ["preprocessing.size=32"]}
    first = embed(data, out=tmp_path / "a.parquet", **given)

    def fails(*_: object) -> None:
        raise AssertionError("computed anew")

    monkeypatch.setattr(Network, "features", fails)
    second = embed(data, out=tmp_path / "b.parquet", **given)
    for one, two in zip(pd.read_parquet(first)["embedding"], pd.read_parquet(second)["embedding"], strict=True):
        assert np.array_equal(one, two)
    assert len(pd.read_parquet(first)["embedding"][0]) == timm.create_model("resnet18").num_features


def test_a_map_of_the_embeddings(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A picture of all images, also of those without a label; another ending is refused before any work."""
    words = ["embed", str(data), "--body", "resnet18", "--weights", "random", "--set", "preprocessing.size=32"]
    words += ["-o", str(tmp_path / "e.parquet"), "--chart"]
    assert command([*words, str(tmp_path / "map.svg")]) == 0
    drawn = (tmp_path / "map.svg").read_text()
    assert drawn.count("<use ") >= 16
    assert "tumour" in drawn or "<path" in drawn
    assert command([*words, str(tmp_path / "map.gif")]) == 1
    assert ".png or .svg" in capsys.readouterr().err


def test_another_ending_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before any work."""
    assert command(["embed", str(data), "--body", "resnet18", "-o", str(tmp_path / "e.csv")]) == 1
    assert ".parquet or .h5" in capsys.readouterr().err
