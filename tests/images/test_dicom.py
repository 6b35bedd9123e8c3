"""DICOM images are read as a viewer shows them; what is expected is worked by hand from the standard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from tumortrace.errors import ImageError
from tumortrace.images.decoding import read_image, read_with_facts


def dicom(path: Path, pixels: np.ndarray, bits: int = 12, **fields: Any) -> Path:
    """Write a DICOM file of one frame."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = pydicom.Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientName = "Secret^Name"
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    data.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated, data.BitsStored, data.HighBit = pixels.dtype.itemsize * 8, bits, bits - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    for name, value in fields.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def grey(path: Path) -> list[int]:
    """The pixels of a grey image, after a look whether its channels are equal."""
    image = read_image(path)
    assert np.array_equal(image[..., 0], image[..., 1])
    assert np.array_equal(image[..., 0], image[..., 2])
    return image[..., 0].ravel().tolist()


def test_a_window_decides_what_is_black_and_white(tmp_path: Path) -> None:
    """Centre 1000, width 401 (PS3.3, C.11.2.1.2): up to 799.5 black, from 1199.5 white, 999.5 in the middle."""
    stored = np.array([[0, 799, 800, 900, 999, 1000, 1199, 1200, 4095]], np.uint16)
    file = dicom(tmp_path / "a.dcm", stored, WindowCenter="1000", WindowWidth="401")
    expected = [round(255 * min(max((value - 999.5) / 400 + 0.5, 0), 1)) for value in stored[0]]
    assert expected[:3] == [0, 0, 0]
    assert expected[-2:] == [255, 255]
    assert grey(file) == expected


def test_empty_tables_are_as_none(tmp_path: Path) -> None:
    """Sequences of look-up tables without one in them leave the window to decide."""
    stored, window = np.array([[0, 900, 4095]], np.uint16), {"WindowCenter": "1000", "WindowWidth": "401"}
    empty = {"VOILUTSequence": pydicom.Sequence(), "ModalityLUTSequence": pydicom.Sequence()}
    file = dicom(tmp_path / "a.dcm", stored, **window, **empty)
    assert grey(file) == grey(dicom(tmp_path / "b.dcm", stored, **window))


def test_without_a_window_the_range_of_the_stored_bits_counts(tmp_path: Path) -> None:
    """12 bits: 4095 is white, whatever the brightest pixel is."""
    assert grey(dicom(tmp_path / "a.dcm", np.array([[0, 819, 2048]], np.uint16))) == [0, 51, 128]
    signed = dicom(tmp_path / "b.dcm", np.array([[-2048, 0, 2047]], np.int16))
    assert grey(signed) == [0, 128, 255]


def test_values_are_rescaled_before_the_window(tmp_path: Path) -> None:
    """Slope 2 and intercept -1000 make 500 the centre 0 of the window."""
    fields = {"RescaleSlope": "2", "RescaleIntercept": "-1000", "WindowCenter": "0.5", "WindowWidth": "201"}
    assert grey(dicom(tmp_path / "a.dcm", np.array([[449, 500, 551]], np.uint16), **fields)) == [0, 128, 255]


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    """There, the least value is white."""
    file = dicom(tmp_path / "a.dcm", np.array([[0, 51, 255]], np.uint8), 8, PhotometricInterpretation="MONOCHROME1")
    assert grey(file) == [255, 204, 0]


def test_colour_is_kept_and_the_ending_does_not_matter(tmp_path: Path) -> None:
    """Eight-bit RGB comes out as it went in, from a file that calls itself a PNG; its facts say DICOM."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    image, facts = read_with_facts(dicom(tmp_path / "a.png", pixels, 8))
    assert np.array_equal(image, pixels)
    assert (facts.format, facts.kind, facts.frames) == ("DICOM", "RGB", 1)


@pytest.mark.parametrize(
    "name", ["examples_palette.dcm", "examples_ybr_color.dcm", "MR_small_RLE.dcm", "examples_jpeg2k.dcm"]
)
def test_what_the_library_brings_opens(name: str) -> None:
    """Palettes, YBR in several frames, RLE and JPEG 2000 are decoded to more than one colour."""
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom was installed without {name}")
    image = read_image(path)
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    assert len(np.unique(image)) > 8


def test_a_damaged_or_empty_one_is_refused_in_one_line(tmp_path: Path) -> None:
    """Cut off, or a report without an image: one line without the patient's name; a huge one before decoding."""
    whole = dicom(tmp_path / "a.dcm", np.zeros((64, 64), np.uint16)).read_bytes()
    for number, content in enumerate((whole[:-1000], whole[:300], whole[:132], whole[:132] + b"\xff" * 500)):
        file = tmp_path / f"{number}.dcm"
        file.write_bytes(content)
        with pytest.raises(ImageError, match="DICOM") as refusal:
            read_image(file)
        assert "\n" not in str(refusal.value)
        assert "Secret" not in str(refusal.value)
    huge = dicom(tmp_path / "huge.dcm", np.zeros((2, 2), np.uint16), Rows=60000, Columns=60000)
    with pytest.raises(ImageError, match="too many pixels"):
        read_image(huge)
