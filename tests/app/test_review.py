"""The review queue: order, what a label leaves behind, restarts, several reviewers."""

from __future__ import annotations

import copy
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tumortrace import load_model, predict
from tumortrace.app.review import Review
from tumortrace.cohorts.audit import check
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.errors import DataError
from tumortrace.models.bundle import Model


@pytest.fixture(scope="module")
def model(small_run: Path) -> Model:
    return load_model(small_run, device="cpu")


@pytest.fixture(scope="module")
def queued(tissue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of forty of the patches: half with a label, and an id that spreadsheets would change."""
    table = open_cohort(tissue).table.iloc[:40][["id", "path", "label", "group"]].astype(object)
    table["label"] = [("normal", "tumour")[label] if row % 2 else "" for row, label in enumerate(table["label"])]
    table.loc[0, "id"] = "007"
    file = tmp_path_factory.mktemp("queue") / "patches.csv"
    table.to_csv(file, index=False)
    return file


@pytest.fixture
def review(queued: Path, model: Model, tmp_path: Path) -> Iterator[Review]:
    review = started(queued, tmp_path, model)
    yield review
    review.stop()


def started(data: Path, workspace: Path, model: Model) -> Review:
    review = Review(str(data), workspace, model)
    review.start()
    assert review.wait(600)
    return review


def test_least_sure_come_first(review: Review, queued: Path, small_run: Path) -> None:
    """The order is that of the distance of the verb `predict`'s probabilities from one half."""
    said = predict(small_run, queued, device="cpu").set_index("id")["probability"]
    items = review.next("me", limit=100)
    wanted = (said - 0.5).abs().sort_values(kind="stable")
    assert [item["id"] for item in items] == wanted.index.tolist()
    assert [item["probability"] for item in items] == pytest.approx(said[wanted.index].tolist(), abs=1e-6)


def test_what_is_proposed(review: Review, queued: Path) -> None:
    """The label in the data where there is one, else what the model calls."""
    known = pd.read_csv(queued, dtype=str, keep_default_na=False).set_index("id")["label"]
    for item in review.next("me", limit=100):
        assert item["label_in_data"] == (known[item["id"]] or None)
        assert item["proposed"] == (known[item["id"]] or item["called"])


def test_the_picture_is_the_patch(review: Review, queued: Path) -> None:
    """A patch has the pixels of its file."""
    paths = pd.read_csv(queued, dtype=str).set_index("id")["path"]
    item = review.next("me", limit=1)[0]
    assert np.array_equal(review.pixels(item["key"]), np.asarray(Image.open(paths[item["id"]]).convert("RGB")))


def test_labels_survive_a_restart_and_leave_the_queue(queued: Path, model: Model, tmp_path: Path) -> None:
    """After a restart the labels stand, their patches are not asked for again, and nothing is predicted anew."""
    review = started(queued, tmp_path, model)
    first, second = review.next("me", limit=2)
    review.label(first["key"], "tumour", reviewer="A. Reviewer")
    kept = next(review.folder.glob("predictions-*.csv"))
    written = kept.stat().st_mtime_ns
    review.stop()

    again = started(queued, tmp_path, model)
    assert again.item(first["key"])["given"] == "tumour"
    assert again.item(first["key"])["given_by"] == "A. Reviewer"
    assert again.next("me", limit=1)[0]["key"] == second["key"]
    assert again.next("me", limit=1)[0]["probability"] == second["probability"]
    assert kept.stat().st_mtime_ns == written
    status = again.status()
    assert (status["state"], status["reviewed"], status["remaining"]) == ("ready", 1, 39)


def test_predicting_is_taken_up_where_it_ended(queued: Path, model: Model, tmp_path: Path) -> None:
    """Rows predicted before a kill are kept as they are; only the others are predicted."""
    whole = started(queued, tmp_path, model)
    file = next(whole.folder.glob("predictions-*.csv"))
    lines = file.read_text().splitlines(keepends=True)
    marked = lines[1].replace(lines[1].split(",")[1], "0.123456789")
    file.write_text("".join([lines[0], marked, *lines[2:11]]))
    again = started(queued, tmp_path, model)
    assert again.item(whole.next("me", 100, [])[0]["key"])
    with open(file, newline="") as content:
        rows = list(csv.DictReader(content))
    assert [row["id"] for row in rows] == [line.split(",")[0] for line in lines[1:]]
    assert rows[0]["probability"] == "0.123456789"
    assert [float(row["probability"]) for row in rows[1:]] == pytest.approx(
        [float(line.split(",")[1]) for line in lines[2:]], abs=1e-6
    )


def test_a_label_taken_back_returns_to_the_queue(review: Review) -> None:
    """Undo puts the patch where it was."""
    item = review.next("me", limit=1)[0]
    review.label(item["key"], "normal")
    assert review.next("me", limit=1)[0]["key"] != item["key"]
    assert review.take_back(item["key"])["given"] is None
    assert review.next("me", limit=1)[0]["key"] == item["key"]


def test_a_model_with_another_threshold_is_asked_anew(queued: Path, model: Model, tmp_path: Path) -> None:
    """Predictions kept are of the model as it was, not of its weights alone."""
    started(queued, tmp_path, model).stop()
    changed = copy.copy(model)
    changed.info = model.info.model_copy(update={"threshold": 0.0, "conformal": None})
    review = started(queued, tmp_path, changed)
    assert {item["called"] for item in review.next("me", limit=100)} == {"tumour"}
    review.stop()


def test_a_reviewers_name_is_no_formula(review: Review) -> None:
    """What a spreadsheet would run is taken off the only text that comes from outside; the ids are the data's own."""
    for given, kept in (("=HYPERLINK(1)", "HYPERLINK(1)"), ("+-@=x", "x"), (" \t=y", "y"), ("A-B = C", "A-B = C")):
        key = review.next("me", limit=1)[0]["key"]
        assert review.label(key, "tumour", reviewer=given)["given_by"] == kept


def test_two_reviewers_get_different_patches(review: Review) -> None:
    """What one has on the screen is held back from the other; skipped ones are left out."""
    mine = [item["key"] for item in review.next("me", limit=3)]
    others = [item["key"] for item in review.next("you", limit=3)]
    assert not set(mine) & set(others)
    assert [item["key"] for item in review.next("me", limit=3)] == mine
    assert [item["key"] for item in review.next("me", limit=2, without=mine[:1])] == mine[1:3]


def test_another_reviewers_label_stands_until_it_is_seen(review: Review) -> None:
    """Who labels a patch that has a label meanwhile gets to see that one."""
    key = review.next("me", limit=1)[0]["key"]
    assert review.label(key, "tumour", reviewer="one")["given"] == "tumour"
    late = review.label(key, "normal", reviewer="two")
    assert (late["given"], late["given_by"]) == ("tumour", "one")
    assert review.label(key, "normal", expected="tumour", reviewer="two")["given"] == "normal"


def test_the_corrections_are_a_cohort_that_check_accepts(review: Review) -> None:
    """`check` opens the file: ids, slides and labels as given; the label in the data is kept beside."""
    given = {}
    for number, item in enumerate(review.next("me", limit=20)):
        given[item["id"]] = number % 2
        review.label(item["key"], ("normal", "tumour")[number % 2])
    audit = check(str(review.corrections.file))
    assert audit.images == 20
    assert not [finding.name for finding in audit.errors]
    table = open_cohort(review.corrections.file).table.set_index("id")
    assert table["label"].to_dict() == given
    assert table["group"].notna().all()


def test_what_cannot_be_is_refused(review: Review, model: Model, tmp_path: Path) -> None:
    """An unknown patch, a label that is no class, and data that do not open."""
    with pytest.raises(KeyError):
        review.item("0" * 20)
    with pytest.raises(DataError, match="expected normal or tumour"):
        review.label(review.next("me", limit=1)[0]["key"], "Tumor?")
    failed = started(tmp_path / "nothing", tmp_path, model)
    assert failed.status()["state"] == "failed"
    assert "no such file" in failed.status()["error"]
    with pytest.raises(DataError, match="no such file"):
        failed.next("me")


def test_class_names_that_spell_no_class_become_numbers(tissue: Path, model: Model, tmp_path: Path) -> None:
    """Where names would not say again which class is positive, 1 and 0 are written, and the page gets the names."""
    source = open_cohort(tissue).table.iloc[:4][["id", "path"]].assign(label=["ring", "dot", "ring", "dot"])
    source.to_csv(tmp_path / "t.csv", index=False)
    review = Review(str(tmp_path / "t.csv"), tmp_path, model, positive="ring")
    review.start()
    assert review.wait(600)
    status = review.status()
    assert (status["classes"], status["class_names"]) == (["0", "1"], ["dot", "ring"])
    for item in review.next("me", limit=4):
        review.label(item["key"], item["label_in_data"])
    opened = open_cohort(review.corrections.file).table.set_index("id")["label"]
    assert [opened[identity] for identity in source["id"]] == [1, 0, 1, 0]


def test_an_error_that_nobody_foresaw_is_told_to_the_page(queued: Path, model: Model, tmp_path: Path) -> None:
    """Rather than that it waits for ever."""

    def breaks(*_: np.ndarray) -> None:
        raise RuntimeError("out of memory")

    review = Review(str(queued), tmp_path, model, assess=breaks)  # type: ignore[arg-type]
    review.start()
    assert review.wait(600)
    assert review.status()["state"] == "failed"
    assert "log" in review.status()["error"]
