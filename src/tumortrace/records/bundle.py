"""The files of a model bundle by name."""

from __future__ import annotations

DESCRIPTION, WEIGHTS, LIKENESS = "model.json", "weights.safetensors", "likeness.safetensors"
GENERATOR, ONNX = "super_resolution", "model.onnx"
