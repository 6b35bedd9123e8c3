"""One image from disk as 8-bit RGB, whatever it is stored as.

Everything that looks at pixels reads them here, so that training, prediction and serving cannot differ.
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
import stat
import tempfile
import warnings
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tumortrace.errors import ImageError
from tumortrace.images.depth import depth_of, to_eight_bit
from tumortrace.images.dicom import is_dicom, read_dicom
from tumortrace.images.parts import content_of, row_of, square_of
from tumortrace.images.reference import ImageRef
from tumortrace.images.tiff import COMMON, MAX_PIXELS, Read, read_tiff
from tumortrace.images.tiff_pages import is_tiff, of_a_microscope
from tumortrace.records.stand_ins import stand_in

_ENDINGS = "bmp dcm dicom gif ima jp2 jpeg jpg pgm png pnm ppm tif tiff webp"
IMAGE_SUFFIXES = frozenset(f".{ending}" for ending in _ENDINGS.split())
"""Endings, in lower case, by which images are found in folders. What a file is, its content says."""

# Decoders that run in this process and know a file by its first bytes; Pillow has others that start programs (EPS).
_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000")
_LABELS = 16  # entries of a palette up to which a picture is taken for a map of labels
_RESTORE = "restore it from its source, or remove it"

# What decoders grumble about damaged files is either harmless or becomes an ImageError. They are quietened once, as
# `warnings.catch_warnings` around each image is not safe in threads; libtiff writes past Python to standard error.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("tifffile").addHandler(logging.NullHandler())
with suppress(OSError, AttributeError):  # where Pillow's own libtiff cannot be reached, it goes on grumbling
    _libtiff = ctypes.CDLL(Image.core.__file__)
    _libtiff.TIFFSetErrorHandler(None)
    _libtiff.TIFFSetWarningHandler(None)


class Facts(NamedTuple):
    """How an image is stored, as far as its file tells.

    Attributes:
        format: What the content is: `JPEG`, `PNG`, `TIFF`, ...
        kind: Kind of pixels: `RGB`, `RGBA`, `grey`, `palette`, `label map` (a palette of few entries), `CMYK`,
            `16 bit`, `1 bit` or what else there is.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
        frames: Pictures in the file, of which the first is read.
        origin: Camera, scanner or software that signed the file; blank where nothing did.
        quality: Quality of a JPEG on libjpeg's scale of 1 to 100, as far as its quantisation tells; else 0.
        note: What may have been read otherwise than it was meant; blank where nothing is doubtful.
        bits: Bits that its numbers seem to hold where nothing states it, so that they may be much too dark; else 0.
        resolution: Micrometres per pixel that the file states (OME, ImageJ, DICOM; tags of dots per inch where they
            are a microscope's); None where it states none.
    """

    format: str
    kind: str = "RGB"
    orientation: int = 1
    frames: int = 1
    origin: str = ""
    quality: int = 0
    note: str = ""
    bits: int = 0
    resolution: float | None = None


def read_image(path: str | os.PathLike[str] | ImageRef, bits: int | None = None) -> np.ndarray:
    """Pixels of one image as 8-bit RGB, told by content and not by extension.

    Grey, palette, CMYK and bilevel images become RGB; deeper ones are scaled by the bits that the file says to use
    (MaxSampleValue and OME's SignificantBits in TIFF, sBIT in PNG), else by the type's range (65535 becomes 255);
    transparent ones are laid over white; an EXIF orientation is applied; of several frames the first counts; colours
    in pages of their own (ImageJ, OME) are put together (`tumortrace.images.tiff`). DICOM images are shown through
    their window (`tumortrace.images.dicom`).

    Args:
        path: An image file, or a part of a file that holds many (`ImageRef`): `file::row` for a row of an array of
            images (HDF5, NumPy's `.npy`) or of a Parquet table, `file::OFFSET+LENGTH` for an encoded image within a
            tar archive or TFRecord file, `file::X,Y,SIDE,SIZE` for a square of a slide.
        bits: Bits that the numbers of files hold that do not say so, such as 12 (see `images.depth`).

    Returns:
        uint8 array of shape (height, width, 3).

    Raises:
        ImageError: Missing, empty, truncated, not an image, floating point beyond [0, 1], over 100 megapixels, or a
            whole slide with levels.

    Example:
        >>> import tempfile; from PIL import Image
        >>> file = tempfile.mkdtemp() + "/a.png"
        >>> Image.new("L", (4, 2), 7).save(file)
        >>> read_image(file).shape, read_image(file)[0, 0].tolist()
        ((2, 4, 3), [7, 7, 7])
    """
    return read_with_facts(path, bits=bits)[0]


def read_with_facts(
    path: str | os.PathLike[str] | ImageRef,
    *,
    max_pixels: int = MAX_PIXELS,
    slide: bool = False,
    bits: int | None = None,
    plane: int | None = None,
) -> tuple[np.ndarray, Facts]:
    """Pixels of one image as `read_image` gives them, and how the file stores them, in one reading.

    Args:
        path: An image file, or a part of one.
        max_pixels: Pixels beyond which an image file is refused before it is decoded.
        slide: Whether a whole slide with levels is wanted too, which is no patch.
        bits: As for `read_image`.
        plane: Number of the plane of focus to read of a TIFF that has several, from 1; None for the middle one.

    Raises:
        ImageError: As `read_image` does, and where there is no such plane.

    Example:
        >>> import tempfile; from PIL import Image
        >>> file = tempfile.mkdtemp() + "/a.jpg"
        >>> Image.new("L", (4, 2), 7).save(file, "PNG")
        >>> read_with_facts(file)[1][:6]
        ('PNG', 'grey', 1, 1, '', 0)
    """
    ref = ImageRef.parse(path)
    path = ref.file
    _check_file(path)
    if ref.is_row:
        pixels, form = row_of(ref)
        return (_grey(pixels), Facts(form, "grey")) if pixels.ndim == 2 else (pixels, Facts(form))
    if ref.is_square:
        return square_of(ref), Facts("slide")
    if ref.part:
        return _part(ref, max_pixels, bits)
    try:
        pixels, facts = _decoded(path, max_pixels, slide, bits, plane)
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("needs more memory than there is", where=path, remedy="save a smaller one") from None
    except UnidentifiedImageError:
        if there := stand_in(path):
            raise ImageError(there.found, where=path, expected="an image", remedy=there.remedy) from None
        raise ImageError("not an image that is known here", where=path, remedy=_RESTORE) from None
    except PermissionError as error:
        raise ImageError(f"cannot be read ({error.strerror})", where=path) from None
    except Exception as error:  # damaged files make decoders raise nearly anything
        raise ImageError(f"damaged or truncated ({error})", where=path, remedy=_RESTORE) from None
    if pixels.size == 0:
        raise ImageError("an image without pixels", where=path)
    return pixels, facts


def _part(ref: ImageRef, max_pixels: int, bits: int | None) -> tuple[np.ndarray, Facts]:
    """An encoded image within a file, read from a copy: decoders, of which some are C libraries, want a file."""
    with tempfile.TemporaryDirectory(prefix="tumortrace-") as folder:
        copy = os.path.join(folder, "image")
        with open(copy, "wb") as file:
            file.write(content_of(ref))
        try:
            return read_with_facts(copy, max_pixels=max_pixels, bits=bits)
        except ImageError as error:
            raise ImageError(error.found, where=ref, expected=error.expected, remedy=error.remedy) from None


def _decoded(path: str, max_pixels: int, slide: bool, bits: int | None, plane: int | None) -> tuple[np.ndarray, Facts]:
    read: Read | None = None
    resolution: float | None = None
    if is_dicom(path):
        read, format = read_dicom(path, max_pixels, slide=slide, bits=bits), "DICOM"
    elif is_tiff(path):
        if (plain := _plain_tiff(path, max_pixels)) is not None:
            return plain
        read, resolution = read_tiff(path, max_pixels, slide=slide, bits=bits, plane=plane)
        format = "TIFF"
    if read is None:
        pixels, facts = _with_pillow(path, max_pixels, bits)
        return pixels, facts._replace(resolution=resolution) if facts.format == "TIFF" else facts
    return read.rgb, Facts(format, **{name: value for name, value in read._asdict().items() if name != "rgb"})


def fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image resized to `size`, with antialiasing, where it is not of that size already.

    Args:
        image: uint8 array of shape (height, width, 3).
        size: Height and width wanted, in pixels.

    Returns:
        uint8 array of shape (*size, 3); the very same array where nothing was to be done. The picture is
        stretched, not padded, as are a slide's incomplete edge patches.

    Example:
        >>> fit(np.full((50, 1, 3), 9, np.uint8), (96, 96)).shape
        (96, 96, 3)
    """
    if image.shape[:2] == tuple(size):
        return image
    height, width = size
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def fit_resolution(image: np.ndarray, size: tuple[int, int], ratio: float) -> np.ndarray:
    """The middle of the image brought to another resolution: resampled once, from the exact box around its centre.

    Args:
        image: uint8 array of shape (height, width, 3).
        size: Height and width wanted, in pixels.
        ratio: Pixels of the image per pixel wanted, along each side: um/px wanted through um/px of the image.

    Returns:
        uint8 array of shape (*size, 3).

    Raises:
        ImageError: It shows less than that; half a pixel is passed over.

    Example:
        >>> image = np.zeros((8, 8, 3), np.uint8)
        >>> image[2:6, 2:6] = 200
        >>> int(fit_resolution(image, (4, 4), 1.0).min()), fit_resolution(image, (4, 4), 2.0).shape
        (200, (4, 4, 3))
    """
    height, width = image.shape[:2]
    high, wide = size[0] * ratio, size[1] * ratio
    if high > height + 1 or wide > width + 1:
        found = f"{width}x{height} pixels show less than a patch of {wide:.4g}x{high:.4g} pixels at this resolution"
        raise ImageError(found, expected="as much tissue as the model's patches show", remedy="cut larger patches")
    left, top = max(0.0, (width - wide) / 2), max(0.0, (height - high) / 2)
    box = (left, top, min(float(width), left + wide), min(float(height), top + high))
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.LANCZOS, box=box))


def _check_file(path: str) -> None:
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise ImageError(reason, where=path) from None
    if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for ever
        raise ImageError("not a file", where=path, expected="an image file")
    if status.st_size == 0:
        raise ImageError("the file is empty", where=path, expected="an image", remedy=_RESTORE)


def _with_pillow(path: str, max_pixels: int, bits: int | None) -> tuple[np.ndarray, Facts]:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                found, expected = (
                    f"too many pixels ({width} x {height})",
                    f"at most {max_pixels // 1_000_000} megapixels",
                )
                raise ImageError(found, where=path, expected=expected, remedy="use `tumortrace scan` for slides")
            facts = _facts(image)
            if facts.format == "PNG" and facts.kind == "16 bit":
                return _deep_png(path, image, facts, bits)
            image.load()
            if facts.kind == "palette" and image.mode == "P" and image.getcolors(_LABELS) is not None:
                facts = facts._replace(kind="label map")
            with suppress(Exception):  # a damaged EXIF block says nothing about orientation
                ImageOps.exif_transpose(image, in_place=True)
            if image.mode.startswith("I"):
                values = np.asarray(image)
                depth = depth_of(values, 65535.0, stated=False, bits=bits, path=path)
                facts = facts._replace(note=depth.note, bits=depth.likely)
                return _grey(to_eight_bit(values, depth.top, path)), facts
            return _rgb(image, path), facts
    except Image.DecompressionBombError:
        raise ImageError("too many pixels", where=path, expected="at most 100 megapixels") from None


def _plain_tiff(path: str, max_pixels: int) -> tuple[np.ndarray, Facts] | None:
    """A TIFF of one picture of 8-bit RGB with nothing to be read about it but its tags, as patches are; None of others.

    It is what `read_tiff` would leave to Pillow, in a third of the time: that takes tifffile to find out.
    """
    try:
        image = Image.open(path, formats=("TIFF",))
    except Exception:  # what it is, is found out elsewhere
        return None
    with image:
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        plain = image.mode == "RGB" and not tags.next and set(tags) <= _PLAIN_TAGS
        plain = plain and tags.get(_BITS) == (8, 8, 8) and tags.get(_PHOTOMETRIC) == 2 and tags.get(_SAMPLES) == 3
        plain = plain and tags.get(_ORIENTATION, 1) == 1 and set(tags.get(_SAMPLE_FORMAT, (1,))) == {1}
        if not (plain and tags.get(_COMPRESSION, 1) in COMMON and image.width * image.height <= max_pixels):
            return None
        pixels = _as_it_lies(path, tags, (image.height, image.width, 3))
        pixels = np.array(image) if pixels is None else pixels
        return pixels, Facts("TIFF", origin=_origin(tags), resolution=_resolution(image))


def _as_it_lies(path: str, tags: Any, shape: tuple[int, int, int]) -> np.ndarray | None:
    """The pixels of a plain TIFF that is not compressed, its strips one after another; None of others.

    Pillow hands them on row by row, which takes longer than reading the file.
    """
    starts, lengths = tags.get(_STRIPS, ()), tags.get(_STRIP_LENGTHS, ())
    as_bytes_are = all(tags.get(tag, 1) == 1 for tag in (_COMPRESSION, _PLANES, _FILL_ORDER))
    if not as_bytes_are or sum(lengths) != math.prod(shape):
        return None
    if any(start + length != after for start, length, after in zip(starts, lengths, starts[1:], strict=False)):
        return None
    pixels = np.fromfile(path, np.uint8, sum(lengths), offset=starts[0])
    return pixels.reshape(shape) if len(pixels) == sum(lengths) else None  # of a file that was cut off Pillow tells


_KINDS = {"L": "grey", "LA": "RGBA", "P": "palette", "PA": "palette", "1": "1 bit", "I": "16 bit"}
_ORIENTATION, _MAKER, _MODEL, _SOFTWARE = 274, 271, 272, 305  # tags of EXIF and TIFF
_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _SAMPLE_FORMAT = 258, 259, 262, 277, 339  # tags of TIFF
_STRIPS, _STRIP_LENGTHS, _PLANES, _FILL_ORDER = 273, 279, 284, 266
# Of size, place and compression of a picture, its resolution, date, maker; not of a description, pages within, alpha.
_PLAIN_TAGS = {*range(254, 270), *range(271, 285), 296, 305, 306, 315, 317, 318, 319, *range(322, 326), 339}


def _facts(image: Any) -> Facts:
    """How an opened image that is not loaded yet is stored; Pillow halves 16-bit colours while loading."""
    with suppress(Exception):  # damaged tags say nothing
        deep = image.mode.startswith("I;16") or any(";16" in str(tile[3]) for tile in image.tile)
        tags = image.getexif()
        tables = getattr(image, "quantization", None) or {}
        return Facts(
            image.format,
            "16 bit" if deep else _KINDS.get(image.mode, image.mode),
            int(tags.get(_ORIENTATION) or 1),
            getattr(image, "n_frames", 1),
            _origin(tags),
            _jpeg_quality(sum(tables[0])) if tables else 0,
            resolution=_resolution(image),
        )
    return Facts(image.format, _KINDS.get(image.mode, image.mode))


def _origin(tags: Any) -> str:
    """Who signed the file."""
    signs = (str(tags.get(tag) or "").strip("\0 ") for tag in (_MAKER, _MODEL, _SOFTWARE))
    return " ".join(sign for sign in signs if sign)


def _resolution(image: Any) -> float | None:
    """Um per px by the file's dots per inch, where they are a microscope's."""
    across, down = (float(value) for value in image.info.get("dpi", (0, 0)))
    return of_a_microscope(25400 / ((across + down) / 2)) if across > 0 and down > 0 else None


def _jpeg_quality(total: int) -> int:
    """The libjpeg quality whose luminance table adds up to `total`; at 50 it adds up to 3692."""
    scale = total / 36.92
    return int(np.clip(round(5000 / scale if scale > 100 else (200 - scale) / 2), 1, 100))


def _rgb(image: Image.Image, path: str) -> np.ndarray:
    if image.mode.startswith("F"):
        return _grey(to_eight_bit(np.asarray(image), 1, path))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def _grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def _deep_png(path: str, image: Image.Image, facts: Facts, bits: int | None) -> tuple[np.ndarray, Facts]:
    """A PNG of 16 bits, of which Pillow keeps the upper 8 where it has colours; sBIT says how many bits are used."""
    import imagecodecs

    with open(path, "rb") as file:
        content = file.read()
    image.load()  # refuses what is cut off
    values = np.asarray(imagecodecs.png_decode(content))
    values = values[..., None] if values.ndim == 2 else values
    colours = values[..., : 3 if values.shape[2] > 2 else 1]
    place = content.find(b"sBIT", 0, 4096)
    used = content[place + 4] if place > 0 else 16
    # most writers scale the bits up, as they should
    top = 2.0**used - 1 if 8 < used < 16 and int(colours.max()) < 2**used else 65535.0
    depth = depth_of(colours, top, stated=8 < used < 16, bits=bits, path=path)
    rgb = to_eight_bit(colours, depth.top, path)
    rgb = np.ascontiguousarray(np.broadcast_to(rgb, (*rgb.shape[:2], 3)))
    if values.shape[2] in (2, 4):
        alpha = values[..., -1:] / 65535
        rgb = np.rint(rgb * alpha + 255 * (1 - alpha)).astype(np.uint8)
    turned = ImageOps.exif_transpose(_with_exif(rgb, image))
    return np.asarray(turned), facts._replace(note=depth.note, bits=depth.likely)


def _with_exif(rgb: np.ndarray, image: Image.Image) -> Image.Image:
    picture = Image.fromarray(rgb)
    with suppress(Exception):  # a damaged EXIF block says nothing about orientation
        picture.getexif()[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
    return picture
