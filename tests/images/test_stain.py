"""Stain normalisation against images composed by hand, a plain Macenko, scikit-learn's factorisation, real patches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.decomposition import DictionaryLearning

from tumortrace.cohorts.looks import look_at
from tumortrace.cohorts.synthetic.patches import draw_patch, plan_patches, slide_stain
from tumortrace.cohorts.synthetic.tissue import Stain
from tumortrace.images.stain import (
    LIGHT,
    REFERENCE,
    REFERENCE_CONCENTRATIONS,
    REFERENCE_LAB,
    macenko_stains,
    normalise_stain,
    vahadane_stains,
)
from tumortrace.slides.tissue import find_tissue

METHODS = ("macenko", "vahadane", "reinhard")
OTHER = np.array([[0.48, 0.76, 0.44], [0.12, 0.86, 0.50]])
OTHER = OTHER / np.linalg.norm(OTHER, axis=1, keepdims=True)


def tissue(seed: int = 0, side: int = 64) -> NDArray[np.float64]:
    """Concentrations (2, pixels): nuclei with haematoxylin alone, stroma with eosin alone, cytoplasm with both."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, side * side, p=[0.35, 0.4, 0.25])
    strong = rng.uniform(0.45, 1, (2, side * side))
    amounts = np.stack([np.where(kind != 1, strong[0], 0), np.where(kind != 0, strong[1], 0)])
    return amounts / np.percentile(amounts, 99, axis=1, keepdims=True)


def compose(amounts: NDArray[np.float64], stains: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The picture (1, H, W, 3) of these concentrations in these stains, by the law of Beer and Lambert."""
    side = round(amounts.shape[1] ** 0.5)
    levels = LIGHT * np.exp(-(amounts.T @ stains)) - 1
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8).reshape(1, side, side, 3)


def in_reference(amounts: NDArray[np.float64]) -> NDArray[np.uint8]:
    return compose(amounts * REFERENCE_CONCENTRATIONS[:, None], REFERENCE)


def density(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    return -np.log((image.reshape(-1, 3).T.astype(np.float32) + 1) / LIGHT)


def degrees(found: NDArray[np.floating], true: NDArray[np.floating]) -> NDArray[np.float64]:
    true = true / np.linalg.norm(true, axis=1, keepdims=True)
    return np.degrees(np.arccos(np.clip((found * true).sum(axis=1), -1, 1)))


def distance(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    return float(np.abs(first.astype(int) - second).mean())


@pytest.mark.parametrize("estimate", [macenko_stains, vahadane_stains])
@pytest.mark.parametrize("stains", [REFERENCE, OTHER])
def test_known_stains_are_recovered(estimate: object, stains: NDArray[np.float64]) -> None:
    """Within three degrees, haematoxylin first."""
    assert callable(estimate)
    found = estimate(density(compose(tissue() * np.array([[1.6], [1.1]]), stains)))
    assert (degrees(found, stains) < 3).all()


@pytest.mark.parametrize("method", ["macenko", "vahadane"])
def test_another_stain_becomes_the_reference(method: str) -> None:
    """The same concentrations in other stains and strengths come out as if composed in the reference."""
    amounts = tissue()
    image, wanted = compose(amounts * np.array([[1.3], [1.5]]), OTHER), in_reference(amounts)
    found, changed = normalise_stain(image, method)  # type: ignore[arg-type]
    assert changed.all()
    assert distance(image, wanted) > 15
    assert distance(found, wanted) < 4


@pytest.mark.parametrize("method", ["macenko", "vahadane"])
def test_an_image_in_the_reference_hardly_changes(method: str) -> None:
    """By less than two grey levels on average."""
    image = in_reference(tissue())
    assert distance(normalise_stain(image, method)[0], image) < 2  # type: ignore[arg-type]


def test_reinhard_sets_mean_and_deviation() -> None:
    """Of tissue, in l, alpha, beta worked out here; a second time changes less than two grey levels."""
    image = compose(tissue() * np.array([[1.0], [0.9]]), OTHER)
    found, _ = normalise_stain(image, "reinhard")
    to_lms = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
    tissue_pixels = density(image).max(axis=0) > 0.15
    long, middle, short = np.log(to_lms @ found.reshape(-1, 3).T[:, tissue_pixels])
    lab = np.array(
        [
            (long + middle + short) / 3**0.5,
            (long + middle - 2 * short) / 6**0.5,
            (long - middle) / 2**0.5,
        ]
    )
    np.testing.assert_allclose(lab.mean(axis=1), REFERENCE_LAB[0], atol=0.03)
    np.testing.assert_allclose(lab.std(axis=1), REFERENCE_LAB[1], rtol=0.1)
    assert distance(normalise_stain(found, "reinhard")[0], found) < 2


def plain_macenko(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Step by step as in the paper, for an image that is all tissue."""
    pixels = -np.log((image.reshape(-1, 3).astype(float) + 1) / 240)
    _, vectors = np.linalg.eigh(np.cov(pixels.T))
    plane = vectors[:, [2, 1]]
    plane = plane * np.sign(pixels.mean(axis=0) @ plane)
    projected = pixels @ plane
    angle = np.arctan2(projected[:, 1], projected[:, 0])
    ends = [plane @ [np.cos(end), np.sin(end)] for end in np.percentile(angle, [1, 99])]
    stains = np.array(sorted(ends, key=lambda stain: -stain[0])).T
    concentrations = np.linalg.lstsq(stains, pixels.T, rcond=None)[0]
    concentrations *= (np.array([1.9705, 1.0308]) / np.percentile(concentrations, 99, axis=1))[:, None]
    reference = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
    return np.clip(240 * np.exp(-reference @ concentrations), 0, 255).T.reshape(image.shape)


def test_macenko_agrees_with_the_plain_method() -> None:
    """On synthetic tissue that fills the patch: within one grey level, where no concentration comes out negative."""
    image, _ = draw_patch(3, 0, True, slide_stain("slide-0-0001", "scanner-b"))
    image = np.minimum(image, 200)
    difference = np.abs(normalise_stain(image[None], "macenko")[0][0] - plain_macenko(image))
    assert np.median(difference) < 1
    assert np.percentile(difference, 90) < 2


def test_vahadane_agrees_with_scikit_learn() -> None:
    """The same sparse factorisation by another solver gives the same stains within two degrees."""
    pixels = density(compose(tissue(side=24) * np.array([[1.6], [1.1]]), OTHER))
    start = REFERENCE / np.linalg.norm(REFERENCE, axis=1, keepdims=True)
    other = DictionaryLearning(
        2,
        alpha=0.1,
        fit_algorithm="cd",
        dict_init=start.astype(float),
        code_init=np.ones((pixels.shape[1], 2)),
        positive_dict=True,
        positive_code=True,
        max_iter=60,
        transform_algorithm="lasso_cd",
    ).fit(pixels.T.astype(float))
    assert (degrees(vahadane_stains(pixels), other.components_) < 2).all()


@pytest.mark.parametrize("method", METHODS)
def test_two_stainings_of_one_tissue_come_closer(method: str) -> None:
    """Synthetic tissue from two laboratories differs by less than half as much afterwards."""
    white = np.full(3, 0.95)
    stains = Stain(REFERENCE * 1.1, white, 0.5, 2.0), Stain(OTHER * np.array([[1.9], [1.2]]), white, 0.5, 2.0)
    pairs = [[draw_patch(index, 1, True, stain)[0] for index in range(8)] for stain in stains]
    before = distance(np.stack(pairs[0]), np.stack(pairs[1]))
    after = distance(*(normalise_stain(np.stack(pair), method)[0] for pair in pairs))  # type: ignore[arg-type]
    assert before > 15
    assert after < before / 2


@pytest.mark.parametrize("method", METHODS)
def test_what_cannot_be_estimated_stays(method: str) -> None:
    """Glass, a grey picture as of MRI, one flat colour, and a speck of tissue on glass pass unchanged."""
    rng = np.random.default_rng(0)
    glass = rng.integers(225, 245, (64, 64, 3))
    grey = np.repeat(rng.integers(0, 200, (64, 64, 1)), 3, axis=2)
    flat = np.full((64, 64, 3), (180, 60, 140))
    speck = glass.copy()
    speck[:10, :10] = in_reference(tissue())[0, :10, :10]
    images = np.stack([glass, grey, flat, speck]).astype(np.uint8)
    found, changed = normalise_stain(images, method)  # type: ignore[arg-type]
    assert not changed.any()
    assert np.array_equal(found, images)


@pytest.mark.parametrize("method", METHODS)
def test_an_image_does_not_depend_on_the_others(method: str) -> None:
    """Bit for bit, and the images given are left as they are."""
    images = np.concatenate([in_reference(tissue(seed)) for seed in range(3)])
    images.flags.writeable = False
    together, _ = normalise_stain(images, method)  # type: ignore[arg-type]
    alone = [normalise_stain(image[None], method)[0] for image in images]  # type: ignore[arg-type]
    assert np.array_equal(together, np.concatenate(alone))
    turned, _ = normalise_stain(images.transpose(0, 2, 1, 3), method)  # type: ignore[arg-type]
    assert distance(turned.transpose(0, 2, 1, 3), together) < 1


@pytest.mark.parametrize("method", METHODS)
def test_little_tissue_does_not_darken_its_glass(method: str) -> None:
    """Fat: a tenth of the patch is tissue, the rest stays within 25 grey levels."""
    image = np.full((1, 64, 64, 3), 222, np.uint8)
    image[:, :8] = compose(tissue() * 0.7, OTHER)[:, :8]
    found, changed = normalise_stain(image, method)  # type: ignore[arg-type]
    assert changed.all()
    assert np.abs(found[:, 10:].astype(int) - 222).max() <= 25


def test_the_reference_of_reinhard_is_what_it_says() -> None:
    """Tissue of the synthetic cohort in Macenko's reference."""
    plan = plan_patches(200, 0).iloc[::5]
    rows = zip(plan.index, plan["label"], plan["group"], plan["scanner"], strict=True)
    images = [draw_patch(row, 0, bool(label), slide_stain(group, scanner))[0] for row, label, group, scanner in rows]
    found, changed = normalise_stain(np.stack(images), "macenko")
    twice, _ = normalise_stain(found[changed], "reinhard")
    assert changed.mean() > 0.9
    assert abs(twice.mean() - found[changed].mean()) < 5


@pytest.mark.parametrize("method", METHODS)
def test_real_patches_look_more_alike(method: str, real_data: Path) -> None:
    """The mean colour of tissue varies less from patch to patch."""
    files = sorted((real_data / "pcam" / "train").glob("*/*.jpg"))[::250]
    images = np.stack([np.asarray(Image.open(file)) for file in files])
    found, changed = normalise_stain(images, method)  # type: ignore[arg-type]
    masks = [(density(image) > 0.15).all(axis=0) for image in images]

    def spread(pictures: NDArray[np.uint8]) -> float:
        pairs = zip(pictures[changed], np.array(masks)[changed], strict=True)
        colours = np.array([picture.reshape(-1, 3)[mask].mean(axis=0) for picture, mask in pairs])
        shades = colours / colours.sum(axis=1, keepdims=True)
        return float(shades.std(axis=0).mean())

    assert changed.mean() > 0.9
    assert spread(found) < 0.75 * spread(images)


@pytest.mark.parametrize("method", ["macenko", "vahadane"])
def test_tissue_of_one_stain_stays(method: str) -> None:
    """With haematoxylin alone there is no eosin whose strength could be set."""
    image = compose(tissue() * np.array([[1.5], [0.0]]), REFERENCE)
    found, changed = normalise_stain(image, method)  # type: ignore[arg-type]
    assert not changed.any()
    assert np.array_equal(found, image)


@pytest.mark.parametrize("colour", [(70, 68, 66), (150, 170, 150), (0, 0, 255), (40, 160, 130), (40, 80, 170)])
def test_slides_and_check_know_the_same_ink(colour: tuple[int, int, int]) -> None:
    """What is no tissue on a slide for being ink is ink in an audit of patches, and nothing stained is."""
    picture = np.full((96, 96, 3), 244, np.uint8)
    picture[:, :48] = colour
    look, _ = look_at(picture)
    assert look.ink + look.black == pytest.approx(0.5, abs=0.05)
    assert not find_tissue(picture, 8.0).any()
    for stained in ((170, 90, 160), (60, 58, 84)):  # eosin, and nuclei that lie densely
        picture[:, :48] = stained
        assert look_at(picture)[0].ink + look_at(picture)[0].black == 0
