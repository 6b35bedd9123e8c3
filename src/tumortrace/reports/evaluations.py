"""What `evaluate` has measured with the model of a run, on other data."""

from __future__ import annotations

from typing import Any

from tumortrace.reports.records import Records, read_json


def evaluations(records: Records) -> list[dict[str, Any]]:
    """The evaluations in the run's folder, by name: `name`, `split`, `metrics` (of that split) and `record`."""
    found = []
    for path in sorted(records.folder.glob("evaluations/*/evaluation.json")):
        metrics = read_json(path.parent / "metrics.json")
        split = next((name for name in ("test", "validation") if name in metrics), next(iter(metrics), ""))
        if split:
            entry = {"name": path.parent.name, "split": split, "metrics": metrics[split]}
            found.append(entry | {"record": read_json(path)})
    return found
