"""Uploaded patches: what a model says of them, what it looked at, what it saw; and examples to try."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import pandas as pd
from fastapi import APIRouter, Depends, Query, UploadFile
from pydantic import BaseModel, Field

from tumortrace.app.catalogue import components_of
from tumortrace.app.pictures import Png, as_png, examples, heat_png, png, seen_png
from tumortrace.app.problems import FORM, UPLOAD, Problem, documented
from tumortrace.app.service import Asked, TheService, fit_to_show
from tumortrace.evaluation.drift import SAMPLE
from tumortrace.inference.explain import METHODS
from tumortrace.records.record import Open
from tumortrace.reports.wording import called

router = APIRouter(prefix="/api", tags=["patches"])

Said = Annotated[Asked, Depends()]
ModelName = Annotated[str | None, Query(description="Name of a model as in /api/models; default the first")]


class Classes(BaseModel):
    """What a model that parts more than two classes says of them.

    Attributes:
        predicted: The likeliest.
        set: Those that cannot be ruled out; null where the model makes no prediction sets.
        probabilities: Calibrated, by class; those of the positive ones add up to `probability`.
    """

    predicted: str
    set: list[str] | None
    probabilities: dict[str, float]


class Prediction(BaseModel):
    """What a model says of one image.

    Attributes:
        name: Of the uploaded file.
        label: Name of the class that is called at the model's threshold.
        probability: Calibrated, of the positive class.
        decision: Whether to rely on the call.
        in_distribution: Whether the image resembles the training images; null where the model cannot say.
        model: That answered.
        ood_score: How unlike the training images it is, larger being stranger; null where the model cannot say.
        notes: What decoding showed and is worth knowing, as `tumortrace check` says it.
        classes: Where the model parts more than two; else null.
        components: Where they are asked for: what `/api/drift` takes; null where the model keeps no reference.
    """

    name: str = Field(examples=["patch.png"])
    label: str = Field(examples=["tumour"])
    probability: float = Field(ge=0, le=1, examples=[0.973])
    decision: Literal["positive", "negative", "refer"]
    in_distribution: bool | None
    model: str = Field(examples=["2026-11-21T141200Z-tumortrace"])
    ood_score: float | None
    notes: list[str] = Field(default=[], examples=[["1 image has to shrink by more than 2 to 96x96 pixels"]])
    classes: Classes | None = None
    components: str | None = None


WithComponents = Annotated[bool, Query(description="Answer with what `/api/drift` takes, to judge several as a whole")]


@router.post("/predict", responses=UPLOAD, dependencies=FORM)
async def predict(
    service: TheService,
    file: list[UploadFile],
    asked: Said,
    model: ModelName = None,
    components: WithComponents = False,
) -> list[Prediction]:
    """Predict one or many images, as `tumortrace predict` does; answers in their order."""
    served = service.catalogue.get(model)
    images, notes = await service.patches(file, served, asked)
    answers = zip(file, await served.batcher.submit(images), notes, strict=True)
    left_out = {} if components else {"components": None}
    return [
        Prediction.model_validate({"name": fit_to_show(upload.filename), "notes": told, **said, **left_out})
        for upload, said, told in answers
    ]


class Whole(BaseModel):
    """A set of images to judge as a whole.

    Attributes:
        components: Of each image, from `/api/predict?components=true`; of more than 1,000 images so many, at random.
        images: Of the whole set, where those are fewer.
        groups: Slide or patient of each; null where not known, which is taken for one slide.
    """

    components: list[str] = Field(max_length=SAMPLE, min_length=1)
    images: int | None = Field(default=None, ge=1)
    groups: list[str] | None = None


class Told(BaseModel):
    """How far it lies from the training images.

    Attributes:
        line: In a sentence.
        verdict: `further` than 19 of 20 slides or patients of the training data, `among` them, or null where that
            cannot be said: too few images, or too few slides or patients known.
        drift: As `evaluate` records it; null where the model keeps no reference.
    """

    line: str
    verdict: Literal["further", "among"] | None
    drift: Open | None


@router.post("/drift", responses=documented(404, 422))
def drift(service: TheService, whole: Whole, model: ModelName = None) -> Told:
    """Say how far several images as a whole lie from the training images, as `tumortrace predict` does."""
    judge = service.catalogue.get(model).model
    if judge.drift is None:
        return Told(line=judge.judge_set(None)[1], verdict=None, drift=None)
    groups, count = whole.groups, len(whole.components)
    if groups is not None and len(groups) != count:
        raise Problem(422, f"{len(groups)} groups of {count} images", "name one of each, or none")
    rows = components_of(whole.components, judge.drift.components.shape[1])
    known = None if groups is None else pd.Series(groups, dtype=object)
    found, line = judge.judge_set(rows, known, max(whole.images or count, count))
    assert found is not None  # the model has a reference
    return Told(line=line, verdict=found.verdict, drift=found.as_json())


MethodName = Annotated[
    str, Query(description="How to explain; see /api/model for the methods", json_schema_extra={"enum": [*METHODS]})
]
Layer = Annotated[
    Literal["overlay", "heat"],
    Query(description="`overlay`: the heat over the patch; `heat`: the heat alone, transparent where there is none"),
]


OfClass = Annotated[
    str | None, Query(description="Of a model of more than two classes, the one whose evidence is drawn")
]


@router.post("/explain", response_class=Png, responses=UPLOAD, dependencies=FORM)
async def explain(
    service: TheService,
    file: UploadFile,
    asked: Said,
    method: MethodName = "grad-cam",
    layer: Layer = "overlay",
    of_class: OfClass = None,
    model: ModelName = None,
) -> Png:
    """Draw where in a patch the evidence lies, as a PNG of the model's patch size.

    Yellow to red speaks for the positive class, or the one that is asked for, blue against it.
    """
    served = service.catalogue.get(model)
    image = (await service.patch(file, served, asked)).pixels
    over = layer == "overlay"
    explained = served.model if of_class is None else served.model.of_class(of_class)
    return Png(await served.batcher.call(lambda: heat_png(explained, image, method, over_patch=over)))


@router.post("/seen", response_class=Png, responses=UPLOAD, dependencies=FORM)
async def seen(service: TheService, file: UploadFile, asked: Said, model: ModelName = None) -> Png:
    """Draw what the network takes in of a patch: cropped, stain-normalised and resized as its preprocessing says."""
    served = service.catalogue.get(model)
    image = (await service.patch(file, served, asked)).pixels
    return Png(await served.batcher.call(lambda: seen_png(served.model, image)))


class Example(BaseModel):
    """A picture to try.

    Attributes:
        name: Under which it is asked for.
        source: `test split` of the run, `evaluation NAME` of it, or `generated`: then it is of no patient.
        truth: Class in the data; null for a generated one.
        called: What the model called it when the run was made; null for a generated one.
    """

    name: str
    source: str
    truth: str | None
    called: str | None


@router.post("/patch", response_class=Png, responses=UPLOAD, dependencies=FORM)
async def patch(service: TheService, file: UploadFile, asked: Said, model: ModelName = None) -> Png:
    """An upload as PNG, decoded and resized as the model takes it; browsers show neither TIFF nor DICOM."""
    return Png(as_png((await service.patch(file, service.catalogue.get(model), asked)).pixels))


@router.get("/examples", responses=documented(404))
async def list_examples(service: TheService, model: ModelName = None) -> list[Example]:
    """List patches to try: right and wrong calls of the run's test split, generated ones where it keeps none."""
    served = service.catalogue.get(model)
    classes = [called(name) for name in served.model.info.classes]
    return [
        Example(
            name=patch.name,
            source=patch.source,
            truth=None if patch.truth is None else classes[patch.truth],
            called=None if patch.called is None else classes[patch.called],
        )
        for patch in await asyncio.to_thread(examples, served.folder)
    ]


@router.get("/examples/{name}", response_class=Png, responses=documented(404))
async def example(service: TheService, name: str, model: ModelName = None) -> Png:
    """A patch to try."""
    served = service.catalogue.get(model)
    for patch in await asyncio.to_thread(examples, served.folder):
        if patch.name == name:
            try:
                return Png(await asyncio.to_thread(png, patch))
            except OSError:
                break
    raise Problem(404, "no such example", "choose one of /api/examples")
