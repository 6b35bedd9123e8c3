"""The main figures of one split in one line."""

from __future__ import annotations

from typing import Any

HEADLINE = ("auroc", "sensitivity", "specificity", "ece")


def headline(metrics: dict[str, Any]) -> str:
    """AUROC, sensitivity, specificity and calibration error with their 95 % intervals.

    Args:
        metrics: What `evaluate_table` returns.

    Example:
        >>> entry = {"value": 0.5, "ci95": [0.25, 0.75]}
        >>> headline({"auroc": entry, "sensitivity": entry, "specificity": {"value": None}, "ece": entry, "n": 1200})
        'auroc 0.500 [0.250, 0.750], sensitivity 0.500 [0.250, 0.750], specificity undefined, ...'
    """
    return ", ".join(f"{name} {_shown(metrics[name])}" for name in HEADLINE) + f" on {metrics['n']:,} images"


def _shown(entry: dict[str, Any]) -> str:
    if entry["value"] is None:
        return "undefined"
    interval = entry.get("ci95")
    return f"{entry['value']:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
