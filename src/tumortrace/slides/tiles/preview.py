"""The picture of a tiled slide: what was annotated, and the tiles coloured by their label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont
from shapely.geometry import MultiPolygon

from tumortrace.records.files import replacing
from tumortrace.records.provenance import RESEARCH_USE
from tumortrace.slides.annotations.classes import Classes
from tumortrace.slides.annotations.region import Region
from tumortrace.slides.tiles.sampling import UNLABELLED

_LABELS = {0: (0, 90, 200), 1: (200, 0, 0), UNLABELLED: (90, 90, 90)}
_OUTLINES = {"positive": (120, 0, 0), "negative": (0, 110, 0), "exclude": (0, 0, 0), "ignore": (120, 120, 120)}


def draw_preview(
    target: Path,
    thumbnail: np.ndarray,
    size: tuple[int, int],
    tiles: pd.DataFrame,
    regions: Sequence[Region],
    classes: Classes,
    names: tuple[str, str],
    title: str,
) -> None:
    """Write the picture as PNG, whole or not at all.

    Args:
        target: The file.
        thumbnail: uint8 array (height, width, 3) of the whole slide.
        size: Width and height of the slide in px of level 0.
        tiles: Columns `x`, `y`, `width`, `height`, `label`: those that were cut.
        regions: That were annotated.
        classes: What they mean.
        names: Of the negative and the positive class.
        title: Name of the slide.
    """
    picture = Image.fromarray(thumbnail)
    across, down = picture.width / size[0], picture.height / size[1]
    veil = Image.new("RGBA", picture.size)
    draw = ImageDraw.Draw(veil)
    for x, y, width, height, label in tiles[["x", "y", "width", "height", "label"]].itertuples(index=False, name=None):
        corners = (x * across, y * down, (x + width) * across - 1, (y + height) * down - 1)
        if corners[2] > corners[0] and corners[3] > corners[1]:
            draw.rectangle(corners, fill=(*_LABELS[label], 70), outline=(*_LABELS[label], 200))
    for region in regions:
        parts = region.geometry.geoms if isinstance(region.geometry, MultiPolygon) else [region.geometry]
        colour = (*_OUTLINES[classes.meaning(region.name) or "ignore"], 255)
        for ring in (ring for part in parts for ring in (part.exterior, *part.interiors)):
            draw.line([(x * across, y * down) for x, y in ring.coords], fill=colour, width=3)
    shown = Image.alpha_composite(picture.convert("RGBA"), veil).convert("RGB")
    counts = {label: int((tiles["label"] == label).sum()) for label in _LABELS}
    lines = [(title, (0, 0, 0))]
    lines += [(f"{counts[label]:,} tiles {names[label]}", _LABELS[label]) for label in (1, 0)]
    if counts[UNLABELLED]:
        lines.append((f"{counts[UNLABELLED]:,} tiles without label", _LABELS[UNLABELLED]))
    meanings = {classes.meaning(region.name) or "ignore" for region in regions}
    lines += [(f"outlined: {name}", colour) for name, colour in _OUTLINES.items() if name in meanings]
    lines.append((RESEARCH_USE, (90, 90, 90)))
    _with_lines(shown, lines, target)


def _with_lines(shown: Image.Image, lines: Sequence[tuple[str, tuple[int, int, int]]], target: Path) -> None:
    """Write a picture with lines of text below it."""
    font = ImageFont.load_default(14)
    sheet = Image.new("RGB", (max(shown.width, 420), shown.height + 20 * len(lines) + 8), "white")
    sheet.paste(shown, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for number, (text, colour) in enumerate(lines):
        draw.text((6, shown.height + 4 + 20 * number), text, fill=colour, font=font)
    with replacing(target) as temporary:
        sheet.save(temporary, "PNG")
