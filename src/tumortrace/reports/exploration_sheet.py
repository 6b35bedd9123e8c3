"""What the figures of an exploration share: colours, sizes, and how they are written."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from tumortrace.records.files import replacing
from tumortrace.reports.figures import MUTED, NEGATIVE, POSITIVE, STYLE

CLASS_COLOURS = (NEGATIVE, POSITIVE, MUTED)  # negative, positive, unlabelled
WIDTH = 5.4  # inches: read at the width of a phone
MOST_GROUPS = 120  # drawn side by side


def sheet(title: str, x: str, y: str, height: float = 4.2) -> tuple[Figure, Axes]:
    """A figure with one pair of axes."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    return figure, axes


def legend_below(figure: Figure, columns: int = 3) -> None:
    """The legend under the axes, where it hides nothing and takes no width from them."""
    figure.legend(loc="outside lower center", ncols=columns, columnspacing=1.4, handlelength=1.6)


def percent_axis(axis: Axis) -> None:
    """Ticks of shares as per cent."""
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))


def short(name: str, most: int = 24) -> str:
    """A name cut to what a figure has room for.

    Example:
        >>> short("adenocarcinoma", 8)
        'adenoca…'
    """
    return name if len(name) <= most else name[: most - 1] + "…"


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as NAME.png (150 dpi) and NAME.svg; the same numbers give the same bytes."""
    with rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a box stands for it in the figure
        for suffix in ("png", "svg"):
            with replacing(folder / f"{name}.{suffix}") as temporary:
                metadata = {"Date": None} if suffix == "svg" else None
                figure.savefig(temporary, format=suffix, dpi=150, metadata=metadata)
            figure.set_layout_engine("none")  # laid out once for both files


def draw_each(folder: Path, drawings: Mapping[str, Callable[[Any], Figure | None]], record: Any) -> dict[str, Path]:
    """Draw what a record allows, as PNG and SVG in `figures/` of a folder; returns the SVG files by name.

    Args:
        folder: Of the record.
        drawings: A function of the record by the figure's name; it returns None where the record does not allow it.
        record: What they draw from.
    """
    drawn = {}
    for name, draw in drawings.items():
        with rc_context(STYLE):
            figure = draw(record)
        if figure is not None:
            save_figure(figure, folder / "figures", name)
            drawn[name] = folder / "figures" / f"{name}.svg"
    return drawn
