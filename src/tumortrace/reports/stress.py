"""The HTML report of a stress test, from what its folder has on record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tumortrace.evaluation.measures import MEASURES, TITLES
from tumortrace.images.corruptions import CORRUPTIONS, corrupt, fits
from tumortrace.records.evaluation import Corrupted, Level, StressRecord
from tumortrace.records.metrics import Estimate
from tumortrace.reports.drawing import (
    DISCLAIMER,
    INK,
    MUTED,
    NEGATIVE,
    STYLE,
    WIDTH,
    Drawings,
    draw_figures,
    ends,
    legend_below,
    number,
    percent_axis,
    save_figure,
    sheet,
)
from tumortrace.reports.page import embed_picture, write_page
from tumortrace.reports.wording import estimate, interval, signed

REPORT = "stress.html"
LOSS = LinearSegmentedColormap.from_list("loss", ["#f4f7f9", "#e8a56b", "#8c2f00"])
COLUMNS = 3  # panels side by side
LEAST_SCALE = 0.05  # AUROC lost at the dark end of the scale, at least: what is less should not look dark
SHEET = "contact_sheet.png"
SHOWN = 5  # strengths


def write_stress_report(folder: Path) -> Path:
    """Write stress.html: what each corruption does to discrimination, calls and calibration.

    Args:
        folder: Folder of a stress test; its stress.json is read, and the contact sheet where it is there.

    Returns:
        Path of stress.html, in the same folder.

    Raises:
        RunError: There is no such folder, or its record is damaged.
    """
    folder = Path(folder)
    record = StressRecord.read(folder)
    return write_page(
        folder / REPORT,
        "stress.html.j2",
        draw_figures(folder, FIGURES, record),
        record=record.as_json(),
        verdict=stress_verdict(record),
        amount_text=amount_text,
        site_measures=_site_measures(record),
        symmetry_text=symmetry_text,
        flagged=any(level.out_of_distribution is not None for _, level in _levels(record)),
        sheet=embed_picture(folder, f"figures/{SHEET}", 2600),
    )


def stress_verdict(record: StressRecord) -> list[str]:
    """What a stress test says, in sentences."""
    data = record.data
    groups = f" of {data.groups:,} groups (slides or patients)" if data.groups else ""
    images = f"{data.images:,} clean {data.split} images{groups}"
    sentences = [f"AUROC {estimate(record.clean.get('auroc'))} on {images}."]
    lost = [
        (value, change, entry.label, level.strength)
        for entry, level in _levels(record)
        if entry.ordered and (change := level.difference["auroc"]) and (value := change.value) is not None
    ]
    if lost:
        sure = {label for _, change, label, _ in lost if change.ci95 and (change.ci95[1] or 0) < 0}
        value, change, label, strength = min(lost, key=lambda row: row[0])
        most = "most is lost" if value < 0 else "none loses any, the least is gained"
        sentences.append(
            f"{len(sure)} of {len(ordered(record))} corruptions lower AUROC at some strength with an interval below 0 "
            f"(not corrected for their number); {most} under {label.lower()} at strength {strength}: "
            f"{signed(value)}{interval(change, ' ')}."
        )
    weakest = [
        (level.agreement, entry.label) for entry, level in _levels(record) if entry.ordered and level.strength == 1
    ]
    if weakest:
        share, label = min(weakest, key=lambda row: number(row[0]))
        sentences.append(
            f"At strength 1, fewest calls stay as they were under {label.lower()}: {estimate(share)} of them."
        )
    turned = (
        [level.agreement for level in record.corruptions["symmetry"].levels] if "symmetry" in record.corruptions else []
    )
    if turned:
        share = min(turned, key=number)
        sentences.append(f"Turned by quarters or mirrored, a share of at least {estimate(share)} of the calls stays.")
    return sentences


def _levels(record: StressRecord) -> Iterator[tuple[Corrupted, Level]]:
    return ((entry, level) for entry in record.corruptions.values() for level in entry.levels)


def ordered(record: StressRecord) -> list[Corrupted]:
    """The corruptions whose strengths grow."""
    return [entry for entry in record.corruptions.values() if entry.ordered]


def _site_measures(record: StressRecord) -> dict[str, str]:
    """Titles of what was measured of single laboratories, by name."""
    sites = [site for _, level in _levels(record) for site in level.sites]
    return {name: TITLES[name] for name in sites[0].metrics} if sites else {}


def amount_text(amount: float, unit: str) -> str:
    """An amount as an axis shows it: shares as per cent.

    Example:
        >>> amount_text(0.08, "share of the side"), amount_text(1.5, "sigma, px")
        ('8 %', '1.5')
    """
    return f"{100 * amount:g} %" if "share" in unit else f"{amount:g}"


def draw_loss(record: StressRecord) -> Figure | None:
    """By how much AUROC changes, corruption by strength; None where no AUROC is defined."""
    entries = ordered(record)
    width = max((len(entry.levels) for entry in entries), default=0)
    values = np.full((len(entries), width), np.nan)
    for row, entry in zip(values, entries, strict=True):
        row[: len(entry.levels)] = [number(level.difference["auroc"]) for level in entry.levels]
    if not np.isfinite(values).any():
        return None
    figure, axes = sheet("Change of AUROC", "Strength", "", 1.5 + 0.33 * len(entries))
    most = max(LEAST_SCALE, float(-np.nanmin(values)))
    axes.imshow(np.ma.masked_invalid(-values), cmap=LOSS, vmin=0, vmax=most, aspect="auto")
    for y, entry in enumerate(entries):
        for x, level in enumerate(entry.levels):
            change = level.difference["auroc"]
            low, high = ends(change)
            colour = "white" if -number(change) > 0.6 * most else INK
            weight = "bold" if low > 0 or high < 0 else "normal"
            axes.text(x, y, signed(change.value), ha="center", va="center", size=9, color=colour, weight=weight)
    axes.set_xticks(range(width), [str(place + 1) for place in range(width)])
    axes.set_yticks(range(len(entries)), [entry.label for entry in entries])
    axes.tick_params(length=0, labelcolor=INK)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure


def _panels(record: StressRecord, title: str, *metrics: str, lowest: float | None = None) -> Figure | None:
    """A panel for each corruption, a line with its interval for each metric; the clean value is dashed."""
    entries = ordered(record)
    if not entries:
        return None
    rows = -(-len(entries) // COLUMNS)
    figure = Figure(figsize=(1.35 * WIDTH, 1.1 + 1.75 * rows), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False)
    for axes in grid.flat[len(entries) :]:
        axes.set_axis_off()
    for axes, entry in zip(grid.flat, entries, strict=False):
        for metric in metrics:
            _draw_curve(axes, record.clean.get(metric), entry.levels, metric)
        axes.set_title(entry.label, fontsize=10, pad=4)
        ticks = [amount_text(level.amount or 0, entry.unit) for level in entry.levels]
        axes.set_xticks(range(len(ticks) + 1), ["clean", *ticks])
        axes.set_xlabel(entry.unit, fontsize=8, labelpad=1)
        axes.tick_params(labelsize=7.5)
        axes.yaxis.set_major_locator(MaxNLocator(4))
    if lowest is not None:
        grid[0, 0].set_ylim(bottom=lowest)
    for metric in metrics:
        row = MEASURES[metric]
        grid[0, 0].plot([], [], "-o", markersize=3.5, color=row.colour, label=row.title)
    grid[0, 0].plot([], [], "--", color=MUTED, linewidth=1, label="Clean")
    legend_below(figure, len(metrics) + 1)
    figure.suptitle(title, fontsize=12.5, fontweight="bold", x=0.01, ha="left")
    return figure


def _draw_curve(axes: Axes, clean: Estimate | None, levels: Sequence[Level], metric: str) -> None:
    points, colour = [clean, *(level.metrics.get(metric) for level in levels)], MEASURES[metric].colour
    values, (low, high) = [number(point) for point in points], np.array([ends(point) for point in points]).T
    places = np.arange(len(points))
    if np.isfinite(values[0]):
        axes.axhline(values[0], linestyle="--", color=colour if len(levels) < 2 else MUTED, linewidth=1)
    axes.fill_between(places, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(places, values, "-o", color=colour, markersize=3.5, linewidth=1.5)


def _symmetries(record: StressRecord) -> Figure | None:
    """Share of calls that stay, for each quarter turn and mirroring."""
    entry = record.corruptions.get("symmetry")
    if not entry or not entry.levels:
        return None
    figure, axes = sheet("Calls that stay when turned", "", "Share of images", 3.4)
    for place, level in enumerate(entry.levels):
        axes.plot([place, place], ends(level.agreement), "-", color=NEGATIVE, linewidth=1.8)
        axes.plot(place, number(level.agreement), "o", color=NEGATIVE, markersize=6)
    axes.set_xticks(range(len(entry.levels)), [symmetry_text(int(level.amount or 0)) for level in entry.levels])
    axes.tick_params(axis="x", labelsize=8.5, length=0)
    lowest = min(ends(level.agreement)[0] for level in entry.levels)
    axes.set_ylim(min(lowest - 0.01, 0.98), 1.002)
    percent_axis(axes.yaxis)
    return figure


def symmetry_text(index: int) -> str:
    """What a symmetry of the square does, by its number.

    Example:
        >>> symmetry_text(1), symmetry_text(4), symmetry_text(6)
        ('90°', 'mirror', 'mirror\\n+ 180°')
    """
    turn = f"{90 * (index % 4)}°"
    return turn if index < 4 else "mirror" + (f"\n+ {turn}" if index % 4 else "")


def draw_contact_sheet(folder: Path, image: np.ndarray, identity: str, names: Sequence[str], seed: int) -> Path:
    """Draw `figures/contact_sheet.png`: a row for each corruption, the patch as it is and at each strength.

    It shows a patch of the user's data, and so belongs into the run folder and nowhere else.

    Args:
        folder: Of the stress test.
        image: uint8, shape (H, W, 3).
        identity: Its id, from which the draws follow.
        names: Corruptions, in order.
        seed: Of the draws.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(1.1 * (SHOWN + 1) + 1.5, 1.22 * len(names) + 0.5), layout="constrained")
        grid = figure.subplots(len(names), SHOWN + 1, squeeze=False)
        for row, name in zip(grid, names, strict=True):
            corruption = CORRUPTIONS[name]
            strengths = [k for k in corruption.strengths if fits(name, k, image.shape[:2])][:SHOWN]
            for axes in row:
                axes.set_axis_off()
            row[0].imshow(image, interpolation="nearest")
            row[0].text(-0.08, 0.5, corruption.label, transform=row[0].transAxes, ha="right", va="center", fontsize=9)
            row[0].set_title("clean", fontsize=7.5, fontweight="normal", loc="center", pad=2)
            for axes, strength in zip(row[1:], strengths, strict=False):
                axes.imshow(corrupt(image[None], [identity], name, strength, seed=seed)[0], interpolation="nearest")
                amount = amount_text(corruption.amounts[strength - 1], corruption.unit)
                axes.set_title(amount, fontsize=7.5, fontweight="normal", loc="center", pad=2)
        figure.supxlabel(DISCLAIMER, fontsize=8, color=MUTED)
        save_figure(figure, folder / "figures" / SHEET, dpi=110)
    return folder / "figures" / SHEET


FIGURES: Drawings = {
    "loss": draw_loss,
    "auroc": lambda record: _panels(record, "AUROC", "auroc"),
    "thresholded": lambda record: _panels(record, "At the model's threshold", "sensitivity", "specificity"),
    "ece": lambda record: _panels(record, "Calibration error", "ece", lowest=0),
    "symmetries": _symmetries,
}
