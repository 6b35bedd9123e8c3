"""Faults planted one at a time into a small sound cohort: each is found, in the right files, and nothing else is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter

from tumortrace.cohorts.audit import check
from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.findings import Finding

SPLITS = {"A": "train", "B": "train", "C": "train", "D": "validation", "E": "calibration", "F": "test"}
SIDE = 48
Fault = Callable[[Path, pd.DataFrame], "pd.DataFrame | None"]
FAULTS: list[tuple[Fault, str, str, set[str]]] = []


def fault(name: str, verdict: str, *ids: str) -> Callable[[Fault], Fault]:
    """Register a fault with the finding that must name it and the ids that it must show."""

    def add(plant: Fault) -> Fault:
        FAULTS.append((plant, name, verdict, set(ids)))
        return plant

    return add


def tissue(rng: np.random.Generator, side: int = SIDE) -> Image.Image:
    """A picture with detail of all sizes in the colours of haematoxylin and eosin."""
    layers = [gaussian_filter(rng.normal(size=(side, side)), width) * width for width in (0.5, 1, 2, 5)]
    shade = np.sum(layers, axis=0) / np.std(np.sum(layers, axis=0))
    colours = np.array([185, 110, 160]) + shade[..., None] * np.array([25, 30, 18])
    return Image.fromarray(colours.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures of six slides, both classes in each, with their table."""
    folder = tmp_path_factory.mktemp("sound")
    rng = np.random.default_rng(5)
    rows = []
    for group, split in SPLITS.items():
        for number in range(10):
            tissue(rng).save(folder / f"{group}{number}.png")
            rows.append({"id": f"{group}{number}", "file": f"{group}{number}.png", "label": str(number % 2)})
            rows[-1] |= {"group": group, "split": split, "scanner": "xy"[number % 3 % 2]}
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    return folder


@pytest.fixture
def cohort(sound: Path, tmp_path: Path) -> Path:
    """A copy of it to plant a fault in."""
    return shutil.copytree(sound, tmp_path / "planted")


def names(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.name for finding in findings]


def test_nothing_is_found_where_nothing_is_planted(cohort: Path) -> None:
    """No error, no warning and no note."""
    assert names(check(cohort).findings) == []


# Files


@fault("files-missing", "error", "A0", "B3")
def missing_files(folder: Path, table: pd.DataFrame) -> None:
    (folder / "A0.png").unlink()
    (folder / "B3.png").unlink()


@fault("files-unlabelled", "warning", "extra.png")
def file_without_a_row(folder: Path, table: pd.DataFrame) -> None:
    tissue(np.random.default_rng(9)).save(folder / "extra.png")


@fault("unreadable", "error", "A1")
def not_an_image(folder: Path, table: pd.DataFrame) -> None:
    (folder / "A1.png").write_bytes(b"<html>404 Not Found</html>")


@fault("unreadable", "error", "A2")
def empty_file(folder: Path, table: pd.DataFrame) -> None:
    (folder / "A2.png").write_bytes(b"")


@fault("unreadable", "error", "A3")
def flipped_bytes(folder: Path, table: pd.DataFrame) -> None:
    content = bytearray((folder / "A3.png").read_bytes())
    content[200:260] = bytes(60)
    (folder / "A3.png").write_bytes(content)


@fault("truncated", "error", "B1")
def truncated_png(folder: Path, table: pd.DataFrame) -> None:
    cut(folder / "B1.png")


@fault("truncated", "error", "B2")
def truncated_jpeg(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    table = saved_as(folder, table, "B2", ".jpg")
    cut(folder / "B2.jpg")
    return table


@fault("truncated", "error", "B4")
def truncated_tiff(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    table = saved_as(folder, table, "B4", ".bmp")
    cut(folder / "B4.bmp")
    return table


@fault("wrong-format", "warning", "C1", "C2")
def jpegs_named_png(folder: Path, table: pd.DataFrame) -> None:
    for identity in ("C1", "C2"):
        Image.open(folder / f"{identity}.png").save(folder / f"{identity}.png", "JPEG", quality=90)


@fault("wrong-format", "warning", "C3")
def tiff_named_png(folder: Path, table: pd.DataFrame) -> None:
    Image.open(folder / "C3.png").save(folder / "C3.png", "TIFF")


# Forms


@fault("odd-size", "warning", "A0", "D1")
def odd_sizes(folder: Path, table: pd.DataFrame) -> None:
    for identity, size in (("A0", (SIDE, 30)), ("D1", (20, SIDE))):
        change(folder, identity, lambda image, size=size: image.crop((0, 0, *size)))


@fault("images-grey", "note", "A4", "D4")
def grey_among_colour(folder: Path, table: pd.DataFrame) -> None:
    change(folder, "A4", lambda image: image.convert("L"))
    change(folder, "D4", lambda image: image.convert("L").convert("RGB"))


@fault("mode-rgba", "note", "A5")
def alpha_channel(folder: Path, table: pd.DataFrame) -> None:
    change(folder, "A5", lambda image: image.convert("RGBA"))


@fault("mode-palette", "note", "A6")
def palette(folder: Path, table: pd.DataFrame) -> None:
    change(folder, "A6", lambda image: image.quantize(200))


@fault("mode-cmyk", "warning", "A7")
def printing_colours(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    Image.open(folder / "A7.png").convert("CMYK").save(folder / "A7.tif")
    return renamed(folder, table, "A7", ".tif")


@fault("mode-16-bit", "warning", "A8")
def sixteen_bits(folder: Path, table: pd.DataFrame) -> None:
    import imagecodecs

    pixels = np.asarray(Image.open(folder / "A8.png"), np.uint16) * 257
    (folder / "A8.png").write_bytes(imagecodecs.png_encode(pixels))


@fault("exif-rotated", "note", "B5")
def exif_orientation(folder: Path, table: pd.DataFrame) -> None:
    image = Image.open(folder / "B5.png")
    exif = Image.Exif()
    exif[274] = 6
    image.load()
    image.save(folder / "B5.png", exif=exif)


@fault("several-frames", "warning", "B6")
def several_frames(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    more = [tissue(np.random.default_rng(seed)) for seed in (1, 2)]
    Image.open(folder / "B6.png").save(folder / "B6.tif", save_all=True, append_images=more)
    return renamed(folder, table, "B6", ".tif")


@fault("mask-like", "error", "D0", "D1")
def masks_among_the_pictures(folder: Path, table: pd.DataFrame) -> None:
    for identity in ("D0", "D1"):
        change(folder, identity, lambda image: image.convert("L").point(lambda value: 255 * (value > 130)))


# Quality


@fault("blank", "note", "A0", "E2")
def white_negatives(folder: Path, table: pd.DataFrame) -> None:
    for identity in ("A0", "E2"):  # the same picture in two splits and groups: no leak
        Image.new("RGB", (SIDE, SIDE), (243, 242, 244)).save(folder / f"{identity}.png")


@fault("blank", "warning", "B1")
def black_positive(folder: Path, table: pd.DataFrame) -> None:
    Image.new("RGB", (SIDE, SIDE)).save(folder / "B1.png")


@fault("blank", "note", "C2")
def nearly_blank(folder: Path, table: pd.DataFrame) -> None:
    noise = np.random.default_rng(0).integers(238, 246, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(noise).save(folder / "C2.png")


@fault("out-of-focus", "warning", "A3", "F4")
def out_of_focus(folder: Path, table: pd.DataFrame) -> None:
    for identity in ("A3", "F4"):
        change(folder, identity, lambda image: image.filter(ImageFilter.GaussianBlur(2)))


@fault("pen-marks", "warning", "A5", "B5")
def green_and_blue_pen(folder: Path, table: pd.DataFrame) -> None:
    for identity, colour in (("A5", (20, 120, 60)), ("B5", (20, 80, 160))):
        change(folder, identity, lambda image, colour=colour: image.paste(colour, (0, 20, SIDE, 26)) or image)


@fault("pen-marks", "warning", "C6")
def black_pen(folder: Path, table: pd.DataFrame) -> None:
    change(folder, "C6", lambda image: image.paste((22, 20, 24), (10, 0, 18, SIDE)) or image)


# Identities


@fault("ids-repeated", "warning", "B7")
def row_that_repeats(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table[table["id"] == "B7"]])


@fault("not-opened", "error")
def split_that_is_none(folder: Path, table: pd.DataFrame) -> None:
    table["split"] = table["split"].replace("test", "exam")


@fault("ids-conflict", "error", "B8")
def id_with_both_labels(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table[table["id"] == "B8"].assign(label="1")])


@fault("ids-alike", "warning", "A9", "a9")
def ids_that_differ_in_case(folder: Path, table: pd.DataFrame) -> None:
    table.loc[table["id"] == "A8", "id"] = "a9"


@fault("ids-alike", "warning", "\u00e9", "e\u0301")
def ids_that_differ_in_unicode_form(folder: Path, table: pd.DataFrame) -> None:
    table.loc[table["id"].isin(["A8", "A9"]), "id"] = ["\u00e9", "e\u0301"]


@fault("groups-alike", "warning", "A", "a")
def groups_that_differ_in_case(folder: Path, table: pd.DataFrame) -> None:
    table.loc[table["id"].isin(["A8", "A9"]), "group"] = "a"


@fault("ids-blank", "error")
def row_without_an_id(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    (folder / "C9.png").unlink()
    table.loc[table["id"] == "C9", ["id", "file"]] = ["", "C8.png"]
    return table


# Labels


@fault("labels-missing", "warning", "A0", "A1", "F3")
def blank_labels(folder: Path, table: pd.DataFrame) -> None:
    table.loc[table["id"].isin(["A0", "A1", "F3"]), "label"] = ""


@fault("labels-not-binary", "error", "A0", "A1")
def a_third_class(folder: Path, table: pd.DataFrame) -> None:
    table.loc[table["id"].isin(["A0", "A1"]), "label"] = ["2", "unsure"]


@fault("labels-spelling", "warning", "A1", "B1")
def several_spellings_that_open(folder: Path, table: pd.DataFrame) -> None:
    table["label"] = table["label"].map({"0": "normal", "1": "tumour"})
    table.loc[table["id"].isin(["A1", "B1"]), "label"] = ["TUMOUR", "Tumour"]


@fault("labels-spelling", "error", "A1", "B1")
def several_spellings_that_are_refused(folder: Path, table: pd.DataFrame) -> None:
    table["label"] = table["label"].map({"0": "normal", "1": "tumour"})
    table.loc[table["id"].isin(["A1", "B1"]), "label"] = ["TUMOUR", "1"]


@fault("class-absent", "error")
def one_class_only(folder: Path, table: pd.DataFrame) -> None:
    table["label"] = "0"


@fault("class-imbalance", "warning")
def rare_class(folder: Path, table: pd.DataFrame) -> None:
    table["label"] = table["id"].str.endswith("9").map({True: "1", False: "0"})
    table.loc[table["group"] == "A", "label"] = "0"


@fault("class-absent-in-split", "warning")
def split_without_a_class(folder: Path, table: pd.DataFrame) -> None:
    table.loc[table["group"] == "F", "label"] = "0"


# Copies


@fault("copies-conflict", "error", "A0", "A1")
def copy_with_the_other_label(folder: Path, table: pd.DataFrame) -> None:
    shutil.copy(folder / "A0.png", folder / "A1.png")


@fault("copies-across-splits", "error", "A0", "F0")
def copy_in_training_and_test(folder: Path, table: pd.DataFrame) -> None:
    shutil.copy(folder / "F0.png", folder / "A0.png")


@fault("copies-across-splits", "warning", "D0", "E0")
def copy_in_validation_and_calibration(folder: Path, table: pd.DataFrame) -> None:
    shutil.copy(folder / "D0.png", folder / "E0.png")


@fault("copies-across-groups", "warning", "A0", "B0")
def copy_in_two_groups(folder: Path, table: pd.DataFrame) -> None:
    shutil.copy(folder / "A0.png", folder / "B0.png")


@fault("copies-within-split", "warning", "A0", "A2", "A4")
def copies_in_one_group(folder: Path, table: pd.DataFrame) -> None:
    for target in ("A2", "A4"):  # other compression, same pixels
        Image.open(folder / "A0.png").save(folder / f"{target}.png", compress_level=1)


@fault("near-copies-across-splits", "error", "A0", "F0")
def compressed_copy(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    Image.open(folder / "F0.png").save(folder / "A0.jpg", quality=80)
    return renamed(folder, table, "A0", ".jpg")


@fault("near-copies-across-splits", "error", "B2", "D2")
def brighter_copy(folder: Path, table: pd.DataFrame) -> None:
    Image.open(folder / "D2.png").point(lambda value: value * 1.08 + 4).save(folder / "B2.png")


@fault("near-copies-across-splits", "error", "C4", "F4")
def turned_copy(folder: Path, table: pd.DataFrame) -> None:
    Image.open(folder / "F4.png").rotate(90).save(folder / "C4.png")


@fault("near-copies-across-groups", "warning", "A6", "C6")
def mirrored_copy(folder: Path, table: pd.DataFrame) -> None:
    Image.open(folder / "A6.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "C6.png")


@fault("near-copies-within-split", "note", "B1", "B3")
def turned_mirrored_and_compressed_copy(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    image = Image.open(folder / "B1.png").transpose(Image.Transpose.TRANSVERSE)
    image.save(folder / "B3.jpg", quality=85)
    return renamed(folder, table, "B3", ".jpg")


@fault("near-copies-conflict", "warning", "A2", "A3")
def near_copy_with_the_other_label(folder: Path, table: pd.DataFrame) -> None:
    Image.open(folder / "A2.png").rotate(180).save(folder / "A3.png")


# Groups


@fault("groups-across-splits", "error", "A", "B")
def patients_in_two_splits(folder: Path, table: pd.DataFrame) -> None:
    table.loc[table["id"].isin(["A0", "B0"]), "split"] = "test"


@fault("groups-unknown", "warning")
def unknown_groups(folder: Path, table: pd.DataFrame) -> None:
    table.loc[table["group"] == "A", "group"] = ""


@fault("group-tells-label", "warning", *"ABCDEF")
def groups_of_one_class(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    table["label"] = table["group"].isin(["A", "C", "F"]).map({True: "1", False: "0"})
    return table.drop(columns="split")


# Shortcuts


@fault("size-tells-label", "error")
def size_that_tells(folder: Path, table: pd.DataFrame) -> None:
    for identity in table.loc[table["label"] == "1", "id"]:
        change(folder, identity, lambda image: image.crop((0, 0, 40, 40)))


@fault("format-tells-label", "error")
def format_that_tells(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    for identity in table.loc[table["label"] == "1", "id"]:
        table = saved_as(folder, table, identity, ".bmp")
    return table


@fault("format-tells-label", "error")
def compression_that_tells(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    for identity, label in zip(table["id"], table["label"], strict=True):
        Image.open(folder / f"{identity}.png").save(folder / f"{identity}.jpg", quality=95 if label == "1" else 85)
        table = renamed(folder, table, identity, ".jpg")
    return table


@fault("kind-tells-label", "error")
def colour_that_tells(folder: Path, table: pd.DataFrame) -> None:
    for identity in table.loc[table["label"] == "1", "id"]:
        change(folder, identity, lambda image: image.convert("L"))


@fault("scanner-tells-label", "warning")
def scanner_column_that_tells(folder: Path, table: pd.DataFrame) -> None:
    table["scanner"] = table["label"].map({"0": "x", "1": "y"})
    table.loc[table["id"].isin(["A0", "A1", "B0", "B1"]), "scanner"] = ["y", "x", "y", "x"]


@fault("scanner-tells-label", "error")
def scanner_in_the_file_that_tells(folder: Path, table: pd.DataFrame) -> None:
    for identity, label in zip(table["id"], table["label"], strict=True):
        exif = Image.Exif()
        exif[271] = "Maker of positives" if label == "1" else "Maker of negatives"
        change(folder, identity, lambda image: image, exif=exif)


@pytest.mark.parametrize(("plant", "name", "verdict", "ids"), FAULTS, ids=[plant.__name__ for plant, *_ in FAULTS])
def test_a_planted_fault_is_found_and_nothing_else(
    cohort: Path, plant: Fault, name: str, verdict: str, ids: set[str]
) -> None:
    """The finding has its verdict, and its examples are the planted files."""
    table = pd.read_csv(cohort / "labels.csv", dtype=str)
    table = changed if (changed := plant(cohort, table)) is not None else table
    table.to_csv(cohort / "labels.csv", index=False)
    audit = check(cohort)
    assert [(found.name, found.verdict) for found in audit.findings] == [(name, verdict)], audit.findings
    assert {example.id for example in audit.findings[0].examples} == ids
    assert set(audit.quarantine["finding"]) <= {name}


def test_there_are_forty_kinds_and_more() -> None:
    """As many as were asked for."""
    assert len(FAULTS) >= 40


def test_a_picture_is_told_once_by_the_worst_of_its_copies(cohort: Path) -> None:
    """Three files of one picture, with both labels and in two splits, are one contradiction."""
    for target in ("F1", "A2"):
        shutil.copy(cohort / "A0.png", cohort / f"{target}.png")
    assert names(check(cohort).findings) == ["copies-conflict"]


def test_class_folders_and_strays(sound: Path, tmp_path: Path) -> None:
    """An image outside the class folders is a file without a label."""
    for number, file in enumerate(sorted(sound.glob("*.png"))):
        target = tmp_path / "data" / ("benign", "malignant")[number % 2] / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    shutil.copy(sound / "A0.png", tmp_path / "data" / "stray.png")
    audit = check(tmp_path / "data")
    assert names(audit.findings) == ["files-unlabelled", "groups-unknown"]
    assert [example.id for example in audit.findings[0].examples] == ["stray.png"]


def test_unlabelled_test_images_of_a_competition_are_no_fault(sound: Path, tmp_path: Path) -> None:
    """Kaggle's layout, with a row whose image is missing and an image without a row."""
    shutil.copytree(sound, tmp_path / "data" / "train")
    table = pd.read_csv(sound / "labels.csv", dtype=str)[["id", "label", "group"]]
    (tmp_path / "data" / "train" / "labels.csv").unlink()
    (tmp_path / "data" / "test").mkdir()
    tissue(np.random.default_rng(1)).save(tmp_path / "data" / "test" / "t0.png")
    table[table["id"] != "F9"].to_csv(tmp_path / "data" / "train_labels.csv", index=False)
    (tmp_path / "data" / "train" / "A0.png").unlink()
    audit = check(tmp_path / "data")
    assert names(audit.findings) == ["files-missing", "files-unlabelled", "groups-unknown"]


def test_planted_in_a_cohort_that_is_open(sound: Path) -> None:
    """A cohort made in Python has no table beside it; missing files and repeated ids are found in it all the same."""
    table = pd.read_csv(sound / "labels.csv", dtype={"id": str}).assign(path=lambda rows: f"{sound}/" + rows["file"])
    table.loc[0, "path"] = str(sound / "none.png")
    table.loc[2, "id"] = "A3"
    audit = check(Cohort("mine", "table", table, ("normal", "tumour")))
    assert names(audit.findings) == ["files-missing", "ids-conflict"]


def change(folder: Path, identity: str, how: Callable[[Image.Image], Image.Image], **options: object) -> None:
    path = folder / f"{identity}.png"
    image = Image.open(path)
    image.load()
    how(image).save(path, **options)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def saved_as(folder: Path, table: pd.DataFrame, identity: str, suffix: str) -> pd.DataFrame:
    Image.open(folder / f"{identity}.png").save(folder / f"{identity}{suffix}")
    return renamed(folder, table, identity, suffix)


def renamed(folder: Path, table: pd.DataFrame, identity: str, suffix: str) -> pd.DataFrame:
    (folder / f"{identity}.png").unlink()
    table.loc[table["id"] == identity, "file"] = f"{identity}{suffix}"
    return table
