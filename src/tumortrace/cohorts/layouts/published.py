"""Published trees of class folders, of which the names of folders and files say more than the class.

A row of `PUBLISHED` each: what a path below the data tells of its image. Anything else there is left out aloud.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from tumortrace.cohorts.cohort import Cohort, Reading
from tumortrace.cohorts.files import absolute_paths, list_images, some_images
from tumortrace.cohorts.labels import binary_labels
from tumortrace.cohorts.layouts import LAYOUTS, Layout
from tumortrace.cohorts.names import split_of
from tumortrace.cohorts.tables import read_table, unique_ids
from tumortrace.errors import CohortError

_SAMPLE = 60  # images by which a tree is known
_TELLING = ("class", "split", "version", "group", "um")  # groups of a pattern that are no columns of the user's
_START = r"(?<![^/])"  # of the name of a folder or file


@dataclass(frozen=True)
class Published:
    """A data set as it is distributed.

    Attributes:
        name: What it is called.
        pattern: Found at the end of the path of each of its images, relative to the data, with forward slashes. Groups:
            `class`; `group`, the slide or patient; `split`; `um`, micrometres per pixel; `version`, of which the first
            in the alphabet is taken where the same pictures are there in several; others become columns.
        source: Where the layout is described.
        resolution: Micrometres per pixel, as its authors state it.
        classes: What the pattern's `class` stands for, where that is a code.
        splits: What its `split` stands for, where it is none of the usual names.
        split_column: Column of files' names in the tables `train.csv`, `test.csv` ... that divide it.
        note: What is to be known before anything is measured on it.
    """

    name: str
    pattern: re.Pattern[str]
    source: str
    resolution: float | None = None
    classes: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    split_column: str | None = None
    note: str = ""


PUBLISHED = (
    Published(
        "BreakHis",
        re.compile(
            _START + r"SOB_(?P<class>[BM])_(?P<type>A|F|PT|TA|DC|LC|MC|PC)-(?P<group>\d\d-[^-/]+)-"
            r"(?P<magnification>\d+)-\d+\.png$"
        ),
        "Spanhol et al., IEEE Transactions on Biomedical Engineering, 2016; web.inf.ufpr.br/vri/databases/breakhis",
        classes={"B": "benign", "M": "malignant"},
        note="its magnifications (column 'magnification') differ, so there is no one resolution",
    ),
    Published(
        "NCT-CRC-HE-100K",
        re.compile(
            rf"(?:{_START}(?P<split>(?P<version>NCT-CRC-HE-100K(?:-NONORM)?)|CRC-VAL-HE-7K)/(?:[^/]+/)*?)?"
            rf"{_START}(?P<class>ADI|BACK|DEB|LYM|MUC|MUS|NORM|STR|TUM)/(?P=class)-[A-Z]+(?:-[A-Z]+)?\.(?:tif|png|jpe?g)$"
        ),
        "Kather et al., zenodo.org/records/1214456: 224 px at .5 um",
        resolution=0.5,
        splits={"NCT-CRC-HE-100K": "train", "NCT-CRC-HE-100K-NONORM": "train", "CRC-VAL-HE-7K": "test"},
        note="its names do not say the patient; CRC-VAL-HE-7K is of other patients than NCT-CRC-HE-100K",
    ),
    Published(
        "LC25000",
        re.compile(
            _START + r"(?P<class>lung_(?:aca|n|scc)|colon_(?:aca|n))/(?:lung(?:aca|n|scc)|colonc?a?n?)\d+\.jpe?g$"
        ),
        "Borkowski et al., arXiv 1912.12142",
        note="its 25,000 pictures were made of 1,250 by turning and mirroring, and names do not say which belong "
        "together: what is measured on a random split is too good",
    ),
    Published(
        "BRACS",
        re.compile(
            rf"(?:{_START}(?P<split>train|val|test)/(?:[^/]+/)*?)?{_START}(?P<class>[0-6]_(?:N|PB|UDH|FEA|ADH|DCIS|IC))/"
            r"(?P<group>BRACS_\d+)_[A-Z]+_\d+\.png$"
        ),
        "Brancati et al., Database, 2022: 40 x at .25 um; www.bracs.icar.cnr.it",
        resolution=0.25,
        note="groups are slides: the patient stands in BRACS.xlsx alone",
    ),
    Published(
        "BACH",
        re.compile(_START + r"(?P<class>Benign|InSitu|Invasive|Normal)/(?:b|is|iv|n)\d{3}\.(?:tiff?|png|jpe?g)$"),
        "Aresta et al., Medical Image Analysis, 2019: .42 um; iciar2018-challenge.grand-challenge.org",
        resolution=0.42,
        note="its names do not say the patient",
    ),
    Published(
        "Gleason (Arvaniti)",
        re.compile(
            rf"(?:{_START}(?P<version>patho_\d)/(?:[^/]+/)*?)?{_START}(?P<group>(?P<split>ZT\d+)_\d+_[A-Z]_\d+_\d+)"
            r"_patch_\d+_class_(?P<class>[0-3])\.(?:jpe?g|png)$"
        ),
        "Arvaniti et al., Scientific Reports, 2018: 40 x at .23 um; github.com/eiriniar/gleason_CNN",
        resolution=0.23,
        classes={"0": "benign", "1": "gleason_3", "2": "gleason_4", "3": "gleason_5"},
        splits={"ZT111": "train", "ZT199": "train", "ZT204": "train", "ZT76": "validation", "ZT80": "test"},
        note="splits are by tissue microarray, as its authors divide them; groups are cores",
    ),
    Published(
        "UniToPatho",
        re.compile(
            _START + r"(?P<class>HP|NORM|TA\.HG|TA\.LG|TVA\.HG|TVA\.LG)/(?P<group>\d+)-[^/]*\.ndpi_ROI__"
            r"mpp(?P<um>\d*\.?\d+)_[^/]+\.png$"
        ),
        "Barbano et al., ICIP 2021; ieee-dataport.org/open-access/unitopatho",
        split_column="image_id",
        note="groups are patients, the first number of a name",
    ),
    Published(
        "BUSI",
        re.compile(_START + r"(?P<class>benign|malignant|normal)/(?P=class) \(\d+\)\.png$"),
        "Al-Dhabyani et al., Data in Brief, 2020",
        note="its names do not say the patient",
    ),
    Published(
        "CBIS-DDSM",
        re.compile(
            rf"{_START}(?P<class>benign_without_callback|benign|malignant)/(?:[^/]+/)*?"
            r"(?:[^/]*_)?(?P<lesion>Mass|Calc)-(?P<split>Training|Test)_(?P<group>P_\d+)_(?P<side>LEFT|RIGHT)_"
            r"(?P<view>CC|MLO)[^/]*\.(?:png|jpe?g)$",
            re.IGNORECASE,
        ),
        "Lee et al., Scientific Data, 2017; www.cancerimagingarchive.net/collection/cbis-ddsm",
        note="groups are patients",
    ),
)


class PublishedTree(Layout):
    """Images of one of `PUBLISHED` in the folders in which they are distributed."""

    rank = 35
    looks_like = "a published tree of class folders: " + ", ".join(published.name for published in PUBLISHED)
    everything = True

    def recognises(self, path: Path) -> bool:
        """Whether half of some images there are called as those of one data set."""
        return path.is_dir() and _published(path) is not None

    def read(self, path: Path, reading: Reading) -> Cohort:
        """The cohort of all images whose path tells what they are."""
        published = _published(path)
        assert published is not None  # as `recognises` has found
        listing = list_images(path)
        rows = pd.DataFrame(
            [{"image": image, **match.groupdict()} for image in listing.images if (match := _find(published, image))]
        )
        notes = [f"taken for {published.name} by the names of its files; {published.note}", *listing.notes()]
        notes += _left_out(listing.images, rows)
        rows, more = _one_version(rows)
        notes += more
        notes += [
            f"passed over {name}: splits and labels come from names" for name in _tables(listing.others, published)
        ]
        texts = [published.classes.get(text, text) for text in rows["class"]]
        labels = binary_labels(texts, positive=reading.positive, merge=reading.merge, where=path)
        notes += [labels.note] if labels.note else []
        splits, more = _splits(path, rows, published, listing.others)
        ids, repeats = unique_ids(rows["image"].tolist())
        columns = [name for name in rows if name not in ("image", *_TELLING)]
        table = rows[columns].assign(
            id=ids,
            path=absolute_paths(path, rows["image"]),
            group=rows.get("group"),
            split=splits,
        )
        resolution = _resolution(rows) or published.resolution
        told = (*notes, *more, *repeats, *([f"{resolution} um per pixel, as it states"] if resolution else []))
        name = os.path.basename(os.path.abspath(path))
        return Cohort(name, "published", labels.into(table), resolution=resolution, notes=told, **labels.naming)


LAYOUTS.register("published")(PublishedTree())


def _published(path: Path) -> Published | None:
    images = [image for image in some_images(path, 2 * _SAMPLE) if "mask" not in image.lower()][:_SAMPLE]
    named = [(sum(_find(published, image) is not None for image in images), published) for published in PUBLISHED]
    count, published = max(named, key=lambda one: one[0])
    return published if images and count >= len(images) / 2 else None


def _find(published: Published, image: str) -> re.Match[str] | None:
    return published.pattern.search(image)


def _one_version(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows without further versions of the same pictures, and a note on them."""
    versions = sorted(rows["version"].dropna().unique()) if "version" in rows else []
    if len(versions) < 2:
        return rows, []
    others = rows["version"].isin(versions[1:])
    left = f"left out {int(others.sum()):,} images of {', '.join(versions[1:])}: the same pictures as in {versions[0]}"
    return rows[~others].reset_index(drop=True), [left]


def _left_out(images: list[str], rows: pd.DataFrame) -> list[str]:
    """A note on images that are called otherwise."""
    strays = sorted(set(images) - set(rows["image"]))
    return [f"left out {len(strays):,} images that are called otherwise, such as {strays[0][-120:]}"] if strays else []


def _tables(others: list[str], published: Published) -> list[str]:
    """Tables that say nothing here."""
    tables = [name for name in others if name.lower().endswith(".csv")]
    return [name for name in tables if published.split_column is None or _split_named(name) is None]


def _split_named(table: str) -> str | None:
    return split_of(Path(table).stem, table=True)


def _splits(path: Path, rows: pd.DataFrame, published: Published, others: list[str]) -> tuple[pd.Series, list[str]]:
    """The split of each image by its path, or by the tables that divide the data, and notes."""
    splits = rows["split"] if "split" in rows else pd.Series(None, rows.index, dtype=object)
    names = {text: published.splits.get(text, split_of(str(text))) for text in splits.dropna().unique()}
    splits = splits.map(names)
    notes: list[str] = []
    if published.split_column is None:
        return splits, notes
    file_names = rows["image"].map(os.path.basename)
    for name in others:
        split = _split_named(name)
        if split is None or not name.lower().endswith(".csv"):
            continue
        table, _ = read_table(path / name)
        if published.split_column not in table:
            continue
        within = rows["image"].str.startswith(name.rpartition("/")[0])
        splits = splits.mask(within & file_names.isin(table[published.split_column].map(os.path.basename)), split)
        notes.append(f"the split {split} is that of {name}")
    return splits, notes


def _resolution(rows: pd.DataFrame) -> float | None:
    """The one resolution that all names state."""
    stated = [str(text) for text in rows["um"].dropna().unique()] if "um" in rows else []
    if len(stated) > 1:
        found = f"images of {', '.join(sorted(stated)[:5])} um per pixel"
        raise CohortError(found, expected="one resolution", remedy="name the folder of one of them")
    return float(stated[0]) if len(stated) else None
