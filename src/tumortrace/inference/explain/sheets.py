"""Contact sheets of what a model looked at, over a whole data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tumortrace.cohorts.cohort import Cohort
from tumortrace.errors import ModelError
from tumortrace.inference.explain.methods import heat_maps, require_method
from tumortrace.inference.explain.pictures import record_of, seen_by
from tumortrace.inference.unseen import open_unseen
from tumortrace.models.bundle import Assessment, find_bundle, load_model
from tumortrace.reports.explanation import Heat
from tumortrace.reports.explanation_sheet import Tile, draw_sheet
from tumortrace.reports.report import renew_report
from tumortrace.runs.files import write_json
from tumortrace.runs.output import require_folder
from tumortrace.runs.progress import say
from tumortrace.runs.provenance import RESEARCH_USE

COUNT = 8
KINDS = {  # label and prediction
    "true positives": (1, 1),
    "false negatives": (1, 0),
    "true negatives": (0, 0),
    "false positives": (0, 1),
}


def draw_sheets(
    run: str | Path,
    data: str | Path | Cohort,
    *,
    method: str = "grad-cam",
    count: int | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    **options: str | float | None,
) -> Path:
    """Draw the most confident right and wrong predictions of each class with their heat, all on one scale.

    Args:
        run: Run folder or bundle.
        data: Labelled data that the model has not seen; what it has seen is left out.
        method: A name in `METHODS`.
        count: Pictures of each kind, default 8.
        out: Folder to write; default `explanations` in the run folder.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        options: How to read the data, as for `open_cohort`.

    Returns:
        The folder, with `sheet-positive.png` (true positives, false negatives), `sheet-negative.png` (true negatives,
        false positives) and `sheets.json`; written into the run folder, the report is written again.

    Raises:
        CohortError: No labelled image is left.
        ModelError: There is no such method, or the model does not fit it.
    """
    count = COUNT if count is None else count
    if count < 1:
        raise ModelError(f"{count} pictures of each kind", expected="1 or more", remedy="name another number")
    chosen = require_method(method)
    model, bundle = load_model(run, device=device), find_bundle(run)
    unseen = open_unseen(model, bundle, data, **options)
    said = model.assess(unseen.store.images, unseen.rows, description="predicting")
    table = unseen.cohort.table.iloc[unseen.rows]
    labels = table["label"].to_numpy(dtype=np.int64)
    places = {kind: _surest(said, labels, *pair)[:count] for kind, pair in KINDS.items()}
    patches = {kind: unseen.store.images[unseen.rows[place]] for kind, place in places.items()}
    maps = {kind: heat_maps(model, images, method) for kind, images in patches.items()}
    limit = Heat(np.concatenate([each.ravel() for each in maps.values()]), "").limit
    ids = table["id"].to_numpy()
    tiles = {
        kind: [
            Tile(image, Heat(heat, chosen.title, chosen.unit), f"{_short(ids[place])}\n{said.probability[place]:.3f}")
            for image, heat, place in zip(patches[kind], maps[kind], places[kind], strict=True)
        ]
        for kind in KINDS
    }
    folder = Path(out) if out is not None else bundle.parent / "explanations"
    require_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    items: list[dict[str, Any]] = []
    for label, side in ((1, "positive"), (0, "negative")):
        kinds = [kind for kind, (truth, _) in KINDS.items() if truth == label]
        totals = {kind: int(((labels == label) & (said.prediction == KINDS[kind][1])).sum()) for kind in kinds}
        rows = {f"{kind}, {len(tiles[kind])} of {totals[kind]:,}": tiles[kind] for kind in kinds}
        title = f"{model.info.classes[label]}: {chosen.title}, surest first, with P({model.info.positive_class})"
        draw_sheet(folder / f"sheet-{side}.png", rows, title, model.info.positive_class, limit, seen_by(model))
        for kind in kinds:
            items += [
                {"kind": kind, "id": str(ids[place]), "probability": float(said.probability[place])}
                for place in places[kind]
            ]
    sheets = ["sheet-positive.png", "sheet-negative.png"]
    record = {**record_of(model, [method]), "data": unseen.cohort.name, "split": unseen.split, "figures": sheets}
    write_json(folder / "sheets.json", {**record, "items": items, "notes": unseen.notes})
    for note in unseen.notes:
        say(f"note: {note}")
    say(f"explain: {', '.join(sheets)} in {folder}. {RESEARCH_USE}")
    renew_report(bundle.parent, folder)
    return folder


def _surest(said: Assessment, labels: np.ndarray, label: int, prediction: int) -> np.ndarray:
    """Places of the images with this label and prediction, the most confident first."""
    places = np.flatnonzero((labels == label) & (said.prediction == prediction))
    sureness = said.probability[places] if prediction else 1 - said.probability[places]
    return places[np.argsort(-sureness, kind="stable")]


def _short(name: object) -> str:
    text = str(name)
    return text if len(text) <= 18 else "…" + text[-17:]
