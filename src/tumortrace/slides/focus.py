"""Which tiles of a slide are out of focus, told as `check` tells it of images, and without a network.

Optics give little detail below 1 um, so that at .25 um per px a sharp tile is as smooth as a blurred one at 1. Focus
is judged at about 1 um per px therefore, whatever a model's patches have: there the limit was found, and there slides
compare. Of two real slides 0 to 4 % of the tiles lie below it, of the same blurred by a Gaussian of 2 um 99 % or more.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from PIL import Image

from tumortrace.cohorts.findings.pictures import BLACK, BLURRED, INK, NO_COLOUR
from tumortrace.cohorts.looks import NEARLY_BLANK, look_at, sharpness
from tumortrace.slides.tissue import NOTABLE

_RESOLUTION = 1.0  # um per px at which focus is judged
_RIM = 3  # px into which the white beyond a slide shines


def focus_of(images: np.ndarray, tiles: pd.DataFrame, slide: tuple[int, int], resolution: float) -> pd.DataFrame:
    """How sharp tiles are.

    Args:
        images: uint8, shape (N, height, width, 3): their pixels.
        tiles: Columns `x`, `y`, `width`, `height` in px of level 0; what lies beyond the slide is not judged.
        slide: Width and height of the slide in px of level 0.
        resolution: Um per px of the images.

    Returns:
        `sharpness`, float64, in octaves (`cohorts.looks.sharpness` at about 1 um per px; NaN where fewer than 8 px are
        left), and `in_focus`, bool: False where that says that there is no detail finer than about four such px. What
        shows nothing, and what a pen has marked, whose edge outweighs the tissue, counts as in focus.

    Example:
        >>> noise = Image.fromarray(np.random.default_rng(0).integers(99, 256, (64, 64)).astype(np.uint8))
        >>> blurred = noise.resize((16, 16), Image.Resampling.NEAREST).resize((64, 64))
        >>> images = np.stack([np.asarray(picture.convert("RGB")) for picture in (noise, blurred)])
        >>> tiles = pd.DataFrame({"x": [0, 64], "y": 0, "width": 64, "height": 64})
        >>> focus_of(images, tiles, (128, 64), 1.0)["in_focus"].tolist()
        [True, False]
    """
    step = max(1, round(_RESOLUTION / resolution))
    size = np.array([images.shape[2], images.shape[1]])
    inside = (np.array(slide) - tiles[["x", "y"]]) / tiles[["width", "height"]].to_numpy()
    ends = np.where(inside >= 1, size, np.floor(inside * size).astype(int) - _RIM).clip(min=1)
    seen = [image[:down, :across] for image, (across, down) in zip(images, ends, strict=True)]
    parts = [Image.fromarray(image).reduce(step) for image in seen]
    values = np.array([sharpness(np.asarray(part.convert("L"))) for part in parts])
    blurred = [value < BLURRED and _tells(part) for value, part in zip(values, parts, strict=True)]
    return pd.DataFrame({"sharpness": values.round(3), "in_focus": ~np.array(blurred, bool)})


def _tells(part: Image.Image) -> bool:
    """Whether a picture shows something, and no pen mark or black border."""
    look, _ = look_at(np.asarray(part))
    return look.spread >= NEARLY_BLANK and (look.colour < NO_COLOUR or (look.ink <= INK and look.black <= BLACK))


def blurred_share(tiles: pd.DataFrame) -> float | None:
    """Share of the tissue that lies in tiles out of focus; None without tissue.

    It has no interval: all tiles of a slide are counted, and none is drawn.

    Args:
        tiles: Columns `tissue` and `in_focus`.

    Example:
        >>> blurred_share(pd.DataFrame({"tissue": [1.0, 0.5, 0.5], "in_focus": [True, False, True]}))
        0.25
    """
    tissue = tiles["tissue"].sum()
    return round(float(tiles.loc[~tiles["in_focus"].astype(bool), "tissue"].sum() / tissue), 4) if tissue else None


def told_of_focus(tiles: pd.DataFrame) -> list[str]:
    """A note where a notable share of the tissue is out of focus: the tiles are scored all the same."""
    share = blurred_share(tiles)
    if share is None or share < NOTABLE:
        return []
    blurred = tiles[~tiles["in_focus"].astype(bool)]
    positive = int(blurred["prediction"].sum())
    told = f"{share:.0%} of the tissue is out of focus, with no detail finer than about 4 um: probabilities of its "
    return [f"{told}{len(blurred):,} tiles ({positive:,} called positive) are less reliable"]
