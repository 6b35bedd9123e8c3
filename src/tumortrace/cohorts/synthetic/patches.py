"""Synthetic H&E patches of 96x96 px at 1 um per pixel, labelled as PatchCamelyon is."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tumortrace.cohorts.synthetic.folder import record, write_cohort, write_png
from tumortrace.cohorts.synthetic.shapes import Outline, draw_outline, fill
from tumortrace.cohorts.synthetic.tissue import (
    SCANNERS,
    Density,
    Mask,
    Plan,
    Stain,
    colour,
    draw_stain,
    lobule,
    render,
    smooth_noise,
)

SIZE = 96
CLASSES = ("normal", "tumour")
CENTRE = slice(32, 64)  # a patch is positive when these rows and columns hold a pixel of tumour
PER_SLIDE = 50
#: What the centre of a patch of `synthetic:tissues` shows: stroma and glands, nests of benign epithelium, round nests
#: of low grade, irregular sheets and nests of high grade.
NORMAL, TUMOUR = ("normal", "benign"), ("insitu", "invasive")
TISSUES = NORMAL + TUMOUR
_RIM = 8  # drawn around the patch and cut off, so that its edges look like its middle
_PLANE = SIZE + 2 * _RIM
_MIDDLE = _PLANE / 2


def write_patches(out: Path, count: int, seed: int, workers: int, *, tissues: bool = False) -> None:
    """Write patches, masks, `cohort.csv` and `cohort.json` to the folder `out`; of four classes with `tissues`."""
    plan = plan_patches(count, seed, tissues=tissues)
    kinds = plan["class_name"] if tissues else plan["label"].astype(bool)
    tasks = [
        partial(_write_patch, out, identity, index, seed, kind, slide_stain(group, scanner))
        for index, (identity, kind, group, scanner) in enumerate(
            zip(plan["id"], kinds, plan["group"], plan["scanner"], strict=True)
        )
    ]
    table = pd.DataFrame(
        {
            "id": plan["id"],
            "path": "patches/" + plan["id"] + ".png",
            "mask": "masks/" + plan["id"] + ".png",
            "label": plan["label"],
            "group": plan["group"],
            "scanner": plan["scanner"],
            "split": None,
            **({"class_name": plan["class_name"]} if tissues else {}),
        }
    )
    made_by = record("tissues" if tissues else "patches", CLASSES, 1.0, count, seed)
    if tissues:
        made_by = made_by.model_copy(update={"classes": ["+".join(NORMAL), "+".join(TUMOUR)]})
        made_by = made_by.model_copy(update={"class_names": list(TISSUES), "positive_names": list(TUMOUR)})
    write_cohort(out, made_by, table, ("patches", "masks"), tasks, workers)


def _write_patch(out: Path, identity: str, index: int, seed: int, kind: bool | str, stain: Stain) -> None:
    image, tumour = draw_patch(index, seed, kind, stain)
    write_png(out / "patches" / f"{identity}.png", image)
    write_png(out / "masks" / f"{identity}.png", tumour.astype(np.uint8) * np.uint8(255))


def plan_patches(count: int, seed: int, *, tissues: bool = False) -> pd.DataFrame:
    """Which patch lies on which slide, from which scanner, and its label.

    Args:
        count: Number of patches.
        seed: Seed.
        tissues: Whether patches of either label are of two classes each, `TISSUES`.

    Returns:
        Columns `id`, `label` (0, 1; about 40 % are 1, 25 to 55 % of each slide, and both occur on each), `group`
        (the slide) and `scanner`, and with `tissues` `class_name`, one row per patch.

    Example:
        >>> table = plan_patches(100, seed=0)
        >>> table["group"].nunique(), int(table.groupby("group")["label"].nunique().min())
        (8, 2)
    """
    slides = max(8, count // PER_SLIDE)
    rows = []
    for slide, members in enumerate(np.array_split(np.arange(count), slides)):
        rng = np.random.default_rng([seed, 1, slide])
        positives = int(np.clip(round(len(members) * rng.uniform(0.25, 0.55)), 1, len(members) - 1))
        labels = rng.permutation(np.arange(len(members)) < positives).astype(int)
        group, scanner = f"slide-{seed}-{slide:04d}", SCANNERS[slide % len(SCANNERS)]
        rows += [(f"synthetic-{seed}-{i:06d}", label, group, scanner) for i, label in zip(members, labels, strict=True)]
    table = pd.DataFrame(rows, columns=["id", "label", "group", "scanner"])
    if tissues:
        second = np.random.default_rng([seed, 3]).random(count) < 0.5
        table["class_name"] = np.array(TISSUES)[2 * table["label"].to_numpy() + second]
    return table


def slide_stain(group: str, scanner: str) -> Stain:
    """The stain that all patches of one slide share; it does not depend on labels."""
    return draw_stain(np.random.default_rng([2, *group.encode()]), scanner)


def draw_patch(index: int, seed: int, kind: bool | str, stain: Stain) -> tuple[NDArray[np.uint8], Mask]:
    """One patch and its exact tumour mask; the same for the same arguments.

    Args:
        index: Number of the patch.
        seed: Seed of the cohort.
        kind: Whether tumour reaches the centre 32x32 px, or one of `TISSUES`.
        stain: Stain of its slide.

    Returns:
        uint8 (96, 96, 3) RGB and bool (96, 96).

    Example:
        >>> image, mask = draw_patch(0, seed=0, kind=True, stain=slide_stain("slide-0-0000", "scanner-a"))
        >>> image.shape, bool(mask[CENTRE, CENTRE].any())
        ((96, 96, 3), True)
    """
    rng = np.random.default_rng([seed, 0, index])
    plan = _compose(rng, kind) if isinstance(kind, bool | np.bool_) else _compose_tissue(rng, kind)
    haematoxylin, eosin = render(plan, rng)
    image = colour(haematoxylin, eosin, stain, rng, defocus=rng.uniform(0, 0.5))
    inner = slice(_RIM, _RIM + SIZE)
    return image[inner, inner], plan.tumour[inner, inner]


def _compose(rng: np.random.Generator, positive: bool) -> Plan:
    """A plan of one patch: what surrounds the tumour is drawn alike with and without it."""
    shape = (_PLANE, _PLANE)
    tumour = _islands(rng, positive)
    tissue, fat = np.ones(shape, bool), np.zeros(shape, bool)
    if rng.random() < 0.08:
        tissue = _half_plane(rng)
    if rng.random() < 0.15:
        fat = smooth_noise(rng, shape, 50) > rng.uniform(-0.8, 0.8)
    lymphoid = _clusters(rng) if rng.random() < 0.4 else np.zeros(shape, np.float32)
    glands = np.empty((0, 3))
    if rng.random() < 0.45:
        row, column = rng.uniform(0, _PLANE, 2)
        glands = lobule(rng, (row, column), rng.uniform(20, 80))
    reactive = np.zeros(shape, bool)
    if rng.random() < 0.25:
        reactive = fill(_nests(rng, spread=0), shape) & ~tumour
    return Plan(
        tissue=tissue | tumour | reactive,
        fat=fat & ~tumour & ~reactive,
        lymphoid=lymphoid,
        glands=glands,
        reactive=reactive,
        tumour=tumour,
        grade=rng.uniform(0, 1),
        cellularity=rng.uniform(0.55, 1),
    )


def _compose_tissue(rng: np.random.Generator, kind: str) -> Plan:
    """A plan of one patch whose centre shows one of `TISSUES`; what surrounds it is drawn alike for all."""
    shape = (_PLANE, _PLANE)
    plan = _compose(rng, False)
    centre = np.zeros(shape, bool)
    if kind == "invasive":
        centre = _islands(rng, True)
    elif kind != "normal":
        radii = rng.uniform(16, 30, 1 + (rng.random() < 0.4))
        places = (_MIDDLE + rng.uniform(-0.5, 0.5, 2) * (radius + 8) for radius in radii)
        nests = [
            draw_outline(rng, (y, x), radius, roughness=0.05) for (y, x), radius in zip(places, radii, strict=True)
        ]
        centre = fill(nests, shape)
    inner = np.zeros(shape, bool)
    inner[_RIM + CENTRE.start : _RIM + CENTRE.stop, _RIM + CENTRE.start : _RIM + CENTRE.stop] = True
    others = ~centre & ~inner
    tumour = kind in TUMOUR
    grade = {"insitu": rng.uniform(0, 0.35), "invasive": rng.uniform(0.6, 1)}.get(kind, plan.grade)
    return replace(
        plan,
        tissue=plan.tissue | centre,
        fat=plan.fat & ~centre,
        reactive=(plan.reactive & others) | (centre if kind == "benign" else np.zeros(shape, bool)),
        tumour=centre if tumour else np.zeros(shape, bool),
        grade=grade,
        cellularity=rng.uniform(0.85, 1) if kind == "insitu" else plan.cellularity,
    )


def _islands(rng: np.random.Generator, positive: bool) -> Mask:
    """Tumour that reaches the centre, or none of it there: beside the centre, all around it, or nowhere."""
    shape = (_PLANE, _PLANE)
    if not positive:
        draw = rng.random()
        if draw < 0.68:
            return np.zeros(shape, bool)
        if draw < 0.74:
            return ~fill([draw_outline(rng, (_MIDDLE, _MIDDLE), rng.uniform(28, 36), roughness=0.06)], shape)
    while True:
        mask = fill(_nests(rng, spread=0 if positive else 30), shape)
        near = mask[_RIM + CENTRE.start - 2 : _RIM + CENTRE.stop + 2, _RIM + CENTRE.start - 2 : _RIM + CENTRE.stop + 2]
        if (near[2:-2, 2:-2].sum() >= 40) if positive else (mask.any() and not near.any()):
            return mask


def _nests(rng: np.random.Generator, spread: float) -> list[Outline]:
    """A sheet of cells, up to three nests, or two groups of a few cells; `spread` takes them off the centre."""
    low, high, most = ((35, 70, 1), (13, 24, 3), (10, 13, 2))[rng.choice(3, p=[0.35, 0.35, 0.3])]
    radii = rng.uniform(low, high, rng.integers(1, most, endpoint=True))
    places = (_MIDDLE + rng.uniform(-1, 1, 2) * (radius + 12 + spread) for radius in radii)
    return [draw_outline(rng, (row, column), radius) for (row, column), radius in zip(places, radii, strict=True)]


def _half_plane(rng: np.random.Generator) -> Mask:
    """Tissue that ends at a wavy edge somewhere in the plane."""
    y, x = np.mgrid[:_PLANE, :_PLANE] - _MIDDLE
    theta = rng.uniform(0, 2 * np.pi)
    edge = 4 * smooth_noise(rng, (_PLANE, _PLANE), 20) + rng.uniform(-20, 55)
    return y * np.sin(theta) + x * np.cos(theta) < edge


def _clusters(rng: np.random.Generator) -> Density:
    """One to three dense clusters of lymphocytes."""
    y, x = np.ogrid[:_PLANE, :_PLANE]
    lymphoid = np.zeros((_PLANE, _PLANE), np.float32)
    for _ in range(rng.integers(1, 3, endpoint=True)):
        row, column = rng.uniform(10, _PLANE - 10, 2)
        reach = rng.uniform(10, 45)
        lymphoid += rng.uniform(0.5, 1.2) * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * reach**2))
    return np.minimum(lymphoid, 1)
