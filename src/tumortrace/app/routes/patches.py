"""Pictures that the pages show: an upload as the model takes it, and generated examples to try."""

from __future__ import annotations

import asyncio
import re
from functools import cache

from fastapi import APIRouter, UploadFile

from tumortrace.app.pictures import Png, as_png
from tumortrace.app.problems import FORM, UPLOAD, Problem, documented
from tumortrace.app.routes.predict import ModelName
from tumortrace.app.service import TheService
from tumortrace.cohorts.synthetic.patches import draw_patch, slide_stain
from tumortrace.cohorts.synthetic.stain import SCANNERS

router = APIRouter(prefix="/api", tags=["patches"])

EXAMPLES = 6
_NAME = re.compile(r"example-([1-9])\.png")


@router.post("/patch", response_class=Png, responses=UPLOAD, dependencies=FORM)
async def patch(service: TheService, file: UploadFile, model: ModelName = None) -> Png:
    """An upload as PNG, decoded and resized as the model takes it; browsers show neither TIFF nor DICOM."""
    return Png(as_png(await service.patch(file, service.catalogue.get(model))))


@router.get("/examples")
async def examples() -> list[str]:
    """Names of generated patches to try; none is of a patient."""
    return [f"example-{number}.png" for number in range(1, EXAMPLES + 1)]


@router.get("/examples/{name}", response_class=Png, responses=documented(404))
async def example(name: str) -> Png:
    """A generated patch."""
    match = _NAME.fullmatch(name)
    if match is None or int(match[1]) > EXAMPLES:
        raise Problem(404, "no such example", "choose one of /api/examples")
    return Png(await asyncio.to_thread(_example, int(match[1])))


@cache
def _example(number: int) -> bytes:
    """Half of them hold tumour in their centre; from several slides and scanners."""
    stain = slide_stain(f"example-{number}", SCANNERS[number % len(SCANNERS)])
    return as_png(draw_patch(number, 77, number % 2 == 1, stain)[0])
