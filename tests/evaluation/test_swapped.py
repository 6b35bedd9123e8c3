"""The other class as the positive one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.evaluation.plain import classification
from tumortrace.evaluation.table import swap_classes

PAIRS = {"sensitivity": "specificity", "precision": "npv", "accuracy": "accuracy", "mcc": "mcc", "auroc": "auroc"}
AWKWARD = [0.0, 5e-324, 1e-17, 2e-17, 1e-9, 0.3, 0.5, 0.5 + 2**-53, 0.7, 1 - 2**-53, 1.0]


@pytest.mark.parametrize("kind", ["smooth", "tied", "awkward"])
def test_sensitivity_and_specificity_change_places_exactly(kind: str) -> None:
    """Over random tables, with images on the threshold and probabilities that rounding cannot tell apart."""
    for seed in range(300):
        random = np.random.default_rng(seed)
        n = int(random.integers(1, 60))
        label = random.integers(0, 2, n)
        if kind == "awkward":
            probability = random.choice(AWKWARD, n)
        else:
            probability = random.random(n).round(1 if kind == "tied" else 17)
        threshold = float(random.choice([*probability, 0.0, 0.5, 1.0, np.nextafter(1, 2), 1.5e-17, random.random()]))
        table, turned = swap_classes(pd.DataFrame({"label": label, "probability": probability}), threshold)
        before = classification(label, probability, threshold)
        after = classification(table["label"], table["probability"], turned)
        for one, other in PAIRS.items():
            if one != "auroc" or kind != "awkward":  # images that rounding has tied share a rank
                expected = before[one]
                exact = expected if one not in ("mcc", "auroc") or expected is None else pytest.approx(expected)
                assert after[other] == exact, (one, seed)
            if other != one:
                assert after[one] == before[other]
        cells = before["confusion_matrix"]
        assert after["confusion_matrix"] == dict(
            zip(("tn", "fp", "fn", "tp"), (cells[k] for k in ("tp", "fn", "fp", "tn")))
        )
        np.testing.assert_allclose(table["probability"], 1 - probability, rtol=0, atol=1e-15)


def test_decisions_change_sides_and_the_rest_stays() -> None:
    """Referred stays referred; ids and groups are kept; twice swapped, labels and calls are the first ones."""
    first = pd.DataFrame(
        {
            "id": list("abc"),
            "label": [0, 1, 1],
            "probability": [0.25, 0.5, 0.75],
            "decision": ["negative", "refer", "positive"],
            "logit": [-1.0, 0.0, 1.0],
        }
    )
    once, threshold = swap_classes(first, 0.5)
    assert once["decision"].tolist() == ["positive", "refer", "negative"]
    assert once["id"].tolist() == list("abc")
    assert once["logit"].tolist() == [1.0, 0.0, -1.0]
    twice, again = swap_classes(once, threshold)
    assert twice["label"].tolist() == [0, 1, 1]
    assert (twice["probability"] >= again).tolist() == [False, True, True]
