"""Whether to believe the heat maps: each method measured on images that the model has not seen."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.masks import read_masks
from tumortrace.errors import CohortError, ModelError
from tumortrace.evaluation.means import mean_with_interval
from tumortrace.inference.explain.baseline import BASELINES
from tumortrace.inference.explain.controls import CONTROLS
from tumortrace.inference.explain.evidence import prepared_pixels
from tumortrace.inference.explain.localisation import energy_inside, mask_auc, pointing
from tumortrace.inference.explain.methods import METHODS, Method, heat_of, require_method
from tumortrace.inference.explain.perturbation import cell_order, deletion_insertion, probability_of, random_order
from tumortrace.inference.explain.pictures import seen_by
from tumortrace.inference.explain.randomisation import SUSPECT, cascade, rank_correlation, similarity
from tumortrace.inference.unseen import open_unseen
from tumortrace.models.bundle import Model, find_bundle, load_model
from tumortrace.reports.report import renew_report
from tumortrace.runs.files import write_csv, write_json
from tumortrace.runs.progress import say, track
from tumortrace.runs.provenance import RESEARCH_USE, versions
from tumortrace.runs.run import now

IMAGES, RANDOMISED = 64, 12
SYNTHETIC = "synthetic:patches?count=400&seed=6021"
LOCALISATION = ("pointing", "energy", "mask_auc")
PERTURBATION = ("deletion", "insertion", "deletion_gain", "insertion_gain")


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
    - Deletion and insertion: the mean probability as the hottest cells go or come; what is gained over a random order.
    - The randomisation test: the rank correlation of maps with those of the model with random weights.

    The same is measured of two controls that explain nothing: a bump over the centre and an edge detector.

    Args:
        run: Run folder or bundle.
        data: Labelled data that the model has not seen; what it has seen is left out. Default synthetic tissue.
        methods: Names in `METHODS`; default all that the model allows.
        images: How many images at most, default 64; the randomisation test takes twelve of them.
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
    chance = [_areas(model, patch, random_order(seed + row)) for row, patch in enumerate(patches)]
    for name, method in track((asked | CONTROLS).items(), "measuring", total=len(asked) + len(CONTROLS)):
        started = time.process_time()
        heat = heat_of(model, patches, method)
        spent[name] = (time.process_time() - started) / len(patches)
        parts.append(_per_image(model, patches, heat, masks, chance, seed).assign(method=name))
        for share, rank, ssim in _randomised(model, patches[some], heat[some], method, seed):
            parts[-1].loc[some, f"rank_correlation_{share:.2f}"] = rank
            parts[-1].loc[some, f"ssim_{share:.2f}"] = ssim
    table = pd.concat(parts, ignore_index=True)
    identities = unseen.cohort.table["id"].iloc[rows].to_list()
    table.insert(0, "id", identities * len(parts))
    table.insert(1, "group", groups * len(parts))
    folder = Path(out) if out is not None else bundle.parent / "explanations"
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
    renew_report(bundle.parent, folder)
    return folder / "measures.json"


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


def _per_image(
    model: Model,
    patches: np.ndarray,
    heat: np.ndarray,
    masks: np.ndarray | None,
    chance: list[tuple[float, float]],
    seed: int,
) -> pd.DataFrame:
    """Localisation, deletion and insertion of each image; `chance` has the areas of a random order."""
    rows = []
    for row, each in enumerate(heat):
        seen = each[_within(seen_by(model), each.shape)]
        falling, rising = _areas(model, patches[row], cell_order(seen, seed + row))
        perturbed = {
            "deletion": falling,
            "insertion": rising,
            "random_deletion": chance[row][0],
            "random_insertion": chance[row][1],
            "deletion_gain": chance[row][0] - falling,
            "insertion_gain": rising - chance[row][1],
        }
        rows.append(_localised(model, each, None if masks is None else masks[row]) | perturbed)
    return pd.DataFrame(rows)


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


def _randomised(
    model: Model, patches: np.ndarray, heat: np.ndarray, method: Method, seed: int
) -> Iterable[tuple[float, list[float], list[float]]]:
    """Share of random layers, rank correlations and structural similarities with the trained model's maps."""
    inside = _within(seen_by(model), heat.shape[1:])
    for share, random in cascade(model, seed):
        pairs = [
            (first[inside], second[inside])
            for first, second in zip(heat, heat_of(random, patches, method), strict=True)
        ]
        yield share, [rank_correlation(*pair) for pair in pairs], [similarity(*pair) for pair in pairs]


def _within(part: tuple[int, int], whole: tuple[int, ...]) -> tuple[slice, slice]:
    """The centre of that size."""
    top, left = (whole[0] - part[0]) // 2, (whole[1] - part[1]) // 2
    return slice(top, top + part[0]), slice(left, left + part[1])
