"""Synthetic patches: labels, difficulty, and the same bytes for the same seed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from tumortrace.cohorts.synthetic import open_synthetic, synthesise
from tumortrace.cohorts.synthetic.patches import draw_patch, plan_patches, slide_stain
from tumortrace.cohorts.synthetic.tissue import SCANNERS, Stain, colour, draw_stain

Drawn = tuple[np.ndarray, np.ndarray, pd.DataFrame]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def draw(count: int, seed: int) -> Drawn:
    """Pictures, masks and plan of a cohort that is not written."""
    plan = plan_patches(count, seed)
    drawn = [
        draw_patch(index, seed, bool(row.label), slide_stain(row.group, row.scanner))
        for index, row in enumerate(plan.itertuples())
    ]
    return np.stack([image for image, _ in drawn]), np.stack([mask for _, mask in drawn]), plan


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 40 patches."""
    return synthesise("patches", tmp_path_factory.mktemp("patches") / "a", count=40, seed=7, workers=1)


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    """320 patches that are not written."""
    return draw(320, seed=3)


def test_the_label_says_whether_the_centre_of_the_mask_holds_tumour(written: Path) -> None:
    """Read back from disk, label 1 goes with a tumour pixel in rows and columns 32 to 63, label 0 with none."""
    table = pd.read_csv(written / "cohort.csv")
    assert list(table.columns) == ["id", "path", "mask", "label", "group", "scanner", "split"]
    for row in table.itertuples():
        image, mask = np.asarray(Image.open(written / row.path)), np.asarray(Image.open(written / row.mask))
        assert image.shape == (96, 96, 3)
        assert image.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 255}
        assert (mask[32:64, 32:64] > 0).any() == bool(row.label)


def test_the_same_seed_gives_the_same_bytes_for_any_number_of_workers(written: Path, tmp_path: Path) -> None:
    """Two processes, started by a script without a main guard, write what one wrote; another seed does not."""
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom tumortrace.cohorts.synthetic import synthesise\nprint('once')\n"
        f"synthesise('patches', Path({str(tmp_path / 'b')!r}), count=40, seed=7, workers=2)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout == "once\n"
    assert digests(tmp_path / "b") == digests(written)
    other = synthesise("patches", tmp_path / "c", count=40, seed=8, workers=1)
    pictures = {digest for name, digest in digests(other).items() if name.startswith("patches")}
    assert not pictures & set(digests(written).values())


def test_a_slide_holds_both_classes_and_comes_from_one_scanner() -> None:
    """About 40 % are positive, slides have about 50 patches, all scanners occur and none goes with one class."""
    plan = plan_patches(2400, seed=0)
    assert 0.36 < plan["label"].mean() < 0.44
    slides = plan.groupby("group")
    assert slides.ngroups == 48
    assert slides["label"].nunique().min() == 2
    assert slides["scanner"].nunique().max() == 1
    assert set(plan["scanner"]) == set(SCANNERS)
    assert plan.groupby("scanner")["label"].mean().between(0.3, 0.5).all()
    assert plan_patches(16, seed=0).groupby("group")["label"].nunique().eq(2).all()


def test_every_label_is_that_of_its_mask_and_negatives_hold_tumour_off_centre(drawn: Drawn) -> None:
    """Over 320 patches label and centre agree; a part of the negatives has tumour that stays out of the centre."""
    _, masks, plan = drawn
    label = plan["label"].to_numpy()
    assert (masks[:, 32:64, 32:64].any(axis=(1, 2)) == label).all()
    assert 0.15 < masks[label == 0].any(axis=(1, 2)).mean() < 0.5


def test_mean_colour_alone_does_not_give_the_label_away(drawn: Drawn) -> None:
    """Logistic regression on mean colour, split by slide, stays under a ROC AUC of .75."""
    images, _, plan = drawn
    label, group = plan["label"].to_numpy(), plan["group"].to_numpy()
    colours = images.reshape(len(images), -1, 3).mean(axis=1)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    folds = GroupKFold(4)
    scores = cross_val_predict(model, colours, label, groups=group, cv=folds, method="predict_proba")[:, 1]
    assert roc_auc_score(label, scores) < 0.75


def test_colour_follows_the_beer_lambert_law() -> None:
    """Without blur and noise, unmixing the optical density gives the stains' amounts back."""
    rng = np.random.default_rng(0)
    amounts = rng.uniform(0, 0.8, (2, 20, 20)).astype(np.float32)
    drawn = draw_stain(rng, "scanner-b")
    clean = Stain(drawn.vectors, drawn.white, blur=0.0, noise=0.0)
    image = colour(amounts[0], amounts[1], clean, rng)
    density = -np.log(image.reshape(-1, 3) / 255 / drawn.white)
    found = np.linalg.lstsq(drawn.vectors.T, density.T, rcond=None)[0]
    np.testing.assert_allclose(found, amounts.reshape(2, -1), atol=0.05)


def test_it_opens_as_a_cohort(written: Path) -> None:
    """Classes, resolution, groups and absolute paths are there; no split is set."""
    cohort = open_synthetic(written)
    assert (len(cohort), cohort.classes, cohort.resolution) == (40, ("normal", "tumour"), 1.0)
    assert cohort.has_groups
    assert cohort.table["split"].isna().all()
    assert all(Path(path).is_file() for path in [*cohort.table["path"], *cohort.table["mask"]])


@pytest.mark.slow
def test_a_small_network_learns_it_but_not_perfectly() -> None:
    """Four convolutions on the centre 48x48 px of 1,500 patches reach a ROC AUC between .90 and .99 on other slides."""
    images, _, plan = draw(2000, seed=1)
    torch.manual_seed(0)
    pixels = torch.from_numpy(images[:, 24:72, 24:72]).permute(0, 3, 1, 2).contiguous().float() / 255
    label = torch.tensor(plan["label"].to_numpy()).float()
    held_out = torch.from_numpy((plan["group"].str[-4:].astype(int) % 4 == 0).to_numpy())
    blocks = [
        nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2))
        for i, o in ((3, 16), (16, 32), (32, 48), (48, 64))
    ]
    network = nn.Sequential(*blocks, nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 9, 1))
    x, y, epochs, batch = pixels[~held_out], label[~held_out], 14, 32
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=epochs * (len(x) // batch))
    for _ in range(epochs):
        for chosen in torch.randperm(len(x))[: len(x) // batch * batch].split(batch):
            turned = torch.rot90(x[chosen], int(torch.randint(4, (1,))), (2, 3))
            loss = nn.functional.binary_cross_entropy_with_logits(network(turned)[:, 0], y[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    network.eval()
    with torch.no_grad():
        scores = network(pixels[held_out])[:, 0].numpy()
    assert 0.90 < roc_auc_score(label[held_out].numpy(), scores) < 0.99
