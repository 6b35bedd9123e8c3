"""What the folder of a run or an evaluation has on record, as reports read it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from tumortrace.errors import RunError
from tumortrace.evaluation.curves import Curves, curves
from tumortrace.reports.wording import called, estimate


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON record, or an empty dict where there is none.

    Raises:
        RunError: The file is not a JSON object.
    """
    try:
        content = json.loads(path.read_text("utf-8"), parse_constant=lambda _: None)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise RunError(f"not JSON ({error})", where=path, remedy="restore the file or run the verb again") from error
    if not isinstance(content, dict):
        raise RunError("not a record", where=path, expected="a JSON object", remedy="run the verb again")
    return content


def read_table(path: Path) -> pd.DataFrame:
    """A CSV record with ids and groups as text, or an empty table where there is none.

    Raises:
        RunError: The file is not a table.
    """
    text = {"id": "string", "group": "string", "split": "string", "decision": "string"}
    try:
        return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        return pd.DataFrame()
    except ValueError as error:
        raise RunError(f"not a table ({error})", where=path, remedy="restore the file or run the verb again") from error


@dataclass(frozen=True)
class Records:
    """What the folder of a run or of an evaluation has written down; a missing record is empty."""

    folder: Path
    run: dict[str, Any]
    metrics: dict[str, Any]
    model: dict[str, Any]
    predictions: pd.DataFrame
    history: pd.DataFrame

    @cached_property
    def classes(self) -> tuple[str, str]:
        """What to call the negative and the positive class."""
        records = (self.model, self.run, self.run.get("data", {}))
        names = next((record["classes"] for record in records if record.get("classes")), ("negative", "positive"))
        return called(str(names[0])), called(str(names[1]))

    @cached_property
    def split(self) -> str:
        """The split that the run is judged by: test, or validation where there is no test, or what there is."""
        known = [*self.metrics, *(self.predictions["split"].dropna() if "split" in self.predictions else ())]
        return next((name for name in ("test", "validation", *known) if name in known), "")

    @property
    def judged(self) -> dict[str, Any]:
        """The metrics of that split."""
        return self.metrics.get(self.split, {})

    @property
    def foreign(self) -> bool:
        """Whether these are predictions from a table: how the model came about is then not known."""
        return self.run.get("data", {}).get("layout") == "predictions"

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
    def stress(self) -> dict[str, Any]:
        """The record of the stress test in the run's folder; empty where there is none."""
        return read_json(self.folder / "stress" / "stress.json")

    def metric(self, name: str) -> str:
        """One metric of the judged split as text, such as `.953 [.941, .964]`."""
        return estimate(self.judged.get(name))

    def value(self, name: str) -> float | None:
        """One metric of the judged split; None where it is not defined."""
        return (self.judged.get(name) or {}).get("value")

    @property
    def threshold(self) -> float | None:
        """The threshold of the judged split's metrics, or the model's."""
        return self.judged.get("threshold", self.model.get("threshold"))


def read_records(run: Path) -> Records:
    """Read the records of a run folder.

    Raises:
        RunError: There is no such folder, it holds no record, or one is damaged.
    """
    run = Path(run)
    if not any((run / name).is_file() for name in ("run.json", "metrics.json", "predictions.csv")):
        raise RunError("no records of a run", where=run, expected="a run folder with run.json", remedy="check the path")
    origin = read_json(run / "run.json") or read_json(run / "evaluation.json")
    metrics, model = read_json(run / "metrics.json"), read_json(run / "model" / "model.json")
    if not model and isinstance(origin.get("model"), dict):  # an evaluation tells of the model that it was given
        model = origin["model"]
    predictions, history = read_table(run / "predictions.csv"), read_table(run / "history.csv")
    return Records(run, origin, metrics, model, predictions, history)
