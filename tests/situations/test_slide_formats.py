"""Slides as converters and microscopes write them: read as they are meant, or refused with their reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.ndimage import gaussian_filter

from tests.situations.situation import situation
from tumortrace.errors import SlideError
from tumortrace.images.decoding import read_with_facts
from tumortrace.slides.slide import Slide

TILES: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb"}


@pytest.fixture
def pixels() -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=(300, 400, 3))
    smooth = gaussian_filter(noise, (6, 6, 0))
    return np.clip(127 + smooth / smooth.std() * 40, 0, 255).astype(np.uint8)


@situation(
    "slides",
    there="an OME-TIFF with PhysicalSizeX in any unit, levels in SubIFDs",
    typed="tumortrace scan RUN SLIDE",
    right="resolution and levels are taken from it",
)
def test_an_ome_pyramid_states_its_resolution_and_is_read_at_its_levels(tmp_path: Path, pixels: np.ndarray) -> None:
    """PhysicalSizeX in any unit; levels in SubIFDs are used."""
    stated = {"axes": "YXS", "PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm"}
    stated |= {"PhysicalSizeY": 250.0, "PhysicalSizeYUnit": "nm"}
    with tifffile.TiffWriter(tmp_path / "a.ome.tiff", ome=True) as file:
        file.write(pixels, subifds=1, metadata=stated, **TILES)
        file.write(np.full((75, 100, 3), 9, np.uint8), subfiletype=1, **TILES)
    with Slide(tmp_path / "a.ome.tiff") as slide:
        assert slide.resolution == pytest.approx(0.25)
        assert np.array_equal(slide.read_region(37, 61, 150, 130, size=(150, 130)), pixels[61:191, 37:187])
        assert (slide.read_region(0, 0, 400, 300, size=(100, 75)) == 9).all()
        assert (slide.read_region(390, 290, 20, 20, size=(20, 20))[10:] == 255).all()


@situation(
    "resolution",
    there="an ImageJ TIFF with a unit",
    typed="tumortrace scan RUN SLIDE",
    right="its resolution is taken",
)
def test_imagej_states_its_resolution(tmp_path: Path, pixels: np.ndarray) -> None:
    """Pixels per micron, with the unit in ImageJ's description."""
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, resolution=(4.0, 4.0), metadata={"unit": "micron"})
    with Slide(tmp_path / "a.tif") as slide:
        assert slide.resolution == pytest.approx(0.25)


@situation(
    "slides",
    there="a slide of 16 bits, or of 12 in 16",
    typed="tumortrace scan RUN SLIDE",
    right="the colours of its 8-bit copy",
)
@pytest.mark.parametrize("bits", [12, 16])
def test_deep_slides_have_the_colours_of_their_shallow_copy(bits: int, tmp_path: Path, pixels: np.ndarray) -> None:
    """16 bits, and 12 in 16 where the file says so."""
    deep = np.rint(pixels * ((2.0**bits - 1) / 255)).astype(np.uint16)
    tag = [(281, "H", 3, (2**bits - 1,) * 3, True)]
    tifffile.imwrite(tmp_path / "a.tif", deep, extratags=tag, metadata=None, **TILES)
    with Slide(tmp_path / "a.tif") as slide:
        assert np.array_equal(slide.read_region(5, 6, 90, 80, size=(90, 80)), pixels[6:86, 5:95])


@situation(
    "slides",
    there="a float32 TIFF",
    typed="tumortrace scan RUN SLIDE",
    right="read from 0 to 1; beyond, refused with the values there are",
)
@pytest.mark.parametrize("tiled", [True, False])
def test_floats_are_read_from_zero_to_one_or_refused_truly(tiled: bool, tmp_path: Path, pixels: np.ndarray) -> None:
    """Beyond, the message says which values there are, and not to scan the slide again."""
    options: dict[str, Any] = {"metadata": None, "photometric": "rgb"} | ({"tile": (64, 64)} if tiled else {})
    tifffile.imwrite(tmp_path / "a.tif", (pixels / 255).astype(np.float32), **options)
    with Slide(tmp_path / "a.tif") as slide:
        assert np.array_equal(slide.read_region(0, 0, 400, 300, size=(400, 300)), pixels)
    tifffile.imwrite(tmp_path / "b.tif", pixels.astype(np.float32), **options)
    with pytest.raises(SlideError, match=r"values from .* float32") as refusal:
        Slide(tmp_path / "b.tif")
    assert "scan" not in str(refusal.value)


@situation(
    "slides",
    there="colours as planes or pages, or a fourth sample of no meaning",
    typed="tumortrace scan RUN SLIDE",
    right="the same pixels as of an RGB slide",
)
def test_planes_grey_and_a_fourth_sample(tmp_path: Path, pixels: np.ndarray) -> None:
    """Colours stored as planes or as pages, and a fourth sample of no meaning, give the same pixels; grey is grey."""
    planes = np.moveaxis(pixels, -1, 0)
    fourth = np.dstack([pixels, np.zeros(pixels.shape[:2], np.uint8)])
    tifffile.imwrite(tmp_path / "a.tif", planes, planarconfig="separate", metadata=None, **TILES)
    tifffile.imwrite(tmp_path / "b.tif", fourth, extrasamples=["unspecified"], metadata=None, **TILES)
    pages = {"tile": (64, 64), "photometric": "minisblack", "metadata": {"axes": "CYX"}}
    tifffile.imwrite(tmp_path / "c.ome.tif", planes, ome=True, **pages)
    for name in ("a.tif", "b.tif", "c.ome.tif"):
        with Slide(tmp_path / name) as slide:
            assert np.array_equal(slide.read_region(0, 0, 400, 300, size=(400, 300)), pixels), name
    tifffile.imwrite(tmp_path / "d.tif", pixels[..., 0], tile=(64, 64), photometric="minisblack", metadata=None)
    with Slide(tmp_path / "d.tif") as slide:
        assert np.array_equal(slide.read_region(0, 0, 400, 300, size=(400, 300))[..., 2], pixels[..., 0])


@situation(
    "slides",
    there="a TIFF that lacks tiles, or is cut off",
    typed="tumortrace scan RUN SLIDE",
    right="refused before anything is computed, with their number",
)
@pytest.mark.parametrize("deep", [True, False])
def test_incomplete_files_are_refused_before_anything_is_computed(
    deep: bool, tmp_path: Path, pixels: np.ndarray
) -> None:
    """Tiles without bytes, and tiles beyond the end of the file, would be predicted as glass."""
    stored = pixels.astype(np.uint16) * 257 if deep else pixels
    tifffile.imwrite(tmp_path / "a.tif", stored, metadata=None, compression="zlib", **TILES)
    whole = (tmp_path / "a.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tiff:
        tag = tiff.pages[0].tags["TileByteCounts"]
        tag.overwrite([*tag.value[:10], 0, 0, *tag.value[12:]])
    (tmp_path / "b.tif").write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(SlideError, match="2 of 35 tiles are missing"):
        Slide(tmp_path / "a.tif")
    with pytest.raises(SlideError, match=r"incomplete|damaged|cannot be read"):
        Slide(tmp_path / "b.tif")


def test_levels_that_lack_tiles_are_refused_too(tmp_path: Path, pixels: np.ndarray) -> None:
    """A pyramid whose small level was never finished."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(pixels, metadata=None, **TILES)
        file.write(pixels[::2, ::2], metadata=None, subfiletype=1, **TILES)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tiff:
        tag = tiff.pages[1].tags["TileByteCounts"]
        tag.overwrite([0, *tag.value[1:]])
    with pytest.raises(SlideError, match="1 of 12 tiles are missing"):
        Slide(tmp_path / "a.tif")


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """As stored with an orientation tag, upright when the tag is heeded; by Pillow's table, backwards."""
    ways = [None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM]
    ways += [Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_90, Image.Transpose.TRANSVERSE]
    way = [*ways, Image.Transpose.ROTATE_270][orientation - 1]
    return pixels if way is None else np.asarray(Image.fromarray(pixels).transpose(way))


@situation(
    "slides",
    there="a TIFF slide whose orientation tag says that it lies on its side",
    typed="tumortrace scan RUN SLIDE",
    right="it is read upright, and a note says so; a vendor's format is refused",
)
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("tiled", [True, False])
def test_the_orientation_tag_is_heeded(orientation: int, tiled: bool, tmp_path: Path, pixels: np.ndarray) -> None:
    """Tiled, as OpenSlide would read it, or in strips: every region is that of the upright picture."""
    options: dict[str, Any] = {"photometric": "rgb", "metadata": None} | ({"tile": (64, 64)} if tiled else {})
    tag = [(274, "H", 1, orientation, True)]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(turned(pixels, orientation), extratags=tag, **options)
        if tiled:
            file.write(turned(pixels[::2, ::2], orientation), extratags=tag, subfiletype=1, **options)
    with Slide(tmp_path / "a.tif") as slide:
        assert (slide.width, slide.height) == (400, 300)
        assert np.array_equal(slide.read_region(37, 61, 150, 130, size=(150, 130)), pixels[61:191, 37:187])
        assert (slide.read_region(390, -10, 20, 20, size=(20, 20))[:10] == 255).all()
        assert any("orientation tag" in note for note in slide.notes) == (orientation != 1)


@situation(
    "slides",
    there="a vendor's slide with an orientation tag, by which OpenSlide mirrors each tile",
    typed="tumortrace scan RUN SLIDE",
    right="refused, with what to convert to",
)
def test_a_vendors_slide_with_an_orientation_is_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    """OpenSlide mirrors each tile by the tag (see findings), and viewers pass over it."""
    tag = [(274, "H", 1, 6, True)]
    told = "Aperio Image Library v1\n400x300 |MPP = 0.5"
    tifffile.imwrite(tmp_path / "a.svs", pixels, extratags=tag, description=told, metadata=None, **TILES)
    with pytest.raises(SlideError, match=r"orientation tag \(6\).*tiffset"):
        Slide(tmp_path / "a.svs")


@situation(
    "slides",
    there="a stack of planes of focus",
    typed="tumortrace scan RUN SLIDE",
    right="the middle plane is read, and a note says which",
)
@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_the_plane_of_focus_is_told(kind: str, tmp_path: Path, pixels: np.ndarray) -> None:
    """Where the file says that its pages are planes; of pages alone, the first is read and that is said."""
    stack = np.stack([pixels * 0, pixels * 0 + 9, pixels, pixels * 0, pixels * 0])
    options: dict[str, Any] = {"photometric": "rgb", "metadata": {"axes": "ZYXS"}}
    options |= {"ome": True, "tile": (64, 64)} if kind == "ome" else {"imagej": True}
    tifffile.imwrite(tmp_path / "a.tif", stack, **options)
    with Slide(tmp_path / "a.tif") as slide:
        assert np.array_equal(slide.read_region(0, 0, 400, 300, size=(400, 300)), pixels)
        assert "plane 3, the middle one of 5 planes of focus" in slide.notes[0]
    tifffile.imwrite(tmp_path / "b.tif", stack[::-1][2:], metadata=None, **TILES)
    with Slide(tmp_path / "b.tif") as slide:
        assert np.array_equal(slide.read_region(0, 0, 400, 300, size=(400, 300)), pixels)
        assert "first of 3 pictures of one size" in slide.notes[0]


@situation(
    "slides",
    there="a stack of planes of focus, of which another than the middle one is sharp",
    typed="tumortrace scan RUN SLIDE --plane 2",
    right="that plane is read, on record, and scanned anew where another was; refused where there is none",
)
@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_a_plane_of_focus_can_be_chosen(kind: str, tmp_path: Path, pixels: np.ndarray) -> None:
    stack = np.stack([pixels, pixels // 2, pixels // 3])
    options: dict[str, Any] = {"photometric": "rgb", "metadata": {"axes": "ZYXS"}}
    options |= {"ome": True, "tile": (64, 64)} if kind == "ome" else {"imagej": True}
    tifffile.imwrite(tmp_path / "a.tif", stack, **options)
    for plane, shown in ((1, stack[0]), (3, stack[2]), (None, stack[1])):
        with Slide(tmp_path / "a.tif", plane=plane) as slide:
            assert np.array_equal(slide.read_region(7, 0, 300, 200, size=(300, 200)), shown[:200, 7:307])
    with pytest.raises(SlideError, match="--plane 4; expected 1 to 3"):
        Slide(tmp_path / "a.tif", plane=4)
    tifffile.imwrite(tmp_path / "b.tif", pixels, metadata=None, **TILES)
    Image.fromarray(pixels).save(tmp_path / "c.png")
    for name in ("b.tif", "c.png"):
        with pytest.raises(SlideError, match="no planes of focus"):
            Slide(tmp_path / name, plane=1)


@situation(
    "slides",
    there="a TIFF whose first page is a thumbnail, flagged or not, the picture later or in SubIFDs",
    typed="tumortrace scan RUN SLIDE",
    right="the page of full resolution is read, and a note says so; OpenSlide shows the thumbnail",
)
@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("kind", ["flagged", "plain", "levels", "subifd"])
def test_a_thumbnail_is_not_taken_for_the_slide(kind: str, tiled: bool, tmp_path: Path, pixels: np.ndarray) -> None:
    small, half = (np.ascontiguousarray(pixels[::step, ::step]) for step in (10, 2))
    options: dict[str, Any] = {"photometric": "rgb", "metadata": None} | ({"tile": (64, 64)} if tiled else {})
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(small, subfiletype=int(kind != "plain"), subifds=int(kind == "subifd"), **options)
        file.write(pixels, **options)
        if kind == "levels":
            file.write(half, subfiletype=1, **options)
    with Slide(tmp_path / "a.tif") as slide:
        assert (slide.width, slide.height, len(slide.reader.levels)) == (400, 300, 2 if kind == "levels" else 1)
        assert np.array_equal(slide.read_region(0, 0, 400, 300, size=(400, 300)), pixels)
        assert "the page of 400 x 300 px was read, as the first (40 x 30) is small" in slide.notes[0]
    if not tiled:  # else a slide, which is no patch
        assert np.array_equal(read_with_facts(tmp_path / "a.tif")[0], pixels)


def test_a_picture_before_its_small_copies_is_read_as_ever(tmp_path: Path, pixels: np.ndarray) -> None:
    """Levels after it, and a label of another shape that is larger."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in (pixels, pixels[::2, ::2], np.zeros((500, 900, 3), np.uint8)):
            file.write(page, subfiletype=int(page.shape[0] < 300), **TILES)
    with Slide(tmp_path / "a.tif") as slide:
        assert (slide.width, slide.notes) == (400, ())


@situation(
    "slides",
    there="three samples per pixel that the photometric tag calls grey, contiguous or as planes, 8 or 16 bits",
    typed="tumortrace scan RUN SLIDE",
    right="red, green and blue, and a note; four or more are refused with what to convert to",
)
@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("tiled", [True, False])
def test_colours_that_are_called_grey(deep: bool, planes: str, tiled: bool, tmp_path: Path, pixels: np.ndarray) -> None:
    """As `tifffile.imwrite(photometric="minisblack")` writes them, and others; OpenSlide reads the red ones."""
    stored = pixels.astype(np.uint16) * 257 if deep else pixels
    options: dict[str, Any] = {"photometric": "minisblack", "planarconfig": planes, "metadata": None}
    options |= {"tile": (64, 64)} if tiled else {}

    def write(name: str, samples: np.ndarray) -> Path:
        tifffile.imwrite(tmp_path / name, samples if planes == "contig" else np.moveaxis(samples, -1, 0), **options)
        return tmp_path / name

    with Slide(write("a.tif", stored)) as slide:
        assert np.array_equal(slide.read_region(0, 0, 400, 300, size=(400, 300)), pixels)
        assert "calls grey were read as red, green and blue" in slide.notes[0]
    assert np.array_equal(read_with_facts(tmp_path / "a.tif")[0], pixels)
    with pytest.raises(SlideError, match=r"4 samples per pixel that its tag calls grey.*vips colourspace"):
        Slide(write("b.tif", np.dstack([stored, stored[..., :1]])))


@situation(
    "slides",
    there="a TIFF whose first page is smaller than a later one of another shape (a label before the slide)",
    typed="tumortrace scan RUN SLIDE",
    right="the first page is read, and a note gives both sizes",
)
def test_a_larger_page_of_another_shape_is_told(tmp_path: Path, pixels: np.ndarray) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.full((128, 128, 3), 200, np.uint8), metadata=None, **TILES)
        file.write(pixels, metadata=None, **TILES)
    with Slide(tmp_path / "a.tif") as slide:
        assert (slide.width, slide.height) == (128, 128)
        assert any("128 x 128 px" in note and "larger (400 x 300)" in note for note in slide.notes)


@situation(
    "slides",
    there="a slide in whose place a pointer of Git LFS, a web page or a server's message lies",
    typed="tumortrace scan RUN SLIDE",
    right="refused by what it is, with `git lfs pull` or to download it again",
)
@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
        ("<html>Sign in</html>", "download it again"),
        ('{"message": "internal server error"}', "download it again"),
    ],
)
def test_what_stands_in_the_place_of_a_slide_is_told(text: str, remedy: str, tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_text(text)
    with pytest.raises(SlideError, match="in place of the file") as refusal:
        Slide(tmp_path / "a.svs")
    assert remedy in str(refusal.value)
