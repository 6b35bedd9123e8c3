"""Probabilities and prediction sets of more than two classes, against simulation, a grid, and crepes."""

from __future__ import annotations

import numpy as np
import pytest
from crepes import ConformalClassifier
from scipy.special import log_softmax, softmax

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.class_calibration import (
    ClassCalibrator,
    fit_class_calibrator,
    fit_class_conformal,
    strangeness,
)

POSITIVE = (False, False, True, True)


def simulated(seed: int, n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits of four classes that tell their true probabilities, and labels drawn by these."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=1.5, size=(n, 4))
    shares = softmax(logits, axis=1)
    return logits, (shares.cumsum(1) < random.random((n, 1))).sum(1).clip(max=3)


def test_classes_add_up_to_the_probability_of_tumour() -> None:
    logits, _ = simulated(0, 50)
    whole = np.random.default_rng(1).random(50)
    shares = ClassCalibrator(method="vector", slope=(1, 2, 3, 4), bias=(0, 1, 0, -1)).apply(logits, whole, POSITIVE)
    assert np.allclose(shares[:, 2:].sum(1), whole)
    assert np.allclose(shares.sum(1), 1)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_the_temperature_is_found_again(factor: float) -> None:
    """Logits that were stretched come back, and no temperature of a grid is more likely."""
    logits, label = simulated(2)
    fitted = fit_class_calibrator(logits * factor, label, POSITIVE)
    assert fitted.slope is not None
    assert fitted.slope[0] == pytest.approx(1 / factor, rel=0.1)
    sides = np.array(POSITIVE)

    def loss(slope: float) -> float:
        masked = np.where(sides[label][:, None] != sides, -np.inf, logits * factor * slope)
        return -float(log_softmax(masked, axis=1)[np.arange(len(label)), label].mean())

    assert all(loss(fitted.slope[0]) <= loss(slope) + 1e-9 for slope in np.geomspace(0.05, 20, 400))


def test_vector_scaling_finds_slopes_and_offsets_again() -> None:
    """What was stretched and shifted class by class comes back, as far as a side of two classes can tell."""
    logits, label = simulated(3, 20_000)
    bent = (logits - [0.5, 0.0, -1.0, 0.0]) / [2.0, 2.0, 0.5, 0.5]
    fitted = fit_class_calibrator(bent, label, POSITIVE, "vector")
    whole = softmax(logits, axis=1)[:, 2:].sum(1)
    assert np.abs(fitted.apply(bent, whole, POSITIVE) - softmax(logits, axis=1)).mean() < 0.01
    assert np.abs(ClassCalibrator().apply(bent, whole, POSITIVE) - softmax(logits, axis=1)).mean() > 0.05


def test_a_class_without_calibration_images_stays_finite() -> None:
    logits, label = simulated(4, 200)
    fitted = fit_class_calibrator(logits, np.where(label == 3, 2, label), POSITIVE, "vector")
    assert np.isfinite(fitted.apply(logits, np.full(200, 0.5), POSITIVE)).all()
    with pytest.raises(PredictionsError, match="calibration method 'isotonic'"):
        fit_class_calibrator(logits, label, POSITIVE, "isotonic")


@pytest.mark.parametrize("method", ["lac", "aps"])
@pytest.mark.parametrize("coverage", [0.8, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_sets_are_those_of_crepes(method: str, coverage: float, seed: int) -> None:
    """Mondrian by class, without smoothing, on scores of our own definition."""
    random = np.random.default_rng(seed)
    classes = int(random.integers(3, 10))
    label = np.concatenate([np.arange(classes)] * 12 + [random.integers(classes, size=200)])
    shares = softmax(random.normal(size=(len(label), classes)) + np.eye(classes)[label], axis=1)
    new = softmax(random.normal(size=(300, classes)), axis=1)
    fitted = fit_class_conformal(label, shares, coverage, method=method)
    expected = np.zeros((300, classes), dtype=bool)
    for index in range(classes):
        own = label == index
        reference = ConformalClassifier().fit(strangeness(shares, method)[own, index])
        p_values = reference.predict_p(strangeness(new, method)[:, [index]], smoothing=False)
        expected[:, index] = p_values[:, 0] > 1 - coverage + 1e-12
    differing = fitted.sets(new) != expected
    near = np.abs(strangeness(new, method) - np.array(fitted.quantiles)) < 2e-5  # what rounding lets in
    assert not (differing & ~near).any()


def test_lac_by_hand_and_aps_as_published() -> None:
    """Ten images a class: the quantile at coverage .9 is the tenth smallest; APS sums down to the class itself."""
    shares = np.tile([[0.7, 0.2, 0.1]], (10, 1))
    shares[3] = [0.3, 0.5, 0.2]
    fitted = fit_class_conformal([0] * 10, shares, 0.9, method="lac")
    assert fitted.quantiles[0] == pytest.approx(0.7)
    assert fitted.quantiles[1:] == (None, None)
    assert strangeness([[0.3, 0.5, 0.2]], "aps")[0] == pytest.approx([0.8, 0.5, 1.0])


def test_coverage_holds_for_each_class() -> None:
    """On average over calibration sets, at least the coverage, and not much more of a class with many images."""
    held = np.zeros(4)
    for seed in range(40):
        logits, label = simulated(seed, 800)
        shares = softmax(logits, axis=1)
        sets = fit_class_conformal(label[:400], shares[:400], 0.9).sets(shares[400:])
        held += [sets[label[400:] == index, index].mean() for index in range(4)]
    assert (held / 40 > 0.89).all()
    assert (held / 40 < 0.93).all()
