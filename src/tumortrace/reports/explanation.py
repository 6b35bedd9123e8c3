"""Pictures of explanations: the patch, and the patch under its heat maps, each with a scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from tumortrace.reports.drawing import CENTRE, DISCLAIMER, MUTED, outline, save_figure

SHOWN = 0.995  # quantile of the heat at which the scale ends: single pixels beyond take its last colour
SEEN = "#00c2d1"
#: Blue against, yellow to red for the positive class: both stand out from the pink and violet of stained tissue.
EVIDENCE = LinearSegmentedColormap.from_list(
    "evidence", ["#03256c", "#0081a7", "#48cae4", "#ffffff", "#ffdd33", "#ff7b00", "#9d0208"], N=511
)
COLUMNS = 8  # of a sheet
STRONGEST = 0.8  # opacity at the ends of the scale


@dataclass(frozen=True)
class Heat:
    """A heat map and how to read it.

    Attributes:
        values: float, shape (H, W); negative where it speaks against the positive class.
        title: Name of the method.
        unit: Of the values: "logit", or None where they have none.
        label: Beside the scale, where it is not evidence for the positive class.
    """

    values: np.ndarray
    title: str
    unit: str | None = "logit"
    label: str | None = None

    @property
    def limit(self) -> float:
        """The size at which the scale ends; 0 where there is no heat at all."""
        sizes = np.abs(self.values[self.values != 0])
        return float(np.quantile(sizes, SHOWN)) if sizes.size else 0.0


def heat_layer(values: np.ndarray, limit: float | None = None) -> np.ndarray:
    """Heat as a layer to lay over the patch: the stronger, the less transparent.

    Args:
        values: float, shape (H, W): a heat map.
        limit: Size at which the scale ends; default the map's own, see `Heat.limit`.

    Returns:
        uint8, shape (H, W, 4), RGBA; yellow to red speaks for the positive class, blue against it.

    Example:
        >>> heat_layer(np.array([[0.0, 1.0, -1.0]]))[..., 3].tolist()
        [[0, 204, 204]]
    """
    limit = Heat(values, "").limit if limit is None else limit
    share = np.clip(values / limit, -1, 1) if limit else np.zeros(values.shape)
    layer = np.asarray(EVIDENCE((share + 1) / 2))
    layer[..., 3] = STRONGEST * np.abs(share)
    return (255 * layer).round().astype(np.uint8)


def draw_explanation(
    path: Path,
    image: np.ndarray,
    heats: Sequence[Heat],
    title: str,
    positive_class: str,
    seen: tuple[int, int] | None = None,
    centre: bool = True,
) -> None:
    """Write a PNG with the patch (centre 32x32 px outlined) beside its heat maps with their colour bars.

    Args:
        path: PNG to write.
        image: uint8, shape (H, W, 3).
        heats: Heat maps of shape (H, W).
        title: Caption; shown as it is, never parsed.
        positive_class: Class that positive heat speaks for.
        seen: Height and width in pixels of the centre crop that the network sees; None for the whole patch.
        centre: Whether the centre is outlined; of a whole slide it means nothing.
    """
    figure = Figure(figsize=(0.5 + 2.9 * (1 + len(heats)), 3.2), layout="constrained")
    axes = figure.subplots(1, 1 + len(heats), squeeze=False)[0]
    size = (image.shape[0], image.shape[1])
    axes[0].imshow(image)
    if centre and min(size) > CENTRE:
        _outline_centre(axes[0], size, (CENTRE, CENTRE))
    for place, heat in zip(axes[1:], heats, strict=True):
        _draw_heat(figure, place, image, heat, positive_class)
    said = ""
    if seen is not None and seen != size:
        for place in axes[1:]:
            _outline_centre(place, size, seen, SEEN, "--")
        said = f"The network sees the {seen[1]}x{seen[0]} px within the dashed line; there is no heat outside of it.\n"
    for place in axes:
        place.set_axis_off()
    figure.suptitle(title, fontsize=9, parse_math=False)
    figure.supxlabel(f"{said}{DISCLAIMER}", fontsize=7, color=MUTED)
    save_figure(figure, path, dpi=110)


def _draw_heat(figure: Figure, axes: Axes, image: np.ndarray, heat: Heat, positive_class: str) -> None:
    axes.imshow(image)
    limit = heat.limit
    if limit == 0:
        axes.set_title(f"{heat.title}: no evidence for {positive_class}", fontsize=8, parse_math=False)
        return
    axes.imshow(heat_layer(heat.values))
    axes.set_title(heat.title, fontsize=8)
    _add_scale(figure, [axes], [heat], limit, positive_class)


def _add_scale(
    figure: Figure, places: Sequence[Axes], heats: Sequence[Heat], limit: float, positive_class: str
) -> None:
    """A colour bar beside axes whose heat has one scale that ends at `limit`."""
    beyond = any(np.abs(heat.values).max() > limit for heat in heats)
    signed = any(heat.values.min() < 0 for heat in heats)
    extend: Literal["neither", "both", "max"] = ("both" if signed else "max") if beyond else "neither"
    colours = ScalarMappable(Normalize(-limit, limit), EVIDENCE)
    bar = figure.colorbar(colours, ax=list(places), fraction=0.046, extend=extend)
    bar.ax.set_ylim(-limit if signed else 0, limit)
    unit = "logit" if heats[0].unit == "logit" else "no unit"
    bar.set_label(heats[0].label or f"evidence for {positive_class} ({unit})", fontsize=8, parse_math=False)
    bar.ax.tick_params(labelsize=7)


def _outline_centre(axes: Axes, size: tuple[int, int], part: tuple[int, int], *style: str) -> None:
    """Outline the centre `part` (height, width) of a picture of that `size`."""
    outline(axes, ((size[1] - 1) / 2, (size[0] - 1) / 2), (part[1], part[0]), *style)


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet: uint8 image (H, W, 3), its heat, and a short caption."""

    image: np.ndarray
    heat: Heat
    caption: str


def draw_explanation_sheet(
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
                _outline_centre(above, size, (CENTRE, CENTRE))
            if seen is not None and seen != size:
                _outline_centre(below, size, seen, SEEN, "--")
        if tiles and limit:
            _add_scale(block, list(places.flat), [tile.heat for tile in tiles], limit, positive_class)
    figure.suptitle(title, fontsize=11, parse_math=False)
    said = "" if seen is None else "There is no heat outside of the dashed line, which the network does not see. "
    figure.supxlabel(f"{said}{DISCLAIMER}", fontsize=7, color=MUTED)
    save_figure(figure, path, dpi=110)
