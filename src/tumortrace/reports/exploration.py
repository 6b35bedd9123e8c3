"""The page of an exploration, from statistics.json and the figures beside it."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tumortrace.errors import RunError
from tumortrace.records.files import write_text
from tumortrace.reports.page import render
from tumortrace.reports.records import called, read_json

#: Figures that are pictures, for which PNG is smaller and as sharp.
PICTURES = ("samples_0", "samples_1", "samples_2", "mean_images", "edges", "augmentation")
#: How Pillow names what a file holds, and how people do.
MODES = {
    "1": "black and white",
    "L": "grey, 8 bits",
    "LA": "grey with transparency",
    "I;16": "grey, 16 bits",
    "I": "grey, 32 bits",
    "F": "grey, floating point",
    "P": "palette",
    "RGB": "RGB, 3 channels of 8 bits",
    "RGBA": "RGB with transparency",
    "CMYK": "CMYK, 4 channels",
}
MOST_GROUPS = 200  # in the table


def write_exploration(folder: Path, figures: Sequence[str]) -> Path:
    """Write report.html, one file that opens anywhere, from the statistics.json of an exploration.

    Args:
        folder: Holds statistics.json and `figures/`.
        figures: Names of the figures to show, without ending; sections without theirs are left out.

    Returns:
        Path of report.html, in the same folder.

    Raises:
        RunError: There is no statistics.json, or it is damaged.
    """
    folder = Path(folder)
    statistics = read_json(folder / "statistics.json")
    if not statistics:
        raise RunError("no statistics.json", where=folder, expected="the folder of an exploration")
    embedded = {name: _embed(folder / "figures", name) for name in figures}
    page = render(
        "exploration.html.j2",
        statistics=statistics,
        cohort=statistics["cohort"],
        sample=statistics["sample"],
        figures=embedded,
        alt=_alternative_texts(statistics),
        verdict=verdict(statistics),
        modes=[(MODES.get(mode, mode), count) for mode, count in statistics["sample"]["modes"].items()],
        groups=statistics["cohort"]["groups"]["each"][:MOST_GROUPS],
        shifts={group["group"]: group for group in statistics["stains"].get("groups", [])},
        neighbours=statistics["map"],
        ratio=ratio,
        called=called,
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def verdict(statistics: dict[str, Any]) -> list[str]:
    """What to know first, a sentence each.

    Args:
        statistics: The content of statistics.json.
    """
    cohort = statistics["cohort"]
    groups, positive = cohort["groups"]["count"], called(cohort["positive_class"])
    share = cohort["prevalence"]
    positives = "none of them labelled" if share is None else f"{100 * share:.1f} % of them {positive}"
    if 0 < cohort["labelled"] < cohort["images"]:
        positives = f"{cohort['labelled']:,} labelled, {100 * share:.1f} % of those {positive}"
    of = f" of {groups:,} slides or patients" if groups else ""
    sentences = [f"{cohort['images']:,} images{of}, {positives}."]
    if near := statistics["map"]["same_group"]:
        alike = bool(near["ci95"]) and near["ci95"][0] > 1
        meaning = "keep each on one side of every split" if alike else "no sign of a batch effect"
        sentences.append(
            f"The images most alike come from the same slide or patient {ratio(near)} times as often as chance would"
            f" have it: {meaning}."
        )
    elif not groups:
        sentences.append("Which slide or patient an image comes from is not known, so batch effects cannot be seen.")
    if statistics["audit"] is not None:
        sentences.append(f"The check found {_counted(statistics['audit'])}.")
    return sentences


def ratio(near: dict[str, Any]) -> str:
    """Observed against chance with its interval, such as `6.3 [5.5, 7.2]`.

    Example:
        >>> ratio({"ratio": 6.32, "ci95": [5.46, 7.21]})
        '6.3 [5.5, 7.2]'
    """
    ends = near["ci95"]
    places = 1 if near["ratio"] >= 2 else 2
    return f"{near['ratio']:.{places}f}" + (f" [{ends[0]:.{places}f}, {ends[1]:.{places}f}]" if ends else "")


def _counted(findings: list[dict[str, Any]]) -> str:
    counts = Counter(finding["verdict"] for finding in findings)
    words = [
        f"{counts[kind]} {kind}{'s' * (counts[kind] > 1)}" for kind in ("error", "warning", "note") if counts[kind]
    ]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words) or "nothing"


def _alternative_texts(statistics: dict[str, Any]) -> dict[str, str]:
    """What each figure shows, in words and numbers, for those who cannot see it."""
    cohort, sample, stains = statistics["cohort"], statistics["sample"], statistics["stains"]
    counts = ", ".join(f"{called(each['name'])} {each['images']:,}" for each in cohort["classes"])
    shares = " and ".join(f"{100 * share:.0f} %" for share in statistics["map"]["explained_variance"])
    texts = {
        "classes": f"Bars of images by class: {counts}",
        "groups": f"Images and share of positives of {cohort['groups']['count']} slides or patients",
        "sizes": f"Widths and heights of the images: {len(sample['sizes'])} different sizes",
        "intensity": "Histogram of pixel values of all images, by channel",
        "intensity_by_class": "Histograms of pixel values by class and channel",
        "mean_colour": "Histograms of the images' mean values by class and channel",
        "mean_images": "Mean image of each class, and their difference",
        "edges": "Images of each class above their Sobel edges",
        "stains": f"Haematoxylin and eosin vectors of {stains.get('images', 0):,} images",
        "stains_by_group": "Stain colours of slides or patients side by side",
        "map_class": f"Images by two principal components ({shares} of the variance), coloured by class",
        "map_group": "The same map, coloured by slide or patient",
        "umap_class": "UMAP of the images, coloured by class",
        "umap_group": "UMAP of the images, coloured by slide or patient",
        "augmentation": "Images beside what augmentation makes of them",
    }
    names = {f"samples_{each['label']}": f"Images of {called(each['name'])}" for each in sample["classes"]}
    return texts | names


def _embed(folder: Path, name: str) -> str:
    suffix, kind = ("png", "image/png") if name in PICTURES else ("svg", "image/svg+xml")
    content = (folder / f"{name}.{suffix}").read_bytes()
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
