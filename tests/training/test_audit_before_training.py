"""`train` looks at the data first and refuses errors, unless they are allowed, on record."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import SMALL
from tumortrace import open_cohort, resume, train
from tumortrace.errors import DataError, RecipeError

pytestmark = pytest.mark.usefixtures("few_replicates")


@pytest.fixture
def contradicted(tissue: Path, tmp_path: Path) -> Path:
    """A copy of the tissue in which one picture of each class is also there with the other label."""
    folder = tmp_path / "copies"
    shutil.copytree(tissue, folder)
    table = open_cohort(folder).table
    rows = [table[table["label"] == label].iloc[0] for label in (0, 1)]
    extra = pd.DataFrame(
        [{"id": f"copy{row.label}", "path": row.path, "label": 1 - row.label, "group": row.group} for row in rows]
    )
    both = pd.concat([table[["id", "path", "label", "group"]], extra], ignore_index=True)
    both.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


def test_errors_are_refused_and_can_be_allowed(contradicted: Path, tmp_path: Path) -> None:
    """The same picture with both labels: one line names the finding and the flag; no run folder is made."""
    options = {"changes": SMALL, "epochs": 1, "out": tmp_path / "runs"}
    with pytest.raises(DataError, match=r"--allow \S+") as refused:
        train(contradicted, **options)
    assert not (tmp_path / "runs").exists()
    names = re.findall(r"--allow ([\w-]+)", str(refused.value))
    run = train(contradicted, allow=names, **options)
    record = json.loads((run / "run.json").read_text())
    assert record["audit"]["allowed"] == names == ["copies-conflict"]
    assert all(f"--allow {name}" in record["command"] for name in names)
    assert any("which is allowed" in note for note in record["data"]["notes"])


def test_clean_data_are_on_record_too(small_run: Path) -> None:
    """A run says what the audit found, here nothing that is wrong."""
    audit = json.loads((small_run / "run.json").read_text())["audit"]
    assert audit["allowed"] == []
    assert not [finding for finding in audit["findings"] if finding["verdict"] == "error"]


def test_a_list_of_images_is_left_out(tissue: Path, tmp_path: Path) -> None:
    """They stand in no split and the run says how many; resuming leaves them out again; no list is refused."""
    ids = open_cohort(tissue).table["id"][:7]
    ids.to_frame().to_csv(tmp_path / "quarantine.csv", index=False)
    changes = [*SMALL, f"leave_out={tmp_path / 'quarantine.csv'}"]
    run = train(tissue, changes=changes, epochs=1, out=tmp_path / "runs")
    assert not set(pd.read_csv(run / "splits.csv", dtype=str)["id"]) & set(ids)
    notes = json.loads((run / "run.json").read_text())["data"]["notes"]
    assert "7 of 400 images are left out, as quarantine.csv says" in notes
    (run / "report.html").unlink()
    assert resume(run) == run
    (tmp_path / "none.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RecipeError, match="column id"):
        train(tissue, changes=[*SMALL, f"leave_out={tmp_path / 'none.csv'}"], out=tmp_path / "runs")
