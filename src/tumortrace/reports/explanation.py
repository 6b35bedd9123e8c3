"""Pictures of explanations: the patch, and the patch under its heat maps, each with a scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tumortrace.records.files import replacing

CENTRE = 32
SHOWN = 0.995  # quantile of the heat at which the scale ends: single pixels beyond take its last colour
SEEN, CENTRE_COLOUR = "#00c2d1", "#2ca02c"
#: Blue against, yellow to red for the positive class: both stand out from the pink and violet of stained tissue.
COLOURS = LinearSegmentedColormap.from_list(
    "evidence", ["#03256c", "#0081a7", "#48cae4", "#ffffff", "#ffdd33", "#ff7b00", "#9d0208"], N=511
)
STRONGEST = 0.8  # opacity at the ends of the scale


@dataclass(frozen=True)
class Heat:
    """A heat map and how to read it.

    Attributes:
        values: float, shape (H, W); negative where it speaks against the positive class.
        title: Name of the method.
        unit: Of the values: "logit", or None where they have none.
    """

    values: np.ndarray
    title: str
    unit: str | None = "logit"

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
    layer = np.asarray(COLOURS((share + 1) / 2))
    layer[..., 3] = STRONGEST * np.abs(share)
    return (255 * layer).round().astype(np.uint8)


def draw_explanation(
    path: Path,
    image: np.ndarray,
    heats: Sequence[Heat],
    title: str,
    positive_class: str,
    seen: tuple[int, int] | None = None,
) -> None:
    """Write a PNG with the patch (centre 32x32 px outlined) beside its heat maps with their colour bars.

    Args:
        path: PNG to write.
        image: uint8, shape (H, W, 3).
        heats: Heat maps of shape (H, W).
        title: Caption; shown as it is, never parsed.
        positive_class: Class that positive heat speaks for.
        seen: Height and width in pixels of the centre crop that the network sees; None for the whole patch.
    """
    figure = Figure(figsize=(0.5 + 2.9 * (1 + len(heats)), 3.2), layout="constrained")
    axes = figure.subplots(1, 1 + len(heats), squeeze=False)[0]
    size = (image.shape[0], image.shape[1])
    axes[0].imshow(image)
    if min(size) > CENTRE:
        outline(axes[0], size, (CENTRE, CENTRE), CENTRE_COLOUR, "-")
    for place, heat in zip(axes[1:], heats, strict=True):
        _draw_heat(figure, place, image, heat, positive_class)
    said = ""
    if seen is not None and seen != size:
        for place in axes[1:]:
            outline(place, size, seen, SEEN, "--")
        said = f"The network sees the {seen[1]}x{seen[0]} px within the dashed line; there is no heat outside of it.\n"
    for place in axes:
        place.set_axis_off()
    figure.suptitle(title, fontsize=9, parse_math=False)
    figure.supxlabel(f"{said}Research use only. Not a medical device.", fontsize=7, color="#666666")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _draw_heat(figure: Figure, axes: Axes, image: np.ndarray, heat: Heat, positive_class: str) -> None:
    axes.imshow(image)
    limit = heat.limit
    if limit == 0:
        axes.set_title(f"{heat.title}: no evidence for {positive_class}", fontsize=8, parse_math=False)
        return
    axes.imshow(heat_layer(heat.values))
    axes.set_title(heat.title, fontsize=8)
    add_scale(figure, [axes], [heat], limit, positive_class)


def add_scale(figure: Figure, places: Sequence[Axes], heats: Sequence[Heat], limit: float, positive_class: str) -> None:
    """A colour bar beside axes whose heat has one scale that ends at `limit`."""
    beyond = any(np.abs(heat.values).max() > limit for heat in heats)
    signed = any(heat.values.min() < 0 for heat in heats)
    extend: Literal["neither", "both", "max"] = ("both" if signed else "max") if beyond else "neither"
    colours = ScalarMappable(Normalize(-limit, limit), COLOURS)
    bar = figure.colorbar(colours, ax=list(places), fraction=0.046, extend=extend)
    bar.ax.set_ylim(-limit if signed else 0, limit)
    unit = "logit" if heats[0].unit == "logit" else "no unit"
    bar.set_label(f"evidence for {positive_class} ({unit})", fontsize=8, parse_math=False)
    bar.ax.tick_params(labelsize=7)


def outline(axes: Axes, size: tuple[int, int], part: tuple[int, int], colour: str, style: str) -> None:
    """Outline the centre `part` (height, width) of a picture of that `size`."""
    corner = ((size[1] - part[1]) / 2 - 0.5, (size[0] - part[0]) / 2 - 0.5)
    axes.add_patch(Rectangle(corner, part[1], part[0], fill=False, edgecolor=colour, linewidth=1.5, linestyle=style))
