"""One training on Parquet, and the same pictures in other containers predicted: the container changes nothing."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.conftest import SMALL
from tests.situations.test_layouts_shards import example, framed
from tumortrace.cli.main import run
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.images.decoding import read_image

pytestmark = pytest.mark.usefixtures("few_replicates")


def png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def containers(root: Path, pictures: list[np.ndarray], classes: list[str], groups: list[str]) -> dict[str, Path]:
    """The same pictures in each container."""
    encoded = [png(picture) for picture in pictures]
    names = sorted(set(classes))
    labels = [names.index(name) for name in classes]
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    (root / "parquet").mkdir()
    table = pa.table(
        {
            "image": [{"bytes": content, "path": None} for content in encoded],
            "label": labels,
            "slide": groups,
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, root / "parquet" / "images.parquet", row_group_size=50)
    with tarfile.open(root / "shard.tar", "w") as archive:
        for row, content in enumerate(encoded):
            for ending, data in (("png", content), ("json", json.dumps({"label": classes[row]}).encode())):
                entry = tarfile.TarInfo(f"{row:06d}.{ending}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    records = [
        framed(example(image=content, label=names.index(name))) for content, name in zip(encoded, classes, strict=True)
    ]
    (root / "a.tfrecord").write_bytes(b"".join(records))
    with h5py.File(root / "s1.h5", "w") as handle:
        handle["imgs"] = np.stack(pictures)
        handle["coords"] = np.stack([np.arange(len(pictures)), np.arange(len(pictures))], axis=1)
    return {"webdataset": root / "shard.tar", "tfrecord": root / "a.tfrecord", "slide-patches": root / "s1.h5"}


def test_the_container_changes_nothing(tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained on Parquet of three classes, of which two count as tumour; predicted from tar, TFRecord and HDF5."""
    monkeypatch.setattr("tumortrace.training.experiment.renew_report", lambda *_: None)
    cohort = open_cohort(tissue)
    cohort = cohort.where(cohort.table.index.to_series() % 2 == 0)
    pictures = [read_image(path) for path in cohort.table["path"]]
    kinds = [("normal", "benign") if label == 0 else ("insitu", "insitu") for label in cohort.table["label"]]
    classes = [kind[number % 2] for number, kind in enumerate(kinds)]
    others = containers(tmp_path, pictures, classes, cohort.table["group"].tolist())
    options = [word for change in (*SMALL, "epochs=1") for word in ("--set", change)]
    data = str(tmp_path / "parquet")
    command = ["train", data, "--positive", "insitu", *options, "-o", str(tmp_path / "runs"), "--seed", "1"]
    assert run(command) == 0
    (folder,) = (tmp_path / "runs").glob("2*")
    arguments = json.loads((folder / "run.json").read_text())["arguments"]
    assert (arguments["positive"], arguments["merge"]) == ("insitu", [])
    tables = {}
    for layout, path in others.items():
        assert open_cohort(path, positive=None if layout == "slide-patches" else _positive(layout)).layout == layout
        out = tmp_path / f"{layout}.csv"
        reading = [] if layout == "slide-patches" else ["--positive", _positive(layout)]
        assert run(["predict", str(folder), str(path), "-o", str(out), *reading]) == 0
        tables[layout] = pd.read_csv(out)["probability"].to_numpy()
        assert len(tables[layout]) == len(pictures)
    for table in tables.values():
        np.testing.assert_allclose(table, tables["webdataset"], atol=1e-6)


def _positive(layout: str) -> str:
    return "insitu" if layout == "webdataset" else "1"  # benign 0, insitu 1, normal 2
