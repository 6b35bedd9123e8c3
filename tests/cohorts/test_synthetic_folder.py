"""Specs, the cache, and folders that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tumortrace.cohorts.synthetic import cached_synthetic, open_synthetic, parse_synthetic, synthesise
from tumortrace.errors import CohortError


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("synthetic:patches", ("patches", 2000, 0)),
        ("synthetic:mri?seed=4", ("mri", 2000, 4)),
        ("synthetic:patches?count=200&seed=1", ("patches", 200, 1)),
    ],
)
def test_a_spec_is_read(spec: str, expected: tuple[str, int, int]) -> None:
    """Kind, count and seed, with defaults for what is not said."""
    assert parse_synthetic(spec) == expected


@pytest.mark.parametrize(
    "spec",
    [
        "synthetic:",
        "synthetic:slide",
        "synthetic:cats",
        "patches",
        "synthetic:patches?count=ten",
        "synthetic:patches?count=-5",
        "synthetic:patches?count=3",
        "synthetic:patches?count=99999999999",
        "synthetic:patches?sed=1",
        "synthetic:patches?count=20&count=30",
        "synthetic:patches?count=20&",
    ],
)
def test_a_spec_with_a_mistake_is_refused(spec: str) -> None:
    """Nothing is guessed: one line says what can be written."""
    with pytest.raises(CohortError, match="What to do"):
        parse_synthetic(spec)


def test_arguments_out_of_range_are_refused(tmp_path: Path) -> None:
    """Unknown kind, too few pictures, negative seed; nothing is written."""
    for arguments in ({"kind": "cats"}, {"kind": "patches", "count": 3}, {"kind": "patches", "seed": -1}):
        with pytest.raises(CohortError, match="expected"):
            synthesise(out=tmp_path / "x", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_the_user_is_refused_and_kept(tmp_path: Path) -> None:
    """A folder that holds anything but a synthetic cohort, and a file, stay as they are."""
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "cohort.json").write_text('{"layout": "table"}')
    with pytest.raises(CohortError, match="not empty"):
        synthesise("patches", tmp_path, count=16)
    with pytest.raises(CohortError, match="is a file"):
        synthesise("patches", tmp_path / "notes.txt", count=16)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cohort.json", "notes.txt"]


def test_a_synthetic_folder_is_written_over_and_the_users_files_in_it_stay(tmp_path: Path) -> None:
    """A smaller cohort leaves none of the larger one's pictures behind; a note beside them is kept."""
    synthesise("patches", tmp_path / "a", count=24)
    (tmp_path / "a" / "notes.txt").write_text("mine")
    synthesise("mri", tmp_path / "a", count=16)
    assert len(list((tmp_path / "a").rglob("*.png"))) == 16
    assert not (tmp_path / "a" / "patches").exists()
    assert (tmp_path / "a" / "notes.txt").read_text() == "mine"


def test_half_a_folder_is_not_taken_as_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing that is interrupted leaves no cohort.json; opening says so; writing again mends it."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tumortrace.records.tables.Table.write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        synthesise("patches", tmp_path / "a", count=16)
    assert not (tmp_path / "a" / "cohort.json").exists()
    with pytest.raises(CohortError, match="not finished"):
        open_synthetic(tmp_path / "a")
    monkeypatch.undo()
    assert len(open_synthetic(synthesise("patches", tmp_path / "a", count=16))) == 16


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    """An empty picture, a table without labels, a record that is no JSON: each is one clear line."""
    out = synthesise("patches", tmp_path / "a", count=16)
    picture = next((out / "patches").iterdir())
    kept = picture.read_bytes()
    picture.write_bytes(b"")
    with pytest.raises(CohortError, match="missing or empty"):
        open_synthetic(out)
    picture.write_bytes(kept)
    for name, content in (("cohort.csv", "id,path\n1,2\n"), ("cohort.csv", ""), ("cohort.json", "{")):
        kept = (out / name).read_bytes()
        (out / name).write_text(content)
        with pytest.raises(CohortError, match="write it again"):
            open_synthetic(out)
        (out / name).write_bytes(kept)
    assert len(open_synthetic(out)) == 16


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file where a folder is needed, for `out` and for the cache."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CohortError, match="cannot be written"):
        synthesise("patches", tmp_path / "file" / "a", count=16)
    monkeypatch.setenv("TUMORTRACE_CACHE", str(tmp_path / "file"))
    with pytest.raises(CohortError, match="cannot be written"):
        cached_synthetic("patches", 16)


def test_the_cache_draws_once_and_mends_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second request touches nothing; a damaged cache is drawn again; no temporary folder stays."""
    monkeypatch.setenv("TUMORTRACE_CACHE", str(tmp_path))
    first = cached_synthetic("patches", 16, 5)
    assert first.is_relative_to(tmp_path)
    picture = next((first / "patches").iterdir())
    before = picture.stat().st_mtime_ns
    assert cached_synthetic("patches", 16, 5) == first
    assert picture.stat().st_mtime_ns == before
    picture.unlink()
    assert len(open_synthetic(cached_synthetic("patches", 16, 5))) == 16
    assert len(list(first.parent.iterdir())) == 1
    record = json.loads((first / "cohort.json").read_text())
    assert (record["layout"], record["kind"], record["seed"], record["count"]) == ("synthetic", "patches", 5, 16)
