"""Folders as users of this field have them: classes, splits, patients, copies, and what the system leaves in them."""

from __future__ import annotations

import os

import pytest

from tumortrace.errors import LONGEST, CohortError, shortened
from tumortrace.records.progress import say


def test_huge_values_are_cut_in_every_message(capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes, text with blanks, a word: 80 characters of each; paths and prose stay."""
    values = [os.urandom(200_000), "the specimen shows " * 5000, {"bytes": os.urandom(200_000), "path": None}]
    for value in values:
        error = CohortError(f"line 2, column 'image': {value!r}", where="x.parquet", expected=repr(value))
        assert len(str(error)) < 300
        assert "..." in str(error)
        say(f"note: {value!r} was found")
    assert max(map(len, capsys.readouterr().err.splitlines())) < 200
    for attack in ("'" * 200_001, "'\\" * 100_000, "\\'" * 100_000, "a' " * 60_000, "x" * 200_000):
        assert len(shortened(attack)) < 2100
    assert shortened(f"{'x' * 200} here") == f"{'x' * LONGEST}... here"
    prose = f"the run's own record of {'/folder/name' * 15} and the data's are the user's own, as the model's"
    assert shortened(prose) == prose
