"""The table of verbs, and the functions of those that do more than one function of the package does.

What stands heavy (torch, pandas) is imported where it is used, so that `tumortrace --help` is quick.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tumortrace
from tumortrace.errors import CohortError, RecipeError, RunError, shown


@dataclass(frozen=True)
class Verb:
    """One row of the table of verbs.

    Attributes:
        function: `module:name` of the function that does the work, imported when it is called.
        resume: Likewise of the function that takes up what was interrupted, given a folder by `--resume`.
        prints: Whether the path that it returns is printed.
        defaults: Values of arguments where the function's own default is another.
    """

    function: str
    resume: str | None = None
    prints: bool = True
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """First line of the function's docstring, read without importing what it stands on."""
        module, _, name = self.function.partition(":")
        place = Path(tumortrace.__path__[0], *module.split(".")[1:])
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        match = re.search(rf'^def {name}\(.*?^    """(.+?)(?:"""|$)', file.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        return match[1] if match else ""


VERBS = {
    "check": Verb("tumortrace.cli.check:check"),
    "compare": Verb("tumortrace.inference.compare:compare"),
    "crossval": Verb("tumortrace.training.crossval:crossval", resume="tumortrace.training.crossval:resume_crossval"),
    "demo": Verb("tumortrace.cli.demo:demo", prints=False),
    "doctor": Verb("tumortrace.cli.verbs:doctor"),
    "embed": Verb("tumortrace.training.embed:embed"),
    "embed-slides": Verb("tumortrace.slides.embed:embed_slides"),
    "ensemble": Verb("tumortrace.training.ensemble:ensemble"),
    "evaluate": Verb("tumortrace.cli.verbs:evaluate"),
    "explain": Verb("tumortrace.cli.verbs:explain"),
    "explore": Verb("tumortrace.cli.verbs:explore"),
    "export": Verb("tumortrace.inference.export:export"),
    "features": Verb("tumortrace.cli.verbs:features", prints=False),
    "models": Verb("tumortrace.cli.verbs:models"),
    "predict": Verb("tumortrace.cli.verbs:predict", defaults={"out": Path("predictions.csv")}),
    "prepare": Verb("tumortrace.cli.verbs:prepare"),
    "pretrain": Verb("tumortrace.training.pretrain:pretrain"),
    "recipes": Verb("tumortrace.cli.verbs:recipes"),
    "report": Verb("tumortrace.reports.report:report"),
    "scan": Verb("tumortrace.slides.batch:scan_slides"),
    "slide-score": Verb("tumortrace.slides.slide_scoring:slide_score"),
    "serve": Verb("tumortrace.app.server:serve"),
    "stress": Verb("tumortrace.inference.stress:stress"),
    "synth": Verb("tumortrace.cli.verbs:synth"),
    "tile": Verb("tumortrace.slides.tile:tile"),
    "train": Verb("tumortrace.cli.verbs:train", resume="tumortrace.cli.verbs:resume"),
    "tune": Verb("tumortrace.training.tune:tune", resume="tumortrace.training.tune:resume_tuning"),
}


def extends(function: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let `**rest` of the decorated function stand for the arguments of `function`, given as `module:name`."""

    def decorated(target: Callable[..., Any]) -> Callable[..., Any]:
        target.extends = function  # type: ignore[attr-defined]
        return target

    return decorated


@extends("tumortrace.training.train:train")
def train(
    *,
    members: int = 1,
    fractions: str | None = None,
    repeats: int = 3,
    distil: Path | None = None,
    devices: int = 1,
    nodes: int = 1,
    workers: int = 1,
    cluster: str | None = None,
    **options: Any,
) -> Path:
    """Train, calibrate and evaluate a classifier; write everything about it into a run folder.

    Args:
        members: Train so many, from different weights on the same splits, and join them in an ensemble.
        fractions: A learning curve instead: shares of the training split to train on, as in `1%,10%,100%`.
        repeats: How often, where `--fractions` is given.
        distil: Run or bundle of a teacher, whose probabilities are learnt beside the labels.
        devices: GPUs of a machine, or processes where there are none, that compute each batch together.
        nodes: Machines that do, each with so many: started by torchrun or srun, or each by itself (docs/training.md).
        workers: Processes among which the models of `--fractions` are divided, each with one thread.
        cluster: Divide them on a Ray cluster instead: `local`, `auto` or HOST:PORT.
    """
    if devices * nodes != 1 and (fractions is not None or members != 1):
        raise RunError("--devices with --fractions or --members", expected="one training", remedy="leave one out")
    if fractions is not None:
        if members != 1 or distil is not None:
            raise RunError(
                "--fractions with --members or --distil", expected="one of them", remedy="leave the others out"
            )
        from tumortrace.training.learning_curve import learning_curve, parse_fractions

        return learning_curve(
            fractions=parse_fractions(fractions), repeats=repeats, workers=workers, cluster=cluster, **options
        )
    _require_no_division(workers, cluster)
    if members != 1:
        from tumortrace.training.ensemble import train_members

        return train_members(members=members, distil=distil, **options)
    from tumortrace.training.train import train

    return train(distil=distil, devices=devices, nodes=nodes, **options)


def _require_no_division(workers: int, cluster: str | None) -> None:
    if workers > 1 or cluster is not None:
        option = "--workers" if cluster is None else "--cluster"
        raise RunError(f"{option} for one training", expected="--fractions beside it", remedy="leave it out")


def resume(folder: Path, data: str | None = None, *, workers: int = 1, cluster: str | None = None) -> Path:
    """Run folder to continue instead of starting a new one, also one that `--members` or `--fractions` made.

    Args:
        folder: The folder.
        data: Where the data are now, if they were moved.
        workers: Of a learning curve, processes among which its models are divided.
        cluster: Divide them on a Ray cluster instead.
    """
    from tumortrace.records.run import RunRecord
    from tumortrace.training import ensemble, learning_curve, train

    verb = RunRecord.read(folder).verb
    if verb == learning_curve.VERB:
        return learning_curve.resume_learning_curve(folder, data, workers=workers, cluster=cluster)
    _require_no_division(workers, cluster)
    return (ensemble.resume_ensemble if verb == ensemble.VERB else train.resume)(folder, data)


def evaluate(
    run: Path | None = None,
    data: str | None = None,
    *,
    predictions: Path | None = None,
    out: Path | None = None,
    subgroups: Sequence[str] = (),
    threshold: float | None = None,
    probability_of: str | None = None,
    resample: bool = False,
    allow: Sequence[str] = (),
    device: str = "auto",
    **reading: Any,
) -> int:
    """Measure a trained model on labelled data that it has not seen, or any model by the table of its predictions.

    Args:
        run: Run folder or bundle.
        data: Any known layout with labels.
        predictions: Instead of run and data: CSV or Parquet with `label`, `probability`, and optionally `id`, `group`,
            `split`, `decision`.
        out: Folder to write; default `evaluations/<name>` in the run folder, or `<name>-evaluation` for predictions.
        subgroups: A column on whose values everything is measured apart.
        threshold: For predictions: call an image positive from this probability on; default .5. A run brings its own.
        probability_of: For predictions: the class whose probability they are, where it is not the positive one.
        resample: Resample images whose um per pixel are known to those of the model's patches, around their centres.
        allow: Name of a finding of `check`, or `resolution-mismatch`, to go on in spite of.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
    """
    if predictions is None:
        if run is None or data is None:
            raise RunError("no run and data", expected="`evaluate RUN DATA` or `evaluate --predictions FILE`")
        if threshold is not None or probability_of is not None:
            raise RunError(
                f"{'--threshold' if threshold is not None else '--probability-of'} for a run",
                expected="the run's own: nothing is chosen on the data that are reported",
                remedy="leave it out, or evaluate the run's predictions.csv with --predictions",
            )
        from tumortrace.inference.evaluate import evaluate
        from tumortrace.records.evaluation import EvaluationRecord

        folder = evaluate(
            run, data, out=out, device=device, subgroups=subgroups, resample=resample, allow=allow, **reading
        )
        print(folder)
        return int(EvaluationRecord.read(folder).data.unreadable > 0)
    if run is not None or data is not None:
        raise RunError("a run and --predictions", expected="one of the two")
    positive = reading.pop("positive", None)
    if reading:
        option = "--" + next(iter(reading)).replace("_", "-")
        raise RunError(f"{option} with --predictions", expected="columns label, group and id in the file itself")
    if resample or allow:
        option = "--resample" if resample else "--allow"
        raise RunError(f"{option} with --predictions", expected="none, as no image is read")
    from tumortrace.inference.evaluate_predictions import evaluate_predictions

    folder = evaluate_predictions(
        predictions,
        out=out,
        threshold=0.5 if threshold is None else threshold,
        positive=positive,
        probability_of=probability_of,
        subgroups=subgroups,
    )
    print(folder)
    return 0


@extends("tumortrace.inference.predict:predict")
def predict(run: Path, data: str, *, out: Path | None = None, **options: Any) -> int:
    """Predict every image of a cohort, or fill in a Kaggle submission; 1 where an image could not be read.

    Args:
        run: Run folder or bundle.
        data: Any known layout, a folder of images or a single image.
        out: CSV to write.
    """
    from tumortrace.inference.predict import predict

    return int("reason" in predict(run, data, out=out, **options))


def explain(
    run: Path,
    images: Sequence[str] = (),
    *,
    methods: Sequence[str] = (),
    of_class: str | None = None,
    sheet: bool = False,
    measure: bool = False,
    count: int | None = None,
    seed: int = 0,
    out: Path | None = None,
    resample: bool = False,
    allow: Sequence[str] = (),
    device: str = "auto",
    **reading: Any,
) -> Path:
    """Draw what the model looked at in each image; with `--sheet` or `--measure`, in a whole data set.

    Args:
        run: Run folder or bundle.
        images: Images to explain; with `--sheet` or `--measure` one data set that the model has not seen, for
            `--measure` synthetic tissue where none is named. For a model of slides, features of slides, whose attention
            is drawn and tested with random weights.
        methods: Such as `grad-cam` (default) or `occlusion`; docs/explanations.md lists them. `--measure` takes all by
            default.
        of_class: Of a model of more than two classes, the one whose evidence is drawn in each image.
        sheet: Draw the most confident right and wrong predictions of each class on contact sheets.
        measure: Measure whether the heat maps can be believed: against masks where the data have some, by deletion
            and insertion, and with random weights.
        count: Images of each kind on a sheet (8), or images to measure (64).
        seed: With `--measure`, of random orders and weights.
        out: Folder to write; default `explanations` in the run folder.
        resample: Resample images whose um per pixel are known to those of the model's patches, around their centres.
        allow: Name of a finding of `check`, or `resolution-mismatch`, to go on in spite of.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
    """
    if sheet and measure:
        raise RunError("--sheet and --measure together", remedy="call explain twice")
    if (sheet or measure) and len(images) != (1 if sheet else min(len(images), 1)):
        raise RunError(f"{len(images)} data sets", expected="one", remedy="name one folder or table of labelled images")
    if sheet and len(methods) > 1:
        raise RunError(f"{len(methods)} methods for a sheet", expected="one", remedy="draw a sheet for each")
    if of_class and (sheet or measure):
        raise RunError("--of-class with a whole data set", expected="images", remedy="leave it out, or name images")
    if not (sheet or measure or images):
        raise RunError("no image to explain", expected="one or more images, or --sheet DATA, or --measure")
    from tumortrace.inference import explain
    from tumortrace.inference.explain.attention import explain_slides, of_slides

    if of_slides(run):
        options = {"--method": methods, "--of-class": of_class, "--sheet": sheet, "--measure": measure}
        options |= {"--resample": resample, **{f"--{name.replace('_', '-')}": value for name, value in reading.items()}}
        if given := [name for name, value in options.items() if value]:
            raise RunError(f"{given[0]} for a model of slides", expected="none", remedy="leave it out")
        return explain_slides(run, images, count=count, seed=seed, out=out, device=device)
    chosen = methods or ("grad-cam",)
    shared: dict[str, Any] = {"out": out, "device": device, "allow": allow, **reading}
    if measure:
        if resample:
            raise RunError("--resample with --measure", expected="images at the model's resolution, as masks have it")
        return explain.measure(run, *images, methods=methods or None, images=count, seed=seed, **shared)
    if sheet:
        return explain.draw_sheets(run, images[0], method=chosen[0], count=count, resample=resample, **shared)
    return explain.explain(run, images, methods=chosen, of_class=of_class, resample=resample, **shared)


@extends("tumortrace.preparation.explore:explore")
def explore(data: str, *, recipe: str = "tumortrace", **options: Any) -> Path:
    """Look at a data set before training on it: one page with figures, and the numbers behind it.

    Args:
        data: Any known layout, or `synthetic:patches`, `synthetic:mri`.
        recipe: Recipe whose augmentation is shown: a shipped recipe's name, or the path of a YAML file.
    """
    from tumortrace.preparation.explore import explore
    from tumortrace.training.recipe import load_recipe

    chosen = load_recipe(recipe)
    steps: dict[str, Any] = {"preprocessing": chosen.preprocessing, "augmentation": chosen.augmentation}
    return explore(data, recipe=chosen.name, **steps, **options)


@extends("tumortrace.preparation.features:features")
def features(data: str, *, descriptors: str | None = None, **options: Any) -> None:
    """Compute texture descriptors of every image and write them as one table.

    Args:
        data: Any known layout.
        descriptors: Names separated by commas, as in `glcm,hog`; default all.
    """
    from tumortrace.preparation.features import features

    names = [name.strip() for name in descriptors.split(",")] if descriptors else None
    features(data, descriptors=names, **options)


def prepare(
    data: str,
    out: Path,
    *,
    recipe: str | None = None,
    crop: int | None = None,
    stain: Literal["none", "macenko", "vahadane", "reinhard"] | None = None,
    equalisation: Literal["none", "histogram", "clahe"] | None = None,
    super_resolution: str | None = None,
    scale: int | None = None,
    size: int | None = None,
    filter: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None,
    before_after: int = 4,
    seed: int = 0,
    device: str = "auto",
    **reading: Any,
) -> Path:
    """Crop, normalise the stain, equalise, super-resolve and resize images once; the result is a data set again.

    A call that was interrupted is taken up where it stopped when it is made again.

    Args:
        data: Any known layout, or `synthetic:patches`, `synthetic:mri`.
        out: Folder to write.
        recipe: Take the steps from a recipe's preprocessing instead of the options below.
        crop: Side of the centre square that is kept, in pixels.
        stain: Stain normalisation to a fixed reference.
        equalisation: Equalisation of lightness.
        super_resolution: `lanczos`, `learn` (a generator, on the training images), or the file of a generator.
        scale: How many times super-resolution enlarges; 4 unless given.
        size: Side to which the result is resized, in pixels.
        filter: Interpolation of that resize; bilinear unless given.
        before_after: Images in the picture before_after.png.
        seed: Seed of a learnt generator, and of the splits it needs where the data have none.
        device: Where a generator computes: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
    """
    from tumortrace.preparation.prepare import prepare

    given = {"crop": crop, "stain": stain, "equalisation": equalisation, "size": size, "filter": filter}
    steps: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    if super_resolution is not None:
        weights = None if super_resolution in ("lanczos", "learn") else super_resolution
        steps["super_resolution"] = {"scale": 4 if scale is None else scale, "weights": weights}
    elif scale is not None:
        raise RecipeError("--scale without --super-resolution", expected="both", remedy="name lanczos, learn or a file")
    prepare(
        data,
        out,
        _preprocessing(recipe, steps),
        learn=super_resolution == "learn",
        before_after=before_after,
        seed=seed,
        device=device,
        **reading,
    )
    return out


def _preprocessing(recipe: str | None, steps: dict[str, object]) -> Any:
    from pydantic import ValidationError

    from tumortrace.images.preprocessing import Preprocessing
    from tumortrace.training.recipe import load_recipe

    if recipe is not None:
        if steps:
            both = "--recipe and " + ", ".join("--" + name.replace("_", "-") for name in steps)
            raise RecipeError(both, expected="one or the other", remedy="leave out --recipe, or the steps")
        return load_recipe(recipe).preprocessing
    if not steps:
        raise RecipeError("no step to take", expected="--recipe NAME, or a step such as --stain macenko")
    try:
        return Preprocessing.model_validate(steps)
    except ValidationError as error:
        first = error.errors()[0]
        where = "--" + "-".join(str(part) for part in first["loc"]).replace("_", "-")
        raise RecipeError(f"{first['msg']} (found {shown(first['input'])})", where=where) from error


def synth(
    kind: Literal["patches", "tissues", "slide", "slides", "mri"], out: Path, *, count: int | None = None, seed: int = 0
) -> None:
    """Generate synthetic tissue: H&E-like patches, a whole slide, slides of patients, or breast MRI slices.

    Args:
        kind: What to generate.
        out: Folder (or .tif file for a slide) to write.
        count: Number of images; patches 2000, slides 40, MRI slices 200.
        seed: Same seed, same bytes.
    """
    from tumortrace.cohorts.synthetic import COUNTS, synthesise
    from tumortrace.records.progress import say

    if kind == "slide" and count is not None:
        raise CohortError("--count for a slide", expected="none, as it is one", remedy="leave --count out")
    say(f"synth: {synthesise(kind, out, count=COUNTS[kind] if count is None else count, seed=seed)}")


def recipes(name: str | None = None, *, changes: Sequence[str] = ()) -> None:
    """List the recipes, or print one with every default spelt out.

    Args:
        name: A recipe's name or path.
        changes: A change to it, as for `train`.
    """
    from tumortrace.training.recipe import load_recipe, recipe_names

    if name is not None:
        print(load_recipe(name, changes).to_yaml(), end="")
        return
    for known in recipe_names():
        print(f"{known:28} {load_recipe(known).description}")


def models() -> None:
    """List the network families that a recipe can name, with their arguments, and the foundation models by name."""
    import inspect

    from tumortrace.models.architecture import ARCHITECTURES, BAG_ARCHITECTURES
    from tumortrace.models.foundation import foundation_models

    for name, builder in [(name, known[name]) for known in (ARCHITECTURES, BAG_ARCHITECTURES) for name in known]:
        arguments = [str(p) for p in inspect.signature(builder).parameters.values() if p.name != "input_size"]
        print(f"{name:16} {(inspect.getdoc(builder) or '').splitlines()[0]}")
        print(f"{'':16} {', '.join(arguments)}")
    print("\nFoundation models, for model.arguments.body of backbone and `embed --body`:")
    for name, row in foundation_models().items():
        access = "access on request" if row.gated else "open"
        print(f"{name:16} {row.hub}, {row.parameters / 1e6:,.0f} M, {row.pooling} {row.width}, {row.licence}, {access}")


def doctor() -> None:
    """Say what this machine can do: devices, precision, libraries, cache."""
    import importlib.util

    import torch

    from tumortrace.models.device import fast_bfloat16, resolve_device, resolve_precision
    from tumortrace.records.provenance import machine, versions
    from tumortrace.records.remote import cache_folder

    device = resolve_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else machine()
    print(f"device      {device} ({name}), {torch.get_num_threads()} threads")
    bfloat16 = "yes" if fast_bfloat16(device) else "no"
    print(f"precision   {resolve_precision('auto', device)}; bfloat16 in hardware: {bfloat16}")
    print(f"cache       {cache_folder()}")
    has_slides = importlib.util.find_spec("openslide") is not None
    print(f"slides      {'OpenSlide' if has_slides else 'none: pip install openslide-python openslide-bin'}")
    for library, version in versions().items():
        print(f"{library:18} {version}")
