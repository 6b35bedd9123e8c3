"""Where images lie below the data: folders that name a class, a patient or a slide, and patterns that find them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from tumortrace.cohorts.names import split_of
from tumortrace.errors import CohortError, plain, shown
from tumortrace.images.reference import ImageRef

_NUMBERED = r"(?:[ _.-]*(?:id|no|nr|num|number|code))?[ _.#-]*(?=[\w.-]*\d)[\w.-]+"
_PERSON = r"(?:patients?|pat|pt|subjects?|subj|participants?|persons?|donors?|individual)"
_LEVELS = (
    re.compile(rf"{_PERSON}{_NUMBERED}|TCGA-\w\w-\w{{4}}(?:-[\w.-]+)?", re.IGNORECASE),
    re.compile(rf"cases?{_NUMBERED}", re.IGNORECASE),
    re.compile(rf"(?:slides?|wsi|specimens?|biops(?:y|ies)|block){_NUMBERED}", re.IGNORECASE),
)
"""What folders of a patient, a case, a slide are called, the coarsest first."""
_TCGA = re.compile(r"TCGA-\w\w-\w{4}", re.IGNORECASE)  # the patient's part of a barcode, whatever follows


def relative(paths: Sequence[str], data: str | os.PathLike[str]) -> list[str]:
    """Paths of images below the data, with forward slashes; below what they have in common where they lie elsewhere.

    Args:
        paths: Absolute paths.
        data: The folder that the user named, or a file in it.

    Example:
        >>> relative(["/d/benign/p1/a.png", "/d/benign/p2/b.png"], "/d")
        ['benign/p1/a.png', 'benign/p2/b.png']
    """
    place = Path(os.path.abspath(os.path.expanduser(data)))
    root = os.path.join(place.parent if place.is_file() else place, "")
    if not all(path.startswith(root) for path in paths):
        root = os.path.join(os.path.commonpath([os.path.dirname(path) for path in paths]), "") if paths else root
    return [path.removeprefix(root).replace(os.sep, "/") for path in paths]


def levels_told(images: Sequence[str]) -> str:
    """The levels of folders above the images, each with the names there; blank where there are none.

    Args:
        images: Relative paths, with forward slashes.

    Example:
        >>> levels_told(["benign/p1/a.png", "malignant/p2/b.png", "malignant/p3/b.png"])
        'folder level 1: benign, malignant; level 2: p1, p2, ... (3)'
    """
    levels = list(_names_by_level(images))
    told = []
    for number, names in enumerate(levels, 1):
        few = ", ".join(plain(name) for name in names[:2])
        told.append(f"level {number}: {few}" + (f", ... ({len(names):,})" if len(names) > 2 else ""))
    return "folder " + "; ".join(told) if told else ""


def pattern_of_level(level: int) -> str:
    r"""A pattern that finds the name of a folder by its level, 1 being the first below the data.

    Example:
        >>> re.search(pattern_of_level(2), "benign/p1/a.png")[1]
        'p1'
    """
    return "^" + "[^/]+/" * (level - 1) + "([^/]+)/"


def parts_by_pattern(table: pd.DataFrame, pattern: str, option: str, data: str | os.PathLike[str]) -> pd.Series:
    r"""What `pattern` finds for each image: in its name without extension, else in its path from the data on.

    Args:
        table: A cohort's table; of rows of HDF5 arrays it is the id that is looked at.
        pattern: A regular expression with one capturing group at most.
        option: Who asks, for messages.
        data: The folder or file that the user named.

    Raises:
        CohortError: The pattern is not valid, or some image does not match it.

    Example:
        >>> table = pd.DataFrame({"id": ["1"], "path": ["/data/p12/s3_x3.png"]})
        >>> [parts_by_pattern(table, text, "--x", "/data").tolist() for text in (r"s(\d+)_", r"^([^/]+)/")]
        [['3'], ['p12']]
    """
    expression = _compiled(pattern, option)
    images = [ImageRef.parse(path) for path in table["path"]]
    paths = relative([image.file for image in images], data)
    paths = [identity if image.part else path for identity, image, path in zip(table["id"], images, paths, strict=True)]
    bare = [path if image.part else os.path.splitext(path)[0] for image, path in zip(images, paths, strict=True)]
    stems = [name.rpartition("/")[2] for name in bare]
    missed: list[str] = []
    for names in (stems, paths, bare):
        parts = [match[expression.groups] if (match := expression.search(name)) else None for name in names]
        unmatched = [path for path, part in zip(paths, parts, strict=True) if not part]
        if not unmatched:
            return pd.Series(parts, index=table.index, dtype="string")
        missed = unmatched if not missed or len(unmatched) < len(missed) else missed
    raise CohortError(
        f"{shown(pattern)} finds nothing in {len(missed):,} of {len(paths):,} file names or paths, such as "
        f"{shown(missed[0])}",
        where=option,
        expected="a pattern that fits each file's name, or its path from the data on",
        remedy="correct the pattern" + _ready(paths, option),
    )


def group_folders(images: Sequence[str]) -> tuple[list[str], int] | None:
    """The folder of each image that is named as a patient's, a case's or a slide's, and its level; None without one.

    All images have to have one, at one level, and there have to be several; the coarsest kind is taken.

    Args:
        images: Relative paths, with forward slashes.

    Example:
        >>> group_folders(["benign/patient_1/slide_1/a.png", "malignant/patient_2/slide_1/b.png"])
        (['patient_1', 'patient_2'], 2)
        >>> group_folders(["TCGA-AA-1234-01Z-00-DX1/a.png", "TCGA-AA-1234-01Z-00-DX2/b.png"]) is None
        True
    """
    parts = [image.split("/")[:-1] for image in images]
    depth = min(map(len, parts), default=0)
    for kind in _LEVELS:
        for level in range(depth):
            if not all(kind.fullmatch(name) for name in {part[level] for part in parts}):
                continue
            names = [match[0] if (match := _TCGA.match(part[level])) else part[level] for part in parts]
            if len(set(names)) > 1:
                return names, level + 1
    return None


def _names_by_level(images: Sequence[str]) -> Iterator[list[str]]:
    parts = [image.split("/")[:-1] for image in images]
    for level in range(max(map(len, parts), default=0)):
        yield sorted({part[level] for part in parts if len(part) > level})


def group_levels_told(images: Sequence[str]) -> str:
    """Which levels of folders may name slides or patients, with the option that takes each; blank without any.

    Example:
        >>> group_levels_told(["10253/0/a.png", "10253/1/b.png", "10254/0/c.png"])
        "folder level 1: 10253, 10254; level 2: 0, 1: --group-from-name '^([^/]+)/' takes level 1"
    """
    levels = list(_names_by_level(images))
    if not levels:
        return ""
    open_to = [number for number, names in enumerate(levels, 1) if not all(split_of(name) for name in names)]
    best = max(open_to or [1], key=lambda number: len(levels[number - 1]))
    return f"{levels_told(images)}: --group-from-name '{pattern_of_level(best)}' takes level {best}"


def _ready(paths: Sequence[str], option: str) -> str:
    levels = levels_told(paths)
    if not levels:
        return ""
    last = 1 + levels.count("; ")
    return f"; the folders are: {levels}; '{pattern_of_level(last)}' finds those of level {last}"


def _compiled(pattern: str, option: str) -> re.Pattern[str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        found = f"{shown(pattern)} is not a regular expression ({error})"
        raise CohortError(found, where=option, expected="a pattern such as ^(\\d+)_") from None
    if expression.groups > 1:
        found = f"{shown(pattern)} has {expression.groups} capturing groups"
        raise CohortError(found, where=option, expected="one", remedy="write the others as (?:...)")
    return expression
