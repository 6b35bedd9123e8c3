"""One DICOM image as 8-bit RGB, as a viewer shows it: through the window that the file states."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from typing import Any

import numpy as np

from tumortrace.errors import ImageError
from tumortrace.images.depth import Depth, depth_of
from tumortrace.images.tiff import Read

warnings.filterwarnings("ignore", module=r"pydicom\.")  # values that break the standard are harmless or an error

_PREAMBLE, _MAGIC = 128, b"DICM"
_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"  # VL Whole Slide Microscopy Image Storage
_REMEDY = "export it from the viewer as an uncompressed DICOM file, or as PNG"


def is_dicom(path: str) -> bool:
    """Whether a file begins as DICOM files do, whatever its ending; older ones lack the preamble and its four letters.

    Those begin with an element of group 2 or 8, of a length that is plausible where its kind is not spelled out.
    """
    with open(path, "rb") as file:
        start = file.read(_PREAMBLE + len(_MAGIC))
    if start[_PREAMBLE:] == _MAGIC:
        return True
    spelled_out = start[4:6].isalpha() and start[4:6].isupper()
    short = int.from_bytes(start[4:8], "little") < 64
    return start[:2] in (b"\x02\x00", b"\x08\x00") and start[3:4] == b"\x00" and (spelled_out or short)


def series_of(path: str | os.PathLike[str]) -> str | None:
    """Identity of the series that a DICOM file belongs to; None where it states none."""
    import pydicom

    with suppress(Exception):  # damaged files make pydicom raise nearly anything
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"], force=True)
        return str(data.SeriesInstanceUID)
    return None


def beside_the_slide(path: str | os.PathLike[str]) -> bool:
    """Whether a DICOM file is the label or the overview of a slide, and none of its levels."""
    import pydicom

    with suppress(Exception):  # damaged files make pydicom raise nearly anything
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "ImageType"])
        return str(data.SOPClassUID) == _WHOLE_SLIDE and bool({"LABEL", "OVERVIEW"}.intersection(data.ImageType))
    return False


def not_for_openslide(path: str | os.PathLike[str]) -> str:
    """Why OpenSlide does not read a DICOM slide, by its bits and samples; blank of others, and of what is no slide."""
    import pydicom

    tags = ["SOPClassUID", "BitsAllocated", "BitsStored", "SamplesPerPixel", "PhotometricInterpretation"]
    with suppress(Exception):  # damaged files make pydicom raise nearly anything
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
        if str(data.SOPClassUID) != _WHOLE_SLIDE:
            return ""
        allocated, samples = int(data.BitsAllocated), int(data.SamplesPerPixel)
        if allocated != 8:
            return f"a DICOM slide of {int(data.BitsStored)} bits in {allocated}"
        if samples != 3:
            plural = "sample" if samples == 1 else "samples"
            return f"a DICOM slide of {samples} {plural} per pixel ({data.PhotometricInterpretation})"
    return ""


def read_dicom(path: str, max_pixels: int, *, slide: bool = False, bits: int | None = None) -> Read:
    """The first frame of a DICOM image.

    Stored values go through the file's modality transformation and its window or look-up table (of several the
    first), so that 8 bits hold what the radiographer chose to see; without one, the range of the stored bits becomes
    0 to 255, never the range of the data. MONOCHROME1 is inverted, palettes and YBR become RGB. Nothing else of the
    file is looked at.

    Args:
        path: A file that `is_dicom`.
        max_pixels: Rows times columns beyond which it is refused before it is decoded.
        slide: Whether a whole slide is wanted too.
        bits: Bits that stored values hold, where all bits of the type are said to be stored and no window is given.

    Raises:
        ImageError: Damaged, without an image, compressed in a way that is not known here, or too large.

    NEMA PS3.3, C.7.6.3 (image pixel), C.11.1 (modality) and C.11.2 (window).
    """
    import pydicom
    from pydicom.pixels import pixel_array

    try:
        data = pydicom.dcmread(path, force=True)
        if str(data.get("SOPClassUID", "")) == _WHOLE_SLIDE and not slide:
            raise ImageError("a whole slide", where=path, expected="a patch", remedy="use `tumortrace scan` for slides")
        if not hasattr(data, "file_meta") or "TransferSyntaxUID" not in data.file_meta:  # without preamble: the default
            data.ensure_file_meta()
            data.file_meta.TransferSyntaxUID = _default_syntax(path)
        rows, columns, frames = int(data.Rows), int(data.Columns), int(data.get("NumberOfFrames") or 1)
        _check_size(path, rows, columns, max_pixels)
        stored = pixel_array(data, index=0)
        depth = depth_of_stored(data, stored, bits, path)
        pixels, kind = shown(data, stored, depth)
    except ImageError:
        raise
    except Exception as error:  # damaged files make pydicom raise nearly anything
        found = f"a DICOM file without a readable image ({' '.join(str(error).split())[:160]})"
        raise ImageError(found, where=path, remedy=_REMEDY) from None
    return Read(pixels, kind, frames, depth.note, depth.likely, _resolution(data))


def depth_of_stored(data: Any, stored: np.ndarray, bits: int | None, path: str) -> Depth:
    """The largest stored value of an image; a window, a table or fewer bits than the type has say enough."""
    used, allocated = int(data.BitsStored), int(data.BitsAllocated)
    stated = _windowed(data) or used < allocated or bool(data.get("ModalityLUTSequence"))
    stated = stated or str(data.PhotometricInterpretation) == "PALETTE COLOR"
    said = None if bits is None else bits - _signed(data)
    return depth_of(stored, 2.0 ** (used - _signed(data)) - 1, stated=stated, bits=said, path=path)


def _signed(data: Any) -> int:
    return int(data.get("PixelRepresentation", 0) or 0)


def _resolution(data: Any) -> float | None:
    """Um per px: the spacing in the patient, at the detector or of a slide, as far as rows and columns agree."""
    with suppress(Exception):  # damaged metadata state none
        spacing = data.get("PixelSpacing") or data.get("ImagerPixelSpacing")
        mean = 500 * (float(spacing[0]) + float(spacing[1]))
        return mean if 0 < mean < 1000 else None
    return None


def _check_size(path: str, rows: int, columns: int, most: int) -> None:
    if rows * columns > most:
        found, expected = f"too many pixels ({columns} x {rows})", f"at most {most // 1_000_000} megapixels"
        raise ImageError(found, where=path, expected=expected, remedy="use `tumortrace scan` for slides")


def shown(data: Any, stored: np.ndarray, depth: Depth) -> tuple[np.ndarray, str]:
    """Stored values, of which it is known how many bits are used, as uint8 RGB, and their kind."""
    from pydicom.pixels import apply_color_lut

    bits = int(depth.top).bit_length() + _signed(data)
    interpretation = str(data.PhotometricInterpretation)
    if interpretation == "PALETTE COLOR":
        looked_up = apply_color_lut(stored, data)[..., :3]
        return _eight_bit(looked_up, 0, float(np.iinfo(looked_up.dtype).max)), "palette"
    if stored.ndim == 3:
        return _eight_bit(stored, 0, 2.0**bits - 1), "RGB" if int(data.BitsStored) == 8 else "16 bit"
    values, low, high = _transformed(data, stored, bits)
    shown = _eight_bit(values, low, high)
    if interpretation == "MONOCHROME1":
        shown = 255 - shown
    return np.repeat(shown[..., None], 3, axis=2), "grey" if int(data.BitsStored) == 8 else "16 bit"


def _transformed(data: Any, stored: np.ndarray, bits: int) -> tuple[np.ndarray, float, float]:
    """Values after the modality's transformation and the window or table, and those that become black and white."""
    from pydicom.pixels import apply_modality_lut, apply_windowing

    if data.get("ModalityLUTSequence"):  # an empty sequence is as none
        values, depth = _looked_up(data.ModalityLUTSequence[0], stored)
        low, high = 0.0, 2.0**depth - 1
    else:
        values = apply_modality_lut(stored, data)
        signed = int(data.PixelRepresentation) == 1
        ends = np.array([-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1] if signed else [0.0, 2.0**bits - 1])
        ends = ends * float(data.get("RescaleSlope", 1) or 1) + float(data.get("RescaleIntercept", 0) or 0)
        low, high = float(ends.min()), float(ends.max())
    if data.get("VOILUTSequence"):
        values, depth = _looked_up(data.VOILUTSequence[0], values)
        low, high = 0.0, 2.0**depth - 1
    elif _windowed(data):
        values = apply_windowing(values, data)
    return values, low, high


def _looked_up(table: Any, values: np.ndarray) -> tuple[np.ndarray, int]:
    """Entries of a look-up table, and their bits; entries of 8 bits lie two to a word, or padded to one each.

    By ourselves: pydicom takes packed entries for half as many of 16 bits, and refuses or wraps indices.
    """
    count, first, bits = (int(value) for value in table.LUTDescriptor)
    count = count or 65536
    if first > 32767 and values.min(initial=0) < 0:  # stored as if unsigned
        first -= 65536
    raw = table.LUTData
    raw = raw if isinstance(raw, bytes) else np.asarray(raw).astype("<u2").tobytes()
    entries = np.frombuffer(raw, "u1" if len(raw) < 2 * count else "<u2")[:count].astype(np.int64)
    if len(entries) < count:
        raise ValueError(f"a look-up table of {len(entries)} entries that says {count}")
    places = np.clip(np.rint(values).astype(np.int64) - first, 0, count - 1)
    return entries[places], bits


def _windowed(data: Any) -> bool:
    return bool(data.get("VOILUTSequence")) or data.get("WindowCenter") not in (None, "")


def _default_syntax(path: str) -> Any:
    """Transfer syntax of a file that names none: little endian, with kinds of elements spelled out or not."""
    with open(path, "rb") as file:
        start = file.read(6)
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    spelled_out = start[4:6].isalpha() and start[4:6].isupper()
    return ExplicitVRLittleEndian if spelled_out else ImplicitVRLittleEndian


def _eight_bit(values: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)
