"""Synthetic slides of patients, small ones, with metastases of all size classes and their outlines for QuPath."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from shapely import Polygon

from tumortrace.cohorts.synthetic.folder import record, write_cohort
from tumortrace.cohorts.synthetic.shapes import Outline, draw_outline, fill
from tumortrace.cohorts.synthetic.slide import follicles, lobules, outline_features, write_pyramid
from tumortrace.cohorts.synthetic.tissue import SCANNERS, Plan, colour, draw_stain, render, smooth_noise
from tumortrace.evaluation.metastases import SizeClass, pn_stage
from tumortrace.records.files import write_json
from tumortrace.records.tables import SLIDES

SHAPE = (512, 2304)
"""Rows and columns at 1 um per pixel, as of the patches: long, so that a macro-metastasis of more than 2 mm fits."""
CLASSES = ("normal", "tumour")
PER_PATIENT = 2
TRIES = 200  # of a place for a lesion
APART = 100  # um between two lesions at least; CAMELYON16 joins what lies closer than 75

# The largest lesion of the slides of one patient after another; half of the slides hold none.
_PATIENTS: tuple[tuple[SizeClass, SizeClass], ...] = (
    ("negative", "negative"),
    ("macro", "micro"),
    ("itc", "negative"),
    ("negative", "negative"),
    ("micro", "itc"),
    ("macro", "negative"),
    ("negative", "negative"),
    ("micro", "macro"),
    ("negative", "negative"),
    ("negative", "micro"),
)
# Largest extent in um and share of it that the width has, least and most, of the lesions of a slide, largest first.
_Lesion = tuple[tuple[float, float], tuple[float, float]]
_TINY: _Lesion = ((45, 70), (0.7, 1.0))
_LESIONS: dict[SizeClass, tuple[_Lesion, ...]] = {
    "negative": (),
    "itc": (((130, 195), (0.5, 0.9)),),
    "micro": (((350, 900), (0.25, 0.4)), ((110, 190), (0.5, 0.9)), _TINY),
    "macro": (((2040, 2140), (0.07, 0.1)), ((220, 300), (0.25, 0.4)), _TINY),
}


def write_slides(out: Path, count: int, seed: int, workers: int) -> None:
    """Write slides, their outlines, `slides.csv` and `cohort.json` to the folder `out`.

    Args:
        out: Folder: `slides/` gets pyramidal TIFFs (512 rows, 2304 columns, 1 um per pixel, four levels) and
            `annotations/` a GeoJSON for each, as QuPath writes it, without annotations where there is no tumour.
        count: Number of slides.
        seed: Seed.
        workers: Processes.
    """
    plan = plan_slides(count, seed)
    table = pd.DataFrame(
        {
            "slide": "slides/" + plan["id"] + ".tif",
            "label": [CLASSES[int(largest != "negative")] for largest in plan["largest"]],
            "patient": plan["patient"],
            "annotations": "annotations/" + plan["id"] + ".geojson",
            "largest": plan["largest"],
            "stage": plan["stage"],
        }
    )
    tasks = [
        partial(_write_slide, out / slide, out / outlines, index, seed, largest)
        for index, (slide, outlines, largest) in enumerate(
            zip(table["slide"], table["annotations"], table["largest"], strict=True)
        )
    ]
    made_by = record("slides", CLASSES, 1.0, count, seed)
    write_cohort(out, made_by, table, ("slides", "annotations"), tasks, workers, listed=SLIDES)


def _write_slide(slide: Path, outlines: Path, index: int, seed: int, largest: SizeClass) -> None:
    image, lesions = draw_patient_slide(index, seed, largest)
    write_pyramid(slide, image)
    write_json(outlines, outline_features(lesions))


def plan_slides(count: int, seed: int) -> pd.DataFrame:
    """Whose slide each is, and its largest metastasis.

    Returns:
        Columns `id`, `patient`, `largest` (`negative`, `itc`, `micro` or `macro`) and `stage` (pN, of the patient, by
        CAMELYON17's rules), one row for each slide; two slides of a patient, about half of all without tumour.

    Example:
        >>> plan_slides(4, seed=0)[["patient", "largest", "stage"]].to_numpy().tolist()[1:3]
        [['synthetic-0-patient-0000', 'negative', 'pN0'], ['synthetic-0-patient-0001', 'macro', 'pN1']]
    """
    rows = []
    for index in range(count):
        patient, number = divmod(index, PER_PATIENT)
        largest = _PATIENTS[patient % len(_PATIENTS)][number]
        # patches are called by numbers alone, and a model of these has not learnt from slides
        rows.append((f"synthetic-{seed}-slide-{index:04d}", f"synthetic-{seed}-patient-{patient:04d}", largest))
    table = pd.DataFrame(rows, columns=["id", "patient", "largest"])
    return table.assign(stage=table.groupby("patient")["largest"].transform(lambda nodes: pn_stage(nodes)))


def draw_patient_slide(index: int, seed: int, largest: SizeClass) -> tuple[NDArray[np.uint8], list[Outline]]:
    """The picture of a slide and the outlines of its lesions, largest first; the same for the same arguments.

    Returns:
        uint8 (512, 2304, 3) RGB, and outlines as float64 (n, 2) rows and columns, within the tissue and at least 100 um
        apart.
    """
    rng = np.random.default_rng([seed, 7, index])
    stain = draw_stain(rng, SCANNERS[index % len(SCANNERS)])
    border, lesions = draw_lesions(rng, largest)
    tissue, tumour = fill([border], SHAPE), fill(lesions, SHAPE)
    nests = [draw_outline(rng, tuple(rng.uniform((120, 200), (392, 2104))), rng.uniform(25, 60)) for _ in range(3)]
    reactive = fill(nests, SHAPE) & tissue & ~tumour
    plan = Plan(
        tissue=tissue,
        fat=(smooth_noise(rng, SHAPE, 260) > 1.2) & ~tumour & ~reactive,
        lymphoid=follicles(rng, SHAPE, (80, 150), 5),
        glands=lobules(rng, SHAPE, (80, 150), 6),
        reactive=reactive,
        tumour=tumour,
        grade=rng.uniform(0.35, 0.9),
        cellularity=rng.uniform(0.75, 1),
    )
    return colour(*render(plan, rng), stain, rng, defocus=0.2), lesions


def draw_lesions(rng: np.random.Generator, largest: SizeClass) -> tuple[Outline, list[Outline]]:
    """The outline of a slide's tissue, and those of its lesions, largest first."""
    while True:  # a strip in which one of them finds no place is drawn anew
        border = _border(rng)
        lesions = _place(rng, border, _LESIONS[largest])
        if lesions is not None:
            return border, lesions


def _border(rng: np.random.Generator) -> Outline:
    """A long strip of tissue with rounded ends and a wavy edge."""
    wave = draw_outline(rng, (0, 0), 400, roughness=0.02)
    length = np.linalg.norm(wave, axis=1, keepdims=True)
    row, column = (wave / length).T
    reach = (np.abs(row / (0.45 * SHAPE[0])) ** 6 + np.abs(column / (0.485 * SHAPE[1])) ** 6) ** (-1 / 6)
    return wave / 400 * reach[:, None] + np.array(SHAPE) / 2


def _place(rng: np.random.Generator, border: Outline, wanted: tuple[_Lesion, ...]) -> list[Outline] | None:
    """Lesions of the wanted extents within the tissue, apart from one another; None where one finds no place."""
    tissue, placed, outlines = Polygon(border).buffer(-5), Polygon(), list[Outline]()
    for extents, widths in wanted:
        extent, width = rng.uniform(*extents), rng.uniform(*widths)
        for _ in range(TRIES):
            reach = np.maximum((np.array(SHAPE) - (width * extent, extent)) / 2 - 40, 5)
            centre = np.array(SHAPE) / 2 + rng.uniform(-reach, reach)
            outline = _lesion(rng, extent, width) + centre
            shape = Polygon(outline)
            if shape.is_valid and tissue.contains(shape) and (placed.is_empty or placed.distance(shape) > APART):
                break
        else:
            return None
        placed = placed.union(shape)
        outlines.append(outline)
    return outlines


def _lesion(rng: np.random.Generator, extent: float, width: float) -> Outline:
    """An outline around 0 whose two points farthest from each other are `extent` apart, nearly along the slide."""
    outline = draw_outline(rng, (0, 0), 100, roughness=0.1) * (width, 1)
    tilt = rng.uniform(-0.02, 0.02)
    turned = outline @ np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    return np.asarray(turned * (extent / pdist(turned).max()))
