"""What the folder of a run or an evaluation has on record, as reports read it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from tumortrace.errors import RunError
from tumortrace.evaluation.curves import Curves, curves
from tumortrace.records.evaluation import EvaluationRecord, StressRecord
from tumortrace.records.metrics import Metrics, SplitMetrics
from tumortrace.records.model import ModelRecord
from tumortrace.records.run import Run, RunRecord
from tumortrace.records.tables import HISTORY, PREDICTIONS
from tumortrace.reports.wording import called, estimate


@dataclass(frozen=True)
class Records:
    """What the folder of a run or of an evaluation has written down; a missing record is empty.

    Attributes:
        run: How it came about; of an evaluation what evaluation.json has in common with run.json.
    """

    folder: Path
    run: RunRecord
    metrics: Metrics
    model: ModelRecord
    predictions: pd.DataFrame
    history: pd.DataFrame

    @cached_property
    def classes(self) -> tuple[str, str]:
        """What to call the negative and the positive class."""
        of_run = self.run.extra.get("classes")  # of an evaluation
        told = self.model.classes or (of_run if isinstance(of_run, list) else []) or self.run.data.classes
        negative, positive = told[:2] or ("negative", "positive")
        return called(str(negative)), called(str(positive))

    @property
    def unit(self) -> str:
        """What is predicted, image or slide."""
        return self.run.data.unit

    @cached_property
    def split(self) -> str:
        """The split that the run is judged by: test, or validation where there is no test, or what there is."""
        known = [*self.metrics, *(self.predictions["split"].dropna() if "split" in self.predictions else ())]
        return next((name for name in ("test", "validation", *known) if name in known), "")

    @property
    def measured(self) -> bool:
        """Whether any metric of that split is on record."""
        return self.split in self.metrics

    @property
    def judged(self) -> SplitMetrics:
        """The metrics of that split."""
        return self.metrics.get(self.split) or SplitMetrics()

    @property
    def foreign(self) -> bool:
        """Whether these are predictions from a table: how the model came about is then not known."""
        return self.run.data.layout == "predictions"

    def scored(self, split: str) -> pd.DataFrame:
        """The labelled predictions of one split."""
        table = self.predictions
        if not {"split", "label", "probability"} <= set(table):
            return pd.DataFrame({"label": [], "probability": []})
        return table[(table["split"] == split) & table["label"].notna() & table["probability"].notna()]

    def curves(self, split: str) -> Curves | None:
        """The curves of a split, if both classes are among its labelled predictions."""
        table = self.scored(split)
        return curves(table["label"], table["probability"]) if table["label"].nunique() == 2 else None

    @cached_property
    def stress(self) -> StressRecord | None:
        """The stress test in the run's folder."""
        return StressRecord.find(self.folder / "stress")

    def metric(self, name: str) -> str:
        """One metric of the judged split as text, such as `.953 [.941, .964]`."""
        return estimate(self.judged.get(name))

    def value(self, name: str) -> float | None:
        """One metric of the judged split; None where it is not defined."""
        entry = self.judged.get(name)
        return entry.value if entry else None

    @property
    def threshold(self) -> float | None:
        """The threshold of the judged split's metrics, or the model's."""
        return self.model.threshold if self.judged.threshold is None else self.judged.threshold


def read_records(folder: str | Path) -> Records:
    """Read the records of a run or of an evaluation.

    Raises:
        RunError: There is no such folder, it holds no record, or one is damaged.
    """
    folder = Path(folder)
    run, evaluation, metrics = RunRecord.find(folder), EvaluationRecord.find(folder), Metrics.find(folder)
    predictions = PREDICTIONS.find(folder)
    if run is None and evaluation is None and metrics is None and predictions.empty:
        expected = f"a run folder with {RunRecord.FILE}"
        raise RunError("no records of a run", where=folder, expected=expected, remedy="check the path")
    model = ModelRecord.find(Run(folder).model_folder)
    if run is None:
        run = RunRecord.model_validate(evaluation.as_json() if evaluation else {})
        if model is None and evaluation:  # which tells of the model that it was given
            model = ModelRecord.model_validate(evaluation.model)
    history = HISTORY.find(folder)
    return Records(folder, run, metrics or Metrics({}), model or ModelRecord(), predictions, history)


def read_run(folder: Path, verb: str, made: str) -> RunRecord:
    """The run.json of a folder that `verb` made; `made` is what that is, in words.

    Raises:
        RunError: Another verb made it, or none, or it is damaged.
    """
    run = RunRecord.find(folder)
    if run is None or run.verb != verb:
        raise RunError(f"no records of {made}", where=folder, expected=f"a folder that `{verb}` made")
    return run
