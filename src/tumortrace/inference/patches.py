"""Data as a model meets them: decoded once, at its size, by its bits and resolution, and what is to be said of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from tumortrace.cohorts.bags import open_bags
from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.findings import Finding, count, examples
from tumortrace.cohorts.looks import Look, as_table
from tumortrace.cohorts.resolution import common, resolutions, stated_before
from tumortrace.cohorts.store import PatchStore, open_store
from tumortrace.cohorts.telling import judge, refuse_errors
from tumortrace.errors import ModelError
from tumortrace.models.bundle import Model
from tumortrace.models.description import ModelInfo

MISMATCH = "resolution-mismatch"
OFF = 0.2  # by which resolutions may differ before it is asked what to do


@dataclass(frozen=True)
class Patches:
    """Images that a model is asked about.

    Attributes:
        cohort: The images.
        store: They decoded, at the model's `patch_size`.
        notes: What has to be said of them.
        resolution: Um per px that all state; None where some state none, or another.
        resampled: Um per px to which they were resampled; None where they were not.
        in_spite: Names of findings that would have refused them and were allowed.
    """

    cohort: Cohort
    store: PatchStore
    notes: list[str]
    resolution: float | None
    resampled: float | None
    in_spite: tuple[str, ...] = ()


def open_patches(
    model: Model, cohort: Cohort, *, resample: bool = False, allow: Collection[str] = (), keep_failed: bool = True
) -> Patches:
    """Decode a cohort as a model takes it, and judge what was seen in the words of `check`.

    Args:
        model: The model. Deep images whose files do not say how many bits are used are read as in its training.
        cohort: The images.
        resample: Whether images whose resolution is known are resampled to that of the model's patches.
        allow: Names of findings to go on in spite of.
        keep_failed: Whether images that cannot be read are left out aloud; else they refuse the others.

    Raises:
        DataError: No image can be read, or a finding would make answers wrong and is not allowed: bits that nothing
            states, masks, a resolution that is not the model's.
        ModelError: Resampling is asked for and the model states no resolution.
    """
    info, notes = model.info, []
    if resample and info.resolution is None:
        found, remedy = "the model states no resolution", "leave out --resample, or train it with --resolution"
        raise ModelError(found, where=info.name, remedy=remedy)
    if cohort.bits is None and info.bits is not None:
        cohort = replace(cohort, bits=info.bits)
        notes.append(
            f"deep images that do not say their bits are read as {info.bits} bits, as the training images were"
        )
    asked = not resample and MISMATCH not in allow
    if asked:
        refuse_errors(mismatch(cohort.table, stated_before(cohort), info), allow, cohort.name)
    wanted = info.resolution if resample else None
    if cohort.has_bags:
        store: PatchStore = open_bags(cohort, keep_failed=keep_failed)
    else:
        store = open_store(cohort, size=info.patch_size, resolution=wanted, keep_failed=keep_failed)
    known = resolutions(cohort, store.looks)
    off = mismatch(cohort.table, known, info)
    findings = [f for f in judge(cohort, store.looks, store.size) if not (resample and f.name == "shrunk")]
    refuse_errors([*findings, *(off if asked else ())], allow, cohort.name)
    needless = sorted({*allow} - {finding.name for finding in (*findings, *off)})
    notes += [f"--allow {name} changes nothing: nothing of this name is seen here" for name in needless]
    notes += [*_failures(cohort, store), *store.notes, *(finding.line for finding in findings)]
    if resample:
        if np.isnan(known).any():
            unknown = count(int(np.isnan(known).sum()), "image")
            notes.append(f"{unknown} of unknown resolution were not resampled, but resized as they are")
    else:
        notes += [f"{finding.line}; gone on with, as was allowed" for finding in off]
    in_spite = tuple(finding.name for finding in (*findings, *(() if resample else off)) if finding.verdict == "error")
    return Patches(cohort, store, notes, common(known), wanted, in_spite)


def mismatch(table: pd.DataFrame, known: np.ndarray, info: ModelInfo) -> tuple[Finding, ...]:
    """The finding that images have another resolution than the model's patches, by more than `OFF`.

    Args:
        table: Of the cohort.
        known: Um per px of each image, NaN where not known.
        info: Of the model.
    """
    if info.resolution is None or np.isnan(known).all():
        return ()
    off = np.abs(np.nan_to_num(known, nan=info.resolution) / info.resolution - 1) > OFF + 1e-9
    if not off.any():
        return ()
    low, high = known[off].min(), known[off].max()
    span = f"{low:.3g}" if high < 1.01 * low else f"{low:.3g} to {high:.3g}"
    number = int(off.sum())
    message = f"{count(number, 'image')} {'has' if number == 1 else 'have'} {span} um per pixel, the patches that the "
    message += f"model learnt from {info.resolution:.3g}"
    remedy = "--resample brings the middle of each to the model's resolution, --resolution says what they truly have"
    says = [f"{value:.3g} um/px" for value in known[off]]
    return (Finding(MISMATCH, "error", number, message, remedy, examples(table[off], says)),)


def judge_one(name: str, look: Look, info: ModelInfo, *, resample: bool, allow: Collection[str]) -> list[str]:
    """What is to be said of one image that was decoded elsewhere.

    Args:
        name: For messages.
        look: What was seen of it; its `resolution` is the one that holds.
        info: Of the model.
        resample: Whether it was resampled to the model's resolution.
        allow: Names of findings to go on in spite of.

    Raises:
        DataError: As `open_patches` does.
    """
    rows = pd.DataFrame({"id": [name], "path": name, "label": pd.NA, "group": None, "split": None})
    cohort, looks = Cohort(name, "upload", rows), as_table([look._replace(digest=name)])
    findings = [f for f in judge(cohort, looks, info.patch_size) if not (resample and f.name == "shrunk")]
    off = () if resample else mismatch(cohort.table, resolutions(cohort, looks), info)
    refuse_errors([*findings, *off], allow, name)
    return [finding.message for finding in (*findings, *off)]


def _failures(cohort: Cohort, store: PatchStore) -> list[str]:
    """Which images could not be read."""
    if not store.failed:
        return []
    row = min(store.failed)
    such = f"such as {cohort.table['id'].iloc[row]}: {store.failed[row]}"
    return [f"warning: {len(store.failed):,} of {len(cohort):,} images cannot be read and are left out, {such}"]
