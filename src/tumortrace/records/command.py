"""The command lines that records hold, so that what was done can be done again by pasting them into a shell."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from tumortrace.records.stores import told


def command_line(verb: str, *words: object, **options: object) -> str:
    """The command that a call stands for, quoted for a POSIX shell.

    Args:
        verb: Of the command line.
        words: Paths, URLs, whose signatures are left out, and names; None, an opened cohort, is written COHORT.
        options: By the names of the arguments. None, False and empty lists are left out, True is a flag, several
            values repeat the option.

    Example:
        >>> command_line("train", "my data", recipe="cnn-64", set=["seed=1", "epochs=2"], split_seed=None, quick=True)
        "tumortrace train 'my data' --recipe cnn-64 --set seed=1 --set epochs=2 --quick"
    """
    line = ["tumortrace", verb, *("COHORT" if word is None else told(str(word)) for word in words)]
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is None or value is False:
            continue
        if value is True:
            line.append(option)
        elif isinstance(value, Iterable) and not isinstance(value, str):
            for one in value:
                line += [option, told(str(one))]
        else:
            line += [option, told(str(value))]
    return shlex.join(line)
