"""Whether data hold what they held, whenever and wherever their files were put: what resuming asks."""

from __future__ import annotations

import hashlib
import os

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.store import PatchStore
from tumortrace.records.run import Contents


def contents(cohort: Cohort, store: PatchStore) -> Contents:
    """What a cohort holds, as two digests that neither the place nor the time of change of its files goes into.

    Args:
        cohort: The images.
        store: The same, decoded.

    Example:
        >>> import pandas as pd, tempfile; from pathlib import Path; from PIL import Image
        >>> from tumortrace.cohorts.store import open_store
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (8, 8), "red").save(folder / "a.png")
        >>> table = pd.DataFrame({"id": ["a"], "path": str(folder / "a.png"), "label": 1, "group": None, "split": None})
        >>> cohort = Cohort("mine", "table", table)
        >>> before = contents(cohort, open_store(cohort))
        >>> os.utime(folder / "a.png", (1, 1))
        >>> contents(cohort, open_store(cohort)) == before
        True
    """
    classes = (cohort.classes, cohort.class_names, cohort.positive_names)
    rows = hashlib.sha256(repr((classes, cohort.resolution)).encode())
    for row in cohort.rows():
        rows.update(repr(row).encode())
    sizes = {file: os.stat(file).st_size for file in {image.file for image in cohort.images}}
    pictures = hashlib.sha256()
    for image, digest in zip(cohort.images, store.digests, strict=True):
        pictures.update(repr((sizes[image.file], digest)).encode())
    return Contents(rows=rows.hexdigest(), pictures=pictures.hexdigest())


def difference(before: Contents, now: Contents) -> str:
    """What has changed from one to the other, in words that end a sentence; empty where nothing has.

    Example:
        >>> difference(Contents(rows="a", pictures="b"), Contents(rows="a", pictures="c"))
        'image files hold other contents'
    """
    if before.rows != now.rows:
        return "ids, labels, groups, splits, class names or resolution are others"
    return "" if before.pictures == now.pictures else "image files hold other contents"
