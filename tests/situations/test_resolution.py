"""Resolution of patches: a model meets images of another one, and says so before it answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from tests.images.test_dicom import dicom
from tests.situations.models import made_model
from tests.situations.situation import situation
from tumortrace.cli.main import run
from tumortrace.errors import DataError
from tumortrace.images.decoding import fit_resolution, read_with_facts
from tumortrace.inference.predict import predict
from tumortrace.records.evaluation import EvaluationRecord, PredictRecord

SIDE, TRAINED = 32, 0.97
SMALL = round(SIDE * TRAINED / 0.25) + 8  # px of an image of .25 um/px that shows a little more than a patch


def pictures(folder: Path, count: int = 6, side: int = SMALL, **options: object) -> Path:
    """Pictures of two classes, in folders."""
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
        place = folder / ("benign" if number % 2 else "malignant")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number}.png", **options)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return made_model(tmp_path / "model", size=SIDE, resolution=TRAINED)


@situation(
    "resolution",
    there="images of .25 um/px and a model that learnt from .97",
    typed="tumortrace predict RUN DATA --resolution 0.25",
    right="refused with both numbers; --resample and --allow resolution-mismatch are named",
)
@pytest.mark.parametrize("verb", ["predict", "evaluate", "stress", "sheet"])
def test_another_resolution_is_refused(verb: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = pictures(tmp_path / "data")
    words = {"sheet": ["explain", str(model), str(data), "--sheet"]}.get(verb, [verb, str(model), str(data)])
    assert run([*words, "-o", str(tmp_path / "out.csv"), "--resolution", "0.25"]) == 1
    line = capsys.readouterr().err
    assert "6 images have 0.25 um per pixel, the patches that the model learnt from 0.97" in line
    assert "--resample" in line
    assert "--allow resolution-mismatch" in line
    assert not (tmp_path / "out.csv").exists()


@situation(
    "resolution",
    there="the same images",
    typed="tumortrace predict RUN DATA --resolution 0.25 --resample",
    right="the middle of each, resampled once to .97, is what the model sees; on record",
)
def test_resampled_images_show_what_patches_show(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The same answers as of images that were resampled beforehand by Pillow, box and filter worked out by hand."""
    data, out = pictures(tmp_path / "data"), tmp_path / "out.csv"
    assert run(["predict", str(model), str(data), "-o", str(out), "--resolution", "0.25", "--resample"]) == 0
    span = SIDE * TRAINED / 0.25
    edge = (SMALL - span) / 2
    for file in data.rglob("*.png"):
        image = Image.open(file).resize((SIDE, SIDE), Image.Resampling.LANCZOS, (edge, edge, edge + span, edge + span))
        image.save(file)
    expected = predict(model, data, resolution=TRAINED)
    table = pd.read_csv(out)
    np.testing.assert_allclose(table["probability"], expected["probability"].astype(float), atol=1e-6)
    record = PredictRecord.read_file(Path(f"{out}.json"))
    assert (record.data.resolution, record.data.resampled) == (0.25, 0.97)
    assert "--resample" in record.command
    assert any("resampled to 0.97 um per pixel" in note for note in record.notes)


def test_going_on_is_on_record(model: Path, tmp_path: Path) -> None:
    """`--allow resolution-mismatch`, in the evaluation's record and report."""
    data, out = pictures(tmp_path / "data"), tmp_path / "out"
    words = ["evaluate", str(model), str(data), "-o", str(out), "--resolution", "0.25"]
    assert run([*words, "--allow", "resolution-mismatch"]) == 0
    record = EvaluationRecord.read(out)
    note = next(note for note in record.notes if "gone on with" in note)
    assert "6 images have 0.25 um per pixel, the patches that the model learnt from 0.97" in note
    assert "--allow resolution-mismatch" in record.command
    assert record.data.resampled is None
    assert "gone on with, as was allowed" in (out / "report.html").read_text()


def test_what_is_allowed_in_vain_is_told(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A slip in the name of a finding does not pass in silence: nothing was gone on in spite of."""
    data, out = pictures(tmp_path / "data"), tmp_path / "out.csv"
    words = ["predict", str(model), str(data), "-o", str(out), "--resolution", str(TRAINED)]
    assert run([*words, "--allow", "resolution-missmatch"]) == 0
    assert "--allow resolution-missmatch changes nothing" in capsys.readouterr().err


@situation(
    "resolution",
    there="two evaluations on the same images, one resampled, one in spite of resolution-mismatch",
    typed="tumortrace compare EVALUATION EVALUATION",
    right="compared, with a warning of what each model saw, in the report too",
)
def test_a_comparison_says_that_models_saw_images_otherwise(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tumortrace.inference.evaluate.write_report", lambda folder: folder)
    data = pictures(tmp_path / "data")
    for name, words in (("a", ["--resample"]), ("b", ["--allow", "resolution-mismatch"]), ("c", ["--resample"])):
        told = "0.25" if name != "c" else "0.3"
        command = ["evaluate", str(model), str(data), "-o", str(tmp_path / name), "--resolution", told, *words]
        assert run(command) == 0
    assert EvaluationRecord.read(tmp_path / "b").data.in_spite == ["resolution-mismatch"]
    capsys.readouterr()
    folders = {name: str(tmp_path / name) for name in "abc"}
    assert run(["compare", folders["a"], folders["b"], "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert f"resolutions (made ({folders['a']}) resampled to 0.97 um per pixel, made ({folders['b']}) as they" in said
    assert "was measured in spite of resolution-mismatch" in said
    assert "in spite of resolution-mismatch" in (tmp_path / "out" / "compare.html").read_text()
    assert run(["compare", folders["a"], folders["c"], "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert "taken to have 0.25 and 0.3 um per pixel, of which one is true at most" in said
    assert "other resolutions" not in said


@pytest.mark.parametrize(
    ("resolution", "answered"), [(0.97, True), (1.16, True), (1.17, False), (0.78, True), (0.77, False)]
)
def test_a_fifth_is_where_it_begins(resolution: float, answered: bool, model: Path, tmp_path: Path) -> None:
    """Off by more than 20 %, not by less."""
    data = pictures(tmp_path / "data", side=SIDE)
    if answered:
        assert len(predict(model, data, resolution=resolution)) == 6
    else:
        with pytest.raises(DataError, match="resolution-mismatch"):
            predict(model, data, resolution=resolution)


def test_unknown_on_one_side_is_as_before(model: Path, tmp_path: Path) -> None:
    """Data that state none, and a model that states none."""
    data = pictures(tmp_path / "data")
    assert len(predict(model, data)) == 6
    other = made_model(tmp_path / "other", size=SIDE)
    assert len(predict(other, data, resolution=0.25)) == 6
    assert run(["predict", str(other), str(data), "-o", str(tmp_path / "a.csv"), "--resample"]) == 1


@situation(
    "resolution",
    there="a table with a column mpp, one image of .25 among those of .97",
    typed="tumortrace predict RUN TABLE",
    right="refused: 1 image, by name; with --resample each is resampled by its own number",
)
def test_a_table_states_the_resolution_of_each_image(model: Path, tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", count=2)
    files = sorted(data.rglob("*.png"))
    small = np.random.default_rng(9).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(small).save(files[0])
    rows = [f"{files[0]};a;0,97", f"{files[1]};b;0,25"]
    table = tmp_path / "images.csv"
    table.write_text("\n".join(["path;id;mpp", *rows]))
    with pytest.raises(DataError, match=r"1 image has 0\.25 um per pixel.* \(b\)"):
        predict(model, table)
    answers = predict(model, table, resample=True)
    Image.fromarray(fit_resolution(np.asarray(Image.open(files[1])), (SIDE, SIDE), TRAINED / 0.25)).save(files[1])
    plain = predict(model, data, resolution=TRAINED).set_index("id")
    same = plain.loc[[file.stem for file in files], "probability"].to_numpy(float)
    np.testing.assert_allclose(answers["probability"].to_numpy(float), same, atol=1e-6)


def test_images_that_show_too_little_have_no_answer(model: Path, tmp_path: Path) -> None:
    """40 px of .25 um are 10 um, and a patch shows 31: a reason instead of an invented margin."""
    data = pictures(tmp_path / "data", count=4)
    tiny = sorted(data.rglob("*.png"))[0]
    Image.new("RGB", (40, 40), (180, 90, 120)).save(tiny)
    table = predict(model, data, resolution=0.25, resample=True).set_index("id")
    assert "show less than a patch" in table.loc[tiny.stem, "reason"]
    assert table["probability"].notna().sum() == 3


def test_files_state_their_resolution(tmp_path: Path) -> None:
    """OME, ImageJ, DICOM and a microscope's dots per inch are believed, a screen's or a printer's are not."""
    grey = np.random.default_rng(0).integers(0, 256, (20, 20), np.uint8)
    ome = {
        "axes": "YX",
        "PhysicalSizeX": 250,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 250,
        "PhysicalSizeYUnit": "nm",
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", grey, metadata=ome)
    tifffile.imwrite(tmp_path / "b.tif", grey, imagej=True, resolution=(2, 2), metadata={"unit": "um"})
    tifffile.imwrite(tmp_path / "c.tif", grey, resolution=(40000, 40000), resolutionunit="CENTIMETER", metadata=None)
    Image.fromarray(grey).save(tmp_path / "d.png", dpi=(101600, 101600))
    dicom(tmp_path / "e.dcm", grey, 8, PixelSpacing=[0.5, 0.5])
    for name, wanted in {"a.ome.tif": 0.25, "b.tif": 0.5, "c.tif": 0.25, "d.png": 0.25, "e.dcm": 500}.items():
        assert read_with_facts(tmp_path / name)[1].resolution == pytest.approx(wanted, rel=1e-3), name
    for number, dpi in enumerate((72, 96, 300, 2400)):
        Image.fromarray(grey).save(tmp_path / f"{number}.png", dpi=(dpi, dpi))
        assert read_with_facts(tmp_path / f"{number}.png")[1].resolution is None
    assert read_with_facts(tmp_path / "0.png")[1].resolution is None


def test_files_that_state_another_resolution_are_refused(model: Path, tmp_path: Path) -> None:
    """Without an option, as the files say it."""
    data = pictures(tmp_path / "data", dpi=(101600, 101600))
    with pytest.raises(DataError, match=r"6 images have 0\.25 um per pixel"):
        predict(model, data)
