"""Which tiles a slide has, and the label of each, before any is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tumortrace.cohorts.findings import count
from tumortrace.errors import SlideError
from tumortrace.records.tiles import TiledSlide
from tumortrace.slides.annotations import read_annotations
from tumortrace.slides.annotations.classes import Areas
from tumortrace.slides.annotations.region import Region
from tumortrace.slides.cohort import SlideEntry
from tumortrace.slides.scale import level_to_read, require_bits
from tumortrace.slides.tiles.labels import annotated, label_tiles, shares
from tumortrace.slides.tiles.sampling import UNLABELLED
from tumortrace.slides.tiles.settings import Settings
from tumortrace.slides.tiling import tile_tissue
from tumortrace.slides.tissue import overview
from tumortrace.slides.tissue_mask import read_tissue_mask, tissue_on


def plan_slide(entry: SlideEntry, annotations: Path | None, settings: Settings) -> tuple[TiledSlide, pd.DataFrame]:
    """What is known of a slide, and its labelled tiles.

    Args:
        entry: The slide.
        annotations: Their file. Without it all tiles are negative where the slide's label is, and else there are none,
            or they have no label, as the settings say.
        settings: How tiles are cut.

    Returns:
        Columns `x`, `y`, `width`, `height` (px of level 0), `tissue`, `label` (0, 1 or `UNLABELLED`) and `annotated`
        (class that covers most of the tile; blank where none does), row by row.

    Raises:
        SlideError: The slide or its annotations cannot be read, or contradict the slide's label.
        UnknownClassError: It is not known what a class of the annotations means.
    """
    unknown = annotations is None and entry.label != 0
    with settings.open(entry.path) as slide:
        require_bits(slide)
        notes = list(slide.notes)
        resolution = settings.resolution_of(slide, notes)
        scale = settings.resolution / resolution
        level = level_to_read(slide, scale, settings.read_level, notes)
        size = slide.width, slide.height
        info = TiledSlide(id=entry.id, annotations="" if annotations is None else annotations.name)
        info = info.model_copy(update={"resolution": round(resolution, 6), "level": level})
        if unknown:
            told = "no annotations" + ("" if entry.label is None else ", and its label says that it holds tumour")
            become = "left out" if settings.unlabelled == "leave-out" else "its tiles have no label"
            notes.append(f"{told}: {become}, as nothing says which of its tiles are tumour")
        if unknown and settings.unlabelled == "leave-out":
            return info.model_copy(update={"notes": notes, "candidates": {"0": 0, "1": 0}}), _NOTHING
        regions = [] if annotations is None else read_annotations(annotations, size, notes)
        if annotations is not None and not regions and entry.label is None:
            notes.append(f"{annotations.name} outlines nothing: all its tiles are taken for normal")
        info = info.model_copy(update={"outlined": sorted({region.name for region in regions})})
        areas = settings.classes.areas(regions)
        _refuse_contradiction(entry, annotations, areas)
        thumbnail = overview(slide, resolution)
        marked = None if settings.tissue_mask is None else read_tissue_mask(settings.tissue_mask, slide)
        tissue = tissue_on(thumbnail, resolution * slide.width / thumbnail.shape[1], marked)
        notes += tissue.told()
        side = settings.size * scale
        tiles = tile_tissue(
            tissue.mask, size, (side, side), overlap=settings.overlap, minimum_tissue=settings.minimum_tissue
        )
    tiles = _labelled(tiles, regions, areas, settings, size, notes)
    if unknown:
        tiles = tiles.assign(label=UNLABELLED)
    labels = (0, 1, UNLABELLED) if unknown else (0, 1)
    candidates = {str(label): int((tiles["label"] == label).sum()) for label in labels}
    return info.model_copy(update={"notes": notes, "candidates": candidates}), tiles


_NOTHING = pd.DataFrame(columns=["x", "y", "width", "height", "tissue", "label", "annotated"])


def _labelled(
    tiles: pd.DataFrame,
    regions: list[Region],
    areas: Areas,
    settings: Settings,
    size: tuple[int, int],
    notes: list[str],
) -> pd.DataFrame:
    """The tiles that have a label, and are not left out."""
    labels = label_tiles(tiles, areas, settings.rule, settings.share)
    tiles = tiles.assign(annotated=annotated(tiles, regions, settings.classes))
    if excluded := int(labels.isna().sum()):
        notes.append(f"{count(excluded, 'tile')} left out on excluded areas")
    keep = labels.notna().to_numpy(copy=True)
    if "edge" in settings.leave_out:
        inside = (tiles["x"] + tiles["width"] <= size[0]) & (tiles["y"] + tiles["height"] <= size[1])
        keep &= inside.to_numpy()
    if "mixed" in settings.leave_out:
        share = shares(tiles, areas.positive)
        keep &= (share < 1e-9) | (share > 1 - 1e-9)
    return tiles.assign(label=labels)[keep].astype({"label": np.int64}).reset_index(drop=True)


def _refuse_contradiction(entry: SlideEntry, annotations: Path | None, areas: Areas) -> None:
    if annotations is None or entry.label is None:
        return
    if bool(entry.label) == areas.positive.is_empty:
        said = ("that it holds none", "tumour") if entry.label == 0 else ("that it holds tumour", "none")
        raise SlideError(
            f"its label says {said[0]}, its annotations outline {said[1]}",
            where=annotations,
            expected="both to agree",
            remedy="correct one of them, or leave the slide out",
        )
