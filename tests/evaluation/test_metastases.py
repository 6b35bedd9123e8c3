"""Size classes and pN stages, by cases worked by hand from the tables of TNM 7 and CAMELYON17."""

from __future__ import annotations

import pytest

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.metastases import pn_stage, size_class


@pytest.mark.parametrize(
    ("extent", "name"),
    [(None, "negative"), (0, "itc"), (199.9, "itc"), (200, "itc"), (201, "micro"), (2000, "micro"), (2001, "macro")],
)
def test_sizes_end_where_the_classes_do(extent: float | None, name: str) -> None:
    """ "Not larger than .2 mm" is isolated cells, "larger than .2 mm, none larger than 2 mm" micro."""
    assert size_class(extent) == name


@pytest.mark.parametrize(
    ("nodes", "stage"),
    [
        ("negative negative negative negative negative", "pN0"),
        ("itc negative negative negative negative", "pN0(i+)"),
        ("itc itc itc itc itc", "pN0(i+)"),
        ("micro negative negative negative negative", "pN1mi"),
        ("micro micro micro micro micro", "pN1mi"),
        ("macro negative negative negative negative", "pN1"),
        ("macro micro micro negative negative", "pN1"),
        ("macro micro micro itc itc", "pN1"),
        ("macro micro micro micro negative", "pN2"),
        ("macro macro macro macro itc", "pN2"),
        ("micro itc itc itc itc", "pN1mi"),
    ],
)
def test_stages_of_five_nodes(nodes: str, stage: str) -> None:
    """One macro-metastasis makes pN1 or pN2; nodes with isolated cells alone are not counted."""
    assert pn_stage(nodes.split()) == stage
    assert pn_stage(reversed(nodes.split())) == stage


def test_what_is_no_class_is_refused() -> None:
    """A name of another kind, no node at all, a size below 0."""
    with pytest.raises(PredictionsError, match="a node called 'mikro'"):
        pn_stage(["mikro"])
    with pytest.raises(PredictionsError, match="without nodes"):
        pn_stage([])
    with pytest.raises(PredictionsError, match="extent of -1"):
        size_class(-1)
