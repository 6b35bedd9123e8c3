"""Measure super-resolution on real patches, and write docs/super-resolution.md from the records.

    python benchmarks/super_resolution.py learn -o OUT        a generator learnt on PatchCamelyon's training patches
    python benchmarks/super_resolution.py restore -o OUT      PSNR and SSIM on its validation patches, pictures
    python benchmarks/super_resolution.py classify -o OUT     whether a classifier gains by it
    python benchmarks/super_resolution.py document -o OUT     the page, from what the others have written

The patches lie in the folder `pcam` of the one that TUMORTRACE_DATA names. An interrupted `learn` is taken up again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from arms import gain, pcam, rows_of, shown, table, train_arms, verdict
from PIL import Image

from tumortrace.cohorts.store import open_store
from tumortrace.images.super_resolution import SuperResolution, downsample, restoration_quality
from tumortrace.records.files import replacing, write_json, write_text

SCALE = 4
GENERATOR, RESTORATION, CLASSIFIER = "generator.safetensors", "restoration.json", "classifier.json"
RESTORED, CROPS = "restored.png", "centre-crops.png"
SHOWN = 4  # patches in the pictures, spread over the held-out ones
SAME = ("preprocessing.crop=32", "preprocessing.size=64", "preprocessing.filter=lanczos")


def learn(options: argparse.Namespace) -> None:
    """Learn a generator on the training split; a sample of the validation split is measured, and chooses nothing."""
    from tumortrace.preparation.learn_super_resolution import learn_super_resolution

    cohort = pcam()
    images = open_store(cohort).images
    learn_super_resolution(
        images,
        rows_of(cohort, "train", len(cohort)),
        options.out / GENERATOR,
        held_out=rows_of(cohort, "validation", 200),
        scale=SCALE,
        steps=options.steps,
        blocks=options.blocks,
        filters=options.filters,
        device=options.device,
    )


def restore(options: argparse.Namespace) -> None:
    """Reduce held-out patches of 96x96 px to 24x24 and restore them, as the centre crops have no truth at 4x."""
    enlarge = generator(options)
    cohort = pcam()
    images = open_store(cohort).images
    patches = images[rows_of(cohort, "validation", options.patches, images)]
    quality = restoration_quality(enlarge, patches, scale=SCALE)
    write_json(options.out / RESTORATION, {"generator": enlarge.describe(), "quality": quality})
    shown = patches[np.linspace(0, len(patches) - 1, SHOWN).astype(int)]
    small, crops = downsample(shown, SCALE), np.ascontiguousarray(shown[:, 32:64, 32:64])
    bicubic = [Image.fromarray(each).resize((96, 96), Image.Resampling.BICUBIC) for each in small]
    lanczos = SuperResolution(scale=SCALE)
    columns = {"reduced to 24x24": small, "bicubic": bicubic, "Lanczos": lanczos(small)}
    sheet(options.out / RESTORED, columns | {"generator": enlarge(small), "truth, 96x96": shown})
    columns = {"centre 32x32": crops, "Lanczos 128x128": lanczos(crops), "generator 128x128": enlarge(crops)}
    sheet(options.out / CROPS, columns)


def classify(options: argparse.Namespace) -> None:
    """The same recipe on the same centre crops, enlarged to 64x64 by Lanczos or by the generator and then Lanczos."""
    enlarge = generator(options).pinned()
    data = table(options.out / "patches.csv", options.images, options.tested)
    weights = (
        f"preprocessing.super_resolution={{weights: {json.dumps(str(enlarge.weights))}, sha256: {enlarge.sha256}}}"
    )
    arms = {"lanczos": SAME, "generator": (*SAME, weights)}
    runs = train_arms(data, options.recipe, arms, seeds=options.seeds, epochs=options.epochs, out=options.out / "runs")
    record = {"generator": enlarge.describe(), "recipe": options.recipe, "epochs": options.epochs}
    found = gain(runs, "lanczos", "generator")
    write_json(options.out / CLASSIFIER, record | {"trained_on": options.images, **found})


def generator(options: argparse.Namespace) -> SuperResolution:
    """The generator to measure: a published one where `--weights` names it, else the one that `learn` wrote."""
    return SuperResolution(scale=SCALE, weights=str((options.weights or options.out / GENERATOR).resolve()))


def sheet(target: Path, columns: dict[str, Any]) -> None:
    """A picture of patches, one per row, enlarged without smoothing."""
    figure, axes = plt.subplots(SHOWN, len(columns), figsize=(2.2 * len(columns), 2.2 * SHOWN), squeeze=False)
    for column, (title, images) in enumerate(columns.items()):
        axes[0, column].set_title(title, fontsize=10)
        for row, image in enumerate(images):
            axes[row, column].imshow(np.asarray(image), interpolation="nearest")
            axes[row, column].axis("off")
    figure.tight_layout(pad=0.4)
    with replacing(target) as temporary:
        figure.savefig(temporary, format="png", dpi=90)
    plt.close(figure)


HEAD = """# Super-resolution

Generated by `benchmarks/super_resolution.py` from its records. In brackets 95 % intervals by bootstrap of patches;
those of one slide resemble each other, and the slides are not known here, so the intervals are too narrow. Research
use only, not a medical device.
"""

CAUTION = """The centre crops that a classifier sees have no truth at four times their resolution. What is measured
is how patches of 96x96 px are restored that were reduced to 24x24. On a crop, the generator works at a resolution four
times finer than it has learnt from, and may take fine texture for what was of that size in the reduced patches: look in
the second picture for nuclei that are not there. What it adds is likely detail, not detail that was seen. The patches
have been through JPEG (quality 75), and its artefacts count as truth.
"""


def document(options: argparse.Namespace) -> None:
    """Write the page and put the pictures beside it."""
    records = {name: read(options.out / name) for name in ("generator.json", RESTORATION, CLASSIFIER)}
    parts = [HEAD, *learnt(records["generator.json"]), *restored(records[RESTORATION], options)]
    parts += classified(records[CLASSIFIER])
    write_text(options.page, "\n".join(parts))


def learnt(record: dict[str, Any] | None) -> list[str]:
    """How the generator was made."""
    if record is None:
        return []
    settings, images = record["settings"], record["images"]
    last = settings["steps"] - record["pixel_steps"]
    line = f"""ESRGAN's generator (blocks: {settings["blocks"]}, filters: {settings["filters"]},
parameters: {record["parameters"]:,}), learnt from {images["learnt_from"]:,} training patches of PatchCamelyon:
{settings["steps"]:,} steps of {settings["batch_size"]} crops, the last {last:,} with an adversarial loss of weight
{settings["adversarial_weight"]}; {record["seconds"] / 60:.1f} minutes of wall time on {record["device"]}, threads:
{record["threads"]}."""
    before = record["held_out_pixel_loss_alone"]
    if before:
        ends = [shown(each["generator"]["psnr"], 2) for each in (before, record["held_out"])]
        line += f" PSNR on {before['patches']} held-out patches before the adversarial part: {ends[0]} dB;"
        line += f" after it: {ends[1]} dB."
    return ["## The generator\n", line + "\n"]


def restored(record: dict[str, Any] | None, options: argparse.Namespace) -> list[str]:
    """The table of PSNR and SSIM, and the pictures."""
    if record is None:
        return []
    quality, names = record["quality"], {"bicubic": "bicubic", "lanczos": "Lanczos", "generator": "generator"}
    names["gain_over_bicubic"] = "generator minus bicubic, paired"
    lines = [f"## Restoration of {quality['patches']:,} held-out patches, 24x24 to 96x96\n", CAUTION]
    lines += ["| | PSNR (dB) | SSIM |", "| --- | --- | --- |"]
    lines += [
        f"| {names[key]} | {shown(quality[key]['psnr'], 2)} | {shown(quality[key]['ssim'], 3)} |" for key in names
    ]
    made = record["generator"]
    lines.append(f"\nGenerator: {made['architecture']}, SHA-256 `{made['sha256']}`.\n")
    lines.append(f"`{RESTORED}` and `{CROPS}` in the benchmark's folder show both; patches are not ours to pass on.\n")
    return lines


def classified(record: dict[str, Any] | None) -> list[str]:
    """Whether the classifier gains."""
    if record is None:
        return []
    epochs = f", epochs: {record['epochs']}" if record["epochs"] else ""
    lines = [
        "## Does it help the classifier?\n",
        f"""Recipe `{record["recipe"]}`{epochs}; training patches: {record["trained_on"]:,}, a part of
them to choose the epoch and to calibrate. The centre 32x32 px are
enlarged to 64x64: by Lanczos alone, or four times by the generator and then by Lanczos to 64x64. AUROC on
{record["tested_on"]:,} patches of other slides, one column per seed:\n""",
        "| | " + " | ".join(f"seed {seed}" for seed in range(len(record["auroc"]["lanczos"]))) + " | mean |",
        "| --- " * (len(record["auroc"]["lanczos"]) + 2) + "|",
    ]
    for name, values in record["auroc"].items():
        lines.append(f"| {name} | " + " | ".join(f"{each:.3f}" for each in (*values, np.mean(values))) + " |")
    mean, said = shown(record["gain"], 4), verdict(record["gain"])
    lines.append(f"\nMean gain {mean} (paired; seeds and patches drawn with replacement): {said}.\n")
    return lines


def read(file: Path) -> dict[str, Any] | None:
    """A record, or None where that part has not been measured."""
    return json.loads(file.read_text("utf-8")) if file.exists() else None


def main() -> None:
    """Do one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("learn", "restore", "classify", "document"))
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for records and pictures")
    parser.add_argument("--weights", type=Path, help="a published generator to measure instead of the learnt one")
    parser.add_argument("--steps", type=int, default=1500, help="learn: gradient steps")
    parser.add_argument("--blocks", type=int, default=1, help="learn: residual-in-residual dense blocks")
    parser.add_argument("--filters", type=int, default=24, help="learn: channels between the blocks")
    parser.add_argument("--device", default="auto", help="learn: where to compute")
    parser.add_argument("--patches", type=int, default=1000, help="restore: distinct held-out patches")
    parser.add_argument("--recipe", default="cnn-64", help="classify: recipe, whose input is made 64x64")
    parser.add_argument("--images", type=int, default=20000, help="classify: training patches")
    parser.add_argument("--tested", type=int, default=3000, help="classify: patches to test on")
    parser.add_argument("--epochs", type=int, help="classify: instead of the recipe's")
    parser.add_argument("--seeds", type=int, default=3, help="classify: runs of each kind")
    parser.add_argument("--page", type=Path, default=Path("docs/super-resolution.md"), help="document: the page")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    {"learn": learn, "restore": restore, "classify": classify, "document": document}[options.part](options)


if __name__ == "__main__":
    main()
