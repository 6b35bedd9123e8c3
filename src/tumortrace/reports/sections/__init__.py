"""The sections of a run's report, in the order in which it tells its story.

A section is a row of `SECTIONS` and its content below the heading, `templates/sections/NAME.html.j2`. The template sees
what `reports.story.story` and the row's context function return, and `figures` (name to data URI); `macros.html.j2` has
the usual pieces (import them with context). What a record lacks within a section the template itself calls not
available.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tumortrace.reports.drawing import Drawings
from tumortrace.reports.page import Context
from tumortrace.reports.records import Records
from tumortrace.reports.sections import (
    centres,
    classes,
    drift,
    features,
    performance,
    pictures,
    slides,
    threshold,
    training,
    trust,
)
from tumortrace.reports.story import tell_worth


def _tell_nothing(records: Records) -> Context:
    return {}


@dataclass(frozen=True)
class Section:
    """One section of the report.

    Attributes:
        name: Of its template, and its anchor in the page.
        title: Its heading.
        tell: Further variables of the template from the records; None where these have nothing to show, and the section
            is left out.
        figures: What it draws, by name.
        link: In the list of contents; the title where empty.
    """

    name: str
    title: str
    tell: Callable[[Records], Context | None] = _tell_nothing
    figures: Drawings = field(default_factory=dict)
    link: str = ""

    @property
    def template(self) -> str:
        """Path of its template."""
        return f"sections/{self.name}.html.j2"


SECTIONS = (
    Section("worth", "What this is worth", tell_worth, link="Worth"),
    Section("data", "Data and split", link="Data"),
    Section("audit", "Audit", training.tell_audit),
    Section("training", "Training", training.tell_training, {"learning_curves": training.draw_learning_curves}),
    Section("features", "Features", features.tell_features, {"feature_map": features.draw_feature_map}),
    Section("centres", "Tissue or hospital", centres.tell_centres, {"centre_margins": centres.draw_margins}, "Centres"),
    Section(
        "importances",
        "Descriptors",
        training.tell_importances,
        {"importances": training.draw_importances, "feature_importances": training.draw_feature_importances},
    ),
    Section(
        "metrics",
        "Metrics",
        performance.tell_metrics,
        {
            "roc": performance.draw_roc,
            "precision_recall": performance.draw_precision_recall,
            "decision_curve": performance.draw_decision_curve,
        },
    ),
    Section(
        "classes",
        "More than two classes",
        classes.tell_classes,
        {"class_confusion": classes.draw_class_confusion, "class_recall": classes.draw_class_recall},
        "Classes",
    ),
    Section(
        "groups",
        "By slide or patient",
        performance.tell_groups,
        {"accuracy_by_group": performance.draw_accuracy_by_group},
        "Groups",
    ),
    Section(
        "slide_score",
        "Slides, patients, lesions",
        slides.tell_slide_score,
        {"froc": slides.draw_froc, "slide_weights": slides.draw_weights},
        "Slides",
    ),
    Section("elsewhere", "On other data", performance.tell_elsewhere),
    Section(
        "calibration",
        "Calibration",
        trust.tell_calibration,
        {
            "reliability": trust.draw_reliability,
            "calibration": trust.draw_calibration,
            "probability_histogram": trust.draw_probability_histogram,
        },
    ),
    Section(
        "threshold",
        "Threshold",
        threshold.tell_threshold,
        {
            "threshold": threshold.draw_threshold,
            "before_after": threshold.draw_before_after,
            "confusion_matrix": threshold.draw_confusion_matrix,
            "confusion_matrix_at_half": threshold.draw_confusion_matrix_at_half,
        },
    ),
    Section("decisions", "Decisions", trust.tell_decisions, {"risk_coverage": trust.draw_risk_coverage}),
    Section(
        "distribution",
        "Images unlike the training data",
        trust.tell_distribution,
        {"likeness": trust.draw_likeness},
        "Likeness",
    ),
    Section("drift", "The images as a whole", drift.tell_drift, {"drift": drift.draw_drift}, "As a whole"),
    Section("mistakes", "Right and wrong", pictures.tell_mistakes, link="Mistakes"),
    Section("robustness", "Robustness", trust.tell_robustness, {"robustness": trust.draw_robustness}),
    Section("explanations", "Explanations", pictures.tell_explanations),
    Section(
        "explanation_measures",
        "Whether to believe the explanations",
        pictures.tell_explanation_measures,
        {"explanation_measures": pictures.draw_explanation_measures},
        "Believing them",
    ),
    Section("scans", "Slide scans", pictures.tell_scans, link="Slides"),
    Section("reproduce", "How to reproduce", link="Reproduce"),
    Section("limits", "What voids it"),
)

#: All figures of a run, by name.
DRAWINGS: Drawings = {name: draw for section in SECTIONS for name, draw in section.figures.items()}
