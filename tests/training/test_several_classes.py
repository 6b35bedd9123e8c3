"""More than two classes: every learner parts them, and tumour is the sum of the classes that are named so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score, f1_score
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from tests.conftest import SMALL, renew_no_part
from tumortrace import (
    compare,
    crossval,
    ensemble,
    evaluate,
    explain,
    learning_curve,
    predict,
    stress,
    synthesise,
    train,
    tune,
)
from tumortrace.app.catalogue import assess
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.material import Material
from tumortrace.cohorts.splits import assign_splits
from tumortrace.cohorts.store import open_store
from tumortrace.errors import CohortError, ModelError, RecipeError, RunError
from tumortrace.evaluation.classes import class_columns, evaluate_classes
from tumortrace.images.augmentation import Augmentation
from tumortrace.inference.export import export
from tumortrace.models.architecture import build_network
from tumortrace.models.bundle import load_model
from tumortrace.models.layers import LogOdds, build_head, with_classes
from tumortrace.records.evaluation import ComparisonRecord, ExplanationsRecord, StressRecord
from tumortrace.records.metrics import Metrics
from tumortrace.records.plans import CrossvalRecord, LearningCurveRecord, StudyRecord
from tumortrace.records.run import Run
from tumortrace.records.tables import HISTORY, PREDICTIONS, SUBSETS
from tumortrace.training.classifiers import fit_classifier, keep
from tumortrace.training.few_shot import fitted_logistic, neighbours, prototypes
from tumortrace.training.options import Classifier, Loss
from tumortrace.training.recipe import load_recipe
from tumortrace.training.space import parse_space
from tumortrace.training.stage import class_loss
from tumortrace.training.task import epoch_order, split_patches, teacher_targets

POSITIVE = (False, False, True, True)
NAMES = ["normal", "benign", "insitu", "invasive"]


@pytest.fixture(scope="module")
def tissues(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesise("tissues", tmp_path_factory.mktemp("tissues") / "tissues", count=400, seed=2)


@pytest.fixture(scope="module")
def run(tissues: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tissues, changes=SMALL, out=tmp_path_factory.mktemp("runs"), seed=1)


def points(count: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """Features that tell four classes, and the classes, of which one is rare."""
    random = np.random.default_rng(0)
    kinds = random.choice(4, count, p=[0.4, 0.3, 0.25, 0.05])
    return (random.normal(size=(count, 6)) + 1.3 * np.eye(6)[kinds]).astype(np.float32), kinds


def shares(head: torch.nn.Module, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the classes, and of the positive ones, of a head that ends in `LogOdds`."""
    assert isinstance(head, torch.nn.Sequential)
    with torch.inference_mode():
        tensor = torch.from_numpy(features)
        head.eval()
        return head[:-1](tensor).softmax(1).numpy(), head(tensor).sigmoid().squeeze(1).numpy()


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("name", ["logistic", "tree", "bagging", "forest", "boosting"])
def test_classical_learners_say_what_scikit_learn_says(name: str, balanced: bool) -> None:
    features, kinds = points()
    learner = Classifier.model_validate({"name": name})
    values = {"logistic": {"C": 0.5}, "tree": {"max_depth": 4}, "boosting": {"max_iter": 8}}
    pipeline, _ = fit_classifier(
        learner, values.get(name, {"n_estimators": 9}), features, kinds, balanced=balanced, seed=1
    )
    layer = keep(pipeline, len(kinds), features.shape[1])
    said, tumour = shares(torch.nn.Sequential(layer, LogOdds(POSITIVE)), features)
    expected = pipeline.predict_proba(features)
    if name not in ("logistic", "boosting"):  # half an image of each class keeps logits finite
        expected = expected.clip(0.5 / len(kinds))
        expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(said, expected, atol=2e-5)
    np.testing.assert_allclose(tumour, expected[:, 2:].sum(1), atol=2e-5)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    """Of the loss, of classical learners and of the order of images."""
    _, kinds = points()
    weights = compute_class_weight("balanced", classes=np.arange(4), y=kinds)
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(len(kinds), 4)))
    targets = torch.from_numpy(np.eye(4)[kinds])
    given = torch.from_numpy(np.bincount(kinds) / len(kinds))
    ours = class_loss(logits, targets, Loss(class_weights="balanced"), given)
    each = functional.cross_entropy(logits, torch.from_numpy(kinds), reduction="none")
    assert float(ours) == pytest.approx(float((each * torch.from_numpy(weights[kinds])).mean()))
    drawn = kinds[epoch_order(kinds, True, (0, 1))]
    assert set(np.bincount(drawn)) == {60}


def test_label_smoothing_is_that_of_torch() -> None:
    logits = torch.from_numpy(np.random.default_rng(2).normal(size=(20, 5)))
    kinds = torch.arange(20) % 5
    ours = class_loss(
        logits, torch.eye(5, dtype=torch.float64)[kinds], Loss(label_smoothing=0.2), torch.full((5,), 0.2)
    )
    assert float(ours) == pytest.approx(float(functional.cross_entropy(logits, kinds, label_smoothing=0.2)))


def test_heads_of_a_probe_say_what_scikit_learn_says() -> None:
    features, kinds = points()
    scale = StandardScaler().fit(features)
    scaled = scale.transform(features)
    said, _ = shares(fitted_logistic(scale, features, kinds, 0.1, POSITIVE), features)
    reference = LogisticRegression(C=0.1, max_iter=2000).fit(scaled, kinds)
    np.testing.assert_allclose(said, reference.predict_proba(scaled), atol=1e-5)
    said, tumour = shares(neighbours(scale, features, kinds, POSITIVE, [{"neighbours": 7, "images": 240}]), features)
    votes = KNeighborsClassifier(7).fit(scaled, kinds).predict_proba(scaled) * 7
    np.testing.assert_allclose(said, (votes + 0.5) / 9, atol=1e-5)
    np.testing.assert_allclose(tumour, (votes[:, 2:].sum(1) + 1) / 9, atol=1e-5)
    said, _ = shares(prototypes(scale, features, kinds, POSITIVE), features)
    nearest = NearestCentroid().fit(scaled, kinds)
    np.testing.assert_array_equal(said.argmax(1), nearest.predict(scaled))
    distances = ((scaled[:, None] - nearest.centroids_) ** 2).mean(2) / 2
    np.testing.assert_allclose(said, softmax(-distances, axis=1), atol=1e-5)


def test_two_outputs_are_the_softmax_of_two_classes() -> None:
    head = build_head(6, outputs=2).eval()
    features = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        outputs = head[:-1](features)
        assert torch.equal(head(features), outputs[:, 1:] - outputs[:, :1])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("plain-cnn", {"blocks": [4], "head": [{"dense": 8}], "outputs": 2}),
        ("centre-resnet", {"stem": 4, "widths": [8], "depths": [1]}),
        ("backbone", {"body": "resnet18", "head": [{"dense": 8}, {"dropout": 0.5}]}),
        ("ensemble", {}),
    ],
)
def test_every_family_parts_classes(name: str, arguments: dict[str, object]) -> None:
    """In learning it gives a logit for each class; in use the logit of the positive ones, whose softmax it is."""
    network = build_network(name, (32, 32), arguments, POSITIVE)
    images = torch.rand(3, 3, 32, 32)
    if name != "ensemble":  # which is made of networks that have learnt
        assert network.train()(images).shape == (3, 4)
    with torch.inference_mode():
        maps = network.eval().maps(images)
        classes, tumour = network.class_logits(maps), network.from_maps(maps)
    assert torch.allclose(classes.softmax(1)[:, 2:].sum(1), tumour.sigmoid(), atol=1e-6)


def test_an_ensemble_averages_the_probabilities_of_its_members() -> None:
    network = build_network("ensemble", (32, 32), {}, POSITIVE).eval()
    images = torch.rand(3, 3, 32, 32)
    with torch.inference_mode():
        members = [member.class_logits(member.maps(images)).softmax(1) for member, _ in network.members()]
        said = network.class_logits(network.maps(images)).softmax(1)
    assert torch.allclose(said, torch.stack(members).mean(0).double(), atol=1e-6)


def test_with_classes_keeps_what_is_before_the_last_layer() -> None:
    head = build_head(6, [{"dense": 5}, {"dropout": 0.5}])
    parted = with_classes(head, POSITIVE)
    assert parted[0] is head[0]
    assert [type(layer).__name__ for layer in parted] == ["Linear", "ReLU", "Dropout", "Linear", "LogOdds"]


def test_splits_give_every_class_its_share(tissues: Path) -> None:
    cohort = open_cohort(tissues)
    splits = assign_splits(cohort, seed=3)
    counts = splits.table.merge(cohort.table[["id", "class_name"]], on="id").groupby(["split", "class_name"]).size()
    shares = counts.unstack().div(counts.unstack().sum())
    assert (shares.loc["train"].between(0.45, 0.85)).all()
    assert len(counts) == 16


def test_a_run_tells_the_classes_and_adds_them_up(run: Path) -> None:
    table = PREDICTIONS.read(run)
    probabilities = table[class_columns(NAMES)]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-9)
    np.testing.assert_allclose(probabilities.iloc[:, 2:].sum(axis=1), table["probability"], atol=1e-9)
    assert (table["predicted_class"] == np.array(NAMES)[probabilities.to_numpy().argmax(1)]).all()
    test = table[table["split"] == "test"]
    told = Metrics.read(run)["test"].classes
    assert told is not None
    assert told == evaluate_classes(test, NAMES)
    sets = test["class_set"].fillna("").str.split("|")
    assert told["set_size"].value == pytest.approx(np.mean([len([name for name in held if name]) for held in sets]))


def test_prediction_and_evaluation_tell_the_classes_too(run: Path, tmp_path: Path) -> None:
    other = synthesise("tissues", tmp_path / "other", count=64, seed=5)
    table = predict(run, other)
    assert set(class_columns(NAMES)) < set(table)
    told = Metrics.read(evaluate(run, other, out=tmp_path / "evaluation"))["test"].classes
    assert told is not None
    assert told.n == 64
    assert told["accuracy"].value == pytest.approx((table["class"] == table["predicted_class"]).mean())


@pytest.mark.parametrize("heads", ["logistic", "knn"])
def test_a_probe_makes_a_run(tissues: Path, tmp_path: Path, heads: str) -> None:
    """Of a small body with random weights; what is kept predicts as the bundle that is opened again."""
    changes = ["model.arguments={body: resnet18, pooling: average}", "preprocessing.size=32", f"probe.heads=[{heads}]"]
    folder = train(tissues, recipe="probe", changes=changes, weights="random", out=tmp_path)
    table = PREDICTIONS.read(folder)
    images = open_store(open_cohort(tissues)).images
    chosen = table.iloc[:20].merge(open_cohort(tissues).table.reset_index()[["id", "index"]], on="id")
    said = load_model(folder, backend="torch").assess(images, chosen["index"].to_numpy()).by_class
    assert said is not None
    for name in class_columns(NAMES):
        np.testing.assert_allclose(said[name], chosen[name], atol=1e-5)


def test_a_texture_forest_makes_a_run(tissues: Path, tmp_path: Path) -> None:
    changes = ["model.arguments.descriptors=[intensity]", "learner.parameters={n_estimators: 10}"]
    folder = train(tissues, recipe="texture-forest", changes=changes, out=tmp_path)
    told = Metrics.read(folder)["test"].classes
    assert told is not None
    assert told["macro_auroc"].value is not None


@pytest.fixture(scope="module")
def other_run(tissues: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another training on the same splits."""
    return train(tissues, changes=(*SMALL, "epochs=1"), out=tmp_path_factory.mktemp("runs"), seed=2, split_seed=1)


def test_runs_are_compared_by_their_classes(run: Path, other_run: Path, tmp_path: Path) -> None:
    folder = compare([run, other_run], out=tmp_path / "comparison")
    pair = ComparisonRecord.read(folder).differences[0]
    one, other = (PREDICTIONS.read(each)[lambda table: table["split"] == "test"] for each in (run, other_run))
    rightly = [table["class"] == table["predicted_class"] for table in (one, other)]
    assert pair.classes["accuracy"].value == pytest.approx(rightly[1].mean() - rightly[0].mean())
    macro = [f1_score(table["class"], table["predicted_class"], average="macro") for table in (one, other)]
    assert pair.classes["macro_f1"].value == pytest.approx(macro[1] - macro[0])
    assert pair.class_mcnemar is not None
    assert pair.class_mcnemar.extra["only_first"] == int((rightly[0].to_numpy() & ~rightly[1].to_numpy()).sum())
    assert 'data-metric="classes/macro_f1"' in (folder / "compare.html").read_text("utf-8")


def test_an_ensemble_of_runs_averages_their_classes(run: Path, other_run: Path, tissues: Path, tmp_path: Path) -> None:
    together = ensemble([run, other_run], out=tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), np.uint8)
    models = [load_model(each, backend="torch") for each in (run, other_run, together)]
    logits = [model.embedded(images).classes for model in models]
    members = [softmax(values, axis=1) for values in logits[:2]]
    assert models[2].info.symmetries  # over which logits are averaged, so that this holds roughly
    np.testing.assert_allclose(softmax(logits[2], axis=1), np.mean(members, axis=0), atol=0.02)
    assert Metrics.read(together)["test"].classes is not None


def test_folds_are_pooled_by_class(tissues: Path, tmp_path: Path) -> None:
    folder = crossval(tissues, recipe=["cnn-64"], changes=["preprocessing.size=24", "epochs=1"], folds=2, out=tmp_path)
    record = CrossvalRecord.read(folder).recipes["cnn-64"].pooled
    assert record is not None
    assert record.classes is not None
    assert record.classes.n == 400
    assert "; pooled, of 4 classes accuracy" in (folder / "log.txt").read_text("utf-8")
    assert 'id="pooled-classes"' in (folder / "report.html").read_text("utf-8")


def test_a_stress_test_tells_of_the_classes(run: Path, tmp_path: Path) -> None:
    other = synthesise("tissues", tmp_path / "other", count=48, seed=6)
    folder = stress(run, other, corruptions=["blur"], out=tmp_path / "stress")
    record = StressRecord.read(folder)
    assert record.clean.classes is not None
    assert record.corruptions["blur"].levels[0].metrics.classes is not None


def test_classes_in_an_order_are_judged_by_it(tissues: Path, tmp_path: Path) -> None:
    order = "benign,normal,insitu,invasive"
    folder = train(tissues, changes=(*SMALL, "epochs=1"), class_order=order, out=tmp_path / "runs")
    table = PREDICTIONS.read(folder)[lambda table: table["split"] == "test"]
    told = Metrics.read(folder)["test"].classes
    assert told is not None
    assert told.names == order.split(",")
    codes = [table[column].map(told.names.index) for column in ("class", "predicted_class")]
    assert told["quadratic_kappa"].value == pytest.approx(cohen_kappa_score(*codes, weights="quadratic"))
    other = synthesise("tissues", tmp_path / "other", count=48, seed=5)
    told = Metrics.read(evaluate(folder, other, out=tmp_path / "evaluation"))["test"].classes
    assert told is not None
    assert told["quadratic_kappa"].value is not None


def test_an_order_of_other_classes_is_refused(tissues: Path, tissue: Path) -> None:
    with pytest.raises(CohortError, match=r"--class-order a,b,c.*expected each of normal, benign, insitu"):
        open_cohort(tissues, class_order="a,b,c")
    with pytest.raises(CohortError, match="more than two classes"):
        open_cohort(tissue, class_order="normal,tumour,other")


def test_the_evidence_for_a_class_is_that_of_its_log_odds(run: Path, tissues: Path, tmp_path: Path) -> None:
    """Occlusion of a class's logit against the rest; an unknown class is refused."""
    model = load_model(run, backend="torch")
    images = open_store(open_cohort(tissues)).images[:2]
    classes = model.embedded(images).classes
    asked = model.of_class("benign")
    shares = softmax(classes, axis=1)[:, 1]
    assert not model.info.symmetries or len(model.info.views) == 8  # whose logits are averaged, not their log-odds
    np.testing.assert_allclose(asked.logits(images), np.log(shares / (1 - shares)), atol=0.02)
    np.testing.assert_array_equal(model.embedded(images).classes, classes)
    files = [str(open_cohort(tissues).table["path"].iloc[0])]
    folder = explain(run, files, of_class="benign", out=tmp_path / "explanations")
    assert ExplanationsRecord.read(folder).as_json()["target"] == "benign"
    with pytest.raises(ModelError, match="no class 'lobular' to ask for; expected one of normal, benign, insitu"):
        explain(run, files, of_class="lobular", out=tmp_path / "explanations")


def test_the_api_tells_the_classes(run: Path, tissues: Path) -> None:
    model = load_model(run, backend="torch")
    image = open_store(open_cohort(tissues)).images[:1]
    said = assess(model, "model", image)[0]
    assert said["classes"] is not None
    probabilities = said["classes"]["probabilities"]
    assert list(probabilities) == NAMES
    assert probabilities["insitu"] + probabilities["invasive"] == pytest.approx(said["probability"])
    assert said["classes"]["predicted"] == max(probabilities, key=lambda name: probabilities[name])


def test_a_figure_of_the_classes_stops_a_training(tissues: Path, tissue: Path, tmp_path: Path) -> None:
    """The epoch that is kept is the best by it; of two classes it is refused before anything is made."""
    changes = (*SMALL, "stopping.metric=class_balanced_accuracy", "epochs=3")
    folder = train(tissues, changes=changes, out=tmp_path / "runs", seed=1)
    history = HISTORY.read(folder)
    best = int(history["validation_class_balanced_accuracy"].argmax())
    assert Run(folder).record.best_epoch == best + 1
    assert history["validation_class_macro_auroc"].between(0, 1).all()
    with pytest.raises(RecipeError, match=r"stopping\.metric class_balanced_accuracy with two classes.*such as auroc"):
        train(tissue, changes=changes, out=tmp_path / "none")
    assert not (tmp_path / "none").exists() or not list((tmp_path / "none").iterdir())


def test_a_pupil_learns_the_classes_of_a_teacher(run: Path, tissues: Path, tmp_path: Path) -> None:
    """Targets are the mean of the class and the teacher's probabilities; a teacher of other classes is refused."""
    material = Material(open_cohort(tissues))
    splits = material.divide("group", 1, load_recipe("tumortrace").splits)
    training = split_patches(material.cohort, material.store.images, splits, "train")
    taught, notes = teacher_targets(run, material, splits, training, 0.25)
    said = load_model(run).assess(material.store.images, training.rows).by_class
    assert said is not None
    expected = 0.75 * np.eye(4)[training.kinds] + 0.25 * np.stack([said[name] for name in class_columns(NAMES)], 1)
    np.testing.assert_allclose(taught.learnt(np.arange(len(training.rows))), expected, atol=1e-5)
    assert notes[-1].startswith("distilled from")
    pupil = train(tissues, changes=(*SMALL, "epochs=1"), distil=run, out=tmp_path, seed=1)
    assert Metrics.read(pupil)["test"].classes is not None
    other = Material(open_cohort(tissues, class_order="benign,normal,insitu,invasive"))
    apart = other.divide("group", 1, load_recipe("tumortrace").splits)
    found = r"the teacher takes .* and classes \('normal', 'benign', 'insitu', 'invasive'\)"
    with pytest.raises(RunError, match=found):
        teacher_targets(run, other, apart, split_patches(other.cohort, other.store.images, apart, "train"), 0.5)


FAST = ["preprocessing.size=24", "epochs=1"]


def test_a_search_tells_the_classes(tissues: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its objective may be of them; the best trial's figures stand in its record, report and last lines."""
    parameters = {"optimiser.lr": {"float": [0.001, 0.01], "log": True}}
    document = {
        "name": "few",
        "description": "",
        "recipe": "cnn-64",
        "trials": 1,
        "epochs": 1,
        "parameters": parameters,
    }
    space = parse_space(document | {"objective": {"metric": "class_macro_auroc"}}, "space few")
    folder = tune(tissues, space=space, changes=["preprocessing.size=24"], out=tmp_path)
    told = Metrics.read(folder)["validation"].classes
    best = StudyRecord.read(folder).best
    assert told is not None
    assert best is not None
    assert told["macro_auroc"].value == pytest.approx(best.value, abs=1e-6)
    assert "validation of that trial, of 4 classes accuracy" in capsys.readouterr().err
    page = (folder / "report.html").read_text("utf-8")
    assert 'id="best-classes"' in page
    assert "Validation AUROC one against the rest, mean of classes" in page


def test_a_learning_curve_tells_the_classes(
    tissues: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smallest part has images of every class."""
    monkeypatch.setattr("tumortrace.training.experiment.renew_report", renew_no_part)
    folder = learning_curve(tissues, [0.01, 1.0], repeats=1, recipe="cnn-64", changes=FAST, out=tmp_path)
    outcome = LearningCurveRecord.read(folder)
    subsets = SUBSETS.read(folder).merge(open_cohort(tissues).table[["id", "class_name"]], on="id")
    assert (subsets.groupby("fraction")["class_name"].nunique() == 4).all()
    for row in outcome.runs:
        classes = Metrics.read(folder / row.run)["test"].classes
        assert classes is not None
        assert row.metrics["class_balanced_accuracy"] == classes["balanced_accuracy"]
    assert "of all classes AUROC" in capsys.readouterr().err
    page = (folder / "report.html").read_text("utf-8")
    assert "Of all classes: AUROC one against the rest" in page
    assert "Balanced accuracy against the number of labelled" in page


def test_mixed_targets_of_classes_still_sum_to_one() -> None:
    augmentation = Augmentation(mixup=0.4)
    targets = torch.eye(4)[torch.arange(8) % 4]
    _, mixed = augmentation.mix(torch.rand(8, 3, 4, 4), targets, torch.Generator().manual_seed(0))
    assert torch.allclose(mixed.sum(1), torch.ones(8))
    assert (mixed.max(1).values < 1).any()


def test_an_exported_model_tells_the_classes(run: Path, tissues: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    file = export(run, out=tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(file))
    assert session.get_modelmeta().custom_metadata_map["class_names"] == '["normal", "benign", "insitu", "invasive"]'
    images = np.random.default_rng(0).integers(0, 256, (5, 96, 96, 3), np.uint8)
    said = session.run(["class_probability"], {"images": images})[0]
    by_class = load_model(run, backend="torch").assess(images).by_class
    assert by_class is not None
    np.testing.assert_allclose(said, np.stack([by_class[name] for name in class_columns(NAMES)], 1), atol=1e-5)


def test_two_classes_have_no_such_columns(small_run: Path) -> None:
    table = PREDICTIONS.read(small_run)
    assert not [column for column in table if "class" in column]
    assert Metrics.read(small_run)["test"].classes is None
