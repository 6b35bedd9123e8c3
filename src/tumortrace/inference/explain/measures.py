"""Whether to believe the heat maps: each method measured on images that the model has not seen."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.masks import read_masks
from tumortrace.errors import CohortError, ModelError
from tumortrace.evaluation.intervals import mean_with_interval
from tumortrace.inference.evaluate import open_unseen
from tumortrace.inference.explain.evidence import BASELINES, prepared_pixels
from tumortrace.inference.explain.faithfulness import (
    SUSPECT,
    cascade,
    cell_order,
    deletion_insertion,
    energy_inside,
    mask_auc,
    pointing,
    probability_of,
    random_order,
    rank_correlation,
    similarity,
)
from tumortrace.inference.explain.methods import CONTROLS, METHODS, Method, heat_of, require_method
from tumortrace.inference.explain.pictures import seen_by
from tumortrace.models.bundle import Model, find_bundle, load_model
from tumortrace.records.files import write_csv, write_json
from tumortrace.records.output import require_folder
from tumortrace.records.progress import say, track
from tumortrace.records.provenance import RESEARCH_USE, versions
from tumortrace.records.run import now
from tumortrace.reports.report import renew_report

IMAGES, RANDOMISED = 64, 24
SYNTHETIC = "synthetic:patches?count=400&seed=6021"


def measure(
    run: str | Path,
    data: str | Path | Cohort = SYNTHETIC,
    *,
    methods: Sequence[str] | None = None,
    images: int | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    **options: str | float | None,
) -> Path:
    """Measure how far the heat maps of a model can be believed, on images that it predicts positive.

    - Where the data have masks and the patch shows both tumour and something else: the pointing game, the share of the
      positive heat on tumour, and the ROC AUC of heat against the mask, within the crop that the network sees.
    - Deletion and insertion: the mean probability as the hottest cells go or come; what is gained over the maps that
      the method makes of other patches.
    - The randomisation test: the rank correlation of maps with those of the model with random weights.

    The same is measured of two controls that explain nothing: a bump over the centre and an edge detector.

    Args:
        run: Run folder or bundle.
        data: Labelled data that the model has not seen; what it has seen is left out. Default synthetic tissue.
        methods: Names in `METHODS`; default all that the model allows.
        images: How many images at most, default 64; the randomisation test takes twenty-four of them.
        out: Folder to write; default `explanations` in the run folder.
        seed: Of random orders and random weights.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        options: How to read the data, as for `open_cohort`.

    Returns:
        `measures.json`, beside `measures.csv` with one row per image and method; written into the run folder, the
        report is written again.

    Raises:
        CohortError: The model predicts no image positive, or has seen all.
        ModelError: There is no such method, or the model does not fit it.
    """
    images = IMAGES if images is None else images
    if images < 1:
        raise ModelError(f"{images} images", expected="1 or more", remedy="name another number")
    model, bundle = load_model(run, device=device), find_bundle(run)
    unseen = open_unseen(model, bundle, data, **options)
    rows = _positive_rows(model, unseen.store.images, unseen.rows, images, unseen.cohort.name)
    patches = unseen.store.images[rows]
    groups = unseen.cohort.table["group"].iloc[rows].astype(object).to_list()
    masks = read_masks(unseen.cohort, rows, model.info.patch_size)
    asked = {name: require_method(name) for name in methods} if methods else _allowed(model, patches[:1])
    some = _spread(len(rows), RANDOMISED)
    parts, spent = [], {}
    chance = chance_areas(model, patches, seed)
    for name, method in track((asked | CONTROLS).items(), "measuring", total=len(asked) + len(CONTROLS)):
        started = time.process_time()
        heat = heat_of(model, patches, method)
        spent[name] = (time.process_time() - started) / len(patches)
        parts.append(per_image(model, patches, heat, masks, seed).assign(**chance, method=name))
        for share, rank, ssim in randomised(model, patches[some], heat[some], method, seed):
            parts[-1].loc[some, f"rank_correlation_{share:.2f}"] = rank
            parts[-1].loc[some, f"ssim_{share:.2f}"] = ssim
    table = pd.concat(parts, ignore_index=True)
    identities = unseen.cohort.table["id"].iloc[rows].to_list()
    table.insert(0, "id", identities * len(parts))
    table.insert(1, "group", groups * len(parts))
    folder = Path(out) if out is not None else bundle.parent / "explanations"
    require_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "measures.csv", table)
    record: dict[str, Any] = {
        "model": {"name": model.info.name, "weights_sha256": model.info.weights_sha256},
        "data": {"name": unseen.cohort.name, "fingerprint": unseen.cohort.fingerprint, "split": unseen.split},
        "target": model.info.positive_class,
        "threshold": model.info.threshold,
        "images": len(rows),
        "groups": len(set(groups)) if unseen.cohort.has_groups else None,
        "seed": seed,
        **summarise(table),
        "blank": _of_blank(model, patches, groups),
        "notes": unseen.notes,
        "versions": versions(),
        "finished": now(),
        "research_use": RESEARCH_USE,
    }
    for name, method in (asked | CONTROLS).items():
        record["methods"][name] |= {
            "title": method.title,
            "control": name in CONTROLS,
            "seconds": round(spent[name], 4),
        }
    write_json(folder / "measures.json", record)
    for note in unseen.notes:
        say(f"note: {note}")
    say(f"explain: measures.json and measures.csv in {folder}. {RESEARCH_USE}")
    renew_report(bundle.parent, folder)
    return folder / "measures.json"


def _positive_rows(model: Model, images: np.ndarray, rows: np.ndarray, most: int, where: str) -> np.ndarray:
    """Rows that the model predicts positive, spread evenly over the data."""
    positive = rows[model.assess(images, rows, description="predicting").prediction == 1]
    if not len(positive):
        raise CohortError(
            f"the model predicts none of {len(rows):,} images {model.info.positive_class}: there is nothing to explain",
            where=where,
            remedy="measure on data with positive images",
        )
    return positive[_spread(len(positive), most)]


def _spread(count: int, most: int) -> np.ndarray:
    """Up to `most` of the first `count` whole numbers, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))


def _of_blank(model: Model, patches: np.ndarray, groups: list[str | None]) -> dict[str, Any]:
    """Probability of what methods compare with, and of what else they could; it should be low."""
    filled = {
        name: [float(probability_of(model, fill(prepared_pixels(model, patch[None])))[0]) for patch in patches]
        for name, fill in {"the patch": lambda pixels: pixels, **BASELINES}.items()
    }
    return {name: mean_with_interval(values, groups) for name, values in filled.items()}


def _allowed(model: Model, patch: np.ndarray) -> dict[str, Method]:
    """The methods that the model allows, told by trying."""
    allowed = {}
    for name, method in METHODS.items():
        if method.gradients:
            try:
                heat_of(model, patch, method)
            except ModelError as refusal:
                say(f"note: {method.title} is left out: {refusal.found}")
                continue
        allowed[name] = method
    return allowed


# What is measured of the heat map of each image: where it lies, what its hottest parts carry, whether it stays.


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


# Means with intervals of what was measured of heat maps, and whether they depend on the weights.


LOCALISATION = ("pointing", "energy", "mask_auc")
PERTURBATION = ("deletion", "insertion", "deletion_gain", "insertion_gain")


def summarise(table: pd.DataFrame) -> dict[str, Any]:
    """Means with intervals of a table of measures: by method, of a random order, and of chance.

    Args:
        table: As in `measures.csv`.

    Returns:
        `methods`, `random_order`, `chance` (the tumour's share of the area that the network sees; .5 for the AUC) and
        `intervals`, which says how these were made.
    """
    methods: dict[str, Any] = {}
    for name, part in table.groupby("method", sort=False):
        groups = part["group"].to_list()
        entry: dict[str, Any] = {
            key: mean_with_interval(part[key], groups) for key in (*LOCALISATION, *PERTURBATION) if key in part
        }
        stages = [
            str(key).removeprefix("rank_correlation_") for key in part if str(key).startswith("rank_correlation_")
        ]
        entry["randomised"] = [
            {
                "share": float(share),
                "rank_correlation": mean_with_interval(part[f"rank_correlation_{share}"], groups),
                "ssim": mean_with_interval(part[f"ssim_{share}"], groups),
            }
            for share in stages
        ]
        entry["depends_on_weights"] = _depends(entry["randomised"])
        entry["without_heat"] = int((~part["heat"]).sum())
        methods[str(name)] = entry
    first = table[table["method"] == table["method"].iloc[0]]
    groups = first["group"].to_list()
    whole = first["group"].notna().all() and len(set(groups)) > 1
    return {
        "methods": methods,
        "random_order": {key: mean_with_interval(first[f"random_{key}"], groups) for key in ("deletion", "insertion")},
        "chance": {
            "area": mean_with_interval(first["area"], groups) if "area" in first else None,
            "mask_auc": 0.5,
        },
        "intervals": "95 % intervals: percentile bootstrap of "
        + ("whole groups" if whole else "single images, too narrow where several come from one slide or patient")
        + ", 1000 replicates",
    }


def _depends(stages: list[dict[str, Any]]) -> str | None:
    """Whether maps of the wholly random model differ: "yes" or "no" where the interval lies below or above `SUSPECT`,
    "undecided" where it does not; None where nothing could be randomised.
    """
    last = stages[-1]["rank_correlation"] if stages else {"value": None, "ci95": None}
    if last["value"] is None:
        return None
    low, high = last["ci95"] or (last["value"], last["value"])
    return "yes" if high < SUSPECT else "no" if low >= SUSPECT else "undecided"
