"""What is measured of heat maps, against cases worked out by hand and scipy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from tumortrace.cli.main import run as call
from tumortrace.errors import CohortError
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.inference.explain import allowed_methods, draw_sheets, measure
from tumortrace.inference.explain.evidence import prepared_pixels
from tumortrace.inference.explain.faithfulness import (
    areas,
    cascade,
    cell_order,
    deletion_insertion,
    energy_inside,
    mask_auc,
    pointing,
    rank_correlation,
    similarity,
)
from tumortrace.inference.explain.measures import others, per_image, randomised, summarise
from tumortrace.inference.explain.methods import CONTROLS, METHODS, heat_of
from tumortrace.models.architecture import build_network
from tumortrace.models.bundle import Model, load_model
from tumortrace.models.description import Architecture, ModelInfo, TrainingData
from tumortrace.reports.report import write_report

pytestmark = pytest.mark.painted

MASK = np.array([[True, True, False], [False, False, False]])


@pytest.mark.parametrize(
    ("heat", "expected"),
    [
        ([[5, 0, 0], [0, 0, 0]], (1.0, 1.0, 0.75)),  # hottest in the mask; of 8 pairs 4 won, 4 tied
        ([[0, 0, 5], [0, 0, 0]], (0.0, 0.0, 0.375)),  # all beside it: 2 pairs lost, 6 tied
        ([[1, 1, 1], [1, 1, 1]], (1 / 3, 1 / 3, 0.5)),  # even heat: the mask's share of the area
        ([[4, -9, 2], [2, 0, 0]], (1.0, 0.5, 0.5)),  # what is negative is not energy; 4 pairs won, 4 lost
        ([[-1, -1, -2], [-2, -2, -2]], (0.0, 0.0, 1.0)),  # no positive heat points nowhere
    ],
)
def test_localisation_by_hand(heat: list[list[float]], expected: tuple[float, float, float]) -> None:
    """Pointing game, energy inside and AUC of 2x3 px."""
    values = np.array(heat, dtype=float)
    found = pointing(values, MASK), energy_inside(values, MASK), mask_auc(values, MASK)
    assert found == pytest.approx(expected)


def test_an_auc_without_both_kinds_of_pixels_is_not_defined() -> None:
    """Neither 0 nor 1."""
    assert np.isnan(mask_auc(np.ones((2, 3)), np.ones((2, 3), bool)))
    assert np.isnan(mask_auc(np.ones((2, 3)), np.zeros((2, 3), bool)))


def test_areas_of_deletion_and_insertion_by_hand() -> None:
    """A function that reads the share of black in the first of four cells, on a grey picture whose blank is black.

    With the right order that cell goes at the first of four steps: deletion 1, 0, 0, 0, 0 and insertion 0, 1, 1, 1, 1;
    by trapezoids 1/8 and 7/8. With the worst order it goes at the last one: 7/8 and 1/8.
    """
    pixels = torch.full((1, 3, 4, 4), 0.5)

    def probability(images: torch.Tensor) -> np.ndarray:
        return np.asarray((2 * images[:, 0, :2, :2]).mean((1, 2)))

    assert areas(probability, pixels, np.array([0, 1, 2, 3]), steps=4) == pytest.approx((1 / 8, 7 / 8))
    assert areas(probability, pixels, np.array([3, 2, 1, 0]), steps=4) == pytest.approx((7 / 8, 1 / 8))


def test_cells_go_from_the_hottest_to_the_coldest_and_equals_at_random() -> None:
    """Mean heat of a cell counts; cells without heat come in another order for another seed."""
    heat = np.zeros((8, 8))
    heat[0:2, 6:8], heat[4, 4] = 1, 3.9  # means 1 and .975 of cells of 2x2 px
    orders = [cell_order(heat, seed, grid=4) for seed in range(5)]
    assert all(order[:2].tolist() == [3, 10] for order in orders)
    assert all(sorted(order.tolist()) == list(range(16)) for order in orders)
    assert len({tuple(order) for order in orders}) == 5


def test_rank_correlation_is_scipys_of_the_strengths() -> None:
    """Ties included; a map that only changes its sign has not changed; a flat one has."""
    random = np.random.default_rng(2)
    first, second = np.maximum(random.normal(size=(9, 9)), 0), random.normal(size=(9, 9))
    expected = spearmanr(np.abs(first).ravel(), np.abs(second).ravel()).statistic
    assert rank_correlation(first, second) == pytest.approx(expected)
    assert rank_correlation(second, -second) == similarity(second, -second) == pytest.approx(1)
    assert rank_correlation(first, np.ones((9, 9))) == 0
    assert np.isnan(rank_correlation(np.zeros((9, 9)), second))


def small_model() -> Model:
    """A small residual network with weights that are not the neutral ones of its beginning."""
    torch.manual_seed(3)
    network = build_network("centre-resnet", (48, 48), {"stem": 8, "widths": [8, 16], "depths": [1, 1]})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        network.get_parameter("top.2.weight").abs_()
    info = ModelInfo(
        name="small",
        architecture=Architecture(name="centre-resnet"),
        preprocessing=Preprocessing(normalisation="centred"),
        patch_size=(48, 48),
        classes=("normal", "tumour"),
        positive_class="tumour",
        training=TrainingData(fingerprint="0", prevalence=0.5, recipe="none"),
    )
    return Model(info, network, torch.device("cpu"))


def test_the_cascade_randomises_from_the_output_and_leaves_the_model_alone() -> None:
    """At first the last layer alone differs, at the end all; entries stay the same, and so does the original."""
    model = small_model()
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    stages = list(cascade(model, seed=0))
    assert [share for share, _ in stages][-1] == 1
    changed = [
        {name for name, value in random.network.state_dict().items() if not torch.equal(value, before[name])}
        for _, random in stages
    ]
    assert changed[0] == {"top.2.weight"}
    assert changed[0] < changed[1] < changed[2]
    assert "body.0.weight" in changed[2] - changed[1]
    last = stages[-1][1].network.state_dict()
    assert all(torch.equal(last[name].flatten().sort()[0], before[name].flatten().sort()[0]) for name in before)
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())


def test_a_map_that_ignores_the_weights_is_found_out() -> None:
    """An edge detector keeps its map when the weights go, and is flagged; Layer-CAM does not, and is not."""
    model, patches = small_model(), np.random.default_rng(5).integers(0, 256, (6, 48, 48, 3), dtype=np.uint8)
    verdicts = {}
    for name, method in (("edges", CONTROLS["edges"]), ("layer-cam", METHODS["layer-cam"])):
        heat = heat_of(model, patches, method)
        random = list(cascade(model, seed=0))[-1][1]
        kept = [rank_correlation(*pair) for pair in zip(heat, heat_of(random, patches, method), strict=True)]
        table = pd.DataFrame({"method": name, "group": None, "heat": True, "rank_correlation_1.00": kept})
        table[["ssim_1.00", "deletion", "insertion", "random_deletion", "random_insertion"]] = 0.5
        verdicts[name] = summarise(table).methods[name].depends_on_weights
    assert verdicts == {"edges": "no", "layer-cam": "yes"}


def test_a_map_gains_by_what_it_knows_of_its_patch() -> None:
    """What is the same on every patch gains exactly nothing; a map gains what those of two others lose."""
    model, patches = small_model(), np.random.default_rng(6).integers(0, 256, (7, 48, 48, 3), dtype=np.uint8)
    ramp = np.broadcast_to(np.arange(48.0 * 48).reshape(48, 48), (7, 48, 48))
    constant = per_image(model, patches, ramp, None, seed=0)
    assert constant[["deletion_gain", "insertion_gain"]].abs().to_numpy().max() < 1e-9
    heat = heat_of(model, patches, METHODS["layer-cam"])
    found = per_image(model, patches, heat, None, seed=0)
    own = [deletion_insertion(model, prepared_pixels(model, patches[2:3]), cell_order(heat[k], k)) for k in (2, 0, 4)]
    assert found["deletion"][2], found["insertion"][2] == pytest.approx(own[0])
    assert found["deletion_gain"][2] == pytest.approx((own[1][0] + own[2][0]) / 2 - own[0][0])
    assert found["insertion_gain"][2] == pytest.approx(own[0][1] - (own[1][1] + own[2][1]) / 2)
    assert per_image(model, patches[:1], heat[:1], None, seed=0)["deletion_gain"].isna().all()


@pytest.mark.parametrize("count", [2, 3, 4, 8, 48, 64])
def test_the_others_are_never_the_patch_itself(count: int) -> None:
    """Two of them, far away where there are enough; each patch is as often another's other as any."""
    chosen = [others(row, count) for row in range(count)]
    assert all(row not in found and len(found) == min(2, count - 1) for row, found in enumerate(chosen))
    assert len(set(np.bincount(np.concatenate(chosen)))) == 1
    assert all(
        min(abs(row - other), count - abs(row - other)) >= count // 3
        for row, found in enumerate(chosen)
        for other in found
    )


def test_wholly_random_networks_are_several() -> None:
    """What is kept of maps at the end of the cascade is the mean over three shuffles, as SciPy correlates."""
    model, patches = small_model(), np.random.default_rng(5).integers(0, 256, (4, 48, 48, 3), dtype=np.uint8)
    method = METHODS["layer-cam"]
    heat = heat_of(model, patches, method)
    share, kept, _ = list(randomised(model, patches, heat, method, seed=0))[-1]
    maps = [heat_of(list(cascade(model, 0))[-1][1], patches, method)]
    maps += [heat_of(next(cascade(model, seed, shares=(1.0,)))[1], patches, method) for seed in (1, 2)]
    rows = [[spearmanr(heat[k].ravel(), each[k].ravel()).statistic for k in range(4)] for each in maps]
    assert share == 1
    assert kept == pytest.approx(np.mean(rows, axis=0))
    assert len({tuple(row) for row in rows}) == 3


def test_a_network_with_maps_and_gradients_allows_every_method() -> None:
    """Told without making a map by the dear ones; a flat head without a map of features leaves two."""
    model = small_model()
    assert allowed_methods(model) == list(METHODS)
    model.network.attention_layer = None  # type: ignore[assignment]
    assert allowed_methods(model) == ["integrated-gradients", "occlusion"]


def test_the_edge_detector_finds_an_edge_and_the_bump_the_centre() -> None:
    """The controls are what they say they are."""
    model, patch = small_model(), np.full((1, 48, 48, 3), 200, np.uint8)
    patch[:, :, 30:] = 50
    heat = heat_of(model, patch, CONTROLS["edges"])[0]
    assert set(np.flatnonzero(heat.sum(0) > 1e-3)) == {29, 30}
    assert np.unravel_index(heat_of(model, patch, CONTROLS["centre"])[0].argmax(), (48, 48)) in {
        (23, 23),
        (24, 24),
        (23, 24),
        (24, 23),
    }


@pytest.fixture(scope="module")
def measured(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with measures and sheets of a small run, made through the command line."""
    out = tmp_path_factory.mktemp("why") / "explanations"
    data = "synthetic:patches?count=64&seed=9"
    asked = ["--measure", "--count", "12", "--method", "grad-cam", "--method", "occlusion", "-o", str(out)]
    assert call(["explain", str(small_run), data, *asked]) == 0
    assert call(["explain", str(small_run), data, "--sheet", "--count", "3", "-o", str(out)]) == 0
    return out


def test_measures_are_on_record_with_intervals(measured: Path) -> None:
    """Every mean is that of the table's column; methods and controls have all of them."""
    record = json.loads((measured / "measures.json").read_text())
    table = pd.read_csv(measured / "measures.csv")
    assert list(record["methods"]) == ["grad-cam", "occlusion", "centre", "edges"]
    assert "Research use only" in record["research_use"]
    for name, entry in record["methods"].items():
        part = table[table["method"] == name]
        for key in ("pointing", "energy", "mask_auc", "deletion", "insertion", "deletion_gain", "insertion_gain"):
            assert entry[key]["value"] == pytest.approx(part[key].mean()), (name, key)
            low, high = entry[key]["ci95"]
            assert low <= entry[key]["value"] <= high
    assert record["methods"]["edges"]["depends_on_weights"] == "no"
    assert record["methods"]["edges"]["randomised"][-1]["rank_correlation"]["value"] == pytest.approx(1)
    assert record["blank"]["the patch"]["value"] >= json.loads((measured / "measures.json").read_text())["threshold"]


def test_sheets_show_the_surest_of_each_kind(measured: Path, small_run: Path) -> None:
    """Ids of each kind are those that a table of predictions gives, in its order."""
    from tumortrace import open_cohort, predict

    record = json.loads((measured / "sheets.json").read_text())
    table = predict(small_run, open_cohort("synthetic:patches?count=64&seed=9"))
    for kind, (label, prediction) in {
        "true positives": (1, 1),
        "false negatives": (1, 0),
        "false positives": (0, 1),
    }.items():
        part = table[(table["label"] == label) & (table["prediction"] == prediction)]
        expected = part.sort_values("probability", ascending=prediction == 0, kind="stable")["id"].head(3).to_list()
        assert [item["id"] for item in record["items"] if item["kind"] == kind] == expected
    for name in record["figures"]:
        assert (measured / name).stat().st_size > 10_000


def test_the_report_shows_measures_and_sheets(measured: Path, tmp_path: Path) -> None:
    """With what chance would give, and without where there are none."""
    (tmp_path / "run.json").write_text('{"name": "mine", "classes": ["normal", "tumour"]}')
    assert "believe the explanations" not in write_report(tmp_path).read_text("utf-8")
    (tmp_path / "explanations").symlink_to(measured)
    html = write_report(tmp_path).read_text("utf-8")
    record = json.loads((measured / "measures.json").read_text())
    assert "Whether to believe the explanations" in html
    assert "Edge detector (control)" in html
    assert f"{record['methods']['occlusion']['energy']['value']:.3f}".lstrip("0") in html
    assert html.count("surest") + html.count("right and wrong predictions of one class") >= 2


def test_wrong_calls_are_refused_in_a_line(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two data sets, no image, sheets of no pictures, an unknown method: a line each, and nothing is written."""
    for asked in (
        [],
        ["--measure", "a", "b"],
        ["--sheet"],
        ["--sheet", "--measure", "synthetic:patches?count=16"],
        ["--sheet", "--count", "0", "synthetic:patches?count=16"],
        ["--measure", "--count", "0"],
        ["--method", "saliency", "a.png"],
        ["--measure", "--method", "saliency", "synthetic:patches?count=16"],
    ):
        assert call(["explain", str(small_run), *asked, "-o", str(tmp_path / "out")]) == 1, asked
        lines = capsys.readouterr().err.strip().splitlines()
        assert lines[-1].startswith("tumortrace: "), lines
    assert not (tmp_path / "out").exists()


def test_a_model_that_calls_nothing_positive_has_nothing_to_measure(
    small_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, with the number of images."""
    model = load_model(small_run)
    model.info = model.info.model_copy(update={"threshold": float(np.nextafter(1, 2))})
    monkeypatch.setattr("tumortrace.inference.explain.measures.load_model", lambda *_, **__: model)
    with pytest.raises(CohortError, match="none of 16 images tumour"):
        measure(small_run, "synthetic:patches?count=16&seed=9")


def test_trees_are_measured_by_occlusion_alone(tmp_path: Path) -> None:
    """Methods that need gradients are left out; without weights the randomisation test is undefined, without heat
    nothing lies on tumour."""
    arguments = {"descriptors": ["intensity"], "trees": {"trees": 1, "nodes": 3, "depth": 1, "images": None}}
    network = build_network("texture", (96, 96), arguments)  # its leaves hold 0: everything is positive with .5
    info = small_model().info.model_copy(
        update={
            "architecture": Architecture(name="texture", arguments=arguments),
            "preprocessing": Preprocessing(),
            "patch_size": (96, 96),
        }
    )
    Model(info, network, torch.device("cpu")).save(tmp_path / "model")
    assert allowed_methods(load_model(tmp_path)) == ["occlusion"]
    record = json.loads(measure(tmp_path, "synthetic:patches?count=24&seed=9", images=6).read_text())
    assert list(record["methods"]) == ["occlusion", "centre", "edges"]
    found = record["methods"]["occlusion"]
    assert found["depends_on_weights"] is None
    assert found["randomised"] == []
    assert found["without_heat"] == 6
    assert [found[key]["value"] for key in ("pointing", "energy", "mask_auc")] == [0, 0, 0.5]
    assert found["deletion"]["value"] == found["insertion"]["value"] == pytest.approx(0.5)
    assert draw_sheets(tmp_path, "synthetic:patches?count=24&seed=9", method="occlusion", count=1).exists()
