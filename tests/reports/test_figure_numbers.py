"""Every number that a report's figures say in words stands in the records: gathered from the figures as they are saved,
and told a second time from the records here. Figures of other numbers than these are found out by their names."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.text import Text

from tumortrace.reports.report import write_report

#: What stands in figures and tells of no measurement: names of axes and the level of the intervals.
FIXED = {"95 % band", "95 % interval", "1 − specificity", "Distance, the limit being 1", "F1"}


def gathered(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Texts with a digit in each figure of the report, those at ticks left out, as the report is written anew."""
    found: dict[str, list[str]] = {}
    for canvas, name in ((FigureCanvasSVG, "print_svg"), (FigureCanvasAgg, "print_png")):
        save = getattr(canvas, name)

        def hooked(
            self: FigureCanvasBase, target: Any, *args: Any, save: Callable[..., None] = save, **options: Any
        ) -> None:
            if isinstance(target, Path):  # and not a trial by which the layout is found
                figure = self.figure
                axes = [axis for each in figure.axes for axis in (each.xaxis, each.yaxis)]
                ticks = {id(text) for axis in axes for text in axis.findobj(Text) if text is not axis.label}
                texts = [
                    text.get_text() for text in figure.findobj(Text) if id(text) not in ticks and text.get_visible()
                ]
                found[Path(target).name.removeprefix(".").split(".")[0]] = [
                    text for text in texts if re.search(r"\d", text)
                ]
            save(self, target, *args, **options)

        patch.setattr(canvas, name, hooked)
    write_report(folder)
    return found


class Told:
    """The same texts, from the records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        metrics = self.record("metrics.json")
        self.split = "test" if "test" in metrics else "validation"
        self.judged, self.run = metrics[self.split], self.record("run.json")
        self.classes = self.run["data"]["classes"]
        self.table = pd.read_csv(folder / "predictions.csv", dtype={"id": str})
        self.at = f"hreshold {number(self.judged['threshold'])}"

    def record(self, name: str) -> Any:
        path = self.folder / name
        return json.loads(path.read_text("utf-8")) if path.is_file() else {}

    def metric(self, name: str) -> str:
        return shown(self.judged[name])

    def calibration(self) -> list[str]:
        found = self.record("calibration.json")
        return [f"{side.capitalize()}, ECE {shown(found[side]['ece'])}" for side in ("before", "after") if found[side]]

    def confusion(self, threshold: float) -> list[str]:
        """Counts and shares of each class, counted from predictions.csv."""
        table = self.table[self.table["split"] == self.split]
        called, texts = table["probability"] >= threshold, []
        for label in (0, 1):
            own = called[table["label"] == label]
            for count in (int((~own).sum()), int(own.sum())):
                texts += [f"{count:,}", f"{100 * count / len(own):.1f} % of {self.classes[label]}"]
        return [*texts, f"Confusion matrix, {self.split} split, threshold {number(threshold)}"]

    def drift(self) -> list[str]:
        """How many slides the judged split is compared with, too few for a nineteenth of twenty, and its size."""
        found = self.record("drift.json")["splits"][self.split]
        assert len(found["distances"]) < 19
        few = f"Slides or patients of the training data ({len(found['distances'])})"
        return [few, f"{self.split.capitalize()} images ({found['images']}), 95 % interval"]

    def counts(self, by: str) -> list[str]:
        """How many images of each class in the judged split, or of each split that has scores."""
        if by == "split":
            parts = self.table.loc[self.table["split"] != "calibration", "split"].value_counts()
            return [f"{name.capitalize()} ({parts[name]:,})" for name in ("validation", "test") if name in parts]
        labels = self.table.loc[self.table["split"] == self.split, "label"]
        return [f"{name} ({(labels == label).sum():,})" for label, name in enumerate(self.classes)]


FIGURES: dict[str, Callable[[Told], list[str]]] = {
    "reliability": lambda told: [f"Model, ECE {told.metric('ece')}"],
    "learning_curves": lambda told: [f"Kept, epoch {told.run['best_epoch']}"],
    "probability_histogram": lambda told: [*told.counts("class"), f"T{told.at}"],
    "roc": lambda told: [f"AUROC {told.metric('auroc')}", f"Operating point, t{told.at}"],
    "precision_recall": lambda told: [
        f"By chance {number(told.judged['prevalence'])}",
        f"Average precision {told.metric('average_precision')}",
        f"Operating point, t{told.at}",
    ],
    "decision_curve": lambda told: [f"T{told.at}"],
    "calibration": lambda told: told.calibration(),
    "threshold": lambda told: [f"Chosen, {number(told.judged['threshold'])}"],
    "before_after": lambda told: ["At .500", f"At {number(told.judged['threshold'])}, the threshold"],
    "confusion_matrix": lambda told: told.confusion(told.judged["threshold"]),
    "confusion_matrix_at_half": lambda told: told.confusion(0.5),
    "risk_coverage": lambda told: [
        f"The most certain are kept, area {shown(told.record('abstention.json')['aurc'])}",
    ],
    "likeness": lambda told: told.counts("split"),
    "drift": lambda told: told.drift(),
}


def number(value: float) -> str:
    """At three decimals without the zero before the point, written down a second time."""
    return ("−" if value < 0 else "") + f"{abs(value):.3f}".removeprefix("0")


def shown(entry: dict[str, Any]) -> str:
    low, high = entry["ci95"]
    return f"{number(entry['value'])} [{number(low)}, {number(high)}]"


@pytest.fixture(scope="module")
def texts(small_run: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Told, dict]]:
    """Of a trained run and of a made-up one."""
    found = {}
    for name, source in (("trained", small_run), ("made-up", run)):
        folder = Path(shutil.copytree(source, tmp_path_factory.mktemp("figures") / source.name))
        with pytest.MonkeyPatch.context() as patch:
            found[name] = (Told(folder), gathered(folder, patch))
    return found


@pytest.mark.parametrize("which", ["trained", "made-up"])
def test_every_number_in_a_figure_is_on_record(texts: dict[str, tuple[Told, dict]], which: str) -> None:
    """Legends, titles and cells say what the records say, each its own metric, and nothing besides."""
    told, drawn = texts[which]
    saying = {name: sorted(text for text in found if text not in FIXED) for name, found in drawn.items()}
    expected = {name: sorted(FIGURES[name](told)) if name in FIGURES else [] for name in drawn}
    assert saying == expected
    assert len(drawn) >= 7
    assert sum(map(len, expected.values())) >= 20


def test_all_figures_that_say_numbers_are_drawn_here(texts: dict[str, tuple[Told, dict]]) -> None:
    """The trained run has every figure told above, so that none of these checks is idle."""
    assert set(FIGURES) <= set(texts["trained"][1])
