"""The bundle gives back what was saved, and refuses what was changed."""

from __future__ import annotations

import json
import pickletools
import shutil
from pathlib import Path

import numpy as np
import pytest

from tumortrace.errors import ModelError
from tumortrace.models.bundle import load_model


@pytest.fixture
def bundle(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run / "model", tmp_path / "model"))


def images(count: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)


def test_run_folder_and_bundle_open_the_same_model(small_run: Path, bundle: Path) -> None:
    """A run folder, its model folder and a copy elsewhere predict the same."""
    expected = load_model(small_run).predict(images())
    for place in (small_run / "model", bundle):
        np.testing.assert_array_equal(load_model(place).predict(images()), expected)
    assert ((expected > 0) & (expected < 1)).all()


def test_flipped_bit_in_the_weights_is_refused(bundle: Path) -> None:
    """One flipped bit in the last weight, which safetensors would load silently, is found."""
    file = bundle / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelError, match="SHA-256"):
        load_model(bundle)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("temperature", -1, "field temperature"),
        ("format", 3, "format 3"),
        ("format", "x", "format 'x'"),
        ("calibration", {"method": "temperature", "slope": -1}, "field calibration.slope"),
        ("calibration", {"method": "isotonic", "knots": [1, 0], "values": [0, 1]}, "knots do not rise"),
        ("calibration", {"method": "isotonic", "knots": [0, 1], "values": [0]}, "2 knots but 1 values"),
        ("positive_class", "normal", "positive class"),
        ("weights_sha256", "0" * 64, "SHA-256"),
        ("surprise", 1, "field surprise"),
        ("architecture", {"name": "os.system", "arguments": {}}, "no model named 'os.system'"),
        ("architecture", {"name": "centre-resnet", "arguments": {"nonsense": 1}}, "nonsense"),
        ("architecture", {"name": "plain-cnn", "arguments": {}}, "do not fit"),
    ],
)
def test_a_changed_description_is_refused_by_name(bundle: Path, field: str, value: object, message: str) -> None:
    """What is wrong in model.json is named in one line."""
    file = bundle / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with pytest.raises(ModelError, match=message) as refused:
        load_model(bundle)
    assert "\n" not in str(refused.value)


def test_a_bundle_of_the_first_format_keeps_its_temperature(bundle: Path) -> None:
    """Format 1 had one number; it gives the probabilities that it gave then. One that is none is refused."""
    file = bundle / "model.json"
    first = json.loads(file.read_text()) | {"format": 1, "temperature": 1.7}
    del first["calibration"]
    file.write_text(json.dumps(first))
    found = load_model(bundle).assess(images())
    np.testing.assert_allclose(found.probability, 1 / (1 + np.exp(-found.logit / 1.7)), rtol=1e-12)
    file.write_text(json.dumps(first | {"temperature": 0}))
    with pytest.raises(ModelError, match="temperature 0 is not above 0"):
        load_model(bundle)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]"])
def test_a_damaged_description_is_refused(bundle: Path, content: bytes) -> None:
    """A model.json that is cut off or not JSON gives a line, not a traceback."""
    (bundle / "model.json").write_bytes(content)
    with pytest.raises(ModelError):
        load_model(bundle)


def test_images_of_another_shape_or_type_are_refused(small_run: Path) -> None:
    """Floats, other sizes and single images are refused rather than guessed at."""
    model = load_model(small_run)
    for wrong in (images().astype(np.float32), images()[:, :64], images()[0]):
        with pytest.raises(ModelError, match="expected uint8 images"):
            model.predict(wrong)


def test_prediction_with_symmetries_does_not_depend_on_the_orientation(small_run: Path) -> None:
    """The default recipe averages the eight symmetries: a turned or mirrored patch has the same probability."""
    model, patches = load_model(small_run), images(3)
    expected = model.predict(patches)
    for turned in (np.rot90(patches, 1, (1, 2)), patches[:, ::-1], patches[:, :, ::-1]):
        np.testing.assert_allclose(model.predict(np.ascontiguousarray(turned)), expected, rtol=0, atol=1e-6)


def test_an_assessment_is_the_bundles_record_applied_to_the_logits(small_run: Path) -> None:
    """Probability, prediction and decision follow from the logits, in the order of the rows; none is scored alone."""
    model, patches = load_model(small_run), images(6)
    found = model.assess(patches, [4, 0, 5])
    info = model.info
    logit = model.logits(patches)[[4, 0, 5]]
    np.testing.assert_allclose(found.logit, logit, rtol=0, atol=1e-5)
    probability = 1 / (1 + np.exp(-info.calibration.calibrated_logit(found.logit)))
    np.testing.assert_allclose(found.probability, probability, rtol=1e-12)
    assert found.prediction.tolist() == (probability >= info.threshold).astype(int).tolist()
    assert set(found.decision) <= {"positive", "negative", "refer"}
    assert (found.decision == "positive").sum() <= found.prediction.sum()
    assert len(found) == 3
    assert (found.probability.dtype, found.prediction.dtype) == (np.float64, np.int64)


def test_no_pickle_in_a_run_folder(small_run: Path) -> None:
    """No file of a run is a pickle or a zip around one."""
    for file in small_run.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not content.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x04", b"\x80\x05")), file
            if file.suffix in {".safetensors", ".json"}:
                with pytest.raises(Exception):  # noqa: B017  any failure to parse serves
                    list(pickletools.genops(content))
