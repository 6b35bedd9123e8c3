"""How far corrupted copies of images that a run has not used lie from its training images as a whole, as a table.

    python benchmarks/drift.py RUN DATA [--group-from-name PATTERN]

Strength 3 of what moves all images alike, one draw for the whole set, beside the images as they are. Prints Markdown.
"""

from __future__ import annotations

import argparse

import numpy as np

from tumortrace.images.corruptions import CORRUPTIONS, corrupt
from tumortrace.inference.unseen import open_unseen, predictions_table
from tumortrace.models.bundle import load_model
from tumortrace.records.metrics import Drift
from tumortrace.reports.wording import decimals

NAMES = ("stain-pale", "stain-dark", "stain-hue", "scanner", "brighter", "defocus", "jpeg")
STRENGTH = 3


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("data")
    parser.add_argument("--group-from-name")
    given = parser.parse_args()
    model = load_model(given.run)
    unseen = open_unseen(model, given.data, group_from_name=given.group_from_name)
    images, site = unseen.images, ["site1"] * len(unseen.rows)
    print(f"{len(images):,} images\n")
    print("| images | MMD2 | further than | verdict | beyond the limit, single images | sensitivity | specificity |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in ("as they are", *NAMES):
        taken = corrupt(images, site, name, STRENGTH) if name in CORRUPTIONS else images
        said = model.assess(taken)
        drift, _ = model.judge_set(said.components, unseen.table["group"])
        table = predictions_table(unseen.table, [said])
        called = [(table.loc[table["label"] == side, "prediction"] == side).mean() for side in (1, 0)]
        beyond = float("nan") if said.in_distribution is None else 100 * float(np.mean(~said.in_distribution))
        print(f"| `{name}` | {_told(drift)} | {beyond:.1f} % | {decimals(called[0])} | {decimals(called[1])} |")


def _told(drift: Drift | None) -> str:
    if drift is None or drift.distance is None or drift.distance.ci95 is None:
        return "— | — | —"
    value, (low, high) = drift.distance.value or 0.0, drift.distance.ci95
    place = f"{drift.further_than} of {len(drift.distances)} {drift.compared}"
    return f"{value:.4f} [{low:.4f}, {high:.4f}] | {place} | {drift.verdict or '—'}"


if __name__ == "__main__":
    main()
