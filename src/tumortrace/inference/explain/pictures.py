"""The verb `explain`: where in a patch the evidence lies, drawn."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
import pandas as pd

from tumortrace.cohorts.cohort import Cohort, Reading, ReadingOptions
from tumortrace.errors import ModelError
from tumortrace.evaluation.classes import PROBABILITY
from tumortrace.inference.explain.cam import layers_of
from tumortrace.inference.explain.methods import BATCH, METHODS, heat_maps, require_method, seen_by
from tumortrace.inference.patches import open_patches
from tumortrace.inference.unseen import end, open_unseen
from tumortrace.models.bundle import Assessment, Model, load_model
from tumortrace.records.evaluation import Explained, ExplanationsRecord, SheetsRecord
from tumortrace.records.output import require_folder
from tumortrace.records.progress import track
from tumortrace.records.provenance import RESEARCH_USE
from tumortrace.reports.explanation import Heat, Tile, draw_explanation, draw_explanation_sheet

COUNT = 8
KINDS = {  # label and prediction
    "true positives": (1, 1),
    "false negatives": (1, 0),
    "true negatives": (0, 0),
    "false positives": (0, 1),
}


def explain(
    run: str | Path,
    images: Sequence[str | Path],
    *,
    methods: Sequence[str] = ("grad-cam",),
    of_class: str | None = None,
    out: str | Path | None = None,
    labels: Sequence[int | None] | None = None,
    device: str = "auto",
    resample: bool = False,
    allow: Sequence[str] = (),
    **reading: Unpack[ReadingOptions],
) -> Path:
    """Draw what speaks for the positive class in each image, or for another that the model tells apart.

    Args:
        run: Run folder or bundle.
        images: Paths of images.
        methods: Names in `METHODS`; each is a heat map in the picture.
        of_class: Of a model of more than two classes, the one that is asked for.
        out: Folder to write; default `explanations` in the run folder.
        labels: Known label of each image, for the captions.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        resample: Resample images whose um per pixel are known to those of the model's patches, around their centres.
        allow: Name of a finding of `check`, or `resolution-mismatch`, to go on in spite of.
        **reading: How the images are read: options of `open_cohort`, of which `bits` and `resolution` matter here.

    Returns:
        The folder, with one picture per image and `explanations.json`.

    Raises:
        DataError: An image cannot be decoded, or what it shows would make the answer wrong and is not allowed.
        ModelError: There is no such method, or the model does not fit it.
    """
    chosen = {name: require_method(name) for name in methods}
    model = load_model(run, device=device)
    model.require_preparation(None, "the images")
    asked = model if of_class is None else model.of_class(of_class)
    paths = [os.path.abspath(path) for path in images]
    table = pd.DataFrame({"id": [Path(path).stem for path in paths], "path": paths}).assign(group=None, split=None)
    table["label"] = pd.array(labels if labels is not None else [None] * len(paths), dtype="Int64")
    told = Reading(**reading)
    cohort = Cohort("the images", "images", table, resolution=told.resolution, bits=told.bits)
    opened = open_patches(model, cohort, resample=resample, allow=allow, keep_failed=False)
    folder = explanations_folder(model, out)
    known = list(zip(paths, table["label"], strict=True))
    items: list[Explained] = []
    for start in track(range(0, len(known), BATCH), "explaining"):
        part = known[start : start + BATCH]
        patches = np.asarray(opened.store.images[start : start + BATCH])
        said = model.assess(patches)
        maps = {name: heat_maps(asked, patches, name) for name in chosen}
        for row, (path, label) in enumerate(part):
            item = Explained(
                id=Path(str(path)).stem,
                label=None if pd.isna(label) else int(label),
                probability=float(said.probability[row]),
                prediction=int(said.prediction[row]),
                decision=str(said.decision[row]),
                figure=f"{start + row:03d}.png",
            )
            heats = [Heat(maps[name][row], method.title, method.unit) for name, method in chosen.items()]
            target = of_class or model.info.positive_class
            sure = item.probability if of_class is None else float(said.columns()[PROBABILITY + of_class][row])
            title = f"{item.id}: {target} {sure:.2f}, {item.decision}"
            draw_explanation(folder / item.figure, patches[row], heats, title, target, seen_by(model))
            items.append(item)
    about = _described(model, list(chosen), of_class)
    ExplanationsRecord.model_validate({**about, "items": items, "notes": opened.notes}).write(folder)
    pictures = {item.figure for item in items}
    for earlier in folder.glob("[0-9][0-9][0-9]*.png"):  # of an earlier call with more images
        if earlier.name not in pictures and earlier.stem.isdecimal():
            earlier.unlink()
    return end(model, folder, f"explain: {len(items):,} patches in {folder}", opened.notes)


def explanations_folder(model: Model, out: str | Path | None) -> Path:
    """Where explanations are written, made: `out`, or `explanations` in the model's run folder."""
    folder = Path(out) if out is not None else model.run_folder / "explanations"
    require_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _described(model: Model, methods: Sequence[str], of_class: str | None = None) -> dict[str, object]:
    """What explanations have on record besides their pictures."""
    return {
        "method": ", ".join(METHODS[name].title for name in methods),
        "methods": list(methods),
        "layer": ", ".join(layers_of(model)) or None,
        "target": of_class or model.info.positive_class,
        "model": model.named,
        "research_use": RESEARCH_USE,
    }


def draw_sheets(
    run: str | Path,
    data: str | Path | Cohort,
    *,
    method: str = "grad-cam",
    count: int | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    resample: bool = False,
    allow: Sequence[str] = (),
    **reading: Unpack[ReadingOptions],
) -> Path:
    """Draw the most confident right and wrong predictions of each class with their heat, all on one scale.

    Args:
        run: Run folder or bundle.
        data: Labelled data that the model has not seen; what it has seen is left out.
        method: A name in `METHODS`.
        count: Pictures of each kind, default 8.
        out: Folder to write; default `explanations` in the run folder.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        resample: Resample images whose um per pixel are known to those of the model's patches, around their centres.
        allow: Name of a finding of `check`, or `resolution-mismatch`, to go on in spite of.
        **reading: How the data are read: options of `open_cohort`.

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
    model = load_model(run, device=device)
    unseen = open_unseen(model, data, resample=resample, allow=allow, **reading)
    said = model.assess(unseen.store.images, unseen.rows, description="predicting")
    ids, labels = unseen.table["id"].to_numpy(), unseen.table["label"].to_numpy(dtype=np.int64)
    places = {kind: _surest(said, labels, *pair)[:count] for kind, pair in KINDS.items()}
    patches = {kind: unseen.store.images[unseen.rows[place]] for kind, place in places.items()}
    maps = {kind: heat_maps(model, images, method) for kind, images in patches.items()}
    limit = Heat(np.concatenate([heat.ravel() for heat in maps.values()]), "").limit  # one scale for all
    folder, target = explanations_folder(model, out), model.info.positive_class
    items: list[Explained] = []
    sheets: list[str] = []
    for truth, side in ((1, "positive"), (0, "negative")):
        rows: dict[str, list[Tile]] = {}
        for kind in (kind for kind, (label, _) in KINDS.items() if label == truth):
            told = [(str(ids[place]), float(said.probability[place])) for place in places[kind]]
            total = int(((labels == truth) & (said.prediction == KINDS[kind][1])).sum())
            rows[f"{kind}, {len(told)} of {total:,}"] = [
                Tile(image, Heat(heat, chosen.title, chosen.unit), f"{_short(name)}\n{probability:.3f}")
                for image, heat, (name, probability) in zip(patches[kind], maps[kind], told, strict=True)
            ]
            items += [Explained(kind=kind, id=name, probability=probability) for name, probability in told]
        sheets.append(f"sheet-{side}.png")
        title = f"{model.info.classes[truth]}: {chosen.title}, surest first, with P({target})"
        draw_explanation_sheet(folder / sheets[-1], rows, title, target, limit, seen_by(model))
    data_fields = {"data": unseen.cohort.name, "split": unseen.split, "figures": sheets, "notes": unseen.notes}
    SheetsRecord.model_validate({**_described(model, [method]), **data_fields, "items": items}).write(folder)
    return end(model, folder, f"explain: {', '.join(sheets)} in {folder}", unseen.notes)


def _surest(said: Assessment, labels: np.ndarray, label: int, prediction: int) -> np.ndarray:
    """Places of the images with this label and prediction, the most confident first."""
    places = np.flatnonzero((labels == label) & (said.prediction == prediction))
    sureness = said.probability[places] if prediction else 1 - said.probability[places]
    return places[np.argsort(-sureness, kind="stable")]


def _short(name: str) -> str:
    return name if len(name) <= 18 else "…" + name[-17:]
