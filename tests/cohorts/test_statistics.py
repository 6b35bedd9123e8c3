"""Numbers of a sample: right against other implementations and hand-made cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage
from scipy.stats import f_oneway

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.statistics.describe import (
    class_names,
    describe_cohort,
    describe_sample,
    place,
    principal_components,
    same_neighbours,
)
from tumortrace.cohorts.statistics.measure import (
    EOSIN,
    HAEMATOXYLIN,
    MEASURES,
    describe_stains,
    draw_sample,
    intraclass_correlation,
    measure,
)
from tumortrace.errors import CohortError, DataError


def cohort_of(labels: list[int | None], groups: list[str] | None = None) -> Cohort:
    rows = {"id": [f"i{n}" for n in range(len(labels))], "path": "none.png", "label": labels}
    return Cohort("mine", "table", pd.DataFrame(rows | {"group": groups, "split": None}), ("benign", "cancer"))


def written(folder: Path, images: list[np.ndarray], labels: list[int | None]) -> Cohort:
    paths = [folder / f"{n}.png" for n in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    cohort = cohort_of(labels)
    return replace(cohort, table=cohort.table.assign(path=[str(path) for path in paths]))


class TestSample:
    """Drawing by class."""

    def test_shares_are_kept_and_the_size_is_exact(self) -> None:
        """Each class has its share of the sample, unlabelled images too, and no image comes twice."""
        cohort = cohort_of([0] * 700 + [1] * 200 + [None] * 100)
        sample = draw_sample(cohort, 501).table
        assert sample["label"].fillna(2).value_counts().to_dict() == {0: 351, 1: 100, 2: 50}
        assert sample["id"].is_unique

    def test_a_rare_class_has_enough_to_be_described(self) -> None:
        """Fifty of a class of 1 % are drawn, and the size is still exact."""
        sample = draw_sample(cohort_of([0] * 9900 + [1] * 100), 1000).table
        assert sample["label"].value_counts().to_dict() == {0: 950, 1: 50}

    def test_room_for_a_rare_class_is_made_by_the_others_alike(self) -> None:
        """What a rare class takes beyond its share, the others give in equal numbers."""
        counts = draw_sample(cohort_of([0] * 7000 + [1] * 100 + [None] * 2900), 500).table["label"]
        drawn = counts.fillna(2).value_counts()
        assert drawn[1] == 50
        assert abs((350 - drawn[0]) - (145 - drawn[2])) <= 1

    def test_the_seed_decides(self) -> None:
        """The same seed draws the same images in the same order; another one others."""
        cohort = cohort_of([0, 1] * 300)
        ids = [draw_sample(cohort, 100, seed).table["id"].tolist() for seed in (1, 1, 2)]
        assert ids[0] == ids[1] != ids[2]

    def test_larger_than_the_cohort(self) -> None:
        """A sample larger than the cohort is the cohort."""
        assert sorted(draw_sample(cohort_of([0, 1, None]), 50).table["id"]) == ["i0", "i1", "i2"]

    @pytest.mark.parametrize("size", [0, -3])
    def test_nothing_to_draw_is_refused(self, size: int) -> None:
        """A sample of no image is refused."""
        with pytest.raises(CohortError, match="1 or more"):
            draw_sample(cohort_of([0, 1]), size)


class TestMeasure:
    """What is measured in one image."""

    def test_measures_equal_numpy_and_scipy(self, tmp_path: Path) -> None:
        """Mean, deviation, percentiles and Sobel magnitude are those of numpy and scipy."""
        image = np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)
        row = measure(written(tmp_path, [image], [1])).table.iloc[0]
        for index, channel in enumerate(("red", "green", "blue")):
            pixels = image[..., index]
            assert row[f"{channel}_mean"] == pytest.approx(pixels.mean())
            assert row[f"{channel}_sd"] == pytest.approx(pixels.std())
            for quantile in (5, 50, 95):
                expected = np.percentile(pixels, quantile, method="inverted_cdf")
                assert row[f"{channel}_p{quantile}"] == expected
        grey = np.asarray(Image.fromarray(image).convert("L"), dtype=float)
        steepest = np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1)) / 4 / np.sqrt(2)
        assert row["sobel_1"] == pytest.approx(steepest.mean())
        assert (row["height"], row["width"], row["mode"], row["grey"]) == (60, 40, "RGB", False)

    def test_mean_images_by_class(self, tmp_path: Path) -> None:
        """The mean image of each class is the mean of its images, those without label apart."""
        images = [np.full((8, 8, 3), value, np.uint8) for value in (0, 10, 100, 201)]
        means = measure(written(tmp_path, images, [0, 0, 1, None])).mean_images
        assert {label: float(mean.mean()) for label, mean in means.items()} == {0: 5, 1: 100, 2: 201}

    def test_odd_images(self, tmp_path: Path) -> None:
        """Sizes may differ and one file may be broken: the rest is measured, the broken one named."""
        images = [np.zeros((50, 50, 3), np.uint8)] * 3 + [np.zeros((50, 1, 3), np.uint8), np.zeros((1, 1), np.uint8)]
        cohort = written(tmp_path, images, [0, 0, 1, 1, None])
        (tmp_path / "1.png").write_bytes(b"not an image")
        measured = measure(cohort)
        assert measured.undecodable == ("i1",)
        assert measured.size == (50, 50)
        assert measured.table["id"].tolist() == ["i0", "i2", "i3", "i4"]
        assert measured.table["grey"].all()
        assert np.isfinite(measured.table[list(MEASURES)].to_numpy(dtype=float)).all()

    def test_nothing_decodable_is_refused(self, tmp_path: Path) -> None:
        """A sample without one sound image is refused."""
        with pytest.raises(DataError, match="none of 2 images"):
            measure(cohort_of([0, 1]))


class TestDescription:
    """Numbers over images."""

    def test_counts(self) -> None:
        """Classes, groups and shares are counted over all images, with Wilson's interval."""
        groups = ["a"] * 10 + ["b"] * 4
        record = describe_cohort(cohort_of([1] * 9 + [0] + [0, 0, 0, None], groups)).as_json()
        assert [each["images"] for each in record["classes"]] == [4, 9, 1]
        assert record["prevalence"] == pytest.approx(9 / 13)
        first, second = record["groups"]["each"]
        assert (first["group"], first["positives"], first["prevalence"]) == ("a", 9, 0.9)
        assert first["ci95"] == pytest.approx([0.5958, 0.9821], abs=1e-4)
        assert (second["images"], second["labelled"], second["prevalence"]) == (4, 3, 0.0)
        assert record["groups"]["of_one_class"] == 1

    def test_without_labels_and_groups(self) -> None:
        """An unlabelled cohort without groups has no prevalence and no group."""
        record = describe_cohort(cohort_of([None, None])).as_json()
        assert record["prevalence"] is None
        assert [each["name"] for each in record["classes"]] == ["unlabelled"]
        assert (record["groups"]["count"], record["groups"]["images_each"]) == (0, None)

    def test_intensity_is_a_histogram_in_which_images_weigh_the_same(self, tmp_path: Path) -> None:
        """Shares by channel are the mean of the images' histograms, whatever their size."""
        rng = np.random.default_rng(1)
        images = [rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for size in (8, 30, 30)]
        cohort = written(tmp_path, images, [0, 1, 1])
        record = describe_sample(measure(cohort), class_names(cohort), 9).as_json()["intensity"]
        shares = [np.histogram(image[..., 1], 64, (0, 256))[0] / image[..., 1].size for image in images]
        assert record["all"]["green"] == pytest.approx(np.mean(shares, axis=0), abs=1e-6)
        assert record["classes"][1]["green"] == pytest.approx(np.mean(shares[1:], axis=0), abs=1e-6)


class TestStains:
    """Spread of stain vectors."""

    def table(self, haematoxylin: np.ndarray, eosin: np.ndarray, groups: list[str]) -> pd.DataFrame:
        unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (haematoxylin, eosin)]
        table = pd.DataFrame(np.hstack(unit), columns=[*HAEMATOXYLIN, *EOSIN])
        return table.assign(group=pd.Series(groups, dtype="string"), grey=False)

    def test_two_stainings_are_told_apart(self) -> None:
        """Groups stained otherwise have an intraclass correlation near 1; groups stained alike near 0."""
        rng = np.random.default_rng(0)
        base = np.array([[0.56, 0.72, 0.41]]), np.array([[0.22, 0.80, 0.55]])
        noise = rng.normal(0, 0.01, (2, 80, 3))
        groups = [f"g{n % 4}" for n in range(80)]
        alike = describe_stains(self.table(base[0] + noise[0], base[1] + noise[1], groups)).as_json()
        assert abs(alike["haematoxylin"]["between_groups"]) < 0.1
        assert alike["eosin"]["vector"] == pytest.approx(base[1][0] / np.linalg.norm(base[1]), abs=0.01)
        shift = np.where(np.array(groups) == "g0", 0.15, 0)[:, None] * [1, 0, -1]
        apart = describe_stains(self.table(base[0] + noise[0] + shift, base[1] + noise[1], groups)).as_json()
        assert apart["haematoxylin"]["between_groups"] > 0.8
        assert max(apart["groups"], key=lambda group: group["haematoxylin"]["shift"])["group"] == "g0"

    def test_intraclass_correlation_follows_from_the_f_test(self) -> None:
        """With equally many in each group, ICC(1) is (F - 1) / (F - 1 + n), F from scipy's one-way analysis."""
        values = np.random.default_rng(2).normal(size=(5, 7)) + np.arange(5)[:, None]
        f = f_oneway(*values).statistic
        found = intraclass_correlation(values.reshape(-1, 1), pd.Series(np.repeat(list("abcde"), 7)))
        assert found == pytest.approx((f - 1) / (f - 1 + 7))

    @pytest.mark.parametrize(
        ("grey", "second", "reason"), [(True, 0.8, "grey"), (False, 0.3, "green"), (False, np.nan, "tissue")]
    )
    def test_other_than_h_and_e_is_left_out(self, grey: bool, second: float, reason: str) -> None:
        """Grey images, brown ones and ones without tissue have no stains, and it is said why."""
        rows = np.array([[0.3, second, 0.8]] * 5)
        table = self.table(rows, rows, ["a"] * 5).assign(grey=grey)
        record = describe_stains(table).as_json()
        assert not record["applies"]
        assert reason in record["reason"]


class TestMap:
    """Places, and how much groups keep together."""

    def test_principal_components_equal_a_singular_value_decomposition(self) -> None:
        """Coordinates and explained shares are those of numpy's decomposition, but for the sign."""
        features = np.random.default_rng(0).normal(size=(50, 6)) * [5, 3, 1, 1, 1, 1]
        places, shares = principal_components(features)
        centred = features - features.mean(axis=0)
        left, singular, _ = np.linalg.svd(centred, full_matrices=False)
        assert np.abs(places) == pytest.approx(np.abs(left[:, :2] * singular[:2]))
        assert shares == pytest.approx((singular**2 / (singular**2).sum())[:2])

    def test_neighbours_by_brute_force(self) -> None:
        """Observed and chance shares are those counted pair by pair, among images of the same class."""
        rng = np.random.default_rng(3)
        features, groups, labels = rng.normal(size=(60, 3)), rng.integers(0, 5, 60), rng.integers(0, 2, 60)
        observed, chance = [], []
        for i in range(60):
            others = [j for j in range(60) if j != i and labels[j] == labels[i]]
            near = sorted(others, key=lambda j, i=i: np.linalg.norm(features[i] - features[j]))[:10]
            observed.append(np.mean(groups[near] == groups[i]))
            chance.append(np.mean(groups[others] == groups[i]))
        names = pd.Series(groups).astype("string")
        found = same_neighbours(features, names, within=pd.Series(labels), clusters=names)
        assert found is not None
        assert found.observed == pytest.approx(np.mean(observed))
        assert found.chance == pytest.approx(np.mean(chance))
        assert found.ratio == pytest.approx(np.mean(observed) / np.mean(chance))

    def test_chance_is_inside_the_interval_and_a_batch_effect_is_not(self) -> None:
        """Groups drawn by lot show nothing; groups with a shift of their own do."""
        rng = np.random.default_rng(4)
        groups = pd.Series(rng.integers(0, 20, 600)).astype("string")
        noise = rng.normal(size=(600, 5))
        by_lot = same_neighbours(noise, groups, clusters=groups)
        shifted = same_neighbours(noise + groups.astype(int).to_numpy()[:, None] % 7, groups, clusters=groups)
        assert by_lot is not None
        assert shifted is not None
        assert by_lot.ci95[0] < 1 < by_lot.ci95[1]
        assert shifted.ci95[0] > 1.5

    def test_too_few_images_say_nothing(self) -> None:
        """Below twenty images, or with one group, there is no number, and places exist all the same."""
        table = pd.DataFrame(np.random.default_rng(0).normal(size=(15, len(MEASURES))), columns=list(MEASURES))
        table = table.assign(label=pd.array([1] * 15, "Int64"), group=pd.array(["a"] * 15, "string"))
        placed, record = place(table)
        assert record.same_group is None
        assert placed["pca_1"].std() > 0
        alone, _ = place(table.head(1))
        assert alone["pca_1"].tolist() == [0.0]


def test_patients_of_idc_keep_together(real_data: Path) -> None:
    """In real data, the patches most alike come from the same patient far more often than by chance."""
    cohort = open_cohort(real_data / "idc", group_from_name=r"^(\d+)_")
    _, record = place(measure(draw_sample(cohort, 400)).table)
    assert record.same_group.ci95[0] > 2


def test_real_breast_mri_is_grey(real_data: Path) -> None:
    """Slices of breast MRI are grey, and stains do not apply."""
    cohort = open_cohort(real_data / "mri" / "images", label_from_name="^(benign|malignant)")
    table = measure(draw_sample(cohort, 6)).table
    assert table["grey"].all()
    assert not describe_stains(table).applies
