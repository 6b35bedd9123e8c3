"""Annotations of a slide, as QuPath, ASAP and label masks have them, as areas in px of full resolution."""

from __future__ import annotations

from pathlib import Path

from tumortrace.errors import SlideError
from tumortrace.records.progress import say
from tumortrace.records.stand_ins import stand_in
from tumortrace.slides.annotations.region import Region

__all__ = ["ENDINGS", "Region", "read_annotations"]

ENDINGS = (".geojson", ".json", ".geojson.gz", ".json.gz", ".geojson.zip", ".zip", ".xml", ".png", ".tif", ".tiff")
"""What the names of files of annotations end with, in lower case."""

_EXPECTED = "annotations: GeoJSON of QuPath, XML of ASAP, or a label mask"


def read_annotations(path: Path, size: tuple[int, int], notes: list[str] | None = None) -> list[Region]:
    """The areas that a file of annotations marks on a slide.

    Args:
        path: GeoJSON of QuPath (0.2 to 0.7; packed with gzip or zip too), XML of ASAP, or a PNG or TIFF that covers the
            whole slide at any size, whose values are classes.
        size: Width and height of the slide in px of full resolution.
        notes: What was mended or left out is added to these; where None, it is said.

    Returns:
        One region for each outline, or for each class of a mask, with holes. What a file excludes (group `_2` of
        CAMELYON16) is taken out of the others already. Empty where nothing is marked.

    Raises:
        SlideError: The file is missing, damaged, of another kind, or does not fit the slide.

    Example:
        >>> import json, tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.geojson"
        >>> square = {"type": "Polygon", "coordinates": [[[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]]}
        >>> classification = {"name": "Tumor", "color": [200, 0, 0]}
        >>> feature = {"type": "Feature", "geometry": square, "properties": {"classification": classification}}
        >>> _ = file.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
        >>> [(region.name, region.geometry.area) for region in read_annotations(file, (3, 100))]
        [('Tumor', 12.0)]
    """
    from tumortrace.slides.annotations.asap import read_asap
    from tumortrace.slides.annotations.geojson import read_geojson
    from tumortrace.slides.annotations.label_mask import read_label_mask

    path = Path(path)
    if not path.is_file():
        raise SlideError("no such file", where=path, expected=_EXPECTED, remedy="check the path")
    head = _head(path)
    if not head.startswith((b"{", b"[", b"<?xml")) and (there := stand_in(path)):
        raise SlideError(there.found, where=path, expected=_EXPECTED, remedy=there.remedy)
    told: list[str] = []
    if head.startswith((b"\x89PNG", b"II", b"MM")):
        regions = read_label_mask(path, size, told)
    elif head.startswith((b"<", b"\xff\xfe<", b"\xfe\xff\x00<")) or path.suffix.lower() == ".xml":
        regions = read_asap(path, size, told)
    else:
        regions = read_geojson(path, size, told)
    for note in told:
        if notes is None:
            say(f"note: {path.name}: {note}")
        else:
            notes.append(f"{path.name}: {note}")
    return regions


def _head(path: Path) -> bytes:
    """How a file begins, after blanks and the mark of UTF-8."""
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError as error:
        raise SlideError(f"cannot be read ({error.strerror})", where=path, remedy="check the file") from None
