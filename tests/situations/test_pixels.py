"""What users of this field store pixels as: each is read as it is meant, or refused with its reason."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pandas as pd
import pydicom
import pytest
import tifffile
from PIL import Image

from tests.images.test_dicom import dicom
from tumortrace.cohorts.audit import check
from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.files import list_images
from tumortrace.errors import ImageError
from tumortrace.images.decoding import read_image, read_with_facts


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


def twelve_bits(picture: np.ndarray) -> np.ndarray:
    """The same picture in 12 of 16 bits."""
    return np.rint(picture * (4095 / 255)).astype(np.uint16)


def test_twelve_bits_in_sixteen_are_read_by_what_the_file_says(tmp_path: Path, picture: np.ndarray) -> None:
    """MaxSampleValue, OME's SignificantBits and a PNG's sBIT give the same pixels as the 8-bit copy."""
    deep = twelve_bits(picture)
    tag = [(281, "H", 3, (4095, 4095, 4095), True)]
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", extratags=tag)
    ome = {"axes": "YXS", "SignificantBits": 12}
    tifffile.imwrite(tmp_path / "b.ome.tif", deep, photometric="rgb", metadata=ome)
    png = imagecodecs.png_encode(deep)
    chunk = b"sBIT\x0c\x0c\x0c"
    (tmp_path / "c.png").write_bytes(png[:33] + b"\0\0\0\x03" + chunk + zlib.crc32(chunk).to_bytes(4) + png[33:])
    for name in ("a.tif", "b.ome.tif", "c.png"):
        pixels, facts = read_with_facts(tmp_path / name)
        assert np.array_equal(pixels, picture), name
        assert facts.note == "", name


def test_twelve_bits_in_sixteen_without_a_word_in_the_file_are_told(tmp_path: Path, picture: np.ndarray) -> None:
    """TIFF, PNG and DICOM: read by the range of the type, as nothing is guessed, and the facts say what is doubtful."""
    deep = twelve_bits(picture)
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb")
    (tmp_path / "b.png").write_bytes(imagecodecs.png_encode(deep))
    (tmp_path / "c.png").write_bytes(imagecodecs.png_encode(deep[..., 0].copy()))
    dicom(tmp_path / "d.dcm", deep[..., 0], 16)
    for name in ("a.tif", "b.png", "c.png", "d.dcm"):
        pixels, facts = read_with_facts(tmp_path / name)
        assert pixels.max() == 16, name
        assert "if they hold 12 bits, it was read much too dark" in facts.note, name
    (tmp_path / "full.png").write_bytes(imagecodecs.png_encode(picture.astype(np.uint16) * 257))
    pixels, facts = read_with_facts(tmp_path / "full.png")
    assert np.array_equal(pixels, picture)
    assert facts.note == ""


@pytest.mark.parametrize("program", ["imagej", "ome"])
def test_colours_in_pages_are_put_together(program: str, tmp_path: Path, picture: np.ndarray) -> None:
    """An ImageJ composite and an OME-TIFF of axes CYX are the RGB picture, not its red channel in grey."""
    pages = np.moveaxis(picture, -1, 0)
    options: dict[str, Any] = {"metadata": {"axes": "CYX"}, "photometric": "minisblack", program: True}
    tifffile.imwrite(tmp_path / "a.tif", pages, **options)
    assert np.array_equal(read_image(tmp_path / "a.tif"), picture)
    tifffile.imwrite(
        tmp_path / "b.tif", pages[:2], metadata={"axes": "CYX"}, photometric="minisblack", **{program: True}
    )
    with pytest.raises(ImageError, match="2 channels in pages"):
        read_image(tmp_path / "b.tif")


def test_of_a_stack_the_middle_plane_is_read_aloud(tmp_path: Path, picture: np.ndarray) -> None:
    """Planes of focus: the middle one, and the facts say so."""
    stack = np.stack([picture[..., 0] // 4, picture[..., 1], picture[..., 2] // 3])
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    pixels, facts = read_with_facts(tmp_path / "a.tif")
    assert np.array_equal(pixels[..., 1], stack[1])
    assert "middle one of 3 planes" in facts.note


def test_signed_numbers_have_half_the_range(tmp_path: Path) -> None:
    """int16: 32767 is white; below zero is refused."""
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 16384, 32767]], np.int16))
    assert read_image(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 128, 255]
    tifffile.imwrite(tmp_path / "b.tif", np.array([[-5, 32767]], np.int16))
    with pytest.raises(ImageError, match="values from -5 to 32767"):
        read_image(tmp_path / "b.tif")


@pytest.mark.parametrize("codec", ["webp", "jpeg2000", "jpegxl", "lzma", "png", "lerc", "zstd"])
def test_rare_compressions_are_read(codec: str, tmp_path: Path, picture: np.ndarray) -> None:
    """Whatever tifffile decodes is not called damaged; lossless here, JPEG XL all but."""
    arguments: dict[str, Any] = {"lossless": True} if codec == "webp" else {}
    arguments |= {"reversible": True} if codec == "jpeg2000" else {"distance": 0} if codec == "jpegxl" else {}
    try:
        tifffile.imwrite(tmp_path / "a.tif", picture, compression=codec, compressionargs=arguments, photometric="rgb")
    except (RuntimeError, ValueError, ImportError) as error:
        pytest.skip(f"imagecodecs was built without {codec}: {error}")
    assert np.abs(read_image(tmp_path / "a.tif").astype(int) - picture).max() <= 4 * (codec == "jpegxl")


def test_an_unspecified_fourth_sample_is_no_transparency(tmp_path: Path, picture: np.ndarray) -> None:
    """The colours come out as they are; an alpha channel that calls itself one is still laid over white."""
    fourth = np.dstack([picture, np.zeros(picture.shape[:2], np.uint8)])
    tifffile.imwrite(tmp_path / "a.tif", fourth, photometric="rgb", extrasamples=["unspecified"])
    assert np.array_equal(read_image(tmp_path / "a.tif"), picture)
    tifffile.imwrite(tmp_path / "b.tif", fourth, photometric="rgb", extrasamples=["unassalpha"])
    assert (read_image(tmp_path / "b.tif") == 255).all()


def test_missing_strips_are_no_picture(tmp_path: Path, picture: np.ndarray) -> None:
    """A TIFF of 16 bits of which a strip is missing is refused, not filled with black."""
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, picture.astype(np.uint16) * 257, photometric="rgb", rowsperstrip=10)
    with tifffile.TiffFile(file, mode="r+b") as tiff:
        tag = tiff.pages[0].tags["StripByteCounts"]
        tag.overwrite([0, *tag.value[1:]])
    with pytest.raises(ImageError, match="1 of 4 strips are missing"):
        read_image(file)


def test_a_whole_slide_is_no_patch(tmp_path: Path) -> None:
    """A pyramid and a DICOM slide are refused where a patch is wanted, and the message names scan."""
    tiles: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(tmp_path / "a.svs") as file:
        file.write(np.zeros((512, 512, 3), np.uint8), subifds=1, **tiles)
        file.write(np.zeros((128, 128, 3), np.uint8), subfiletype=1, **tiles)
    slide = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.6"}
    dicom(tmp_path / "b.dcm", np.zeros((32, 32, 3), np.uint8), 8, **slide)
    for name in ("a.svs", "b.dcm"):
        with pytest.raises(ImageError, match=r"a whole slide.*tumortrace scan"):
            read_image(tmp_path / name)


def table(count: int, first: int, bits: int, data: Any) -> pydicom.Sequence:
    item = pydicom.Dataset()
    item.LUTDescriptor = [count, first, bits]
    item.add_new("LUTData", "OW" if isinstance(data, bytes) else "US", data)
    return pydicom.Sequence([item])


def test_a_look_up_table_of_eight_bits_is_as_the_standard_stores_it(tmp_path: Path) -> None:
    """Two entries to a word, or padded to one each: the same picture, whose grey rises with the value."""
    entries = np.arange(256, dtype=np.uint8)
    stored = np.arange(0, 4096, 16, dtype=np.uint16)[None]
    packed = table(256, 0, 8, entries.tobytes())
    padded = table(256, 0, 8, entries.astype("<u2").tobytes())
    pictures = []
    for number, sequence in enumerate((packed, padded)):
        file = dicom(tmp_path / f"{number}.dcm", stored // 16, VOILUTSequence=sequence)
        pictures.append(read_image(file)[0, :, 0].tolist())
    assert pictures[0] == pictures[1] == list(range(256))


def test_values_beyond_a_table_take_its_ends(tmp_path: Path) -> None:
    """Below the first entry the first, beyond the last the last, also where indices exceed 16 bits."""
    sequence = table(4, 100, 16, [0, 20000, 40000, 65535])
    file = dicom(tmp_path / "a.dcm", np.array([[0, 101, 102, 65535]], np.uint16), 16, VOILUTSequence=sequence)
    assert read_image(file)[0, :, 0].tolist() == [0, 78, 156, 255]


@pytest.mark.parametrize("name", ["a", "a.IMA", "a.dicom"])
@pytest.mark.parametrize("preamble", [True, False])
def test_dicom_is_known_by_its_content(name: str, preamble: bool, tmp_path: Path) -> None:
    """Without an ending, with another one, and without the preamble."""
    whole = dicom(tmp_path / "whole.dcm", np.array([[0, 4095]], np.uint16))
    content = whole.read_bytes()
    (tmp_path / name).write_bytes(content if preamble else content[132:])
    assert read_image(tmp_path / name)[0, :, 0].tolist() == [0, 255]


def test_check_tells_what_may_be_read_wrongly_and_label_maps(tmp_path: Path, picture: np.ndarray) -> None:
    """12 bits in 16 among pictures, and QuPath's maps of labels with a palette of few entries."""
    rows = []
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
        name = f"{number}.png"
        (tmp_path / name).write_bytes(imagecodecs.png_encode(twelve_bits(pixels) if number < 2 else pixels))
        rows.append({"id": str(number), "path": str(tmp_path / name), "label": number % 2})
    labels = Image.fromarray((picture[..., 0] % 5), mode="P")
    labels.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0, 0, 0, 200, 250, 250, 0])
    labels.save(tmp_path / "1-labelled.png")
    rows.append({"id": "map", "path": str(tmp_path / "1-labelled.png"), "label": 1})
    cohort = Cohort("mine", "table", pd.DataFrame(rows).assign(group=None, split=None))
    found = {finding.name: finding for finding in check(cohort).findings}
    assert found["pixels-doubtful"].count == 2
    assert "12 bits" in found["pixels-doubtful"].message
    assert [example.id for example in found["mask-like"].examples] == ["map"]


def test_a_folder_of_dicom_files_without_endings_is_a_folder_of_images(tmp_path: Path) -> None:
    """As scanners export them; a text without an ending is none."""
    for name in ("IM0001", "IM0002", "b.IMA"):
        dicom(tmp_path / name, np.array([[0, 4095]], np.uint16))
    (tmp_path / "README").write_text("about these images")
    listing = list_images(tmp_path)
    assert (listing.images, listing.others) == (["IM0001", "IM0002", "b.IMA"], ["README"])
