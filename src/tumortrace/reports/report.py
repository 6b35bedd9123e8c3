"""The HTML report and the model card of a run, from what its folder has on record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from markupsafe import Markup

from tumortrace.errors import RunError, TumorTraceError
from tumortrace.records.files import write_text
from tumortrace.records.lock import locked
from tumortrace.records.progress import say
from tumortrace.records.run import RunRecord
from tumortrace.reports.checklist import CHECKLISTS, fill
from tumortrace.reports.crossval import write_crossval_report
from tumortrace.reports.drawing import draw_figures
from tumortrace.reports.learning_curve import write_learning_curve_report
from tumortrace.reports.page import REPORT, embed_figures, render
from tumortrace.reports.records import read_records
from tumortrace.reports.sections import DRAWINGS, SECTIONS
from tumortrace.reports.sections.centres import tell_centres
from tumortrace.reports.sections.performance import tell_elsewhere
from tumortrace.reports.story import story, tell_worth
from tumortrace.reports.tuning import write_tuning_report

LOCK = ".report.lock"
TRAINED = ("train", "ensemble")  # verbs whose folder is a run, with a model card


def report(folder: str | Path) -> Path:
    """Tell a report anew, with what has come since; a run's model card as well. Nothing is computed but figures.

    Args:
        folder: Of a run, an ensemble, an evaluation, a cross-validation, a learning curve or a search.

    Returns:
        Path of the HTML file, in the folder.

    Raises:
        RunError: It is none of these, or a record is damaged.
    """
    folder = Path(folder)
    verb = read_records(folder).run.verb
    if verb not in WRITERS:
        raise RunError(
            f"records of {verb!r}" if verb else "no verb on record",
            where=folder,
            expected=f"a folder that one of these made: {', '.join(WRITERS)}",
            remedy="name such a folder; other reports are written by their own verbs",
        )
    with locked(folder / LOCK):  # who tells it last has read everything
        page = WRITERS[verb](folder)
        if verb in TRAINED:
            write_model_card(folder)
    return page


def renew_report(run: Path, written: Path | None = None) -> Path | None:
    """Tell the report of a run (see `report`) anew, once records of it have been written.

    Those stay a success whatever becomes of this: a report that cannot be told is a note. Commands that end at the same
    time wait for each other, so that the last report shows what all of them have written.

    Args:
        run: Folder; nothing is done where it has no such report.
        written: What a verb has written; nothing is done where it lies elsewhere. None for the run's own records.

    Returns:
        Path of report.html; None where it was not told.
    """
    if written is not None and not written.resolve().is_relative_to(run.resolve()):
        return None
    try:
        record = RunRecord.find(run)
        if record is None or record.verb not in WRITERS:
            return None
        page = report(run)
    except Exception as error:  # whatever it is: what has been measured stands, and is worth more than its report
        why = str(error) if isinstance(error, TumorTraceError) else f"{type(error).__name__}: {error}"
        if isinstance(error, OSError) and error.strerror:  # a quoted path would be cut as a value is
            why = f"{error.strerror}: {error.filename2 or error.filename}"
        why = " ".join(why.split())
        say(f"note: the report of the run could not be told: {why}; `tumortrace report {run}` tells it anew")
        return None
    say(f"report: {page}")
    return page


def write_report(run: Path) -> Path:
    """Write report.html: one file that tells the story of a run and opens anywhere, offline and without scripts.

    Its figures are drawn afresh (see `draw_figures`), so that they never disagree with the numbers. Its sections are
    those of `tumortrace.reports.sections`, in order; what no record holds is left out or called not available.

    Args:
        run: The run folder.

    Returns:
        Path of report.html, in the run folder.

    Raises:
        RunError: There is no such run, or a record is damaged.

    Example:
        >>> import tempfile
        >>> run = Path(tempfile.mkdtemp())
        >>> _ = (run / "metrics.json").write_text('{"test": {"n": 9, "auroc": {"value": 0.9, "ci95": null}}}')
        >>> "AUROC .900 on 9 test images" in write_report(run).read_text("utf-8")
        True
    """
    run = Path(run)
    records = read_records(run)
    told = story(records) | embed_figures(draw_figures(run, DRAWINGS, records))
    shown = []
    for section in SECTIONS:
        context = section.tell(records)
        if context is not None:
            shown.append((section, Markup(render(section.template, **(told | context)))))
    write_text(run / REPORT, render("report.html.j2", sections=shown, **told))
    return run / REPORT


def write_model_card(run: Path) -> Path:
    """Write model_card.md: what the model of a run is for, how well it does, and where it must not be trusted.

    It ends with the items of TRIPOD+AI (Collins et al. 2024) and CLAIM (Tejani et al. 2024), as far as the records
    answer them. Write the report first: the card names its figures.

    Args:
        run: The run folder.

    Returns:
        Path of model_card.md, in the run folder.

    Raises:
        RunError: There is no such run, or a record is damaged.

    Example:
        >>> import tempfile
        >>> run = Path(tempfile.mkdtemp())
        >>> _ = (run / "run.json").write_text('{"name": "first"}')
        >>> write_model_card(run).read_text("utf-8").splitlines()[0]
        '# Model card: first'
    """
    run = Path(run)
    records = read_records(run)
    told = story(records)
    page = render(
        "model_card.md.j2",
        **told,
        **(tell_worth(records) or {}),
        **(tell_elsewhere(records) or {}),
        **(tell_centres(records) or {}),
        checklists=[fill(name, records, told) for name in CHECKLISTS],
    )
    write_text(run / "model_card.md", page)
    return run / "model_card.md"


#: What writes the report of a folder, by the verb that made it; looked up when it is called, as tests replace some.
WRITERS: dict[str, Callable[[Path], Path]] = {
    **dict.fromkeys((*TRAINED, "evaluate"), lambda folder: write_report(folder)),
    "crossval": write_crossval_report,
    "learning-curve": write_learning_curve_report,
    "tune": write_tuning_report,
}
