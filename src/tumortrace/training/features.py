"""Features of a split, computed once and kept: of a frozen body, or descriptors made by hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed

from tumortrace.images.preprocessing import Preprocessing
from tumortrace.models.architecture import Network
from tumortrace.models.checkpoint import tensors_sha256
from tumortrace.models.device import prediction_batch
from tumortrace.models.families.texture import Descriptors
from tumortrace.records.files import replacing
from tumortrace.records.progress import track
from tumortrace.records.provenance import versions
from tumortrace.records.remote import cache_folder
from tumortrace.training.task import Patches

_PIECE = 128  # images described at a time
_POOL_FROM = 1000  # images; below, starting processes takes longer than it saves


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

    def compute() -> np.ndarray:
        network.eval()
        parts = []
        size = prediction_batch(max(patches.size, preprocessing.output_size(patches.size)))
        with torch.inference_mode(), autocast:
            for start in track(range(0, len(patches.rows), size), "features"):
                images = patches.tensor(np.arange(start, min(start + size, len(patches.rows))), device)
                inputs = preprocessing.normalise(preprocessing.pixels(images))
                features = network.features(inputs.contiguous(memory_format=torch.channels_last))
                parts.append(features.float().cpu().numpy())
        return np.concatenate(parts)

    # the same tensors give other features where they are pooled or put together otherwise
    built = json.dumps(dict(network.resolved_arguments), sort_keys=True)
    body = str(network.pool), built, tensors_sha256(network.body.state_dict())
    return _kept(patches, compute, key, preprocessing.model_dump_json(), *body)


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

    def compute() -> np.ndarray:
        count = len(patches.rows)
        starts = range(0, count, _PIECE)
        pieces = (delayed(_describe)(body, preprocessing, patches.images[patches.rows[s : s + _PIECE]]) for s in starts)
        parallel = Parallel(1 if count < _POOL_FROM else cpu_count(), return_as="generator")
        return np.concatenate(list(track(parallel(pieces), "describing images", len(starts))))

    described_by = versions()["tumortrace"], preprocessing.model_dump_json(), json.dumps(body.chosen)
    return _kept(patches, compute, key, *described_by)


@torch.inference_mode()
def _describe(body: Descriptors, preprocessing: Preprocessing, images: np.ndarray) -> np.ndarray:
    tensor = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
    return body(preprocessing.normalise(preprocessing.pixels(tensor))).numpy()


def _kept(patches: Patches, compute: Callable[[], np.ndarray], key: str | None, *names: str) -> Patches:
    """The patches with features in place of their images, from the cache where they lie there under these names."""
    if key is None:
        return patches.replaced(compute())
    digest = hashlib.sha256()
    for part in (key, *names):
        digest.update(part.encode() + b"\0")
    digest.update(patches.rows.astype(np.int64).tobytes())
    file = cache_folder() / "features" / f"{digest.hexdigest()[:32]}.npy"
    if file.is_file():
        return patches.replaced(np.load(file, mmap_mode="r"))
    features = compute()
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary, open(temporary, "wb") as target:
        np.save(target, features)
    return patches.replaced(features)
