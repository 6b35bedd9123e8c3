import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.calibration import fit_temperature, temperature_scaling


def _sample(true_temperature, n=2000, seed=0):
    random = np.random.default_rng(seed)
    logit = random.normal(0, 3, n)
    return logit, (random.random(n) < expit(logit / true_temperature)).astype(int)


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 2.0, 5.0])
def test_temperature_is_that_of_logistic_regression(true_temperature):
    """1 / T is the coefficient of an unpenalised logistic regression without intercept, and close to the truth."""
    logit, label = _sample(true_temperature)
    reference = LogisticRegression(C=1e12, fit_intercept=False, tol=1e-10).fit(logit[:, None], label)
    temperature = fit_temperature(logit, label)
    assert 1 / temperature == pytest.approx(reference.coef_[0, 0], rel=1e-4)
    assert temperature == pytest.approx(true_temperature, rel=0.25)


def test_no_temperature_on_a_grid_is_better():
    """The negative log-likelihood at T is the least over a fine grid."""
    logit, label = _sample(1.7, n=300)
    best = log_loss(label, temperature_scaling(fit_temperature(logit, label)).apply(logit))
    grid = np.geomspace(0.05, 20, 100)
    assert best <= min(log_loss(label, temperature_scaling(t).apply(logit)) for t in grid) + 1e-12


def test_bounds_hold():
    """Separable data give the lower bound, inverted logits the upper one, and logits of 0 leave T at 1."""
    assert fit_temperature([-1.0, 2.0], [0, 1]) == 0.05
    assert fit_temperature([1.0, -2.0], [0, 1]) == 20.0
    assert fit_temperature([0.0, 0.0], [0, 1]) == 1.0
    assert 0.05 <= fit_temperature([-1e4, 1e4, 1e4], [0, 1, 0]) <= 20


def test_ranking_stays_and_extremes_do_not_overflow():
    """Calibrated probabilities are float64, keep the order of float32 logits and end at exactly 0 and 1."""
    probability = temperature_scaling(3.0).apply(np.array([-1e9, -1, 0, 1, 1e9], dtype=np.float32))
    assert probability.dtype == np.float64
    assert (np.diff(probability) > 0).all()
    assert probability[[0, 2, 4]].tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("logit", "label"),
    [
        ([0.0, np.nan], [0, 1]),
        ([0.0, np.inf], [0, 1]),
        ([0.0, 1.0], [0, 2]),
        ([0.0, 1.0], [1, 1]),
        ([0.0], [0, 1]),
        ([], []),
        ([[0.0], [1.0]], [0, 1]),
    ],
)
def test_impossible_input_is_refused(logit, label):
    """Logits that are not finite and labels that fit no temperature are refused."""
    with pytest.raises(PredictionsError):
        fit_temperature(logit, label)


@pytest.mark.parametrize("temperature", [0, -1, np.nan, np.inf])
def test_impossible_temperature_is_refused(temperature):
    """A temperature that is not above 0 is refused."""
    with pytest.raises(PredictionsError, match="temperature"):
        temperature_scaling(temperature)
