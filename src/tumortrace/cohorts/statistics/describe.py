"""The numbers of a cohort and of a sample of it, as `statistics.json` holds them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TypeVar

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from tumortrace.cohorts.cohort import SPLITS, Cohort
from tumortrace.cohorts.statistics.measure import CHANNELS, MEASURES, Measured
from tumortrace.evaluation.intervals import wilson
from tumortrace.records.data import (
    ClassImages,
    ExploredCohort,
    ExploredSample,
    FeatureMap,
    GroupImages,
    Groups,
    Histogram,
    Images,
    Intensity,
    Neighbours,
    Size,
    SplitImages,
)

AnyImages = TypeVar("AnyImages", bound=Images)
INTENSITY_BINS = 64  # of four grades each
QUANTILES = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}


def class_names(cohort: Cohort) -> dict[int, str]:
    """Name of each label that stands in the cohort; 2 is what carries none.

    Example:
        >>> table = pd.DataFrame({"id": ["a"], "path": "a.png", "label": None, "group": None, "split": None})
        >>> class_names(Cohort("mine", "unlabelled", table))
        {2: 'unlabelled'}
    """
    present = set(cohort.table["label"].fillna(2).astype(int))
    return {label: name for label, name in enumerate((*cohort.classes, "unlabelled")) if label in present}


def describe_cohort(cohort: Cohort) -> ExploredCohort:
    """Counts of the whole cohort: by class, split, group and file type. No image is opened."""
    labels, names = cohort.table["label"], class_names(cohort)
    counts = labels.fillna(2).astype(int).value_counts()
    labelled = int(labels.notna().sum())
    return ExploredCohort(
        name=cohort.name,
        data=cohort.origin,
        layout=cohort.layout,
        images=len(cohort),
        labelled=labelled,
        positive_class=cohort.positive_class,
        prevalence=int((labels == 1).sum()) / labelled if labelled else None,
        classes=[ClassImages(label=label, name=name, images=int(counts[label])) for label, name in names.items()],
        resolution=cohort.resolution,
        notes=list(cohort.notes),
        fingerprint=cohort.fingerprint,
        file_types=dict(Counter(image.suffix or "none" for image in cohort.images).most_common()),
        splits=[part.as_json() for part in _parts(cohort.table, "split", SplitImages, SPLITS)],
        groups=_groups(cohort.table),
    )


def _parts(table: pd.DataFrame, column: str, kind: type[AnyImages], order: tuple[str, ...] = ()) -> list[AnyImages]:
    """Images and positives of each value of a column, in `order` or else the largest first."""
    known = table[table[column].notna()]
    grouped = known.groupby(column)["label"]
    counts = pd.DataFrame({"images": grouped.size(), "labelled": grouped.count(), "positives": grouped.sum()})
    names = [name for name in order if name in counts.index]
    counts = counts.loc[names] if order else counts.sort_values("images", ascending=False, kind="stable")
    parts = []
    for name, row in counts.astype(int).to_dict("index").items():
        ends = wilson(row["positives"], row["labelled"]) if row["labelled"] else None
        shares = {
            "prevalence": row["positives"] / row["labelled"] if row["labelled"] else None,
            "ci95": None if ends is None else (float(ends[0]), float(ends[1])),
        }
        parts.append(kind.model_validate({column: str(name), **row, **shares}))
    return parts


def _groups(table: pd.DataFrame) -> Groups:
    groups = _parts(table, "group", GroupImages)
    shares = [group.prevalence for group in groups if group.prevalence is not None]
    return Groups(
        count=len(groups),
        images_without=int(table["group"].isna().sum()),
        images_each=_spread([group.images for group in groups]),
        prevalence_each=_spread(shares),
        of_one_class=sum(share in (0, 1) for share in shares),
        each=groups,
    )


def _spread(values: Sequence[float]) -> dict[str, float | None] | None:
    if not values:
        return None
    return {"min": float(min(values)), "median": float(np.median(values)), "max": float(max(values))}


def describe_sample(measured: Measured, names: dict[int, str], asked: int) -> ExploredSample:
    """Sizes, ways of storing, intensities, mean colours and edges of what was measured, overall and by class.

    Args:
        measured: What was measured in the sample.
        names: Class name of each label; see `class_names`.
        asked: How many images the sample was to have.
    """
    table = measured.table
    labels = table["label"].fillna(2).astype(int)
    sizes = Counter(zip(table["width"].tolist(), table["height"].tolist(), strict=True)).most_common()
    present = {label: name for label, name in names.items() if (labels == label).any()}
    rows = {label: (labels == label).to_numpy() for label in present}

    def by_class(columns: dict[str, str]) -> list[ClassImages]:
        """Quantiles over the images of each class, of each of these columns under its key."""
        records = []
        for label, name in present.items():
            quantiles = {key: _quantiles(table.loc[rows[label], column]) for key, column in columns.items()}
            records.append(ClassImages.model_validate({"label": label, "name": name, **quantiles}))
        return records

    return ExploredSample(
        asked=asked,
        images=len(table),
        undecodable=len(measured.undecodable),
        undecodable_ids=list(measured.undecodable[:20]),
        classes=[ClassImages(label=label, name=name, images=int(rows[label].sum())) for label, name in present.items()],
        usual_size=Size(width=measured.size[1], height=measured.size[0]),
        sizes=[Size(width=width, height=height, images=count) for (width, height), count in sizes],
        modes=dict(Counter(table["mode"]).most_common()),
        grey=int(table["grey"].sum()),
        intensity=Intensity(
            bins=INTENSITY_BINS,
            all=_intensity(measured.histograms),
            classes=[
                Histogram(label=label, name=name, **_intensity(measured.histograms[rows[label]]))
                for label, name in present.items()
            ],
        ),
        mean_colour=by_class({channel: f"{channel}_mean" for channel in CHANNELS}),
        edges=by_class({"sobel": "sobel_1"}),
    )


def _intensity(histograms: np.ndarray) -> dict[str, list[float]]:
    """Share of the pixels in each bin, by channel. Every image weighs the same, whatever its size."""
    shares = (histograms / histograms.sum(axis=2, keepdims=True)).mean(axis=0)
    binned = shares.reshape(3, INTENSITY_BINS, -1).sum(axis=2)
    return {channel: row.round(6).tolist() for channel, row in zip(CHANNELS, binned, strict=True)}


def _quantiles(values: pd.Series) -> dict[str, float]:
    return {short: float(values.quantile(share)) for short, share in QUANTILES.items()}


# A map of a sample by simple features, and how much images of one group keep together in it.


NEIGHBOURS = 10
FEWEST = 20  # images below which neighbours say nothing


def place(table: pd.DataFrame, seed: int = 0) -> tuple[pd.DataFrame, FeatureMap]:
    """The table of a sample with a place on the map for each image, and what there is to say about the map.

    Args:
        table: One row per image with `label`, `group` and the columns `MEASURES`.
        seed: Seed of the bootstrap and of UMAP.

    Returns:
        The table with `pca_1` and `pca_2`, and `umap_1` and `umap_2` where UMAP is installed; and `features` (names),
        `explained_variance` (shares), `umap` (whether), `same_group` and `same_class` (see `same_neighbours`).
    """
    features, table = standardised(table), table.copy()
    places, shares = principal_components(features)
    table[["pca_1", "pca_2"]] = places
    near = umap(features, seed)
    if near is not None:
        table[["umap_1", "umap_2"]] = near
    alone = "image " + pd.Series(range(len(table)), index=table.index).astype("string")
    clusters = table["group"].fillna(alone)
    return table, FeatureMap(
        features=list(MEASURES),
        explained_variance=shares,
        umap=near is not None,
        same_group=same_neighbours(features, table["group"], within=table["label"], clusters=clusters, seed=seed),
        same_class=same_neighbours(features, table["label"], clusters=clusters, seed=seed),
    )


def standardised(table: pd.DataFrame) -> np.ndarray:
    """The columns `MEASURES` with mean 0 and standard deviation 1, constant ones left out; shape (n, at most 18)."""
    values = table[list(MEASURES)].to_numpy(dtype=float)
    spread = values.std(axis=0)
    varying = spread > 1e-9
    return (values[:, varying] - values[:, varying].mean(axis=0)) / spread[varying]


def principal_components(features: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """The first two principal components and the share of the variance that each explains.

    Args:
        features: Shape (n, d).

    Returns:
        Coordinates of shape (n, 2), the direction of each axis chosen so that the largest loading is positive, and
        the shares; None-like zeros where there are fewer than three images or two features.
    """
    if min(features.shape[0] - 1, features.shape[1]) < 2:
        return np.zeros((len(features), 2)), [0.0, 0.0]
    model = PCA(2, svd_solver="full")
    places = model.fit_transform(features)
    largest = np.abs(model.components_).argmax(axis=1)
    return places * np.sign(model.components_[[0, 1], largest]), model.explained_variance_ratio_.tolist()


def umap(features: np.ndarray, seed: int) -> np.ndarray | None:
    """UMAP coordinates (McInnes et al. 2018), shape (n, 2), where the library `umap-learn` is installed."""
    if find_spec("umap") is None or len(features) < FEWEST or not features.shape[1]:
        return None
    model = import_module("umap").UMAP(random_state=seed, n_jobs=1)  # slow to load
    return np.asarray(model.fit_transform(features), dtype=float)


def same_neighbours(
    features: np.ndarray, key: pd.Series, *, within: pd.Series | None = None, clusters: pd.Series, seed: int = 0
) -> Neighbours | None:
    """How often an image's nearest neighbours share its key, against chance.

    Args:
        features: Shape (n, d), standardised; neighbours are nearest by Euclidean distance.
        key: What neighbours may share (group or label); rows without one are left out.
        within: Neighbours are looked for among images of the same value only (for groups: of the same class, as
            classes would keep groups together by themselves).
        clusters: What the bootstrap draws; images that stand together or fall together share a value.
        seed: Seed of the bootstrap.

    Returns:
        `observed` and `chance` (mean shares), `ratio` of the two with `ci95` (percentile bootstrap of whole clusters,
        1000 replicates), `images` and `neighbours`; None with fewer than `FEWEST` images or two keys.

    Example:
        >>> places = np.arange(40.)[:, None] // 20 * 100 + np.arange(40.)[:, None] % 20
        >>> apart = pd.Series(["a"] * 20 + ["b"] * 20)
        >>> share = same_neighbours(places, apart, clusters=pd.Series(range(40)))
        >>> share.observed, round(share.chance, 3)
        (1.0, 0.487)
    """
    known = np.flatnonzero(key.notna().to_numpy())
    if len(known) < FEWEST or key.nunique() < 2 or not features.shape[1]:
        return None
    stratum = np.zeros(len(key)) if within is None else pd.factorize(within, use_na_sentinel=False)[0]
    codes = pd.factorize(key)[0]
    observed, chance = np.full(len(key), np.nan), np.full(len(key), np.nan)
    for value in np.unique(stratum[known]):
        rows = known[stratum[known] == value]
        if len(rows) < 3:
            continue
        near = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(rows) - 1)).fit(features[rows])
        found = rows[near.kneighbors(return_distance=False)]
        observed[rows] = (codes[found] == codes[rows][:, None]).mean(axis=1)
        chance[rows] = (np.bincount(codes[rows])[codes[rows]] - 1) / (len(rows) - 1)
    used = np.flatnonzero(~np.isnan(observed))
    if not len(used) or chance[used].sum() == 0:
        return None
    drawn = pd.factorize(clusters.iloc[used])[0]
    sums = np.stack([np.bincount(drawn, observed[used]), np.bincount(drawn, chance[used])])
    return Neighbours(
        observed=float(observed[used].mean()),
        chance=float(chance[used].mean()),
        ratio=float(observed[used].sum() / chance[used].sum()),
        ci95=_interval(sums, seed),
        images=len(used),
        neighbours=NEIGHBOURS,
    )


def _interval(sums: np.ndarray, seed: int) -> tuple[float, float] | None:
    """Percentile bootstrap of the ratio of two sums over clusters, shape (2, clusters)."""
    count = sums.shape[1]
    if count < 2:
        return None
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), 1000)
    above, below = sums @ weights.T
    ratios = above[below > 0] / below[below > 0]
    low, high = np.percentile(ratios, (2.5, 97.5))
    return float(low), float(high)
