"""An exported model whose convolutions count in whole numbers of 8 bits, and what that does to its AUROC.

The ranges of the numbers come from one part of the run's calibration split, the judgement from the other, by slide or
patient: neither the test split nor the images that gave the ranges have a say in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import pandas as pd

from tumortrace.cohorts.cohort import Source
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.errors import DataError, ModelError
from tumortrace.evaluation.comparisons import paired_differences
from tumortrace.inference.patches import open_patches
from tumortrace.models.bundle import Model
from tumortrace.models.graph import metadata
from tumortrace.models.runtimes import INPUT, OnnxRuntime, require
from tumortrace.records.data import Quantised
from tumortrace.records.metrics import Estimate
from tumortrace.records.run import RunRecord
from tumortrace.records.tables import SPLITS

TOLERANCE = 0.002  # by which the AUROC may change
MOST = 256  # images from which ranges are taken
TIMED = 64  # on which the two are timed
EXACT = "leave out --int8: the exact file needs no such images"


@dataclass(frozen=True)
class Parts:
    """The calibration split in two parts that share no slide or patient.

    Attributes:
        images: Of both, uint8, shape (N, H, W, 3), as the graph takes them.
        table: Columns `id, label, group` of both.
        ranges: Rows of the part that gives the ranges.
        judged: Rows of the other.
    """

    images: np.ndarray
    table: pd.DataFrame
    ranges: np.ndarray
    judged: np.ndarray


def calibration_parts(model: Model) -> Parts:
    """The images of the calibration split of a model's run.

    Raises:
        ModelError: The run, its data or enough slides of both classes are not there.
    """
    folder = model.run_folder
    source = Source.recorded(RunRecord.read(folder).arguments.as_json()) if RunRecord.exists(folder) else None
    if source is None:
        raise ModelError("no run around the model", where=model.info.name, expected="its run folder", remedy=EXACT)
    splits = SPLITS.read(folder)
    chosen = set(splits.loc[splits["split"] == "calibration", "id"])
    try:
        cohort = open_cohort(source)
    except DataError as error:
        raise ModelError(f"the run's data do not open ({error.found})", where=folder, remedy=EXACT) from error
    cohort = cohort.where(cohort.table["id"].isin(chosen))
    if len(cohort) < len(chosen) or not chosen:
        found = f"{len(cohort)} of {len(chosen)} images of the calibration split are there"
        raise ModelError(found, where=cohort.name, expected="all", remedy=EXACT)
    store = open_patches(model, cohort, keep_failed=False).store
    table = cohort.table[["id", "label", "group"]].reset_index(drop=True)
    ranges, judged = divided(table["label"].to_numpy(np.int64), table["group"], model.info.name)
    return Parts(model.info.prepare(store.images), table, ranges[:MOST], judged)


def divided(label: np.ndarray, group: pd.Series, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two parts of about the same size and share of positives that share no group.

    Raises:
        ModelError: A class has fewer than two groups, so that the judging part would lack it.

    Example:
        >>> one, other = divided(np.array([0, 1, 0, 1, 0, 1]), pd.Series(list("aabbcc")), "mine")
        >>> sorted([*one.tolist(), *other.tolist()])
        [0, 1, 2, 3, 4, 5]
        >>> set("aabbcc"[row] for row in one) & set("aabbcc"[row] for row in other)
        set()
    """
    from sklearn.model_selection import StratifiedGroupKFold

    groups = np.arange(len(label)) if group.isna().any() else group.to_numpy()
    enough = all(len(np.unique(groups[label == kind])) >= 2 for kind in (0, 1))
    if enough:
        ranges, judged = next(StratifiedGroupKFold(2, shuffle=True, random_state=0).split(label, label, groups))
        if len(np.unique(label[judged])) == 2:
            return np.random.default_rng(0).permutation(ranges), judged
    raise ModelError(
        "too few slides or patients in the calibration split to judge int8 on other ones than gave the ranges",
        where=where,
        expected="two of each class",
        remedy=EXACT,
    )


def quantise(model: Model, exact: Path, target: Path, parts: Parts) -> Quantised:
    """Write the graph with convolutions in 8 bits; returns how it was made and judged.

    Args:
        model: The model.
        exact: Its exported graph.
        target: The file to write.
        parts: From `calibration_parts`.

    Raises:
        ModelError: The graph has no convolutions, or the AUROC changes by more than .002.
    """
    onnx = require("onnx", "onnxruntime")
    if sum(node.op_type == "Conv" for node in onnx.load(exact).graph.node) < 2:
        raise ModelError("a network without convolutions", where=model.info.name, expected="some", remedy=EXACT)
    _write(model, exact, target, parts.images[parts.ranges])
    images, known = parts.images[parts.judged], parts.table.iloc[parts.judged]
    tables, runtimes = {}, {"exact": OnnxRuntime(exact), "int8": OnnxRuntime(target)}
    for name, runtime in runtimes.items():
        said = model.judge(runtime(images))
        tables[name] = known.assign(probability=said.probability, prediction=said.prediction)
    change: Estimate = paired_differences(tables)["exact", "int8"]["auroc"]
    if change.value is None or abs(change.value) > TOLERANCE:
        raise ModelError(
            f"int8 changes the AUROC by {told(change)} on {len(images)} images of the calibration split",
            where=model.info.name,
            expected=f"{TOLERANCE:g} at most",
            remedy=EXACT,
        )
    time = _time(runtimes["int8"], runtimes["exact"], images[:TIMED])
    return Quantised(ranges=len(parts.ranges), judged=len(images), auroc_change=change, time=time)


def _time(runtime: OnnxRuntime, other: OnnxRuntime, images: np.ndarray, rounds: int = 5) -> float:
    """Time that a graph takes for one that another takes: the median of rounds in which both take turns."""
    ratios = []
    for _ in range(rounds):
        started = perf_counter()
        runtime(images)
        between = perf_counter()
        other(images)
        ratios.append((between - started) / (perf_counter() - between))
    return round(median(ratios), 2)


def told(change: Estimate) -> str:
    """The change with its interval.

    Example:
        >>> told(Estimate(value=-0.0012, ci95=(-0.004, 0.001)))
        '-0.0012 [-0.0040, +0.0010]'
    """
    if change.value is None:
        return "an unknown figure"
    low, high = change.ci95 or (float("nan"), float("nan"))
    return f"{change.value:+.4f} [{low:+.4f}, {high:+.4f}]"


def _write(model: Model, exact: Path, target: Path, images: np.ndarray) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(np.array_split(images, -(-len(images) // 8)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    ready = target.with_suffix(".ready.onnx")
    quant_pre_process(str(exact), str(ready), skip_symbolic_shape=True)
    # 7 bits of weights, as processors without VNNI add products of 8 in 16 bits, which overflow
    quantize_static(
        str(ready),
        str(target),
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        per_channel=True,
        reduce_range=True,
    )
    written = onnx.load(target)
    onnx.helper.set_model_props(written, metadata(model.info) | {"precision": "int8"})
    onnx.save(written, target)
