"""The verb `pretrain`: a body from images without labels, to start a training from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Unpack

import numpy as np
import pandas as pd
from safetensors.torch import save_file

from tumortrace.cohorts.cohort import Cohort, ReadingOptions
from tumortrace.cohorts.layouts import open_cohort, refuse_within
from tumortrace.cohorts.material import Material, without
from tumortrace.errors import DataError, RecipeError, RunError
from tumortrace.models.architecture import build_network
from tumortrace.models.device import resolve_device, resolve_precision
from tumortrace.records.command import command_line
from tumortrace.records.files import replacing, sha256
from tumortrace.records.lock import locked
from tumortrace.records.output import require_own_folder
from tumortrace.records.pretraining import PRETRAINED, Pretraining
from tumortrace.records.progress import say
from tumortrace.records.provenance import RESEARCH_USE, versions
from tumortrace.records.run import now
from tumortrace.records.tables import HISTORY, SEEN
from tumortrace.training.contrastive import VIEWS, ContrastiveLearner, Settings
from tumortrace.training.learner import Row, seed_everything
from tumortrace.training.recipe import Recipe, choose_recipe
from tumortrace.training.task import Patches, require_its_kind

LEAST = 64  # images
CHECKPOINT = "checkpoint.safetensors"
MEASURES = ("validation", "calibration", "test")


def pretrain(
    data: str | Path | Cohort,
    *,
    recipe: str | Path | Recipe = "tumortrace",
    changes: Sequence[str] = (),
    epochs: int = 20,
    batch_size: int = 256,
    out: str | Path = "pretrained",
    seed: int = 0,
    split_seed: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    **reading: Unpack[ReadingOptions],
) -> Path:
    """Learn a recipe's network from images without their labels; `train --weights FOLDER` starts from it.

    Two views of an image, turned, cropped and stained otherwise, are to be more alike than those of two images (Chen et
    al. 2020). No label is looked at, but what measures a model is left out all the same: images of the validation,
    calibration and test splits, as the data bring them or `train` makes them with the same seed, their copies, and all
    others of their slides or patients. The same call goes on with what was interrupted.

    Args:
        data: Any known layout, or an opened cohort; labelled images, others, or both.
        recipe: Name of a shipped recipe, path of a YAML file, or a recipe: its network, preprocessing and optimiser are
            taken, and views are parted by an augmentation of their own.
        changes: Changes to the recipe, as in `optimiser.lr=0.01`.
        epochs: Passes over the images.
        batch_size: Images of a step: each view is told from all others of its batch.
        out: Folder for the weights, `pretraining.json`, `history.csv`, and `seen.csv`, by which `train` knows what was
            learnt from.
        seed: Of weights, order and views, and of splits where the data bring none.
        split_seed: Seed of the splits alone; default `seed`.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: "auto", "32" or "bf16".
        **reading: How the data are read: options of `open_cohort`.

    Returns:
        The folder.

    Raises:
        RecipeError: The recipe's body is not learnt by gradient descent.
        DataError: There are too few images.
        RunError: The folder holds something else, or a pre-training of other settings.
        TumorTraceError: The data or the machine do not allow it.
    """
    out = Path(out)
    chosen, changes = choose_recipe(recipe, changes)
    _require_body(chosen)
    if epochs < 1 or batch_size < 2:
        found = f"{epochs} epochs with batches of {batch_size}"
        raise DataError(found, expected="one epoch or more, batches of 2 or more", remedy="leave them out")
    require_own_folder(out)
    if Pretraining.exists(out) or (not (out / CHECKPOINT).exists() and (out / PRETRAINED).exists()):
        raise RunError("a pre-training that is finished", where=out, remedy="choose another -o, or remove it")
    cohort = without(open_cohort(data, **reading), chosen.leave_out)
    require_its_kind(chosen, cohort)
    refuse_within(out, cohort)
    material = Material(cohort)
    rows, notes = _learnt_from(material, chosen, seed if split_seed is None else split_seed)
    if len(rows) < LEAST:
        found = f"{len(rows):,} distinct images to learn from"
        raise DataError(found, where=cohort.name, expected=f"{LEAST} or more", remedy="add images; they need no labels")
    for note in (*cohort.notes, *notes):
        say(f"note: {note}")
    where = resolve_device(device)
    settings = Settings(
        recipe=chosen.model_dump(mode="json", include={"preprocessing", "model", "optimiser", "schedule"}),
        epochs=epochs,
        batch_size=min(batch_size, len(rows)),
        seed=seed,
        images=f"{cohort.fingerprint} {len(rows)}",
        precision=resolve_precision(precision, where),
    )
    out.mkdir(parents=True, exist_ok=True)
    busy = RunError("another process pre-trains there", where=out, remedy="wait for it, or choose another -o")
    with locked(out / ".lock", busy=busy):
        seed_everything(seed)
        prepared = material.prepared(chosen.preprocessing).images
        patches = Patches(prepared, rows, np.zeros(len(rows), np.float32))
        size = chosen.preprocessing.output_size(patches.size)
        network = build_network(chosen.model.name, size, chosen.model.arguments)
        learner = ContrastiveLearner(network, patches, chosen, settings, out / CHECKPOINT, where)
        learner.resume()
        say(f"pretrain: the network of {chosen.name} on {len(rows):,} distinct images, labels unseen")
        try:
            learner.fit(partial(_write_history, out))
        except KeyboardInterrupt:
            raise RunError("interrupted", where=out, remedy="the same call goes on") from None
        weights = {f"body.{name}": value.cpu().contiguous() for name, value in network.body.state_dict().items()}
        with replacing(out / PRETRAINED) as temporary:
            save_file(weights, temporary)
        digests = pd.DataFrame({"digest": [material.store.digests[row] for row in rows]})
        SEEN.write(out, digests.assign(split="train"))
        history = learner.progress.history
        named = chosen.name if isinstance(recipe, Recipe) else recipe
        options: dict[str, object] = {"recipe": named, "set": changes, "epochs": epochs, "batch_size": batch_size}
        options |= {"seed": seed, "split_seed": split_seed, "device": device, "precision": precision}
        read = {} if cohort.source is None else cohort.source.arguments()
        Pretraining(
            command=command_line("pretrain", read.pop("data", None), **read, **options, out=out),
            recipe=chosen.name,
            data={"name": cohort.name, "layout": cohort.layout, "fingerprint": cohort.fingerprint},
            images=len(rows),
            groups=sorted(set(cohort.table["group"].iloc[rows].dropna().str.casefold())),
            left_out=len(cohort) - len(rows),
            settings={
                "epochs": epochs,
                "batch_size": settings.batch_size,
                "seed": seed,
                "device": str(where),
                "precision": settings.precision,
            },
            views=VIEWS.model_dump(mode="json", exclude_defaults=True),
            matched=history[-1]["matched"],
            weights_sha256=sha256(out / PRETRAINED),
            seconds=sum(row["seconds"] for row in history),
            notes=[*cohort.notes, *notes],
            versions=versions(),
            finished=now(),
            research_use=RESEARCH_USE,
        ).write(out)
        (out / CHECKPOINT).unlink(missing_ok=True)
    return out


def _write_history(folder: Path, history: list[Row]) -> None:
    HISTORY.write(folder, pd.DataFrame(history))


def _require_body(recipe: Recipe) -> None:
    """Refuse a recipe whose body learns nothing, or in another way."""
    if recipe.learner or recipe.probe or recipe.takes_features or "body" in recipe.freeze:
        raise RecipeError(
            f"recipe {recipe.name}, whose body is not learnt",
            expected="a recipe that trains a network on images, such as tumortrace",
            remedy="name one with --recipe",
        )


def _learnt_from(material: Material, recipe: Recipe, seed: int) -> tuple[np.ndarray, list[str]]:
    """Rows of distinct images that measure no model, nor share a slide or patient with one that does."""
    table = material.cohort.table
    measures = table["split"].isin(MEASURES).to_numpy(bool, copy=True)
    notes: list[str] = []
    if table["label"].notna().any():
        splits = Material(material.cohort.labelled).divide("group", seed, recipe.splits)
        notes += splits.notes
        measures |= table["id"].map(splits.table.set_index("id")["split"]).isin(MEASURES).to_numpy(bool)
    digests = np.asarray(material.store.digests, dtype=object)
    measures |= np.isin(digests, digests[measures])
    if material.cohort.has_groups:
        measures |= table["group"].isin(table.loc[measures, "group"]).to_numpy(bool)
    rows = np.flatnonzero(~measures)
    _, first = np.unique(digests[rows].astype(str), return_index=True)
    if measures.any():
        notes.append(f"{int(measures.sum()):,} of {len(table):,} images measure a model, and are not looked at")
    if alike := len(rows) - len(first):
        notes.append(f"{alike:,} images are copies of others, pixel for pixel, and are looked at once")
    return np.sort(rows[first]), notes
