"""What is measured of the heat map of each image: where it lies, what its hottest parts carry, whether it stays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tumortrace.inference.explain.evidence import prepared_pixels
from tumortrace.inference.explain.localisation import energy_inside, mask_auc, pointing
from tumortrace.inference.explain.methods import Method, heat_of
from tumortrace.inference.explain.perturbation import cell_order, deletion_insertion, random_order
from tumortrace.inference.explain.pictures import seen_by
from tumortrace.inference.explain.randomisation import cascade, rank_correlation, similarity
from tumortrace.inference.explain.summary import LOCALISATION
from tumortrace.models.bundle import Model

NETWORKS = 3  # wholly random ones: a single one may by chance look where the trained one does


def per_image(model: Model, patches: np.ndarray, heat: np.ndarray, masks: np.ndarray | None, seed: int) -> pd.DataFrame:
    """Localisation, deletion and insertion of each image.

    What is gained is gained over the maps of two other patches, as the shuffled AUC does it with the gaze of viewers
    (Zhang et al. 2008, "SUN"): they are as coarse and as central as the patch's own, so that a map gains only by
    what it knows of the patch. A random order of cells is no fair rival: it strews holes over all of the picture.

    Args:
        model: The model.
        patches: uint8, shape (N, H, W, 3).
        heat: float, shape (N, H, W): the patches' maps by one method.
        masks: bool, shape (N, H, W), True where tumour is; None where that is not known.
        seed: Of the order of cells of equal heat.

    Returns:
        A row per image; the gains are NaN where there is but one.
    """
    inside = _within(seen_by(model), heat.shape[1:])
    orders = [cell_order(each[inside], seed + row) for row, each in enumerate(heat)]
    rows = []
    for row, patch in enumerate(patches):
        falling, rising = _areas(model, patch, orders[row])
        strange = np.array([_areas(model, patch, orders[other]) for other in others(row, len(patches))])
        low, high = strange.mean(0) if len(strange) else (np.nan, np.nan)
        perturbed = {
            "deletion": falling,
            "insertion": rising,
            "deletion_gain": low - falling,
            "insertion_gain": rising - high,
        }
        rows.append(_localised(model, heat[row], None if masks is None else masks[row]) | perturbed)
    return pd.DataFrame(rows)


def others(row: int, count: int) -> list[int]:
    """Two other images, a third of all away: seldom of the same slide. Fewer where there are not so many.

    Example:
        >>> others(1, 9), others(0, 2), others(0, 1)
        ([4, 7], [1], [])
    """
    step = max(1, count // 3)
    return sorted({(row + step) % count, (row - step) % count} - {row})


def chance_areas(model: Model, patches: np.ndarray, seed: int) -> dict[str, list[float]]:
    """`random_deletion` and `random_insertion` of each image: the areas of a random order of cells."""
    found = [_areas(model, patch, random_order(seed + row)) for row, patch in enumerate(patches)]
    return {"random_deletion": [each[0] for each in found], "random_insertion": [each[1] for each in found]}


def randomised(
    model: Model, patches: np.ndarray, heat: np.ndarray, method: Method, seed: int
) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """How much of the maps stays as the weights go; of wholly random networks the mean over several.

    Yields:
        Share of random layers, and for each image the rank correlation and the structural similarity with the trained
        model's map.
    """
    inside = _within(seen_by(model), heat.shape[1:])

    def kept(random: Model) -> np.ndarray:
        maps = heat_of(random, patches, method)
        pairs = [(first[inside], second[inside]) for first, second in zip(heat, maps, strict=True)]
        return np.array([[rank_correlation(*pair), similarity(*pair)] for pair in pairs])

    for share, random in cascade(model, seed):
        found = [kept(random)]
        if share == 1:
            more = (each for number in range(1, NETWORKS) for each in cascade(model, seed + number, shares=(1.0,)))
            found += [kept(network) for _, network in more]
        yield share, *_means(found).T


def _means(found: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over the networks of what is defined; NaN where nothing is."""
    values = np.stack(found)
    defined = (~np.isnan(values)).sum(0)
    return np.where(defined > 0, np.nansum(values, 0) / np.maximum(defined, 1), np.nan)


def _areas(model: Model, patch: np.ndarray, order: np.ndarray) -> tuple[float, float]:
    return deletion_insertion(model, prepared_pixels(model, patch[None]), order)


def _localised(model: Model, heat: np.ndarray, mask: np.ndarray | None) -> dict[str, Any]:
    found: dict[str, Any] = {"heat": bool(heat.max() > 0)}
    if mask is None:
        return found
    inside = _within(seen_by(model), heat.shape)
    heat, mask = heat[inside], mask[inside]
    if mask.all() or not mask.any():
        return found | dict.fromkeys(("area", *LOCALISATION), float("nan"))
    return found | {
        "area": float(mask.mean()),
        "pointing": pointing(heat, mask),
        "energy": energy_inside(heat, mask),
        "mask_auc": mask_auc(heat, mask),
    }


def _within(part: tuple[int, int], whole: tuple[int, ...]) -> tuple[slice, slice]:
    """The centre of that size."""
    top, left = (whole[0] - part[0]) // 2, (whole[1] - part[1]) // 2
    return slice(top, top + part[0]), slice(left, left + part[1])
