"""What referral brings: coverage reached, images referred, risk against coverage, work decided without a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from tumortrace.evaluation.conformal import Conformal, decide, prediction_sets
from tumortrace.evaluation.intervals import Kind, estimate, share_with_interval
from tumortrace.evaluation.reliability import before_and_after
from tumortrace.evaluation.replicates import Replicates
from tumortrace.evaluation.table import check_threshold
from tumortrace.evaluation.tally import Floats, Tally, by_replicate, ratio
from tumortrace.records.metrics import (
    AbstentionRecord,
    Choice,
    DistributionRecord,
    Estimate,
    Outside,
    RiskCoverage,
    Shares,
)
from tumortrace.records.record import Record

#: Shares of images kept at which the risk is on record.
KEPT = tuple((np.arange(1, 51) / 50).round(2).tolist())


def abstention(
    table: pd.DataFrame,
    threshold: float,
    conformal: Conformal | None,
    triage: Conformal | None = None,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> AbstentionRecord:
    """What the decisions of a model come to on labelled images that had no part in calibrating them.

    Args:
        table: Columns `label`, `probability` and optionally `group`.
        threshold: An image is called positive where its probability is at or above it.
        conformal: Coverage and quantiles behind the decisions (`fit_conformal`); None where nothing is referred.
        triage: The same at coverage .95.
        replicates: As for `evaluate_table`, like `seed`.

    Returns:
        Each share with its interval:

        - `decisions` (None without `conformal`): `coverage` wanted; `coverage_negative`, `coverage_positive`, the
          share of images of each class whose prediction set contains it; `empty`, `single`, `double`, the share of
          images with sets of that size; `referred`; `right`, of the decided ones; `negative_called_positive`,
          `positive_called_negative`, of all images of the class.
        - `triage` (likewise): at coverage .95 `decided`, the share of images that no person has to see;
          `sensitivity` and `specificity` where those referred are called rightly.
        - `aurc`, the area under the risk-coverage curve (Geifman & El-Yaniv 2017): the mean, over all numbers of
          images kept, of the share called wrongly when the least certain are left out; certain is what lies far from
          the threshold in logits. `risk_coverage`: that share at each of `kept`.

        Intervals draw whole groups where every image has one, else they are Wilson's.

    Raises:
        PredictionsError: The table or the threshold cannot be used.

    Example:
        >>> table = pd.DataFrame({"label": [0, 0, 1, 1], "probability": [0.1, 0.6, 0.7, 0.9]})
        >>> record = abstention(table, 0.5, Conformal(coverage=0.9, quantiles=(0.6, 0.5)), replicates=9)
        >>> record.decisions["referred"].value, record.aurc.value, record.risk_coverage.risk[-1].value
        (0.25, 0.0625, 0.25)
    """
    check_threshold(threshold)
    drawn = Replicates(table, replicates, seed)
    counts = drawn.tally
    shares: dict[tuple[str, str], tuple[Floats, Floats]] = {}
    for part, given, masks in (("decisions", conformal, _decisions), ("triage", triage, _triage)):
        if given is not None:
            shares |= {(part, name): share for name, share in masks(counts, threshold, given).items()}

    def sums(sample: Tally) -> tuple[Floats, Floats]:
        """Successes and trials of each share, shape (..., shares)."""
        parts, wholes = (np.stack([share[side] for share in shares.values()], axis=-1) for side in (0, 1))
        return tuple(sample.negative @ mask[0] + sample.positive @ mask[1] for mask in (parts, wholes))

    entries: dict[tuple[str, str], Estimate] = {}
    if shares:
        counted = zip(*(side.tolist() for side in sums(counts)), strict=True)
        kinds = {name: Kind(counted=pair) for name, pair in zip(shares, counted, strict=True)}
        entries = estimate(drawn, lambda sample: ratio(*sums(sample)), kinds)
    area, *risk = estimate(drawn, _risk_curve(counts, threshold), dict.fromkeys(("aurc", *KEPT), Kind())).values()

    def told(part: str, given: Conformal | None) -> Shares | None:
        if given is None:
            return None
        estimates = {name: estimate for (of, name), estimate in entries.items() if of == part}
        return Shares.model_validate({"coverage": given.coverage, "unit": given.unit} | estimates)

    return AbstentionRecord(
        n=len(drawn.predictions.label),
        n_groups=drawn.predictions.n_groups,
        decisions=told("decisions", conformal),
        triage=told("triage", triage),
        aurc=area,
        risk_coverage=RiskCoverage(kept=list(KEPT), risk=risk),
    )


def _decisions(counts: Tally, threshold: float, conformal: Conformal) -> dict[str, tuple[Floats, Floats]]:
    """Of each share, which negative and positive images at each level count in it, and among which; (2, k) each."""
    sets = prediction_sets(counts.probability, conformal.quantiles)
    calls = decide(counts.probability, threshold, conformal.quantiles)
    negative, positive = _sides(len(calls))
    everything = negative + positive
    decided = everything * (calls != "refer")
    right = negative * (calls == "negative") + positive * (calls == "positive")
    sizes = {name: everything * (sets.sum(1) == size) for size, name in enumerate(("empty", "single", "double"))}
    return {
        "coverage_negative": (negative * sets[:, 0], negative),
        "coverage_positive": (positive * sets[:, 1], positive),
        **{name: (chosen, everything) for name, chosen in sizes.items()},
        "referred": (everything * (calls == "refer"), everything),
        "right": (right, decided),
        "negative_called_positive": (negative * (calls == "positive"), negative),
        "positive_called_negative": (positive * (calls == "negative"), positive),
    }


def _triage(counts: Tally, threshold: float, triage: Conformal) -> dict[str, tuple[Floats, Floats]]:
    calls = decide(counts.probability, threshold, triage.quantiles)
    negative, positive = _sides(len(calls))
    everything = negative + positive
    return {
        "decided": (everything * (calls != "refer"), everything),
        "sensitivity": (positive * (calls != "negative"), positive),
        "specificity": (negative * (calls != "positive"), negative),
    }


def _sides(levels: int) -> tuple[Floats, Floats]:
    """Masks of negative and of positive images, shape (2, levels) each."""
    side = np.ones(levels)
    return np.stack([side, 0 * side]), np.stack([0 * side, side])


def _risk_curve(whole: Tally, threshold: float) -> Callable[[Tally], Floats]:
    """What measures the area under the curve of risk against coverage, and the risk at each of `KEPT`.

    Levels go in the order of falling certainty, and images of one certainty come in random order.
    """
    tiny = np.finfo(np.float64).eps
    from scipy.special import logit  # here, as predicting does without scipy

    place = logit(np.clip(whole.probability, tiny, 1 - tiny)) - logit(np.clip(threshold, tiny, 1 - tiny))
    positive = whole.probability >= threshold
    levels, level = np.unique(-np.abs(place).round(12), return_inverse=True)

    @by_replicate
    def curve(counts: Tally) -> list[float]:
        wrong = np.where(positive, counts.negative, counts.positive)
        kept, errors = (
            np.append(0, np.cumsum(np.bincount(level, side, len(levels)))) for side in (counts.total, wrong)
        )
        images = np.arange(1, int(kept[-1]) + 1)
        grid = np.array(KEPT) * kept[-1]
        area = float((np.interp(images, kept, errors) / images).mean())
        return [area, *(np.interp(grid, kept, errors) / grid).tolist()]

    return curve


# The records of how far predictions can be trusted: calibration, abstention, likeness to the training images.


#: Share of strange images above which something is wrong with the data, not with single images.
MANY = 0.05


def trust_records(table: pd.DataFrame, model: Mapping[str, Any], choice: Choice | None = None) -> list[Record]:
    """What is known of the predictions of one table, each part as the file that holds it.

    Args:
        table: Labelled predictions, with the column `split`, and as far as they are there `group`, `logit`,
            `ood_score` and `in_distribution`. The split judged is test where there is one, else validation, else the
            first.
        model: What `model.json` says: `threshold`, `conformal`, `triage`, `ood`.
        choice: How the calibration was chosen, where that was done here.

    Returns:
        Of the split judged, what `before_and_after` and `abstention` return; and where images were scored, for each
        split the share of images beyond the limit, with what `model.json` says of the limits.

    Raises:
        PredictionsError: The table cannot be used.
    """
    splits = list(dict.fromkeys(table["split"]))
    split = next(name for name in ("test", "validation", *splits) if name in splits)
    judged = table[table["split"] == split]
    conformal, triage = (
        None if model.get(name) is None else Conformal.model_validate(model[name]) for name in ("conformal", "triage")
    )
    records: list[Record] = [
        before_and_after(judged).model_copy(update={"split": split, "choice": choice}),
        abstention(judged, model["threshold"], conformal, triage).model_copy(update={"split": split}),
    ]
    if "in_distribution" in table and table["in_distribution"].notna().all():
        by_split = table.groupby("split", sort=False)
        parts = {str(name): outside(part["in_distribution"], part.get("group")) for name, part in by_split}
        records.append(DistributionRecord(split=split, limits=model.get("ood"), splits=parts))
    return records


def outside(in_distribution: pd.Series, group: pd.Series | None = None) -> Outside:
    """How many images do not look like the training images, and the 95 % interval of their share.

    Images of one slide or patient are strange together, so that whole groups are drawn where these are known.

    Example:
        >>> outside(pd.Series([True, True, False, True])).outside.value
        0.25
    """
    return Outside(n=len(in_distribution), outside=share_with_interval(~in_distribution.astype(bool), group))


def outside_line(in_distribution: pd.Series, group: pd.Series | None = None, unit: str = "image") -> str:
    """That in a sentence; where it is many more than the one in a hundred of the training data's own kind, a warning.

    Example:
        >>> outside_line(pd.Series([False] * 3 + [True] * 5))
        'warning: 37.5 % [13.7 %, 69.4 %] of these 8 images do not look like the training data; do not trust ...'
        >>> outside_line(pd.Series([True]))
        'the image looks like the training data'
    """
    if len(in_distribution) == 1:
        inside = bool(in_distribution.iloc[0])
        return f"the {unit} {'looks' if inside else 'does not look'} like the training data"
    share = share_with_interval(~in_distribution.astype(bool), group)
    low, high = share.ci95 or (0.0, 1.0)
    told = f"{100 * (share.value or 0):.1f} % [{100 * low:.1f} %, {100 * high:.1f} %]"
    line = f"{told} of these {len(in_distribution):,} {unit}s do not look like the training data"
    if low <= MANY:
        return line
    return (
        f"warning: {line}; do not trust what is predicted of them before labelled {unit}s from there have measured it"
    )
