"""CBIS-DDSM by its tables, as the archive and the edition in JPEG have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.situations.situation import situation
from tumortrace.cli.main import run
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.errors import CohortError

PATHOLOGY = ("BENIGN", "MALIGNANT", "BENIGN_WITHOUT_CALLBACK", "MALIGNANT")


def cbis(root: Path, folder: str) -> list[str]:
    """Both tables of masses with their paths to DICOM files, some of which end in a line break; returns the paths."""
    (root / folder).mkdir(parents=True)
    paths = []
    for part, first in (("Training", 0), ("Test", 12)):
        rows = []
        for number in range(first, first + 12):
            case = f"Mass-{part}_P_{number // 2:05d}_LEFT_{'CC' if number % 2 else 'MLO'}"
            cropped = f"{case}_1/1.3.6.1.{number}/1.3.6.2.{number}/000000.dcm"
            paths.append(cropped)
            rows.append(
                {
                    "patient_id": f"P_{number // 2:05d}",
                    "breast_density": 3,
                    "left or right breast": "LEFT",
                    "image view": "CC" if number % 2 else "MLO",
                    "abnormality id": 1,
                    "pathology": PATHOLOGY[number % 4],
                    "image file path": f"{case}/1.3.6.1.{number}/1.3.6.3.{number}/000000.dcm",
                    "cropped image file path": cropped + "\n" * (number % 2),
                    "ROI mask file path": cropped.replace("000000", "000001") + "\n",
                }
            )
        name = f"mass_case_description_{'train' if part == 'Training' else 'test'}_set.csv"
        pd.DataFrame(rows).to_csv(root / folder / name, index=False)
    return paths


def picture(file: Path, grey: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(grey).integers(0, 40, (40, 40))
    Image.fromarray((noise + grey).astype(np.uint8)).save(file)


@situation(
    "layouts",
    there="CBIS-DDSM's mass_case_description_train_set.csv, its images as PNG under the same paths",
    typed="tumortrace check FOLDER --merge benign=BENIGN,BENIGN_WITHOUT_CALLBACK",
    right="cropped lesions, patients, Training and Test; without --merge three classes",
)
def test_tables_of_the_archive(tmp_path: Path) -> None:
    root = tmp_path / "cbis"
    for number, path in enumerate(cbis(root, ".")):
        picture(root / path.replace(".dcm", ".png"), 5 * number)
    cohort = open_cohort(root)
    assert (cohort.layout, len(cohort), cohort.table["group"].nunique()) == ("cbis-ddsm", 24, 12)
    assert cohort.table["split"].value_counts().to_dict() == {"train": 12, "test": 12}
    assert cohort.positive_names == ("MALIGNANT",)
    assert cohort.table["label"].tolist() == [number % 2 for number in range(24)]
    merge = ["--merge", "benign=BENIGN,BENIGN_WITHOUT_CALLBACK"]
    assert run(["check", str(root), *merge, "-o", str(tmp_path / "out")]) in (0, 1)
    assert open_cohort(root, merge=merge[1:]).class_names == ()


def test_the_edition_in_jpeg_keeps_masks_beside_lesions(tmp_path: Path) -> None:
    """`dicom_info.csv` tells them apart; without pictures the line says what to do."""
    root = tmp_path / "kaggle"
    rows = []
    for number, path in enumerate(cbis(root, "csv")):
        series = path.split("/")[2]
        for name, kind in (("1-1.jpg", "ROI mask images"), ("2-2.jpg", "cropped images")):
            picture(root / "jpeg" / series / name, 5 * number)
            rows.append({"image_path": f"CBIS-DDSM/jpeg/{series}/{name}", "SeriesDescription": kind})
    with pytest.raises(CohortError, match="none of the 24 cropped images is there as PNG or JPEG"):
        open_cohort(root)
    pd.DataFrame(rows).to_csv(root / "csv" / "dicom_info.csv", index=False)
    cohort = open_cohort(root)
    assert len(cohort) == 24
    assert all(path.endswith("2-2.jpg") for path in cohort.table["path"])
