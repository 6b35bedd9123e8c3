"""The verb `explain`: where in a patch the evidence lies, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tumortrace.cohorts.images import fit, read_image
from tumortrace.inference.explain.cam import layers_of
from tumortrace.inference.explain.methods import BATCH, METHODS, heat_maps, require_method
from tumortrace.models.bundle import Model, find_bundle, load_model
from tumortrace.reports.explanation import Heat, draw_explanation
from tumortrace.reports.report import renew_report
from tumortrace.runs.files import write_json
from tumortrace.runs.output import require_folder
from tumortrace.runs.progress import say, track
from tumortrace.runs.provenance import RESEARCH_USE


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
