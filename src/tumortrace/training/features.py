"""Features of a frozen body, computed once and kept: only the head is left to train."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch

from tumortrace.cohorts.store import cache_folder
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.models.device import prediction_batch
from tumortrace.models.families.backbone import Backbone
from tumortrace.models.weights import tensors_sha256
from tumortrace.records.files import replacing
from tumortrace.records.progress import track
from tumortrace.training.patches import Patches


def frozen_features(
    network: Backbone,
    preprocessing: Preprocessing,
    patches: Patches,
    *,
    device: torch.device,
    autocast: AbstractContextManager[object],
    key: str | None,
) -> Patches:
    """The patches with the body's features in place of their images.

    Args:
        network: Whose `features` to take, in inference mode.
        preprocessing: From prepared images to its input.
        patches: Of which to take them.
        device: Where the network computes.
        autocast: Context of the precision.
        key: Names the images and the precision; features are kept in the cache under it, the rows, the preprocessing
            and the weights. None keeps them in memory alone.

    Returns:
        float32 features, shape (N, ...), with rows 0 to N - 1.
    """
    file = None if key is None else _file(network, preprocessing, patches, key)
    if file is not None and file.is_file():
        return patches.replaced(np.load(file, mmap_mode="r"))
    network.eval()
    parts = []
    size = prediction_batch(max(patches.size, preprocessing.output_size(patches.size)))
    with torch.inference_mode(), autocast:
        for start in track(range(0, len(patches.rows), size), "features"):
            images = patches.tensor(np.arange(start, min(start + size, len(patches.rows))), device)
            inputs = preprocessing.normalise(preprocessing.pixels(images))
            parts.append(network.features(inputs.contiguous(memory_format=torch.channels_last)).float().cpu().numpy())
    features = np.concatenate(parts)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary, open(temporary, "wb") as target:
            np.save(target, features)
    return patches.replaced(features)


def _file(network: Backbone, preprocessing: Preprocessing, patches: Patches, key: str) -> Path:
    digest = hashlib.sha256()
    pooling = str(network.pool)
    for part in (key, preprocessing.model_dump_json(), pooling, tensors_sha256(network.body.state_dict())):
        digest.update(part.encode() + b"\0")
    digest.update(patches.rows.astype(np.int64).tobytes())
    return cache_folder() / "features" / f"{digest.hexdigest()[:32]}.npy"
