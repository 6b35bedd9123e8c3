"""What every record does: refuse a damaged file by name and field, keep what it does not know, write whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tumortrace.errors import RunError
from tumortrace.records.data import PreparedRecord
from tumortrace.records.metrics import Metrics
from tumortrace.records.run import Run, RunRecord, create_run


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "run.json: not readable as JSON"),
        ("[1]", "run.json: not a record; expected a JSON object"),
        ('{"data": {"images": "many"}}', "run.json: field data.images: "),
        ('{"data": {"splits": {"train": {}}}}', "run.json: field data.splits.train.images: "),
        ('{"arguments": {"set": [1]}}', "run.json: field arguments.set.0: "),
    ],
)
def test_a_damaged_file_is_told_by_name_and_field(content: str, told: str, tmp_path: Path) -> None:
    """In one line; where a record may be missing as well as where it must be there."""
    (tmp_path / "run.json").write_text(content)
    for read in (RunRecord.read, RunRecord.find):
        with pytest.raises(RunError, match=told.replace("[", r"\[")) as refusal:
            read(tmp_path)
        assert "\n" not in str(refusal.value)
    assert RunRecord.recognise(tmp_path) is None


def test_a_missing_file(tmp_path: Path) -> None:
    """Is refused by what the folder then is not, or is None."""
    with pytest.raises(RunError, match=r"not a run folder: it has no run\.json"):
        Run(tmp_path).record  # noqa: B018
    with pytest.raises(RunError, match=r"not a folder of prepared images: it has no prepared\.json"):
        PreparedRecord.read(tmp_path / "nowhere")
    assert RunRecord.find(tmp_path / "nowhere") is None
    assert not RunRecord.exists(tmp_path)


def test_what_this_version_does_not_know_is_kept(tmp_path: Path) -> None:
    """On every floor of a record, also when a field of it is changed; what was not given is not made up."""
    content = {"verb": "train", "colour": "blue", "data": {"name": "a", "smell": ["none"]}, "arguments": {"later": 1}}
    (tmp_path / "run.json").write_text(json.dumps(content))
    Run(tmp_path).update(status="finished")
    assert json.loads((tmp_path / "run.json").read_text()) == content | {"status": "finished"}


def test_an_update_of_the_wrong_kind_changes_nothing(tmp_path: Path) -> None:
    """It is refused before the file is touched."""
    run = create_run(tmp_path, "a", RunRecord(verb="train"))
    before = run.record_file.read_bytes()
    with pytest.raises(ValueError, match="duration_s"):
        run.update(duration_s="long")
    assert run.record_file.read_bytes() == before


def test_a_number_that_is_none_is_refused_on_writing_and_undefined_on_reading(tmp_path: Path) -> None:
    """JSON has no NaN: ours never hold one, those of others mean by it that there is no value."""
    entry = {"test": {"auroc": {"value": float("nan"), "ci95": None}}}
    with pytest.raises(ValueError, match="JSON"):
        Metrics.model_validate(entry).write(tmp_path)
    assert not Metrics.exists(tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps(entry))
    assert Metrics.read(tmp_path)["test"]["auroc"].value is None
