"""Platt's scaling and isotonic regression against scikit-learn; how a method is chosen."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.calibration import (
    METHODS,
    Calibrator,
    choose_calibrator,
    fit_calibrator,
    fit_isotonic,
    fit_platt,
)


def sample(truth, n=1500, seed=0):
    """Logits and labels drawn with probability sigmoid(truth(logit))."""
    random = np.random.default_rng(seed)
    logit = random.normal(0, 3, n)
    return logit, (random.random(n) < expit(truth(logit))).astype(int)


TRUTHS = {
    "temperature": lambda logit: logit / 2,
    "platt": lambda logit: logit / 2 - 1.5,
    "isotonic": lambda logit: np.where(logit > 0, 0.1 * logit, 2 * logit),
}


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e-3])
def test_platt_is_unpenalised_logistic_regression(scale):
    """Slope and intercept are those of scikit-learn's LogisticRegression without a penalty, whatever the scale."""
    logit, label = sample(TRUTHS["platt"])
    reference = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(logit[:, None], label)
    expected = reference.coef_[0, 0] / scale, reference.intercept_[0]
    slope, intercept = fit_platt(scale * logit, label)
    if 0.05 <= expected[0] <= 20:
        assert (slope, intercept) == pytest.approx(expected, rel=1e-4)
    else:
        assert slope == (20 if expected[0] > 20 else 0.05)


def test_platt_stays_within_bounds():
    """Separable data end at the steepest slope; logits that say the opposite keep their order, at the flattest."""
    assert fit_platt([-1.0, -0.5, 2.0, 3.0], [0, 0, 1, 1])[0] == 20
    assert fit_platt([3.0, 2.0, -0.5, -1.0], [0, 0, 1, 1])[0] == 0.05


@pytest.mark.parametrize("seed", range(5))
def test_isotonic_steps_are_scikit_learns(seed):
    """At the centre of each inner step the probability is the step of IsotonicRegression, and there are as many."""
    random = np.random.default_rng(seed)
    logit, label = sample(TRUTHS["isotonic"], n=400, seed=seed)
    logit = np.round(logit, random.integers(1, 3))  # ties among logits
    reference = IsotonicRegression().fit(logit, label)
    staircase = reference.predict(logit)
    fitted = fit_isotonic(logit, label)
    steps = np.unique(staircase.round(12))
    found = fitted.apply(fitted.knots)
    assert len(found) == len(steps)
    inner = (steps > 0) & (steps < 1)
    np.testing.assert_allclose(found[inner], steps[inner], atol=1e-12)
    centres = [logit[np.isclose(staircase, step, atol=1e-12)].mean() for step in steps]
    np.testing.assert_allclose(fitted.knots, centres, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(3))
def test_calibration_keeps_the_order_and_stays_inside(method, seed):
    """On images that it has not seen, ranks and so AUROC are as before, and no probability is 0 or 1."""
    logit, label = sample(TRUTHS["isotonic"], n=300, seed=seed)
    fitted = fit_calibrator(logit, label, method)
    unseen, truth = sample(TRUTHS["isotonic"], n=2000, seed=seed + 50)
    probability = fitted.apply(unseen)
    assert roc_auc_score(truth, probability) == roc_auc_score(truth, unseen)
    assert (np.diff(fitted.apply(np.linspace(-40, 40, 5001))) >= 0).all()
    assert probability.min() > 0
    assert probability.max() < 1


def test_isotonic_of_separable_data_is_not_certain():
    """Steps of four and three images all alike become half an image in five and in four."""
    fitted = fit_isotonic([-4.0, -3.0, -2.0, -1.0, 1.0, 2.0, 3.0], [0, 0, 0, 0, 1, 1, 1])
    assert fitted.knots == (-2.5, 2.0)
    np.testing.assert_allclose(fitted.apply(fitted.knots), [0.1, 0.875])


def test_isotonic_of_logits_that_say_the_opposite_is_the_prevalence_nearly_everywhere():
    """One step remains, and the slope beyond is the flattest."""
    fitted = fit_isotonic([-2.0, -1.0, 1.0, 2.0], [1, 1, 1, 0])
    assert fitted.knots == (0.0,)
    np.testing.assert_allclose(fitted.apply([0.0]), [0.75])
    assert fitted.slope == 1 / 20


def test_a_calibrator_is_a_sum_of_ramps():
    """The map that an export can repeat with ReLUs: a line plus a change of slope at each knot."""
    logit, label = sample(TRUTHS["isotonic"], n=500)
    fitted = fit_isotonic(logit, label)
    x = np.linspace(-15, 15, 999)
    knots, values = np.array(fitted.knots), np.array(fitted.values)
    slopes = np.concatenate(([fitted.slope], np.diff(values) / np.diff(knots), [fitted.slope]))
    ramps = values[0] + slopes[0] * (x - knots[0])
    for knot, change in zip(knots, np.diff(slopes), strict=True):
        ramps = ramps + change * np.maximum(x - knot, 0)
    np.testing.assert_allclose(fitted.calibrated_logit(x), ramps, atol=1e-9)
    assert Calibrator.model_validate_json(fitted.model_dump_json()) == fitted


@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("groups", [None, 40])
def test_auto_finds_the_kind_of_miscalibration(truth, groups):
    """On 3,000 images auto takes the method that fits, and its likelihood on new images is the best or near it."""
    logit, label = sample(TRUTHS[truth], n=3000)
    group = None if groups is None else np.random.default_rng(1).integers(0, groups, 3000).astype(str)
    fitted, record = choose_calibrator(logit, label, group)
    assert record.method == fitted.method == truth
    assert set(record.cross_validated_nll) == set(METHODS)
    unseen, outcome = sample(TRUTHS[truth], n=20_000, seed=9)
    losses = {m: log_loss(outcome, fit_calibrator(logit, label, m).apply(unseen)) for m in METHODS}
    assert losses[truth] <= min(losses.values()) + 0.003


def test_auto_compares_by_slide():
    """A bend that only one slide shows is not taken for a property of the model: by image it would be."""
    random = np.random.default_rng(0)
    logit, label = sample(TRUTHS["temperature"], n=2400)
    group = np.repeat(np.arange(8), 300)
    odd = group == 3
    label[odd] = random.random(odd.sum()) < expit(logit[odd] - 6)
    assert choose_calibrator(logit, label, None)[1].method != "temperature"
    assert choose_calibrator(logit, label, group)[1].method == "temperature"


def test_likelihoods_on_record_are_of_folds_that_keep_slides_together():
    """Equal to those of unpenalised logistic regressions fitted without each of scikit-learn's grouped folds."""
    logit, label = sample(TRUTHS["platt"], n=1200)
    group = np.random.default_rng(2).integers(0, 12, 1200)
    label[group == 5] = 1 - label[group == 5]  # so that a slide among the images of the fit would show
    loss = {"temperature": np.empty(1200), "platt": np.empty(1200)}
    for fit, held in StratifiedGroupKFold(5, shuffle=True, random_state=0).split(logit[:, None], label, group):
        for name, intercept in (("temperature", False), ("platt", True)):
            model = LogisticRegression(C=np.inf, fit_intercept=intercept, tol=1e-10).fit(logit[fit, None], label[fit])
            probability = model.predict_proba(logit[held, None])[np.arange(len(held)), label[held]]
            loss[name][held] = -np.log(probability)
    found = choose_calibrator(logit, label, group)[1].cross_validated_nll
    for name, losses in loss.items():
        assert found[name] == pytest.approx(losses.mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("n", "group", "why"),
    [(60, None, "too few images"), (600, np.repeat(np.arange(4), 150), "too few slides or patients")],
)
def test_auto_stays_with_temperature_where_it_cannot_compare(n, group, why):
    """Few images or few slides leave one number to fit, and the record says why."""
    logit, label = sample(TRUTHS["platt"], n=n)
    fitted, record = choose_calibrator(logit, label, group)
    assert fitted.method == "temperature"
    assert record.cross_validated_nll is None
    assert why in record.why


def test_groups_of_one_class_each_leave_temperature():
    """Where a fold would leave one class alone nothing can be compared."""
    logit, _ = sample(TRUTHS["platt"], n=500)
    group = np.repeat(np.arange(5), 100)
    label = (group == 4).astype(int)
    assert choose_calibrator(logit, label, group)[0].method == "temperature"


def test_what_is_asked_for_is_fitted():
    """A named method is taken without comparison; none leaves the sigmoid; another name is refused."""
    logit, label = sample(TRUTHS["platt"], n=200)
    for method in METHODS:
        fitted, record = choose_calibrator(logit, label, method=method)
        assert (fitted, record.asked) == (fit_calibrator(logit, label, method), method)
    unfitted = choose_calibrator(logit, label, method="none")[0]
    np.testing.assert_allclose(unfitted.apply(logit), expit(logit), rtol=1e-15)
    np.testing.assert_array_equal(unfitted.apply([-800.0, 0.0, 800.0]), [0, 0.5, 1])  # and without overflow
    with pytest.raises(PredictionsError, match="beta"):
        choose_calibrator(logit, label, method="beta")


@pytest.mark.parametrize(
    "wrong",
    [
        {"slope": 0},
        {"slope": np.inf},
        {"knots": (0.0, 0.0), "values": (0.0, 1.0)},
        {"values": (np.nan,)},
        {"knots": ()},
    ],
)
def test_a_map_that_falls_or_is_no_map_is_refused(wrong):
    """Nothing that would change the order of images can be loaded."""
    with pytest.raises(ValidationError):
        Calibrator(method="isotonic", **wrong)
