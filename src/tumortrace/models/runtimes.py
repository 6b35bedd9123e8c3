"""What runs an exported graph here: ONNX Runtime or OpenVINO, on a file that is checked before it is believed.

The graph's logit is calibrated by `Model.assess` as ever, so that whoever computes it, the same lines decide.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np

from tumortrace.errors import MissingDependencyError, ModelError
from tumortrace.models.description import ModelInfo
from tumortrace.models.device import on_cpu, threads
from tumortrace.records.data import ExportRecord
from tumortrace.records.files import require_sha256
from tumortrace.records.model import ONNX, ONNX_INT8

INPUT, OUTPUTS = "images", ("logit", "probability", "features")
#: What a graph of more than two classes answers besides.
CLASS_OUTPUTS = ("class_logit", "class_probability")
Backend = Literal["auto", "torch", "onnx", "openvino", "int8"]
AGAIN = "run `tumortrace export` again"


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


class Outputs(NamedTuple):
    """What a network gives of N images, before calibration.

    Attributes:
        logit: Of the positive class, float64, shape (N,).
        features: That `OodDetector` measures, float32, shape (N, D); (N, 0) where they were not asked for.
        classes: Logits of more than two classes, float64, shape (N, K); (N, 0) where there are two.
    """

    logit: np.ndarray
    features: np.ndarray
    classes: np.ndarray


class Runtime(Protocol):
    """Runs an exported graph; made of the file.

    Attributes:
        name: As in `Backend`.
        module: What it needs from the extra `export`.
    """

    name: str
    module: str

    def __call__(self, images: np.ndarray) -> Outputs:
        """What the network gives of the graph's uint8 images (N, H, W, 3)."""
        ...


class OnnxRuntime:
    """ONNX Runtime on the CPU."""

    name, module = "onnx", "onnxruntime"

    def __init__(self, file: Path) -> None:
        library = require(self.module)
        options = library.SessionOptions()
        options.intra_op_num_threads = threads()
        self.session = library.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def __call__(self, images: np.ndarray) -> Outputs:
        """As `Runtime`."""
        names = [output.name for output in self.session.get_outputs() if output.name != OUTPUTS[1]]
        return _outputs(dict(zip(names, self.session.run(names, {INPUT: images}), strict=True)))


class OpenVino:
    """OpenVINO on the CPU, in single precision."""

    name, module = "openvino", "openvino"

    def __init__(self, file: Path) -> None:
        library = require(self.module)
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads()}
        try:
            self.compiled = library.Core().compile_model(str(file), "CPU", settings)
        except RuntimeError as error:
            line = str(error).strip().splitlines()[-1].strip()
            raise ModelError(f"OpenVINO cannot run it ({line})", where=file, remedy="use backend onnx") from error

    def __call__(self, images: np.ndarray) -> Outputs:
        """As `Runtime`."""
        said = self.compiled({INPUT: images})
        return _outputs({name: values for key, values in said.items() for name in key.names})


def _outputs(said: Mapping[str, np.ndarray]) -> Outputs:
    logit = np.array(said[OUTPUTS[0]], np.float64)
    classes = said.get(CLASS_OUTPUTS[0], np.empty((len(logit), 0)))
    return Outputs(logit, np.array(said[OUTPUTS[2]]), np.array(classes, np.float64))


RUNTIMES: dict[str, type[OnnxRuntime] | type[OpenVino]] = {kind.name: kind for kind in (OnnxRuntime, OpenVino)}


def open_runtime(bundle: Path, info: ModelInfo, backend: Backend, device: str) -> Runtime | None:
    """What computes a bundle's logits: None for torch.

    Args:
        bundle: Its folder.
        info: Its description.
        backend: "torch"; "onnx" or "openvino", which need the file that `export` writes; "int8", which needs that of
            `export --int8` and is ONNX Runtime too; "auto" takes ONNX Runtime
            where that file is of these weights, the library is installed and the device is the CPU, else torch.
        device: As `resolve_device` takes it; "onnx" and "openvino" take "auto" for the CPU.

    Raises:
        ModelError: There is no such file, it is damaged or of other weights, or the device is not the CPU.
        MissingDependencyError: The library is not installed.
    """
    if backend == "torch":
        return None
    if backend not in get_args(Backend):
        known = "auto, torch, onnx, openvino or int8"
        raise ModelError(f"backend {backend!r}", expected=known, remedy="use one of these")
    runtime = RUNTIMES[OnnxRuntime.name if backend in ("auto", "int8") else backend]
    file = bundle / (ONNX_INT8 if backend == "int8" else ONNX)
    if backend == "auto" and (importlib.util.find_spec(runtime.module) is None or not file.is_file()):
        return None
    if backend == "auto" and not on_cpu(device):
        return None
    require(runtime.module)
    if device not in ("auto", "cpu"):
        raise ModelError(f"backend {backend} on {device}", expected="the CPU", remedy="use --device cpu or torch")
    record = ExportRecord.read_file(record_of(file)) if file.is_file() else None
    if record is None or record.weights_sha256 != info.weights_sha256:
        if backend == "auto":
            return None
        raise ModelError("exported from other weights" if record else "not exported yet", where=file, remedy=AGAIN)
    require_sha256(file, record.sha256, "its record", AGAIN)
    opened = runtime(file)
    opened.name = OnnxRuntime.name if backend == "auto" else backend
    return opened


def record_of(file: Path) -> Path:
    """The record that stands beside an exported file: its hash, its origin, how it was checked.

    Example:
        >>> record_of(Path("model/model.onnx")).name
        'model.onnx.json'
    """
    return file.with_name(file.name + ".json")
