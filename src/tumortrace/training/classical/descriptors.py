"""Hand-made descriptors of the images of a split, computed once on all cores and kept."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed

from tumortrace.cohorts.store import cache_folder
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.models.families.texture import Descriptors
from tumortrace.records.files import replacing
from tumortrace.records.progress import track
from tumortrace.records.provenance import versions
from tumortrace.training.patches import Patches

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
    file = None if key is None else _file(body, preprocessing, patches, key)
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


def _file(body: Descriptors, preprocessing: Preprocessing, patches: Patches, key: str) -> Path:
    digest = hashlib.sha256()
    for part in (key, versions()["tumortrace"], preprocessing.model_dump_json(), json.dumps(body.chosen)):
        digest.update(part.encode() + b"\0")
    digest.update(patches.rows.astype(np.int64).tobytes())
    return cache_folder() / "features" / f"{digest.hexdigest()[:32]}.npy"
