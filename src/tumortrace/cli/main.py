"""The command line's door: errors become one line and an exit code here, and nowhere else."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tumortrace import __version__
from tumortrace.cli.verbs import VERBS
from tumortrace.errors import TumorTraceError, shortened
from tumortrace.records.files import FULL

if TYPE_CHECKING:
    from cyclopts import App

ABOUT = "Tumour classifiers for medical image patches that one can defend. Research use only, not a medical device."

_INTERRUPTED = "interrupted; what is unfinished was not written."


def main(arguments: list[str] | None = None) -> None:
    """Run one verb and leave: 0 is success, 1 a refusal or failure with its one line, 2 a wrong call."""
    gc.disable()  # until the verb is loaded: libraries hold no garbage, and looking for it takes a sixth of the time
    try:
        with _ended_in_order():
            code = run(arguments)
    except KeyboardInterrupt:  # before the verb begins, or after it
        code = _refuse(_INTERRUPTED)
    finally:
        gc.unfreeze()  # or else libraries that count what is left at the end take it for lost, and say so
        gc.enable()
    sys.exit(code)


def run(arguments: list[str] | None = None) -> int:
    """Run one verb and return its exit code.

    Example:
        >>> run(["recipes", "none"])
        1
    """
    words = sys.argv[1:] if arguments is None else arguments
    if list(words) in ([], ["-h"], ["--help"]):
        print(listing(shutil.get_terminal_size().columns))
        return 0
    from cyclopts import CycloptsError

    try:
        code = application(words)(arguments, exit_on_error=False, result_action="return_value")
    except CycloptsError:
        return 2
    except TumorTraceError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        return _refuse(_INTERRUPTED)
    except BrokenPipeError:
        return 1
    except OSError as error:
        if error.errno is None:
            raise
        remedy = "make room, then give the same command again" if error.errno in FULL else "check the path and rights"
        return _refuse(f"{error.filename or 'the system'}: {error.strerror}. What to do: {remedy}.")
    return code if isinstance(code, int) else 0


def listing(width: int) -> str:
    """The verbs, each with what it does, in lines of `width` characters: told without the library of the other helps.

    Example:
        >>> listing(80).splitlines()[0]
        'Usage: tumortrace COMMAND [ARGS]'
    """
    wide = max(map(len, VERBS)) + 4
    rows = (
        textwrap.fill(
            verb.summary.replace("`", ""),
            max(40, width),
            initial_indent=f"  {name}".ljust(wide),
            subsequent_indent=" " * wide,
        )
        for name, verb in VERBS.items()
    )
    end = "`tumortrace COMMAND --help` tells more of each; `tumortrace --version` the version."
    return "\n".join(["Usage: tumortrace COMMAND [ARGS]", "", ABOUT, "", *rows, "", end])


def application(words: Sequence[str]) -> App:
    """The command line with the verb that the first word names, which is loaded, or else with all of them, listed."""
    from cyclopts import App, CycloptsPanel

    app = App(
        name="tumortrace",
        help=ABOUT,
        version=__version__,
        suppress_keyboard_interrupt=False,  # the door turns it into a line and exit code 1
        error_formatter=lambda error: CycloptsPanel(shortened(str(error))),
    )
    name = words[0] if words else ""
    if name in VERBS:
        from tumortrace.cli.command import command

        app.command(command(VERBS[name]), name=name)
        if not gc.isenabled():  # as the door has left it: what is loaded is not looked through again
            gc.freeze()
            gc.enable()
        return app
    for name, verb in VERBS.items():
        app.command(App(help=verb.summary), name=name)
    return app


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """A request to end (SIGTERM, of clusters and containers) is answered as Ctrl-C is: with a line, and on record.

    Processes that this one forks end at once, as they would without it.
    """
    process = os.getpid()

    def end(*_: Any) -> None:
        if os.getpid() != process:
            os._exit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _refuse(line: str) -> int:
    print(shortened(f"tumortrace: {line}"), file=sys.stderr)
    return 1
