"""What `tumortrace.evaluation` returns, as the JSON of its records has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from functools import wraps
from typing import Any

from pydantic import BaseModel

from tumortrace.evaluation import abstention as _abstention
from tumortrace.evaluation import comparisons, conformal, folds, intervals, measures, reliability
from tumortrace.evaluation import split_record as _split_record


def plain(value: Any) -> Any:
    """Records as JSON has them, whatever they stand in."""
    if isinstance(value, measures.Classification):
        about = {name: plain(part) for name, part in vars(value).items() if name != "metrics"}
        return value.metrics | about
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


def _plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    return wraps(function)(lambda *args, **options: plain(function(*args, **options)))


abstention = _plainly(_abstention.abstention)
agreement = _plainly(comparisons.agreement)
before_and_after = _plainly(reliability.before_and_after)
classification = _plainly(measures.classification)
each_group = _plainly(_split_record.each_group)
each_subgroup = _plainly(_split_record.each_subgroup)
evaluate_calls = _plainly(intervals.evaluate_calls)
evaluate_table = _plainly(intervals.evaluate_table)
fit_conformal = _plainly(conformal.fit_conformal)
mean_with_interval = _plainly(intervals.mean_with_interval)
paired_differences = _plainly(comparisons.paired_differences)
pooled = _plainly(folds.pooled)
share_with_interval = _plainly(intervals.share_with_interval)
split_record = _plainly(_split_record.split_record)
summarise_folds = _plainly(folds.summarise_folds)
trust_records = _plainly(_abstention.trust_records)
