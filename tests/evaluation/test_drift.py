"""Whether a whole set lies apart: rarely said of clean slides, however few the images, and nearly always of others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tumortrace.evaluation.discrepancy import Reference, median_distance
from tumortrace.evaluation.drift import MINIMUM, NEEDED, SAMPLE, drift_line, judge_drift, sampled

SLIDES, EACH, WIDTH, SPREAD = 40, 32, 16, 0.4
Random = np.random.Generator


def slides(random: Random, count: int, each: int, shift: float = 0.0) -> tuple[np.ndarray, pd.Series]:
    """Images of slides that differ from one another by `SPREAD` of what images of a slide differ by."""
    centres = random.normal(shift, SPREAD, (count, WIDTH)).repeat(each, 0)
    return centres + random.normal(size=centres.shape), pd.Series(np.repeat(np.arange(count), each).astype(str))


def reference_of(random: Random, count: int = SLIDES) -> Reference:
    rows, group = slides(random, count, EACH)
    return Reference(rows, group.astype(int), median_distance(rows[::8]))


@pytest.fixture(scope="module")
def references() -> list[Reference]:
    """Of several models, since one reference is a sample by itself."""
    return [reference_of(np.random.default_rng(seed)) for seed in range(6)]


def flagged(references: list[Reference], count: int, each: int, shift: float = 0.0, sets: int = 25) -> float:
    """Share of sets of so many slides and images that are said to lie further than 19 of 20."""
    random, said = np.random.default_rng(1), []
    for reference in references:
        for _ in range(sets):
            rows, group = slides(random, count, each, shift)
            drift = judge_drift(reference, rows, group, grouped=True, images=len(rows))
            said.append(drift.verdict == "further")
    return float(np.mean(said))


@pytest.fixture
def no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """For simulations, which do not look at it."""
    monkeypatch.setattr(Reference, "interval", lambda *_, **__: (0.0, 0.0))


@pytest.mark.usefixtures("no_interval")
@pytest.mark.parametrize(("count", "each"), [(1, MINIMUM), (1, 200), (8, 20)])
def test_clean_sets_are_rarely_called_further(references: list[Reference], count: int, each: int) -> None:
    """About one in twenty of one slide, as many as there are images, and no more of several slides."""
    assert flagged(references, count, each) <= 0.08


@pytest.mark.usefixtures("no_interval")
def test_distances_of_larger_samples_would_call_small_sets_further(references: list[Reference]) -> None:
    """Why slides are taken with as few images as the set has: beside all their images, chance flags a set of 8."""
    random, said, alike = np.random.default_rng(2), [], []
    for reference in references:
        whole, small = (np.sort(reference.drawn(1, each, draws=1))[-2] for each in (EACH, 8))  # 39 of 40
        distances = np.array([reference.discrepancy(slides(random, 1, 8)[0]) for _ in range(25)])
        said.append((distances > whole).mean())
        alike.append((distances > small).mean())
    assert np.mean(said) > 1.5 * np.mean(alike)
    assert np.mean(alike) <= 0.08


@pytest.mark.usefixtures("no_interval")
def test_the_minimum_is_where_a_shift_is_seen(references: list[Reference], monkeypatch: pytest.MonkeyPatch) -> None:
    """What moves all images by more than slides differ is seen in nine of ten sets; more images show little more.

    Of a smaller shift a set of 8 shows markedly less.
    """
    monkeypatch.setattr("tumortrace.evaluation.drift.MINIMUM", 8)
    assert flagged(references, 1, MINIMUM, 0.6, 10) >= 0.9
    some = flagged(references, 1, MINIMUM, 0.5, 15)
    assert flagged(references, 1, 8, 0.5, 15) < some - 0.1
    assert flagged(references, 1, 4 * MINIMUM, 0.5, 15) < some + 0.1


@pytest.mark.usefixtures("no_interval")
def test_many_slides_show_what_one_does_not(references: list[Reference]) -> None:
    """A shift smaller than the spread from slide to slide is seen in ten slides together, not in one of as many."""
    assert flagged(references, 10, 20, 0.25, 5) > 0.9
    assert flagged(references, 1, 200, 0.25, 5) < 0.5


def test_too_few_images_say_nothing() -> None:
    """No distance, no verdict, and one line that says how many are needed."""
    random = np.random.default_rng(0)
    rows, group = slides(random, 1, MINIMUM - 1)
    drift = judge_drift(reference_of(random), rows + 9, group, grouped=True, images=len(rows))
    assert (drift.distance, drift.verdict, drift.distances) == (None, None, [])
    assert drift_line(drift).startswith(f"too few images ({MINIMUM - 1} of {MINIMUM})")


def test_too_few_slides_give_a_place_and_no_verdict() -> None:
    """Of 18 slides even the furthest of 19 is no rarity."""
    random = np.random.default_rng(0)
    rows, group = slides(random, 1, 60, 3.0)
    drift = judge_drift(reference_of(random, NEEDED - 1), rows, group, grouped=True, images=60)
    assert (drift.verdict, drift.further_than, drift.known_groups) == (None, NEEDED - 1, NEEDED - 1)
    assert "too few slides or patients (18 of 19)" in drift_line(drift)


def test_without_slides_there_is_a_floor_and_no_place() -> None:
    """Random draws of training images of the set's size; the line says what is missing."""
    random = np.random.default_rng(0)
    training = random.normal(size=(300, WIDTH))
    reference = Reference(training, np.arange(300), median_distance(training))
    drift = judge_drift(reference, random.normal(0.5, 1, (100, WIDTH)), None, grouped=False, images=100)
    assert (drift.verdict, drift.drawn_groups, drift.drawn_images, drift.compared) == (None, 100, 1, "random draws")
    assert abs(np.mean(drift.distances)) < 0.002
    line = drift_line(drift)
    assert not line.startswith("warning")
    assert "no slide or patient of the training data is known" in line


def test_a_set_is_placed_and_told() -> None:
    """The line names the distance with its interval and over how many slides it lies."""
    random = np.random.default_rng(3)
    reference = reference_of(random)
    rows, group = slides(random, 1, 200, 1.0)
    drift = judge_drift(reference, rows, group, grouped=True, images=5000)
    distance = drift.distance
    assert distance is not None
    assert distance.value is not None
    assert distance.ci95 is not None
    assert distance.ci95[0] < distance.value < distance.ci95[1]
    assert drift.further_than == (np.array(drift.distances) < distance.value).sum() == SLIDES
    assert (drift.groups, drift.drawn_groups, drift.drawn_images, drift.verdict) == (1, 1, EACH, "further")
    line = drift_line(drift)
    assert line.startswith("warning: as a whole these 5,000 images lie further from the training images than 40 of 40")
    assert f"(MMD2 {distance.value:.4f} [" in line


def test_unequal_slides_count_as_fewer() -> None:
    """One slide of 180 images beside nine of 2 each is about one."""
    random = np.random.default_rng(4)
    rows, _ = slides(random, 1, 198)
    group = pd.Series(["large"] * 180 + [name for name in "abcdefghi" for _ in range(2)])
    drift = judge_drift(reference_of(random), rows, group, grouped=True, images=198)
    assert (drift.groups, drift.drawn_groups) == (10, 1)
    unknown = judge_drift(reference_of(random), rows, group.where(group != "a"), grouped=True, images=198)
    assert (unknown.groups, unknown.drawn_groups) == (None, 1)


def test_of_a_large_set_a_fixed_sample_is_compared() -> None:
    """The same for the same number, without repeats."""
    assert sampled(12).tolist() == list(range(12))
    rows = sampled(50_000)
    assert len(np.unique(rows)) == SAMPLE
    np.testing.assert_array_equal(rows, sampled(50_000))
