"""The verb `demo`: the whole road on generated tissue."""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd

from tumortrace.cohorts.audit import check
from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.splits import assign_splits
from tumortrace.cohorts.synthetic import synthesise
from tumortrace.evaluation.measures import prominent
from tumortrace.inference.explain import explain
from tumortrace.records.metrics import Metrics
from tumortrace.records.progress import say
from tumortrace.records.provenance import RESEARCH_USE
from tumortrace.records.tables import PREDICTIONS
from tumortrace.reports.report import write_report
from tumortrace.slides.scan import scan
from tumortrace.training.train import train

PATCHES, QUICK_PATCHES = 2400, 600
EPOCHS, QUICK_EPOCHS = 12, 4


def demo(*, out: Path = Path("tumortrace-demo"), seed: int = 0, quick: bool = False) -> Path:
    """Go through everything on tissue that is generated here, in a few minutes.

    Args:
        out: Folder for the data and the run.
        seed: Seed of tissue, splits and training.
        quick: Fewer images and epochs: under a minute, and a weaker model.

    Returns:
        Path of report.html.
    """
    started = time.monotonic()
    count = QUICK_PATCHES if quick else PATCHES
    data = synthesise("patches", out / "patches", count=count, seed=seed)
    slide = synthesise("slide", out / "slide.tif", seed=seed)
    cohort = open_cohort(data)
    slides = cohort.table["group"].nunique()
    say(f"synth: {len(cohort):,} patches of {slides} slides in {data}; a whole slide in {slide}")

    audit = check(cohort, splits=assign_splits(cohort, seed=seed))
    say(f"check: {audit.images:,} images looked at, {len(audit.errors)} errors, {len(audit.findings)} findings")

    epochs = QUICK_EPOCHS if quick else EPOCHS
    run = train(data, recipe="tumortrace-fast", out=out / "runs", seed=seed, epochs=epochs)
    audit.to_record().write(run)

    chosen = _telling(cohort, PREDICTIONS.read(run))
    explain(run, chosen["path"].tolist(), labels=chosen["label"].tolist())

    result = scan(run, slide, renew=False)
    say(f"scan: {result.summary}")

    report = write_report(run)
    _headline(run)
    say(f"done in {time.monotonic() - started:.0f} s; open {report}")
    return report


def _telling(cohort: Cohort, predictions: pd.DataFrame) -> pd.DataFrame:
    """The two most confident test images of each kind: right and wrong, positive and negative."""
    test = predictions[predictions["split"] == "test"]
    test = test.merge(cohort.table[["id", "path"]], on="id")
    kinds = []
    for label in (1, 0):
        for right in (True, False):
            part = test[(test["label"] == label) & ((test["prediction"] == label) == right)]
            confident = part["probability"].sub(0.5).abs().sort_values(ascending=False, kind="stable")
            kinds.append(part.loc[confident.index[:2]])
    return pd.concat(kinds, ignore_index=True)


def _headline(run: Path) -> None:
    metrics = Metrics.read(run)["test"]
    slides = f"{metrics.n_groups} slide{'' if metrics.n_groups == 1 else 's'}"
    print(f"Test split, {metrics.n} images of {slides}, 95 % intervals:")
    for name in prominent():
        entry = metrics[name]
        shown = "undefined" if entry.value is None else f"{entry.value:.3f}"
        print(f"  {name:18} {shown}" + (f"  [{entry.ci95[0]:.3f}, {entry.ci95[1]:.3f}]" if entry.ci95 else ""))
    print(RESEARCH_USE)
