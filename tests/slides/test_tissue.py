"""Tissue is told from glass, pen marks, specks and pinholes."""

import os
from pathlib import Path

import numpy as np
import pytest
from skimage.color import rgb2hsv
from skimage.draw import disk
from skimage.filters import gaussian, threshold_otsu

from tumortrace.images.stain import find_ink, may_be_ink
from tumortrace.slides.slide import Slide
from tumortrace.slides.tissue import _LEVELS, _middle, _parted, _smoothed, find_tissue, overview

DATA = os.environ.get("TUMORTRACE_DATA")
STAINED = {
    "haematoxylin and eosin": (170, 90, 160),
    "eosin": (230, 150, 180),
    "pale stroma": (225, 195, 215),
    "DAB": (150, 100, 60),
    "dense nuclei": (80, 50, 120),
    "strong eosin": (215, 85, 140),
    "blood": (190, 75, 85),
}
INKS = {
    "green": (40, 160, 130),
    "light green": (150, 215, 190),
    "blue": (40, 80, 170),
    "black": (30, 30, 32),
    "pure blue": (0, 0, 255),
    "red": (215, 35, 45),
    "dark red": (160, 20, 30),
    "pure magenta": (255, 0, 255),
    "pure yellow": (255, 255, 0),
    "orange": (255, 128, 0),
    "violet": (128, 0, 255),
    "pure purple": (128, 0, 128),
    "cyan": (0, 255, 255),
}


def glass(size: int = 400) -> np.ndarray:
    """Bare glass with the noise of a scanner."""
    noise = np.random.default_rng(0).normal(0, 2, (size, size, 3))
    return np.clip(np.array([243, 242, 244]) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("colour", STAINED.values(), ids=STAINED.keys())
def test_a_stained_disc_is_found_at_its_size(colour: tuple[int, int, int]) -> None:
    """The mask of a disc of tissue agrees with the disc within its rim."""
    picture, truth = glass(), np.zeros((400, 400), bool)
    truth[disk((200, 180), 90)] = True
    picture[truth] = colour
    mask = find_tissue(picture, 8.0)
    assert (mask & truth).sum() / truth.sum() > 0.98
    assert (mask & ~truth).sum() / truth.sum() < 0.06


@pytest.mark.parametrize("colour", INKS.values(), ids=INKS.keys())
def test_pen_marks_are_not_tissue(colour: tuple[int, int, int]) -> None:
    """Ink is left out, and tissue beside it is still found."""
    picture = glass()
    picture[:, 300:380] = colour
    assert not find_tissue(picture, 8.0).any()
    picture[100:300, 50:200] = STAINED["haematoxylin and eosin"]
    mask = find_tissue(picture, 8.0)
    assert mask[105:295, 55:195].mean() > 0.99
    assert not mask[:, 290:].any()


def test_glass_has_no_tissue() -> None:
    """Noise, pure white and pure black are no tissue."""
    assert not find_tissue(glass(), 8.0).any()
    assert not find_tissue(np.full((90, 90, 3), 255, np.uint8)).any()
    assert not find_tissue(np.zeros((90, 90, 3), np.uint8)).any()


def test_a_picture_full_of_tissue_is_all_tissue() -> None:
    """Otsu's threshold does not part pale from dark tissue."""
    picture = np.empty((200, 200, 3), np.uint8)
    picture[:, :100], picture[:, 100:] = STAINED["eosin"], STAINED["dense nuclei"]
    assert find_tissue(picture, 8.0).all()


def test_specks_are_dropped_and_pinholes_filled() -> None:
    """0.01 mm² is 156 px of 8 um: parts and holes well below go, those well above stay."""
    picture = glass()
    picture[100:300, 100:300] = STAINED["eosin"]
    picture[20:28, 20:28] = picture[20:50, 350:380] = STAINED["eosin"]
    picture[150:158, 150:158] = picture[200:230, 200:230] = 243
    mask = find_tissue(picture, 8.0)
    assert not mask[15:33, 15:33].any()
    assert mask[25:45, 355:375].all()
    assert mask[145:163, 145:163].all()
    assert not mask[205:225, 205:225].any()


@pytest.mark.skipif(not DATA, reason="TUMORTRACE_DATA is not set")
@pytest.mark.parametrize(
    ("name", "resolution", "low", "high"),
    [
        ("no-tissue.png", None, 0, 0),
        ("almost-white-1.png", None, 0, 0),
        ("no-tissue-green-pen.png", None, 0, 0.001),
        ("cmu-1-small-region.svs", 0.499, 0.25, 0.45),
        ("tcga-cr-7395-01a-01-ts1.svs", 0.5, 0.55, 0.75),
    ],
)
def test_tissue_of_real_slides(name: str, resolution: float | None, low: float, high: float) -> None:
    """Pictures without tissue have none, also under a pen mark; sections have about what the eye sees."""
    with Slide(Path(str(DATA)) / "slides" / name) as slide:
        thumbnail = overview(slide, resolution)
        um = resolution and resolution * slide.width / thumbnail.shape[1]
        assert low <= find_tissue(thumbnail, um).mean() <= high


def test_what_is_quick_gives_what_is_slow() -> None:
    """The blur and Otsu's threshold are scikit-image's, and nothing that is ink is passed over without its hue."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (70, 131, 3), dtype=np.uint8)
    blurred = gaussian(picture.astype(np.float32) / 255, 1, channel_axis=-1)
    np.testing.assert_allclose(np.moveaxis(_smoothed(picture), 0, 2), blurred, atol=1e-6)
    strength = np.concatenate([rng.normal(0.04, 0.01, 5000), rng.normal(0.3, 0.05, 2000)]).clip(0, 1)
    counts = np.bincount((strength * (_LEVELS - 1)).astype(int), minlength=_LEVELS)
    of_both = _middle(_parted(np.stack([counts, counts[::-1]])))
    assert of_both[0] == pytest.approx(threshold_otsu(strength), abs=0.005)
    assert of_both[1] == pytest.approx(threshold_otsu(1 - strength), abs=0.005)
    colours = rng.random((3, 40, 1000))
    hsv = rgb2hsv(np.moveaxis(colours, 0, -1))
    marked = np.logical_or.reduce(find_ink(hsv))
    passed = ~may_be_ink(colours, hsv[..., 1], hsv[..., 2])
    assert passed.mean() > 0.1
    assert not marked[passed].any()
