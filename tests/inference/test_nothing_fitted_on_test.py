"""There is no way to fit a threshold on the images that are reported."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tumortrace
from tumortrace.models.description import ModelInfo, TrainingData
from tumortrace.training import finish
from tumortrace.training.recipe import load_recipe

SOURCE = Path(inspect.getfile(tumortrace)).parent
FITTERS = {"fit_threshold", "fit_conformal", "choose_calibrator", "fit_temperature", "fit_platt", "fit_isotonic"}
#: The places that fit, on rows of the calibration split: for models of patches, and for scores of slides.
ALLOWED = {"training/finish.py", "slides/slide_model.py"}


def _names_used(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return names | {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_only_training_fits() -> None:
    """No module but those that finish a training use what fits a threshold, calibration or quantile."""
    users = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if "evaluation" not in path.relative_to(SOURCE).parts and FITTERS & _names_used(path)
    }
    assert users == ALLOWED


@pytest.mark.parametrize("name", sorted(set(tumortrace.__all__) - {"__version__"}))
def test_no_public_function_takes_a_policy(name: str) -> None:
    """No verb takes a policy or a wanted sensitivity; what calls a recipe's policy does so in training alone."""
    thing = getattr(tumortrace, name)
    if inspect.isfunction(thing):
        parameters = set(inspect.signature(thing).parameters)
        assert not parameters & {"policy", "threshold_policy", "sensitivity", "specificity", "fit", "calibrate"}
        # a number; and a policy for a score that is learnt from slides, on their own calibration split
        assert ("threshold" in parameters) == (name in ("evaluate_predictions", "slide_score"))


def test_calibration_sees_its_own_split_alone() -> None:
    """Whatever the images of other splits are, temperature, threshold and quantiles are the same to the last bit."""
    random = np.random.default_rng(0)
    n = 400
    label = random.integers(0, 2, n)
    logits = random.normal(2.0 * (2 * label - 1), 2.0)
    split = np.array(["calibration", "test", "validation", "test"] * (n // 4))
    recipe = load_recipe("tumortrace", ())
    info = ModelInfo(
        name="x",
        architecture=recipe.model,
        preprocessing=recipe.preprocessing,
        patch_size=(96, 96),
        classes=("a", "b"),
        positive_class="b",
        training=TrainingData(fingerprint="f", prevalence=0.5, recipe="tumortrace"),
    )
    group = [f"g{i % 40}" for i in range(n)]
    fitted = []
    for other in (False, True):
        rows = pd.DataFrame({"label": label, "split": split, "group": group})
        scores = logits.copy()
        if other:  # everything else turned upside down
            scores[split != "calibration"] *= -3
            rows.loc[split != "calibration", "label"] = 1 - label[split != "calibration"]
        told = finish.calibrate(info, recipe, rows, scores)[0]
        fitted.append(told.model_dump_json())
    assert fitted[0] == fitted[1]
