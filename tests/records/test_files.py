"""Files appear whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tumortrace.records.files import replacing, write_csv, write_json


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """When writing fails midway, the old content stands and no temporary file is left."""
    target = tmp_path / "a.json"
    write_json(target, {"old": 1})

    def write_half() -> None:
        with replacing(target) as temporary:
            temporary.write_text('{"ne')
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert json.loads(target.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [target]


def test_json_is_strict(tmp_path: Path) -> None:
    """NaN is no JSON: refused, and nothing is written."""
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"value": float("nan")})
    assert not list(tmp_path.iterdir())


def test_csv_keeps_every_digit(tmp_path: Path) -> None:
    """Floats come back as they were."""
    table = pd.DataFrame({"value": np.random.default_rng(0).random(1000)})
    write_csv(tmp_path / "a.csv", table)
    assert [float(line) for line in (tmp_path / "a.csv").read_text().split()[1:]] == table["value"].tolist()
