"""TumorTrace: tumour classifiers for medical image patches that one can defend.

Each verb of the command line is a function here. Nothing heavy is imported before it is used.
Research software, not a medical device.

Example:
    >>> import tumortrace
    >>> cohort = tumortrace.open_cohort("synthetic:patches?count=200")
    >>> cohort.positive_class
    'tumour'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tumortrace.app.server import serve as serve
    from tumortrace.cohorts.audit import Audit as Audit
    from tumortrace.cohorts.audit import check as check
    from tumortrace.cohorts.cohort import Cohort as Cohort
    from tumortrace.cohorts.layouts import open_cohort as open_cohort
    from tumortrace.cohorts.synthetic import synthesise as synthesise
    from tumortrace.errors import TumorTraceError as TumorTraceError
    from tumortrace.inference.compare import compare as compare
    from tumortrace.inference.evaluate import evaluate as evaluate
    from tumortrace.inference.evaluate_predictions import evaluate_predictions as evaluate_predictions
    from tumortrace.inference.explain import explain as explain
    from tumortrace.inference.export import export as export
    from tumortrace.inference.predict import predict as predict
    from tumortrace.inference.stress import stress as stress
    from tumortrace.models.bundle import Model as Model
    from tumortrace.models.bundle import load_model as load_model
    from tumortrace.preparation.explore import explore as explore
    from tumortrace.preparation.features import features as features
    from tumortrace.preparation.prepare import prepare as prepare
    from tumortrace.reports.report import report as report
    from tumortrace.slides.batch import scan_slides as scan_slides
    from tumortrace.slides.embed import embed_slides as embed_slides
    from tumortrace.slides.scan import scan as scan
    from tumortrace.slides.slide_scoring import slide_score as slide_score
    from tumortrace.slides.tile import tile as tile
    from tumortrace.training.crossval import crossval as crossval
    from tumortrace.training.crossval import resume_crossval as resume_crossval
    from tumortrace.training.embed import embed as embed
    from tumortrace.training.ensemble import ensemble as ensemble
    from tumortrace.training.ensemble import resume_ensemble as resume_ensemble
    from tumortrace.training.ensemble import train_members as train_members
    from tumortrace.training.learning_curve import learning_curve as learning_curve
    from tumortrace.training.learning_curve import resume_learning_curve as resume_learning_curve
    from tumortrace.training.recipe import Recipe as Recipe
    from tumortrace.training.recipe import load_recipe as load_recipe
    from tumortrace.training.train import resume as resume
    from tumortrace.training.train import train as train
    from tumortrace.training.tune import resume_tuning as resume_tuning
    from tumortrace.training.tune import tune as tune

__version__ = "0.1.0"

_HOMES = {
    "Audit": "cohorts.audit",
    "Cohort": "cohorts.cohort",
    "Model": "models.bundle",
    "Recipe": "training.recipe",
    "TumorTraceError": "errors",
    "check": "cohorts.audit",
    "compare": "inference.compare",
    "crossval": "training.crossval",
    "embed": "training.embed",
    "embed_slides": "slides.embed",
    "ensemble": "training.ensemble",
    "evaluate": "inference.evaluate",
    "evaluate_predictions": "inference.evaluate_predictions",
    "explain": "inference.explain",
    "explore": "preparation.explore",
    "export": "inference.export",
    "features": "preparation.features",
    "learning_curve": "training.learning_curve",
    "load_model": "models.bundle",
    "load_recipe": "training.recipe",
    "open_cohort": "cohorts.layouts",
    "predict": "inference.predict",
    "prepare": "preparation.prepare",
    "report": "reports.report",
    "resume": "training.train",
    "resume_crossval": "training.crossval",
    "resume_ensemble": "training.ensemble",
    "resume_learning_curve": "training.learning_curve",
    "resume_tuning": "training.tune",
    "scan": "slides.scan",
    "scan_slides": "slides.batch",
    "serve": "app.server",
    "slide_score": "slides.slide_scoring",
    "stress": "inference.stress",
    "synthesise": "cohorts.synthetic",
    "tile": "slides.tile",
    "train": "training.train",
    "train_members": "training.ensemble",
    "tune": "training.tune",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'tumortrace' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tumortrace.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
