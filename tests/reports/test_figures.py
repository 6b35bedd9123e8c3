"""Figures are drawn from what is on record, and from nothing else."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from sklearn.metrics import f1_score, precision_score, recall_score

from tumortrace.errors import RunError
from tumortrace.reports.drawing import Drawn, draw_figures
from tumortrace.reports.records import read_records
from tumortrace.reports.report import report, write_report
from tumortrace.reports.sections import DRAWINGS
from tumortrace.reports.sections.performance import draw_roc
from tumortrace.reports.sections.threshold import draw_confusion_matrix, draw_threshold
from tumortrace.reports.sections.training import draw_learning_curves
from tumortrace.reports.wording import decimals

NAMES = {
    "roc",
    "precision_recall",
    "reliability",
    "confusion_matrix",
    "learning_curves",
    "probability_histogram",
    "threshold",
}


def texts(figure: Figure | None) -> str:
    """Everything that is written in a figure."""
    assert figure is not None
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def draw(run: Path) -> Drawn:
    """All figures of a run."""
    return draw_figures(run, DRAWINGS, read_records(run))


def test_every_figure_is_drawn_twice(reported: Path) -> None:
    """A complete run has seven figures, each as a PNG of 150 dpi and as a well-formed SVG."""
    drawn = list((reported / "figures").iterdir())
    assert {path.name for path in drawn} == {f"{name}.{suffix}" for name in NAMES for suffix in ("png", "svg")}
    for path in drawn:
        if path.suffix == ".png":
            assert Image.open(path).info["dpi"] == pytest.approx((150, 150), abs=0.1)
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_same_records_give_the_same_bytes(reported: Path, tmp_path: Path) -> None:
    """A figure drawn twice from the same records is the same file."""
    for name in ("history.csv", "run.json"):
        shutil.copy(reported / name, tmp_path / name)
    assert list(draw(tmp_path).files) == ["learning_curves"]
    again = sorted((tmp_path / "figures").iterdir())
    assert [path.name for path in again] == ["learning_curves.png", "learning_curves.svg"]
    for path in again:
        assert path.read_bytes() == (reported / "figures" / path.name).read_bytes()


def test_figures_speak_of_the_test_split(run: Path) -> None:
    """The ROC curve names its split, its area with the interval, and the operating point's threshold."""
    records = read_records(run)
    entry = json.loads((run / "metrics.json").read_text())["test"]
    shown = texts(draw_roc(records))
    low, high = entry["auroc"]["ci95"]
    expected = f"AUROC {entry['auroc']['value']:.3f} [{low:.3f}, {high:.3f}]".replace("0.", ".")
    assert expected in shown
    assert "test split" in shown
    assert "threshold .410" in shown


def test_validation_stands_in_for_a_missing_test_split(run: Path, tmp_path: Path) -> None:
    """Where there is no test split the validation split is shown, and named in the title."""
    table = pd.read_csv(run / "predictions.csv")
    table[table["split"] != "test"].to_csv(tmp_path / "predictions.csv", index=False)
    assert "ROC curve, validation split" in texts(draw_roc(read_records(tmp_path)))


def test_confusion_matrix_shows_counts_shares_and_names(run: Path) -> None:
    """Counts, their shares of the actual class and the class names are those on record."""
    cells = json.loads((run / "metrics.json").read_text())["test"]["confusion_matrix"]
    shown = texts(draw_confusion_matrix(read_records(run)))
    for count in cells.values():
        assert str(count) in shown.splitlines()
    assert f"{100 * cells['tp'] / (cells['tp'] + cells['fn']):.1f} % of tumour" in shown
    assert f"{100 * cells['fp'] / (cells['tn'] + cells['fp']):.1f} % of normal" in shown


def test_evaluation_names_its_classes(run: Path, tmp_path: Path) -> None:
    """An evaluation's folder, which holds no run.json, is drawn with the class names in evaluation.json."""
    shutil.copy(run / "metrics.json", tmp_path)
    (tmp_path / "evaluation.json").write_text('{"classes": ["benign", "malignant"]}')
    assert "benign" in texts(draw_confusion_matrix(read_records(tmp_path)))


def test_best_epoch_is_marked(run: Path) -> None:
    """The learning curves carry every validation metric and the best epoch."""
    shown = texts(draw_learning_curves(read_records(run)))
    for label in ("Training", "Validation", "Loss", "AUROC", "Accuracy", "Sensitivity", "F1", "Kept, epoch 11"):
        assert label in shown


def test_only_metrics_are_learning_curves(tmp_path: Path) -> None:
    """Columns of the history that are no metric (counts, matrices, thresholds) are not drawn among the metrics."""
    (tmp_path / "run.json").write_text("{}")
    header = "epoch,train_loss,validation_auroc,validation_npv,validation_n,validation_confusion_matrix"
    (tmp_path / "history.csv").write_text(header + "\n1,0.5,0.9,0.8,412,{'tn': 1}\n2,0.4,0.91,,412,{'tn': 2}\n")
    figure = draw_learning_curves(read_records(tmp_path))
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == ["Loss", "AUROC", "Negative predictive value"]
    assert [list(line.get_ydata()) for line in figure.axes[1].lines] == [[0.9, 0.91]]


def test_threshold_curves_are_those_of_the_calibration_split(run: Path) -> None:
    """Sensitivity, precision and F1 by threshold equal scikit-learn's on the calibration split, at any threshold."""
    table = pd.read_csv(run / "predictions.csv")
    table = table[table["split"] == "calibration"]
    figure = draw_threshold(read_records(run))
    assert figure is not None
    lines = {line.get_label(): line.get_data() for line in figure.axes[0].lines}
    assert {line.get_drawstyle() for line in figure.axes[0].lines[:-1]} == {"steps-pre"}
    reference = {"Sensitivity": recall_score, "Precision": precision_score, "F1": f1_score}
    for threshold in np.random.default_rng(0).uniform(0.1, 0.9, 20):
        called = table["probability"] >= threshold
        for name, score in reference.items():
            levels, values = (np.asarray(axis, float) for axis in lines[name])
            shown = values[np.searchsorted(levels, threshold)]  # steps before the next probability
            assert shown == pytest.approx(score(table["label"], called), abs=1e-12)
    assert lines["Chosen, .410"][0][0] == 0.41


def test_one_class_only_draws_no_curves(tmp_path: Path) -> None:
    """A split with a single class has no ROC curve; what is left is drawn."""
    lines = ["id,group,split,label,probability", *(f"i{row},,test,1,0.{row}" for row in range(1, 9))]
    (tmp_path / "predictions.csv").write_text("\n".join(lines))
    assert set(draw(tmp_path).files) == {"probability_histogram"}


def test_names_with_markup_are_drawn_as_they_are(tmp_path: Path) -> None:
    """Dollar signs, angle brackets and long names in a class name are text, not markup."""
    cells = {"confusion_matrix": {"tn": 1, "fp": 2, "fn": 3, "tp": 4}, "threshold": 0.5}
    (tmp_path / "metrics.json").write_text(json.dumps({"test": cells}))
    (tmp_path / "run.json").write_text(json.dumps({"data": {"classes": ["$\\frac{$", "<b>&" + "x" * 60]}}))
    drawn = draw(tmp_path)
    assert not drawn.failed
    ElementTree.parse(drawn.files["confusion_matrix"])


@pytest.mark.parametrize(
    ("name", "content", "told"), [("run.json", "{", "not readable as JSON"), ("metrics.json", "[1]", "a JSON object")]
)
def test_damaged_record_is_refused_by_name(tmp_path: Path, name: str, content: str, told: str) -> None:
    """A record that cannot be read is named in the refusal."""
    (tmp_path / name).write_text(content)
    with pytest.raises(RunError, match=told) as refusal:
        draw(tmp_path)
    assert name in str(refusal.value)


def test_folder_without_records_is_refused(tmp_path: Path) -> None:
    """A folder that is no run is refused, and nothing is written into it."""
    with pytest.raises(RunError, match="no records of a run"):
        draw(tmp_path / "nowhere")
    with pytest.raises(RunError, match="no records of a run"):
        draw(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_numbers_without_leading_zero() -> None:
    """Numbers are rounded as Python rounds, and a negative number that rounds to nothing loses its sign."""
    assert [decimals(value) for value in (0.0, 0.9996, -0.0004, 12.5, float("nan"))] == [
        ".000",
        "1.000",
        ".000",
        "12.500",
        "—",
    ]


@pytest.mark.parametrize("broken", ["draw", "save"])
def test_a_figure_that_fails_harms_no_other(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: str
) -> None:
    """It is left out of the report with a line in it and in the log; what it drew before goes."""
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    write_report(folder)
    assert (folder / "figures" / "roc.svg").exists()

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a curve\nwithout points")

    if broken == "draw":
        monkeypatch.setitem(DRAWINGS, "roc", fail)
    else:
        draw = Figure.draw
        titled = lambda figure: "ROC" in figure.axes[0].get_title(loc="left")  # noqa: E731
        monkeypatch.setattr(Figure, "draw", lambda f, *a, **k: fail() if titled(f) else draw(f, *a, **k))
    page = write_report(folder).read_text("utf-8")
    assert "The figure roc could not be drawn: ZeroDivisionError: a curve without points." in page
    assert page.count("could not be drawn") == 1
    assert {path.stem for path in (folder / "figures").iterdir()} == NAMES - {"roc"}
    assert "note: the figure roc could not be drawn" in capsys.readouterr().err
    monkeypatch.undo()
    assert "could not be drawn" not in report(folder).read_text("utf-8")
    assert (folder / "figures" / "roc.svg").exists()
