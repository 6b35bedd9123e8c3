"""The file of corrections: appended line by line, never losing what was answered, opening as a cohort."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tumortrace.app.corrections import COLUMNS, Correction, Corrections
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.errors import DataError

GIVEN = Correction("a", "/data/a.png", "tumour", "s1", "", "normal", "0.52", "cnn", "", "2026-11-21T14:12:00Z")

# Gives labels without end (or as many as asked for), saying which have been answered.
WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from tumortrace.app.corrections import Correction, Corrections
file, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
row = Correction("", "/data/a.png", "tumour", "s1", "", "", "0.52", "cnn", name, "2026-11-21T14:12:00Z")
corrections = Corrections(file)
for number in range(count):
    corrections.give(replace(row, id=f"{name}-{number}"))
    print(f"{name}-{number}", flush=True)
"""


def start_writer(file: Path, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(file), name, str(count)], stdout=subprocess.PIPE, text=True
    )


def ids_in(file: Path) -> list[str]:
    """Ids in the file, read with the standard library alone."""
    with open(file, newline="") as lines:
        return [row["id"] for row in csv.DictReader(lines, strict=True)]


def test_labels_are_lines_under_one_header(tmp_path: Path) -> None:
    """Each label is one line, under the names of the columns, with quotes where a name needs them."""
    corrections = Corrections(tmp_path / "c.csv")
    corrections.give(GIVEN)
    corrections.give(replace(GIVEN, id='b, "c"', label="normal"))
    assert (tmp_path / "c.csv").read_text() == (
        ",".join(COLUMNS) + "\n"
        "a,/data/a.png,tumour,s1,,normal,0.52,cnn,,2026-11-21T14:12:00Z\n"
        '"b, ""c""",/data/a.png,normal,s1,,normal,0.52,cnn,,2026-11-21T14:12:00Z\n'
    )


def test_appending_leaves_what_stands_untouched(tmp_path: Path) -> None:
    """A further label lengthens the file; it does not write the earlier ones again."""
    corrections = Corrections(tmp_path / "c.csv")
    corrections.give(GIVEN)
    before, inode = (tmp_path / "c.csv").read_bytes(), os.stat(tmp_path / "c.csv").st_ino
    corrections.give(replace(GIVEN, id="b"))
    assert (tmp_path / "c.csv").read_bytes().startswith(before)
    assert os.stat(tmp_path / "c.csv").st_ino == inode


def test_a_change_and_taking_back_keep_one_row_per_image(tmp_path: Path) -> None:
    """A label changed replaces the earlier one, and one taken back is gone, for others who read the file too."""
    corrections = Corrections(tmp_path / "c.csv")
    corrections.give(GIVEN)
    corrections.give(replace(GIVEN, id="b"))
    corrections.give(replace(GIVEN, label="normal"), expected="tumour")
    assert {row.id: row.label for row in Corrections(tmp_path / "c.csv").given().values()} == {
        "a": "normal",
        "b": "tumour",
    }
    assert corrections.take_back("b") == replace(GIVEN, id="b")
    assert corrections.take_back("b") is None
    assert ids_in(tmp_path / "c.csv") == ["a"]


def test_two_reviewers_of_one_image_do_not_overwrite_each_other(tmp_path: Path) -> None:
    """Who did not know of another's label gets to see it, and it stands."""
    one, two = Corrections(tmp_path / "c.csv"), Corrections(tmp_path / "c.csv")
    one.give(GIVEN)
    other = replace(GIVEN, label="normal")
    assert two.give(other) == GIVEN
    assert two.given()["a"] == GIVEN
    assert two.take_back("a", expected="normal") is None
    assert two.give(other, expected="tumour") == other
    assert one.given()["a"].label == "normal"


def test_a_line_torn_anywhere_costs_only_itself(tmp_path: Path) -> None:
    """However much of the last line reached the disk, the lines before stand, and labels can be given again."""
    file = tmp_path / "c.csv"
    corrections = Corrections(file)
    corrections.give(GIVEN)
    whole = len(file.read_bytes())
    corrections.give(replace(GIVEN, id="bé"))
    content = file.read_bytes()
    for end in range(whole, len(content) + 1):
        file.unlink()
        file.write_bytes(content[:end])
        again = Corrections(file)
        assert list(again.given()) == (["a", "bé"] if end >= len(content) - 1 else ["a"]), content[whole:end]
        again.give(replace(GIVEN, id="c"))
        assert ids_in(file)[0] == "a"
        assert ids_in(file)[-1] == "c"


def test_nothing_answered_is_lost_by_a_kill(tmp_path: Path) -> None:
    """After `kill -9` while labels are given, the file holds every one that was answered."""
    file = tmp_path / "c.csv"
    writer = start_writer(file, "w", 1_000_000)
    assert writer.stdout is not None
    answered = [writer.stdout.readline().strip() for _ in range(25)]
    writer.send_signal(signal.SIGKILL)
    answered += writer.stdout.read().split()
    writer.wait()
    kept = list(Corrections(file).given())
    assert kept[: len(answered)] == answered
    assert len(kept) - len(answered) in (0, 1)


def test_processes_at_once_do_not_mix_their_lines(tmp_path: Path) -> None:
    """Three processes that append to one file leave every line of all three, whole."""
    file = tmp_path / "c.csv"
    writers = [start_writer(file, name, 40) for name in "xyz"]
    for writer in writers:
        writer.communicate(timeout=60)
    assert sorted(ids_in(file)) == sorted(f"{name}-{number}" for name in "xyz" for number in range(40))


def test_a_full_disk_is_told_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a line cannot be flushed, the caller hears of it and the file is as before."""
    corrections = Corrections(tmp_path / "c.csv")
    corrections.give(GIVEN)
    before = (tmp_path / "c.csv").read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            corrections.give(replace(GIVEN, id="b"))
    assert (tmp_path / "c.csv").read_bytes() == before
    assert list(corrections.given()) == ["a"]


def test_a_file_edited_meanwhile_is_read_again(tmp_path: Path) -> None:
    """What someone changed with an editor counts, line ends of spreadsheets included."""
    file = tmp_path / "c.csv"
    corrections = Corrections(file)
    corrections.give(GIVEN)
    time.sleep(0.01)
    file.write_bytes(file.read_bytes().replace(b"tumour", b"normal").replace(b"\n", b"\r\n").rstrip())
    assert corrections.given()["a"].label == "normal"
    corrections.give(replace(GIVEN, id="b"))
    assert ids_in(file) == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"id,label\na,1\n", "not a file of corrections"),
        (",".join(COLUMNS).encode() + b"\na,b\n", "line 2 has 2 fields"),
        (b"\xff\xfe\x00", "not readable"),
    ],
)
def test_a_file_that_is_something_else_is_refused_and_left_alone(tmp_path: Path, content: bytes, said: str) -> None:
    """It is refused in one line that says what to do, and not written over."""
    file = tmp_path / "c.csv"
    file.write_bytes(content)
    with pytest.raises(DataError, match=said) as refusal:
        Corrections(file)
    assert "What to do" in str(refusal.value)
    assert file.read_bytes() == content


def test_the_file_opens_as_a_cohort(tissue: Path, tmp_path: Path) -> None:
    """`open_cohort` reads labels, slides and pictures from it."""
    source = open_cohort(tissue).table.iloc[:6]
    corrections = Corrections(tmp_path / "c.csv")
    for number, row in enumerate(source.itertuples()):
        label = "tumour" if number % 2 else "normal"
        corrections.give(replace(GIVEN, id=row.id, path=row.path, group=row.group, label=label))
    cohort = open_cohort(tmp_path / "c.csv")
    assert cohort.classes == ("normal", "tumour")
    assert cohort.table["label"].tolist() == [0, 1, 0, 1, 0, 1]
    for column in ("id", "path", "group"):
        assert cohort.table[column].tolist() == source[column].tolist()
