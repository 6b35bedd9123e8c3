"""Descriptors against scikit-image, SciPy and NumPy, on noise, slopes, flat areas and real patches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats
from skimage.color import rgb2gray, rgb2hed
from skimage.feature import graycomatrix, graycoprops, local_binary_pattern
from skimage.feature import hog as reference_hog
from skimage.filters import sobel, sobel_h, sobel_v, threshold_otsu
from skimage.util import img_as_ubyte

from tumortrace.texture.glcm import glcm, matrix
from tumortrace.texture.gradients import derivatives, hog, magnitude
from tumortrace.texture.gradients import sobel as sobel_statistics
from tumortrace.texture.intensity import intensity, to_grey
from tumortrace.texture.lbp import (
    basic_codes,
    lbp_basic,
    lbp_uniform,
    lbp_variance,
    variance,
    window_median,
    window_sum,
)
from tumortrace.texture.nuclei import densities, otsu, stain

ALL = ("contrast", "correlation", "energy", "homogeneity", "dissimilarity", "asm", "entropy")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Noise, few levels, a slope, one value, one pixel that differs, saturated colours: 40x36 px."""
    rng = np.random.default_rng(2)
    batch = rng.integers(0, 256, (7, 40, 36, 3), dtype=np.uint8)
    batch[1] = batch[1] // 64 * 64
    batch[2] = np.arange(36)[:, None] * 5 + np.arange(3) * 20
    batch[3] = 77
    batch[4] = 200
    batch[4, 20, 20] = 201
    batch[5] = np.where(batch[5] > 127, 255, 0)
    batch[6, :20] = 30
    return batch


@pytest.fixture(scope="module")
def grey(images: np.ndarray) -> np.ndarray:
    return to_grey(images)


def test_grey_is_the_luminance_of_scikit_image() -> None:
    """Equal to `rgb2gray` in 8 bits, but where the value lies halfway between two."""
    images = np.random.default_rng(0).integers(0, 256, (1, 300, 300, 3), dtype=np.uint8)
    off = to_grey(images).astype(int) - img_as_ubyte(rgb2gray(images))
    assert np.abs(off).max() <= 1
    halfway = (images.astype(np.int64) @ [2125, 7154, 721]) % 10_000 == 5000
    assert not off[~halfway].any()


def test_grey_images_keep_their_values() -> None:
    """Three equal channels give that value, for all 256 of them."""
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    np.testing.assert_array_equal(to_grey(values[..., None].repeat(3, axis=-1)), values)


def test_co_occurrence(images: np.ndarray, grey: np.ndarray) -> None:
    """All properties at several distances and all angles, one-valued images and distances beyond the image included."""
    distances, angles = (1, 2, 5, 38, 50), (0, 45, 90, 135)
    names, values = glcm(images, distances=distances, angles=angles, properties=ALL)
    for row, image in zip(values, grey, strict=True):
        counts = graycomatrix(image, distances, np.deg2rad(angles), 256, symmetric=True, normed=True)
        for each in ALL:
            expected = graycoprops(counts, "ASM" if each == "asm" else each)
            found = [row[names.index(f"glcm_{each}_d{d}_a{a}")] for d in distances for a in angles]
            np.testing.assert_allclose(found, expected.ravel(), rtol=1e-6, atol=1e-9, err_msg=each)


def test_co_occurrence_matrix(grey: np.ndarray) -> None:
    """The matrix that is drawn is scikit-image's."""
    expected = graycomatrix(grey[0], [2], [np.deg2rad(135)], 256, symmetric=True, normed=True)[..., 0, 0]
    np.testing.assert_allclose(matrix(grey[0], 2, 135), expected, atol=1e-15)


@pytest.mark.parametrize(("cells", "block", "orientations"), [(4, 2, 9), (3, 3, 8), (5, 1, 12)])
def test_oriented_gradients(images: np.ndarray, grey: np.ndarray, cells: int, block: int, orientations: int) -> None:
    """Equal to `hog` on the part of the image that whole cells cover."""
    height, width = 40 // cells, 36 // cells
    values = hog(images, cells=cells, block=block, orientations=orientations)[1]
    for row, image in zip(values, grey, strict=True):
        covered = image[: cells * height, : cells * width]
        expected = reference_hog(covered, orientations, (height, width), (block, block))
        np.testing.assert_allclose(row, expected, atol=1e-6)


def test_sobel(images: np.ndarray, grey: np.ndarray) -> None:
    """Derivatives and magnitude at every pixel, borders included, and their statistics."""
    x, y = derivatives(grey)
    names, values = sobel_statistics(images)
    for row, image, across, down in zip(values, grey, x, y, strict=True):
        np.testing.assert_allclose(across / 1020, sobel_v(image), atol=1e-9)
        np.testing.assert_allclose(down / 1020, sobel_h(image), atol=1e-9)
        np.testing.assert_allclose(magnitude(across, down), sobel(image), atol=1e-9)
        v, h, m = sobel_v(image), sobel_h(image), sobel(image)
        expected = [np.abs(v).mean(), v.std(), np.abs(h).mean(), h.std()]
        expected += [m.mean(), m.std(), np.percentile(m, 90), m.max()]
        np.testing.assert_allclose(row, expected, atol=1e-9)
    assert names[:4] == ["sobel_x_mean", "sobel_x_std", "sobel_y_mean", "sobel_y_std"]


def test_binary_patterns(images: np.ndarray, grey: np.ndarray) -> None:
    """Basic and uniform codes at every pixel, flat areas included, where rounding decides; and their shares."""
    for image, code, basic, uniform in zip(
        grey, basic_codes(grey), lbp_basic(images)[1], lbp_uniform(images)[1], strict=True
    ):
        np.testing.assert_array_equal(code, local_binary_pattern(image, 8, 1))
        np.testing.assert_allclose(basic, np.bincount(code.ravel(), minlength=256) / code.size)
        expected = local_binary_pattern(image, 8, 1, "uniform").astype(int)
        np.testing.assert_allclose(uniform, np.bincount(expected.ravel(), minlength=10) / code.size)


def test_variance(images: np.ndarray, grey: np.ndarray) -> None:
    """Variance at every pixel (0 where scikit-image has none), its histogram, and the patterns that it weighs."""
    for image, found, row in zip(grey, variance(grey), lbp_variance(images)[1], strict=True):
        expected = np.nan_to_num(local_binary_pattern(image, 8, 1, "var"))
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
        expected = np.where(expected < 1e-6, 0, expected)
        bins = np.histogram(expected, [0, *(2.0 ** np.arange(14)), np.inf])[0] / image.size
        np.testing.assert_allclose(row[:15], bins)
        pattern = local_binary_pattern(image, 8, 1, "uniform").astype(int).ravel()
        weights = np.bincount(pattern, expected.ravel(), minlength=10)
        np.testing.assert_allclose(row[15:], weights / (weights.sum() or 1), atol=1e-9)


def test_windows(grey: np.ndarray) -> None:
    """Sum and median of the 3x3 window are SciPy's, borders included."""
    for image, total, median in zip(grey, window_sum(grey.astype(np.uint16)), window_median(grey), strict=True):
        np.testing.assert_array_equal(total, ndimage.correlate(image.astype(int), np.ones((3, 3), int)))
        np.testing.assert_array_equal(median, ndimage.median_filter(image, 3))


def test_intensity(images: np.ndarray, grey: np.ndarray) -> None:
    """Histogram, moments and entropy are NumPy's and SciPy's; 0 where those are undefined."""
    names, values = intensity(images, bins=16)
    for row, image, flat in zip(values, images, grey.reshape(len(grey), -1).astype(float), strict=True):
        found = dict(zip((name.removeprefix("intensity_") for name in names), row, strict=True))
        np.testing.assert_allclose(row[:16], np.histogram(flat, 16, (0, 256))[0] / flat.size)
        undefined = np.ptp(flat) == 0
        assert found["mean"] == pytest.approx(flat.mean())
        assert found["std"] == pytest.approx(flat.std())
        assert found["skewness"] == pytest.approx(0 if undefined else stats.skew(flat), abs=1e-9)
        assert found["kurtosis"] == pytest.approx(0 if undefined else stats.kurtosis(flat), rel=1e-9)
        shares = np.unique(flat, return_counts=True)[1] / flat.size
        assert found["entropy"] == pytest.approx(stats.entropy(shares, base=2), abs=1e-12)
        for channel, colour in enumerate(("red", "green", "blue")):
            assert found[f"{colour}_mean"] == pytest.approx(image[..., channel].mean())
            assert found[f"{colour}_std"] == pytest.approx(image[..., channel].std())


def test_stains(images: np.ndarray) -> None:
    """Densities are those of `rgb2hed` at every pixel; statistics are NumPy's."""
    hematoxylin, eosin = densities(images)
    expected = rgb2hed(images)
    np.testing.assert_allclose(hematoxylin, expected[..., 0], atol=1e-9)
    np.testing.assert_allclose(eosin, expected[..., 1], atol=1e-9)
    row = stain(images)[1][0]
    for start, density in ((0, expected[0, ..., 0]), (5, expected[0, ..., 1])):
        wanted = [density.mean(), density.std(), *np.percentile(density, (10, 50, 90))]
        np.testing.assert_allclose(row[start : start + 5], wanted, atol=1e-9)
    assert row[10] == pytest.approx(np.corrcoef(expected[0, ..., 0].ravel(), expected[0, ..., 1].ravel())[0, 1])


def test_otsu(grey: np.ndarray) -> None:
    """The threshold is scikit-image's, for images of one value too."""
    assert otsu(grey).tolist() == [threshold_otsu(image) for image in grey]


def test_real_patches(real_data: Path) -> None:
    """On real tissue too: codes, co-occurrence and stains are scikit-image's."""
    files = sorted((real_data / "pcam" / "valid" / "1").glob("*.jpg"))[:4]
    images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    grey = to_grey(images)
    names, values = glcm(images)
    for image, row, code in zip(grey, values, basic_codes(grey), strict=True):
        np.testing.assert_array_equal(code, local_binary_pattern(image, 8, 1))
        counts = graycomatrix(image, [3], [np.pi / 4], 256, symmetric=True, normed=True)
        for each in ("contrast", "correlation", "energy", "homogeneity"):
            assert row[names.index(f"glcm_{each}_d3_a45")] == pytest.approx(graycoprops(counts, each)[0, 0], rel=1e-6)
    np.testing.assert_allclose(densities(images)[0], rgb2hed(images)[..., 0], atol=1e-9)
