"""Where one image is: a file, or a part of a file that holds many."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

TABLES = (".parquet", ".pq", ".arrow")
"""Endings of tables of which a cell may be an encoded image."""

_PART = re.compile(r"[0-9]+(\+[0-9]+)?|[0-9]+,[0-9]+,[0-9]+,[0-9]+")


class ImageRef(NamedTuple):
    """Where one image is. Its text, which tables hold, is the path, or `file::part`.

    Attributes:
        file: Path of the file.
        part: Which of the images that the file holds: the number of a row, in decimal digits, of an array of images
            (HDF5, NumPy) or of a table with encoded ones (Parquet, Arrow); `OFFSET+LENGTH`, the bytes of an encoded
            image within the file (an entry of a tar archive, a record of a TFRecord file); `X,Y,SIDE,SIZE`, a square
            of a slide: its corner and side in px of full resolution, and its side in px as a patch; blank where the
            file is the image.

    Example:
        >>> ref = ImageRef.parse("/data/patches.h5::12")
        >>> ref.file, ref.part, str(ref), ImageRef.parse("/data/a::b.png").part
        ('/data/patches.h5', '12', '/data/patches.h5::12', '')
        >>> ImageRef.parse("/data/train-0.tar::512+20481").part
        '512+20481'
    """

    file: str
    part: str = ""

    @classmethod
    def parse(cls, text: str | os.PathLike[str] | ImageRef) -> ImageRef:
        """The reference that a text stands for; a path, and what is a reference already, will do."""
        if isinstance(text, ImageRef):
            return text
        path = os.fspath(text)
        file, _, part = path.rpartition("::")
        return cls(file, part) if file and _PART.fullmatch(part) else cls(path)

    def __str__(self) -> str:
        return f"{self.file}::{self.part}" if self.part else self.file

    @property
    def is_row(self) -> bool:
        """Whether it is a row of an array, which holds pixels; other parts hold encoded images, as files do."""
        return self.part.isdecimal() and self.suffix not in TABLES

    @property
    def is_square(self) -> bool:
        """Whether it is a square of a slide."""
        return "," in self.part

    @property
    def suffix(self) -> str:
        """The file's ending in lower case, such as `.png`."""
        return os.path.splitext(self.file)[1].lower()
