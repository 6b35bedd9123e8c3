#!/usr/bin/env bash
# OpenVINO's CPU plugin fuses the addition of a constant of shape (1, 3, 1, 1) into the matrix product before it along the last axis
# when the batch is left open: where that axis has three entries as well, the result is wrong without a word; where it has another
# number, the model does not compile. With the batch fixed both are right. ONNX Runtime is right with each.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check openvino==2026.4.1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
cat > show.py <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

random = np.random.default_rng(0)
images = random.random((2, 3, 4, 5), dtype=np.float32)


def model(width):
    weights = numpy_helper.from_array(random.random((5, width), dtype=np.float32), "weights")
    constant = numpy_helper.from_array(np.array([1, 10, 100], np.float32).reshape(1, 3, 1, 1), "constant")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["product"]), helper.make_node("Add", ["product", "constant"], ["y"])],
        "product-and-constant",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 4, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3, 4, width])],
        [weights, constant],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def outcome(bytes_of_model, fixed):
    core = openvino.Core()
    read = core.read_model(bytes_of_model)
    if fixed:
        read.reshape([2, 3, 4, 5])
    right = onnxruntime.InferenceSession(bytes_of_model, providers=["CPUExecutionProvider"]).run(None, {"x": images})[0]
    try:
        given = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images)[0]
    except RuntimeError:
        return "does not compile"
    return "right" if np.abs(given - right).max() < 1e-4 else f"wrong by up to {np.abs(given - right).max():.0f}"


print("openvino", openvino.__version__, "onnxruntime", onnxruntime.__version__)
seen = {}
for width in (3, 6):
    content = model(width)
    for fixed in (False, True):
        seen[width, fixed] = outcome(content, fixed)
        print(f"last axis of {width}, batch {'fixed' if fixed else 'open'}: {seen[width, fixed]}")
as_known = seen[3, False].startswith("wrong") and seen[6, False] == "does not compile"
sys.exit(0 if as_known and seen[3, True] == seen[6, True] == "right" else 1)
PYTHON
env/bin/python show.py
