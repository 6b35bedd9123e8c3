"""The records of how far predictions can be trusted: calibration, abstention, likeness to the training images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tumortrace.evaluation.abstention import abstention
from tumortrace.evaluation.reliability import before_and_after
from tumortrace.evaluation.shares import share_with_interval

#: Share of strange images above which something is wrong with the data, not with single images.
MANY = 0.05


def trust_records(
    table: pd.DataFrame, model: Mapping[str, Any], choice: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """What is known of the predictions of one table, by the name of the file that holds it.

    Args:
        table: Labelled predictions, with the column `split`, and as far as they are there `group`, `logit`,
            `ood_score` and `in_distribution`. The split judged is test where there is one, else validation, else the
            first.
        model: What `model.json` says: `threshold`, `conformal`, `triage`, `ood`.
        choice: How the calibration was chosen, where that was done here.

    Returns:
        - `calibration.json`: `split`, `choice`, and `before` and `after` calibration as in `before_and_after`;
        - `abstention.json`: `split`, and what `abstention` returns;
        - `distribution.json`, where images were scored: for each split `n`, and `outside`, the share of images beyond
          the limit with its interval; `limits`, what `model.json` says of these.

    Raises:
        PredictionsError: The table cannot be used.
    """
    splits = list(dict.fromkeys(table["split"]))
    split = next(name for name in ("test", "validation", *splits) if name in splits)
    judged = table[table["split"] == split]
    records = {
        "calibration.json": {"split": split, "choice": choice, **before_and_after(judged)},
        "abstention.json": {
            "split": split,
            **abstention(judged, model["threshold"], model.get("conformal"), model.get("triage")),
        },
    }
    if "in_distribution" in table and table["in_distribution"].notna().all():
        by_split = table.groupby("split", sort=False)
        parts = {str(name): outside(part["in_distribution"], part.get("group")) for name, part in by_split}
        records["distribution.json"] = {"split": split, "limits": model.get("ood"), "splits": parts}
    return records


def outside(in_distribution: pd.Series, group: pd.Series | None = None) -> dict[str, Any]:
    """How many images do not look like the training images, and the 95 % interval of their share.

    Images of one slide or patient are strange together, so that whole groups are drawn where these are known.

    Example:
        >>> outside(pd.Series([True, True, False, True]))["outside"]["value"]
        0.25
    """
    return {"n": len(in_distribution), "outside": share_with_interval(~in_distribution.astype(bool), group)}


def outside_line(in_distribution: pd.Series, group: pd.Series | None = None) -> str:
    """That in a sentence; where it is many more than the one in a hundred of the training data's own kind, a warning.

    Example:
        >>> outside_line(pd.Series([False] * 3 + [True] * 5))
        'warning: 37.5 % [13.7 %, 69.4 %] of these 8 images do not look like the training data; do not trust ...'
    """
    found = outside(in_distribution, group)
    share, (low, high) = found["outside"]["value"], found["outside"]["ci95"]
    interval = f"[{100 * low:.1f} %, {100 * high:.1f} %]"
    line = f"{100 * share:.1f} % {interval} of these {found['n']:,} images do not look like the training data"
    if low <= MANY:
        return line
    return f"warning: {line}; do not trust what is predicted of them before labelled images from there have measured it"
