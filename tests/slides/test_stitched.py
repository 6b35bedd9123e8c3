"""A slide stitched from patches: its map says of each what `predict` says of the patch by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from sklearn.metrics import roc_auc_score

from tests.models.test_dense import model_of
from tests.situations.test_slide_tiles import COLUMNS, ROWS, SIDE, stitched
from tumortrace.inference.predict import predict
from tumortrace.slides.scan import scan


def test_the_map_is_what_predict_says_of_the_patches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To 1e-6, and so the AUROC; the tissue in tiles is the area that was stitched."""
    monkeypatch.setattr("tumortrace.slides.scan.draw_heatmap", lambda target, *_, **__: target.write_bytes(b"picture"))
    slide, labels = stitched(tmp_path / "slides")
    pixels, model = tifffile.imread(slide), model_of(resolution=0.5)
    for y, x in np.ndindex(ROWS, COLUMNS):
        file = tmp_path / "patches" / ("tumour" if labels[y, x] else "normal") / f"{x * SIDE}_{y * SIDE}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[y * SIDE : (y + 1) * SIDE, x * SIDE : (x + 1) * SIDE]).save(file)
    result = scan(tmp_path, slide, out=tmp_path / "scan", model=model, minimum_tissue=0.0, renew=False)
    said = predict(model, tmp_path / "patches").set_index("id")["probability"]
    by_place = {Path(str(name)).stem: value for name, value in said.items()}
    alone = np.array([by_place[f"{x}_{y}"] for x, y in zip(result.tiles["x"], result.tiles["y"], strict=True)])
    assert len(alone) == ROWS * COLUMNS
    assert np.abs(alone - result.tiles["probability"]).max() < 1e-6
    truth = labels[result.tiles["y"] // SIDE, result.tiles["x"] // SIDE]
    assert roc_auc_score(truth, alone) == pytest.approx(roc_auc_score(truth, result.tiles["probability"]), abs=1e-6)
    positive = int(result.tiles["prediction"].sum())
    area = float((result.tiles["tissue"] * result.tiles["prediction"]).sum()) * (SIDE * 0.5) ** 2 / 1e6
    assert result.record.tumour.mm2.value == pytest.approx(area, abs=1e-4)
    assert result.record.positive_tiles == positive
