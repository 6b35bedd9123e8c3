"""The verb `slide-score`: a score of slides, learnt from labelled ones, and judged by slide, patient and lesion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.findings import count
from tumortrace.cohorts.splits import assign_splits
from tumortrace.errors import RunError, SplitError
from tumortrace.evaluation.froc import froc
from tumortrace.evaluation.split_record import headline, split_record
from tumortrace.evaluation.thresholds import parse_policy
from tumortrace.inference.evaluate import write_evaluation
from tumortrace.inference.unseen import provenance
from tumortrace.records.command import command_line
from tumortrace.records.evaluation import EvaluationRecord
from tumortrace.records.output import require_own_folder
from tumortrace.records.progress import say, track
from tumortrace.records.provenance import RESEARCH_USE
from tumortrace.records.run import Data, RunRecord
from tumortrace.records.slides import FittedScore, PatientStage, SlideScoreRecord
from tumortrace.records.tables import PREDICTIONS
from tumortrace.records.user_tables import SUFFIXES, read_text
from tumortrace.slides.annotations.classes import Classes
from tumortrace.slides.annotations.files import annotations_of
from tumortrace.slides.cohort import SlideCohort, open_slides, slides_place
from tumortrace.slides.foci import grid_of
from tumortrace.slides.identity import digest_of
from tumortrace.slides.result import made_with
from tumortrace.slides.scanned import Scanned, detections_of, features_of, find_scans, seen_in_training
from tumortrace.slides.slide_model import apply_score, fit_score
from tumortrace.slides.stages import agreement, known_stage, slide_size, stages

SHARES = {"train": 0.4, "calibration": 0.2, "test": 0.4}
PATCHES_SEEN = "the patches' model has learnt from their patches"
STAGE_COLUMNS = ("stage", "pn", "pn_stage", "pnstage")
_COLUMNS = ("id", "group", "split", "label", "probability", "prediction", "decision", "logit", "size")


def slide_score(
    scans: Path,
    table: Path,
    *,
    out: Path | None = None,
    score: Path | None = None,
    run: Path | None = None,
    annotation_classes: Sequence[str] = (),
    positive: str | None = None,
    patient_pattern: str | None = None,
    threshold: str = "f1",
    coverage: float | None = 0.9,
    seed: int = 0,
) -> Path:
    """Learn a score of whole slides from the maps of labelled slides, and judge it by slide, patient and lesion.

    Features of each map (docs/slides.md) go into a logistic model, which is fitted on slides of the training split,
    calibrated and given its threshold on those of the calibration split, and judged on those of the test split. Splits
    that the table brings are kept; else they are made by patient.

    Args:
        scans: Folder that `scan` wrote.
        table: Table of slides with label, and where known patient, split, annotations and stage; or a folder of slides.
        out: Folder to write; default `slide-score` in that of the scans.
        score: Folder of a score that is learnt already: it is applied, and nothing is learnt. Labels are then only
            needed to judge it.
        run: Run of the patches' model, by whose groups slides are known that it has learnt from; by default the run in
            whose folder the scans lie.
        annotation_classes: What a class of annotations means for the lesions of FROC, as for `tile`: `NAME=positive`,
            `negative`, `exclude` or `ignore`. Tumor, metastases, normal and the like are known.
        positive: Name of the positive class, where it is not known by its spelling.
        patient_pattern: Regular expression that finds the patient in a slide's name.
        threshold: Policy that chooses the threshold, such as `specificity>=0.9`.
        coverage: Of each class by prediction sets, which decide what is referred to a person; 0 refers nothing.
        seed: Of splits and folds.

    Returns:
        The folder, with `slide_score.json`, `predictions.csv`, and where there are labels `metrics.json`,
        `evaluation.json`, `report.html` as of an evaluation.

    Raises:
        RunError: The scans are none, of other slides, or made with different models or options.
        PredictionsError: There are too few slides of a class to learn from.
    """
    folder = Path(out) if out is not None else scans / "slide-score"
    require_own_folder(folder)
    _check(threshold, coverage)
    command = command_line(
        "slide-score",
        scans,
        table,
        score=score,
        run=run,
        positive=positive,
        patient_pattern=patient_pattern,
        threshold=threshold,
        coverage=coverage,
        seed=seed,
        **{"class": annotation_classes},
    )
    known = None if score is None else SlideScoreRecord.read(score).fitted
    table = slides_place(table)
    classes = Classes.of(annotation_classes)
    cohort = open_slides(table, positive=positive, patient_pattern=patient_pattern)
    outlined = zip(cohort.entries, annotations_of(cohort.entries, None), strict=True)
    cohort = replace(cohort, entries=tuple(replace(entry, annotations=file) for entry, file in outlined))
    found, missing = find_scans(scans, cohort)
    notes = [*cohort.notes, *missing]
    rows, said = _with_labels(features_of(found), table, learns=known is None)
    notes += said
    run = run or next((place for place in (scans, *scans.resolve().parents) if RunRecord.exists(place)), None)
    seen, leakage = seen_in_training(run, found)
    named = [str(replace(scan.entry, path=Path(), annotations=None)) for scan in found]
    request = digest_of(
        [
            [[scan.record.content, entry] for scan, entry in zip(found, named, strict=True)],
            [made_with(found[0].record), list(annotation_classes), threshold, coverage, seed, sorted(seen)],
            None if known is None else known.model_dump(mode="json"),
        ]
    )
    _require_same_call(folder, command, request)
    if known is None:
        rows, said = divide(rows, cohort, seen, seed)
        notes += said
        known = fit_score(rows, policy=threshold, coverage=coverage or None, seed=seed)
        used = set(rows.loc[rows["split"].isin(("train", "calibration")), "id"])
        known = known.model_copy(update=_made_by([scan for scan in found if scan.entry.id in used], cohort))
        rows = rows[rows["split"] != "train"]
    else:
        _require_same_maps(known, found[0], scans)
        rows, said = _to_judge(rows, seen, _learnt_from(known, found))
        notes += said
    rows = apply_score(known, rows)
    judged = {scan.entry.id: scan for scan in found if scan.entry.id in set(rows["id"])}
    rows = rows.assign(
        size=[_size(judged[name], bool(called)) for name, called in zip(rows["id"], rows["prediction"], strict=True)]
    )
    patients = stages(rows, _true_stages(table, cohort))
    record = SlideScoreRecord.model_validate(
        {
            "command": command,
            "request": request,
            "fitted": known.model_dump(),
            "fitted_here": score is None,
            "leakage": leakage,
            "patients": [patient.model_dump() for patient in patients],
            "notes": notes,
        }
        | provenance()
    )
    say(f"slide-score: patches' model: {leakage}")
    return _write(folder, record, rows, judged, classes, patients, table)


def _check(threshold: str, coverage: float | None) -> None:
    parse_policy(threshold)
    if coverage and not 0 < coverage < 1:
        raise RunError(f"--coverage {coverage:g}", expected="between 0 and 1", remedy="use 0.9, or 0 to refer nothing")


def _require_same_call(folder: Path, command: str, request: str) -> None:
    """Refuse a folder with the score of another call, of which files would stay among those of this one.

    The same slides, labels and options are the same call, wherever they have been moved to.
    """
    before = SlideScoreRecord.recognise(folder)
    if before is not None and before.command != command and before.request != request:
        raise RunError(
            f"holds what another call has written: {before.command}",
            where=folder,
            expected="the same call, or a folder not in use",
            remedy="choose another -o, or remove it",
        )


def _with_labels(rows: pd.DataFrame, table: Path, *, learns: bool) -> tuple[pd.DataFrame, list[str]]:
    """The slides with a label, and a note on others; all of them where none has one and nothing is learnt.

    Raises:
        RunError: None has one, and a score is to be learnt.
    """
    labelled = rows["label"].notna()
    if labelled.any():
        some = f"{count(int((~labelled).sum()), 'slide')} without a label left out"
        return rows[labelled].reset_index(drop=True), [] if labelled.all() else [some]
    if learns:
        raise RunError(
            "no slide with a label",
            where=table,
            expected="a table with a column label, to learn a score from",
            remedy="name it, or add the column, or apply a score that is learnt already with --score FOLDER",
        )
    return rows, []


def divide(rows: pd.DataFrame, cohort: SlideCohort, seen: set[str], seed: int) -> tuple[pd.DataFrame, list[str]]:
    """The slides in training, calibration and test split, by patient, and notes.

    Splits of the table are kept. Slides that the patches' model has learnt from only ever train: where the table
    divides, those of other splits are left out; where it does not, their patients go into the training split whole.

    Raises:
        SplitError: There are fewer patients than splits, or one is on two sides.
    """
    notes = []
    if rows["split"].notna().any():
        lost = rows["id"].isin(seen) & (rows["split"] != "train")
        if lost.any():
            notes.append(f"warning: {_left_out(rows['id'][lost], PATCHES_SEEN)}")
        rows = rows[~lost]
        known = pd.Series(False, rows.index)
    else:
        known = rows["group"].isin(set(rows["group"][rows["id"].isin(seen)]))
        if known.any():
            told = f"{count(int(known.sum()), 'slide')} of patients whose patches the model has learnt from"
            notes.append(f"{told}: for training alone")
    fresh = rows[~known]
    patients = fresh["group"].nunique()
    if patients < len(SHARES) and fresh["split"].isna().all():
        what = "slide" if fresh["group"].equals(fresh["id"]) else "patient"
        raise SplitError(
            f"{count(patients, what)} whose patches the model has not learnt from",
            expected=f"at least {len(SHARES)}, to divide into {', '.join(SHARES)}",
            remedy="scan slides of more patients and name them in the table, or apply a score that is learnt already "
            "with --score FOLDER",
        )
    splits = assign_splits(
        Cohort("slides", "slides", fresh[["id", "label", "group", "split"]].assign(path=""), cohort.classes),
        fractions=SHARES,
        seed=seed,
    )
    chosen = splits.table.set_index("id")["split"]
    divided = rows.assign(split=rows["id"].map(chosen).where(~known, "train").astype("string"))
    return divided[divided["split"].notna()].reset_index(drop=True), [*notes, *splits.notes]


def _to_judge(rows: pd.DataFrame, seen: set[str], used: set[str]) -> tuple[pd.DataFrame, list[str]]:
    """The slides that a score is applied to, those of a test split alone where the table has one, and notes.

    Args:
        rows: Of the slides; those without a label are answered, whoever has learnt from them.
        seen: Ids of those whose patches the patches' model has learnt from.
        used: Ids of those that the score has learnt from.
    """
    notes = []
    if (rows["split"] == "test").any():
        others = rows["split"] != "test"
        if others.any():
            notes.append(f"{count(int(others.sum()), 'slide')} of other splits than test left out")
        rows = rows[~others]
    lost = pd.Series(False, rows.index)
    for names, why in ((seen, PATCHES_SEEN), (used, "the score has learnt from them or their patients")):
        known = rows["id"].isin(names) & rows["label"].notna() & ~lost
        if known.any():
            notes.append(f"warning: {_left_out(rows['id'][known], why)}")
        lost |= known
    rows = rows[~lost]
    if rows.empty:
        raise RunError(
            "the score, or the patches' model, has learnt from all of these slides",
            expected="slides that are new to both",
            remedy="name others, or leave their labels out to be answered without being judged",
        )
    return rows.assign(split="test").reset_index(drop=True), notes


def _left_out(names: pd.Series, why: str) -> str:
    some = ", ".join(names.head(3)) + (", ..." if len(names) > 3 else "")
    return f"{count(len(names), 'slide')} left out, as {why}: {some}"


def _learnt_from(known: FittedScore, found: Sequence[Scanned]) -> set[str]:
    """Ids of slides that a score was learnt or calibrated on, by content or by patient."""
    contents, named = set(known.contents), set(known.named)
    return {scan.entry.id for scan in found if scan.record.content in contents or scan.entry.group.casefold() in named}


def _made_by(scans: Sequence[Scanned], cohort: SlideCohort) -> dict[str, object]:
    """What a score that was learnt from these scans keeps of them."""
    record = scans[0].record
    entries = [scan.entry for scan in scans]
    return {
        "classes": cohort.classes,
        "model": record.model,
        "overlap": record.overlap,
        "patch_threshold": record.threshold,
        "contents": sorted(scan.record.content for scan in scans),
        "named": sorted({entry.group.casefold() for entry in entries if entry.group != entry.id}),
    }


def _require_same_maps(known: FittedScore, scan: Scanned, scans: Path) -> None:
    """Refuse maps of another model or grid than those that a score was learnt from."""
    record = scan.record
    wanted = (known.model.weights_sha256, known.overlap, known.patch_threshold)
    for (name, given), value in zip(made_with(record).items(), wanted, strict=True):
        if given != value:
            raise RunError(
                f"{name} that differ from those of the score ({given})",
                where=scans,
                expected=f"{value}, as in the scans that it was learnt from",
                remedy="scan the slides with the same model and options",
            )


def _size(scan: Scanned, called: bool) -> str:
    threshold = 0.5 if scan.record.threshold is None else scan.record.threshold
    return slide_size(grid_of(scan.tiles, scan.record.overlap, scan.resolution), threshold, called)


def _true_stages(table: Path, cohort: SlideCohort) -> dict[str, str]:
    """Stage of each patient as the user's table has it; none where it has no such column."""
    if not Path(table).is_file() or Path(table).suffix.lower() not in SUFFIXES:
        return {}
    known, _ = read_text(Path(table), RunError)
    column = next((name for name in STAGE_COLUMNS if name in known), None)
    if column is None:
        return {}
    stated: dict[str, str] = {}
    for entry, text in zip(cohort.entries, known[column], strict=True):  # entries are in the order of the table
        if not text.strip():
            continue
        stage = known_stage(text, f"{table}, column {column}")
        if stated.setdefault(entry.group, stage) != stage:
            found = f"two stages of {entry.group}: {stated[entry.group]} and {stage}"
            raise RunError(found, where=table, expected="one for each patient", remedy="correct it")
    return stated


def _write(
    folder: Path,
    record: SlideScoreRecord,
    rows: pd.DataFrame,
    judged: dict[str, Scanned],
    classes: Classes,
    patients: list[PatientStage],
    table: Path,
) -> Path:
    """Measure and write all that is known; of slides without labels the answers alone."""
    fitted = record.fitted
    if rows["label"].isna().all():
        folder.mkdir(parents=True, exist_ok=True)
        PREDICTIONS.write(folder, rows[[name for name in _COLUMNS if name != "label"]])
        record.write(folder)
        for note in record.notes:
            say(note if note.startswith("warning: ") else f"note: {note}")
        called = int(rows["prediction"].sum())
        say(
            f"slide-score: {called} of {count(len(rows), 'slide')} called {fitted.classes[1]}; {folder}. {RESEARCH_USE}"
        )
        return folder
    rows = rows.assign(label=rows["label"].astype(int))
    by_split = {str(name): part for name, part in rows.groupby("split", sort=False)}
    lesions = {name: [detections_of(judged[slide], classes) for slide in part["id"]] for name, part in by_split.items()}
    kappas = {name: agreement([row for row in patients if row.split == name]) for name in by_split}
    record = record.model_copy(
        update={
            "by_patient": {
                name: split_record(_by_patient(part), fitted.threshold)
                for name, part in track(by_split.items(), "patients", len(by_split))
            },
            "froc": {
                name: froc([slide for slide in slides if slide is not None])
                for name, slides in lesions.items()
                if any(slide is not None and slide.lesions for slide in slides)
            },
            "kappa": {name: entry for name, entry in kappas.items() if entry is not None},
        }
    )
    record.write(folder)  # before the report, which shows it
    evaluation = EvaluationRecord(
        command=record.command,
        model={
            "name": f"slide score on {fitted.model.name}",
            "threshold": fitted.threshold,
            "threshold_policy": fitted.threshold_policy,
            "classes": list(fitted.classes),
            "calibration": fitted.calibration,
            "conformal": fitted.conformal,
        },
        data=Data(
            name=Path(table).name,
            layout="slides",
            fingerprint=digest_of(sorted([scan.record.content, scan.entry.label] for scan in judged.values())),
            images=len(rows),
            groups=int(rows["group"].nunique()),
        ),
        classes=list(fitted.classes),
        positive_class=fitted.classes[1],
        notes=record.notes,
    )
    write_evaluation(folder, rows[list(_COLUMNS)], fitted.threshold, evaluation)
    for name, metrics in record.by_patient.items():
        say(f"slide-score: {name}, by patient: {headline(metrics, 'patient')}")
    for name, lesion in record.froc.items():
        ends = " (no interval)" if lesion.mean.ci95 is None else " [{:.3f}, {:.3f}]".format(*lesion.mean.ci95)
        say(f"slide-score: {name}: FROC {lesion.mean.value:.3f}{ends} of {count(lesion.lesions, 'lesion')}")
    return folder


def _by_patient(slides: pd.DataFrame) -> pd.DataFrame:
    """A row for each patient: positive where a slide is, with the highest probability of the slides."""
    by = slides.groupby("group", sort=True)
    return (
        pd.DataFrame({"label": by["label"].max(), "probability": by["probability"].max()})
        .rename_axis("group")
        .reset_index()
    )
