"""Whether heat maps can be believed: every method measured on synthetic tissue, whose tumour is known to the pixel.

python benchmarks/explanations.py measure -o FOLDER [--run RUN]   trains the default recipe where no run is named
python benchmarks/explanations.py document -o FOLDER              writes docs/explanations.md
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tumortrace import train
from tumortrace.inference.explain import METHODS, measure
from tumortrace.records.files import write_text
from tumortrace.reports.wording import decimals, interval

TRAINED_ON, MEASURED_ON = "synthetic:patches?count=1200&seed=5", "synthetic:patches?count=400&seed=6021"
EPOCHS = 8

HEAD = """# Explanations

`tumortrace explain RUN IMAGE...` draws where in a patch the evidence for the positive class lies, and `--method` how:

| `--method` | is | heat is in | works with |
| --- | --- | --- | --- |
"""

WHAT = {
    "grad-cam": "the last map of features, each channel weighed by the mean of its gradient",
    "grad-cam++": "the same, by its positive gradients, places that are few in their channel more",
    "layer-cam": "the same, each place weighed by its own positive gradient",
    "integrated-gradients": "what each pixel adds on the way from a blank patch; adds up to the difference of logits",
    "occlusion": "how far the logit falls when a window of a sixth of the side is blank",
}

RULES = """
What is explained is the logit that is predicted, before calibration: where the model averages over rotations and
mirrorings, so do the maps (a turned patch has the turned map). Maps of an ensemble by the first three methods are the
mean of its members' maps, each framed by what the member sees; the other two explain the ensemble as one function.
Transformers are explained by the tokens that go into their last block's attention, without those that stand for the
whole image. Heat is zero outside of the crop that the network sees, and pictures show its border. Yellow to red speaks
for the positive class, blue against it; only the last two methods can say so. Hand-made descriptors have no gradients:
occlusion explains them.

`--sheet DATA` draws the surest right and wrong predictions of each class with their heat on one scale, `--measure DATA`
measures whether to believe the heat (synthetic tissue where no DATA is named), into `measures.json` and `measures.csv`
of the run's folder `explanations`; the report shows both. From Python:

```python
>>> from tumortrace.inference.explain import METHODS, heat_map, heat_maps, draw_sheets, measure
>>> list(METHODS)
['grad-cam', 'grad-cam++', 'layer-cam', 'integrated-gradients', 'occlusion']

```
"""

BLANK = """
A blank patch is bright glass for coloured pictures and black for grey ones: there a model should find no tumour.
The mean probability of these patches is {patch},
and of glass {glass}.
The patch's own mean colour, which one could take instead, gets {mean},
and a blurred copy {blurred}: flat violet is what a dense nest of cells looks like from afar.
"""

READING = """
How to read it. *Pointing*: how often the hottest pixel is tumour. *Energy*: the share of the positive heat on tumour;
by chance, both are the tumour's share of the area. *AUC*: the chance that a pixel of tumour is hotter than another.
These are measured within the crop that the network sees, where it shows both. *Insertion*: the mean probability as the
hottest cells of a 16x16 grid come back to a blank patch (high is good); *deletion*: as they go (low is good); *gain*
is over the maps that the same method makes of two other patches, paired by patch, as the shuffled AUC does it (Zhang et
al. 2008): what is the same on every patch, as the bump over the centre, gains nothing. A random order is no fair rival
of deletion: it strews holes over all of the tumour at once, which lowers the probability sooner than a hole in one
place, where any tumour left is enough. The last table has the rank correlation of the heat's strength with that of the
same network after part of its layers, or all, had their weights shuffled, the last ones first (0 also where no heat is
left); with all of them random, the mean over three networks, on 24 of the patches. Heat that keeps .5 of it
with wholly random weights does not depend on them and is not to be believed, whatever the other columns say; where the
interval holds .5, the test is undecided. The two controls explain nothing and show what a measure is worth: a bump over
the centre (patches are labelled by their centre) and an edge detector.
"""


def page(record: dict[str, Any]) -> str:
    """The document."""
    lines = [HEAD.rstrip("\n")]
    for name, method in METHODS.items():
        unit = "logits" if method.unit else "no unit"
        needs = (
            "networks with a map of features" if "cam" in name else "any network" if method.gradients else "any model"
        )
        lines.append(f"| `{name}` | {method.title}, {method.paper}: {WHAT[name]} | {unit} | {needs} |")
    lines += [RULES, "## Whether to believe them\n"]
    lines.append(
        f"""Recipe `tumortrace-fast`, {EPOCHS} epochs on `{TRAINED_ON}`; measured on {record["images"]} patches that it
calls tumour, of {record["groups"]} other slides (`{MEASURED_ON}`).
In brackets {record["intervals"]}.
Synthetic tissue says how the methods compare, not how well a model of yours is explained: measure that on your data.
Research use only, not a medical device.
"""
    )
    chance = record["chance"]
    random = record["random_order"]
    lines += table(
        ("Pointing", "Energy", "AUC"),
        record,
        ("pointing", "energy", "mask_auc"),
        ["by chance", cell(chance["area"]), cell(chance["area"]), ".500"],
    )
    lines += table(
        ("Insertion", "gain", "Deletion", "gain"),
        record,
        ("insertion", "insertion_gain", "deletion", "deletion_gain"),
        ["random order", cell(random["insertion"]), "", cell(random["deletion"]), ""],
    )
    stages = record["methods"]["grad-cam"]["randomised"]
    names = [f"{100 * stage['share']:.0f} % random" for stage in stages]
    lines += [
        "| | " + " | ".join(names) + " | depends on the weights | CPU s per patch |",
        "| --- " * (len(stages) + 3) + "|",
    ]
    for entry in record["methods"].values():
        cells = [cell(stage["rank_correlation"]) for stage in entry["randomised"]]
        verdict = entry["depends_on_weights"] or "—"
        lines.append(f"| {entry['title']} | " + " | ".join(cells) + f" | {verdict} | {entry['seconds']:.3f} |")
    names = {"patch": "the patch", "glass": "glass or air", "mean": "its own mean colour", "blurred": "blurred"}
    lines += [READING, BLANK.format(**{key: cell(record["blank"][name]) for key, name in names.items()})]
    return "\n".join(lines)


def table(heads: tuple[str, ...], record: dict[str, Any], keys: tuple[str, ...], last: list[str]) -> list[str]:
    """A table of measures by method, and what chance gives."""
    lines = ["| | " + " | ".join(heads) + " |", "| --- " * (len(heads) + 1) + "|"]
    for entry in record["methods"].values():
        lines.append(f"| {entry['title']} | " + " | ".join(cell(entry.get(key)) for key in keys) + " |")
    return [*lines, "| " + " | ".join(last) + " |", ""]


def cell(entry: dict[str, Any] | None) -> str:
    """A mean with its interval."""
    return "—" if entry is None else f"{decimals(entry['value'])}{interval(entry, ' ')}"


def main() -> None:
    """Do one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("measure", "document"))
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for the run and the records")
    parser.add_argument("--run", type=Path, help="measure: a run to take instead of training one")
    parser.add_argument("--images", type=int, default=48, help="measure: patches")
    parser.add_argument("--page", type=Path, default=Path("docs/explanations.md"), help="document: the page")
    options = parser.parse_args()
    if options.part == "measure":
        run = options.run or train(
            TRAINED_ON, recipe="tumortrace-fast", epochs=EPOCHS, out=options.out / "runs", seed=0
        )
        measure(run, MEASURED_ON, images=options.images, out=options.out)
    else:
        write_text(options.page, page(json.loads((options.out / "measures.json").read_text("utf-8"))))


if __name__ == "__main__":
    main()
