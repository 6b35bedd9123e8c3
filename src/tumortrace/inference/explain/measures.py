"""Whether to believe the heat maps: each method measured on images that the model has not seen."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import numpy as np
import pandas as pd

from tumortrace.cohorts.cohort import Cohort, ReadingOptions
from tumortrace.cohorts.masks import read_masks
from tumortrace.errors import CohortError, ModelError
from tumortrace.evaluation.intervals import mean_with_interval
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
from tumortrace.inference.explain.methods import CONTROLS, METHODS, Method, heat_of, refusals, require_method, seen_by
from tumortrace.inference.explain.pictures import explanations_folder
from tumortrace.inference.unseen import end, open_unseen, provenance
from tumortrace.models.bundle import Model, load_model
from tumortrace.records.evaluation import Chance, ExplanationMeasures, Mean, MeasuredMethod, Randomised
from tumortrace.records.progress import say, track
from tumortrace.records.tables import MEASURES

LOCALISATION = {"pointing": pointing, "energy": energy_inside, "mask_auc": mask_auc}
PERTURBATION = ("deletion", "insertion", "deletion_gain", "insertion_gain")
NETWORKS = 3  # wholly random ones: a single one may by chance look where the trained one does
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
    allow: Sequence[str] = (),
    **reading: Unpack[ReadingOptions],
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
        allow: Name of a finding of `check`, or `resolution-mismatch`, to go on in spite of.
        **reading: How the data are read: options of `open_cohort`.

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
    model = load_model(run, device=device)
    unseen = open_unseen(model, data, allow=allow, **reading)
    rows = _positive_rows(model, unseen.store.images, unseen.rows, images, unseen.cohort.name)
    unseen = replace(unseen, rows=rows)
    patches, groups = unseen.images, unseen.table["group"].astype(object).to_list()
    masks = read_masks(unseen.cohort, rows, model.info.patch_size)
    asked = ({name: require_method(name) for name in methods} if methods else _allowed(model)) | CONTROLS
    some = _spread(len(rows), RANDOMISED)
    parts, spent = [], {}
    chance = chance_areas(model, patches, seed)
    for name, method in track(asked.items(), "measuring", total=len(asked)):
        started = time.process_time()
        heat = heat_of(model, patches, method)
        spent[name] = (time.process_time() - started) / len(patches)
        part = per_image(model, patches, heat, masks, seed).assign(**chance, method=name)
        for share, rank, ssim in randomised(model, patches[some], heat[some], method, seed):
            part.loc[some, f"rank_correlation_{share:.2f}"] = rank
            part.loc[some, f"ssim_{share:.2f}"] = ssim
        part.insert(0, "id", unseen.table["id"].to_list())
        part.insert(1, "group", groups)
        parts.append(part)
    folder, table = explanations_folder(model, out), pd.concat(parts, ignore_index=True)
    MEASURES.write(folder, table)
    record = summarise(table)
    for name, measured in record.methods.items():
        measured.title, measured.control = asked[name].title, name in CONTROLS
        measured.seconds = round(spent[name], 4)
    known = {
        "model": model.named,
        "data": unseen.data,
        "target": model.info.positive_class,
        "threshold": model.info.threshold,
        "images": len(rows),
        "groups": len(set(groups)) if unseen.cohort.has_groups else None,
        "seed": seed,
        "blank": _of_blank(model, patches, groups),
        "notes": unseen.notes,
    }
    file = ExplanationMeasures.model_validate({**record.as_json(), **known, **provenance()}).write(folder)
    end(model, folder, f"explain: {file.name} and {MEASURES.name} in {folder}", unseen.notes)
    return file


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


def _of_blank(model: Model, patches: np.ndarray, groups: list[str | None]) -> dict[str, Mean]:
    """Probability of what methods compare with, and of what else they could; it should be low."""
    filled = {
        name: [float(probability_of(model, fill(prepared_pixels(model, patch[None])))[0]) for patch in patches]
        for name, fill in {"the patch": lambda pixels: pixels, **BASELINES}.items()
    }
    return {name: mean_with_interval(values, groups) for name, values in filled.items()}


def _allowed(model: Model) -> dict[str, Method]:
    """The methods that the model allows; those that it does not are said."""
    refused = refusals(model)
    for name, refusal in refused.items():
        say(f"note: {METHODS[name].title} is left out: {refusal.found}")
    return {name: method for name, method in METHODS.items() if name not in refused}


def per_image(model: Model, patches: np.ndarray, heat: np.ndarray, masks: np.ndarray | None, seed: int) -> pd.DataFrame:
    """Localisation, deletion and insertion of each image.

    What is gained is gained over the maps of two other patches, as the shuffled AUC does it with the gaze of viewers
    (Zhang et al. 2008, "SUN"): they are as coarse and as central as the patch's own, so that a map gains only by
    what it knows of the patch. A random order of cells is no fair rival: it strews holes over all of the picture.

    Patches are uint8 (N, H, W, 3), maps by one method float (N, H, W), masks bool (N, H, W) and True on tumour; `seed`
    orders cells of equal heat. The gains are NaN where there is but one image.
    """
    inside = _within(seen_by(model), heat.shape[1:])
    orders = [cell_order(single[inside], seed + row) for row, single in enumerate(heat)]
    rows = []
    for row, patch in enumerate(patches):
        falling, rising = _areas(model, patch, orders[row])
        strange = np.array([_areas(model, patch, orders[other]) for other in others(row, len(patches))])
        low, high = strange.mean(0) if len(strange) else (np.nan, np.nan)
        perturbed = dict(zip(PERTURBATION, (falling, rising, low - falling, rising - high), strict=True))
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
    falling, rising = zip(
        *(_areas(model, patch, random_order(seed + row)) for row, patch in enumerate(patches)), strict=True
    )
    return {"random_deletion": list(falling), "random_insertion": list(rising)}


def randomised(
    model: Model, patches: np.ndarray, heat: np.ndarray, method: Method, seed: int
) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """How much of the maps stays as the weights go; of wholly random networks the mean over several.

    Yields the share of random layers, and each image's rank correlation and structural similarity with the trained map.
    """
    inside = _within(seen_by(model), heat.shape[1:])

    def kept(random: Model) -> np.ndarray:
        maps = heat_of(random, patches, method)
        pairs = [(first[inside], second[inside]) for first, second in zip(heat, maps, strict=True)]
        return np.array([[rank_correlation(*pair), similarity(*pair)] for pair in pairs])

    for share, random in cascade(model, seed):
        values = [kept(random)]
        if share == 1:
            more = (stage for number in range(1, NETWORKS) for stage in cascade(model, seed + number, shares=(1.0,)))
            values += [kept(network) for _, network in more]
        yield share, *_means(np.stack(values)).T


def _means(values: np.ndarray) -> np.ndarray:
    """Mean over the networks of what is defined; NaN where nothing is."""
    defined = (~np.isnan(values)).sum(0)
    return np.where(defined > 0, np.nansum(values, 0) / np.maximum(defined, 1), np.nan)


def _areas(model: Model, patch: np.ndarray, order: np.ndarray) -> tuple[float, float]:
    return deletion_insertion(model, prepared_pixels(model, patch[None]), order)


def _localised(model: Model, heat: np.ndarray, mask: np.ndarray | None) -> dict[str, float | bool]:
    measured: dict[str, float | bool] = {"heat": bool(heat.max() > 0)}
    if mask is None:
        return measured
    inside = _within(seen_by(model), heat.shape)
    heat, mask = heat[inside], mask[inside]
    if mask.all() or not mask.any():
        return measured | dict.fromkeys(("area", *LOCALISATION), float("nan"))
    return measured | {"area": float(mask.mean())} | {name: of(heat, mask) for name, of in LOCALISATION.items()}


def _within(part: tuple[int, int], whole: tuple[int, ...]) -> tuple[slice, slice]:
    """The centre of that size."""
    top, left = (whole[0] - part[0]) // 2, (whole[1] - part[1]) // 2
    return slice(top, top + part[0]), slice(left, left + part[1])


def summarise(table: pd.DataFrame) -> ExplanationMeasures:
    """Means with intervals of a table of measures, as in `measures.csv`: by method, of a random order, and of chance.

    Chance is the tumour's share of the area that the network sees, and .5 for the AUC.
    """
    methods = {str(name): _summary(part) for name, part in table.groupby("method", sort=False)}
    first = table[table["method"] == table["method"].iloc[0]]
    groups = first["group"].to_list()
    whole = first["group"].notna().all() and len(set(groups)) > 1
    drawn = "whole groups" if whole else "single images, too narrow where several come from one slide or patient"
    return ExplanationMeasures(
        methods=methods,
        random_order={key: mean_with_interval(first[f"random_{key}"], groups) for key in ("deletion", "insertion")},
        chance=Chance(area=mean_with_interval(first["area"], groups) if "area" in first else None, mask_auc=0.5),
        intervals=f"95 % intervals: percentile bootstrap of {drawn}, 1000 replicates",
    )


def _summary(part: pd.DataFrame) -> MeasuredMethod:
    """Of one method."""
    groups, prefix = part["group"].to_list(), "rank_correlation_"
    shares = [str(column).removeprefix(prefix) for column in part if str(column).startswith(prefix)]
    stages = [
        Randomised(
            share=float(share),
            rank_correlation=mean_with_interval(part[f"{prefix}{share}"], groups),
            ssim=mean_with_interval(part[f"ssim_{share}"], groups),
        )
        for share in shares
    ]
    means = {name: mean_with_interval(part[name], groups) for name in (*LOCALISATION, *PERTURBATION) if name in part}
    depends, without = depends_on_weights(stages), int((~part["heat"]).sum())
    counted = {"randomised": stages, "depends_on_weights": depends, "without_heat": without}
    return MeasuredMethod.model_validate({**means, **counted})


def depends_on_weights(stages: Sequence[Randomised]) -> str | None:
    """Whether maps of the wholly random model differ: "yes" or "no" where the interval lies below or above `SUSPECT`,
    "undecided" where it does not; None where nothing could be randomised.
    """
    if not stages or (last := stages[-1].rank_correlation).value is None:
        return None
    low, high = last.ci95 or (last.value, last.value)
    return "yes" if high is not None and high < SUSPECT else "no" if low is not None and low >= SUSPECT else "undecided"
