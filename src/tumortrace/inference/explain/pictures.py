"""The verb `explain`: where in a patch the evidence lies, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tumortrace.cohorts.cohort import Cohort
from tumortrace.errors import ModelError
from tumortrace.images.decoding import fit, read_image
from tumortrace.inference.evaluate import open_unseen
from tumortrace.inference.explain.cam import layers_of
from tumortrace.inference.explain.methods import BATCH, METHODS, heat_maps, require_method
from tumortrace.models.bundle import Assessment, Model, find_bundle, load_model
from tumortrace.records.files import write_json
from tumortrace.records.output import require_folder
from tumortrace.records.progress import say, track
from tumortrace.records.provenance import RESEARCH_USE
from tumortrace.reports.explanation import Heat, Tile, draw_explanation, draw_explanation_sheet
from tumortrace.reports.report import renew_report


def explain(
    run: str | Path,
    images: Sequence[str | Path],
    *,
    methods: Sequence[str] = ("grad-cam",),
    out: str | Path | None = None,
    labels: Sequence[int | None] | None = None,
    device: str = "auto",
) -> Path:
    """Draw what speaks for the positive class in each image.

    Args:
        run: Run folder or bundle.
        images: Paths of images.
        methods: Names in `METHODS`; each is a heat map in the picture.
        out: Folder to write; default `explanations` in the run folder.
        labels: Known label of each image, for the captions.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".

    Returns:
        The folder, with one picture per image and `explanations.json`.

    Raises:
        ImageError: An image cannot be decoded.
        ModelError: There is no such method, or the model does not fit it.
    """
    chosen = {name: require_method(name) for name in methods}
    model = load_model(run, device=device)
    model.require_preparation(None, "the images")
    bundle = find_bundle(run)
    folder = Path(out) if out is not None else bundle.parent / "explanations"
    require_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    labels = list(labels) if labels is not None else [None] * len(images)
    items = []
    known = list(zip(images, labels, strict=True))
    for start in track(range(0, len(known), BATCH), "explaining"):
        part = known[start : start + BATCH]
        patches = np.stack([fit(read_image(str(path)), model.info.patch_size) for path, _ in part])
        said = model.assess(patches)
        maps = {name: heat_maps(model, patches, name) for name in chosen}
        for row, (path, label) in enumerate(part):
            name, probability, decision = Path(str(path)).stem, float(said.probability[row]), str(said.decision[row])
            heats = [Heat(maps[key][row], method.title, method.unit) for key, method in chosen.items()]
            figure = f"{start + row:03d}.png"
            title = f"{name}: {model.info.positive_class} {probability:.2f}, {decision}"
            draw_explanation(folder / figure, patches[row], heats, title, model.info.positive_class, seen_by(model))
            items.append(
                {
                    "id": name,
                    "label": None if label is None else int(label),
                    "probability": probability,
                    "prediction": int(said.prediction[row]),
                    "decision": decision,
                    "figure": figure,
                }
            )
    write_json(folder / "explanations.json", {**record_of(model, list(chosen)), "items": items})
    pictures = {item["figure"] for item in items}
    for earlier in folder.glob("[0-9][0-9][0-9]*.png"):  # of an earlier call with more images
        if earlier.name not in pictures and earlier.stem.isdecimal():
            earlier.unlink()
    say(f"explain: {len(items):,} patches in {folder}. {RESEARCH_USE}")
    renew_report(bundle.parent, folder)
    return folder


def record_of(model: Model, methods: Sequence[str]) -> dict[str, object]:
    """What explanations have on record besides their pictures."""
    return {
        "method": ", ".join(METHODS[name].title for name in methods),
        "methods": list(methods),
        "layer": ", ".join(layers_of(model)) or None,
        "target": model.info.positive_class,
        "model": {"name": model.info.name, "weights_sha256": model.info.weights_sha256},
        "research_use": RESEARCH_USE,
    }


def seen_by(model: Model) -> tuple[int, int]:
    """Height and width in pixels of the centre crop that the network sees."""
    height, width = model.info.patch_size
    crop = model.info.preprocessing.crop
    return min(crop or height, height), min(crop or width, width)


# Contact sheets of what a model looked at, over a whole data set.


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
        draw_explanation_sheet(
            folder / f"sheet-{side}.png", rows, title, model.info.positive_class, limit, seen_by(model)
        )
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
