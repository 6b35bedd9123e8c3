"""Likeness to the training images: against scikit-learn, on images that are plainly others, and in the bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file, save_file
from scipy.linalg import logm
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from tumortrace import load_model, open_cohort
from tumortrace.cohorts.store import open_store
from tumortrace.errors import ModelError
from tumortrace.models.bundle import Model
from tumortrace.models.ood import MOMENTS, OodDetector, colours, energy, fit_ood_detector, likeness_features
from tumortrace.records.files import sha256


def features(seed: int, n: int = 300, d: int = 12) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(n, d)) @ np.random.default_rng(0).normal(size=(d, d)) * 5 + 3


def alike(values: np.ndarray) -> np.ndarray:
    """With one colour for all, which then counts for nothing."""
    return np.column_stack([values, np.zeros((len(values), MOMENTS))])


def moments(pixels: np.ndarray) -> np.ndarray:
    """Means and covariances of images of shape (N, 3, h, w), as NumPy has them."""
    channels = pixels.reshape(len(pixels), 3, -1).astype(np.float64)
    covariances = np.stack([np.cov(one, bias=True) for one in channels])
    return np.column_stack([channels.mean(2), covariances[:, *np.triu_indices(3)]])


def mahalanobis(fitted_to: np.ndarray, new: np.ndarray, directions: int) -> np.ndarray:
    """With scikit-learn's shrunk covariance, whose eigenvalues beyond the first few are replaced by their mean."""
    mean, scale = fitted_to.mean(0), fitted_to.std(0)
    covariance = LedoitWolf(assume_centered=True).fit((fitted_to - mean) / scale).covariance_
    values, vectors = np.linalg.eigh(covariance)
    values[:-directions] = values[:-directions].mean() if directions < len(values) else values[:-directions]
    precision = (vectors / values) @ vectors.T
    z = (new - mean) / scale
    return np.sqrt(np.einsum("ij,jk,ik->i", z, precision, z) / z.shape[1])


@pytest.mark.parametrize("directions", [3, 12, 64])
def test_the_distance_is_mahalanobis_with_scikit_learns_covariance(directions: int) -> None:
    """Shrunk as Ledoit and Wolf do; beyond the directions that are kept, with one variance for all."""
    detector = fit_ood_detector(alike(features(1)), directions)
    assert detector is not None
    assert detector.colour is None
    new = features(2)
    np.testing.assert_allclose(detector.distance(new), mahalanobis(features(1), new, min(directions, 12)), rtol=1e-3)
    assert np.sqrt((detector.distance(features(1)) ** 2).mean()) == pytest.approx(1, abs=0.2)


def test_more_features_than_images_still_make_a_distance() -> None:
    """Shrinkage and the shared variance keep it finite; a feature that never stirred does not drown the others."""
    values = np.random.default_rng(0).normal(size=(20, 200))
    values[:, 7] = 0
    detector = fit_ood_detector(alike(values))
    assert detector is not None
    new = np.random.default_rng(1).normal(size=(5, 200))
    new[:, 7] = 0
    assert np.isfinite(detector.distance(new)).all()
    stirred = new.copy()
    stirred[:, 7] = 0.01
    np.testing.assert_allclose(detector.distance(stirred), detector.distance(new), rtol=0.1)
    assert fit_ood_detector(np.ones((10, 12))) is None
    assert fit_ood_detector(values[:1]) is None


def tissue_like(seed: int, count: int = 400) -> np.ndarray:
    """Pixels of two dyes of varying strength, shape (count, 3, 8, 8), range [0, 1]."""
    random = np.random.default_rng(seed)
    strength = random.gamma(4, 0.25, (count, 2, 1)) * random.gamma(2, 0.5, (count, 2, 64))
    dyes = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    density = np.einsum("nkp,kc->ncp", strength, dyes) + random.normal(0, 0.02, (count, 3, 64))
    return np.exp(-0.5 * np.maximum(density, 0)).reshape(count, 3, 8, 8)


def measured_of(pixels: np.ndarray, seed: int) -> np.ndarray:
    """What is measured of pixels whose features say nothing."""
    values = np.random.default_rng(seed).normal(size=(len(pixels), 5))
    return np.column_stack([values, moments(pixels)])


def test_strange_colours_are_beyond_the_limit_whatever_the_features_say() -> None:
    """Another dye, exchanged channels, no colour, no contrast; usual ones of another draw are not."""
    detector = fit_ood_detector(measured_of(tissue_like(1), 1))
    assert detector is not None
    limit = float(np.quantile(detector.distance(measured_of(tissue_like(2), 2)), 0.99))
    usual = tissue_like(3)

    def outside(pixels: np.ndarray) -> float:
        return float((detector.score(measured_of(pixels, 3), limit) > 1).mean())

    assert outside(usual) < 0.05
    assert outside(usual[:, ::-1]) > 0.9
    assert outside(usual.mean(1, keepdims=True).repeat(3, 1)) == 1
    assert outside(0.93 + 0.02 * (usual - usual.mean((2, 3), keepdims=True))) == 1


def test_features_and_colour_count_alike() -> None:
    """Root mean square of the two distances, each as scikit-learn's covariance has it."""
    known, new = (measured_of(tissue_like(seed), seed) for seed in (1, 2))
    detector = fit_ood_detector(known)
    assert detector is not None
    assert detector.floor is not None
    floor = float(detector.floor[0])
    assert floor == pytest.approx(3e-4 * known[:, [8, 11, 13]].mean())
    by_features = mahalanobis(known[:, :5], new[:, :5], 64)
    by_colour = mahalanobis(colours(known[:, 5:], floor), colours(new[:, 5:], floor), 64)
    expected = np.sqrt((by_features**2 + by_colour**2) / 2)
    np.testing.assert_allclose(detector.distance(new), expected, rtol=1e-3)
    np.testing.assert_allclose(detector.score(new, limit=2.0), expected / 2, rtol=1e-3)


def test_colours_are_means_and_the_logarithm_of_the_covariance() -> None:
    """As scipy has the logarithm; of a flat image it is that of the floor."""
    pixels, floor = tissue_like(4, 20), 1e-3
    known = moments(pixels)
    for row, one in zip(colours(known, floor), pixels.reshape(20, 3, -1), strict=True):
        expected = logm(np.cov(one, bias=True) + floor * np.eye(3))
        np.testing.assert_allclose(row[:3], one.mean(1))
        np.testing.assert_allclose(row[3:], expected[np.triu_indices(3)], atol=1e-6)
    flat = colours(np.array([[0.5, 0.6, 0.7, 0, 0, 0, 0, 0, 0]]), floor)[0]
    np.testing.assert_allclose(flat, [0.5, 0.6, 0.7, np.log(floor), 0, 0, np.log(floor), 0, np.log(floor)])


def test_moments_of_colour_are_numpys() -> None:
    """Means and covariances over places, beside the features' own means."""
    pixels = torch.rand(3, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    pixels[2] = 0.7
    measured = likeness_features(torch.ones(3, 4, 2, 2), pixels).numpy()
    np.testing.assert_array_equal(measured[:, :4], 1)
    np.testing.assert_allclose(measured[:, 4:], moments(pixels.numpy()), atol=1e-6)


def test_contrast_counts_in_bundles_of_before() -> None:
    """Far below the usual one it is beyond the limit, by moments of now or by a graph exported then."""
    plain = fit_ood_detector(alike(features(1)))
    assert plain is not None
    detector = OodDetector(plain.features, contrast=np.array([-2, 0.5], np.float32))
    usual = np.repeat(features(1).mean(0)[None], 3, 0)
    contrast = np.array([-2.4, -3.0, 9.0])
    then = np.column_stack([usual, contrast])
    np.testing.assert_allclose(detector.score(then, limit=2.0), [0, 2, 0], atol=1e-3)
    now = alike(usual)
    now[:, [15, 18, 20]] = np.exp(2 * contrast)[:, None]
    np.testing.assert_allclose(detector.score(now, limit=2.0), [0, 2, 0], atol=1e-3)
    np.testing.assert_allclose(detector.score(features(2), limit=2.0), plain.features.distance(features(2)) / 2)


def test_energy_of_one_logit_is_largest_where_the_network_is_undecided() -> None:
    """It is that of a softmax over half the logit and its negative, and symmetric."""
    logit = np.array([-3.0, 0.0, 0.5, 3.0])
    np.testing.assert_allclose(energy(logit), -np.log(np.exp(logit / 2) + np.exp(-logit / 2)))
    assert energy(logit).argmax() == 1


@pytest.fixture(scope="module")
def model(small_run: Path) -> Model:
    return load_model(small_run)


@pytest.fixture(scope="module")
def unseen(tissue: Path, small_run: Path) -> np.ndarray:
    """Images of the test split."""
    cohort, splits = open_cohort(tissue), pd.read_csv(small_run / "splits.csv", dtype=str)
    held = splits.loc[splits["split"] == "test", "id"]
    return np.asarray(open_store(cohort).images[np.flatnonzero(cohort.table["id"].isin(held))])


OTHERS = {
    "inverted": lambda images: 255 - images,
    "another stain": lambda images: np.ascontiguousarray(images[..., [1, 0, 2]]),
    "noise": lambda images: np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8),
    "blank": lambda images: np.full_like(images, 240) - np.random.default_rng(0).integers(0, 3, images.shape, np.uint8),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_images_stand_out(model: Model, unseen: np.ndarray, kind: str) -> None:
    """Above .9 of pairs of a strange and a usual image are told apart; the plainly strange are beyond the limit.

    That limit is a wide one: one of the two slides that set it is itself unlike the few of training.
    """
    usual, strange = model.assess(unseen).ood_score, model.assess(OTHERS[kind](unseen)).ood_score
    assert usual is not None
    assert strange is not None
    known = np.repeat([0, 1], len(unseen))
    assert roc_auc_score(known, np.concatenate([usual, strange])) > 0.9
    if kind in ("inverted", "noise", "blank"):
        assert (strange > 1).mean() > 0.5


def test_unseen_images_of_the_same_kind_do_not(model: Model, unseen: np.ndarray) -> None:
    """Slides that neither trained nor set the limit are rarely beyond it, 1 in 100 being wanted."""
    found = model.assess(unseen)
    assert found.in_distribution is not None
    assert found.ood_score is not None
    assert (~found.in_distribution).mean() < 0.1
    assert ((found.ood_score <= 1) == found.in_distribution).all()


def test_a_turned_patch_is_as_strange(model: Model, unseen: np.ndarray) -> None:
    """The bundle averages the symmetries, of features too; twice asked it answers the same."""
    first = model.assess(unseen[:4]).ood_score
    turned = model.assess(np.ascontiguousarray(np.rot90(unseen[:4], 1, (1, 2)))).ood_score
    np.testing.assert_allclose(turned, first, rtol=1e-4)
    np.testing.assert_array_equal(model.assess(unseen[:4]).ood_score, first)


def test_the_record_has_the_scores_of_the_bundle(small_run: Path, model: Model, tissue: Path) -> None:
    """predictions.csv holds what the reloaded model says; 99 in 100 of those that set the limit are within it."""
    table = pd.read_csv(small_run / "predictions.csv", dtype={"id": str})
    cohort = open_cohort(tissue)
    rows = cohort.table.reset_index().set_index("id").loc[table["id"], "index"].to_numpy()
    found = model.assess(open_store(cohort).images, rows)
    np.testing.assert_allclose(found.ood_score, table["ood_score"], rtol=1e-4)
    setting = table["split"].isin(["validation", "calibration"]).to_numpy()
    features = model.embedded(open_store(cohort).images, rows[setting]).features
    assert model.detector is not None
    assert model.info.ood is not None
    assert np.quantile(model.detector.distance(features), 0.99) == pytest.approx(model.info.ood.limit, rel=1e-4)
    far = model.detector.distance(features) > model.info.ood.limit
    np.testing.assert_array_equal(table.loc[setting, "ood_score"] > 1, far)
    record = json.loads((small_run / "distribution.json").read_text())
    share = 1 - table.loc[table["split"] == "test", "in_distribution"].mean()
    assert record["splits"]["test"]["outside"]["value"] == pytest.approx(share)


def changed(small_run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(small_run / "model", folder / "model"))


def test_a_changed_or_missing_file_is_refused(small_run: Path, tmp_path: Path) -> None:
    """One flipped bit is found by the hash; so is the file's absence."""
    bundle = changed(small_run, tmp_path)
    file = bundle / "likeness.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"likeness.safetensors: SHA-256"):
        load_model(bundle)
    file.unlink()
    with pytest.raises(ModelError, match="no file"):
        load_model(bundle)


@pytest.mark.parametrize("fault", ["shape", "variance", "name", "floor", "colour"])
def test_arrays_that_do_not_fit_are_refused(small_run: Path, tmp_path: Path, fault: str) -> None:
    """Even with the right hash."""
    bundle = changed(small_run, tmp_path)
    file = bundle / "likeness.safetensors"
    arrays = load_file(file)
    if fault == "shape":
        arrays["mean"] = arrays["mean"][:-1]
    elif fault == "variance":
        arrays["variances"] = -arrays["variances"]
    elif fault == "floor":
        del arrays["floor"]
    elif fault == "colour":
        arrays["colour.scale"] = 0 * arrays["colour.scale"]
    else:
        arrays["other"] = arrays.pop("mean")
    save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, file)
    info = json.loads((bundle / "model.json").read_text())
    info["ood"]["sha256"] = sha256(file)
    (bundle / "model.json").write_text(json.dumps(info))
    with pytest.raises(ModelError, match="likeness") as refused:
        load_model(bundle)
    assert "\n" not in str(refused.value)


def test_a_bundle_without_it_gives_no_score(small_run: Path, tmp_path: Path, unseen: np.ndarray) -> None:
    """Older bundles predict as they did, and say nothing of likeness."""
    bundle = changed(small_run, tmp_path)
    info = json.loads((bundle / "model.json").read_text()) | {"ood": None}
    (bundle / "model.json").write_text(json.dumps(info))
    found = load_model(bundle).assess(unseen[:3])
    assert (found.ood_score, found.in_distribution) == (None, None)
    np.testing.assert_allclose(found.probability, load_model(small_run).predict(unseen[:3]), atol=1e-7)
