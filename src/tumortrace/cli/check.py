"""The verb `check` with its files and lines; the audit itself is `tumortrace.cohorts.audit`."""

from __future__ import annotations

from pathlib import Path

from tumortrace.cohorts.audit import check as audit_cohort
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.splits import assign_splits
from tumortrace.errors import SplitError
from tumortrace.reports.audit_report import write_audit_report
from tumortrace.runs.files import write_csv, write_json
from tumortrace.runs.progress import say


def check(
    data: str,
    *,
    out: Path | None = None,
    split: str = "group",
    seed: int = 0,
    positive: str | None = None,
    group_column: str | None = None,
    group_from_name: str | None = None,
    label_from_name: str | None = None,
    resolution: float | None = None,
) -> int:
    """Audit a cohort, write `audit.json`, `audit.html` and `quarantine.csv`; 1 when there are errors, else 0."""
    cohort = open_cohort(
        data,
        positive=positive,
        group_column=group_column,
        group_from_name=group_from_name,
        label_from_name=label_from_name,
        resolution=resolution,
    )
    try:
        splits = assign_splits(cohort, seed=seed, by_group=split == "group") if len(cohort.labelled) else None
    except SplitError as error:
        say(f"check: no splits to look at: {error}")
        splits = None
    audit = audit_cohort(cohort, splits=splits)
    folder = out or Path(f"check-{cohort.name}")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "audit.json", audit.to_json())
    write_csv(folder / "quarantine.csv", audit.quarantine)
    report = write_audit_report(folder)
    for finding in audit.findings:
        print(f"{finding.verdict:8} {finding.name}: {finding.message}")
    say(f"check: {audit.images:,} images, {len(audit.errors)} kinds of error; {report}")
    return 1 if audit.errors else 0
