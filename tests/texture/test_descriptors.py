"""What every registered descriptor promises, without naming one."""

from __future__ import annotations

import numpy as np
import pytest

from tumortrace.errors import RecipeError, TumorTraceError
from tumortrace.texture.descriptor import DESCRIPTORS, choose, describe

NAMES = list(DESCRIPTORS)


def images(count: int, height: int, width: int) -> np.ndarray:
    """Noise on a slope, in three colours."""
    noise = np.random.default_rng(5).normal(0, 25, (count, height, width, 3))
    slope = np.linspace(60, 190, width)[:, None] + np.array([40, -30, 10])
    return np.clip(noise + slope, 0, 255).astype(np.uint8)


def check(names: list[str], values: np.ndarray, count: int, prefix: str) -> None:
    assert values.dtype == np.float64
    assert values.shape == (count, len(names))
    assert np.isfinite(values).all()
    assert len(set(names)) == len(names)
    assert all(name.startswith(prefix.replace("-", "_") + "_") for name in names)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(8, 8), (9, 31), (96, 96)])
def test_values_are_finite_for_images_of_any_size(name: str, size: tuple[int, int]) -> None:
    """One finite row per image and one unique name per column, from 8x8 pixels on."""
    names, values = DESCRIPTORS[name](images(3, *size))
    check(names, values, 3, name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grey", [0, 1, 128, 255])
def test_an_image_of_one_value_has_finite_features(name: str, grey: int) -> None:
    """Where nothing varies, what is undefined has a stated value, not NaN."""
    names, values = DESCRIPTORS[name](np.full((2, 8, 8, 3), grey, np.uint8))
    check(names, values, 2, name)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_does_not_depend_on_its_batch(name: str) -> None:
    """Images together give, bit for bit, the rows that each gives alone, and the same again."""
    batch = images(5, 24, 40)
    batch[1] = 200
    names, values = DESCRIPTORS[name](batch)
    alone = [DESCRIPTORS[name](image[None]) for image in batch]
    assert all(each == names for each, _ in alone)
    np.testing.assert_array_equal(values, np.concatenate([each for _, each in alone]))
    np.testing.assert_array_equal(values, DESCRIPTORS[name](batch)[1])


@pytest.mark.parametrize("name", NAMES)
def test_names_stay_when_images_change_and_the_images_stay(name: str) -> None:
    """Columns follow from the arguments alone, also for another size; and the images are only read."""
    batch = images(2, 16, 16)
    batch.setflags(write=False)
    assert DESCRIPTORS[name](batch)[0] == DESCRIPTORS[name](images(2, 33, 20)[::-1])[0]


def test_all_descriptors_stand_side_by_side() -> None:
    """Names stay unique among all descriptors, in blocks as in one piece."""
    chosen = choose()
    assert list(chosen) == NAMES
    many = images(60, 48, 48)  # more than one block
    names, values = describe(many, chosen)
    assert len(set(names)) == len(names) == values.shape[1]
    np.testing.assert_array_equal(values[-1:], describe(many[-1:], chosen)[1])


def test_arguments_can_be_changed() -> None:
    """`descriptor.argument=value` changes what is computed; everything else keeps its default."""
    chosen = choose(["glcm", "hog"], ["glcm.properties=[entropy, asm]", "glcm.distances=[2]", "glcm.angles=[90]"])
    assert chosen["hog"]["orientations"] == 9
    assert describe(images(1, 16, 16), chosen)[0][:3] == ["glcm_entropy_d2_a90", "glcm_asm_d2_a90", "hog_b00_c00_o0"]


@pytest.mark.parametrize(
    "change",
    ["glcm.distances", "glcm.colour=1", "hog.cells=3", "glcm.distances=[0]", "glcm.angles=[30]", "glcm.distances=[",
     "glcm.properties=[]", "glcm.properties=[roughness]", "sobel.size=3", "=", ""],
)  # fmt: skip
def test_changes_that_do_not_fit_are_refused(change: str) -> None:
    """One line names what was found, for descriptors that are not chosen as well."""
    with pytest.raises(RecipeError, match="--set"):
        choose(["glcm", "sobel"], [change])


def test_unknown_descriptors_are_refused() -> None:
    """The message names those that there are."""
    with pytest.raises(TumorTraceError, match=r"no descriptor named 'gabor'.*lbp-mvm"):
        choose(["gabor"])


def test_too_many_cells_are_refused() -> None:
    """Gradients in cells of less than a pixel, or in blocks larger than the grid, are an error with a remedy."""
    for change in ("hog.cells=9", "hog.block=5"):
        with pytest.raises(TumorTraceError, match="descriptor hog"):
            describe(images(1, 8, 8), choose(["hog"], [change]))
