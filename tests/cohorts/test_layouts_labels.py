"""Labels as people write them become 0 and 1 with a named positive class."""

from __future__ import annotations

import pytest

from tumortrace.cohorts.labels import binary_labels
from tumortrace.errors import CohortError


@pytest.mark.parametrize(
    ("negative", "positive"),
    [
        ("0", "1"),
        ("0.0", "1.0"),
        ("False", "TRUE"),
        ("benign", "malignant"),
        ("Normal", "Tumor"),
        ("normal", "tumour"),
        ("healthy", "cancer"),
        ("normal", "metastasis"),
        ("non-IDC", "IDC"),
        ("no_tumor", "tumor"),
        ("Non Tumour", "tumour"),
        ("neg", "pos"),
        ("negative", "positive"),
        ("no", "yes"),
    ],
)
def test_known_spellings_need_no_help(negative, positive):
    """The order in which they appear does not matter, nor does case."""
    for texts, expected in (([positive, negative], [1, 0]), ([negative, positive], [0, 1])):
        labels = binary_labels(texts)
        assert labels.numbers.tolist() == expected
        if negative[0] == "0":
            assert labels.classes == ("0", "1")
            assert labels.note is None
        else:
            assert labels.classes == (negative, positive)
            assert labels.note == f"class {positive!r} is positive (label 1), {negative!r} negative (label 0)"


def test_spellings_of_one_class_are_merged_under_the_commonest():
    """Case and surrounding blanks do not make classes."""
    labels = binary_labels(["Benign", "benign ", "benign", "MALIGNANT", "0"[:0]])
    assert labels.classes == ("benign", "MALIGNANT")
    assert labels.numbers.isna().tolist() == [False, False, False, False, True]


def test_the_user_names_the_positive_class():
    """It may be an unknown word, or reverse what is known."""
    assert binary_labels(["luad", "lusc"], positive="LUSC").numbers.tolist() == [0, 1]
    reversed_ = binary_labels(["0", "1"], positive="0")
    assert reversed_.numbers.tolist() == [1, 0]
    assert reversed_.classes == ("1", "0")
    assert "'0' is positive" in reversed_.note
    with pytest.raises(CohortError, match="no class named 'x'; expected one of luad, lusc"):
        binary_labels(["luad", "lusc"], positive="x")


@pytest.mark.parametrize("texts", [["a", "b", "c"], ["1", "1"], ["0", "1", "2"]])
def test_other_than_two_classes_are_refused(texts):
    """The refusal counts and names them."""
    with pytest.raises(CohortError, match=rf"{len(set(texts))} class(es)? \(.*--positive"):
        binary_labels(texts, where="t.csv")


@pytest.mark.parametrize(
    "texts", [["luad", "lusc"], ["normal", "luad"], ["tumor", "stroma"], ["tumor", "cancer"], ["benign", "normal"]]
)
def test_which_is_positive_is_never_guessed(texts):
    """One known word beside an unknown one is not enough."""
    with pytest.raises(CohortError, match="--positive NAME"):
        binary_labels(texts)


def test_blank_labels_are_unlabelled():
    """Blank, NA and NaN are no class; all blank is an unlabelled cohort."""
    assert binary_labels(["", "1", "nan", "0", "NA"]).numbers.isna().tolist() == [True, False, True, False, True]
    assert binary_labels(["", " "]).numbers.isna().all()
    assert binary_labels([]).numbers.empty
