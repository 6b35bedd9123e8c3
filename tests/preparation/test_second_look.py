"""Labels that predictions out of fold contradict are ranked; those that learnt from them do not count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tumortrace.cohorts.cohort import Cohort
from tumortrace.errors import RunError
from tumortrace.preparation.second_look import doubtful, second_look


def test_by_hand() -> None:
    """Mean probability of class 1 among its own is .7, of class 0 among its own .75: these are the thresholds."""
    label = np.array([1, 1, 1, 0, 0, 0])
    probability = np.array([0.95, 0.9, 0.25, 0.05, 0.1, 0.6])
    assert doubtful(label, probability).tolist() == [False, False, True, False, False, False]
    probability[5] = 0.75
    assert doubtful(label, probability).tolist() == [False, False, True, False, False, True]


def table(tmp_path: Path) -> Cohort:
    rows = pd.DataFrame({"id": list("abcdef"), "path": list("abcdef"), "label": [1, 1, 1, 0, 0, 0], "group": None})
    return Cohort("mine", "table", rows.assign(split=None))


def test_planted_noise_comes_first(tmp_path: Path) -> None:
    """Flipped labels of a good model's predictions stand at the top, most contradicted first."""
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 400)
    probability = np.clip(truth + random.normal(0, 0.1, 400), 0, 1) * 0.96 + 0.02
    label = truth.copy()
    label[:12] = 1 - label[:12]
    ids = [f"i{index}" for index in range(400)]
    cohort = Cohort("m", "table", pd.DataFrame({"id": ids, "path": ids, "label": label, "group": None, "split": None}))
    pd.DataFrame({"id": ids, "fold": 0, "probability": probability}).to_csv(tmp_path / "predictions.csv", index=False)
    chosen, finding = second_look(cohort, tmp_path)
    assert set(chosen["id"][:6]) <= set(ids[:12])
    assert list(chosen["contradiction"]) == sorted(chosen["contradiction"], reverse=True)
    assert finding is not None
    assert finding.count == len(chosen)


def test_only_the_test_split_of_a_run_counts(tmp_path: Path) -> None:
    """Predictions of images that the run has learnt from or chosen by say nothing; without others it is refused."""
    frame = pd.DataFrame({"id": list("abcdef"), "split": "validation", "probability": 0.5})
    frame.to_csv(tmp_path / "predictions.csv", index=False)
    with pytest.raises(RunError, match="without having learnt"):
        second_look(table(tmp_path), tmp_path)
    with pytest.raises(RunError, match=r"no predictions\.csv"):
        second_look(table(tmp_path), tmp_path / "none")
