"""A model as one graph that other programs run, from uint8 patches to the calibrated probability, written as ONNX."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from tumortrace.errors import ModelError
from tumortrace.evaluation.calibration import Calibrator
from tumortrace.images.resampling import as_products
from tumortrace.models.architecture import Network
from tumortrace.models.description import ModelInfo, SeveralClasses
from tumortrace.models.ood import likeness_features
from tumortrace.models.runtimes import CLASS_OUTPUTS, INPUT, OUTPUTS, require
from tumortrace.records.provenance import RESEARCH_USE


class CalibrationGraph(nn.Module):
    """`Calibrator.apply` in tensors: logits to probabilities, float64, shape (N,).

    Example:
        >>> line = Calibrator(method="platt", slope=0.5, knots=(0.0,), values=(-1.0,))
        >>> CalibrationGraph(line)(torch.tensor([2.0])).tolist()
        [0.5]
    """

    starts: Tensor
    widths: Tensor
    slopes: Tensor

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
        if len(self.slopes):
            # how far the logit has come along each piece
            along = torch.maximum(x[:, None] - self.starts, torch.zeros_like(x[:, None]))
            line = line + (torch.minimum(along, self.widths) * self.slopes).sum(1)
        return torch.sigmoid(line)


class ClassGraph(nn.Module):
    """`ClassCalibrator.apply` in tensors: probabilities of K classes, float64, shape (N, K).

    Args:
        several: The classes and their calibration.
    """

    slope: Tensor
    bias: Tensor
    positive: Tensor

    def __init__(self, several: SeveralClasses) -> None:
        super().__init__()
        fitted, count = several.calibration, len(several.names)
        self.register_buffer("slope", torch.tensor(fitted.slope or (1.0,) * count, dtype=torch.float64))
        self.register_buffer("bias", torch.tensor(fitted.bias or (0.0,) * count, dtype=torch.float64))
        self.register_buffer("positive", torch.tensor(several.sides))

    def forward(self, logits: Tensor, probability: Tensor) -> Tensor:
        scaled, total = logits.double() * self.slope + self.bias, probability[:, None]
        outside = -1e30  # of the other side: out of the question
        shares = [
            torch.where(side, scaled, outside).softmax(1) * side * whole
            for side, whole in ((self.positive, total), (~self.positive, 1 - total))
        ]
        return shares[0] + shares[1]


class ExportedGraph(nn.Module):
    """All that a model computes of patches after `Preprocessing.prepare`, and its calibration.

    Args:
        info: The model's description.
        network: Its network.

    Returns:
        Of uint8 images (N, H, W, 3): logit (uncalibrated) and probability of the positive class, float32, shape (N,),
        and the features that `OodDetector` measures, float32, shape (N, D + 9). Of more than two classes also their
        logits (uncalibrated) and probabilities, float32, shape (N, K).
    """

    def __init__(self, info: ModelInfo, network: Network) -> None:
        super().__init__()
        self.steps, self.views = info.preprocessing, info.views
        self.network = network
        self.calibration = CalibrationGraph(info.calibration)
        self.classes = None if info.several is None else ClassGraph(info.several)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        pixels = self.steps.normalise(self.steps.pixels(images.permute(0, 3, 1, 2)))
        shown = self.views.together(pixels)
        maps = self.network.maps(shown)
        features = self.views.mean(likeness_features(maps, shown))
        if self.classes is None:
            logit = self.views.mean(self.network.from_maps(maps))
            return logit.float(), self.calibration(logit).float(), features
        logit, classes = (self.views.mean(part) for part in self.network.with_classes(maps))
        probability = self.calibration(logit)
        shares = self.classes(classes, probability)
        return logit.float(), probability.float(), features, classes.float(), shares.float()


def output_names(info: ModelInfo) -> list[str]:
    """What the graph answers, in order."""
    return [*OUTPUTS, *(CLASS_OUTPUTS if info.several else ())]


def metadata(info: ModelInfo) -> dict[str, str]:
    """What the file says of itself: each value a text, lists and mappings as JSON."""
    steps = info.preprocessing
    quantiles = info.conformal.quantiles if info.conformal else None
    return {
        "name": info.name,
        "classes": json.dumps(list(info.classes)),
        "positive_class": info.positive_class,
        **({} if info.several is None else {"class_names": json.dumps(info.several.names)}),
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


def export_graph(info: ModelInfo, network: Network, file: Path) -> None:
    """Write the graph as ONNX, with any number of images per batch.

    Raises:
        ModelError: The network does something that ONNX has no word for.
        MissingDependencyError: The extra is not installed.
    """
    onnx = require("onnx", "onnxscript")
    graph = ExportedGraph(info, network.to("cpu")).eval()
    example = torch.zeros(2, *info.graph_size, 3, dtype=torch.uint8)
    batch = {"images": {0: torch.export.Dim("batch")}}
    try:
        with torch.no_grad(), as_products():
            graph(example)  # makes the matrices of every resize
            traced = torch.export.export(graph, (example,), dynamic_shapes=batch, strict=False)
            program = torch.onnx.export(
                traced,
                input_names=[INPUT],
                output_names=output_names(info),
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
