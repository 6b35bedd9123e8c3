"""Pictures as data URIs, so that a page is one file that opens anywhere."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image


def embed_svg(path: Path) -> str:
    """An SVG file as a data URI."""
    return data_uri(path.read_bytes(), "image/svg+xml")


def embed_picture(folder: Path, name: str | None, side: int) -> str | None:
    """A picture of `folder`, scaled to `side` pixels at most, as a data URI; None if it is missing or unreadable.

    Args:
        folder: What the record that names the picture may name files of, and no others.
        name: The file, relative to the folder.
        side: Pixels of the longer side.
    """
    path = (folder / str(name)).resolve()
    if not name or not path.is_relative_to(folder.resolve()):
        return None
    try:
        with Image.open(path) as file:
            picture = file.convert("RGB")
        picture.thumbnail((side, side))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", optimize=True)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    return data_uri(buffer.getvalue(), "image/png")


def data_uri(content: bytes, kind: str) -> str:
    """Bytes of the media type `kind` as a data URI.

    Example:
        >>> data_uri(b"<svg/>", "image/svg+xml")
        'data:image/svg+xml;base64,PHN2Zy8+'
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
