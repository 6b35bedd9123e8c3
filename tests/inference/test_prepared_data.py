"""A model trained on prepared images takes images prepared likewise, and no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import SMALL
from tumortrace import evaluate, explain, load_model, open_cohort, predict, prepare, train
from tumortrace.errors import ModelError
from tumortrace.images.preprocessing import Preprocessing

pytestmark = pytest.mark.usefixtures("few_replicates")


@pytest.fixture(scope="module")
def prepared(tissue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tissue with its stain normalised, on disk."""
    return prepare(tissue, tmp_path_factory.mktemp("prepared") / "out", Preprocessing(stain="reinhard"), workers=1)


def test_images_prepared_otherwise_are_refused(prepared: Path, tissue: Path, small_run: Path, tmp_path: Path) -> None:
    """Both ways round, in `predict`, `evaluate` and `explain`; the same preparation is taken."""
    run = train(prepared, changes=SMALL, epochs=1, out=tmp_path)
    assert load_model(run).info.preparation is not None
    assert len(predict(run, prepared)) == len(open_cohort(prepared))
    with pytest.raises(ModelError, match="tumortrace prepare"):
        predict(run, tissue)
    with pytest.raises(ModelError, match="before `prepare`"):
        evaluate(small_run, prepared)
    with pytest.raises(ModelError, match="stain reinhard"):
        explain(run, [open_cohort(tissue).table["path"][0]], out=tmp_path / "e")


def test_the_same_steps_in_a_recipe_belong_to_the_bundle(tissue: Path, prepared: Path, tmp_path: Path) -> None:
    """A recipe with the step, on images as they are, learns what a recipe without it learns on prepared ones."""
    options = {"epochs": 1, "out": tmp_path, "seed": 2}
    changes = [*SMALL, "preprocessing.crop=null", "augmentation.fill=reflect"]
    inside = train(tissue, changes=[*changes, "preprocessing.stain=reinhard"], **options)
    before = train(prepared, changes=changes, **options)
    tables = [pd.read_csv(run / "predictions.csv").set_index("id")["probability"] for run in (inside, before)]
    np.testing.assert_allclose(tables[0], tables[1].loc[tables[0].index], atol=1e-6)
    again = predict(inside, tissue).set_index("id")["probability"]
    np.testing.assert_allclose(again.loc[tables[0].index], tables[0], atol=1e-5)
