"""The verb `explain`: where in a patch the evidence lies (Grad-CAM)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from captum.attr import LayerGradCam
from torch.nn import functional

from tumortrace.cohorts.images import fit, read_image
from tumortrace.errors import ModelError
from tumortrace.models.bundle import Model, find_bundle, load_model
from tumortrace.reports.explanation import draw_explanation
from tumortrace.runs.files import write_json
from tumortrace.runs.progress import track
from tumortrace.runs.provenance import RESEARCH_USE


def explain(
    run: str | Path,
    images: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    labels: Sequence[int | None] | None = None,
    device: str = "auto",
) -> Path:
    """Draw what speaks for the positive class in each image.

    Args:
        run: Run folder or bundle.
        images: Paths of images.
        out: Folder to write; default `explanations` in the run folder.
        labels: Known label of each image, for the captions.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".

    Returns:
        The folder, with one picture per image and `explanations.json`.

    Raises:
        ImageError: An image cannot be decoded.
        ModelError: The network has no map of features to weigh.
    """
    model = load_model(run, device=device)
    model.require_preparation(None, "the images")
    folder = Path(out) if out is not None else find_bundle(run).parent / "explanations"
    folder.mkdir(parents=True, exist_ok=True)
    labels = list(labels) if labels is not None else [None] * len(images)
    decoded = [fit(read_image(str(path)), model.info.patch_size) for path in images]
    items = []
    for number, (path, image, label) in enumerate(track(list(zip(images, decoded, labels, strict=True)), "explaining")):
        probability = float(model.predict(image[None])[0])
        prediction, decision = model.info.decide(np.array([probability]))
        name = Path(str(path)).stem
        figure = f"{number:03d}.png"
        heat = grad_cam(model, image)
        title = f"{name}: {model.info.positive_class} {probability:.2f}, {decision[0]}"
        draw_explanation(folder / figure, image, heat, title, model.info.positive_class)
        items.append(
            {
                "id": name,
                "label": None if label is None else int(label),
                "probability": probability,
                "prediction": int(prediction[0]),
                "decision": str(decision[0]),
                "figure": figure,
            }
        )
    record = {
        "method": "Grad-CAM",
        "layer": str(model.network.attention_layer),
        "target": model.info.positive_class,
        "model": {"name": model.info.name, "weights_sha256": model.info.weights_sha256},
        "items": items,
        "research_use": RESEARCH_USE,
    }
    write_json(folder / "explanations.json", record)
    return folder


def grad_cam(model: Model, image: np.ndarray) -> np.ndarray:
    """Grad-CAM of the positive class. Selvaraju et al. (2017), "Grad-CAM: visual explanations from deep networks".

    Args:
        model: A convolutional model.
        image: uint8, shape (H, W, 3); H and W are the bundle's `patch_size`.

    Returns:
        float64, shape (H, W), range [0, inf), in units of the logit: positive evidence alone; zero outside of
        the crop that the network sees.

    Raises:
        ModelError: The network has no map of features to weigh.
    """
    steps = model.info.preprocessing
    if model.network.attention_layer is None:
        raise ModelError(
            f"Grad-CAM needs a map of features, which this {model.info.architecture.name} model has not",
            where=model.info.name,
            remedy="explain a convolutional model",
        )
    tensor = torch.from_numpy(np.ascontiguousarray(steps.prepare(image[None]))).permute(0, 3, 1, 2).to(model.device)
    inputs = steps.normalise(steps.pixels(tensor)).requires_grad_()
    layer = model.network.get_submodule(str(model.network.attention_layer))
    maps = LayerGradCam(model.network, layer).attribute(inputs, relu_attributions=True)
    height, width = image.shape[:2]
    crop = (min(steps.crop or height, height), min(steps.crop or width, width))
    heat = (
        functional.interpolate(maps.detach(), crop, mode="bilinear", align_corners=False)[0, 0].double().cpu().numpy()
    )
    framed = np.zeros((height, width))
    top, left = (height - crop[0]) // 2, (width - crop[1]) // 2
    framed[top : top + crop[0], left : left + crop[1]] = heat
    return framed
