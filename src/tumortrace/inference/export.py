"""The verb `export`: a model as one ONNX file, with preprocessing, symmetries and calibration inside."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tumortrace.cohorts.cohort import Source
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.synthetic.patches import draw_patch, slide_stain
from tumortrace.errors import DataError, ModelError
from tumortrace.images.decoding import fit, read_image
from tumortrace.models.bundle import Model, find_bundle, load_model
from tumortrace.models.graph import export_graph, metadata
from tumortrace.models.runtimes import FILE, INPUT, OUTPUTS, RUNTIMES, record_of, require
from tumortrace.records.files import sha256, write_bytes, write_json
from tumortrace.records.output import require_file
from tumortrace.records.progress import say
from tumortrace.records.provenance import RESEARCH_USE, versions
from tumortrace.records.run import now
from tumortrace.reports.records import read_json

TOLERANCE = 1e-5
IMAGES = 32  # compared with torch


def export(run: str | Path, *, out: str | Path | None = None) -> Path:
    """Write a model as ONNX, and compare what it says with torch on images of the run's own data; needs extra `export`.

    The file takes uint8 patches (N, height, width, 3) of any number and answers `logit` (uncalibrated) and
    `probability` (calibrated), float32, shape (N,). Classes, threshold and origin stand in its metadata. Stain
    normalisation, equalisation and super-resolution work on whole uint8 patches, and are to be done before
    (`Preprocessing.prepare`); the metadata's `prepared` then is true. Everything else is inside.

    Args:
        run: Run folder or bundle.
        out: File to write; default `model.onnx` in the bundle, where `serve` finds it.

    Returns:
        The file; beside it `FILE.json` says what it was made from, and how far it is from torch.

    Raises:
        ModelError: The network cannot be exported, or the file does not say what torch says to 1e-5.
        MissingDependencyError: The extra `export` is not installed.
    """
    require("onnx", "onnxscript", "onnxruntime")
    model = load_model(run, device="cpu")
    bundle = find_bundle(run)
    target = Path(out) if out is not None else bundle / FILE
    require_file(target)
    images, origin = _pictures(bundle, model)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / FILE
        export_graph(model.info, model.network, file)
        checks, notes = {"onnx": _compared(model, RUNTIMES["onnx"](file), images)}, list[str]()
        if _installed("openvino"):
            try:
                checks["openvino"] = _compared(model, RUNTIMES["openvino"](file), images)
            except ModelError as error:
                notes.append(error.found)
        for name, found in checks.items():
            if not found["probability"] <= TOLERANCE:
                raise ModelError(
                    f"{name} differs from torch by {found['probability']:.2g} in probability",
                    where=model.info.name,
                    expected=f"{TOLERANCE:g} at most",
                    remedy="serve it with torch, which needs no export",
                )
        write_bytes(target, file.read_bytes())
    record = metadata(model.info) | {
        "verb": "export",
        "file": target.name,
        "sha256": sha256(target),
        "input": {"name": INPUT, "type": "uint8", "shape": ["batch", *model.info.graph_size, 3]},
        "outputs": list(OUTPUTS),
        "checked": {"images": len(images), "of": origin, "largest_difference": checks},
        "notes": notes,
        "versions": versions(),
        "finished": now(),
        "research_use": RESEARCH_USE,
    }
    write_json(record_of(target), record)
    for note in notes:
        say(f"note: {note}")
    most: float = max(found["probability"] for found in checks.values())
    say(f"export: {len(images)} images of {origin}: at most {most:.1g} from torch's probability; {RESEARCH_USE}")
    return target


def _compared(model: Model, runtime: Any, images: np.ndarray) -> dict[str, Any]:
    """Largest differences to torch."""
    said = model.assess(images)
    found = model.judge(*runtime(model.info.prepare(images)))
    one, other = said.ood_score, found.ood_score
    return {
        "logit": float(np.abs(found.logit - said.logit).max()),
        "probability": float(np.abs(found.probability - said.probability).max()),
        "ood_score": None if one is None or other is None else float(np.abs(other - one).max()),
    }


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(RUNTIMES[name].library) is not None


def _pictures(bundle: Path, model: Model) -> tuple[np.ndarray, str]:
    """Images to compare on, and where they are from: the run's data, or generated tissue where these are gone."""
    arguments = read_json(bundle.parent / "run.json").get("arguments") or {}
    size = model.info.patch_size
    try:
        source = Source.recorded(arguments)
        if source is None:
            raise DataError("no data on record")
        cohort = open_cohort(source)
        chosen = np.linspace(0, len(cohort) - 1, min(IMAGES, len(cohort))).astype(int)
        return np.stack([fit(read_image(cohort.table["path"].iloc[row]), size) for row in chosen]), cohort.name
    except DataError:
        stain = slide_stain("check", "scanner-a")
        drawn = [draw_patch(index, 0, index % 2 == 1, stain)[0] for index in range(IMAGES)]
        return np.stack([fit(one, size) for one in drawn]), "generated tissue"
