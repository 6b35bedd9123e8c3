"""The HTML report of a stress test, from what its folder has on record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tumortrace.errors import RunError
from tumortrace.records.files import write_text
from tumortrace.reports.crossval import signed
from tumortrace.reports.embedding import embed_picture, embed_svg
from tumortrace.reports.page import render
from tumortrace.reports.records import decimals, interval, read_json
from tumortrace.reports.stress_figures import amount_text, draw_stress_figures, ordered, symmetry_text
from tumortrace.reports.stress_sheet import SHEET

REPORT = "stress.html"


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
    record = read_json(folder / "stress.json")
    if record.get("verb") != "stress":
        raise RunError("no record of a stress test", where=folder, expected="a folder that `stress` made")
    page = render(
        "stress.html.j2",
        record=record,
        verdict=stress_verdict(record),
        signed=signed,
        amount_text=amount_text,
        symmetry_text=symmetry_text,
        flagged=any(level["out_of_distribution"] is not None for _, level in _levels(record)),
        figures={name: embed_svg(path) for name, path in draw_stress_figures(folder, record).items()},
        sheet=embed_picture(folder, f"figures/{SHEET}", 2600),
    )
    write_text(folder / REPORT, page)
    return folder / REPORT


def stress_verdict(record: dict[str, Any]) -> list[str]:
    """What a stress test says, in sentences.

    Args:
        record: The content of its stress.json.
    """
    data, clean = record["data"], record["clean"]["auroc"]
    groups = f" of {data['groups']:,} groups (slides or patients)" if data.get("groups") else ""
    images = f"{data['images']:,} clean {data['split']} images{groups}"
    sentences = [f"AUROC {decimals(clean['value'])}{interval(clean, ' ')} on {images}."]
    entries = ordered(record)
    lost = [
        (level["difference"]["auroc"], entry["label"], level["strength"])
        for entry, level in _levels(record)
        if entry["ordered"] and level["difference"]["auroc"]["value"] is not None
    ]
    if lost:
        sure = {label for change, label, _ in lost if change.get("ci95") and change["ci95"][1] < 0}
        change, label, strength = min(lost, key=lambda row: row[0]["value"])
        most = "most is lost" if change["value"] < 0 else "none loses any, the least is gained"
        sentences.append(
            f"{len(sure)} of {len(entries)} corruptions lower AUROC at some strength with an interval below 0 (not "
            f"corrected for their number); {most} under {label.lower()} at strength {strength}: "
            f"{signed(change['value'])}{interval(change, ' ')}."
        )
    weakest = [
        (level["agreement"], entry["label"])
        for entry, level in _levels(record)
        if entry["ordered"] and level["strength"] == 1
    ]
    if weakest:
        share, label = min(weakest, key=lambda row: row[0]["value"])
        sentences.append(
            f"At strength 1, fewest calls stay as they were under {label.lower()}: {decimals(share['value'])}"
            f"{interval(share, ' ')} of them."
        )
    turned = [level["agreement"] for level in record["corruptions"].get("symmetry", {}).get("levels", [])]
    if turned:
        share = min(turned, key=lambda one: one["value"])
        least = f"{decimals(share['value'])}{interval(share, ' ')}"
        sentences.append(f"Turned by quarters or mirrored, a share of at least {least} of the calls stays.")
    return sentences


def _levels(record: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for entry in record.get("corruptions", {}).values():
        for level in entry["levels"]:
            yield entry, level
