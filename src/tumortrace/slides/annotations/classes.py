"""What the classes of annotations mean for the label of a tile: known by name, or as the user says; never guessed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from tumortrace.errors import SlideError, plain, shown
from tumortrace.slides.annotations.region import Region

Meaning = Literal["positive", "negative", "exclude", "ignore"]
"""Positive; negative, which is cut out of positive; tiles on it are left out; as if it were not drawn."""

_POSITIVE = "tumor tumour tumors tumours metastasis metastases cancer carcinoma malignant _0 _1"
_NEGATIVE = "normal benign healthy non-tumor non-tumour"
_KNOWN: Mapping[str, Meaning] = {
    **dict.fromkeys(_POSITIVE.split(), "positive"),
    **dict.fromkeys(_NEGATIVE.split(), "negative"),
    "ignore*": "exclude",  # as QuPath's own classifiers take these two
    "region*": "ignore",
}
_NONE = "none"


class UnknownClassError(SlideError):
    """Annotations of which nobody has said what they mean, with the option to type.

    Attributes:
        names: Of their classes; `none` for annotations without class.
    """

    def __init__(self, names: Sequence[str], where: object = None) -> None:
        self.names = tuple(names)
        told = ", ".join(shown(name) if name != _NONE else "no class at all" for name in names[:8])
        super().__init__(
            f"annotations of {told}, of which it is not known what they mean",
            where=where,
            expected="classes such as Tumor, metastases, normal, or to be told",
            remedy=f"add --class '{plain(names[0])}={'|'.join(get_args(Meaning))}'",
        )


@dataclass(frozen=True)
class Classes:
    """What each class of annotations means.

    Attributes:
        said: By name in lower case, as the user says it; it goes before what is known of the name. `none` stands for
            annotations without class.

    Example:
        >>> classes = Classes.of(["Stroma=negative", "none=ignore"])
        >>> classes.meaning("Tumor"), classes.meaning("stroma"), classes.meaning(""), classes.meaning("Other")
        ('positive', 'negative', 'ignore', None)
    """

    said: Mapping[str, Meaning] = field(default_factory=dict)

    @classmethod
    def of(cls, texts: Sequence[str]) -> Classes:
        """From `NAME=MEANING`, as the command line has them.

        Raises:
            SlideError: One is not of this form, or two say different things of one name.
        """
        said: dict[str, Meaning] = {}
        for text in texts:
            name, _, told = text.rpartition("=")
            meaning = next((known for known in get_args(Meaning) if known == told.strip().lower()), None)
            if not name.strip() or meaning is None or said.get(_key(name), meaning) != meaning:
                raise SlideError(
                    f"--class {plain(text)}",
                    expected=f"NAME={'|'.join(get_args(Meaning))}, each name once",
                    remedy="such as --class Stroma=negative; the name none stands for annotations without class",
                )
            said[_key(name)] = meaning
        return cls(said)

    def meaning(self, name: str) -> Meaning | None:
        """What a class means; that of `A` for QuPath's derived `A: B` where only this is known; None where unknown."""
        for key in (_key(name) or _NONE, _key(name.partition(":")[0])):
            if key in self.said or key in _KNOWN:
                return self.said.get(key) or _KNOWN[key]
        return None

    def unmet(self, names: Iterable[str]) -> list[str]:
        """What the user says of classes of which none is among these names.

        Example:
            >>> Classes.of(["Stromma=negative", "none=ignore"]).unmet(["Stroma", "Tumor", ""])
            ['stromma=negative']
        """
        met = {key for name in names for key in (_key(name) or _NONE, _key(name.partition(":")[0]))}
        return [f"{name}={meaning}" for name, meaning in self.said.items() if name not in met]

    def unknown(self, regions: Iterable[Region]) -> list[str]:
        """Names whose meaning is not known, sorted; `none` for those without."""
        return sorted({region.name or _NONE for region in regions if self.meaning(region.name) is None})

    def areas(self, regions: Sequence[Region], where: object = None) -> Areas:
        """What is positive and what is excluded, each one area; `where` is named in errors.

        Raises:
            UnknownClassError: The meaning of a class is not known.
        """
        if unknown := self.unknown(regions):
            raise UnknownClassError(unknown, where)
        by = {meaning: _union(regions, self, meaning) for meaning in get_args(Meaning)}
        return Areas(by["positive"].difference(by["negative"]), by["exclude"])


@dataclass(frozen=True)
class Areas:
    """Areas in px of level 0; empty where there are none."""

    positive: BaseGeometry = field(default_factory=Polygon)
    excluded: BaseGeometry = field(default_factory=Polygon)


def _union(regions: Sequence[Region], classes: Classes, meaning: Meaning) -> BaseGeometry:
    return shapely.union_all([region.geometry for region in regions if classes.meaning(region.name) == meaning])


def _key(name: str) -> str:
    return name.strip().lower()
