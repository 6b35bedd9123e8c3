"""The verb `check` with its files and lines; the audit itself is `tumortrace.cohorts.audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from tumortrace.cohorts.audit import Audit
from tumortrace.cohorts.audit import check as audit
from tumortrace.cohorts.cohort import Cohort, ReadingOptions
from tumortrace.cohorts.findings import Finding, count
from tumortrace.cohorts.layouts import open_leniently
from tumortrace.cohorts.splits import Splits, assign_splits
from tumortrace.errors import RunError, SplitError
from tumortrace.preparation.canary import canary
from tumortrace.preparation.second_look import second_look
from tumortrace.records.data import AuditRecord
from tumortrace.records.output import require_own_folder, require_same_data
from tumortrace.records.progress import say
from tumortrace.records.remote import mirrored
from tumortrace.records.tables import QUARANTINE, SECOND_LOOK
from tumortrace.reports.audit import write_audit_report


def check(
    data: str,
    *,
    out: Path | None = None,
    split: str = "group",
    seed: int = 0,
    strict: bool = False,
    probe: bool = False,
    run: Path | None = None,
    **reading: Unpack[ReadingOptions],
) -> int:
    """Say what is wrong with a data set, file by file; exit code 1 when there are errors.

    Args:
        data: Any known layout.
        out: Folder for audit.json, audit.html and quarantine.csv; default `check-<name>`.
        split: The splits to look at: by slide or patient, or at random.
        seed: Seed of the splits.
        strict: Warnings fail too, for continuous integration.
        probe: Train cheap classifiers that ought to fail: on shuffled labels, on files' names and sizes, on the outer
            ring of the images; and tell what they reach.
        run: Folder of a cross-validation of these data: rank the labels that it contradicts, into second_look.csv.
        **reading: How the data are read: options of `open_cohort`.
    """
    source = open_leniently(data, **reading)
    folder = out or Path(f"check-{source.cohort.name}")
    require_own_folder(folder)
    if folder.resolve() == mirrored(data).resolve():
        raise RunError("is the folder of the data", where=folder, expected="another", remedy="choose another -o")
    before = AuditRecord.recognise(folder)
    require_same_data(folder, before.data if before else "", source.cohort.origin)
    doubted, doubtful = second_look(source.cohort, run) if run else (None, None)
    report = audit(source, splits=lambda copies: _splits(source.cohort, split, seed, copies))
    if probe:
        report = report.extended(_probed(source.cohort, seed))
    if doubtful is not None:
        report = report.extended((doubtful,))
    page = write_audit(report, folder)
    if doubted is not None:
        SECOND_LOOK.write(folder, doubted)
    _print(report)
    say(f"check: {count(report.images, source.cohort.unit)} looked at; {_summary(report)}; {page}")
    return 1 if report.errors or (strict and report.warnings) else 0


def _probed(cohort: Cohort, seed: int) -> tuple[Finding, ...]:
    """What the canary tells; where it fails, that it has, as the audit is worth more than the probe."""
    try:
        return canary(cohort, seed=seed)
    except Exception as error:
        message = f"the probe could not be made ({' '.join(str(error).split())[:200] or type(error).__name__})"
        return (Finding("canary-failed", "warning", 1, message, "repair the data first, then run it again"),)


def write_audit(audit: Audit, folder: Path) -> Path:
    """Write `audit.json`, `quarantine.csv` and `audit.html` into `folder`; returns the path of the last."""
    folder.mkdir(parents=True, exist_ok=True)
    audit.to_record().write(folder)
    QUARANTINE.write(folder, audit.quarantine)
    return write_audit_report(folder)


def _splits(cohort: Cohort, split: str, seed: int, copies: dict[str, str]) -> Splits | None:
    """As `train` would make them."""
    if not len(cohort.labelled):
        return None
    try:
        return assign_splits(cohort, seed=seed, by_group=split == "group", copies=copies)
    except SplitError as error:
        say(f"check: no splits to look at: {error}")
        return None


def _print(audit: Audit) -> None:
    for note in audit.notes:
        say(f"note: {note}")
    for finding in audit.findings:
        print(f"{finding.verdict:7}  {finding.name}: {finding.line}")
        if finding.remedy and finding.verdict != "note":
            print(f"{'':7}  -> {finding.remedy}")


def _summary(audit: Audit) -> str:
    if not audit.findings:
        return "nothing found"
    counts = {kind: sum(finding.verdict == kind for finding in audit.findings) for kind in ("error", "warning", "note")}
    return ", ".join(f"{number} {kind}{'s' if number > 1 else ''}" for kind, number in counts.items() if number)
