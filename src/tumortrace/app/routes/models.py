"""What is served: the models, what they call, how well they were measured, and what is on record of them."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from tumortrace.app.catalogue import Served
from tumortrace.app.on_record import OnRecord, on_record
from tumortrace.app.problems import documented
from tumortrace.app.routes.patches import ModelName
from tumortrace.app.service import TheService
from tumortrace.inference.explain import METHODS
from tumortrace.records.metrics import Metrics
from tumortrace.records.provenance import RESEARCH_USE
from tumortrace.records.record import Open

router = APIRouter(prefix="/api", tags=["models"])


Pair = Annotated[list[str], Field(min_length=2, max_length=2)]
Size = Annotated[list[int], Field(min_length=2, max_length=2)]


class Name(BaseModel):
    """One model by its name."""

    name: str = Field(examples=["2026-11-21T141200Z-tumortrace"])
    default: bool
    positive_class: str = Field(examples=["tumour"])


class Description(BaseModel):
    """A model, as a program that calls it needs to know it.

    Attributes:
        name: By which callers choose it.
        classes: Names of the negative and of the positive class.
        positive_class: The class whose probability is answered.
        patch_size: Height and width in pixels; other images are resized to it.
        resolution: Micrometres per pixel of the training patches, or null.
        threshold: A probability of at least this is called positive.
        threshold_policy: How the threshold was chosen.
        coverage: Share of each class whose decision is meant to hold, behind "refer"; null where nothing is referred.
        methods: In which it can be asked to explain.
        architecture: Family of networks.
        backend: What computes: `torch`, `onnx` or `openvino`; the answers are the same to 1e-5.
        preprocessing: What is done to a patch before the network sees it.
        recipe: With which it was trained.
        training_fingerprint: Of the data that it was trained on.
        prevalence: Share of positives among these.
        weights_sha256: SHA-256 of its weights.
        metrics: Per split every metric with its value and 95 % interval, as in `metrics.json`; null without a run.
        limits: What one request may carry.
        research_use: That it is not for diagnosis.
    """

    name: str
    classes: Pair
    positive_class: str
    patch_size: Size
    resolution: float | None
    threshold: float
    threshold_policy: str
    coverage: float | None
    methods: list[str]
    architecture: str
    backend: str
    preprocessing: Open
    recipe: str
    training_fingerprint: str
    prevalence: float
    weights_sha256: str
    metrics: Open | None
    limits: dict[str, int]
    research_use: str = RESEARCH_USE


@router.get("/models")
async def models(service: TheService) -> list[Name]:
    """List the models, the default first."""
    return [
        Name(name=served.name, default=served is service.catalogue.get(), positive_class=served.model.info.classes[1])
        for served in service.catalogue.all
    ]


@router.get("/model", responses=documented(404))
async def model(service: TheService, model: ModelName = None) -> Description:
    """Describe one model: classes, threshold, preprocessing, training data, metrics with intervals."""
    limits = service.settings.limits
    carried = {"files": limits.files, "body_bytes": limits.body_bytes, "pixels": limits.pixels, "pages": limits.pages}
    return await asyncio.to_thread(_describe, service.catalogue.get(model), carried)


def _describe(served: Served, limits: dict[str, int]) -> Description:
    info, metrics = served.model.info, Metrics.find(served.folder)
    return Description(
        name=served.name,
        classes=list(info.classes),
        positive_class=info.positive_class,
        patch_size=list(info.patch_size),
        resolution=info.resolution,
        threshold=info.threshold,
        threshold_policy=info.threshold_policy,
        coverage=None if info.conformal is None else info.conformal.coverage,
        methods=list(served.methods),
        architecture=info.architecture.name,
        backend=served.model.runtime.name if served.model.runtime else "torch",
        preprocessing=info.preprocessing.model_dump(mode="json", exclude_none=True, exclude={"super_resolution"}),
        recipe=info.training.recipe,
        training_fingerprint=info.training.fingerprint,
        prevalence=info.training.prevalence,
        weights_sha256=info.weights_sha256,
        metrics=None if metrics is None else metrics.model_dump(mode="json", exclude_unset=True),
        limits=limits,
    )


@router.get("/records/{name}", responses=documented(404))
async def records(service: TheService, name: str) -> OnRecord:
    """Everything on record of a model: metrics with intervals, calibration curve, decision rule, data, model card."""
    served = service.catalogue.get(name)
    record = await asyncio.to_thread(on_record, served.name, served.folder, served.model)
    return record | {
        "methods": [{"name": key, "title": METHODS[key].title, "signed": METHODS[key].signed} for key in served.methods]
    }
