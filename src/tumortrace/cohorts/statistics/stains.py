"""Stain vectors of a sample, and how far slides or patients lie apart in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

HAEMATOXYLIN = tuple(f"haematoxylin_{channel}" for channel in ("red", "green", "blue"))
EOSIN = tuple(f"eosin_{channel}" for channel in ("red", "green", "blue"))


def describe_stains(table: pd.DataFrame) -> dict[str, Any]:
    """Median stain vectors of a sample, of each group, and how far groups lie apart.

    Args:
        table: One row per image with `group`, `grey` and the columns `HAEMATOXYLIN` and `EOSIN`: unit vectors of
            optical density, missing where there is too little tissue.

    Returns:
        `applies` and, where it does, for haematoxylin and eosin: `vector`, `spread` (median angle in degrees between an
        image's vector and it), `between_groups` (intraclass correlation, one-way random effects, Shrout and Fleiss
        1979: 0 where groups are alike, 1 where they differ and images within one do not; None without groups), and
        `groups` with the vector of each. Where it does not apply: `reason`. It applies where most images absorb green
        the most, as haematoxylin and eosin do: a rule of thumb that sets them apart from grey images, from
        diaminobenzidine, and from skin and mucosa in plain light, which absorb blue the most.
    """
    known = table[table[HAEMATOXYLIN[0]].notna()]
    if table["grey"].mean() > 0.5:
        return {"applies": False, "reason": "the images are grey"}
    if known.empty:
        return {"applies": False, "reason": "no image holds enough tissue of two colours"}
    red, green, blue = (known[list(HAEMATOXYLIN)].to_numpy() + known[list(EOSIN)].to_numpy()).T
    if (green > np.maximum(red, blue)).mean() <= 0.5:
        return {"applies": False, "reason": "green is not what the images absorb the most"}
    result: dict[str, Any] = {"applies": True, "images": len(known)}
    for name, columns in (("haematoxylin", HAEMATOXYLIN), ("eosin", EOSIN)):
        vectors = known[list(columns)].to_numpy()
        centre = _direction(vectors)
        result[name] = {
            "vector": centre.tolist(),
            "spread": float(np.median(_angles(vectors, centre))),
            "between_groups": intraclass_correlation(vectors, known["group"]),
        }
    grouped = known[known["group"].notna()].groupby("group")
    result["groups"] = [_group(str(name), rows, result) for name, rows in grouped]
    return result


def _group(name: str, rows: pd.DataFrame, whole: dict[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = {"group": name, "images": len(rows)}
    for stain, columns in (("haematoxylin", HAEMATOXYLIN), ("eosin", EOSIN)):
        centre = _direction(rows[list(columns)].to_numpy())
        shift = float(_angles(centre[None], np.array(whole[stain]["vector"]))[0])
        record[stain] = {"vector": centre.tolist(), "shift": shift}
    return record


def intraclass_correlation(values: np.ndarray, groups: pd.Series) -> float | None:
    """Share of the variance that lies between groups, ICC(1) of Shrout and Fleiss (1979), for vectors by squared norm.

    Args:
        values: Shape (n, d).
        groups: Group of each row; rows without one are left out.

    Returns:
        At most 1; about 0 (or slightly less) where groups are alike; None with fewer than two groups or no group of
        two or more rows.

    Example:
        >>> intraclass_correlation(np.array([[0.], [0.], [9.], [9.]]), pd.Series(["a", "a", "b", "b"]))
        1.0
    """
    known = groups.notna().to_numpy()
    values, codes = values[known], pd.factorize(groups[known])[0]
    n, count = len(values), codes.max() + 1 if len(codes) else 0
    if count < 2 or n <= count:
        return None
    sizes = np.bincount(codes)
    means = np.stack([np.bincount(codes, column) / sizes for column in values.T], axis=1)
    within = ((values - means[codes]) ** 2).sum() / (n - count)
    between = (sizes[:, None] * (means - values.mean(axis=0)) ** 2).sum() / (count - 1)
    usual = (n - (sizes**2).sum() / n) / (count - 1)
    total = between + (usual - 1) * within
    return float((between - within) / total) if total > 0 else None


def _direction(vectors: np.ndarray) -> np.ndarray:
    """The median of unit vectors, coordinate by coordinate, made a unit vector again."""
    median = np.median(vectors, axis=0)
    return median / np.linalg.norm(median)


def _angles(vectors: np.ndarray, centre: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos(np.clip(vectors @ centre, -1, 1)))
