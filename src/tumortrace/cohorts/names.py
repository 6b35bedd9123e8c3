"""What names of files and folders say by themselves: a split, a mask of another picture, what the system keeps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "trn": "train",
    "tr": "train",
    "valid": "validation",
    "val": "validation",
    "va": "validation",
    "validate": "validation",
    "validation": "validation",
    "dev": "validation",
    "devel": "validation",
    "tune": "validation",
    "tuning": "validation",
    "calibration": "calibration",
    "calib": "calibration",
    "test": "test",
    "testing": "test",
    "tst": "test",
    "te": "test",
    "holdout": "test",
    "heldout": "test",
}
"""What people call the splits, to what they are called here."""

_BESIDE = (
    "data|dataset|set|subset|split|cohort|folder|files?|images?|imgs?|pictures?|patch(?:es)?|tiles?|samples?|"
    "cases|slides?|png|jpe?g|tiff?|internal|id"
)
_OF_A_TABLE = "|labels?|labell?ed|meta|metadata|annotations?|list|info|index|df|table|csv|gt"
_ONLY_A_TEST = "external|independent|blind|unseen|ood|public|private|final"  # "external validation" is no tuning split
_WORDS = "|".join(sorted(SPLIT_NAMES, key=len, reverse=True))
_SPLIT = re.compile(rf"(?:{_BESIDE})*?(?P<word>{_WORDS})(?:{_BESIDE})*")
_SPLIT_TABLE = re.compile(rf"(?:{_BESIDE}{_OF_A_TABLE})*?(?P<word>{_WORDS})(?:{_BESIDE}{_OF_A_TABLE})*")
_TEST = re.compile(rf"(?:{_BESIDE}|{_ONLY_A_TEST})*(?:test|testing|tst|holdout|heldout)(?:{_BESIDE}|{_ONLY_A_TEST})*")
_LIKE = re.compile(
    r"(?<![a-z])(?:train|valid|test(?:s|set|ing|data)?(?![a-z])|hold[ _-]?out|heldout|calib|"
    r"(?:val|dev|eval|evaluation|development|tst|trn|inference)(?![a-z]))"
)


def split_of(name: str, table: bool = False) -> str | None:
    """The split that a name stands for, or None: case, blanks, hyphens, underscores and numbers play no part.

    Args:
        name: A folder, a value of a column, or a table's name without its ending.
        table: Whether it is a table's, which may say labels or metadata besides.

    Example:
        >>> [split_of(name) for name in ("Training", "Train_set", "01-val", "hold_out", "TestImages2", "trainval")]
        ['train', 'train', 'validation', 'test', 'test', None]
        >>> split_of("train_labels"), split_of("train_labels", table=True), split_of("external validation")
        (None, 'train', None)
    """
    letters = re.sub(r"[\W\d_]+", "", name.casefold())
    if match := (_SPLIT_TABLE if table else _SPLIT).fullmatch(letters):
        return SPLIT_NAMES[match["word"]]
    return "test" if _TEST.fullmatch(letters) else None


def like_a_split(name: str) -> bool:
    """Whether a name speaks of a split, known or not.

    Example:
        >>> [like_a_split(name) for name in ("train_val", "Eval", "external validation", "benign", "latest", "masks")]
        [True, True, True, False, False, False]
    """
    return split_of(name) is not None or _LIKE.search(name.casefold()) is not None


_CLUTTER = frozenset(
    (
        *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__pycache__", "lost+found", "recycler"),
        *("recycled", "system volume information", "network trash folder", "temporary items", "_gsdata_", "~snapshot"),
        *("@eadir", "@tmp", "@recycle", "@recycled", "@recently-snapshot", "@snapshot", "@sharesnap", "@sharebin"),
        *("#recycle", "#snapshot", "$recycle.bin", "$recycle", "$recycled"),
    )
)


def is_clutter(name: str) -> bool:
    """Whether a file or folder is hidden, or kept by NAS systems, recycle bins, file managers or notebooks.

    Example:
        >>> [is_clutter(name) for name in ("@eaDir", "._a.png", "Thumbs.db", "$RECYCLE.BIN", "benign")]
        [True, True, True, True, False]
    """
    return name.startswith(".") or name.casefold() in _CLUTTER


_MASK = (
    r"(?:labels?|labell?ed|masks?|segm?(?:entation|ented)?s?|gt|ground[ _-]?truths?|annot?(?:ation|ated)?s?|overlays?|"
    r"contours?|outlines?|superpixels?)"
)
_AFTER = re.compile(rf"[ _.-]+{_MASK}(?:[ _.-]?(?:\d+|instances?))*$")
_BEFORE = re.compile(rf"^{_MASK}[ _.-]+")
_WORD_BEFORE = re.compile(r"[ _.-]+\w+$")
_FOLDER = re.compile(rf"(?:\w+[ _.-]+)?{_MASK}(?:[ _.-]*(?:images?|png|\d+))*")


def masks_among(images: Sequence[str]) -> list[str]:
    """Which of the images are named as masks or labels of others that stand beside them.

    Beside is in the same folder (`a.png`, `a_mask.png`), or in a folder of masks beside the pictures' (`images/a.png`,
    `masks/a.png`). QuPath writes `NAME-labelled.png`, BUSI has `NAME_mask.png` and `NAME_mask_1.png`.

    Args:
        images: Relative paths with forward slashes.

    Example:
        >>> masks_among(["a.jpg", "a-labelled.png", "b_mask.png", "images/c.png", "masks/c_seg_2.png"])
        ['a-labelled.png', 'masks/c_seg_2.png']
    """
    keys = [_key(image) for image in images]
    names = {*keys, *(image.casefold() for image in images)}
    folders: dict[str, set[str]] = {}  # of each folder those within it
    for place in {key.rpartition("/")[0] for key in keys}:
        parts = place.split("/")
        for level, part in enumerate(parts):
            folders.setdefault("/".join(parts[:level]), set()).add(part)
    return [image for image, key in zip(images, keys, strict=True) if _is_mask(key, names, folders)]


def _is_mask(key: str, names: set[str], folders: Mapping[str, set[str]]) -> bool:
    """Whether the picture of which this would be a mask is there: beside it, in the folder above, or in one beside."""
    folder, slash, name = key.rpartition("/")
    of = list(_pictures_of(name))
    if any(folder + slash + other in names for other in of):
        return True
    parts = folder.split("/")
    for level, part in enumerate(parts):
        if not _FOLDER.fullmatch(part):
            continue
        above, below = parts[:level], parts[level + 1 :]
        beside = [other for other in folders["/".join(above)] if other and not _FOLDER.fullmatch(other)]
        places = [[*above, *below], *([*above, other, *below] for other in beside)]
        if any("/".join([*place, stem]) in names for place in places for stem in (name, *of)):
            return True
    return False


def _key(image: str) -> str:
    stem, dot, _ = image.casefold().rpartition(".")
    return stem if dot and not stem.endswith("/") else image.casefold()


def _pictures_of(name: str) -> Iterator[str]:
    """Names of the pictures that a file of this name may be a mask of."""
    if match := _AFTER.search(name):
        of = name[: match.start()]
        yield of
        if word := _WORD_BEFORE.search(of):
            yield of[: word.start()]
    if match := _BEFORE.match(name):
        yield name[match.end() :]
