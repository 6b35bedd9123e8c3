"""Recorded command lines run when they are pasted into a shell."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tumortrace.records.command import command_line

HARD = ["my data", "it's", 'say "so"', "a$b", "model.arguments.head=[{dense: 8}]", "-5", ""]


@pytest.mark.parametrize("word", HARD)
def test_a_shell_gives_every_word_back(word: str) -> None:
    """As a path and as the value of an option."""
    line = command_line("train", Path("data") / word, recipe=word, set=[word, word])
    assert shlex.split(line) == [
        *("tumortrace", "train", str(Path("data") / word), "--recipe", word, "--set", word, "--set", word)
    ]


def test_what_was_not_given_is_left_out() -> None:
    """None, False and nothing; 0 was given. An opened cohort cannot be named."""
    line = command_line("crossval", None, positive=None, keep_test=False, allow=[], seed=0, strict=True)
    assert line == "tumortrace crossval COHORT --seed 0 --strict"
