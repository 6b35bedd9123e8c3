"""Right and wrong predictions as pictures: the surest true and false positives and negatives, on a sheet each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from tumortrace.records.evaluation import ExamplesRecord, Outcome, ShownExample
from tumortrace.records.files import replacing
from tumortrace.records.provenance import RESEARCH_USE
from tumortrace.reports.drawing import INK, MUTED, STYLE, WIDTH, left_out, outline, save_figure
from tumortrace.reports.wording import called, decimals

#: The four outcomes: label and prediction.
OUTCOMES = {
    "false_positive": (0, 1),
    "false_negative": (1, 0),
    "true_positive": (1, 1),
    "true_negative": (0, 0),
}
COLUMNS, ROWS = 4, 2
LONGEST = 18  # characters of an id below a picture
KEPT = 2  # of each outcome, as pictures by themselves


def write_examples(
    folder: Path, table: pd.DataFrame, images: np.ndarray, rows: np.ndarray, classes: tuple[str, str]
) -> Path:
    """Write `examples/`: a contact sheet for each outcome, most confident first, and what is on them.

    The first two of each outcome are kept as pictures by themselves too, with every pixel, to be predicted again.

    Args:
        folder: Of the run or evaluation.
        table: Columns `id`, `label`, `probability`, `prediction`, and optionally `group` and `split`, of the images to
            choose from.
        images: uint8, shape (N, H, W, 3); may be memory-mapped.
        rows: For each row of the table, that of its image.
        classes: Names of the negative and of the positive class.

    Returns:
        The file of the record, an `ExamplesRecord`; the sheet of an outcome is None where it could not be drawn.
    """
    home = ExamplesRecord.file(folder).parent
    record = ExamplesRecord(split=None, outcomes={}, research_use=RESEARCH_USE)
    for outcome, (label, prediction) in OUTCOMES.items():
        chosen = np.flatnonzero((table["label"] == label) & (table["prediction"] == prediction))
        surest = surest_first(table["probability"].to_numpy(dtype=float)[chosen], prediction)
        shown = chosen[surest[: COLUMNS * ROWS]]
        part = table.iloc[shown]
        sheet = f"{outcome}.png" if len(shown) else None
        if sheet:
            with left_out(outcome, home / sheet) as failed:
                _draw(home / sheet, outcome, part, images[rows[shown]], classes)
            sheet = None if failed else sheet
        pictures = [f"{outcome}-{number}.png" if number <= KEPT else None for number in range(1, len(shown) + 1)]
        for picture, row in zip(pictures, rows[shown], strict=True):
            if picture:
                _keep(home / picture, images[row])
        group = part["group"] if "group" in part else pd.Series(None, part.index, dtype=object)
        told = [
            ShownExample(
                id=str(identity),
                group=None if pd.isna(name) else str(name),
                probability=float(probability),
                picture=picture,
            )
            for identity, name, probability, picture in zip(
                part["id"], group, part["probability"], pictures, strict=True
            )
        ]
        record.outcomes[outcome] = Outcome(images=len(chosen), shown=told, sheet=sheet)
    splits = set(table["split"]) if "split" in table else set()
    record.split = str(splits.pop()) if len(splits) == 1 else None
    return record.write(folder)


def surest_first(probability: np.ndarray, prediction: int) -> np.ndarray:
    """The order of images of one prediction by how sure it is of them; equals stay in order.

    Example:
        >>> surest_first(np.array([0.6, 0.9, 0.7]), 1), surest_first(np.array([0.3, 0.1]), 0)
        (array([1, 2, 0]), array([1, 0]))
    """
    return np.argsort(-probability if prediction == 1 else probability, kind="stable")


def _keep(path: Path, image: np.ndarray) -> None:
    with replacing(path) as temporary:
        Image.fromarray(np.asarray(image)).save(temporary, "PNG")


def _draw(path: Path, outcome: str, table: pd.DataFrame, images: np.ndarray, classes: tuple[str, str]) -> None:
    """One sheet, with the probability of the positive class and the id below each picture."""
    step, side = WIDTH / COLUMNS, 1.22  # inches, as all that follows
    high = images.shape[1] / images.shape[2] * side
    sheet = 0.45 + -(-len(images) // COLUMNS) * (high + 0.5)
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, sheet))
        figure.suptitle(outcome_title(outcome, classes), x=0.01, ha="left", fontsize=11, fontweight="bold")
        axes = figure.add_axes((0, 0, 1, 1), frame_on=False)  # one for all: pairs of axes take long to lay out
        for place, (identity, probability, image) in enumerate(
            zip(table["id"], table["probability"], images, strict=True)
        ):
            left = place % COLUMNS * step + (step - side) / 2
            top = sheet - 0.4 - place // COLUMNS * (high + 0.5)
            axes.imshow(image, interpolation="nearest", extent=(left, left + side, top - high, top))
            outline(axes, (left + side / 2, top - high / 2), (side, high), MUTED, width=0.6)
            told = f"{decimals(probability)}\n{_shortened(str(identity))}"
            axes.text(left + side / 2, top - high - 0.05, told, fontsize=7.5, color=INK, ha="center", va="top")
        axes.set(xlim=(0, WIDTH), ylim=(0, sheet), aspect="auto", xticks=[], yticks=[])
        save_figure(figure, path)


def outcome_title(outcome: str, classes: tuple[str, str]) -> str:
    """What an outcome is called, with the class names.

    Example:
        >>> outcome_title("false_negative", ("normal", "tumour"))
        'False negatives: tumour taken for normal'
        >>> outcome_title("false_negative", ("0", "1"))
        'False negatives: class 1 taken for class 0'
    """
    label, prediction = OUTCOMES[outcome]
    name = outcome.replace("_", " ").capitalize() + "s"
    if label == prediction:
        return f"{name}: {called(classes[label])}, rightly"
    return f"{name}: {called(classes[label])} taken for {called(classes[prediction])}"


def _shortened(identity: str) -> str:
    """An id that fits below a picture: its beginning and its end."""
    if len(identity) <= LONGEST:
        return identity
    return f"{identity[: LONGEST // 2 - 1]}…{identity[-LONGEST // 2 :]}"
