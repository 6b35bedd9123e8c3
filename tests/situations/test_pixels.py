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
from tests.situations.models import made_model
from tests.situations.situation import situation
from tumortrace.cli.main import run
from tumortrace.cohorts.audit import check
from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.files import list_images
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.material import Material
from tumortrace.errors import CohortError, DataError, ImageError
from tumortrace.images.decoding import read_image, read_with_facts
from tumortrace.inference.predict import predict
from tumortrace.records.evaluation import EvaluationRecord, PredictRecord

pytestmark = pytest.mark.usefixtures("few_replicates")


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


def twelve_bits(picture: np.ndarray) -> np.ndarray:
    """The same picture in 12 of 16 bits."""
    return np.rint(picture * (4095 / 255)).astype(np.uint16)


@situation(
    "pixels",
    there="12 bits in 16 as the file says: MaxSampleValue, OME's SignificantBits, PNG's sBIT, DICOM's BitsStored",
    typed="tumortrace predict RUN DATA",
    right="the pixels of the 8-bit copy",
)
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


@situation(
    "pixels",
    there="RGB as three grey pages: an ImageJ composite, an OME-TIFF of axes CYX",
    typed="tumortrace predict RUN DATA",
    right="one picture in colour",
)
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


@situation(
    "pixels",
    there="a patch of several planes of focus",
    typed="tumortrace predict RUN DATA",
    right="the middle plane, and a note",
)
def test_of_a_stack_the_middle_plane_is_read_aloud(tmp_path: Path, picture: np.ndarray) -> None:
    """Planes of focus: the middle one, and the facts say so."""
    stack = np.stack([picture[..., 0] // 4, picture[..., 1], picture[..., 2] // 3])
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    pixels, facts = read_with_facts(tmp_path / "a.tif")
    assert np.array_equal(pixels[..., 1], stack[1])
    assert "middle one of 3 planes" in facts.note


@situation(
    "pixels", there="int16 TIFF", typed="tumortrace predict RUN DATA", right="32767 is white; below zero is refused"
)
def test_signed_numbers_have_half_the_range(tmp_path: Path) -> None:
    """int16: 32767 is white; below zero is refused."""
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 16384, 32767]], np.int16))
    assert read_image(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 128, 255]
    tifffile.imwrite(tmp_path / "b.tif", np.array([[-5, 32767]], np.int16))
    with pytest.raises(ImageError, match="values from -5 to 32767"):
        read_image(tmp_path / "b.tif")


@situation(
    "pixels",
    there="TIFF compressed by WebP, JPEG XL, JPEG 2000, LERC, LZMA, PNG, Zstandard",
    typed="tumortrace predict RUN DATA",
    right="read",
)
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


@situation(
    "pixels",
    there="a TIFF with a fourth sample of no stated meaning",
    typed="tumortrace predict RUN DATA",
    right="its colours as they are; a declared alpha is laid over white",
)
def test_an_unspecified_fourth_sample_is_no_transparency(tmp_path: Path, picture: np.ndarray) -> None:
    """The colours come out as they are; an alpha channel that calls itself one is still laid over white."""
    fourth = np.dstack([picture, np.zeros(picture.shape[:2], np.uint8)])
    tifffile.imwrite(tmp_path / "a.tif", fourth, photometric="rgb", extrasamples=["unspecified"])
    assert np.array_equal(read_image(tmp_path / "a.tif"), picture)
    tifffile.imwrite(tmp_path / "b.tif", fourth, photometric="rgb", extrasamples=["unassalpha"])
    assert (read_image(tmp_path / "b.tif") == 255).all()


@situation(
    "pixels",
    there="a TIFF whose writing was broken off",
    typed="tumortrace check DATA",
    right="refused, not filled with black",
)
def test_missing_strips_are_no_picture(tmp_path: Path, picture: np.ndarray) -> None:
    """A TIFF of 16 bits of which a strip is missing is refused, not filled with black."""
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, picture.astype(np.uint16) * 257, photometric="rgb", rowsperstrip=10)
    with tifffile.TiffFile(file, mode="r+b") as tiff:
        tag = tiff.pages[0].tags["StripByteCounts"]
        tag.overwrite([0, *tag.value[1:]])
    with pytest.raises(ImageError, match="1 of 4 strips are missing"):
        read_image(file)


@situation(
    "pixels",
    there="a whole slide among the patches",
    typed="tumortrace predict RUN SLIDE",
    right="refused, and `scan` is named; the API likewise",
)
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


@situation(
    "pixels",
    there="DICOM with a VOI look-up table of 8-bit entries, two to a word or padded",
    typed="tumortrace check DATA",
    right="one picture, whose grey rises with the value",
)
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


@situation(
    "pixels",
    there="DICOM without an ending, as .IMA or .dicom, or without its preamble",
    typed="tumortrace check DATA",
    right="known by its content",
)
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


def deep_copies(folder: Path, count: int = 6, kind: str = "twelve") -> Path:
    """Pictures of two classes, as 8 bits or as 12 in 16 that no file states."""
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        place = folder / ("benign" if number % 2 else "malignant")
        place.mkdir(parents=True, exist_ok=True)
        stored = {"twelve": twelve_bits(pixels), "full": pixels.astype(np.uint16) * 257, "eight": pixels}[kind]
        (place / f"{number}.png").write_bytes(imagecodecs.png_encode(stored))
    return folder


@situation(
    "pixels",
    there="12 bits in PNG or TIFF of 16, which no file states",
    typed="tumortrace predict RUN DATA, or train, evaluate, stress, explain",
    right="refused, with count and example: say --bits 12, or --bits 16 if they are dark",
)
@pytest.mark.parametrize("verb", ["predict", "evaluate", "stress", "sheet", "images", "train", "crossval", "check"])
def test_bits_that_nothing_states_are_asked_for(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Every verb in the same words."""
    data = deep_copies(tmp_path / "data", 40 if verb in ("train", "crossval") else 6)
    model = str(made_model(tmp_path / "model"))
    words = {
        "sheet": ["explain", model, str(data), "--sheet"],
        "images": ["explain", model, str(data / "benign" / "1.png")],
        "train": ["train", str(data)],
        "crossval": ["crossval", str(data), "--folds", "2"],
        "check": ["check", str(data)],
    }.get(verb, [verb, model, str(data)])
    assert run([*words, "-o", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    told = captured.out + captured.err
    assert "may be read much too dark" in told
    assert "--bits 12" in told
    assert "--bits 16" in told


@situation(
    "pixels",
    there="the same pictures in 8 bits, in 12 of 16, and in 16, mixed",
    typed="tumortrace predict RUN DATA --bits 12",
    right="one answer for each picture, whatever it is stored as",
)
def test_with_bits_said_copies_get_one_answer(tmp_path: Path) -> None:
    """Also without the option where the model was trained with it, and in one folder with each kind."""
    model = made_model(tmp_path / "model")
    told = made_model(tmp_path / "told", bits=12)
    expected = predict(model, deep_copies(tmp_path / "eight", kind="eight"))["probability"].tolist()
    deep = deep_copies(tmp_path / "twelve")
    assert predict(model, deep, bits=12)["probability"].tolist() == expected
    assert predict(told, deep)["probability"].tolist() == expected
    assert run(["predict", str(model), str(deep), "--bits", "12", "-o", str(tmp_path / "a.csv")]) == 0
    mixed = deep_copies(tmp_path / "mixed")
    for number, kind in ((0, "eight"), (1, "full"), (2, "full")):
        place = "benign" if number % 2 else "malignant"
        source = deep_copies(tmp_path / f"as-{kind}", kind=kind) / place / f"{number}.png"
        (mixed / place / f"{number}.png").write_bytes(source.read_bytes())
    assert predict(model, mixed, bits=12)["probability"].tolist() == expected


def test_dark_pictures_of_sixteen_bits_are_read_so_where_that_is_said(tmp_path: Path) -> None:
    """`--bits 16` reads by the range of the type; `--bits 10` is contradicted by the values."""
    data = deep_copies(tmp_path / "data", 2)
    model = made_model(tmp_path / "model")
    assert len(predict(model, data, bits=16)) == 2
    with pytest.raises(DataError, match=r"values up to 4\d+"):
        predict(model, data, bits=10)
    for wrong in (8, 17):
        with pytest.raises(CohortError, match="9 to 16"):
            predict(model, data, bits=wrong)


def test_dicom_without_a_window_takes_bits_too(tmp_path: Path, picture: np.ndarray) -> None:
    """12 bits stored as 16 of 16, unsigned and signed."""
    grey = picture[..., 0]
    dicom(tmp_path / "a.dcm", twelve_bits(grey), 16)
    assert np.array_equal(read_image(tmp_path / "a.dcm", 12)[..., 0], grey)
    signed = (twelve_bits(grey).astype(np.int32) - 2048).astype(np.int16)
    dicom(tmp_path / "b.dcm", signed, 16, PixelRepresentation=1)
    assert np.array_equal(read_image(tmp_path / "b.dcm", 12)[..., 0], grey)


@situation(
    "pixels",
    there="patches of which some are turned by EXIF, of several pages, or four times too large",
    typed="tumortrace predict RUN DATA",
    right="answered, with a line for each kind: how many, and which first",
)
def test_what_decoding_shows_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the terminal and in the record beside the table; by `evaluate` in its record."""
    monkeypatch.setattr("tumortrace.inference.evaluate.write_report", lambda folder: folder)
    data = deep_copies(tmp_path / "data", kind="eight")
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = Image.open(data / "benign" / "1.png")
    pixels.save(data / "benign" / "1.png", exif=exif)
    pixels.resize((128, 128)).save(data / "benign" / "3.png")
    pages = [Image.open(data / "malignant" / f"{n}.png") for n in (0, 2)]
    pages[0].save(data / "malignant" / "0.png", "TIFF", save_all=True, append_images=pages[1:])
    out = tmp_path / "out.csv"
    assert run(["predict", str(made_model(tmp_path / "model")), str(data), "-o", str(out)]) == 0
    told = capsys.readouterr().err
    lines = (
        "1 image with an EXIF orientation: shown turned or mirrored against the pixels (1)",
        "1 image has to shrink by more than 2 to 32x32 pixels, and what is fine in them is lost (3)",
        "1 file with several pictures, of which only one is read",
    )
    record = PredictRecord.read_file(Path(f"{out}.json"))
    for line in lines:
        assert line in told
        assert any(line in note for note in record.notes)
    assert run(["evaluate", str(tmp_path / "model"), str(data), "-o", str(tmp_path / "e")]) == 0
    notes = EvaluationRecord.read(tmp_path / "e").notes
    assert all(any(line in note for note in notes) for line in lines)


@situation(
    "pixels",
    there="masks among the patches, with names that do not tell",
    typed="tumortrace train DATA",
    right="refused until allowed by `--allow mask-like`",
)
def test_masks_among_the_patches_are_asked_about(tmp_path: Path) -> None:
    """A mask is no patch: refused until allowed."""
    data = deep_copies(tmp_path / "data", kind="eight")
    mask = np.zeros((32, 32), np.uint8)
    mask[8:20, 8:20] = 255
    Image.fromarray(mask).save(data / "benign" / "outlined.png")
    model = made_model(tmp_path / "model")
    with pytest.raises(DataError, match=r"mask-like: 1 image of two grey values.*--allow mask-like"):
        predict(model, data)
    assert len(predict(model, data, allow=["mask-like"])) == 7


@situation(
    "runs",
    there="one damaged file among many",
    typed="tumortrace predict RUN DATA",
    right="all rows are written, its own with a reason instead of a probability; exit code 1",
)
def test_one_broken_file_costs_one_row(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in an evaluation, whose record says so; where none is left, nothing is written."""
    monkeypatch.setattr("tumortrace.inference.evaluate.write_report", lambda folder: folder)
    data = deep_copies(tmp_path / "data", kind="eight")
    model = made_model(tmp_path / "model")
    whole = predict(model, data).set_index("id")["probability"]
    broken = data / "benign" / "3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    for _ in range(2):  # decoded, and from the cache
        assert run(["predict", str(model), str(data), "-o", str(tmp_path / "out.csv")]) == 1
        told = capsys.readouterr().err
        assert "1 of 6 images cannot be read and are left out, such as 3: damaged or truncated" in told
        assert "6 rows in" in told
        table = pd.read_csv(tmp_path / "out.csv", dtype={"id": str}).set_index("id")
        assert "truncated" in table.loc["3", "reason"]
        assert np.isnan(table.loc["3", "probability"])
        assert table["reason"].isna().sum() == 5
        np.testing.assert_allclose(table["probability"].drop("3"), whole.drop("3").astype(float), atol=1e-9)
    assert run(["evaluate", str(model), str(data), "-o", str(tmp_path / "e")]) == 1
    record = EvaluationRecord.read(tmp_path / "e")
    assert (record.data.images, record.data.unreadable) == (5, 1)
    assert any(note.startswith("warning: 1 of 6 images cannot be read") for note in record.notes)
    for file in data.rglob("*.png"):
        file.write_bytes(b"nothing")
    assert run(["predict", str(model), str(data), "-o", str(tmp_path / "out.csv")]) == 1
    assert "6 of 6 images cannot be decoded" in capsys.readouterr().err


@situation(
    "runs",
    there="sample_submission.csv whose ids carry the files' ending, such as abc.tif",
    typed="tumortrace predict RUN DATA --submission",
    right="matched as in training, and written as they stand there; one broken file refuses all",
)
def test_ids_of_a_submission_with_endings(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "test").mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / ("train" if number < 2 else "test") / f"00{number}.tif")
    (tmp_path / "data" / "train_labels.csv").write_text("id,label\n000.tif,0\n001.tif,1\n")
    (tmp_path / "data" / "sample_submission.csv").write_text("id,label\n003.tif,0\n002.tif,0\n")
    words = ["predict", str(made_model(tmp_path / "model")), str(tmp_path / "data"), "--submission"]
    assert run([*words, "-o", str(tmp_path / "s.csv")]) == 0
    assert pd.read_csv(tmp_path / "s.csv")["id"].tolist() == ["003.tif", "002.tif"]
    (tmp_path / "data" / "test" / "002.tif").write_bytes(b"II*\0nothing")
    (tmp_path / "s.csv").unlink()
    assert run([*words, "-o", str(tmp_path / "s.csv")]) == 1
    assert not (tmp_path / "s.csv").exists()
    assert "1 of 2 images cannot be decoded: 002.tif" in capsys.readouterr().err


@situation(
    "pixels",
    there="the same kinds among the images of a training",
    typed="tumortrace train DATA, crossval, tune, features, prepare or explore",
    right="a line for each in the run's notes or on the terminal",
)
def test_training_and_looking_tell_it_too(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """What a run keeps as the audit's notes, and what verbs without a model say; they refuse doubtful bits."""
    data = deep_copies(tmp_path / "data", 12, kind="eight")
    large = data / "benign" / "3.png"
    Image.open(large).resize((128, 128), Image.Resampling.NEAREST).save(large)
    line = "1 image has to shrink by more than 2 to 32x32 pixels, and what is fine in them is lost (3)"
    material = Material(open_cohort(data))
    admission = material.audit(material.divide("random", 0, None), split="random", allow=[])
    assert line in admission.lines
    for words in (
        ["features", str(data), "-o", str(tmp_path / "f.csv"), "--descriptors", "intensity"],
        ["prepare", str(data), str(tmp_path / "p"), "--size", "16", "--before-after", "0"],
    ):
        assert run(words) == 0
        assert line in capsys.readouterr().err
    deep = deep_copies(tmp_path / "deep")
    for words in (
        ["features", str(deep), "-o", str(tmp_path / "g.csv")],
        ["prepare", str(deep), str(tmp_path / "q"), "--size", "16"],
        ["explore", str(deep), "-o", str(tmp_path / "x")],
    ):
        assert run(words) == 1
        assert "say --bits 12" in capsys.readouterr().err
    assert run(["prepare", str(deep), str(tmp_path / "r"), "--size", "32", "--before-after", "0", "--bits", "12"]) == 0
    assert np.array_equal(read_image(next((tmp_path / "r").rglob("*1.png"))), read_image(deep / "benign" / "1.png", 12))


def test_sixteen_bits_in_pgm_are_asked_about_too(tmp_path: Path) -> None:
    """A grey map whose largest value is said to be 65535, of 12 bits."""
    values = np.arange(0, 4096, 16, dtype=">u2")[None]
    (tmp_path / "a.pgm").write_bytes(b"P5\n256 1\n65535\n" + values.tobytes())
    (tmp_path / "b.pgm").write_bytes(b"P5\n256 1\n4095\n" + values.tobytes())
    assert read_with_facts(tmp_path / "a.pgm")[1].bits == 12
    wanted = np.rint(values[0] * (255 / 4095))
    assert np.abs(read_image(tmp_path / "a.pgm", 12)[0, :, 0] - wanted).max() <= 1
    assert np.abs(read_image(tmp_path / "b.pgm")[0, :, 0] - wanted).max() <= 1


@situation(
    "pixels",
    there="a TIFF of three grey pages of one size, of which nothing says whether they are colours or planes",
    typed="tumortrace predict RUN DATA",
    right="refused: to be saved as RGB, or page by page",
)
def test_three_grey_pages_are_not_guessed(tmp_path: Path) -> None:
    pages = np.random.default_rng(0).integers(0, 256, (3, 40, 50), np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in pages:
            file.write(page, photometric="minisblack", metadata=None, contiguous=False)
    with pytest.raises(ImageError, match="three grey pages of one size"):
        read_image(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", pages, imagej=True, metadata={"axes": "ZYX"})
    assert np.array_equal(read_image(tmp_path / "b.tif")[..., 0], pages[1])


def test_a_slide_among_patches_is_told_with_what_to_do(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    with tifffile.TiffWriter(tmp_path / "slide.tif") as file:
        file.write(full, tile=(128, 128), photometric="rgb", subifds=0)
        file.write(full[::2, ::2].copy(), tile=(128, 128), photometric="rgb", subfiletype=1)
    assert run(["predict", str(small_run), str(tmp_path / "slide.tif"), "-o", str(tmp_path / "p.csv")]) == 1
    assert "tumortrace scan" in capsys.readouterr().err.replace("\n", " ")
