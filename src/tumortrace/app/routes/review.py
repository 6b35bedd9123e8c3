"""The review queue over HTTP; see `tumortrace.app.review`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Query
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from tumortrace.app.pictures import Png, as_png, heat_png
from tumortrace.app.problems import RETRY_SECONDS, Problem, documented
from tumortrace.app.processes import Message
from tumortrace.app.review import Review
from tumortrace.app.review_queue import Item
from tumortrace.app.service import Service, TheService
from tumortrace.models.bundle import Assessment
from tumortrace.records.tables import CORRECTIONS

router = APIRouter(prefix="/api/review", tags=["review"])


class Next(BaseModel):
    """Who asks for patches, and which not to give."""

    reader: str = Field("", max_length=64, description="Tells one reviewer's browser from another's")
    without: list[str] = Field([], max_length=20_000, description="Keys to leave out, such as those skipped")
    limit: int = Field(3, ge=1, le=50)


class Label(BaseModel):
    """A label for a patch."""

    label: str = Field(max_length=200, examples=["tumour"], description="One of the `classes`")
    expected: str | None = Field("", max_length=200, description="The label believed to stand; blank for none")
    reviewer: str = Field("", max_length=200, description="Who gives it")


async def start(service: Service) -> None:
    """Open the data and predict, in the background, through the first model's own thread."""
    settings = service.settings
    if settings.review is None:
        return
    served, loop = service.catalogue.get(), asyncio.get_running_loop()

    async def patiently(images: np.ndarray, rows: np.ndarray) -> Assessment:
        while True:
            try:
                return await served.batcher.call(lambda: served.model.assess(images, rows))
            except Problem:  # busy: those who wait for an answer go first
                await asyncio.sleep(RETRY_SECONDS)

    def assess(images: np.ndarray, rows: np.ndarray) -> Assessment:
        return asyncio.run_coroutine_threadsafe(patiently(images, rows), loop).result()

    service.review = Review(settings.review, settings.workspace, served.model, assess=assess)
    service.review.start()


async def stop(service: Service) -> None:
    """Stop predicting; what has been predicted is kept."""
    if service.review is not None:
        await asyncio.to_thread(service.review.stop)


def _review(service: TheService) -> Review:
    if service.review is None:
        raise Problem(404, "no data to review", "start the server with --review DATA")
    return service.review


TheReview = Annotated[Review, Depends(_review)]


def _status(service: Service, review: Review) -> Message:
    return review.status() | {"threshold": service.catalogue.get().model.info.threshold}


@router.get("")
async def status(service: TheService) -> Message:
    """How far the queue is: state (`none`, `opening`, `predicting`, `ready`, `failed`), counts, the latest labels."""
    if service.review is None:
        return {"state": "none"}
    return await asyncio.to_thread(_status, service, service.review)


@router.post("/next", responses=documented(404, 422))
async def following(review: TheReview, asked: Next) -> list[Item]:
    """The patches to look at next, least sure first; held back from other readers for two minutes."""
    return await asyncio.to_thread(review.next, asked.reader, asked.limit, asked.without)


@router.get("/patches/{key}/patch.png", response_class=Png, responses=documented(404, 422))
async def picture(review: TheReview, key: str) -> Png:
    """A patch in the queue."""
    return Png(as_png(await _found(review.pixels, key)))


@router.get("/patches/{key}/heat.png", response_class=Png, responses=documented(404, 422, 503))
async def heat(service: TheService, review: TheReview, key: str) -> Png:
    """What speaks for the positive class in a patch of the queue, transparent where nothing does."""
    pixels, served = await _found(review.pixels, key), service.catalogue.get()
    return Png(await served.batcher.call(lambda: heat_png(served.model, pixels, served.methods[0], over_patch=False)))


@router.put("/patches/{key}/label", responses=documented(404, 422, 507))
async def label(service: TheService, review: TheReview, key: str, given: Label) -> Message:
    """Label a patch; it is on the disk when this is answered. `patch.given` is another's where that stood already."""
    patch = await _found(review.label, key, given.label, expected=given.expected, reviewer=given.reviewer)
    return {"patch": patch, "status": await asyncio.to_thread(_status, service, review)}


@router.delete("/patches/{key}/label", responses=documented(404, 422, 507))
async def take_back(
    service: TheService,
    review: TheReview,
    key: str,
    expected: Annotated[str | None, Query(max_length=200, description="The label believed to stand")] = None,
) -> Message:
    """Take a label back; the patch is in the queue again."""
    patch = await _found(review.take_back, key, expected=expected)
    return {"patch": patch, "status": await asyncio.to_thread(_status, service, review)}


@router.get("/corrections.csv", response_class=FileResponse, responses=documented(404))
async def corrections(review: TheReview) -> FileResponse:
    """The labels given, as a CSV that opens as a cohort on this machine."""
    file: Path = review.corrections.file
    if not file.is_file():
        raise Problem(404, "no label has been given yet", "label a patch first")
    return FileResponse(file, media_type="text/csv", filename=CORRECTIONS.name)


async def _found(function: Any, key: str, *given: Any, **named: Any) -> Any:
    """What `function` returns for a patch, in a thread; 404 where there is none, 507 where nothing can be written."""
    try:
        return await asyncio.to_thread(function, key, *given, **named)
    except KeyError:
        raise Problem(404, "no such patch in the queue", "ask /api/review/next for patches") from None
    except OSError as error:
        raise Problem(
            507, f"the label cannot be written ({error.strerror})", "free space on the server and try again"
        ) from error
