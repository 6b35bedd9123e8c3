"""The verb `embed`: what a published body makes of every image, as one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib import rc_context

from tumortrace.cohorts.cohort import Cohort, ReadingOptions
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.material import Material
from tumortrace.cohorts.telling import judge
from tumortrace.errors import DataError
from tumortrace.models.architecture import build_network
from tumortrace.models.device import autocast, keep_memory, resolve_device, resolve_precision
from tumortrace.models.weights import load_weights
from tumortrace.records.files import replacing
from tumortrace.records.hdf5 import replacing_hdf5
from tumortrace.records.output import require_file
from tumortrace.records.progress import say
from tumortrace.records.provenance import RESEARCH_USE, versions
from tumortrace.reports.drawing import STYLE, save_figure
from tumortrace.reports.sections.features import draw_places
from tumortrace.training.bodies import notes_on_body
from tumortrace.training.features import frozen_features
from tumortrace.training.few_shot import LEAST_MAPPED, feature_map
from tumortrace.training.learner import seed_everything
from tumortrace.training.recipe import Recipe, choose_recipe
from tumortrace.training.task import Patches

PARQUET, HDF5, PICTURES = (".parquet",), (".h5", ".hdf5"), (".png", ".svg")
_KEPT = ("id", "group", "split", "label", "class_name", "x", "y", "width", "height")


def embed(
    data: str | Path | Cohort,
    *,
    body: str,
    out: str | Path = "embeddings.parquet",
    chart: str | Path | None = None,
    weights: str | Path | None = None,
    changes: Sequence[str] = (),
    device: str = "auto",
    precision: str = "auto",
    **reading: Unpack[ReadingOptions],
) -> Path:
    """Compute the features of every image by a published body and write them as one file.

    Rows stand in the cohort's order. Parquet has the columns `id, group, split, label`, where known also `class_name`,
    `x, y, width, height`, and `embedding`, a list of float32. HDF5 has a dataset `features` (images, width), float32,
    and one of each of these columns; where x and y are known, also `coords`. Body, weights, licence, preprocessing and
    data stand as JSON under the key `tumortrace` of the schema or of the file's attributes. What was computed is kept
    in the cache, for the next call.

    Args:
        data: Any known layout, or an opened cohort; labels are not needed.
        body: A foundation model of the table, or a name of timm, torchvision or a hub; see docs/foundation-models.md.
        out: File to write: `.parquet`, `.h5` or `.hdf5`.
        chart: Besides a picture, `.png` or `.svg`: images with like embeddings close to each other, by t-SNE.
        weights: Instead of the published ones: "random", or a file or folder.
        changes: Changes to recipe `probe`, as in `preprocessing.size=112` or `model.arguments.pooling=token`.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: "auto" (float32), "32" or "bf16".
        **reading: How the data are read: options of `open_cohort`.

    Returns:
        The file.

    Raises:
        DataError: The file's ending is not known, or images cannot be decoded.
        TumorTraceError: The data, the body or the machine do not allow it.
    """
    out = Path(out)
    if out.suffix.lower() not in (*PARQUET, *HDF5):
        raise DataError(f"no format {out.suffix!r}", where=out, expected=" or ".join((*PARQUET, *HDF5)))
    if chart is not None and Path(chart).suffix.lower() not in PICTURES:
        raise DataError(f"no picture {Path(chart).suffix!r}", where=chart, expected=" or ".join(PICTURES))
    for file in (out, *([] if chart is None else [Path(chart)])):
        require_file(file, inputs=[data])
    recipe, _ = choose_recipe("probe", [f"model.arguments.body={json.dumps(body)}", *changes], weights=weights)
    material = Material(open_cohort(data, **reading))
    features, about = _computed(material, recipe, device, precision)
    table = material.cohort.table
    kept = table[[name for name in _KEPT if name in table and (name in _KEPT[:4] or table[name].notna().any())]]
    write = _write_parquet if out.suffix.lower() in PARQUET else _write_hdf5
    write(out, kept, features, json.dumps(about))
    if chart is not None:
        _draw(Path(chart), material, features)
    say(f"embed: {len(features):,} rows of {features.shape[1]:,} numbers in {out}. {RESEARCH_USE}")
    return out


def _draw(file: Path, material: Material, features: np.ndarray) -> None:
    """The map of the embeddings, of at least ten images."""
    labels = material.cohort.table["label"].to_numpy(np.float32, na_value=np.nan)
    places = feature_map(Patches(features, np.arange(len(features)), labels), seed=0)
    if places.empty:
        say(f"note: no map of {len(features)} images: it takes {LEAST_MAPPED}")
        return
    with rc_context(STYLE):
        save_figure(draw_places(places, material.cohort.classes), file)
    say(f"map: {len(places):,} images in {file}; distances between far groups mean nothing")


def _computed(material: Material, recipe: Recipe, device: str, precision: str) -> tuple[np.ndarray, dict[str, Any]]:
    """The features of all images, float32 (N, D), and how they came to be."""
    keep_memory()
    where = resolve_device(device)
    exactly = resolve_precision("32" if precision == "auto" else precision, where)
    steps, cohort, store = recipe.preprocessing, material.cohort, material.store
    prepared = material.prepared(steps)
    seed_everything(0)
    network = build_network(recipe.model.name, steps.output_size(store.size), recipe.model.arguments)
    origin = load_weights(network, recipe.weights)
    seen = [finding.line for finding in judge(cohort, store.looks, store.size)]
    notes = [*cohort.notes, *seen, *prepared.notes, *notes_on_body(recipe, cohort.resolution, store.size)]
    for note in notes:
        say(f"note: {note}")
    computed = frozen_features(
        network.to(where).requires_grad_(False),
        steps,
        Patches(prepared.images, np.arange(len(cohort)), np.zeros(len(cohort), np.float32)),
        device=where,
        autocast=autocast(where, exactly),
        key=f"{cohort.fingerprint} {store.size} {steps.preparation_key} {exactly}",
    )
    features = np.asarray(computed.images, np.float32)
    about = {
        "body": recipe.model.arguments["body"],
        "built": dict(network.resolved_arguments),
        "weights": origin,
        "preprocessing": steps.model_dump(mode="json"),
        "data": {
            "name": cohort.name,
            "layout": cohort.layout,
            "fingerprint": cohort.fingerprint,
            "images": len(cohort),
        },
        "classes": list(cohort.classes),
        "resolution": cohort.resolution,
        "notes": notes,
        "versions": versions(),
        "research_use": RESEARCH_USE,
    }
    return features.reshape(len(features), -1), about


def _write_parquet(file: Path, table: pd.DataFrame, features: np.ndarray, about: str) -> None:
    columns = pa.Table.from_pandas(table, preserve_index=False)
    values = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[1])
    columns = columns.append_column("embedding", values)
    columns = columns.replace_schema_metadata({**(columns.schema.metadata or {}), b"tumortrace": about})
    with replacing(file) as temporary:
        pq.write_table(columns, temporary)


def _write_hdf5(file: Path, table: pd.DataFrame, features: np.ndarray, about: str) -> None:
    with replacing_hdf5(file) as target:
        target.attrs["tumortrace"] = about
        target["features"] = features
        for name in table:
            if name in ("label", "x", "y", "width", "height"):
                target[name] = table[name].astype("Float64").to_numpy(np.float64, na_value=np.nan)
            else:
                text = table[name].fillna("").astype(object).to_numpy()
                target.create_dataset(name, data=text, dtype=h5py.string_dtype())
        if {"x", "y"} <= set(table):
            target["coords"] = table[["x", "y"]].astype("Float64").to_numpy(np.float64, na_value=np.nan)
