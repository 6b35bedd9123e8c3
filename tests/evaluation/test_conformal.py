import json
import math

import numpy as np
import pytest
from crepes import WrapClassifier

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.conformal import Conformal, decide, fit_conformal, prediction_sets, promise


def _cohort(random, n, positive):
    """Images of a miscalibrated model: positives score higher, but not by as much as it says."""
    label = (random.random(n) < positive).astype(int)
    return label, 1 / (1 + np.exp(-3 * random.normal(1.2 * label - 0.6)))


def test_quantiles_are_the_finite_sample_ones():
    """The quantile is the ceil((n + 1) coverage)-th smallest score of the class; with 8 images of 9 needed, None."""
    probability = np.arange(1, 20) / 20
    fitted = fit_conformal(np.zeros(19, int), probability, 0.9)
    expected = Conformal(coverage=0.9, quantiles=(18 / 20, None), n=(19, 0), unit="image", n_groups=None)
    assert fitted == expected
    for n, exists in ((8, False), (9, True)):
        quantile = fit_conformal([1] * n, [0.25] * n, 0.9).quantiles[1]
        assert quantile == (0.75 if exists else None)
    json.dumps(fitted.model_dump(), allow_nan=False)


def test_rank_is_not_pushed_up_by_rounding():
    """Whole ranks stay whole: (99 + 1) x coverage for every coverage in per cent."""
    scores = np.arange(1, 100) / 100
    for per_cent in range(1, 100):
        assert fit_conformal(np.zeros(99, int), scores, per_cent / 100).quantiles[0] == scores[per_cent - 1]


def test_coverage_holds_in_each_class():
    """Over 200 simulated cohorts, each class is covered as promised, and no more than the finite sample explains."""
    coverage, covered, wrong = 0.9, [], []
    for seed in range(200):
        random = np.random.default_rng(seed)
        fitted = fit_conformal(*_cohort(random, 150, 0.3), coverage)
        label, probability = _cohort(random, 2000, 0.6)  # another prevalence: the guarantee is per class
        sets = prediction_sets(probability, fitted.quantiles)
        decision = decide(probability, 0.5, fitted.quantiles)
        covered.append([sets[label == k, k].mean() for k in (0, 1)])
        wrong.append([(decision[label == k] == name).mean() for k, name in ((0, "positive"), (1, "negative"))])
    mean, error = np.mean(covered, axis=0), np.std(covered, axis=0) / math.sqrt(200)
    assert (mean > coverage - 3 * error).all()
    assert (mean < coverage + 1 / 35 + 3 * error).all()
    assert (np.mean(wrong, axis=0) < 1 - coverage + 3 * error).all()


@pytest.mark.parametrize(
    ("quantiles", "threshold", "expected"),
    [
        ([0.5, 0.6], 0.5, ["negative", "refer", "positive"]),  # both classes at 0.5
        ([0.3, 0.3], 0.5, ["negative", "refer", "positive"]),  # neither class at 0.5
        ([0.5, 0.3], 0.5, ["negative", "refer", "positive"]),  # only negative at 0.5, but called positive
        ([0.5, 0.3], 0.6, ["negative", "negative", "positive"]),
        ([None, 0.5], 0.5, ["negative", "refer", "refer"]),  # too few negatives: positive is never decided
        ([0.5, None], 0.5, ["refer", "refer", "positive"]),
        ([None, None], 0.5, ["refer", "refer", "refer"]),
        (None, 0.5, ["negative", "positive", "positive"]),
    ],
)
def test_decisions_worked_by_hand(quantiles, threshold, expected):
    """An image is decided where exactly one class remains and the threshold agrees, else referred."""
    assert decide([0.1, 0.5, 0.9], threshold, quantiles).tolist() == expected


def test_a_calibration_image_at_the_quantile_is_covered():
    """The image that defines the quantile belongs to its own set, whatever the rounding."""
    for seed in range(50):
        random = np.random.default_rng(seed)
        label, probability = _cohort(random, 80, 0.5)
        sets = prediction_sets(probability, fit_conformal(label, probability, 0.8).quantiles)
        for k in (0, 1):
            own = label == k
            assert sets[own, k].sum() >= math.ceil(0.8 * (own.sum() + 1) - 1e-9)


def test_rounding_elsewhere_changes_no_decision_of_the_image_at_the_quantile():
    """Its probability a few millionths off, as another backend computes it, it is still in its own set and decided."""
    label, probability = np.repeat([0, 1], 20), np.append(np.linspace(0.01, 0.3, 20), np.linspace(0.99, 0.7, 20))
    quantiles = fit_conformal(label, probability, 0.9).quantiles
    for k, name in ((0, "negative"), (1, "positive")):
        at = probability[label == k][18]
        assert quantiles[k] == pytest.approx(abs(k - at))
        for off in (-3e-6, 0, 3e-6):
            assert prediction_sets([at + off], quantiles)[0, k]
            assert decide([at + off], 0.5, quantiles) == name


def test_no_images_give_no_decisions():
    """An empty array stays one."""
    assert decide([], 0.5, [0.5, 0.5]).tolist() == []


@pytest.mark.parametrize("coverage", [0, 1, 90, math.nan])
def test_impossible_coverage_is_refused(coverage):
    """A coverage outside (0, 1) is refused."""
    with pytest.raises(PredictionsError, match="coverage"):
        fit_conformal([0, 1], [0.1, 0.9], coverage)


def test_impossible_probability_is_refused():
    """A probability that is none is refused by row."""
    with pytest.raises(PredictionsError, match="row 2"):
        decide([0.1, 1.1], 0.5, None)


class _Known:
    """Stands for a classifier: what it is given are the probabilities."""

    classes_ = np.array([0, 1])

    def predict_proba(self, x):
        return np.column_stack([1 - x[:, 0], x[:, 0]])


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("seed", range(4))
def test_sets_are_those_of_crepes(coverage, seed):
    """Class by class, with and without ties, sets hold the classes whose p-value by crepes is above 1 - coverage."""
    random = np.random.default_rng(seed)
    label, probability = _cohort(random, 150, 0.4)
    _, new = _cohort(random, 400, 0.4)
    if seed % 2:
        probability, new = probability.round(2), new.round(2)
    reference = WrapClassifier(_Known())
    reference.calibrate(probability[:, None], label, class_cond=True)
    expected = reference.predict_p(new[:, None], all_classes=True, smoothing=False) > 1 - coverage + 1e-9
    found = prediction_sets(new, fit_conformal(label, probability, coverage).quantiles)
    np.testing.assert_array_equal(found, expected)


def _slides(random, count, spread=1.5):
    """Slides of 1 to 60 images; small ones are harder, and each shifts its own images."""
    size = random.integers(1, 61, count)
    group = np.repeat(np.arange(count), size)
    label = (random.random(len(group)) < 0.4).astype(int)
    shift = random.normal(0, spread, count)[group] * np.where(size < 20, 2, 0.3)[group]
    logit = random.normal(3 * label - 1.5) + shift * np.where(label == 1, -1, 1)
    return group, label, 1 / (1 + np.exp(-logit))


def test_by_slide_the_coverage_holds_for_images_of_new_slides():
    """Over 200 simulated cohorts of 60 slides each class is covered as promised; image by image it would not be."""
    coverage, by_slide, by_image = 0.9, [], []
    for seed in range(200):
        random = np.random.default_rng(seed)
        group, label, probability = _slides(random, 60)
        fitted = fit_conformal(label, probability, coverage, group)
        assert fitted.unit == "group"
        single = fit_conformal(label, probability, coverage)
        group, label, probability = _slides(random, 150)
        for found, quantiles in ((by_slide, fitted.quantiles), (by_image, single.quantiles)):
            sets = prediction_sets(probability, quantiles)
            found.append([_mean_of_slides(sets[label == k, k], group[label == k]) for k in (0, 1)])
    mean, error = np.mean(by_slide, axis=0), np.std(by_slide, axis=0) / math.sqrt(200)
    assert (mean > coverage - 3 * error).all()
    assert (mean < coverage + 1 / 50 + 3 * error).all()
    assert (np.mean(by_image, axis=0) < coverage - 0.02).all()


def _mean_of_slides(covered, group):
    size = np.bincount(group)
    return (np.bincount(group, weights=covered)[size > 0] / size[size > 0]).mean()


def test_one_image_per_slide_is_as_image_by_image():
    """Then the quantiles are the ordinary ones, for every coverage."""
    random = np.random.default_rng(0)
    label, probability = _cohort(random, 99, 0.4)
    for per_cent in range(50, 100):
        alone = fit_conformal(label, probability, per_cent / 100, np.arange(99))
        assert alone.unit == "group"
        assert alone.quantiles == fit_conformal(label, probability, per_cent / 100).quantiles


def test_weights_of_slides_worked_by_hand():
    """Twenty slides weigh 1/21 each: at coverage .9 the weights of 18.9 slides are needed, half of one being .5."""
    group = np.repeat(np.arange(20), 2)
    scores = np.linspace(0.01, 0.4, 40)  # two images each, in order: image i carries i / 2 slides with it
    label = np.zeros(40, int)
    fitted = fit_conformal(np.append(label, label + 1), np.append(scores, 1 - scores), 0.9, np.append(group, group))
    np.testing.assert_allclose(fitted.quantiles, [scores[37], scores[37]])
    assert fitted.n_groups == (20, 20)


@pytest.mark.parametrize("missing", [True, False])
def test_images_are_the_unit_where_slides_are_few_or_not_all_known(missing):
    """Nineteen slides of one class, or one image without a slide, leave the image as the unit."""
    random = np.random.default_rng(0)
    label, probability = _cohort(random, 300, 0.5)
    group = (np.arange(300) % (40 if missing else 19)).astype(object)
    group[7] = None if missing else group[7]
    fitted = fit_conformal(label, probability, 0.9, group)
    assert fitted.unit == "image"
    assert fitted.n_groups == (None if missing else (19, 19))


def test_the_promise_is_said_in_words():
    """The share, the unit and what voids it are in the sentences; so is a class that can never be decided."""
    random = np.random.default_rng(0)
    group, label, probability = _slides(random, 60)
    said = " ".join(promise(fit_conformal(label, probability, 0.95, group), ("normal", "tumour")))
    assert "at most 5 % are decided wrongly" in said
    assert "a new slide or patient" in said
    assert "scanner" in said
    assert "ever decide" not in said
    few = " ".join(promise(fit_conformal([0] * 30 + [1] * 3, [0.1] * 30 + [0.9] * 3, 0.9), ("normal", "tumour")))
    assert "ever decide normal" in few
    assert decide([0.1], 0.5, fit_conformal([0] * 30 + [1] * 3, [0.1] * 30 + [0.9] * 3, 0.9).quantiles) == "refer"
