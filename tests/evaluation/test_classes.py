"""More than two classes: figures against scikit-learn on random tables, intervals, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.class_measures import WATCHED, class_scores, watched
from tumortrace.evaluation.classes import SEPARATOR, class_columns, classes_of, evaluate_classes


def random_table(seed: int, *, groups: int = 0) -> tuple[pd.DataFrame, list[str], np.ndarray, np.ndarray]:
    """A table of 3 to 9 classes with its labels and probabilities as arrays."""
    random = np.random.default_rng(seed)
    classes, n = int(random.integers(3, 10)), int(random.integers(60, 200))
    names = [f"class {index}" for index in range(classes)]
    label = np.concatenate([np.arange(classes), random.integers(classes, size=n - classes)])
    logits = random.normal(size=(n, classes)) + 1.5 * np.eye(classes)[label]
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    table = pd.DataFrame(dict(zip(class_columns(names), probability.T, strict=True)))
    table["class"] = np.array(names)[label]
    table["predicted_class"] = np.array(names)[probability.argmax(1)]
    if groups:
        table["group"] = [f"slide {index}" for index in random.integers(groups, size=n)]
    return table, names, label, probability


@pytest.mark.parametrize("seed", range(200))
def test_figures_are_those_of_scikit_learn(seed: int) -> None:
    """200 random tables of 3 to 9 classes."""
    table, names, label, probability = random_table(seed)
    measured = evaluate_classes(table, names, ordered=True, replicates=2)
    called = probability.argmax(1)
    expected = {
        "accuracy": reference.accuracy_score(label, called),
        "balanced_accuracy": reference.balanced_accuracy_score(label, called),
        "macro_f1": reference.f1_score(label, called, average="macro", zero_division=0),
        "weighted_f1": reference.f1_score(label, called, average="weighted", zero_division=0),
        "kappa": reference.cohen_kappa_score(label, called),
        "quadratic_kappa": reference.cohen_kappa_score(label, called, weights="quadratic"),
        "macro_auroc": reference.roc_auc_score(label, probability, multi_class="ovr"),
        "nll": reference.log_loss(label, probability),
    }
    plain = class_scores(probability, label)
    assert set(plain) == set(WATCHED)
    for name, value in expected.items():
        assert measured[name].value == pytest.approx(value, abs=1e-9), name
        if name != "quadratic_kappa":
            assert plain["class_loss" if name == "nll" else f"class_{name}"] == pytest.approx(value, abs=1e-9), name
    assert {name: entry.value for name, entry in watched(measured).items()} == pytest.approx(plain)
    assert measured.confusion_matrix == reference.confusion_matrix(label, called).tolist()
    precision, recall, f1, support = reference.precision_recall_fscore_support(label, called, zero_division=np.nan)
    for index, name in enumerate(names):
        figures = measured.by_class[name]
        own = [figures[score].value for score in ("precision", "recall")]
        assert [np.nan if value is None else value for value in own] == pytest.approx(
            [precision[index], recall[index]], nan_ok=True
        )
        assert figures["f1"].value == pytest.approx(f1[index])
        assert figures.support == support[index]
        assert figures["auroc"].value == pytest.approx(reference.roc_auc_score(label == index, probability[:, index]))


def test_calibration_error_of_the_predicted_class_by_hand() -> None:
    """Certain by .9 and right in 3 of 4: .15; each class by itself likewise in one bin of its own."""
    right = ["a", "a", "a", "b"]
    table = pd.DataFrame({"class": right, "predicted_class": "a", "probability_a": 0.9})
    table = table.assign(probability_b=0.06, probability_c=0.04)
    measured = evaluate_classes(table, ["a", "b", "c"], replicates=5)
    assert measured["top_label_ece"].value == pytest.approx(0.15)
    assert measured["classwise_ece"].value == pytest.approx((0.15 + 0.19 + 0.04) / 3)


def test_intervals_hold_the_value_and_draw_whole_slides() -> None:
    table, names, *_ = random_table(5, groups=6)
    by_slide = evaluate_classes(table, names, replicates=200)
    by_image = evaluate_classes(table.drop(columns="group"), names, replicates=200)
    for name, entry in by_slide.estimates.items():
        assert entry.ci95 is not None, name
        assert entry.ci95[0] <= entry.value <= entry.ci95[1], name
    assert by_slide["macro_f1"].value == by_image["macro_f1"].value
    assert by_slide["macro_f1"].ci95 != by_image["macro_f1"].ci95
    shuffled = table.sample(frac=1, random_state=1)
    assert evaluate_classes(shuffled, names, replicates=200)["kappa"] == by_slide["kappa"]


def test_the_interval_of_the_mean_area_covers_the_truth() -> None:
    """Of samples of a population whose macro AUROC is known, about 95 % have it in their interval."""
    random = np.random.default_rng(7)

    def sample(n: int) -> tuple[np.ndarray, np.ndarray]:
        label = random.integers(3, size=n)
        logits = random.normal(size=(n, 3)) + np.eye(3)[label]
        return label, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    truth = reference.roc_auc_score(*sample(200_000), multi_class="ovr")
    held = 0
    for _ in range(60):
        label, probability = sample(150)
        table = pd.DataFrame(probability, columns=class_columns("abc")).assign(
            **{"class": np.array(list("abc"))[label]}
        )
        table["predicted_class"] = np.array(list("abc"))[probability.argmax(1)]
        low, high = evaluate_classes(table, list("abc"), replicates=150)["macro_auroc"].ci95
        held += low <= truth <= high
    assert 51 <= held <= 60  # binomial of .95, beyond 3 in 1,000


def test_a_perfect_model_is_not_certain() -> None:
    names = list("abc")
    table = pd.DataFrame({"class": names * 10, "predicted_class": names * 10})
    table = table.assign(
        **{column: (table["class"] == name) * 1.0 for name, column in zip(names, class_columns(names))}
    )
    measured = evaluate_classes(table, names, replicates=50)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "kappa", "macro_auroc"):
        assert measured[name].value == 1
        assert measured[name].ci95[0] < 0.99, name


def test_sets_and_unknown_classes() -> None:
    names = list("abc")
    table = pd.DataFrame({"class": ["a", "b", None], "predicted_class": ["a", "c", "a"]})
    table = table.assign(probability_a=0.4, probability_b=0.2, probability_c=0.4)
    table["class_set"] = [SEPARATOR.join("ac"), "c", ""]
    measured = evaluate_classes(table, names, replicates=5)
    assert measured.n == 2
    assert (measured["set_coverage"].value, measured["set_size"].value) == (0.5, 1.5)
    assert measured.by_class["b"]["set_coverage"].value == 0
    assert classes_of(table) == names


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"class": "z"}, "column class: found 'z'; expected one of a, b, c"),
        ({"probability_a": 0.9}, "probabilities that are none"),
        ({"class": None}, "no image whose class is known"),
    ],
)
def test_what_is_no_table_of_classes_is_refused(change: dict[str, object], line: str) -> None:
    table = pd.DataFrame({"class": ["a"], "predicted_class": ["a"]})
    table = table.assign(probability_a=0.2, probability_b=0.2, probability_c=0.6)
    with pytest.raises(PredictionsError, match=line):
        evaluate_classes(table.assign(**change), list("abc"))
    with pytest.raises(PredictionsError, match="no column 'probability_d'"):
        evaluate_classes(table, list("abd"))
