"""The verb `stress`: what a trained model says of images that have been through a worse laboratory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

import numpy as np
import pandas as pd

from tumortrace.cohorts.cohort import Cohort, ReadingOptions
from tumortrace.cohorts.contents import contents
from tumortrace.errors import DataError, RunError
from tumortrace.evaluation.classes import with_classes
from tumortrace.evaluation.comparisons import agreement, paired_differences
from tumortrace.evaluation.intervals import estimate_measures, evaluate_table, share_with_interval
from tumortrace.evaluation.measures import MEASURES
from tumortrace.evaluation.replicates import Replicates
from tumortrace.images.corruptions import CORRUPTIONS, PROCEDURE, corrupt, find, fits
from tumortrace.inference.unseen import Unseen, end, open_unseen, predictions_table, provenance
from tumortrace.models.bundle import Model, load_model
from tumortrace.records.command import command_line
from tumortrace.records.evaluation import Corrupted, Level, Site, StressPlan, StressRecord
from tumortrace.records.files import write_csv
from tumortrace.records.metrics import SplitMetrics
from tumortrace.records.output import require_folder
from tumortrace.records.progress import track
from tumortrace.records.tables import read_table
from tumortrace.reports.stress import draw_contact_sheet, write_stress_report
from tumortrace.reports.wording import estimate, interval, signed

CHUNK = 128  # images corrupted at a time
SITE_MEASURES = ("auroc", "sensitivity", "specificity", "ece")
METHOD = {
    "metrics": "At the model's own threshold; nothing is fitted to corrupted images.",
    "differences": "Corrupted minus clean; percentiles of paired bootstrap replicates that draw the same whole groups "
    "(single images where groups are not known) for both.",
    "agreement": "Calls that stay: the share of images that are called as without the corruption. Its interval, and "
    "those of the shares referred and flagged, draw whole groups; where no replicate differs, or groups are not known, "
    "they are Wilson's, in the first case with groups for images.",
}


def stress(
    run: str | Path,
    data: str | Path | Cohort,
    *,
    images: int | None = 500,
    corruptions: Sequence[str] = (),
    as_sites: int = 5,
    out: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    resample: bool = False,
    allow: Sequence[str] = (),
    **reading: Unpack[ReadingOptions],
) -> Path:
    """Measure a trained model on images corrupted as laboratories corrupt them, beside the same images as they are.

    Images that the run has used are left out, as in `evaluate`. What is finished is kept: the same call again goes on
    after an interruption, and a call with other corruptions adds them.

    Args:
        run: Run folder or bundle.
        data: Any known layout with labels, or an opened cohort.
        images: How many images, drawn at random from those that the run has not used; None takes all.
        corruptions: Names of corruptions, as in `stain-hue`; all where none is named.
        as_sites: Laboratories to imitate: where a corruption draws colours, also single draws for the whole set, so
            many at most; 0 leaves them out. Draws image by image cancel each other over a set, those of a site do not.
        out: Folder to write; default `stress` in the run folder.
        seed: Of the choice of images, the corruptions' draws and the intervals.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        resample: Resample images whose um per pixel are known to those of the model's patches, around their centres.
        allow: Name of a finding of `check`, or `resolution-mismatch`, to go on in spite of.
        **reading: How the data are read: options of `open_cohort`.

    Returns:
        The folder, with `stress.json`, `stress.html`, `figures/`, and the predictions behind them in `predictions/`.

    Raises:
        CohortError: All labelled images were trained or calibrated on, or the class names differ.
        DataError: There is no corruption of a name, or fewer than one image or than no site is asked for.
        RunError: The folder holds a stress test of another model, other images or another seed.
    """
    for name in corruptions:
        find(name)
    names = [name for name in CORRUPTIONS if name in corruptions or not corruptions]
    if images is not None and images < 1:
        raise DataError(f"--images {images}", expected="1 or more", remedy="leave it out for 500")
    if as_sites < 0:
        raise DataError(f"--as-sites {as_sites}", expected="0 or more", remedy="leave it out for 5; 0 leaves sites out")
    model = load_model(run, device=device)
    opened = open_unseen(model, data, resample=resample, allow=allow, **reading)
    tested = _Tested(model, _drawn(opened, images, seed), seed)
    unseen, threshold = tested.unseen, model.info.threshold
    folder = Path(out) if out is not None else model.run_folder / "stress"
    _begin(folder, tested.plan())
    levels = [(name, k) for name in names for k in CORRUPTIONS[name].strengths if fits(name, k, unseen.store.size)]
    try:
        clean = tested.predicted(folder, "clean", 0)
        for name, strength in track(levels, "stressing"):
            tested.predicted(folder, name, strength)
            for site in tested.sites(name, strength, as_sites):
                tested.predicted(folder, name, strength, site)
    except KeyboardInterrupt:
        remedy = "give the same command again to go on"
        raise RunError("interrupted; what is finished is kept", where=folder, remedy=remedy) from None
    measured = {}
    for name in track(names, "measuring"):
        tables = {k: tested.predicted(folder, name, k) for n, k in levels if n == name}
        measured[name] = _measured(name, clean, tables, threshold, seed)
        for level in measured[name].levels:
            sites = tested.sites(name, level.strength, as_sites)
            level.sites = [
                _site(site, tested.predicted(folder, name, level.strength, site), threshold, seed) for site in sites
            ]
    named = None if isinstance(data, Cohort) else data
    count = len(unseen.rows)
    record = StressRecord.model_validate(
        {
            "verb": "stress",
            "command": command_line(
                "stress",
                run,
                named,
                corruption=corruptions,
                resample=resample,
                allow=list(allow),
                **reading,
                images=count,
                seed=seed,
            ),
            "seed": seed,
            "model": model.named.model_copy(update={"symmetries": model.info.symmetries}),
            "data": unseen.data,
            "classes": list(model.info.classes),
            "notes": tested.notes(),
            "clean": _metrics(clean, threshold, seed),
            "corruptions": measured,
            "method": METHOD,
            **provenance(),
        }
    )
    record.write(folder)
    draw_contact_sheet(folder, unseen.store.images[unseen.rows[0]], str(unseen.table["id"].iloc[0]), names, seed)
    report = write_stress_report(folder)
    return end(model, folder, f"stress: {_headline(record)}; {report}", record.notes)


@dataclass(frozen=True)
class _Tested:
    """The model, and the images that it is asked about."""

    model: Model
    unseen: Unseen
    seed: int

    def predicted(self, folder: Path, name: str, strength: int, site: str = "") -> pd.DataFrame:
        """The predictions at one strength, of one site or image by image; read where finished, else made."""
        parts = [name, *([str(strength)] if strength else []), *([site] if site else [])]
        file = folder / "predictions" / f"{'-'.join(parts)}.csv"
        if not file.is_file():
            write_csv(file, self._predict(name, strength, site))
        return read_table(file)

    def sites(self, name: str, strength: int, most: int) -> list[str]:
        """Names of draws that differ: of a sign there are two, of a scanner as many as are asked for."""
        if not CORRUPTIONS[name].of_site:
            return []
        image = self.unseen.store.images[self.unseen.rows[:1]]
        drawn: dict[bytes, str] = {}
        for number in range(1, 8 * most + 1):
            if len(drawn) < most:
                site = f"site{number}"
                drawn.setdefault(corrupt(image, [site], name, strength, seed=self.seed).tobytes(), site)
        return list(drawn.values())

    def _predict(self, name: str, strength: int, site: str) -> pd.DataFrame:
        ids, parts = list(self.unseen.table["id"]), []
        for start in range(0, len(ids), CHUNK):
            images = self.unseen.store.images[self.unseen.rows[start : start + CHUNK]]
            if strength:
                draws = [site] * len(images) if site else ids[start : start + CHUNK]
                images = corrupt(images, draws, name, strength, seed=self.seed)
            parts.append(self.model.assess(images))
        return predictions_table(self.unseen.table, parts).drop(columns="logit")

    def plan(self) -> StressPlan:
        """All that predictions depend on besides corruption and strength; when files were put there does not matter."""
        data = contents(self.unseen.cohort, self.unseen.store)
        return StressPlan(
            procedure=PROCEDURE,
            model=self.model.info.model_dump_json(exclude={"drift"}),
            data=f"{data.rows}-{data.pictures}" + ("-resampled" if self.unseen.patches.resampled else ""),
            images=hashlib.sha256("\n".join(self.unseen.table["id"]).encode()).hexdigest(),
            seed=self.seed,
        )

    def notes(self) -> list[str]:
        """What has to be said beside the result."""
        notes = list(self.unseen.notes)
        if len(set(self.unseen.store.size)) > 1:
            notes.append("the images are oblong, so that quarter turns are left out")
        if self.model.info.symmetries:
            notes.append("the model averages the eight rotations and mirrorings, so that these change nothing")
        return notes


def _drawn(unseen: Unseen, images: int | None, seed: int) -> Unseen:
    """Some of them, drawn at random."""
    if images is None or images >= len(unseen.rows):
        return unseen
    rows = np.sort(np.random.default_rng(seed).permutation(unseen.rows)[:images])
    note = f"{len(rows):,} of {len(unseen.rows):,} images were drawn at random"
    return replace(unseen, rows=rows, notes=[*unseen.notes, note])


def _begin(folder: Path, plan: StressPlan) -> None:
    """Refuse a folder whose predictions are of something else; those that are of the same are gone on with."""
    require_folder(folder)
    earlier = StressPlan.find(folder)
    if earlier is None:
        plan.write(folder)
    elif earlier != plan:
        named = {"model": "model", "data": "data", "images": "choice of images", "seed": "seed"}
        differs = [words for field, words in named.items() if getattr(earlier, field) != getattr(plan, field)]
        what = ", ".join(differs) or "version"
        raise RunError(
            f"a stress test with another {what}", where=folder, remedy="choose another -o, or delete that folder"
        )


def _measured(
    name: str, clean: pd.DataFrame, tables: dict[int, pd.DataFrame], threshold: float, seed: int
) -> Corrupted:
    """One corruption at all its strengths."""
    corruption = CORRUPTIONS[name]
    pairs = paired_differences({"clean": clean, **{str(k): table for k, table in tables.items()}}, seed=seed)
    group = clean["group"] if clean["group"].notna().all() else None

    def level(strength: int, table: pd.DataFrame) -> Level:
        flagged = None if "in_distribution" not in table else ~table["in_distribution"].astype(bool)
        return Level.model_validate(
            {
                "strength": strength,
                "amount": corruption.amounts[strength - 1],
                "metrics": _metrics(table, threshold, seed),
                "difference": pairs["clean", str(strength)],
                "agreement": agreement(clean["prediction"], table["prediction"], group, seed=seed),
                "probability_change": float((table["probability"] - clean["probability"]).abs().mean()),
                "referred": share_with_interval(table["decision"] == "refer", group, seed=seed),
                "out_of_distribution": None if flagged is None else share_with_interval(flagged, group, seed=seed),
            }
        )

    levels = [level(strength, table) for strength, table in tables.items()]
    return Corrupted(label=corruption.label, unit=corruption.unit, ordered=corruption.ordered, levels=levels)


def _site(name: str, table: pd.DataFrame, threshold: float, seed: int) -> Site:
    drawn = Replicates(table, seed=seed)
    return Site(name=name, metrics=estimate_measures(drawn, threshold, {row: MEASURES[row] for row in SITE_MEASURES}))


def _metrics(table: pd.DataFrame, threshold: float, seed: int) -> SplitMetrics:
    return with_classes(evaluate_table(table, threshold, seed=seed), table, seed=seed)


def _headline(record: StressRecord) -> str:
    """The clean AUROC and its greatest loss."""
    text = f"AUROC {estimate(record.clean['auroc'])} on {record.data.images:,} clean images"
    changes = [
        (change, f"{entry.label.lower()} at strength {level.strength}")
        for entry in record.corruptions.values()
        for level in entry.levels
        if (change := level.difference["auroc"]).value is not None
    ]
    if not changes:
        return text
    worst, under = min(changes, key=lambda pair: pair[0].value or 0.0)
    return f"{text}; the worst, {under}, changes it by {signed(worst.value)}{interval(worst, ' ')}"
