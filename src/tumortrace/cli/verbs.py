"""The verbs: each names its arguments and calls the function that does the work, imported only then."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter, validators

from tumortrace import __version__

app = App(
    name="tumortrace",
    help="Tumour classifiers for medical image patches that one can defend. Research use only, not a medical device.",
    version=__version__,
    suppress_keyboard_interrupt=False,  # the door turns it into a line and exit code 1
)

Seed = Annotated[int, Parameter(validator=validators.Number(gte=0))]
Out = Annotated[Path | None, Parameter(name=["--out", "-o"])]


@Parameter(name="*")
@dataclass(frozen=True)
class DataOptions:
    """How to read the data.

    Args:
        positive: Name of the positive class, where the data do not make it plain.
        group_column: Column of a table that names slide or patient.
        group_from_name: Regular expression that finds slide or patient in a file name.
        label_from_name: Regular expression that finds the label in a file name.
        resolution: Micrometres per pixel of the images, where the data do not say.
    """

    positive: str | None = None
    group_column: str | None = None
    group_from_name: str | None = None
    label_from_name: str | None = None
    resolution: float | None = None


NO_OPTIONS = DataOptions()


@app.command
def demo(
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("tumortrace-demo"),
    seed: Seed = 0,
    quick: bool = False,
) -> None:
    """Go through everything on tissue that is generated here, in a few minutes.

    Args:
        out: Folder for the data and the run.
        seed: Seed of tissue, splits and training.
        quick: Fewer images and epochs: under a minute, and a weaker model.
    """
    from tumortrace.cli.demo import demo

    demo(out, seed=seed, quick=quick)


@app.command
def synth(kind: Literal["patches", "slide", "mri"], out: Path, *, count: int | None = None, seed: Seed = 0) -> None:
    """Generate synthetic tissue: H&E-like patches, a whole slide, or breast MRI slices.

    Args:
        kind: What to generate.
        out: Folder (or .tif file for a slide) to write.
        count: Number of images; patches 2000, MRI slices 200.
        seed: Same seed, same bytes.
    """
    from tumortrace.cohorts.synthetic import synthesise
    from tumortrace.runs.progress import say

    counts = {"patches": 2000, "slide": 1, "mri": 200}
    say(f"synth: {synthesise(kind, out, count=count or counts[kind], seed=seed)}")


@app.command
def check(
    data: str,
    *,
    out: Out = None,
    split: Literal["group", "random"] = "group",
    seed: Seed = 0,
    options: DataOptions = NO_OPTIONS,
) -> int:
    """Say what is wrong with a data set, file by file; exit code 1 when there are errors.

    Args:
        data: Any known layout.
        out: Folder for audit.json, audit.html and quarantine.csv; default `check-<name>`.
        split: The splits to look at: by slide or patient, or at random.
        seed: Seed of the splits.
    """
    from tumortrace.cli.check import check

    return check(data, out=out, split=split, seed=seed, **asdict(options))


@app.command
def train(
    data: str | None = None,
    *,
    recipe: str = "tumortrace",
    changes: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    epochs: int | None = None,
    resume: Path | None = None,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("runs"),
    seed: Seed = 0,
    split: Literal["group", "random"] = "group",
    device: str = "auto",
    precision: Literal["auto", "32", "bf16"] = "auto",
    options: DataOptions = NO_OPTIONS,
) -> int:
    """Train, calibrate and evaluate a classifier; write everything about it into a run folder.

    Args:
        data: Any known layout, or `synthetic:patches`, `synthetic:mri`.
        recipe: A shipped recipe's name, or the path of a YAML file.
        changes: A change to the recipe, as in `optimiser.lr=0.01`; may be given several times.
        epochs: Instead of the recipe's number of epochs.
        resume: Run folder to continue instead of starting a new one; takes everything from its record.
        out: Folder in which the run folder is made.
        seed: Seed of splits, weights, order and augmentation.
        split: Keep slides or patients together (`group`), or do not, and say so (`random`).
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        precision: `auto` takes bfloat16 where the hardware has it.
    """
    from tumortrace.errors import RunError

    if (data is None) == (resume is None):
        raise RunError("neither data nor --resume" if data is None else "data and --resume", expected="one of the two")
    from tumortrace.training.train import resume as resume_run
    from tumortrace.training.train import train

    if resume is not None:
        print(resume_run(resume))
        return 0
    assert data is not None
    folder = train(
        data,
        recipe=recipe,
        changes=changes or (),
        epochs=epochs,
        out=out,
        seed=seed,
        split=split,
        device=device,
        precision=precision,
        **asdict(options),
    )
    print(folder)
    return 0


@app.command
def evaluate(run: Path, data: str, *, out: Out = None, device: str = "auto", options: DataOptions = NO_OPTIONS) -> None:
    """Measure a trained model on labelled data that it has not seen.

    Args:
        run: Run folder or bundle.
        data: Any known layout with labels.
        out: Folder to write; default `evaluations/<name>` in the run folder.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
    """
    from tumortrace.inference.evaluate import evaluate

    print(evaluate(run, data, out=out, device=device, **asdict(options)))


@app.command
def predict(
    run: Path,
    data: str,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("predictions.csv"),
    submission: bool = False,
    labels: bool = False,
    device: str = "auto",
    options: DataOptions = NO_OPTIONS,
) -> None:
    """Predict every image of a cohort, or fill in a Kaggle submission.

    Args:
        run: Run folder or bundle.
        data: Any known layout, a folder of images or a single image.
        out: CSV to write.
        submission: Exactly the ids of `sample_submission.csv`, in its order, with columns id and label.
        labels: In a submission, 0 or 1 instead of probabilities.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
    """
    from tumortrace.inference.predict import predict

    predict(run, data, out=out, submission=submission, labels=labels, device=device, **asdict(options))


@app.command
def explain(run: Path, images: list[Path], /, *, out: Out = None, device: str = "auto") -> None:
    """Draw what the model looked at in each image (Grad-CAM).

    Args:
        run: Run folder or bundle.
        images: Images to explain.
        out: Folder to write; default `explanations` in the run folder.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
    """
    from tumortrace.inference.explain import explain

    print(explain(run, images, out=out, device=device))


@app.command
def scan(
    run: Path,
    slides: list[Path],
    /,
    *,
    out: Out = None,
    overlap: float = 0.0,
    resolution: float | None = None,
    device: str = "auto",
) -> None:
    """Run over whole slides: tissue, tiles at the model's resolution, heat map, table of tiles.

    Args:
        run: Run folder or bundle.
        slides: Slides to scan.
        out: Folder to write; default `scans` in the run folder; each slide gets a folder in it.
        overlap: Share of its side by which a tile overlaps the next, from 0 to 0.9.
        resolution: Micrometres per pixel of a slide that does not state it.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
    """
    from tumortrace.runs.progress import say
    from tumortrace.slides.scan import scan

    for slide in slides:
        folder = None if out is None else out / slide.stem
        result = scan(run, slide, out=folder, overlap=overlap, resolution=resolution, device=device)
        for note in result.record["notes"]:
            say(f"note: {note}")
        say(f"scan: {result.summary}")
        print(result.folder)


@app.command
def recipes(
    name: str | None = None, *, changes: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None
) -> None:
    """List the recipes, or print one with every default spelt out.

    Args:
        name: A recipe's name or path.
        changes: A change to it, as for `train`.
    """
    from tumortrace.training.recipe import load_recipe, recipe_names

    if name is not None:
        print(load_recipe(name, changes or ()).to_yaml(), end="")
        return
    for known in recipe_names():
        print(f"{known:24} {load_recipe(known).description}")


@app.command
def models() -> None:
    """List the network families that a recipe can name, with their arguments."""
    import inspect

    from tumortrace.models.architecture import ARCHITECTURES

    for name in ARCHITECTURES:
        builder = ARCHITECTURES[name]
        arguments = [str(p) for p in inspect.signature(builder).parameters.values() if p.name != "input_size"]
        print(f"{name:16} {(inspect.getdoc(builder) or '').splitlines()[0]}")
        print(f"{'':16} {', '.join(arguments)}")


@app.command
def doctor() -> None:
    """Say what this machine can do: devices, precision, libraries, cache."""
    from tumortrace.cli.doctor import doctor

    doctor()
