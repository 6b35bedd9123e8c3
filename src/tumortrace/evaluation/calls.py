"""Metrics of predictions that were not all called at one threshold, as those of several folds are."""

from __future__ import annotations

from typing import Any

import pandas as pd

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.intervals import evaluate_table
from tumortrace.evaluation.metrics import CALLED


def called(table: pd.DataFrame) -> pd.DataFrame:
    """The table with each image's call, 0 or 1, in place of its probability.

    Raises:
        PredictionsError: There is no column `prediction`, or it holds something else.

    Example:
        >>> called(pd.DataFrame({"label": [0, 1], "probability": [0.2, 0.4], "prediction": [0, 1]}))["probability"]
        0    0.0
        1    1.0
        Name: probability, dtype: float64
    """
    if "prediction" not in table or not table["prediction"].isin([0, 1]).all():
        raise PredictionsError("no calls", where="column prediction", expected="0 or 1 for each image")
    return table.assign(probability=table["prediction"].astype(float))


def evaluate_calls(table: pd.DataFrame, *, replicates: int = 1000, seed: int = 0) -> dict[str, Any]:
    """What `evaluate_table` returns, with the metrics of calls taken from `prediction` instead of one threshold.

    Args:
        table: Columns `label`, `probability`, `prediction` (0 or 1) and optionally `group`.
        replicates: Number of bootstrap replicates.
        seed: Seed of the replicates.

    Returns:
        As `evaluate_table`; `threshold` is None.

    Raises:
        PredictionsError: The table cannot be used.

    Example:
        >>> table = pd.DataFrame({"label": [0, 1] * 9, "probability": [0.2, 0.4] * 9, "prediction": [0, 1] * 9})
        >>> evaluate_calls(table, replicates=50)["sensitivity"]["value"]
        1.0
    """
    scored = evaluate_table(table, 0.5, replicates=replicates, seed=seed)
    calls = evaluate_table(called(table), 0.5, replicates=replicates, seed=seed)
    taken = {name: calls[name] for name in (*CALLED, "confusion_matrix")}
    method = scored["intervals"].partition(" No replicate differs")[0]  # said of calls at .5, which are not these
    return scored | taken | {"threshold": None, "intervals": method}
