"""The verb `stress`: what a trained model says of images that have been through a worse laboratory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd

from tumortrace.cohorts.cohort import Cohort, ReadingOptions
from tumortrace.errors import DataError, RunError
from tumortrace.evaluation.comparisons import agreement, paired_differences
from tumortrace.evaluation.intervals import evaluate_table, share_with_interval
from tumortrace.images.corruptions import CORRUPTIONS, PROCEDURE, corrupt, find, fits
from tumortrace.inference.evaluate import Unseen, open_unseen
from tumortrace.models.bundle import Model, find_bundle, load_model
from tumortrace.records.command import command_line
from tumortrace.records.files import write_csv, write_json
from tumortrace.records.output import require_folder
from tumortrace.records.progress import say, track
from tumortrace.records.provenance import RESEARCH_USE, versions
from tumortrace.records.run import now
from tumortrace.reports.records import read_json, read_table
from tumortrace.reports.report import renew_report
from tumortrace.reports.stress import draw_contact_sheet, write_stress_report
from tumortrace.reports.wording import decimals, interval

CHUNK = 128  # images corrupted at a time
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
    out: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
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
        out: Folder to write; default `stress` in the run folder.
        seed: Of the choice of images, the corruptions' draws and the intervals.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        **reading: How the data are read: options of `open_cohort`.

    Returns:
        The folder, with `stress.json`, `stress.html`, `figures/`, and the predictions behind them in `predictions/`.

    Raises:
        CohortError: All labelled images were trained or calibrated on, or the class names differ.
        DataError: There is no corruption of a name, or fewer than one image is asked for.
        RunError: The folder holds a stress test of another model, other images or another seed.
    """
    names = [name for name in CORRUPTIONS if name in {*map(_known, corruptions)} or not corruptions]
    if images is not None and images < 1:
        raise DataError(f"--images {images}", expected="1 or more", remedy="leave it out for 500")
    model = load_model(run, device=device)
    bundle = find_bundle(run)
    unseen = open_unseen(model, bundle, data, **reading)
    chosen = _Chosen(model, unseen, _draw(unseen.rows, images, seed), seed)
    folder = Path(out) if out is not None else bundle.parent / "stress"
    _begin(folder, chosen)
    record: dict[str, Any] = {
        "verb": "stress",
        "command": command_line(
            "stress",
            run,
            None if isinstance(data, Cohort) else data,
            corruption=corruptions,
            **reading,
            images=len(chosen.rows),
            seed=seed,
        ),
        "seed": seed,
    }
    levels = [(name, k) for name in names for k in CORRUPTIONS[name].strengths if fits(name, k, unseen.store.size)]
    try:
        clean = chosen.predicted(folder, "clean", 0)
        for name, strength in track(levels, "stressing"):
            chosen.predicted(folder, name, strength)
    except KeyboardInterrupt:
        remedy = "give the same command again to go on"
        raise RunError("interrupted; what is finished is kept", where=folder, remedy=remedy) from None
    record |= chosen.about()
    record["clean"] = evaluate_table(clean, model.info.threshold, seed=seed)
    record["corruptions"] = {}
    for name in track(names, "measuring"):
        tables = {k: chosen.predicted(folder, name, k) for n, k in levels if n == name}
        record["corruptions"][name] = _measured(name, clean, tables, model.info.threshold, seed)
    record |= {"method": METHOD, "versions": versions(), "finished": now(), "research_use": RESEARCH_USE}
    write_json(folder / "stress.json", record)
    draw_contact_sheet(folder, unseen.store.images[chosen.rows[0]], chosen.ids[0], names, seed)
    report = write_stress_report(folder)
    for line in record["notes"]:
        say(f"note: {line}")
    say(f"stress: {_headline(record)}; {report}. {RESEARCH_USE}")
    renew_report(bundle.parent, folder)
    return folder


@dataclass(frozen=True)
class _Chosen:
    """The model, and the images that it is asked about."""

    model: Model
    unseen: Unseen
    rows: np.ndarray
    seed: int

    @property
    def ids(self) -> list[str]:
        return list(self.unseen.cohort.table["id"].iloc[self.rows])

    def predicted(self, folder: Path, name: str, strength: int) -> pd.DataFrame:
        """The predictions at one strength, read where they are finished and else made."""
        file = folder / "predictions" / (f"{name}-{strength}.csv" if strength else f"{name}.csv")
        if not file.is_file():
            write_csv(file, self._predict(name, strength))
        return read_table(file)

    def _predict(self, name: str, strength: int) -> pd.DataFrame:
        ids, said = self.ids, []
        for start in range(0, len(ids), CHUNK):
            part = self.unseen.store.images[self.rows[start : start + CHUNK]]
            if strength:
                part = corrupt(part, ids[start : start + CHUNK], name, strength, seed=self.seed)
            said.append(self.model.assess(part))
        chosen = self.unseen.cohort.table.iloc[self.rows]
        columns: dict[str, Any] = {"id": ids, "group": chosen["group"].to_numpy(), "label": chosen["label"].array}
        for field in ("probability", "prediction", "decision", "ood_score", "in_distribution"):
            if getattr(said[0], field) is not None:
                columns[field] = np.concatenate([getattr(one, field) for one in said])
        return pd.DataFrame(columns)

    def plan(self) -> dict[str, Any]:
        """All that predictions depend on besides corruption and strength."""
        ids = hashlib.sha256("\n".join(self.ids).encode()).hexdigest()
        return {
            "procedure": PROCEDURE,
            "model": self.model.info.model_dump_json(),
            "data": self.unseen.cohort.fingerprint,
            "images": ids,
            "seed": self.seed,
        }

    def about(self) -> dict[str, Any]:
        """What stress.json says of model and data."""
        cohort, info, notes = self.unseen.cohort, self.model.info, list(self.unseen.notes)
        drawn = len(self.rows) < len(self.unseen.rows)
        if drawn:
            notes.append(f"{len(self.rows):,} of {len(self.unseen.rows):,} images were drawn at random")
        if len(set(self.unseen.store.size)) > 1:
            notes.append("the images are oblong, so that quarter turns are left out")
        if info.symmetries:
            notes.append("the model averages the eight rotations and mirrorings, so that these change nothing")
        group = cohort.table["group"].iloc[self.rows]
        return {
            "model": {"name": info.name, "weights_sha256": info.weights_sha256, "symmetries": info.symmetries},
            "data": {
                "name": cohort.name,
                "layout": cohort.layout,
                "fingerprint": cohort.fingerprint,
                "split": self.unseen.split,
                "images": len(self.rows),
                "groups": int(group.nunique()) if group.notna().all() else None,
            },
            "classes": list(info.classes),
            "notes": notes,
        }


def _known(name: str) -> str:
    find(name)
    return name


def _draw(rows: np.ndarray, images: int | None, seed: int) -> np.ndarray:
    if images is None or images >= len(rows):
        return rows
    return np.sort(np.random.default_rng(seed).permutation(rows)[:images])


def _begin(folder: Path, chosen: _Chosen) -> None:
    """Refuse a folder whose predictions are of something else; those that are of the same are gone on with."""
    require_folder(folder)
    plan = chosen.plan()
    found = read_json(folder / "plan.json")
    if found and found != plan:
        differs = {"model": "model", "data": "data", "images": "choice of images", "seed": "seed"}
        what = ", ".join(said for key, said in differs.items() if found.get(key) != plan[key]) or "version"
        raise RunError(
            f"a stress test with another {what}", where=folder, remedy="choose another -o, or delete that folder"
        )
    if not found:
        write_json(folder / "plan.json", plan)


def _measured(
    name: str, clean: pd.DataFrame, tables: dict[int, pd.DataFrame], threshold: float, seed: int
) -> dict[str, Any]:
    """One corruption's entry in stress.json."""
    corruption = CORRUPTIONS[name]
    pairs = paired_differences({"clean": clean, **{str(k): table for k, table in tables.items()}}, seed=seed)
    group = clean["group"] if clean["group"].notna().all() else None
    levels = []
    for strength, table in tables.items():
        flagged = None if "in_distribution" not in table else table["in_distribution"].astype(bool)
        levels.append(
            {
                "strength": strength,
                "amount": corruption.amounts[strength - 1],
                "metrics": evaluate_table(table, threshold, seed=seed),
                "difference": pairs["clean", str(strength)],
                "agreement": agreement(clean["prediction"], table["prediction"], group, seed=seed),
                "probability_change": float((table["probability"] - clean["probability"]).abs().mean()),
                "referred": share_with_interval(table["decision"] == "refer", group, seed=seed),
                "out_of_distribution": None if flagged is None else share_with_interval(~flagged, group, seed=seed),
            }
        )
    return {"label": corruption.label, "unit": corruption.unit, "ordered": corruption.ordered, "levels": levels}


def _headline(record: dict[str, Any]) -> str:
    """The clean AUROC and the greatest loss."""
    auroc = record["clean"]["auroc"]
    text = f"AUROC {decimals(auroc['value'])}{interval(auroc, ' ')} on {record['data']['images']:,} clean images"
    losses = [
        (level["difference"]["auroc"]["value"], entry["label"], level["strength"], level["difference"]["auroc"])
        for entry in record["corruptions"].values()
        for level in entry["levels"]
        if level["difference"]["auroc"]["value"] is not None
    ]
    if not losses:
        return text
    value, label, strength, entry = min(losses, key=lambda loss: loss[0])
    return f"{text}; the worst change, {label.lower()} at strength {strength}: {decimals(value)}{interval(entry, ' ')}"
