"""Published data sets in the folders in which they are distributed, small; sources in the docstrings."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.situations.situation import situation
from tumortrace.cli.main import run
from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.store import open_store
from tumortrace.errors import CohortError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUMORTRACE_CACHE", str(tmp_path / "cache"))


def draw(root: Path, *names: str, side: int = 16) -> Path:
    """Pictures that all differ."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng([number, len(name)]).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)
    return root


def by_id(cohort: Cohort, column: str) -> dict[str, object]:
    values = cohort.table[column].astype(object)
    return dict(zip(cohort.table["id"], values.where(values.notna(), None), strict=True))


def audited(data: Path, out: Path, *options: str) -> int:
    """How many images `check` counts; the store holds them all."""
    assert run(["check", str(data), "-o", str(out), *options]) in (0, 1)
    return int(json.loads((out / "audit.json").read_text())["images"])


# WILDS.


def wilds(root: Path) -> Path:
    rows = []
    for centre, patient in ((0, "004"), (1, "020"), (2, "042"), (3, "061"), (4, "099")):
        for x in (3328, 3360, 3392, 3424):
            rows.append((patient, 4, x, 21792, x // 32 % 2, centre * 10, centre, int(x == 3424)))
    columns = ["patient", "node", "x_coord", "y_coord", "tumor", "slide", "center", "split"]
    root.mkdir(parents=True)
    pd.DataFrame(rows, columns=columns).to_csv(root / "metadata.csv")
    names = [f"patches/patient_{p}_node_{n}/patch_patient_{p}_node_{n}_x_{x}_y_{y}.png" for p, n, x, y, *_ in rows]
    return draw(root, *names)


@situation(
    "layouts",
    there="CAMELYON17 of WILDS: metadata.csv and patches/patient_004_node_4/...",
    typed="tumortrace check camelyon17_v1.0",
    right="patients are groups, splits go by centre as WILDS divides them, which is said",
)
def test_wilds_camelyon17(tmp_path: Path) -> None:
    """github.com/p-lambda/wilds, wilds/datasets/camelyon17_dataset.py: names, columns, test centre 2, validation 1."""
    cohort = open_cohort(wilds(tmp_path / "camelyon17_v1.0"))
    assert cohort.layout == "wilds-camelyon17"
    assert pd.crosstab(cohort.table["center"], cohort.table["split"]).to_dict("index") == {
        centre: {name: 4 if name == split else 0 for name in ("train", "validation", "test")}
        for centre, split in {"0": "train", "1": "validation", "2": "test", "3": "train", "4": "train"}.items()
    }
    assert by_id(cohort, "group")["patch_patient_042_node_4_x_3328_y_21792"] == "042"
    assert by_id(cohort, "label")["patch_patient_042_node_4_x_3360_y_21792"] == 1
    assert any("3 patches of training slides" in note for note in cohort.notes)
    assert audited(tmp_path / "camelyon17_v1.0", tmp_path / "out") == 20
    assert open_store(cohort).images.shape == (20, 16, 16, 3)


# BreakHis.


def breakhis(root: Path) -> Path:
    home = "BreaKHis_v1/histology_slides/breast"
    names = []
    for folder, kind, code, patient in (
        ("benign/SOB/tubular_adenoma", "B", "TA", "14-4659"),
        ("benign/SOB/adenosis", "B", "A", "14-22549AB"),
        ("malignant/SOB/ductal_carcinoma", "M", "DC", "14-13412"),
        ("malignant/SOB/lobular_carcinoma", "M", "LC", "14-13412"),
    ):
        for times in (40, 100):
            stem = f"SOB_{kind}_{code}-{patient}-{times}"
            names += [f"{home}/{folder}/SOB_{kind}_{code}_{patient}/{times}X/{stem}-00{n}.png" for n in (1, 2)]
    draw(root, *names)
    rows = [(fold, 40, "train" if fold else "test", name) for name in names for fold in range(1, 6)]
    pd.DataFrame(rows, columns=["fold", "mag", "grp", "filename"]).to_csv(root / "Folds.csv", index=False)
    return root


@situation(
    "layouts",
    there="BreakHis' tree as distributed, Folds.csv with five rows a picture",
    typed="tumortrace check breakhis",
    right="class, type, patient and magnification from names; the table is passed over aloud",
)
def test_breakhis(tmp_path: Path) -> None:
    """Spanhol et al., 2016; the tree of BreaKHis_v1.tar.gz, and Folds.csv of kaggle.com/datasets/ambarish/breakhis."""
    root = breakhis(tmp_path / "breakhis")
    for data in (root, root / "BreaKHis_v1", root / "BreaKHis_v1" / "histology_slides" / "breast"):
        cohort = open_cohort(data)
        assert (cohort.layout, cohort.classes, len(cohort)) == ("published", ("benign", "malignant"), 16)
        assert sorted(cohort.table["group"].unique()) == ["14-13412", "14-22549AB", "14-4659"]
        assert by_id(cohort, "type")["SOB_B_TA-14-4659-40-001"] == "TA"
        assert by_id(cohort, "magnification")["SOB_B_TA-14-4659-100-002"] == "100"
        assert cohort.resolution is None
    assert any("Folds.csv" in note for note in open_cohort(root).notes)
    assert audited(root, tmp_path / "out") == 16


# Trees of several classes.

CRC = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
TREES = {
    "bach": [
        f"Photos/{name}/{start}00{n}.tif"
        for name, start in {"Benign": "b", "InSitu": "is", "Invasive": "iv", "Normal": "n"}.items()
        for n in (1, 2)
    ],
    "bracs": [
        f"BRACS_RoI/latest_version/{split}/{name}/BRACS_{number}_{name[2:]}_1.png"
        for name in ("0_N", "1_PB", "2_UDH", "3_FEA", "4_ADH", "5_DCIS", "6_IC")
        for split, number in (("train", 747), ("val", 1494), ("test", 1286))
    ],
    "crc": [f"NCT-CRC-HE-100K/{name}/{name}-AAAFLCL{letter}.tif" for name in CRC for letter in "AB"]
    + [f"CRC-VAL-HE-7K/{name}/{name}-TCGA-AAICEQFN.tif" for name in CRC],
    "lc25000": [
        f"lung_colon_image_set/{kind.partition('_')[0]}_image_sets/{kind}/{stem}{n}.jpeg"
        for kind, stem in {
            "lung_aca": "lungaca",
            "lung_n": "lungn",
            "lung_scc": "lungscc",
            "colon_aca": "colonca",
            "colon_n": "colonn",
        }.items()
        for n in (1, 20)
    ],
    "gleason": [
        f"{folder}/{core}/{core}_patch_{n}_class_{n % 4}.jpg"
        for folder, core in (
            ("train_validation_patches_750", "ZT111_4_A_1_12"),
            ("train_validation_patches_750", "ZT76_39_A_1_12"),
            ("test_patches_750/patho_1", "ZT80_38_A_1_1"),
            ("test_patches_750/patho_2", "ZT80_38_A_1_1"),
        )
        for n in range(4)
    ],
    "unitopatho": [
        f"800/{name}/{patient}-B2-{name.replace('.', '')}.ndpi_ROI__mpp0.44_reg000_crop_sk0000{n}"
        "_(12824,33871,1812,1812).png"
        for name in ("HP", "NORM", "TA.HG", "TA.LG", "TVA.HG", "TVA.LG")
        for n, patient in enumerate((149, 100))
    ],
    "busi": [
        f"Dataset_BUSI_with_GT/{name}/{name} ({n}){mask}.png"
        for name in ("benign", "malignant", "normal")
        for n in (1, 2)
        for mask in ("", "_mask")
    ],
    "cbis": [
        f"png/{name}/{lesion}-{split}_P_0000{n}_LEFT_CC_1.png"
        for name in ("BENIGN", "BENIGN_WITHOUT_CALLBACK", "MALIGNANT")
        for lesion, split, n in (("Mass", "Training", 1), ("Calc", "Test", 2))
    ],
}  # fmt: skip
KNOWN = {
    "bach": ("InSitu,Invasive", 0.42, 8, None),
    "bracs": ("5_DCIS,6_IC", 0.25, 21, {"BRACS_747", "BRACS_1494", "BRACS_1286"}),
    "crc": ("TUM", 0.5, 27, None),
    "lc25000": ("lung_aca,lung_scc,colon_aca", None, 10, None),
    "gleason": ("gleason_3,gleason_4,gleason_5", 0.23, 12, {"ZT111_4_A_1_12", "ZT76_39_A_1_12", "ZT80_38_A_1_1"}),
    "unitopatho": ("TA.HG,TVA.HG", 0.44, 12, {"149", "100"}),
    "busi": ("malignant", None, 6, None),
    "cbis": ("MALIGNANT", None, 6, {"P_00001", "P_00002"}),
}


@situation(
    "layouts",
    there="BACH, BRACS, NCT-CRC-HE-100K, LC25000, Gleason, UniToPatho, BUSI, CBIS-DDSM in their folders",
    typed="tumortrace check FOLDER --positive InSitu,Invasive",
    right="slides, patients, splits and um per pixel from names; without --positive the classes are listed",
)
@pytest.mark.parametrize("name", TREES)
def test_trees_of_several_classes(name: str, tmp_path: Path) -> None:
    """Layouts as the sources in `tumortrace.cohorts.layouts.published` and kaiko-ai/eva's data sets describe them."""
    positive, resolution, count, groups = KNOWN[name]
    root = draw(tmp_path / name, *TREES[name])
    with pytest.raises(CohortError, match=r"classes \(.*--positive"):
        open_cohort(root)
    cohort = open_cohort(root, positive=positive)
    assert (cohort.layout, cohort.resolution, len(cohort)) == ("published", resolution, count)
    assert cohort.positive_names == tuple(positive.split(","))
    assert groups is None or set(cohort.table["group"]) == groups
    assert (cohort.table["class_name"].isin(positive.split(",")) == (cohort.table["label"] == 1)).all()
    assert len(open_store(cohort).images) == count
    assert audited(root, tmp_path / "out", "--positive", positive) == count


def test_splits_that_the_trees_state(tmp_path: Path) -> None:
    """By folders, by microarray, by the tables beside; from a folder further down only what it says itself."""
    bracs = open_cohort(draw(tmp_path / "bracs", *TREES["bracs"]), positive="6_IC")
    assert bracs.table["split"].value_counts().to_dict() == {"train": 7, "validation": 7, "test": 7}
    crc = open_cohort(draw(tmp_path / "crc", *TREES["crc"]), positive="TUM")
    assert crc.table["split"].value_counts().to_dict() == {"train": 18, "test": 9}
    assert open_cohort(tmp_path / "crc/NCT-CRC-HE-100K", positive="TUM").table["split"].isna().all()
    gleason = open_cohort(draw(tmp_path / "gleason", *TREES["gleason"]), positive="gleason_5")
    assert gleason.table["split"].value_counts().to_dict() == {"train": 4, "validation": 4, "test": 4}
    assert any("patho_2: the same pictures" in note for note in gleason.notes)
    unito = draw(tmp_path / "unitopatho", *TREES["unitopatho"])
    images = [Path(image).name for image in TREES["unitopatho"]]
    for split, start in (("train", "149"), ("test", "100")):
        table = pd.DataFrame({"image_id": [image for image in images if image.startswith(start)], "top_label": 0})
        table.to_csv(unito / "800" / f"{split}.csv", index=False)
    cohort = open_cohort(unito, positive="TVA.HG")
    assert pd.crosstab(cohort.table["group"], cohort.table["split"]).to_numpy().tolist() == [[6, 0], [0, 6]]


def test_two_versions_of_the_same_pictures(tmp_path: Path) -> None:
    """NCT-CRC-HE-100K with and without normalised colours: one is taken."""
    extra = [name.replace("100K", "100K-NONORM") for name in TREES["crc"] if "100K" in name]
    cohort = open_cohort(draw(tmp_path / "crc", *TREES["crc"], *extra), positive="TUM")
    assert len(cohort) == 27
    assert any("left out 18 images of NCT-CRC-HE-100K-NONORM" in note for note in cohort.notes)
    alone = open_cohort(tmp_path / "crc" / "NCT-CRC-HE-100K-NONORM", positive="TUM")
    assert len(alone) == 18


def test_merged_to_two(tmp_path: Path) -> None:
    """BUSI and CBIS-DDSM by `--merge`."""
    root = draw(tmp_path / "busi", *TREES["busi"])
    assert open_cohort(root, merge=["normal=benign,normal"]).classes == ("normal", "malignant")
    root = draw(tmp_path / "cbis", *TREES["cbis"])
    cohort = open_cohort(root, merge=["benign=BENIGN,BENIGN_WITHOUT_CALLBACK"])
    assert (cohort.classes, cohort.table["label"].sum()) == (("benign", "MALIGNANT"), 2)
    assert cohort.table["split"].value_counts().to_dict() == {"train": 3, "test": 3}


# Tables and arrays.


@situation(
    "layouts",
    there="MHIST: annotations.csv with `Majority Vote Label`, images/",
    typed="tumortrace check MHIST",
    right="SSA is positive, `Partition` the split, votes a column",
)
def test_mhist(tmp_path: Path) -> None:
    """bmirds.github.io/MHIST; columns as kaiko-ai/eva reads them (classification/mhist.py)."""
    names = [f"MHIST_a{letter}{letter}.png" for letter in "abcdef"]
    root = draw(tmp_path / "MHIST", *(f"images/{name}" for name in names))
    pd.DataFrame(
        {
            "Image Name": names,
            "Majority Vote Label": ["SSA", "HP"] * 3,
            "Number of Annotators who Selected SSA (Out of 7)": [6, 1, 5, 0, 7, 2],
            "Partition": ["train"] * 4 + ["test"] * 2,
        }
    ).to_csv(root / "annotations.csv", index=False)
    cohort = open_cohort(root)
    assert (cohort.layout, cohort.classes) == ("mhist", ("HP", "SSA"))
    assert cohort.table["label"].tolist() == [1, 0] * 3
    assert cohort.table["split"].tolist() == ["train"] * 4 + ["test"] * 2
    assert audited(root, tmp_path / "out") == 6
    (root / "images" / names[0]).unlink()
    assert len(open_cohort(root)) == 5


@situation(
    "layouts",
    there="TIAToolbox: a folder a slide with Output.csv and Tile_20_0_512.jpg",
    typed="tumortrace check tiles",
    right="slides are groups; heights come from where tiles end, as `size_w` holds the height",
)
def test_tiatoolbox(tmp_path: Path) -> None:
    """tiatoolbox/wsicore/wsireader.py, `save_tiles`: columns and names; the sizes of its table are swapped."""
    root = tmp_path / "tiles"
    for slide in ("CMU-1.svs", "CMU-2.svs"):
        names = ["Tile_20_0_0.jpg", "Tile_20_64_0.jpg"]
        draw(root / slide, *names)
        rows = [(name, x, x + 64, 0, 48, 48, 64) for name, x in zip(names, (0, 64), strict=True)]
        columns = ["Tile_Name", "start_w", "end_w", "start_h", "end_h", "size_w", "size_h"]
        pd.DataFrame(rows, columns=columns).to_csv(root / slide / "Output.csv", index=False)
    cohort = open_cohort(root)
    assert (cohort.layout, cohort.table["group"].tolist()) == ("tiatoolbox", ["CMU-1.svs"] * 2 + ["CMU-2.svs"] * 2)
    assert cohort.table[["x", "y", "width", "height"]].iloc[1].tolist() == [64, 0, 64, 48]
    assert cohort.table["label"].isna().all()
    assert len(open_cohort(root / "CMU-1.svs")) == 2
    assert audited(root, tmp_path / "out") == 4


@situation(
    "layouts",
    there="the root that torchvision gives PCAM: pcam/camelyonpatch_level_2_split_train_x.h5",
    typed="tumortrace check ROOT",
    right="found from the root as from within",
)
def test_the_root_of_torchvision(tmp_path: Path) -> None:
    """torchvision.datasets.PCAM: `root/pcam/` with the six files, unpacked."""
    folder = tmp_path / "root" / "pcam"
    folder.mkdir(parents=True)
    for split in ("train", "valid", "test"):
        for kind, array in (("x", np.zeros((4, 96, 96, 3), np.uint8)), ("y", np.arange(4).reshape(4, 1, 1, 1) % 2)):
            with h5py.File(folder / f"camelyonpatch_level_2_split_{split}_{kind}.h5", "w") as file:
                file[kind] = array
    cohort = open_cohort(tmp_path / "root")
    assert (cohort.layout, cohort.resolution, len(cohort)) == ("pcam-hdf5", 0.97, 12)
