"""DICOM slides that OpenSlide does not read: of more than 8 bits, or of grey samples."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from scipy.ndimage import gaussian_filter

from tests.situations.models import made_model
from tests.situations.situation import situation
from tumortrace.cli.main import run
from tumortrace.errors import SlideError
from tumortrace.slides.scale import require_bits
from tumortrace.slides.slide import Slide

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"  # VL Whole Slide Microscopy Image Storage
TILE = 64


def write_level(
    path: Path, pixels: np.ndarray, *, bits: int, series: str, um: float = 1.0, kind: str = "VOLUME"
) -> Path:
    """One level of a slide as an instance of its series: tiles of 64 px side by side (TILED_FULL), not compressed."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = WHOLE_SLIDE, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = pydicom.Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = WHOLE_SLIDE, meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = series, generate_uid(), generate_uid()
    data.Modality, data.ImageType = "SM", ["ORIGINAL", "PRIMARY", kind, "NONE"]
    data.Rows = data.Columns = TILE
    data.TotalPixelMatrixRows, data.TotalPixelMatrixColumns = pixels.shape[:2]
    data.TotalPixelMatrixFocalPlanes = data.NumberOfOpticalPaths = 1
    data.DimensionOrganizationType = "TILED_FULL"
    data.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    data.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 8 * pixels.dtype.itemsize, bits, bits - 1
    data.PixelRepresentation = 0
    measures, groups = pydicom.Dataset(), pydicom.Dataset()
    measures.PixelSpacing, measures.SliceThickness = [um / 1000] * 2, 0.001
    groups.PixelMeasuresSequence = [measures]
    data.SharedFunctionalGroupsSequence = [groups]
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, [(0, -height % TILE), (0, -width % TILE), (0, 0)][: pixels.ndim])
    corners = [(y, x) for y in range(0, height, TILE) for x in range(0, width, TILE)]
    data.NumberOfFrames = len(corners)
    data.PixelData = b"".join(padded[y : y + TILE, x : x + TILE].tobytes() for y, x in corners)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def pixels() -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=(150, 200, 3))
    smooth = gaussian_filter(noise, (6, 6, 0))
    return np.clip(127 + smooth / smooth.std() * 40, 0, 255).astype(np.uint8)


def write_slide(folder: Path, stored: np.ndarray, bits: int) -> Path:
    """Two levels and a label, as a series of three files; returns that of full resolution."""
    series = generate_uid()
    for level in (1, 2):
        small = np.ascontiguousarray(stored[::level, ::level])
        write_level(folder / f"{level}.dcm", small, bits=bits, series=series, um=float(level))
    write_level(folder / "label.dcm", stored[:50], bits=bits, series=series, kind="LABEL")
    return folder / "1.dcm"


@situation(
    "slides",
    there="a DICOM series of 12 bits in 16, or of grey samples, which OpenSlide does not read",
    typed="tumortrace scan RUN SLIDE",
    right="the colours of its 8-bit copy; `--bits` where the file does not state the bits",
)
@pytest.mark.parametrize("name", ["eight", "twelve", "sixteen", "unstated", "grey", "grey12"])
def test_dicom_slides_have_the_colours_of_their_8_bit_copy(name: str, tmp_path: Path, pixels: np.ndarray) -> None:
    """Any region of any level, beyond the border too; resolution and levels as the series states them."""
    ways = {
        "eight": (pixels, 8),
        "twelve": (np.rint(pixels * (4095 / 255)).astype(np.uint16), 12),
        "sixteen": (pixels.astype(np.uint16) * 257, 16),
        "unstated": (np.rint(pixels * (4095 / 255)).astype(np.uint16), 16),
        "grey": (pixels[..., 0], 8),
        "grey12": (np.rint(pixels[..., 0] * (4095 / 255)).astype(np.uint16), 12),
    }
    file = write_slide(tmp_path / name, *ways[name])
    shown = pixels if "grey" not in name else np.repeat(pixels[..., :1], 3, axis=2)
    with Slide(file, bits=12 if name == "unstated" else None) as slide:
        assert (slide.width, slide.height, slide.resolution, len(slide.reader.levels)) == (200, 150, 1.0, 2)
        assert np.array_equal(slide.read_region(37, 61, 120, 70, size=(120, 70)), shown[61:131, 37:157])
        assert np.array_equal(slide.reader.read_region(1, 0, 0, 100, 75), shown[::2, ::2])
        assert (slide.read_region(190, 140, 20, 20, size=(20, 20))[10:] == 255).all()
    if name == "unstated":
        with Slide(file) as slide, pytest.raises(SlideError, match=r"too dark.*--bits 12"):
            require_bits(slide)


@situation(
    "slides",
    there="such a series whose tiles lie elsewhere than side by side, or are not all there",
    typed="tumortrace scan RUN FOLDER",
    right="refused with what it is, and what to convert it to",
)
def test_other_dicom_slides_are_told_truly(
    tmp_path: Path, pixels: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(made_model(tmp_path / "model", resolution=1.0))
    changes = {"DimensionOrganizationType": "TILED_SPARSE", "NumberOfFrames": 5, "TotalPixelMatrixFocalPlanes": 3}
    told = ("expected tiles side by side", "incomplete: 7 of 12 tiles are missing", "of one plane of focus")
    for (field, value), words in zip(changes.items(), told, strict=True):
        file = write_slide(tmp_path / field, pixels.astype(np.uint16) * 16, 12)
        data = pydicom.dcmread(file)
        setattr(data, field, value)
        data.save_as(file)
        assert run(["scan", model, str(file), "-o", str(tmp_path / "out")]) == 1
        line = capsys.readouterr().err
        assert words in line
        assert "bfconvert" in line or "copy or convert" in line


@situation(
    "slides",
    there="such a series, named by its label or sorted behind it; or a label alone",
    typed="tumortrace scan RUN LABEL.dcm",
    right="the slide's picture is read and never the label; alone it is refused",
)
def test_a_label_is_no_level_of_its_slide(tmp_path: Path, pixels: np.ndarray) -> None:
    """The label has the shape of a level, so that nothing but its kind tells it."""
    stored, series = np.rint(pixels * (4095 / 255)).astype(np.uint16), generate_uid()
    write_level(tmp_path / "s" / "b.dcm", stored, bits=12, series=series)
    label = write_level(tmp_path / "s" / "a.dcm", stored[::4, ::4] // 2, bits=12, series=series, kind="LABEL")
    with Slide(label) as slide:
        assert [level[:2] for level in slide.reader.levels] == [(200, 150)]
        assert np.array_equal(slide.read_region(0, 0, 200, 150, size=(200, 150)), pixels)
    (tmp_path / "s" / "b.dcm").unlink()
    with pytest.raises(SlideError, match="label or overview, without its picture"):
        Slide(label)


@situation(
    "slides",
    there="such a series that states no resolution, or whose header lacks or contradicts what a slide needs",
    typed="tumortrace scan RUN SLIDE",
    right="refused with what is missing, never with a traceback",
)
@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("SharedFunctionalGroupsSequence", None, r"1\.dcm: states no resolution.*--resolution"),
        ("TotalPixelMatrixRows", None, r"not right \(no TotalPixelMatrixRows\)"),
        ("Rows", 0, "header is not right"),
        ("PixelRepresentation", 1, "which are signed"),
    ],
)
def test_headers_that_are_not_right(
    field: str, value: int | None, told: str, tmp_path: Path, pixels: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(made_model(tmp_path / "model", resolution=1.0))
    file = write_slide(tmp_path / "s", pixels.astype(np.uint16) * 16, 12)
    data = pydicom.dcmread(file)
    if value is None:
        delattr(data, field)
    else:
        setattr(data, field, value)
    data.save_as(file)
    assert run(["scan", model, str(file), "-o", str(tmp_path / "out")]) == 1
    assert re.search(told, capsys.readouterr().err)
