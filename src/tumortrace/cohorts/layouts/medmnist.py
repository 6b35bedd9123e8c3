"""MedMNIST: one `.npz` file of small images and labels, in three splits (Yang et al., Scientific Data, 2023)."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from tumortrace.cohorts.cache import unpacked
from tumortrace.cohorts.cohort import Cohort, Reading
from tumortrace.cohorts.labels import binary_labels
from tumortrace.cohorts.layouts import LAYOUTS, Layout
from tumortrace.cohorts.names import SPLIT_NAMES
from tumortrace.errors import CohortError
from tumortrace.images.reference import ImageRef

_SPLITS = ("train", "val", "test")
_NEEDED = frozenset(f"{split}_{what}.npy" for split in _SPLITS for what in ("images", "labels"))
# What the numbers stand for and which is positive, by the start of the file's name, as `medmnist/info.py` has them; in
# BreastMNIST it is 0. Of more than two classes the user says which are positive.
_CLASSES: dict[str, tuple[tuple[str, ...], str | None]] = {
    "breastmnist": (("malignant", "normal or benign"), "malignant"),
    "pneumoniamnist": (("normal", "pneumonia"), "pneumonia"),
    "pathmnist": (
        (
            "adipose",
            "background",
            "debris",
            "lymphocytes",
            "mucus",
            "smooth muscle",
            "normal colon mucosa",
            "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
        None,
    ),
    "dermamnist": (
        (
            "actinic keratoses and intraepithelial carcinoma",
            "basal cell carcinoma",
            "benign keratosis-like lesions",
            "dermatofibroma",
            "melanoma",
            "melanocytic nevi",
            "vascular lesions",
        ),
        None,
    ),
    "octmnist": (("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"), None),
}


class MedMnist(Layout):
    """Arrays of images (grey or RGB) and of labels, a pair for each split, in one archive of NumPy's."""

    rank = 25
    looks_like = "a file of MedMNIST (breastmnist.npz)"

    def recognises(self, path: Path) -> bool:
        """Whether it is a `.npz` file with the images and labels of three splits."""
        if path.suffix.lower() != ".npz" or not path.is_file():
            return False
        try:
            with zipfile.ZipFile(path) as archive:
                return set(archive.namelist()) >= _NEEDED
        except (OSError, zipfile.BadZipFile):
            return False

    def read(self, path: Path, reading: Reading) -> Cohort:
        """The cohort of all three splits; the images are unpacked into the cache, once."""
        tables = [_read_split(path, split) for split in _SPLITS]
        table = pd.concat(tables, ignore_index=True)
        known = next((_CLASSES[start] for start in _CLASSES if path.name.lower().startswith(start)), None)
        two = table["label"].isin((0, 1)).all()
        if known is None and two and reading.positive is None and reading.label_from_name is None:
            found = "which label is positive is not known of this file: in some of MedMNIST's 0 is the disease"
            raise CohortError(found, where=path, remedy="name it with --positive 0 or --positive 1")
        names, positive = known or ((), None)
        texts = [names[label] if 0 <= label < len(names) else str(label) for label in table["label"]]
        labels = binary_labels(texts, positive=reading.positive or positive, merge=reading.merge, where=path)
        table = labels.into(table).assign(group=None)
        notes = (*([labels.note] if labels.note else []), "MedMNIST does not say which patient an image is of")
        return Cohort(path.stem, "medmnist", table, notes=notes, **labels.naming)


def _read_split(path: Path, split: str) -> pd.DataFrame:
    """Id, path, label as it stands, and split of each image."""
    try:
        with zipfile.ZipFile(path) as archive:
            with archive.open(f"{split}_labels.npy") as packed:
                labels = np.lib.format.read_array(packed)
            with archive.open(f"{split}_images.npy") as packed:
                images = unpacked(path, f"{split}_images.npy", lambda file: shutil.copyfileobj(packed, file, 1 << 22))
        shape, kind = (array := np.load(images, mmap_mode="r")).shape, array.dtype
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise CohortError(f"cannot be unpacked ({error})", where=path, remedy="download it again") from None
    if labels.size != len(labels):
        found = f"labels of shape {labels.shape}: several for each image"
        raise CohortError(found, where=path, expected="one for each image, as in BreastMNIST")
    if (len(shape) == 4 and len(set(shape[1:])) == 1) or len(shape) == 5:
        found = f"{split} images of shape {shape}: volumes"
        raise CohortError(found, where=path, expected="pictures of two dimensions", remedy="use a file without 3d")
    if kind != np.uint8 or len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] != 3) or shape[0] != len(labels):
        found = f"{split} images of {kind}, shape {shape}, and {len(labels)} labels"
        raise CohortError(found, where=path, expected="uint8 (count, height, width) or (count, height, width, 3)")
    rows = range(len(labels))
    return pd.DataFrame(
        {
            "id": [f"{split}-{row:06d}" for row in rows],
            "path": [str(ImageRef(str(images), str(row))) for row in rows],
            "label": labels.reshape(-1).astype(int),
            "split": SPLIT_NAMES[split],
        }
    )


LAYOUTS.register("medmnist")(MedMnist())
