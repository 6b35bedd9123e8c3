"""A run folder with every record that the reports read, made up but plausible."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from tumortrace.reports.report import write_report

THRESHOLD = 0.41
NAMES = ["auroc", "average_precision", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "precision"]
NAMES += ["npv", "f1", "mcc", "brier", "nll", "ece"]
SPLITS = {"train": 1600, "validation": 300, "calibration": 300, "test": 412}


def write(path: Path, record: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record), "utf-8")


def predictions(random: np.random.Generator, classes: tuple[str, str]) -> pd.DataFrame:
    parts = []
    for split in ("validation", "calibration", "test"):
        count = SPLITS[split]
        label = (random.random(count) < 0.4).astype(int)
        logit = random.normal(np.where(label == 1, 1.4, -1.6), 1.3)
        probability = 1 / (1 + np.exp(-logit))
        prediction = (probability >= THRESHOLD).astype(int)
        sure = np.abs(probability - 0.45) > 0.2
        decision = np.where(sure, np.where(prediction == 1, "positive", "negative"), "refer")
        ids = [f"{split}/patch{row:05}.png" for row in range(count)]
        groups = [f"slide-{split[0]}{row % 9:02}" for row in range(count)]
        columns = {"id": ids, "group": groups, "split": split, "label": label, "probability": probability}
        parts.append(pd.DataFrame(columns | {"prediction": prediction, "decision": decision}))
    return pd.concat(parts, ignore_index=True)


def metrics(random: np.random.Generator, table: pd.DataFrame) -> dict[str, dict]:
    result: dict[str, dict] = {}
    for split, part in table.groupby("split", sort=False):
        values = dict(zip(NAMES, random.uniform(0.7, 0.95, len(NAMES)).round(5), strict=True))
        tn, fp, fn, tp = (int(count) for count in confusion_matrix(part["label"], part["prediction"]).ravel())
        values |= {
            "auroc": roc_auc_score(part["label"], part["probability"]),
            "average_precision": average_precision_score(part["label"], part["probability"]),
            "sensitivity": tp / (tp + fn),
            "specificity": tn / (tn + fp),
            "precision": tp / (tp + fp),
            "brier": 0.1034,
            "nll": 1.0342,
            "ece": 0.0312,
            "mcc": -0.0421,
        }
        entry: dict = {name: {"value": value, "ci95": [value - 0.013, value + 0.011]} for name, value in values.items()}
        entry["npv"] = {"value": None, "ci95": None}
        entry["f1"]["ci95"] = None
        result[split] = entry | {
            "confusion_matrix": {"tn": tn, "fp": fp, "fn": fn, "tp": tp},
            "threshold": THRESHOLD,
            "n": len(part),
            "n_groups": 9,
            "prevalence": float(part["label"].mean()),
            "intervals": "95 % bootstrap clustered by group, 1000 replicates; fewer than 10 groups, so rough",
        }
    return result


def history(random: np.random.Generator, epochs: int = 15) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    wobble = random.normal(0, 0.012, (4, epochs))
    return pd.DataFrame(
        {
            "epoch": epoch,
            "learning_rate": 1e-3 * (1 + np.cos(np.pi * epoch / epochs)) / 2,
            "train_loss": 0.2 + 0.5 * np.exp(-epoch / 4),
            "validation_loss": 0.33 + 0.35 * np.exp(-epoch / 3) + 0.004 * epoch + wobble[0],
            "validation_auroc": 0.95 - 0.2 * np.exp(-epoch / 3) + wobble[1],
            "validation_accuracy": 0.88 - 0.2 * np.exp(-epoch / 3) + wobble[2],
            "validation_sensitivity": 0.84 - 0.2 * np.exp(-epoch / 2) + wobble[3],
            "validation_f1": 0.85 - 0.2 * np.exp(-epoch / 3) + wobble[3],
            "seconds": 41.0,
        }
    )


def run_record(classes: tuple[str, str]) -> dict:
    splits = {name: {"images": n, "positives": round(n * 0.4), "groups": 9} for name, n in SPLITS.items()}
    data = {
        "name": "synthetic:patches",
        "layout": "synthetic",
        "fingerprint": "5f0c" * 16,
        "images": 2612,
        "groups": 36,
        "classes": list(classes),
        "positive_class": classes[1],
        "resolution": 1.0,
        "notes": ["the resolution is that of the generator"],
        "splits": splits,
    }
    return {
        "verb": "train",
        "name": "2026-11-21T141200Z-tumortrace",
        "command": "tumortrace train synthetic:patches --recipe tumortrace --seed 0",
        "arguments": {"data": "synthetic:patches", "recipe": "tumortrace"},
        "tumortrace": "0.1.0",
        "versions": {"python": "3.11.9", "torch": "2.9.0", "numpy": "2.3.1"},
        "device": "cpu",
        "device_name": "Some CPU at 2.4 GHz",
        "precision": "32-true",
        "threads": 2,
        "seed": 0,
        "data": data,
        "leakage": "ruled out: every split has slides of its own, and no picture stands in two",
        "weights": {"origin": "random initialisation, seed 0", "sha256": None},
        "parameters": {"total": 551_202, "trainable": 551_202},
        "status": "finished",
        "started": "2026-11-21T14:12:00Z",
        "finished": "2026-11-21T14:22:35Z",
        "duration_s": 635.2,
        "epochs": 15,
        "best_epoch": 11,
        "notes": [],
    }


def make_run(folder: Path, classes: tuple[str, str] = ("normal", "tumour")) -> Path:
    """Fill `folder` with every record of a finished training."""
    random = np.random.default_rng(7)
    table = predictions(random, classes)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "predictions.csv", index=False)
    table[["id", "group", "split"]].to_csv(folder / "splits.csv", index=False)
    history(random).to_csv(folder / "history.csv", index=False)
    write(folder / "metrics.json", metrics(random, table))
    write(folder / "run.json", run_record(classes))
    (folder / "recipe.yaml").write_text("name: tumortrace\ndescription: a small residual network\nmodel: {name: cnn}\n")
    model = {
        "format": 1,
        "architecture": {"name": "residual", "arguments": {"width": 32}},
        "patch_size": [96, 96],
        "classes": list(classes),
        "positive_class": classes[1],
        "resolution": 1.0,
        "temperature": 1.312,
        "threshold": THRESHOLD,
        "threshold_policy": "f1 on the calibration split",
        "conformal": {"coverage": 0.9, "quantiles": [0.71, 0.66]},
        "training": {"fingerprint": "5f0c" * 16, "prevalence": 0.4, "recipe": "tumortrace"},
        "weights_sha256": "ab12" * 16,
    }
    write(folder / "model" / "model.json", model)
    findings = [
        {"name": "near duplicates", "verdict": "warning", "count": 12, "message": "12 pictures are nearly the same",
         "remedy": "keep one of each", "examples": ["a.png", ["b.png", "c.png"]]},
        {"name": "class balance", "verdict": "note", "count": 2612, "message": "40 % tumour", "remedy": None,
         "examples": []},
    ]  # fmt: skip
    write(
        folder / "audit.json",
        {"cohort": "mine", "images": 2612, "classes": dict(zip(classes, (1567, 1045))), "findings": findings},
    )
    add_explanations(folder, table, random)
    add_scan(folder, random)
    return folder


def picture(path: Path, random: np.random.Generator, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = random.integers(150, 250, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)


def add_explanations(folder: Path, table: pd.DataFrame, random: np.random.Generator) -> None:
    test = table[table["split"] == "test"]
    wrong = test[test["prediction"] != test["label"]].sort_values("probability").tail(2)
    items = []
    for number, row in enumerate(pd.concat([test.head(2), wrong]).to_dict("records")):
        picture(folder / "explanations" / f"{number}.png", random, (300, 110))
        keep = ("id", "label", "probability", "prediction", "decision")
        items.append({key: row[key] for key in keep} | {"figure": f"{number}.png"})
    record = {"method": "Grad-CAM", "layer": "stage4", "target": "tumour", "items": items, "research_use": "only"}
    write(folder / "explanations" / "explanations.json", record)


def add_scan(folder: Path, random: np.random.Generator) -> None:
    picture(folder / "scans" / "slide-1" / "heatmap.png", random, (600, 400))
    record = {
        "slide": "slide-1.svs",
        "width": 10_000,
        "height": 5_000,
        "resolution": 0.5,
        "tiles": 400,
        "positive_tiles": 37,
        "positive_share": 0.0925,
        "referred_tiles": 21,
        "max_probability": 0.987,
        "score": {"value": 0.9443, "ci95": None, "definition": "mean of some tiles", "interval": "none: all was read"},
        "tumour": {
            "share": {"value": 0.1234, "range": [0.0912, 0.1789]},
            "mm2": {"value": 1.52, "range": [1.1, 2.2]},
            "definition": "tissue in positive tiles",
        },
        "tissue_mm2": 12.34,
        "threshold": THRESHOLD,
        "seconds": 12.0,
        "notes": ["resampled from .5 to 1 µm per pixel"],
        "files": {"heatmap": "heatmap.png", "tiles": "tiles.csv"},
    }
    write(folder / "scans" / "slide-1" / "scan.json", record)


@pytest.fixture(scope="session")
def reported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with its figures and its report."""
    copy = shutil.copytree(run, tmp_path_factory.mktemp("reported") / run.name)
    write_report(copy)
    return copy


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests that change it work on a copy."""
    return make_run(tmp_path_factory.mktemp("runs") / "2026-11-21T141200Z-tumortrace")
