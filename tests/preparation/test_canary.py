"""The canary sings where there is a leak, and not elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tumortrace.cli.main import main
from tumortrace.cohorts.cohort import Cohort
from tumortrace.preparation import canary as canary_module
from tumortrace.preparation.canary import canary


def cohort(folder: Path, *, size: int = 64, padded: bool = False, copies: bool = False, ring: bool = False) -> Cohort:
    """Two hundred noisy images of 20 groups, whose labels nothing tells; or a name, copies, or the ring."""
    random = np.random.default_rng(3)
    rows = []
    for index in range(200):
        label = int(random.integers(2))
        image = random.integers(0, 255, (size, size, 3)).astype(np.uint8)
        if copies:
            image = np.random.default_rng(index % 10).integers(0, 255, (size, size, 3)).astype(np.uint8)
        if ring and label:
            image[:10] = image[:10] // 2
        name = f"{'tumour-' if padded and label else ''}{random.integers(10**6):06d}.png"
        Image.fromarray(image).save(folder / name)
        rows.append({"id": str(index), "path": str(folder / name), "label": label, "group": f"g{index % 20}"})
    return Cohort("mine", "table", pd.DataFrame(rows).assign(split=None))


def told(found: Cohort) -> dict[str, str]:
    return {finding.name: finding.verdict for finding in canary(found, seed=1)}


def test_nothing_sings_where_nothing_leaks(tmp_path: Path) -> None:
    """Random labels, random images: four notes."""
    assert told(cohort(tmp_path)) == {
        "canary-shuffled": "note", "canary-file": "note", "canary-group": "note", "canary-ring": "note",
    }  # fmt: skip


def test_a_name_that_tells_the_label(tmp_path: Path) -> None:
    """Names of one class are longer: a warning."""
    assert told(cohort(tmp_path, padded=True))["canary-file"] == "warning"


def test_groups_that_tell_the_label(tmp_path: Path) -> None:
    """Groups of one class each: a warning, and only there."""
    mine = cohort(tmp_path)
    table = mine.table.assign(group="g" + (mine.table["label"] * 10 + mine.table.index % 10).astype(str))
    assert told(Cohort("mine", "table", table))["canary-group"] == "warning"


def test_the_ring_is_told_apart_from_the_centre(tmp_path: Path) -> None:
    """A dark edge of the positives is found outside of the centre and not in it."""
    found = {finding.name: finding.message for finding in canary(cohort(tmp_path, ring=True), seed=1)}
    ring, centre = (float(part.split()[0]) for part in found["canary-ring"].split("AUROC ")[1:])
    assert ring > 0.95
    assert centre < 0.7


def test_shuffled_labels_that_can_be_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a shuffle gives copies of a picture in all groups the same label, it can be learnt: an error."""
    alike = np.arange(200) % 10 % 2
    monkeypatch.setattr(canary_module, "draw_sample", lambda rows, count, seed: rows)
    monkeypatch.setattr(canary_module, "_shuffle", lambda labels, seed: alike)
    assert told(cohort(tmp_path, copies=True))["canary-shuffled"] == "error"


def test_a_damaged_image_is_left_out_and_counted(tmp_path: Path) -> None:
    """One that is cut off and one that is missing cost no more than themselves."""
    mine = cohort(tmp_path)
    first, second = (Path(path) for path in mine.table["path"][:2])
    first.write_bytes(first.read_bytes()[:200])
    second.unlink()
    found = {finding.name: finding for finding in canary(mine, seed=1)}
    assert found["canary-left-out"].count == 2
    assert "canary-shuffled" in found


def test_the_audit_is_written_whatever_the_probe_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check --probe` on a folder with a damaged image, and where the probe itself fails: audit.json is there."""
    data = tmp_path / "data"
    for label in ("benign", "tumour"):
        (data / label).mkdir(parents=True)
        for number in range(24):
            pixels = np.random.default_rng(number).integers(0, 255, (48, 48, 3), np.uint8)
            Image.fromarray(pixels).save(data / label / f"{label}{number}.png")
    broken = data / "tumour" / "tumour3.png"
    broken.write_bytes(broken.read_bytes()[:300])
    with pytest.raises(SystemExit):
        main(["check", str(data), "--probe", "-o", str(tmp_path / "a")])
    names = {finding["name"] for finding in json.loads((tmp_path / "a" / "audit.json").read_text())["findings"]}
    assert {"canary-left-out", "canary-shuffled"} <= names

    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("tumortrace.cli.check.canary", fails)
    with pytest.raises(SystemExit):
        main(["check", str(data), "--probe", "-o", str(tmp_path / "b")])
    names = {finding["name"] for finding in json.loads((tmp_path / "b" / "audit.json").read_text())["findings"]}
    assert "canary-failed" in names
