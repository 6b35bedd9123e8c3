"""Whether to believe the heat maps: each method measured on images that the model has not seen."""

from __future__ import annotations

import time
from collections.abc import Sequence
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
from tumortrace.inference.explain.methods import METHODS, Method, heat_of, require_method
from tumortrace.inference.explain.per_image import chance_areas, per_image, randomised
from tumortrace.inference.explain.perturbation import probability_of
from tumortrace.inference.explain.summary import summarise
from tumortrace.inference.unseen import open_unseen
from tumortrace.models.bundle import Model, find_bundle, load_model
from tumortrace.reports.report import renew_report
from tumortrace.runs.files import write_csv, write_json
from tumortrace.runs.output import require_folder
from tumortrace.runs.progress import say, track
from tumortrace.runs.provenance import RESEARCH_USE, versions
from tumortrace.runs.run import now

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
