"""Images of every kind become 8-bit RGB, and broken ones a clear refusal."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from tumortrace.errors import ImageError
from tumortrace.images import decoding
from tumortrace.images.decoding import MAX_PIXELS, fit, read_image, read_with_facts


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (13, 17, 3), np.uint8)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "ppm"])
def test_lossless_formats_give_back_their_pixels_whatever_the_ending(tmp_path, picture, suffix):
    """The content decides: a PNG named .jpg is read as PNG."""
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(picture).save(file)
    misnamed = file.rename(tmp_path / "a.jpg")
    assert np.array_equal(read_image(misnamed), picture)


def test_grey_palette_and_bilevel_become_rgb(tmp_path, picture):
    """All three channels are equal for grey; a palette is looked up."""
    grey = picture[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.stack([grey] * 3, -1))
    palette = Image.fromarray((grey % 4), mode="P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 1, 2, 3])
    palette.save(tmp_path / "palette.png")
    colours = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [1, 2, 3]], np.uint8)
    assert np.array_equal(read_image(tmp_path / "palette.png"), colours[grey % 4])
    Image.fromarray(grey > 100).save(tmp_path / "bilevel.png")
    assert np.array_equal(read_image(tmp_path / "bilevel.png")[..., 1], (grey > 100) * np.uint8(255))


def test_cmyk_is_converted(tmp_path):
    """Full cyan and nothing else has no red."""
    Image.new("CMYK", (4, 4), (255, 0, 0, 0)).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif")[0, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_by_the_range_of_the_type(tmp_path, suffix):
    """65535 becomes 255 and 257 becomes 1, whatever the image's own range."""
    values = np.array([[0, 257, 25700], [128, 385, 514]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    assert read_image(tmp_path / f"a.{suffix}")[..., 0].tolist() == [[0, 1, 100], [0, 1, 2]]


def test_sixteen_bit_colour_is_scaled_alike(tmp_path, picture):
    """RGB with 16 bits agrees with its 8-bit self."""
    tifffile.imwrite(tmp_path / "a.tif", picture.astype(np.uint16) * 257, photometric="rgb")
    assert np.array_equal(read_image(tmp_path / "a.tif"), picture)


def test_floats_are_taken_from_zero_to_one_and_refused_beyond(tmp_path):
    """The scale of floating-point pixels is never guessed from the data."""
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 0.5, 1]], np.float32))
    assert read_image(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 128, 255]
    tifffile.imwrite(tmp_path / "half.tif", np.array([[0, 0.5, 1]], np.float16))  # Pillow does not know these
    assert read_image(tmp_path / "half.tif")[0, :, 0].tolist() == [0, 128, 255]
    tifffile.imwrite(tmp_path / "b.tif", np.array([[0, 200]], np.float32))
    with pytest.raises(ImageError, match="values from 0 to 200 in float32 numbers; expected 0 to 1"):
        read_image(tmp_path / "b.tif")
    tifffile.imwrite(tmp_path / "c.tif", np.array([[0, np.nan]], np.float32))
    with pytest.raises(ImageError, match="nan"):
        read_image(tmp_path / "c.tif")


def test_transparency_is_laid_over_white(tmp_path):
    """Fully transparent is white, half-transparent black is mid-grey."""
    pixels = np.array([[[0, 0, 0, 0], [0, 0, 0, 128], [9, 9, 9, 255]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [255, 127, 9]


def test_exif_orientation_is_applied(tmp_path, picture):
    """A photograph turned by its EXIF tag 6 comes out upright, and a damaged EXIF block is no reason to refuse."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(picture, -1))
    Image.fromarray(picture).save(tmp_path / "b.png", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff garbage")
    assert np.array_equal(read_image(tmp_path / "b.png"), picture)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "gif", "webp", "half.tif"])
def test_truncated_files_are_refused(tmp_path, suffix):
    """A file cut short anywhere is never returned with made-up pixels."""
    picture = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    file = tmp_path / f"a.{suffix}"
    if suffix == "half.tif":
        tifffile.imwrite(file, (picture / 255).astype(np.float16), photometric="rgb", rowsperstrip=8)
    else:
        Image.fromarray(picture).save(file)
    read_image(file)
    content = file.read_bytes()
    for share in (0.2, 0.5, 0.8, 0.95):
        file.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ImageError) as refusal:
            read_image(file)
        assert str(refusal.value).startswith(str(file))
        assert "\n" not in str(refusal.value)


def test_missing_empty_foreign_and_folder_are_told_apart(tmp_path):
    """Each says what it is."""
    with pytest.raises(ImageError, match="there is no such file"):
        read_image(tmp_path / "a.png")
    (tmp_path / "b.png").touch()
    with pytest.raises(ImageError, match="the file is empty"):
        read_image(tmp_path / "b.png")
    (tmp_path / "c.png").write_text("hello")
    with pytest.raises(ImageError, match="not an image"):
        read_image(tmp_path / "c.png")
    with pytest.raises(ImageError, match="not a file"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        read_image("a\0b.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_does_not_hang(tmp_path):
    """Nobody writes into it, so opening it would wait for ever."""
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ImageError, match="not a file"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("side", [10_001, 20_000])
def test_too_many_pixels_are_refused_without_decoding(tmp_path, side):
    """Both below and above the size at which Pillow itself refuses."""
    assert side * side > MAX_PIXELS
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + data)
    with pytest.raises(ImageError, match="too many pixels"):
        read_image(tmp_path / "a.png")


def test_rows_of_hdf5_arrays(tmp_path, picture):
    """`file.h5::row` reads that row, also after the file has changed; what is not there is refused."""
    file = tmp_path / "a_x.h5"
    stack = np.stack([picture, 255 - picture])
    with h5py.File(file, "w") as handle:
        handle["x"] = stack
    assert np.array_equal(read_image(f"{file}::1"), stack[1])
    with pytest.raises(ImageError, match="no row 2; expected 0 to 1"):
        read_image(f"{file}::2")
    file.unlink()
    with h5py.File(file, "w") as handle:
        handle["x"] = stack[::-1]
    assert np.array_equal(read_image(f"{file}::1"), stack[0])
    with h5py.File(tmp_path / "b.h5", "w") as handle:
        handle["x"] = np.zeros(3)
    with pytest.raises(ImageError, match="float64"):
        read_image(f"{tmp_path / 'b.h5'}::0")
    (tmp_path / "c.h5").write_text("no")
    with pytest.raises(ImageError, match="cannot be read as HDF5"):
        read_image(f"{tmp_path / 'c.h5'}::0")
    with pytest.raises(ImageError, match="no such file"):
        read_image(f"{tmp_path / 'd.h5'}::0")


def test_fit_resizes_only_what_differs(picture):
    """The same array where the size fits; constant images stay constant at any size."""
    assert fit(picture, (13, 17)) is picture
    for size in ((96, 96), (5, 40), (1, 1)):
        assert fit(np.full((50, 1, 3), 77, np.uint8), size).shape == (*size, 3)
        assert (fit(np.full((50, 1, 3), 77, np.uint8), size) == 77).all()


def test_fit_averages_when_it_shrinks():
    """Without antialiasing, a fine chessboard would become black or white instead of grey."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = fit(np.stack([board] * 3, -1), (8, 8))
    assert abs(small.astype(int) - 127).max() < 10


def test_fuzzed_files_decode_or_are_refused_in_silence():
    """Each of 460 broken files decodes or raises ImageError, quickly and without a word on standard error."""
    if "TUMORTRACE_DATA" not in os.environ:
        pytest.skip("TUMORTRACE_DATA is not set")
    folder = Path(os.environ["TUMORTRACE_DATA"]) / "malformed"
    program = (
        "import pathlib, sys, time\n"
        "from tumortrace.images.decoding import read_image\n"
        "from tumortrace.errors import ImageError\n"
        "counts, slowest = [0, 0], 0\n"
        "for file in sorted(pathlib.Path(sys.argv[1]).rglob('*')):\n"
        "    if file.is_file():\n"
        "        start = time.process_time()\n"
        "        try:\n"
        "            pixels = read_image(file)\n"
        "            assert pixels.dtype == 'uint8' and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size\n"
        "            counts[0] += 1\n"
        "        except ImageError as error:\n"
        "            assert str(file) in str(error) and chr(10) not in str(error)\n"
        "            counts[1] += 1\n"
        "        slowest = max(slowest, time.process_time() - start)\n"
        "print(*counts, slowest)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    decoded, refused, slowest = map(float, done.stdout.split())
    assert decoded + refused >= 460
    assert decoded > 100  # many of them are sound enough to be read
    assert slowest < 10


def test_real_patches_are_what_pillow_reads():
    """On intact patches, reading is Pillow's own conversion to RGB."""
    if "TUMORTRACE_DATA" not in os.environ:
        pytest.skip("TUMORTRACE_DATA is not set")
    root = Path(os.environ["TUMORTRACE_DATA"])
    for file in (*sorted((root / "kaggle/train").iterdir())[:5], *sorted((root / "mri/images").iterdir())[:2]):
        assert np.array_equal(read_image(file), np.asarray(Image.open(file).convert("RGB"))), file


PLAIN = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
TIFFS: dict[str, dict[str, Any]] = {
    "as Pillow writes them": {},
    "LZW, signed": {"compression": "tiff_lzw", "software": "scanner 1"},
    "deflate, a microscope's dots per inch": {"compression": "tiff_deflate", "dpi": (50800, 50800)},
    "a screen's dots per inch": {"dpi": (72, 72)},
    "turned": {"tiffinfo": {274: 6}},
    "described": {"description": "a patch"},
    "ImageJ": {"tiffinfo": {270: "ImageJ=1.53\nunit=micron", 282: 2.0, 283: 2.0, 296: 1}},
    "two pictures": {"save_all": True, "append_images": [Image.fromarray(PLAIN[::-1])]},
}


@pytest.mark.parametrize("kind", TIFFS)
def test_plain_tiffs_are_read_as_tifffile_has_them_read(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The short way for plain ones gives the same pixels and facts as the long one."""
    Image.fromarray(PLAIN).save(tmp_path / "a.tif", **TIFFS[kind])
    image, facts = read_with_facts(tmp_path / "a.tif")
    monkeypatch.setattr(decoding, "_plain_tiff", lambda *_: None)
    other, expected = read_with_facts(tmp_path / "a.tif")
    np.testing.assert_array_equal(image, other)
    assert facts == expected


def test_only_plain_tiffs_go_the_short_way(tmp_path: Path) -> None:
    """Those whose every tag is of size, place, compression, resolution or maker; others need tifffile to tell."""
    short = []
    for number, (kind, options) in enumerate(TIFFS.items()):
        Image.fromarray(PLAIN).save(tmp_path / f"{number}.tif", **options)
        if decoding._plain_tiff(str(tmp_path / f"{number}.tif"), 10**6) is not None:
            short.append(kind)
    assert short == list(TIFFS)[:4]
    for number, image in enumerate((PLAIN[..., 0], np.dstack([PLAIN, PLAIN[..., :1]]))):
        Image.fromarray(image).save(tmp_path / f"{number}.tif")
        assert decoding._plain_tiff(str(tmp_path / f"{number}.tif"), 10**6) is None


def test_bits_that_stand_the_other_way_round_are_turned(tmp_path: Path) -> None:
    """TIFF's FillOrder 2: each byte's lowest bit comes first."""
    file = tmp_path / "a.tif"
    turned = np.packbits(np.unpackbits(PLAIN, bitorder="little")).reshape(PLAIN.shape)
    tifffile.imwrite(file, turned, photometric="rgb", software=False, metadata=None)
    unit, order = (struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in ((296, 1), (266, 2)))
    whole = file.read_bytes()
    assert whole.count(unit) == 1  # tifffile writes no FillOrder: it takes the place of the unit of resolution
    file.write_bytes(whole.replace(unit, order))
    np.testing.assert_array_equal(read_image(file), PLAIN)


@pytest.mark.parametrize("rows", [20, 7])
def test_strips_that_lie_otherwise_are_put_together(tmp_path: Path, rows: int) -> None:
    """In the order of their tags, whatever the order in the file; a file that lacks its last strip is refused."""
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, PLAIN, photometric="rgb", rowsperstrip=rows, software=False, metadata=None)
    np.testing.assert_array_equal(read_image(file), PLAIN)
    with tifffile.TiffFile(file) as opened:
        page = opened.pages.first
        tags, starts, lengths = page.tags, page.dataoffsets, page.databytecounts
        place = tags[273].valueoffset
        form = {3: "H", 4: "I", 16: "Q"}[int(tags[273].dtype)]
    whole = file.read_bytes()
    if len(starts) > 1:  # the last strip elsewhere, and nothing where it was
        last = slice(starts[-1], starts[-1] + lengths[-1])
        content = bytearray(whole + b"between" + whole[last])
        content[last] = bytes(lengths[-1])
        struct.pack_into(f"<{form}", content, place + (len(starts) - 1) * struct.calcsize(form), len(whole) + 7)
        file.write_bytes(content)
        np.testing.assert_array_equal(read_image(file), PLAIN)
    file.write_bytes(whole[: starts[-1] + lengths[-1] - 1])
    with pytest.raises(ImageError, match="truncated"):
        read_image(file)
