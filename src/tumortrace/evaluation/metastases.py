"""Size classes of lymph node metastases, and the pN stage of a patient, by the rules of CAMELYON17.

Sources: TNM Classification of Malignant Tumours, 7th edition (2009), breast; Bandi et al., IEEE TMI 2019,
"From Detection of Individual Metastases to Classification of Lymph Node Status at the Patient Level: The CAMELYON17
Challenge", table I. A research tool's stage of the slides it was given, and no pathologist's: not a medical device.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from tumortrace.errors import PredictionsError, shown

SizeClass = Literal["negative", "itc", "micro", "macro"]
Stage = Literal["pN0", "pN0(i+)", "pN1mi", "pN1", "pN2"]
SIZES: tuple[SizeClass, ...] = get_args(SizeClass)
STAGES: tuple[Stage, ...] = get_args(Stage)
MICRO, MACRO = 200.0, 2000.0
"""Largest extents in um above which a metastasis is a micro- and a macro-metastasis."""
MANY = 4
"""Nodes with metastases from which on the stage is pN2."""


def size_class(extent: float | None) -> SizeClass:
    """What a metastasis is called by its largest extent; by size alone, as cells are not counted here.

    Up to .2 mm it is isolated tumour cells, up to 2 mm a micro-metastasis, beyond a macro-metastasis. (A pathologist
    also calls more than 200 cells in one section a micro-metastasis.)

    Args:
        extent: In um; None where there is none.

    Raises:
        PredictionsError: It is below 0 or no number.

    Example:
        >>> [size_class(extent) for extent in (None, 200, 200.1, 2000, 2000.1)]
        ['negative', 'itc', 'micro', 'micro', 'macro']
    """
    if extent is None:
        return "negative"
    if not extent >= 0:
        raise PredictionsError(f"an extent of {extent} um", expected="0 or more", remedy="give the size in um")
    return "macro" if extent > MACRO else "micro" if extent > MICRO else "itc"


def pn_stage(nodes: Iterable[str]) -> Stage:
    """The pN stage of a patient by the largest metastasis of each node (slide).

    pN0 without any; pN0(i+) with isolated tumour cells alone; pN1mi with micro-metastases and no macro-metastasis; with
    a macro-metastasis pN1 where 1 to 3 nodes hold micro- or macro-metastases, pN2 where 4 or more do. Nodes
    with isolated tumour cells alone do not count. (CAMELYON17 has five nodes of a patient; TNM calls ten or more pN3.)

    Args:
        nodes: One of `negative`, `itc`, `micro`, `macro` for each node.

    Raises:
        PredictionsError: There is no node, or it is called something else.

    Example:
        >>> pn_stage(["negative", "itc"]), pn_stage(["micro", "micro"]), pn_stage(["macro", "micro", "micro", "micro"])
        ('pN0(i+)', 'pN1mi', 'pN2')
    """
    known = list(nodes)
    if wrong := [node for node in known if node not in SIZES]:
        raise PredictionsError(f"a node called {shown(wrong[0])}", expected=" or ".join(SIZES))
    if not known:
        raise PredictionsError("a patient without nodes", expected="one slide or more")
    if "macro" in known:
        return "pN2" if known.count("micro") + known.count("macro") >= MANY else "pN1"
    return "pN1mi" if "micro" in known else "pN0(i+)" if "itc" in known else "pN0"
