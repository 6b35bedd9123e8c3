"""The verb `export`: a model as one ONNX file, with preprocessing, symmetries and calibration inside."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tumortrace.cohorts.cohort import Source
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.synthetic.patches import draw_patch, slide_stain
from tumortrace.errors import DataError, ModelError
from tumortrace.evaluation.classes import PROBABILITY
from tumortrace.images.decoding import fit, read_image
from tumortrace.inference.quantise import calibration_parts, quantise, told
from tumortrace.inference.unseen import provenance
from tumortrace.models.bundle import Model, find_bundle, load_model
from tumortrace.models.graph import export_graph, metadata, output_names
from tumortrace.models.runtimes import INPUT, RUNTIMES, Runtime, record_of, require
from tumortrace.records.data import ExportRecord
from tumortrace.records.files import sha256, write_bytes
from tumortrace.records.model import ONNX, ONNX_INT8
from tumortrace.records.output import require_file
from tumortrace.records.progress import say
from tumortrace.records.provenance import RESEARCH_USE
from tumortrace.records.run import RunRecord

TOLERANCE = 1e-5
IMAGES = 32  # compared with torch


def export(run: str | Path, *, out: str | Path | None = None, int8: bool = False) -> Path:
    """Write a model as ONNX, and compare what it says with torch on images of the run's own data; needs extra `export`.

    The file takes uint8 patches (N, height, width, 3) of any number and answers `logit` (uncalibrated) and
    `probability` (calibrated), float32, shape (N,). Classes, threshold and origin stand in its metadata. Stain
    normalisation, equalisation and super-resolution work on whole uint8 patches, and are to be done before
    (`Preprocessing.prepare`); the metadata's `prepared` then is true. Everything else is inside.

    Args:
        run: Run folder or bundle.
        out: File to write; default `model.onnx`, or `model.int8.onnx`, in the bundle, where it is found.
        int8: Whether convolutions count in whole numbers of 8 bits: no longer the same, and quicker on some machines;
            what it takes on this one is told. Ranges come from one part of the run's calibration split, and the AUROC
            on the other may change by .002 at most.

    Returns:
        The file; beside it `FILE.json` says what it was made from, and how far it is from torch.

    Raises:
        ModelError: The network cannot be exported, the file does not say what torch says to 1e-5, or int8 changes the
            AUROC by more than .002, or cannot be judged.
        MissingDependencyError: The extra `export` is not installed.
    """
    require("onnx", "onnxscript", "onnxruntime")
    model = load_model(run, device="cpu")
    target = Path(out) if out is not None else find_bundle(run) / (ONNX_INT8 if int8 else ONNX)
    require_file(target)
    parts = calibration_parts(model) if int8 else None
    images, origin = _pictures(model)
    checks: dict[str, dict[str, float | None]] = {}
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / ONNX
        export_graph(model.info, model.network, file)
        for name, runtime in RUNTIMES.items():
            if find_spec(runtime.module) is None:
                continue
            try:
                checks[name] = _compared(model, runtime(file), images)
            except ModelError as error:
                if name == "onnx":
                    raise
                notes.append(error.found)
        most, name = max(
            (max(differences["probability"] or 0.0, differences.get("class_probability") or 0.0), name)
            for name, differences in checks.items()
        )
        if not most <= TOLERANCE:
            raise ModelError(
                f"{name} differs from torch by {most:.2g} in probability",
                where=model.info.name,
                expected=f"{TOLERANCE:g} at most",
                remedy="serve it with torch, which needs no export",
            )
        quantised = None
        if parts is not None:
            exact, file = file, file.with_name(ONNX_INT8)
            quantised = quantise(model, exact, file, parts)
        write_bytes(target, file.read_bytes())
    record = ExportRecord.model_validate(
        {
            **metadata(model.info),
            "verb": "export",
            "file": target.name,
            "sha256": sha256(target),
            "input": {"name": INPUT, "type": "uint8", "shape": ["batch", *model.info.graph_size, 3]},
            "outputs": output_names(model.info),
            "checked": {"images": len(images), "of": origin, "largest_difference": checks},
            "notes": notes,
            **({} if quantised is None else {"quantised": quantised.as_json()}),
            **provenance(),
        }
    )
    record.write_file(record_of(target))
    for note in notes:
        say(f"note: {note}")
    if quantised is not None:
        say(
            f"export: int8 changes the AUROC by {told(quantised.auroc_change)} on {quantised.judged} images of the "
            f"calibration split; {quantised.ranges} others of it gave the ranges. It takes {quantised.time:g} times as "
            "long as the exact file on this machine"
        )
    say(f"export: {len(images)} images of {origin}: at most {most:.1g} from torch's probability; {RESEARCH_USE}")
    return target


def _compared(model: Model, runtime: Runtime, images: np.ndarray) -> dict[str, float | None]:
    """Largest differences to torch."""
    torch, other = model.assess(images), model.judge(runtime(model.info.prepare(images)))

    def largest(one: np.ndarray | None, two: np.ndarray | None) -> float | None:
        return None if one is None or two is None else float(np.abs(one - two).max())

    shares = [name for name in torch.by_class or {} if name.startswith(PROBABILITY)]
    of_classes = [largest((torch.by_class or {})[name], (other.by_class or {})[name]) or 0.0 for name in shares]
    return {
        **({"class_probability": max(of_classes)} if shares else {}),
        "logit": largest(torch.logit, other.logit),
        "probability": largest(torch.probability, other.probability),
        "ood_score": largest(torch.ood_score, other.ood_score),
    }


def _pictures(model: Model) -> tuple[np.ndarray, str]:
    """Images to compare on, and where they are from: the run's data, or generated tissue where these are gone."""
    size, run = model.info.patch_size, RunRecord.find(model.run_folder)
    source = None if run is None else Source.recorded(run.arguments.as_json())
    try:
        if source is None:
            raise DataError("no data on record")
        cohort = open_cohort(source)
        chosen = np.linspace(0, len(cohort) - 1, min(IMAGES, len(cohort))).astype(int)
        return np.stack(
            [fit(read_image(cohort.table["path"].iloc[row], cohort.bits), size) for row in chosen]
        ), cohort.name
    except DataError:
        stain = slide_stain("check", "scanner-a")
        drawn = [draw_patch(index, 0, index % 2 == 1, stain)[0] for index in range(IMAGES)]
        return np.stack([fit(one, size) for one in drawn]), "generated tissue"
