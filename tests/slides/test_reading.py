"""Slides and plain images open alike, give the pixels that are in the file, and are refused in one line when bad."""

import os
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tumortrace.errors import MissingDependencyError, SlideError
from tumortrace.images import readers
from tumortrace.images.decoding import read_with_facts
from tumortrace.images.readers import openslide, plain
from tumortrace.slides import slide as reading
from tumortrace.slides.listing import find_slides
from tumortrace.slides.slide import Slide

DATA = os.environ.get("TUMORTRACE_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="TUMORTRACE_DATA is not set")


def picture(height: int, width: int) -> np.ndarray:
    """Smooth colours that differ everywhere, so that a shift or swap of axes shows."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], -1).astype(np.uint8)


def write_pyramid(path: Path, levels: list[np.ndarray], um: tuple[float, float] = (0.5, 0.5)) -> None:
    """Write a tiled TIFF that OpenSlide reads, with its resolution in the tags."""
    options = {"tile": (64, 64), "photometric": "rgb", "resolutionunit": "CENTIMETER", "metadata": None}
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels):
            density = tuple(1e4 / (value * 2**number) for value in um)
            file.write(level, subfiletype=int(number > 0), resolution=density, **options)


def test_regions_of_a_pyramid_are_the_pixels_in_the_file(tmp_path: Path) -> None:
    """At full size a region equals the array that was written, and is white outside."""
    pixels = picture(300, 400)
    write_pyramid(tmp_path / "a.tiff", [pixels, pixels[::2, ::2]])
    with Slide(tmp_path / "a.tiff") as slide:
        assert type(slide.reader).__name__ == "TiffReader"
        assert (slide.width, slide.height, slide.resolution) == (400, 300, pytest.approx(0.5, rel=1e-5))
        np.testing.assert_array_equal(slide.read_region(30, 70, 50, 20, size=(50, 20)), pixels[70:90, 30:80])
        corner = slide.read_region(390, 290, 20, 20, size=(20, 20))
    np.testing.assert_array_equal(corner[:10, :10], pixels[290:, 390:])
    assert (corner[10:] == 255).all()
    assert (corner[:, 10:] == 255).all()


def test_the_best_level_is_read(tmp_path: Path) -> None:
    """Half size comes from the second level (painted red here), anything finer from the first (blue)."""
    blue, red = np.zeros((256, 256, 3), np.uint8), np.zeros((128, 128, 3), np.uint8)
    blue[..., 2] = red[..., 0] = 255
    write_pyramid(tmp_path / "a.tiff", [blue, red])
    with Slide(tmp_path / "a.tiff") as slide:
        half = slide.read_region(0, 0, 128, 128, size=(64, 64))
        finer = slide.read_region(0, 0, 128, 128, size=(80, 80))
    assert (half == (255, 0, 0)).all()
    assert (finer == (0, 0, 255)).all()


def test_coordinates_begin_where_the_scanned_part_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that states its scanned part is that part, at every level; a part that cannot be is not believed."""
    pixels = picture(300, 400)
    write_pyramid(tmp_path / "a.tiff", [pixels, pixels[::2, ::2]])
    properties = {"x": "64", "y": "32", "width": "200", "height": "100"}
    stated = {f"openslide.bounds-{name}": value for name, value in properties.items()}
    monkeypatch.setattr("openslide.OpenSlide.properties", stated)
    monkeypatch.setattr("tumortrace.images.readers._readers", lambda: (openslide,))  # as of a vendor that says it
    with Slide(tmp_path / "a.tiff") as slide:
        assert (slide.width, slide.height) == (200, 100)
        np.testing.assert_array_equal(slide.read_region(10, 20, 50, 30, size=(50, 30)), pixels[52:82, 74:124])
        half = slide.read_region(0, 0, 200, 100, size=(100, 50))
        np.testing.assert_array_equal(half, pixels[32:132:2, 64:264:2])
    stated["openslide.bounds-width"] = "4000"
    with Slide(tmp_path / "a.tiff") as slide:
        assert (slide.width, slide.height) == (400, 300)


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_shrinking_is_antialiased_and_does_not_depend_on_blocks(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fine chessboard becomes even grey, and reading in blocks agrees with reading at once."""
    pixels = picture(200, 300)
    pixels[:, :150] = (np.indices((200, 150)).sum(0) % 2 * 255)[..., None]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    write_pyramid(tmp_path / "a.tiff", [pixels])
    with Slide(tmp_path / name) as slide:
        whole = slide.thumbnail(75)
        monkeypatch.setattr(reading, "_BLOCK", 100)
        blocks = slide.thumbnail(75)
    assert whole.shape == (50, 75, 3)
    assert np.abs(whole[5:-5, 5:32].astype(int) - 127).max() <= 3
    reference = pixels[:, 160:].reshape(50, 4, 35, 4, 3).mean((1, 3))
    assert np.abs(whole[2:-2, 42:-2] - reference[2:-2, 2:-2]).max() <= 2
    assert np.abs(blocks.astype(int)[:, 42:] - whole[:, 42:]).max() <= 4


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    """A transparent px is white, a half transparent black one grey."""
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0, 3], pixels[0, 1, 3] = 128, 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with Slide(tmp_path / "a.png") as slide:
        assert slide.read_region(0, 0, 2, 2, size=(2, 2))[..., 0].tolist() == [[127, 0], [255, 255]]
        assert slide.read_region(-1, -1, 2, 2, size=(2, 2))[..., 0].tolist() == [[255, 255], [255, 127]]


@pytest.mark.parametrize(
    ("um", "expected", "note"),
    [
        ((0.25, 0.25), 0.25, None),
        ((0.5, 0.52), (0.5 * 0.52) ** 0.5, "not quite square"),
        ((0.5, 0.7), None, "not square"),
        ((352.8, 352.8), None, "not a microscope's"),
        ((0.01, 0.01), None, "not a microscope's"),
    ],
)
@pytest.mark.parametrize("flat", [True, False])
def test_a_resolution_is_believed_only_when_it_can_be_true(
    um: tuple[float, float], expected: float | None, note: str | None, flat: bool, tmp_path: Path
) -> None:
    """72 dpi and oblong pixels count as unknown, and the notes say so, in pyramids and flat TIFFs."""
    pixels = picture(64, 64)
    if flat:
        density = (1e4 / um[0], 1e4 / um[1])
        tifffile.imwrite(tmp_path / "a.tiff", pixels, resolution=density, resolutionunit="CENTIMETER", metadata=None)
    else:
        write_pyramid(tmp_path / "a.tiff", [pixels], um)
    with Slide(tmp_path / "a.tiff") as slide:
        assert slide.in_memory == flat
        assert slide.resolution == (expected if expected is None else pytest.approx(expected, rel=1e-4))
        assert len(slide.notes) == (note is not None)
        assert note is None or note in slide.notes[0]


def test_what_is_no_slide_is_refused_in_one_line(tmp_path: Path) -> None:
    """Missing files, folders, text and cut-off images each give a SlideError of one line."""
    (tmp_path / "text.svs").write_text("hello")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.fromarray(picture(200, 200)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:1500])
    for name in ("missing.svs", ".", "text.svs", "empty.png", "cut.jpg"):
        with pytest.raises(SlideError) as caught:
            Slide(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert "What to do" in str(caught.value)


def test_an_image_too_large_for_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit the message names the way to a slide with levels."""
    monkeypatch.setattr(plain, "read_with_facts", lambda path, **how: read_with_facts(path, max_pixels=1000, **how))
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    with pytest.raises(SlideError, match="--pyramid"):
        Slide(tmp_path / "a.png")


def test_without_openslide_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The optional library is named with the command that installs it."""
    monkeypatch.setitem(sys.modules, "openslide", None)
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    with pytest.raises(MissingDependencyError, match="pip install openslide-python openslide-bin"):
        Slide(tmp_path / "a.png")


@needs_data
@pytest.mark.parametrize("name", ["broken.svs", "unreadable.svs", "unopenable.tiff"])
def test_damaged_slides_are_refused(name: str) -> None:
    """Real damaged slides give one line, also where OpenSlide opens them and only reading fails."""
    with pytest.raises(SlideError) as caught:
        Slide(Path(str(DATA)) / "slides" / name)
    assert "\n" not in str(caught.value)


@needs_data
@pytest.mark.parametrize(
    ("name", "size", "resolution"),
    [
        ("cmu-1-small-region.svs", (2220, 2967), 0.499),
        ("small.svs", (16, 16), 0.499),
        ("boxes_0.dcm", (16, 16), 0.499),
        ("boxes.tiff", (300, 250), None),
        ("tcga-cr-7395-01a-01-ts1.svs", (4443, 3567), None),
        ("yb10kx5k.zstd.tiff", (10000, 5000), None),
        ("no-tissue.png", (512, 512), None),
    ],
)
def test_real_slides_open(name: str, size: tuple[int, int], resolution: float | None) -> None:
    """Real slides have the size and resolution that are known of them, and a thumbnail."""
    with Slide(Path(str(DATA)) / "slides" / name) as slide:
        assert (slide.width, slide.height) == size
        assert slide.resolution == (resolution if resolution is None else pytest.approx(resolution))
        thumbnail = slide.thumbnail(64)
    assert max(thumbnail.shape) == min(64, max(size))
    assert thumbnail.std() > 0


@needs_data
def test_malformed_files_are_refused_in_a_line_or_read() -> None:
    """Whatever fuzzing has done to their tags; nothing but our own errors comes out."""
    files = sorted(path for path in (Path(str(DATA)) / "malformed" / "tiff").iterdir() if path.is_file())
    read = 0
    for file in files:
        with suppress(SlideError):
            Slide(file).close()
            read += 1
    assert 0 < read < len(files)


def test_a_reader_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module beside the others opens its files, and folders are searched for them, with no list changed."""
    (tmp_path / "array_slides.py").write_text(
        "import numpy as np\n"
        "from tumortrace.images.readers import cut, levels_of\n"
        "RANK, SUFFIXES = 5, ('.npy',)\n"
        "class ArrayReader:\n"
        "    in_memory, notes, bits, kind, planes, resolution, properties = False, (), 0, 'RGB', 1, (0.5, 0.5), {}\n"
        "    def __init__(self, pixels):\n"
        "        self.pixels, self.part = pixels, (0, 0, *pixels.shape[1::-1])\n"
        "        self.levels = levels_of([pixels.shape[1::-1]])\n"
        "    def read_region(self, level, x, y, width, height):\n"
        "        return cut(self.pixels, x, y, width, height)\n"
        "    def close(self):\n"
        "        pass\n"
        "def open_reader(path, bits=None, plane=None):\n"
        "    return ArrayReader(np.load(path, mmap_mode='r')) if path.suffix == '.npy' else None\n"
    )
    monkeypatch.setattr(readers, "__path__", [*readers.__path__, str(tmp_path)])
    readers._readers.cache_clear()
    try:
        (tmp_path / "slides").mkdir()
        np.save(tmp_path / "slides" / "a.npy", picture(30, 40))
        (file,) = find_slides([tmp_path / "slides"])
        with Slide(file) as slide:
            np.testing.assert_array_equal(slide.read_region(5, 7, 20, 10, size=(20, 10)), picture(30, 40)[7:17, 5:25])
    finally:
        readers._readers.cache_clear()
