"""What a scan holds in memory, and how many tiles at a time keep it within what it may take.

Figures are those of a slide that is tissue all over, and of one process. They were measured once and are not measured
anew: another batch is another scan, and the same command is to go on with the same one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tumortrace.errors import SlideError, shown
from tumortrace.slides.dense import SIDE, places_in
from tumortrace.slides.tissue import overview_side

if TYPE_CHECKING:
    from tumortrace.models.bundle import Model
    from tumortrace.slides.slide import Slide

BATCHES = (256, 128, 64, 32, 16, 8)
"""Tiles per call of the model, the most first."""
SIDES = (SIDE, SIDE // 2, SIDE // 4)
"""Px of a block's side in a dense scan; likewise."""

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_LIBRARIES = 900 << 20  # Python, torch, SciPy, Matplotlib, the readers
# bytes of one, at most at a time
_OVERVIEW_PX = 65  # of the overview, while tissue is sought on it; to draw it takes 40, for the report 12
_DECODED_PX = 7  # of a plain image, which is decoded whole
_HEAT_PX = 26  # of the heat: sum, count and mean in float64
_TILE = 800  # of the map: journal, table, outline of a positive one
_PICTURE_PX = 28  # of a tile that is read: two batches ahead, this one as a list, stacked, prepared, judged for focus
_DENSE_PX = 7  # of a tile in a block
_INPUT_PX = 12  # float32 in three colours
_UNKNOWN_PX = 1024  # of what a network makes, where its layers are not known


class Layers(NamedTuple):
    """Bytes that a network makes of one picture.

    Attributes:
        most: In and out of its largest layer.
        maps: Out of its body.
    """

    most: int
    maps: int


def memory_of(text: str) -> int:
    """Bytes that a text such as `4GB` or `512 MiB` names; K, M, G and T are powers of 1024.

    Raises:
        SlideError: It names none.

    Example:
        >>> memory_of("4GB") == memory_of("4096 MiB") == 4 << 30
        True
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise SlideError(f"--max-memory {shown(text)}", expected="a size such as 4GB", remedy="correct it")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def largest_within(limit: str, sizes: Sequence[int], held: Callable[[int], float], where: object = None) -> int:
    """The first of falling sizes of which no more is held than `limit` names.

    Args:
        limit: As `memory_of` takes it.
        sizes: To choose from.
        held: Bytes, by size.
        where: For the message.

    Raises:
        SlideError: `limit` is no size, or too little for all.

    Example:
        >>> largest_within("1GB", (256, 128, 64), lambda tiles: tiles * (6 << 20))
        128
    """
    allowed = memory_of(limit)
    for size in sizes:
        if held(size) <= allowed:
            return size
    least = np.ceil(held(sizes[-1]) / (1 << 30) * 100) / 100
    whose = "this model" if where is None else "this slide and model"
    expected, remedy = f"at least {least:.2f}GB for {whose}", "raise it, or leave it out"
    raise SlideError(f"--max-memory {limit}", where=where, expected=expected, remedy=remedy)


def usual_batch(model: Model) -> int:
    """Tiles per call of the model where memory is not bounded: fewer on CPUs, which gain nothing by more."""
    if getattr(model, "runtime", None) is not None:  # on a CPU, and its device would be asked of torch
        return BATCHES[1]
    device = getattr(model, "device", None)
    return BATCHES[0] if getattr(device, "type", "cpu") != "cpu" else BATCHES[1]


def held_by_batch(model: Model) -> Callable[[int], float]:
    """Bytes of libraries, model and so many tiles at a time, in a process of its own."""
    height, width = model.info.patch_size
    network = getattr(model, "network", None) if getattr(model, "runtime", None) is None else None
    weights = 0 if network is None else sum(part.numel() * part.element_size() for part in network.parameters())
    picture = height * width * (_PICTURE_PX + 2 * _INPUT_PX) + 2 * layers_of(model).most  # 2: what goes around layers
    return lambda tiles: _LIBRARIES + 3 * weights + tiles * picture  # 3: as read, as they are, in bfloat16


def held_by_slide(slide: Slide, resolution: float | None, tile: tuple[float, float], overlap: float) -> float:
    """Bytes of a slide's overview and map, were it tissue all over.

    Args:
        slide: The slide.
        resolution: Um per px at level 0, or None.
        tile: Width and height of tiles in px of level 0.
        overlap: Of tiles.
    """
    size = np.array([slide.width, slide.height])
    cell = np.array(tile) * (1 - overlap)
    heat_px = max(cell.min() / 4, size.max() / 4096, 1)  # as of `heat_pyramid.heat_levels`
    seen = size * min(1.0, overview_side(slide, resolution) / size.max())
    decoded = _DECODED_PX * size.prod(dtype=float) if slide.in_memory else 0.0
    parts = _OVERVIEW_PX * seen.prod(), _HEAT_PX * (size / heat_px).prod(), _TILE * np.ceil(size / cell).prod()
    return decoded + float(sum(parts))


def held_by_block(model: Model, overlap: float) -> Callable[[int], float]:
    """Bytes of a block of a dense scan, by its side, besides what `held_by_batch` counts of no tiles.

    Args:
        model: That can be `dense`.
        overlap: Of tiles.
    """
    height, width = model.info.patch_size
    layers, views = layers_of(model), len(model.info.views.indices)
    # the pictures of all views and their maps stay until every place has been asked
    made = (2 * layers.most + views * layers.maps) / (height * width) + (views + 1) * _INPUT_PX

    def held(side: int) -> float:
        pictures = prod(places_in(side, (width, height), overlap)) * height * width
        return max(side, height) * max(side, width) * made + pictures * _DENSE_PX

    return held


def layers_of(model: Model) -> Layers:
    """What a network makes of one picture, seen while it passes through."""
    height, width = model.info.patch_size
    network = getattr(model, "network", None)
    if getattr(model, "runtime", None) is not None or network is None:
        return Layers(height * width * _UNKNOWN_PX // 2, 0)
    most = maps = 0

    def see(layer: Any, given: Any, made: Any) -> None:
        nonlocal most, maps
        bytes_of = [part.numel() * part.element_size() for part in (*given, made) if hasattr(part, "numel")]
        if layer is getattr(network, "body", None):
            maps = max(maps, bytes_of[-1] if bytes_of else 0)
        if not list(layer.children()):
            most = max(most, sum(bytes_of))

    hooks = [layer.register_forward_hook(see) for layer in network.modules()]
    try:
        model.assess(np.zeros((1, height, width, 3), np.uint8))
    finally:
        for hook in hooks:
            hook.remove()
    return Layers(most, maps)
