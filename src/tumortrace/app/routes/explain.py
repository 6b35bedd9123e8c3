"""What a model looked at in an uploaded patch, and what it saw of it."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, UploadFile

from tumortrace.app.pictures import Png, heat_png, seen_png
from tumortrace.app.problems import FORM, UPLOAD
from tumortrace.app.routes.predict import ModelName
from tumortrace.app.service import TheService
from tumortrace.inference.explain import METHODS

router = APIRouter(prefix="/api", tags=["patches"])

MethodName = Annotated[
    str, Query(description="How to explain; see /api/model for the methods", json_schema_extra={"enum": [*METHODS]})
]
Layer = Annotated[
    Literal["overlay", "heat"],
    Query(description="`overlay`: the heat over the patch; `heat`: the heat alone, transparent where there is none"),
]


@router.post("/explain", response_class=Png, responses=UPLOAD, dependencies=FORM)
async def explain(
    service: TheService,
    file: UploadFile,
    method: MethodName = "grad-cam",
    layer: Layer = "overlay",
    model: ModelName = None,
) -> Png:
    """Draw where in a patch the evidence lies, as a PNG of the model's patch size.

    Yellow to red speaks for the positive class, blue against it.
    """
    served = service.catalogue.get(model)
    image = await service.patch(file, served)
    over = layer == "overlay"
    return Png(await served.batcher.call(lambda: heat_png(served.model, image, method, over_patch=over)))


@router.post("/seen", response_class=Png, responses=UPLOAD, dependencies=FORM)
async def seen(service: TheService, file: UploadFile, model: ModelName = None) -> Png:
    """Draw what the network takes in of a patch: cropped, stain-normalised and resized as its preprocessing says."""
    served = service.catalogue.get(model)
    image = await service.patch(file, served)
    return Png(await served.batcher.call(lambda: seen_png(served.model, image)))
