"""A sample of a cohort, drawn by class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from PIL import Image
from skimage.filters import sobel

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.store import usual_size
from tumortrace.errors import CohortError, ImageError
from tumortrace.images.decoding import fit, read_image
from tumortrace.images.reference import ImageRef
from tumortrace.records.data import GroupStains, Stain, Stains
from tumortrace.records.progress import track

AT_LEAST = 50
"""Images of each class that a sample holds where there are so many, however rare the class."""


def draw_sample(cohort: Cohort, size: int, seed: int = 0) -> Cohort:
    """Images drawn at random without replacement, each class by its share; all of them where `size` is no less.

    Unlabelled images count as a class. A rare class gets up to `AT_LEAST` images where its share is less.

    Args:
        cohort: What to draw from.
        size: Number of images, 1 or more.
        seed: Seed, 0 or more.

    Returns:
        The cohort of the images drawn, in random order.

    Raises:
        CohortError: `size` is less than 1, or the cohort is empty.

    Example:
        >>> import pandas as pd
        >>> rows = {"id": [str(n) for n in range(400)], "path": "", "label": [0] * 300 + [1] * 100}
        >>> cohort = Cohort("mine", "table", pd.DataFrame(rows | {"group": None, "split": None}))
        >>> draw_sample(cohort, 200).table["label"].value_counts().tolist()
        [150, 50]
    """
    if size < 1:
        raise CohortError(f"a sample of {size} images", expected="1 or more", remedy="give --sample a larger number")
    if not len(cohort):
        raise CohortError("no image to look at", where=cohort.name, expected="at least one")
    rng = np.random.default_rng(seed)
    stratum = cohort.table["label"].fillna(2).to_numpy(dtype=int)
    rows = [np.flatnonzero(stratum == label) for label in range(3)]
    quotas = _quotas(np.array([len(each) for each in rows]), min(size, len(cohort)))
    drawn = [rng.choice(each, quota, replace=False) for each, quota in zip(rows, quotas, strict=True)]
    return replace(cohort, table=cohort.table.iloc[rng.permutation(np.concatenate(drawn))])


def _quotas(counts: np.ndarray, size: int) -> np.ndarray:
    """How many to draw of each class: its share rounded down, at least the floor; then one by one to make `size`."""
    share = counts / counts.sum() * size
    floors = np.minimum(counts, min(AT_LEAST, size // int(np.count_nonzero(counts))))
    quotas = np.maximum(np.floor(share).astype(int), floors)
    while quotas.sum() != size:
        if quotas.sum() > size:
            quotas[np.argmax(np.where(quotas > floors, quotas - share, -np.inf))] -= 1
        else:
            quotas[np.argmax(np.where(quotas < counts, share - quotas, -np.inf))] += 1
    return quotas


# Each image of a sample opened once, and what is measured in it.


CHANNELS = ("red", "green", "blue")
QUANTILES = (5, 50, 95)
SCALES = (1, 2)
MEASURES = (
    *(f"{channel}_mean" for channel in CHANNELS),
    *(f"{channel}_sd" for channel in CHANNELS),
    *(f"{channel}_p{quantile}" for channel in CHANNELS for quantile in QUANTILES),
    *(f"sobel_{scale}" for scale in SCALES),
)
"""What describes an image: mean, standard deviation and percentiles of each channel (0 to 255), and the mean Sobel
magnitude (grey levels per pixel) of the image at full and at half size."""
NO_COLOUR = 1.0  # mean difference between channels, of 255, below which an image is grey
LARGEST = 512  # pixels of the longer side from which on an image is measured at a reduced size
MEAN_SIDE = 256  # of the mean images, at most
_BATCH = 32  # images per task of a thread

StainsOf = Callable[[np.ndarray], np.ndarray | None]
"""From an image, uint8 (H, W, 3), to the unit optical densities of haematoxylin and eosin, (2, 3), where it can."""


@dataclass(frozen=True)
class Measured:
    """What was measured in a sample.

    Attributes:
        table: One row per image that could be decoded: the cohort's columns; `height`, `width` in pixels; `mode` as
            stored; `grey` (without colour); `MEASURES`; `HAEMATOXYLIN` and `EOSIN`, missing where not known.
        histograms: Counts of the 256 grades, int64, shape (images, 3, 256), rows as in the table.
        mean_images: By label (0, 1, or 2 for unlabelled), the mean of the images at the usual size, at most
            `MEAN_SIDE` pixels: float64, shape (height, width, 3), range [0, 255].
        size: The usual height and width in pixels.
        undecodable: Ids of the images that could not be decoded.
    """

    table: pd.DataFrame
    histograms: np.ndarray
    mean_images: dict[int, np.ndarray]
    size: tuple[int, int]
    undecodable: tuple[str, ...]


def measure(
    sample: Cohort, *, size: tuple[int, int] | None = None, stains: StainsOf | None = None, workers: int | None = None
) -> Measured:
    """Open and measure each image of a sample.

    Args:
        sample: The images; see `draw_sample`.
        size: The usual height and width in pixels of the cohort; default that of the sample.
        stains: Estimates the stains of an image that is not grey; default none.
        workers: Threads; default one per core.

    Raises:
        DataError: Not one of the images can be decoded.

    Example:
        >>> import tempfile
        >>> file = tempfile.mkdtemp() + "/a.png"
        >>> Image.new("RGB", (8, 8), (200, 100, 50)).save(file)
        >>> table = pd.DataFrame({"id": ["a"], "path": [file], "label": [1], "group": None, "split": None})
        >>> measured = measure(Cohort("mine", "table", table))
        >>> measured.table[["red_mean", "blue_sd", "sobel_1"]].to_numpy().tolist(), measured.size
        ([[200.0, 0.0, 0.0]], (8, 8))
    """
    paths = sample.table["path"].tolist()
    labels = sample.table["label"].fillna(2).astype(int).tolist()
    size = size or usual_size(sample)
    scale = min(1, MEAN_SIDE / max(size))
    shape = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    starts = range(0, len(paths), _BATCH)
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        parts = pool.map(
            lambda start: _look(paths[start : start + _BATCH], labels[start:], shape, stains, sample.bits), starts
        )
        looked = list(track(parts, "measuring images", len(starts)))
    rows = [row for part in looked for row in part[0]]
    decoded = np.array([row is not None for row in rows])
    measures = pd.DataFrame([row for row in rows if row is not None])
    table = pd.concat([sample.table[decoded].reset_index(drop=True), measures], axis=1)
    sums = {label: sum(part[2][label] for part in looked if label in part[2]) for label in (0, 1, 2)}
    counts = Counter(label for label, whole in zip(labels, decoded, strict=True) if whole)
    means = {label: np.asarray(sums[label]) / counts[label] for label in sorted(counts)}
    histograms = np.concatenate([part[1] for part in looked])
    return Measured(table, histograms, means, size, tuple(sample.table["id"][~decoded]))


def _look(
    paths: Sequence[str], labels: Sequence[int], shape: tuple[int, int], stains: StainsOf | None, bits: int | None
) -> tuple[list[dict[str, object] | None], np.ndarray, dict[int, np.ndarray]]:
    """Measures (None where not decodable), histograms, and the sum of the images by label; sums are whole numbers."""
    rows: list[dict[str, object] | None] = []
    histograms: list[np.ndarray] = []
    sums: dict[int, np.ndarray] = {}
    for path, label in zip(paths, labels, strict=False):
        try:
            image = read_image(path, bits)
        except ImageError:
            rows.append(None)
            continue
        height, width = image.shape[:2]
        sums[label] = sums.get(label, np.zeros((*shape, 3), np.int64)) + fit(image, shape)
        if max(height, width) > LARGEST:
            reduction = LARGEST / max(height, width)
            image = fit(image, (max(1, round(height * reduction)), max(1, round(width * reduction))))
        histogram = np.stack([np.bincount(image[..., channel].ravel(), minlength=256) for channel in range(3)])
        histograms.append(histogram)
        rows.append({"height": height, "width": width, "mode": _mode(path), **_measures(image, histogram, stains)})
    return rows, np.array(histograms, np.int64).reshape(-1, 3, 256), sums


def _measures(image: np.ndarray, histogram: np.ndarray, stains: StainsOf | None) -> dict[str, object]:
    grades, pixels = np.arange(256), histogram[0].sum()
    means = histogram @ grades / pixels
    deviations = np.sqrt(np.maximum(histogram @ grades**2 / pixels - means**2, 0))
    cumulated = histogram.cumsum(axis=1)
    # the smallest grade at or under which so many per cent of the pixels lie
    quantiles = [np.searchsorted(row, pixels * quantile / 100) for row in cumulated for quantile in QUANTILES]
    values = [*means.tolist(), *deviations.tolist(), *map(float, quantiles), *_edges(image)]
    height, width = image.shape[:2]
    thinned = image[:: max(1, height // 32), :: max(1, width // 32)].reshape(-1, 3).T.astype(int)
    grey = float((thinned.max(axis=0) - thinned.min(axis=0)).mean()) < NO_COLOUR
    vectors = None if grey or stains is None else stains(image)
    stained = np.full(6, np.nan) if vectors is None else vectors.ravel()
    return {
        "grey": grey,
        **dict(zip(MEASURES, values, strict=True)),
        **dict(zip((*HAEMATOXYLIN, *EOSIN), stained.tolist(), strict=True)),
    }


def _edges(image: np.ndarray) -> list[float]:
    """Mean Sobel magnitude at each of `SCALES`, as scikit-image defines it; 0 where an image is too small."""
    means = []
    for scale in SCALES:
        height, width = image.shape[0] // scale, image.shape[1] // scale
        if min(height, width) < 3:
            means.append(0.0)
            continue
        grey = np.asarray(Image.fromarray(fit(image, (height, width))).convert("L"), dtype=np.float32)
        means.append(float(sobel(grey).mean()))
    return means


def _mode(path: str) -> str:
    """Pillow's name for how a file keeps its pixels (RGB, L for grey, P for palette ...), from its first bytes."""
    ref = ImageRef.parse(path)
    if ref.part:
        return "RGB"
    try:
        with Image.open(ref.file) as file:
            return file.mode
    except Exception:  # what Pillow does not know, another decoder has read
        return "other"


# Stain vectors of a sample, and how far slides or patients lie apart in them.


HAEMATOXYLIN = tuple(f"haematoxylin_{channel}" for channel in ("red", "green", "blue"))
EOSIN = tuple(f"eosin_{channel}" for channel in ("red", "green", "blue"))


def describe_stains(table: pd.DataFrame) -> Stains:
    """Median stain vectors of a sample, of each group, and how far groups lie apart.

    Args:
        table: One row per image with `group`, `grey` and the columns `HAEMATOXYLIN` and `EOSIN`: unit vectors of
            optical density, missing where there is too little tissue.

    Returns:
        Whether it applies and, where it does, for haematoxylin and eosin: `vector`, `spread` (median angle in degrees
        between an image's vector and it), `between_groups` (intraclass correlation, one-way random effects, Shrout and
        Fleiss 1979: 0 where groups are alike, 1 where they differ and images within one do not; None without groups),
        and the vectors of each group. Where it does not: `reason`. It applies where most images absorb green
        the most, as haematoxylin and eosin do: a rule of thumb that sets them apart from grey images, from
        diaminobenzidine, and from skin and mucosa in plain light, which absorb blue the most.
    """
    known = table[table[HAEMATOXYLIN[0]].notna()]
    if table["grey"].mean() > 0.5:
        return Stains(applies=False, reason="the images are grey")
    if known.empty:
        return Stains(applies=False, reason="no image holds enough tissue of two colours")
    red, green, blue = (known[list(HAEMATOXYLIN)].to_numpy() + known[list(EOSIN)].to_numpy()).T
    if (green > np.maximum(red, blue)).mean() <= 0.5:
        return Stains(applies=False, reason="green is not what the images absorb the most")
    stains = {"haematoxylin": list(HAEMATOXYLIN), "eosin": list(EOSIN)}
    centres = {name: _direction(known[columns].to_numpy()) for name, columns in stains.items()}
    whole = {
        name: Stain(
            vector=centres[name].tolist(),
            spread=float(np.median(_angles(known[columns].to_numpy(), centres[name]))),
            between_groups=intraclass_correlation(known[columns].to_numpy(), known["group"]),
        )
        for name, columns in stains.items()
    }
    groups = []
    for group, rows in known[known["group"].notna()].groupby("group"):
        vectors = {name: _direction(rows[columns].to_numpy()) for name, columns in stains.items()}
        shifts = {name: float(_angles(vectors[name][None], centres[name])[0]) for name in stains}
        haematoxylin, eosin = (Stain(vector=vectors[name].tolist(), shift=shifts[name]) for name in stains)
        groups.append(GroupStains(group=str(group), images=len(rows), haematoxylin=haematoxylin, eosin=eosin))
    haematoxylin, eosin = whole["haematoxylin"], whole["eosin"]
    return Stains(applies=True, images=len(known), haematoxylin=haematoxylin, eosin=eosin, groups=groups)


def intraclass_correlation(values: np.ndarray, groups: pd.Series) -> float | None:
    """Share of the variance that lies between groups, ICC(1) of Shrout and Fleiss (1979), for vectors by squared norm.

    Args:
        values: Shape (n, d).
        groups: Group of each row; rows without one are left out.

    Returns:
        At most 1; about 0 (or slightly less) where groups are alike; None with fewer than two groups or no group of
        two or more rows.

    Example:
        >>> intraclass_correlation(np.array([[0.], [0.], [9.], [9.]]), pd.Series(["a", "a", "b", "b"]))
        1.0
    """
    known = groups.notna().to_numpy()
    values, codes = values[known], pd.factorize(groups[known])[0]
    n, count = len(values), codes.max() + 1 if len(codes) else 0
    if count < 2 or n <= count:
        return None
    sizes = np.bincount(codes)
    means = np.stack([np.bincount(codes, column) / sizes for column in values.T], axis=1)
    within = ((values - means[codes]) ** 2).sum() / (n - count)
    between = (sizes[:, None] * (means - values.mean(axis=0)) ** 2).sum() / (count - 1)
    usual = (n - (sizes**2).sum() / n) / (count - 1)
    total = between + (usual - 1) * within
    return float((between - within) / total) if total > 0 else None


def _direction(vectors: np.ndarray) -> np.ndarray:
    """The median of unit vectors, coordinate by coordinate, made a unit vector again."""
    median = np.median(vectors, axis=0)
    return median / np.linalg.norm(median)


def _angles(vectors: np.ndarray, centre: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos(np.clip(vectors @ centre, -1, 1)))
