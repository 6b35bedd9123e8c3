"""The verb `pretrain`: a body from images without labels, nothing that measures a model among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.special import logsumexp

from tests.conftest import SMALL
from tumortrace import open_cohort, train
from tumortrace.cli.main import run as command
from tumortrace.cohorts.looks import digest_of
from tumortrace.errors import RunError
from tumortrace.models.architecture import build_network
from tumortrace.models.weights import load_weights
from tumortrace.records.pretraining import PRETRAINED, Pretraining
from tumortrace.training.contrastive import ContrastiveLearner, contrast
from tumortrace.training.pretrain import pretrain
from tumortrace.training.recipe import load_recipe

ARGUMENTS = {"stem": 8, "widths": [8, 16], "depths": [1, 1], "dropout": 0.2}
QUICK = {"changes": SMALL[:3], "batch_size": 32, "device": "cpu"}

pytestmark = pytest.mark.usefixtures("few_replicates")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, tissue: Path) -> Path:
    """A table of 302 patches: labelled ones of a split each, and unlabelled ones of the same slides and of others.

    One unlabelled file is a copy of a test image, another of a training image.
    """
    folder = tmp_path_factory.mktemp("mixed")
    table = open_cohort(tissue).table.copy()
    slides = sorted(table["group"].unique())[:6]
    parts = dict(zip(slides, ["train", "train", "validation", "calibration", "test", None], strict=True))
    rows = []
    for slide, split in parts.items():
        for number, row in enumerate(table[table["group"] == slide].head(50).itertuples()):
            labelled = split is not None and number % 2 == 0
            rows.append((row.id, row.path, row.label if labelled else None, slide, split if labelled else None))
    made = pd.DataFrame(rows, columns=["id", "path", "label", "group", "split"])
    for name, split in (("copy-of-test", "test"), ("copy-of-train", "train")):
        source = made[made["split"] == split].iloc[0]
        with Image.open(source["path"]) as picture:
            picture.save(folder / f"{name}.png")
        made.loc[len(made)] = [name, str(folder / f"{name}.png"), None, slides[5], None]
    made.to_csv(folder / "mixed.csv", index=False)
    return folder / "mixed.csv"


def test_the_loss_is_the_published_one() -> None:
    """Equation 1 of Chen et al. (2020), written out pair by pair."""
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, 5, 7))
    points = np.concatenate([first, second])
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    losses, nearest = [], []
    for i in range(10):
        others = [k for k in range(10) if k != i]
        alike = points[others] @ points[i] / 0.5
        j = others.index((i + 5) % 10)
        losses.append(logsumexp(alike) - alike[j])
        nearest.append(alike.argmax() == j)
    loss, matched = contrast(torch.from_numpy(first), torch.from_numpy(second), 0.5)
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-5)
    assert matched.item() == pytest.approx(np.mean(nearest))


def test_what_measures_is_never_looked_at(mixed: Path, tmp_path: Path) -> None:
    """Neither images of the other splits, nor their copies, nor unlabelled ones of their slides; all others are."""
    pretrain(mixed, epochs=1, out=tmp_path / "pre", **QUICK)
    seen = set(pd.read_csv(tmp_path / "pre" / "seen.csv")["digest"])
    table = pd.read_csv(mixed, dtype={"group": str})
    measured = table.loc[table["split"].isin(["validation", "calibration", "test"]), "group"].unique()
    digest = [digest_of(np.asarray(Image.open(path).convert("RGB"))) for path in table["path"]]
    table = table.assign(digest=digest)
    forbidden = set(table.loc[table["group"].isin(measured), "digest"])
    # the copy of a test image lies in a slide of unlabelled images, which then measures too
    tainted = table.loc[table["id"] == "copy-of-test", "group"].item()
    wanted = set(table.loc[~table["group"].isin([*measured, tainted]), "digest"]) - forbidden
    assert seen == wanted
    assert not seen & forbidden
    assert table.loc[table["digest"].isin(seen), "label"].isna().any()
    record = Pretraining.read(tmp_path / "pre")
    assert (record.images, record.left_out) == (len(wanted), len(table) - len(wanted))


def test_the_same_call_goes_on(tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted in the middle of an epoch: the same bytes as undisturbed; other settings are refused."""
    pretrain(tissue, epochs=2, out=tmp_path / "whole", **QUICK)
    step, taken = ContrastiveLearner._step, []

    def interrupted(self: ContrastiveLearner, *rest: object) -> None:
        if len(taken) == 10:
            raise KeyboardInterrupt
        taken.append(1)
        step(self, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("tumortrace.training.contrastive.CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(ContrastiveLearner, "_step", interrupted)
    with pytest.raises(RunError, match=r"interrupted\. .*the same call goes on"):
        pretrain(tissue, epochs=2, out=tmp_path / "cut", **QUICK)
    monkeypatch.setattr(ContrastiveLearner, "_step", step)
    with pytest.raises(RunError, match="epochs 2, now 3"):
        pretrain(tissue, epochs=3, out=tmp_path / "cut", **QUICK)
    pretrain(tissue, epochs=2, out=tmp_path / "cut", **QUICK)
    one, other = ((tmp_path / name / PRETRAINED).read_bytes() for name in ("whole", "cut"))
    assert one == other
    assert sorted(file.name for file in (tmp_path / "cut").iterdir() if not file.name.startswith(".")) == [
        "history.csv",
        PRETRAINED,
        "pretraining.json",
        "seen.csv",
    ]
    with pytest.raises(RunError, match="finished"):
        pretrain(tissue, epochs=2, out=tmp_path / "cut", **QUICK)


def test_it_learns_and_training_starts_from_it(tissue: Path, tmp_path: Path) -> None:
    """Views find each other more often than by chance; the body is filled, the head is not; leaks are refused."""
    out = pretrain(tissue, epochs=5, out=tmp_path / "pre", seed=1, **QUICK)
    history = pd.read_csv(out / "history.csv")
    assert history["matched"].iloc[-1] > 2 / 63  # of the 63 others of a batch
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    torch.manual_seed(0)
    network = build_network("centre-resnet", (32, 32), ARGUMENTS)
    head = {name: value.clone() for name, value in network.top.state_dict().items()}
    load_weights(network, str(out))
    weights = load_file(out / PRETRAINED)
    assert all(torch.equal(value, weights[f"body.{name}"]) for name, value in network.body.state_dict().items())
    assert all(torch.equal(value, head[name]) for name, value in network.top.state_dict().items())
    run = train(tissue, changes=[*SMALL, "epochs=1"], weights=out, out=tmp_path / "runs", seed=1)
    assert "pretrained.safetensors" in (run / "run.json").read_text()
    with pytest.raises(RunError, match=r"learnt from [\d,]+ of the [\d,]+ images that are to measure"):
        train(tissue, changes=SMALL, weights=out, out=tmp_path / "runs", seed=1, split="random")


def test_weights_that_know_a_patient_are_refused(tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By other images of the same slides too, and where what was seen is not known; random ones are not asked."""
    table = open_cohort(tissue).table[["id", "path", "label", "group"]]
    halves = table.groupby("group").cumcount() % 2
    for number in (0, 1):
        table[halves == number].to_csv(tmp_path / f"half-{number}.csv", index=False)
    table[halves == 0].drop(columns="label").to_csv(tmp_path / "unlabelled.csv", index=False)
    out = pretrain(tmp_path / "unlabelled.csv", epochs=1, out=tmp_path / "pre", **QUICK)
    calls = {"changes": [*SMALL, "epochs=1"], "out": tmp_path / "runs"}
    with pytest.raises(RunError, match=r"images of 3 slides or patients that are to measure the model, such as slide-"):
        train(tmp_path / "half-1.csv", weights=out, **calls)
    (out / "seen.csv").rename(out / "gone.csv")
    with pytest.raises(RunError, match=r"no seen\.csv"):
        train(tmp_path / "half-1.csv", weights=out, **calls)
    monkeypatch.chdir(out)
    train(tmp_path / "half-1.csv", weights="random", **calls)


def test_a_whole_networks_file_still_fills_its_head(tmp_path: Path) -> None:
    """Under whatever prefix it was saved."""
    saved, fresh = (build_network("centre-resnet", (32, 32), ARGUMENTS) for _ in range(2))
    save_file({f"module.{name}": value for name, value in saved.state_dict().items()}, tmp_path / "w.safetensors")
    load_weights(fresh, str(tmp_path / "w.safetensors"))
    assert all(torch.equal(value, saved.state_dict()[name]) for name, value in fresh.state_dict().items())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--recipe", "texture-forest"], "whose body is not learnt"),
        (["--recipe", "probe"], "whose body is not learnt"),
        (["--epochs", "0"], "0 epochs with batches of 256"),
    ],
)
def test_what_cannot_be_pretrained_is_told_in_a_line(
    tissue: Path, tmp_path: Path, words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command."""
    assert command(["pretrain", str(tissue), *words, "-o", str(tmp_path / "pre")]) != 0
    told = capsys.readouterr().err
    assert line in told
    assert "Traceback" not in told
    assert not (tmp_path / "pre").exists()


def test_too_few_images_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An unlabelled folder of three."""
    random = np.random.default_rng(0)
    (tmp_path / "three").mkdir()
    for number in range(3):
        Image.fromarray(random.integers(0, 255, (96, 96, 3), np.uint8)).save(tmp_path / "three" / f"{number}.png")
    assert command(["pretrain", str(tmp_path / "three"), "-o", str(tmp_path / "pre")]) != 0
    assert "3 distinct images to learn from" in capsys.readouterr().err


def test_the_recipe_that_is_tried_is_small() -> None:
    """The tests' network is that of their recipe, so that they look at what is learnt."""
    assert load_recipe("tumortrace", SMALL[:3]).model.arguments == ARGUMENTS
