"""Features of a frozen body, computed once and kept: only the head is left to train."""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed

from tumortrace.cohorts.cache import cache_folder
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.models.architecture import Network
from tumortrace.models.checkpoint import tensors_sha256
from tumortrace.models.device import prediction_batch
from tumortrace.models.families.texture import Descriptors
from tumortrace.records.files import replacing
from tumortrace.records.progress import track
from tumortrace.records.provenance import versions
from tumortrace.training.task import Patches


def frozen_features(
    network: Network,
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


def _file(network: Network, preprocessing: Preprocessing, patches: Patches, key: str) -> Path:
    digest = hashlib.sha256()
    for part in (key, preprocessing.model_dump_json(), str(network.pool), tensors_sha256(network.body.state_dict())):
        digest.update(part.encode() + b"\0")
    digest.update(patches.rows.astype(np.int64).tobytes())
    return cache_folder() / "features" / f"{digest.hexdigest()[:32]}.npy"


# Hand-made descriptors of the images of a split, computed once on all cores and kept.


_PIECE = 128  # images described at a time
_POOL_FROM = 1000  # images; below, starting processes takes longer than it saves


def described(body: Descriptors, preprocessing: Preprocessing, patches: Patches, *, key: str | None) -> Patches:
    """The patches with their descriptors in place of their images, exactly as the network sees them.

    Args:
        body: Which descriptors.
        preprocessing: From prepared images to the network's input.
        patches: Of which to take them.
        key: Names the images; descriptors are kept in the cache under it, the rows, the preprocessing and the
            descriptors' arguments. None keeps them in memory alone.

    Returns:
        float32 features, shape (N, D), with rows 0 to N - 1.
    """
    file = None if key is None else _file_descriptors(body, preprocessing, patches, key)
    if file is not None and file.is_file():
        return patches.replaced(np.load(file, mmap_mode="r"))
    count = len(patches.rows)
    starts = range(0, count, _PIECE)
    pieces = (delayed(_describe)(body, preprocessing, patches.images[patches.rows[s : s + _PIECE]]) for s in starts)
    parallel = Parallel(1 if count < _POOL_FROM else cpu_count(), return_as="generator")
    features = np.concatenate(list(track(parallel(pieces), "describing images", len(starts))))
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary, open(temporary, "wb") as target:
            np.save(target, features)
    return patches.replaced(features)


@torch.inference_mode()
def _describe(body: Descriptors, preprocessing: Preprocessing, images: np.ndarray) -> np.ndarray:
    tensor = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
    return body(preprocessing.normalise(preprocessing.pixels(tensor))).numpy()


def _file_descriptors(body: Descriptors, preprocessing: Preprocessing, patches: Patches, key: str) -> Path:
    digest = hashlib.sha256()
    for part in (key, versions()["tumortrace"], preprocessing.model_dump_json(), json.dumps(body.chosen)):
        digest.update(part.encode() + b"\0")
    digest.update(patches.rows.astype(np.int64).tobytes())
    return cache_folder() / "features" / f"{digest.hexdigest()[:32]}.npy"
