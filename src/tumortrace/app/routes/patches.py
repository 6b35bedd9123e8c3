"""Pictures that the pages show: an upload as the model takes it, and examples to try."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, UploadFile
from pydantic import BaseModel

from tumortrace.app.examples import examples, png
from tumortrace.app.pictures import Png, as_png
from tumortrace.app.problems import FORM, UPLOAD, Problem, documented
from tumortrace.app.routes.predict import ModelName
from tumortrace.app.service import TheService
from tumortrace.reports.records import called

router = APIRouter(prefix="/api", tags=["patches"])


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
async def patch(service: TheService, file: UploadFile, model: ModelName = None) -> Png:
    """An upload as PNG, decoded and resized as the model takes it; browsers show neither TIFF nor DICOM."""
    return Png(as_png(await service.patch(file, service.catalogue.get(model))))


@router.get("/examples", responses=documented(404))
async def list_examples(service: TheService, model: ModelName = None) -> list[Example]:
    """List patches to try: right and wrong calls of the run's test split, generated ones where it keeps none."""
    served = service.catalogue.get(model)
    classes = [called(name) for name in served.model.info.classes]
    return [
        Example(
            name=each.name,
            source=each.source,
            truth=None if each.truth is None else classes[each.truth],
            called=None if each.called is None else classes[each.called],
        )
        for each in await asyncio.to_thread(examples, served.folder)
    ]


@router.get("/examples/{name}", response_class=Png, responses=documented(404))
async def example(service: TheService, name: str, model: ModelName = None) -> Png:
    """A patch to try."""
    served = service.catalogue.get(model)
    for each in await asyncio.to_thread(examples, served.folder):
        if each.name == name:
            try:
                return Png(await asyncio.to_thread(png, each))
            except OSError:
                break
    raise Problem(404, "no such example", "choose one of /api/examples")
