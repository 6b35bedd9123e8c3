#!/usr/bin/env bash
# ONNX's Resize has had the attribute `antialias` since opset 18. OpenVINO reads such a model without a complaint and shrinks it
# without antialiasing: the same file gives other pixels than in ONNX Runtime, which takes the attribute.
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

stripes = np.zeros((1, 1, 8, 8), np.float32)
stripes[..., ::4] = 1


def shrunk(antialias):
    graph = helper.make_graph(
        [helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear", antialias=antialias)],
        "shrink",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 2, 2])],
        [numpy_helper.from_array(np.array([1, 1, 0.25, 0.25], np.float32), "scales")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(made)
    content = made.SerializeToString()
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": stripes})[0].ravel(), compiled(stripes)[0].ravel()


print("openvino", openvino.__version__, "onnxruntime", onnxruntime.__version__)
plain, smooth = shrunk(0), shrunk(1)
for name, (by_onnxruntime, by_openvino) in {"antialias=0": plain, "antialias=1": smooth}.items():
    print(f"{name}: onnxruntime {by_onnxruntime}, openvino {by_openvino}")
ignored = np.array_equal(smooth[1], plain[1]) and not np.allclose(smooth[0], smooth[1])
sys.exit(0 if ignored else 1)
PYTHON
env/bin/python show.py
