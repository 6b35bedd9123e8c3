"""One DICOM image as 8-bit RGB, as a viewer shows it: through the window that the file states."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from tumortrace.errors import ImageError

warnings.filterwarnings("ignore", module=r"pydicom\.")  # values that break the standard are harmless or an error

_PREAMBLE, _MAGIC = 128, b"DICM"
_REMEDY = "export it from the viewer as an uncompressed DICOM file, or as PNG"


def is_dicom(path: str) -> bool:
    """Whether a file begins as DICOM files do, whatever its ending."""
    with open(path, "rb") as file:
        return file.read(_PREAMBLE + len(_MAGIC))[_PREAMBLE:] == _MAGIC


def read_dicom(path: str, max_pixels: int) -> tuple[np.ndarray, str, int]:
    """The first frame of a DICOM image.

    Stored values go through the file's modality transformation and its window or look-up table (of several the
    first), so that 8 bits hold what the radiographer chose to see; without one, the range of the stored bits becomes
    0 to 255, never the range of the data. MONOCHROME1 is inverted, palettes and YBR become RGB. Nothing else of the
    file is looked at.

    Args:
        path: A file that `is_dicom`.
        max_pixels: Rows times columns beyond which it is refused before it is decoded.

    Returns:
        uint8, shape (height, width, 3); kind of pixels (`16 bit`, `grey`, `RGB` or `palette`); number of frames.

    Raises:
        ImageError: Damaged, without an image, compressed in a way that is not known here, or too large.

    NEMA PS3.3, C.7.6.3 (image pixel), C.11.1 (modality) and C.11.2 (window).
    """
    import pydicom
    from pydicom.pixels import pixel_array

    try:
        data = pydicom.dcmread(path)
        rows, columns, frames = int(data.Rows), int(data.Columns), int(data.get("NumberOfFrames") or 1)
        _check_size(path, rows, columns, max_pixels)
        pixels, kind = _shown(data, pixel_array(data, index=0))
    except ImageError:
        raise
    except Exception as error:  # damaged files make pydicom raise nearly anything
        found = f"a DICOM file without a readable image ({' '.join(str(error).split())[:160]})"
        raise ImageError(found, where=path, remedy=_REMEDY) from None
    return pixels, kind, frames


def _check_size(path: str, rows: int, columns: int, most: int) -> None:
    if rows * columns > most:
        found, expected = f"too many pixels ({columns} x {rows})", f"at most {most // 1_000_000} megapixels"
        raise ImageError(found, where=path, expected=expected, remedy="use `tumortrace scan` for slides")


def _shown(data: Any, stored: np.ndarray) -> tuple[np.ndarray, str]:
    """Stored values as uint8 RGB, and their kind."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

    interpretation = str(data.PhotometricInterpretation)
    bits = int(data.BitsStored)
    if interpretation == "PALETTE COLOR":
        looked_up = apply_color_lut(stored, data)[..., :3]
        return _eight_bit(looked_up, 0, float(np.iinfo(looked_up.dtype).max)), "palette"
    if stored.ndim == 3:
        return _eight_bit(stored, 0, 2.0**bits - 1), "RGB" if bits == 8 else "16 bit"
    values = apply_voi_lut(apply_modality_lut(stored, data), data)
    low, high = _range(data, bits)
    shown = _eight_bit(values, low, high)
    if interpretation == "MONOCHROME1":
        shown = 255 - shown
    return np.repeat(shown[..., None], 3, axis=2), "grey" if bits == 8 else "16 bit"


def _range(data: Any, bits: int) -> tuple[float, float]:
    """The values that become black and white: the ends of what the last transformation can give."""
    if data.get("VOILUTSequence"):  # an empty one is as none
        return 0.0, 2.0 ** int(data.VOILUTSequence[0].LUTDescriptor[2]) - 1
    if data.get("ModalityLUTSequence"):
        return 0.0, 2.0 ** int(data.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    signed = int(data.PixelRepresentation) == 1
    ends = np.array([-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1] if signed else [0.0, 2.0**bits - 1])
    ends = ends * float(data.get("RescaleSlope", 1) or 1) + float(data.get("RescaleIntercept", 0) or 0)
    return float(ends.min()), float(ends.max())


def _eight_bit(values: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)
