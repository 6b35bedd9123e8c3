"""The verb `predict`: predictions for any cohort, or a Kaggle submission."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Unpack

import numpy as np
import pandas as pd

from tumortrace.cohorts.cohort import Cohort, ReadingOptions
from tumortrace.cohorts.layouts import open_unlabelled
from tumortrace.cohorts.layouts.kaggle import submission_ids
from tumortrace.cohorts.store import PatchStore
from tumortrace.errors import CohortError, PredictionsError, RunError
from tumortrace.evaluation.abstention import outside_line
from tumortrace.images.reference import ImageRef
from tumortrace.inference.divided import assess_divided
from tumortrace.inference.patches import Patches, open_patches
from tumortrace.inference.unseen import open_data, predictions_table, provenance
from tumortrace.models.bundle import Model, load_model
from tumortrace.models.precision import Asked, choose, sampled
from tumortrace.models.runtimes import Backend
from tumortrace.records.command import command_line
from tumortrace.records.evaluation import Precision, PredictRecord
from tumortrace.records.files import write_csv
from tumortrace.records.metrics import Drift
from tumortrace.records.output import require_file, require_same_images
from tumortrace.records.progress import say
from tumortrace.records.provenance import RESEARCH_USE
from tumortrace.records.remote import at_hand
from tumortrace.records.run import Data
from tumortrace.work.hands import Hands

_NULLABLE = {"i": "Int64", "b": "boolean"}  # what whole numbers and truths become where some are missing


def predict(
    run: str | Path | Model,
    data: str | Path | Cohort,
    *,
    out: str | Path | None = None,
    submission: bool = False,
    labels: bool = False,
    resample: bool = False,
    allow: Sequence[str] = (),
    device: str = "auto",
    backend: Backend = "auto",
    precision: Asked = "auto",
    workers: int = 1,
    cluster: str | None = None,
    **reading: Unpack[ReadingOptions],
) -> pd.DataFrame:
    """Predict every image of a cohort, or fill in a Kaggle submission.

    Args:
        run: Run folder or bundle, or a loaded model.
        data: Any known layout, a folder of images or a single image, or an opened cohort.
        out: CSV to write.
        submission: Give exactly the ids of the data's `sample_submission.csv`, in its order.
        labels: In a submission, 0 or 1 by the threshold instead of the probability.
        resample: Resample images whose um per pixel are known to those of the model's patches, around their centres.
        allow: Name of a finding of `check`, or `resolution-mismatch`, to go on in spite of.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        backend: What computes: "torch"; "onnx" or "openvino", the file that `export` writes, at most 1e-5 away in
            probability and without torch; "int8", that of `export --int8`; "auto" is "onnx" on the CPU where that file
            is there, else "torch".
        precision: How exactly torch computes: "fp32", "bf16", or "auto": bfloat16 where the hardware has it, there are
            2,048 images or more, it is quicker, and of a sample at most 1 in 500 calls differ.
        workers: Processes among which the images are divided once they are decoded, each with one thread.
        cluster: Divide them on a Ray cluster instead: `local`, `auto` or HOST:PORT.
        **reading: How the data are read: options of `open_cohort`.

    Returns:
        `id, label, probability, prediction, decision`, and `ood_score` and `in_distribution` where the bundle has them,
        one row per image in the cohort's order; `label` is the known one or missing. Images that cannot be read have
        empty cells, and the table then a column `reason`. For a submission: `id, label`. Beside `out` lies a record of
        how the predictions came about, with `.json` added to its name.

    Raises:
        DataError: No image can be read, or one of a submission cannot; what decoding showed would make answers wrong
            and is not allowed.
        PredictionsError: `labels` is given without `submission`.
        RunError: `out` cannot be written, is what is read, a file of a run's own records, or predictions of others;
            workers cannot be had, or are asked for with a loaded model, or a batch has ended several of them.
        CohortError: An image of the submission is missing, or there is no `sample_submission.csv`.
        TumorTraceError: The model or the data do not open.
    """
    if labels and not submission:
        raise PredictionsError("--labels without --submission", expected="both", remedy="read the column prediction")
    hands = Hands(workers, cluster)
    if isinstance(run, Model) and hands.elsewhere:
        raise RunError("several workers, which cannot share a loaded model", remedy="give the path of its run")
    if out is not None:
        require_file(Path(out), inputs=[data])
    model = run if isinstance(run, Model) else load_model(run, device=device, backend=backend, slides=True)
    cohort = _opened(model, data, reading)
    ids = _submission_ids(data, cohort) if submission else None
    if ids is not None:
        cohort = cohort.where(cohort.table["id"].isin(ids.values()))
    if out is not None:
        _require_same_images(Path(out), cohort, list(cohort.table["id"] if ids is None else ids))
    patches = open_patches(model, cohort, resample=resample, allow=allow, keep_failed=not submission)
    notes = [*cohort.notes, *patches.notes]
    if model.runtime is not None and not isinstance(run, Model):
        notes.append(f"{model.runtime.name} computes, from the exported file; --backend torch has torch do it")
    sound, store = patches.store.sound, patches.store
    how = choose(model, precision, len(sound), lambda: [store.images[sound[sampled(len(sound))]]])
    notes += [how.line] if how.line else []
    computing = model.at("bf16") if how.taken == "bf16" else model
    answered = cohort.table.iloc[sound]
    said = assess_divided(
        computing,
        store,
        hands,
        begin=partial(load_model, run, device=device, backend=backend, slides=True),  # type: ignore[arg-type]
        paths=list(cohort.table["path"]),
        accelerated=device in ("auto", "cuda"),
    )
    table = predictions_table(answered, [said]).drop(columns=["group", "logit"])
    if warning := prevalence_warning(model, table["prediction"].to_numpy()):
        notes.append(warning)
    if len(table) and "in_distribution" in table:
        notes.append(outside_line(table["in_distribution"], answered["group"], cohort.unit))
    drift, line = model.judge_set(said.components, answered["group"])
    notes.append(line)
    for note in notes:
        say(note if note.startswith("warning: ") else f"note: {note}")
    if store.failed:
        table = _with_failures(table, cohort, store)
    if ids is not None:
        table = _submission(table, ids, labels)
    if out is not None:
        named = (run.info.name if isinstance(run, Model) else run, None if isinstance(data, Cohort) else data)
        chosen = None if backend == "auto" else backend
        options = {"submission": submission, "labels": labels, "resample": resample, "allow": list(allow)}
        options |= {"backend": chosen, "precision": None if precision == "auto" else precision, **reading}
        _write(Path(out), table, model, patches, how, notes, drift, command_line("predict", *named, **options))
    return table


def _with_failures(table: pd.DataFrame, cohort: Cohort, store: PatchStore) -> pd.DataFrame:
    """All rows in the cohort's order, those of images that cannot be read with their reason alone."""
    whole = cohort.table[["id", "label"]].assign(reason=pd.Series(store.failed, dtype="string"))
    calls = table.drop(columns=["id", "label"]).set_axis(store.sound)
    nullable = {name: _NULLABLE[kind.kind] for name, kind in calls.dtypes.items() if kind.kind in _NULLABLE}
    calls = calls.astype(nullable)
    return whole[["id", "label"]].join(calls).join(whole["reason"])


def _write(
    out: Path,
    table: pd.DataFrame,
    model: Model,
    patches: Patches,
    how: Precision,
    notes: list[str],
    drift: Drift | None,
    command: str,
) -> None:
    """The table, the record of how it came about beside it, and a line on both."""
    cohort, failed = patches.cohort, patches.store.failed
    group = cohort.table["group"]
    about = Data(
        name=cohort.name,
        place=cohort.origin,
        layout=cohort.layout,
        fingerprint=cohort.fingerprint,
        images=len(cohort),
        groups=int(group.nunique()) if group.notna().all() else None,
        resolution=patches.resolution,
        resampled=patches.resampled,
        in_spite=list(patches.in_spite),
        unreadable=len(failed),
    )
    write_csv(out, table)
    record = PredictRecord(command=command, model=model.named, data=about, precision=how, notes=notes, drift=drift)
    PredictRecord.model_validate(record.as_json() | provenance()).write_file(_record_beside(out))
    without = f", {len(failed):,} of them without an answer, as their images cannot be read (column reason)"
    say(f"predict: {len(table):,} rows in {out}{without if failed else ''}. {RESEARCH_USE}")


def _record_beside(out: Path) -> Path:
    return Path(f"{out}.json")


def _require_same_images(out: Path, cohort: Cohort, ids: list[str]) -> None:
    """Refuse to write over predictions of other images; the record beside them says of which they are."""
    record = PredictRecord.recognise_file(_record_beside(out))
    same = record is None or record.data.fingerprint == cohort.fingerprint
    before = "" if record is None or same else record.data.place or record.data.name
    require_same_images(out, ids, before=before, data=cohort.origin or cohort.name)


def _opened(model: Model, data: str | Path | Cohort, reading: ReadingOptions) -> Cohort:
    """The data; folders that are none of the model's classes, as of patients, say nothing of labels."""
    try:
        return open_data(model, data, **reading)
    except CohortError as refusal:
        several = model.info.several
        known = {name.casefold() for name in (several.names if several else model.info.classes)}
        named = [name.casefold() for name in refusal.classes]
        if (
            not named
            or known & set(named)
            or reading.get("positive")
            or isinstance(data, Cohort)
            or not at_hand(data).is_dir()
        ):
            raise
        cohort = open_unlabelled(data, **reading)
        first = ", ".join(refusal.classes[:3]) + (", ..." if len(refusal.classes) > 3 else "")
        note = f"folders or labels {first} are none of the model's classes: the images are taken as unlabelled"
        return replace(cohort, notes=(note, *cohort.notes))


def prevalence_warning(model: Model, predictions: np.ndarray) -> str | None:
    """One line when the share of positive predictions is far from the share of positives in training.

    Far is: more than .15 away, or less than half, beyond what chance does to so few images (three standard errors).
    """
    if len(predictions) == 0:
        return None
    share, expected = float(np.mean(predictions)), model.info.training.prevalence
    chance = 3 * np.sqrt(max(expected * (1 - expected), 1e-4) / len(predictions))
    if abs(share - expected) <= chance or (abs(share - expected) <= 0.15 and share >= expected / 2):
        return None
    return (
        f"warning: {share:.1%} of {len(predictions):,} images are predicted {model.info.positive_class!r}, "
        f"in training {expected:.1%} were; look whether these data "
        "resemble the training data (scanner, stain, resolution, selection)"
    )


def _submission_ids(data: str | Path | Cohort, cohort: Cohort) -> dict[str, str]:
    """Id in the cohort by id as `sample_submission.csv` writes it, with or without a file's ending; in its order."""
    remedy = "give the competition's folder, with sample_submission.csv in it"
    ids = None if isinstance(data, Cohort) else submission_ids(at_hand(data))
    if ids is None:
        raise CohortError(
            "no sample_submission.csv there", where=data if not isinstance(data, Cohort) else cohort.name, remedy=remedy
        )
    where = f"{data}, sample_submission.csv"
    if len(ids) != len(set(ids)):
        raise CohortError("an id stands twice", where=where, remedy="restore the file")
    files = [ImageRef.parse(path).file for path in cohort.table["path"]]
    known = {Path(file).name: identity for file, identity in zip(files, cohort.table["id"], strict=True)}
    known |= dict(zip(cohort.table["id"], cohort.table["id"], strict=True))
    missing = sorted(set(ids) - set(known))
    if missing:
        raise CohortError(
            f"{len(missing)} of {len(ids)} ids have no image, the first {missing[0]!r}",
            where=where,
            remedy="restore the missing images; a submission with rows lost is worth nothing",
        )
    return {identity: known[identity] for identity in ids}


def _submission(table: pd.DataFrame, ids: dict[str, str], labels: bool) -> pd.DataFrame:
    chosen = table.set_index("id").loc[list(ids.values())]
    value = chosen["prediction"] if labels else chosen["probability"]
    return pd.DataFrame({"id": list(ids), "label": value.to_numpy()})
