"""Contact sheets of explanations: right and wrong predictions of one class, patch above heat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tumortrace.records.files import replacing
from tumortrace.reports.explanation import CENTRE, CENTRE_COLOUR, SEEN, Heat, add_scale, heat_layer, outline

COLUMNS = 8


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet: uint8 image (H, W, 3), its heat, and a short caption."""

    image: np.ndarray
    heat: Heat
    caption: str


def draw_sheet(
    path: Path,
    rows: Mapping[str, Sequence[Tile]],
    title: str,
    positive_class: str,
    limit: float,
    seen: tuple[int, int] | None = None,
) -> None:
    """Write a PNG with a block of pictures for each kind of prediction; all heat has one scale.

    Args:
        path: PNG to write.
        rows: Pictures by heading, in their order.
        title: Above the sheet.
        positive_class: Class that positive heat speaks for.
        limit: Heat at which the scale ends; 0 where there is none.
        seen: Height and width in pixels of the centre crop that the network sees; None for the whole patch.
    """
    lines = {heading: max(1, -(-len(tiles) // COLUMNS)) for heading, tiles in rows.items()}
    figure = Figure(figsize=(1.35 * COLUMNS + 0.9, 0.7 + 3.1 * sum(lines.values())), layout="constrained")
    blocks = figure.subfigures(len(rows), 1, height_ratios=list(lines.values()), squeeze=False)[:, 0]
    for block, (heading, tiles) in zip(blocks, rows.items(), strict=True):
        block.suptitle(heading + ("" if tiles else ": none"), fontsize=10, parse_math=False)
        places = block.subplots(2 * lines[heading], COLUMNS, squeeze=False)
        for place in places.flat:
            place.set_axis_off()
        for index, tile in enumerate(tiles):
            line, column = divmod(index, COLUMNS)
            above, below = places[2 * line, column], places[2 * line + 1, column]
            above.imshow(tile.image)
            above.set_title(tile.caption, fontsize=6.5, parse_math=False)
            below.imshow(tile.image)
            below.imshow(heat_layer(tile.heat.values, limit))
            size = (tile.image.shape[0], tile.image.shape[1])
            if min(size) > CENTRE:
                outline(above, size, (CENTRE, CENTRE), CENTRE_COLOUR, "-")
            if seen is not None and seen != size:
                outline(below, size, seen, SEEN, "--")
        if tiles and limit:
            add_scale(block, list(places.flat), [tile.heat for tile in tiles], limit, positive_class)
    figure.suptitle(title, fontsize=11, parse_math=False)
    said = "" if seen is None else "There is no heat outside of the dashed line, which the network does not see. "
    figure.supxlabel(f"{said}Research use only. Not a medical device.", fontsize=7, color="#666666")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
