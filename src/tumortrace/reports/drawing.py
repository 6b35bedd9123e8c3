"""What all figures share: colours, sizes, axes, and the one way to draw and save them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

from tumortrace.errors import TumorTraceError
from tumortrace.records.files import replacing
from tumortrace.records.progress import say
from tumortrace.reports.wording import Bounded, Measured

INK, MUTED, GRID, FAINT = "#22303a", "#66727d", "#e6eaee", "#d3d9de"
NEGATIVE, POSITIVE = "#0072b2", "#d55e00"  # Okabe and Ito: told apart with every kind of colour vision
CLASS_COLOURS = (NEGATIVE, POSITIVE, MUTED)  # negative, positive, unlabelled
LINES = ("#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", INK)
COLOURS = (NEGATIVE, POSITIVE, *LINES)  # of recipes or runs side by side
CHANNELS = {"red": "#b8332a", "green": "#2e8540", "blue": "#3355c4"}
DISCLAIMER = "Research use only. Not a medical device."
WIDTH = 5.4  # inches: read at the width of a phone
CENTRE, CENTRE_COLOUR = 32, "#16a34a"  # the square that alone decides the label of a PatchCamelyon patch
BAND: Any = {"color": INK, "alpha": 0.16, "linewidth": 0}
STYLE: Any = {
    "font.size": 11,
    "text.color": INK,
    "text.parse_math": False,  # class names may hold dollar signs
    "axes.titlesize": 12.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 10,
    "svg.hashsalt": "tumortrace",  # the same records give the same bytes
}

#: Figures by name: functions of what is on record, which return None where that does not allow the figure.
Drawings = Mapping[str, Callable[[Any], Figure | None]]


@dataclass(frozen=True)
class Drawn:
    """What has become of the figures of a report.

    Attributes:
        files: The SVG file of each, by name, in their order.
        failed: Why the others could not be drawn, by name.
    """

    files: dict[str, Path] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def draw_figures(folder: Path, drawings: Drawings, record: Any) -> Drawn:
    """Draw what a record allows, as PNG and SVG in `figures/` of a folder, one figure whatever becomes of another.

    A figure that cannot be drawn is a note, and its files of before, which would disagree with the numbers, go.

    Args:
        folder: Of the record.
        drawings: What to draw.
        record: What it is drawn from.

    Raises:
        TumorTraceError: A record is damaged.
    """
    drawn = Drawn()
    for name, draw in drawings.items():
        png, svg = (Path(folder) / "figures" / f"{name}.{kind}" for kind in ("png", "svg"))
        with left_out(name, png, svg) as failed:
            with rc_context(STYLE):
                figure = draw(record)
            if figure is not None:
                save_figure(figure, png, svg)
                drawn.files[name] = svg
        drawn.failed.update(failed)
    return drawn


@contextmanager
def left_out(name: str, *files: Path) -> Iterator[dict[str, str]]:
    """A block that draws a figure: where it fails, that is a note, and files of before go.

    Args:
        name: Of the figure.
        *files: That the block writes.

    Yields:
        After the block, why it failed, by name; empty where it did not.

    Raises:
        TumorTraceError: A record is damaged.
    """
    failed: dict[str, str] = {}
    try:
        yield failed
    except TumorTraceError:
        raise
    except Exception as error:
        failed[name] = " ".join(f"{type(error).__name__}: {error}".split())
        say(f"note: the figure {name} could not be drawn and is left out ({failed[name]})")
        for file in files:
            file.unlink(missing_ok=True)


def save_figure(figure: Figure, *paths: Path, dpi: int = 150) -> None:
    """Write a figure to each path in the format of its ending; the same numbers give the same bytes.

    Args:
        figure: Laid out once for all of its files. Its title becomes that of the files.
        *paths: PNG or SVG files.
        dpi: Pixels per inch of a PNG.
    """
    title = figure.get_suptitle() or next((axes.get_title(loc="left") for axes in figure.axes), "")
    with rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a box stands for it in the figure
        figure.set_dpi(dpi)
        for path in paths:
            with replacing(path) as temporary:
                paint(figure, temporary, path.suffix, title or path.stem)
            figure.set_layout_engine("none")  # the next file is drawn at the places of this one
            figure.set_dpi(dpi)


def paint(figure: Figure, file: Path, kind: str, title: str) -> None:
    """Write a figure by the canvas of the kind `.svg` or `.png` itself: `savefig` would draw it twice."""
    if kind == ".svg":
        FigureCanvasSVG(figure).print_svg(file, metadata={"Title": title, "Date": None})
    else:
        quick = {"compress_level": 1}  # a third of the time for files a quarter larger
        FigureCanvasAgg(figure).print_png(file, metadata={"Title": title}, pil_kwargs=quick)


def number(entry: Measured | None) -> float:
    """The value of an entry to draw; NaN, which is not drawn, where there is none."""
    return np.nan if entry is None or entry.value is None else entry.value


def ends(entry: Bounded | None) -> tuple[float, float]:
    """The ends of its interval; NaN where there are none."""
    low, high = (None, None) if entry is None or entry.ci95 is None else entry.ci95
    return (np.nan if low is None else low, np.nan if high is None else high)


def sheet(title: str, x: str, y: str, height: float = 4.4) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, sized to be read at the width of a phone."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    return figure, axes


def unit_square(axes: Axes) -> None:
    """Both axes from 0 to 1."""
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")


def name_rows(axes: Axes, names: list[str], size: float | None = None) -> None:
    """Names instead of ticks beside rows 0, 1, 2, ..."""
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0, labelcolor=INK, **({} if size is None else {"labelsize": size}))
    axes.grid(axis="y", visible=False)


def legend_below(figure: FigureBase, columns: int = 2) -> None:
    """The legend under the axes, where it hides nothing and takes no width from them."""
    figure.legend(loc="outside lower center", ncols=columns, columnspacing=1.4, handlelength=2.0)


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


def outline(
    axes: Axes,
    middle: tuple[float, float],
    size: tuple[float, float],
    colour: str = CENTRE_COLOUR,
    style: str = "-",
    *,
    width: float = 1.5,
) -> None:
    """Outline a rectangle of that size (width, height) around its middle (x, y)."""
    corner = (middle[0] - size[0] / 2, middle[1] - size[1] / 2)
    axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=width, linestyle=style))
