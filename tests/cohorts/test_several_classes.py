"""More than two classes: which count as positive, and classes that become one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tumortrace.cli.main import run
from tumortrace.cohorts.cohort import Reading, Source
from tumortrace.cohorts.labels import binary_labels
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.errors import CohortError

FOUR = ("Benign", "InSitu", "Invasive", "Normal")


def folders(root: Path, names: tuple[str, ...] = FOUR, count: int = 3) -> Path:
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (12, 12), (40 * number, 9 * index, 7)).save(root / name / f"p{index}_{name}.png")
    return root


def test_positive_names_every_class_that_counts(tmp_path: Path) -> None:
    """In the order of the user; negative ones sorted before them; each image keeps its class."""
    cohort = open_cohort(folders(tmp_path / "bach"), positive="invasive, in situ")
    assert cohort.classes == ("Benign+Normal", "Invasive+InSitu")
    assert cohort.class_names == ("Benign", "Normal", "Invasive", "InSitu")
    assert cohort.positive_names == ("Invasive", "InSitu")
    assert (cohort.table["class_name"].isin(("InSitu", "Invasive")) == (cohort.table["label"] == 1)).all()
    assert any("count as positive" in note for note in cohort.notes)


def test_without_it_the_refusal_lists_classes_and_the_option(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """In one line, to be typed as it stands."""
    assert run(["check", str(folders(tmp_path / "bach")), "-o", str(tmp_path / "out")]) == 1
    line = capsys.readouterr().err
    assert "4 classes (Benign, InSitu, Invasive, Normal)" in line
    assert "--positive InSitu,Invasive" in line
    assert len(line.strip().splitlines()) == 1


def test_merge_makes_several_classes_one(tmp_path: Path) -> None:
    """Two are left, whose spelling tells which is positive; nothing else differs from two class folders."""
    root = folders(tmp_path / "busi", ("benign", "malignant", "normal"))
    cohort = open_cohort(root, merge=["normal=benign,normal"])
    assert (cohort.classes, cohort.class_names) == (("normal", "malignant"), ())
    assert "class_name" not in cohort.table
    assert cohort.table["label"].sum() == 3
    four = open_cohort(folders(tmp_path / "bach"), merge=("well=Benign,Normal",), positive="InSitu,Invasive")
    assert four.class_names == ("well", "InSitu", "Invasive")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"positive": "InStu,Invasive"}, "no class named 'InStu'"),
        ({"positive": "Benign,InSitu,Invasive,Normal"}, "names all 4 classes"),
        ({"merge": ["well=Benign,Norml"], "positive": "Invasive"}, "'Norml', which is no class"),
        ({"merge": ["Benign,Normal"], "positive": "Invasive"}, "no=benign,normal"),
        ({"merge": ["a=Benign", "b=Benign"], "positive": "Invasive"}, "'Benign' twice"),
    ],
)
def test_wrong_names_are_refused(options: dict, told: str, tmp_path: Path) -> None:
    """A name that is misspelled never falls silently on the other side."""
    with pytest.raises(CohortError, match=told):
        open_cohort(folders(tmp_path / "bach"), **options)


def test_options_are_on_record_and_open_the_data_again(tmp_path: Path) -> None:
    """Also from JSON, where a tuple becomes a list."""
    root = folders(tmp_path / "bach")
    cohort = open_cohort(root, positive="Invasive,InSitu", merge=["well=Benign,Normal"])
    assert cohort.source is not None
    arguments = json.loads(json.dumps(cohort.source.arguments()))
    assert arguments["merge"] == ["well=Benign,Normal"]
    assert Source.recorded(arguments) == cohort.source
    assert open_cohort(Source.recorded(arguments)).fingerprint == cohort.fingerprint
    other = open_cohort(root, positive="Invasive,InSitu")
    assert other.fingerprint != cohort.fingerprint != open_cohort(root, positive="Invasive").fingerprint
    assert Source.recorded({"data": "x"}) == Source("x", Reading())


def test_a_table_of_several_labels_is_audited_by_its_classes(tmp_path: Path) -> None:
    """They are neither several spellings of two classes nor no labels at all."""
    root = folders(tmp_path / "images")
    lines = [f"{path},{path.parent.name}" for path in sorted(root.rglob("*.png"))]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    out = tmp_path / "out"
    run(["check", str(tmp_path / "labels.csv"), "--positive", "InSitu,Invasive", "-o", str(out)])
    findings = {finding["name"] for finding in json.loads((out / "audit.json").read_text())["findings"]}
    assert not findings & {"labels-not-binary", "labels-spelling", "cannot-be-opened"}


def test_two_classes_are_as_before() -> None:
    """No names beyond the two."""
    labels = binary_labels(["benign", "malignant"], positive="malignant")
    assert (labels.classes, labels.class_names, labels.texts) == (("benign", "malignant"), (), None)


def test_the_options_reach_a_run(tmp_path: Path) -> None:
    """Typed beside `prepare`, whose folder opens with the classes that the images had."""
    root, out = folders(tmp_path / "bach"), tmp_path / "prepared"
    options = ["--positive", "Invasive,InSitu", "--merge", "well=Benign,Normal", "--crop", "8"]
    assert run(["prepare", str(root), str(out), *options]) == 0
    cohort = open_cohort(out)
    assert cohort.class_names == ("well", "Invasive", "InSitu")
    assert cohort.table["class_name"].value_counts()["well"] == 6
