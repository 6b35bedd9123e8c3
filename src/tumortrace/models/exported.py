"""A model as one graph that other programs run: from uint8 patches to the calibrated probability.

`ExportedGraph` is what `tumortrace export` writes as ONNX, and `OnnxRuntime` and `OpenVino` are what runs it here. The
graph's logit is calibrated by `Model.assess` as ever, so that whoever computes it, the same lines decide.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tumortrace.errors import MissingDependencyError, ModelError
from tumortrace.evaluation.calibration import Calibrator
from tumortrace.images.geometry import symmetry
from tumortrace.images.resampling import as_products
from tumortrace.models.description import ModelInfo
from tumortrace.models.likeness import embedding
from tumortrace.records.files import sha256
from tumortrace.records.provenance import RESEARCH_USE

FILE = "model.onnx"
INPUT, OUTPUTS = "images", ("logit", "probability", "features")
Backend = Literal["auto", "torch", "onnx", "openvino"]


class CalibrationGraph(nn.Module):
    """`Calibrator.apply` in tensors: logits to probabilities, float64, shape (N,).

    Example:
        >>> line = Calibrator(method="platt", slope=0.5, knots=(0.0,), values=(-1.0,))
        >>> CalibrationGraph(line)(torch.tensor([2.0])).tolist()
        [0.5]
    """

    def __init__(self, calibrator: Calibrator) -> None:
        super().__init__()
        knots = torch.tensor(calibrator.knots, dtype=torch.float64)
        values = torch.tensor(calibrator.values, dtype=torch.float64)
        self.slope, self.first = calibrator.slope, float(values[0])
        self.register_buffer("starts", knots[:-1])
        self.register_buffer("widths", knots.diff())
        self.register_buffer("slopes", values.diff() / knots.diff())
        self.low, self.high = float(knots[0]), float(knots[-1])

    def forward(self, logit: Tensor) -> Tensor:
        x = logit.double()
        outside = torch.minimum(x - self.low, torch.zeros_like(x)) + torch.maximum(x - self.high, torch.zeros_like(x))
        line = self.first + self.slope * outside
        if len(self.slopes):  # type: ignore[arg-type]
            # how far the logit has come along each piece
            along = torch.maximum(x[:, None] - self.starts, torch.zeros_like(x[:, None]))  # type: ignore[operator]
            line = line + (torch.minimum(along, self.widths) * self.slopes).sum(1)  # type: ignore[operator, arg-type]
        return torch.sigmoid(line)


class ExportedGraph(nn.Module):
    """All that a model computes of patches after `Preprocessing.prepare`, and its calibration.

    Args:
        info: The model's description.
        network: Its network.

    Returns:
        Of uint8 images (N, H, W, 3): logit (uncalibrated) and probability of the positive class, float32, shape (N,),
        and the features that `Likeness` measures, float32, shape (N, D).
    """

    def __init__(self, info: ModelInfo, network: nn.Module) -> None:
        super().__init__()
        self.steps, self.symmetries = info.preprocessing, info.symmetries
        self.network = network
        self.calibration = CalibrationGraph(info.calibration)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pixels = self.steps.normalise(self.steps.pixels(images.permute(0, 3, 1, 2)))
        views = [0]
        if self.symmetries:  # as in Model
            views = list(range(8)) if pixels.shape[2] == pixels.shape[3] else [0, 2, 4, 6]
        together = torch.cat([symmetry(pixels, index) for index in views])
        maps = self.network.maps(together)  # type: ignore[operator]
        logit = self.network.from_maps(maps).reshape(len(views), -1).mean(0)  # type: ignore[operator]
        features = embedding(maps)
        features = features.reshape(len(views), -1, features.shape[1]).mean(0)
        return logit.float(), self.calibration(logit).float(), features


def input_size(info: ModelInfo) -> tuple[int, int]:
    """Height and width of the patches that the graph takes: stored ones, or prepared where `prepare` does something."""
    steps = info.preprocessing
    return steps.prepared_size(info.patch_size) if steps.prepares else info.patch_size


def graph_input(info: ModelInfo, images: np.ndarray) -> np.ndarray:
    """What the graph takes of stored patches: they themselves, or prepared ones where `prepare` does more than crop.

    Args:
        info: The model's description.
        images: uint8, shape (N, *patch_size, 3).
    """
    return np.ascontiguousarray(info.preprocessing.prepare(images) if info.preprocessing.prepares else images)


def metadata(info: ModelInfo) -> dict[str, str]:
    """What the file says of itself: each value a text, lists and mappings as JSON."""
    steps = info.preprocessing
    quantiles = info.conformal.quantiles if info.conformal else None
    return {
        "name": info.name,
        "classes": json.dumps(list(info.classes)),
        "positive_class": info.positive_class,
        "threshold": repr(info.threshold),
        "threshold_policy": info.threshold_policy,
        "conformal_quantiles": json.dumps(quantiles),
        "patch_size": json.dumps(list(info.patch_size)),
        "resolution": json.dumps(info.resolution),
        "prepared": json.dumps(steps.prepares),
        "preprocessing": steps.model_dump_json(),
        "weights_sha256": info.weights_sha256,
        "research_use": RESEARCH_USE,
    }


class Runtime(Protocol):
    """Runs an exported graph."""

    name: str

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits, float64, shape (N,), and features, float32, (N, D), of the graph's uint8 images (N, H, W, 3)."""
        ...


class OnnxRuntime:
    """ONNX Runtime on the CPU."""

    name = "onnx"

    def __init__(self, file: Path) -> None:
        library = require("onnxruntime")
        options = library.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = library.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `Runtime`."""
        logit, features = self.session.run([OUTPUTS[0], OUTPUTS[2]], {INPUT: images})
        return np.asarray(logit, np.float64), np.asarray(features)


class OpenVino:
    """OpenVINO on the CPU, in single precision."""

    name = "openvino"

    def __init__(self, file: Path) -> None:
        library = require("openvino")
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        try:
            self.compiled = library.Core().compile_model(str(file), "CPU", settings)
        except RuntimeError as error:  # 2026.4 fails on some chains of resize, normalisation and blue first
            line = str(error).strip().splitlines()[-1].strip()
            raise ModelError(f"OpenVINO cannot run it ({line})", where=file, remedy="use backend onnx") from error

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `Runtime`."""
        said = self.compiled({INPUT: images})
        return np.array(said[OUTPUTS[0]], np.float64), np.array(said[OUTPUTS[2]])


RUNTIMES: dict[str, type[OnnxRuntime] | type[OpenVino]] = {"onnx": OnnxRuntime, "openvino": OpenVino}
LIBRARIES = {"onnx": "onnxruntime", "openvino": "openvino"}
AGAIN = "run `tumortrace export` again"


def open_runtime(bundle: Path, info: ModelInfo, backend: Backend, device: torch.device) -> Runtime | None:
    """What computes a bundle's logits: None for torch.

    Args:
        bundle: Its folder.
        info: Its description.
        backend: "torch"; "onnx" or "openvino", which need the file that `export` writes; "auto" takes ONNX Runtime
            where that file is of these weights, the library is installed and the device is the CPU, else torch.
        device: Where torch would compute.

    Raises:
        ModelError: There is no such file, it is damaged or of other weights, or the device is not the CPU.
        MissingDependencyError: The library is not installed.
    """
    if backend == "torch":
        return None
    file = bundle / FILE
    if backend == "auto":
        usable = device.type == "cpu" and importlib.util.find_spec("onnxruntime") is not None
        return _checked(OnnxRuntime, file) if usable and _written_for(file) == info.weights_sha256 else None
    if backend not in RUNTIMES:
        raise ModelError(f"backend {backend!r}", expected="auto, torch, onnx or openvino", remedy="use one of these")
    require(LIBRARIES[backend])
    if device.type != "cpu":
        raise ModelError(f"backend {backend} on {device}", expected="the CPU", remedy="use --device cpu or torch")
    written_for = _written_for(file)
    if written_for is None:
        raise ModelError("not exported yet", where=file, remedy="run `tumortrace export` on it")
    if written_for != info.weights_sha256:
        raise ModelError("exported from other weights", where=file, remedy="run `tumortrace export` on it again")
    return _checked(RUNTIMES[backend], file)


def record_of(file: Path) -> Path:
    """The record that stands beside an exported file: its hash, its origin, how it was checked.

    Example:
        >>> record_of(Path("model/model.onnx")).name
        'model.onnx.json'
    """
    return file.with_name(file.name + ".json")


def _written_for(file: Path) -> str | None:
    """The SHA-256 of the weights that the file was exported from; None where there is none."""
    if not file.is_file() or not record_of(file).is_file():
        return None
    return str(_record(file).get("weights_sha256"))


def _record(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(record_of(file).read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"not readable ({error})", where=record_of(file), remedy=AGAIN) from error
    return record if isinstance(record, dict) else {}


def _checked(runtime: type[OnnxRuntime] | type[OpenVino], file: Path) -> Runtime:
    """The runtime on the file, whose bytes are those that were checked on export: a flipped bit would load silently."""
    found, expected = sha256(file), str(_record(file).get("sha256"))
    if found != expected:
        raise ModelError(f"SHA-256 is {found}", where=file, expected=f"{expected} as its record says", remedy=AGAIN)
    return runtime(file)


def require(*names: str) -> Any:
    """The first of these libraries of the extra `export`, all of which have to be there.

    Raises:
        MissingDependencyError: One is not installed.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"this needs {', '.join(missing)}",
            expected="the extra `export`",
            remedy="pip install 'tumortrace[export]'",
        )
    return importlib.import_module(names[0])


def export_graph(info: ModelInfo, network: nn.Module, file: Path) -> None:
    """Write the graph as ONNX, with any number of images per batch.

    Raises:
        ModelError: The network does something that ONNX has no word for.
        MissingDependencyError: The extra is not installed.
    """
    onnx = require("onnx", "onnxscript")
    graph = ExportedGraph(info, network.to("cpu")).eval()
    example = torch.zeros(2, *input_size(info), 3, dtype=torch.uint8)
    batch = {"images": {0: torch.export.Dim("batch")}}
    try:
        with torch.no_grad(), as_products():
            graph(example)  # makes the matrices of every resize
            traced = torch.export.export(graph, (example,), dynamic_shapes=batch, strict=False)
            program = torch.onnx.export(
                traced,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=batch,
                dynamo=True,
                verbose=False,
            )
        assert program is not None
    except Exception as error:  # torch's exporter has many kinds, none of them promised
        raise ModelError(
            f"{info.architecture.name} cannot be exported ({type(error).__name__})",
            expected="a network made of tensor operations alone",
            remedy="serve it with torch, which needs no export",
        ) from error
    model = program.model_proto
    onnx.helper.set_model_props(model, metadata(info))
    file.write_bytes(model.SerializeToString())
