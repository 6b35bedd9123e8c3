"""DICOM slides that OpenSlide does not read: told by what they hold, and what to convert them to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from tests.situations.models import made_model
from tests.situations.situation import situation
from tumortrace.cli.main import run
from tumortrace.slides.slide import Slide

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"  # VL Whole Slide Microscopy Image Storage
TILE = 64


def write_level(path: Path, pixels: np.ndarray, *, bits: int, series: str, um: float = 1.0) -> Path:
    """One level of a slide as an instance of its series: tiles of 64 px side by side (TILED_FULL), not compressed."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = WHOLE_SLIDE, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = pydicom.Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = WHOLE_SLIDE, meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = series, generate_uid(), generate_uid()
    data.Modality, data.ImageType = "SM", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
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
    corners = [(y, x) for y in range(0, height, TILE) for x in range(0, width, TILE)]
    data.NumberOfFrames = len(corners)
    data.PixelData = b"".join(pixels[y : y + TILE, x : x + TILE].tobytes() for y, x in corners)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


@situation(
    "slides",
    there="a DICOM series of 12 bits, or of grey samples, which OpenSlide does not read",
    typed="tumortrace scan RUN SLIDE",
    right="refused with its bits or samples, and what to convert to; one of 8 bits is read",
)
def test_dicom_slides_of_other_samples_are_told_truly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (128, 192, 3), np.uint8)
    levels = {"eight": pixels, "twelve": pixels.astype(np.uint16) * 16, "grey": pixels[..., 0]}
    for name, stored in levels.items():
        bits, series = 12 if name == "twelve" else 8, generate_uid()
        for level in (1, 2):
            small = np.ascontiguousarray(stored[::level, ::level])
            write_level(tmp_path / name / f"{level}.dcm", small, bits=bits, series=series, um=float(level))
    with Slide(tmp_path / "eight" / "1.dcm") as slide:
        assert (slide.resolution, len(slide.reader.levels)) == (1.0, 2)
        assert np.array_equal(slide.read_region(0, 0, 192, 128, size=(192, 128)), pixels)
    model = str(made_model(tmp_path / "model", resolution=1.0))
    told = {"twelve": "a DICOM slide of 12 bits in 16", "grey": "a DICOM slide of 1 sample per pixel (MONOCHROME2)"}
    for name, words in told.items():
        assert run(["scan", model, str(tmp_path / name), "-o", str(tmp_path / "out"), "--bits", "12"]) == 1
        line = capsys.readouterr().err
        assert words in line
        assert "OME-TIFF" in line
