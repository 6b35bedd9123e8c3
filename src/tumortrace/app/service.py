"""What the routes share: the models, the decoder, the scans, the meters."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

import numpy as np
from fastapi import Depends, Query, Request, UploadFile

from tumortrace.app.catalogue import Catalogue, Served
from tumortrace.app.decoding import Decoded, Decoder
from tumortrace.app.middleware import Meters
from tumortrace.app.problems import Problem
from tumortrace.app.review import Review
from tumortrace.app.settings import Settings
from tumortrace.app.slide_jobs import SlideJobs
from tumortrace.cohorts.looks import Look
from tumortrace.errors import DataError, ModelError
from tumortrace.inference.patches import judge_one
from tumortrace.models.description import ModelInfo


@dataclass(frozen=True)
class Asked:
    """What a request says of its images, as the options of `predict` do.

    Attributes:
        bits: Bits that deep images hold whose files do not say.
        resolution: Micrometres per pixel, in place of what the files state.
        resample: Whether the middle of each is resampled to the model's um per px.
        allow: Findings to answer in spite of, such as `resolution-mismatch`.
    """

    bits: Annotated[int | None, Query(ge=9, le=16)] = None
    resolution: Annotated[float | None, Query(gt=0, lt=1000)] = None
    resample: Annotated[bool, Query()] = False
    allow: Annotated[tuple[str, ...], Query()] = ()


class Patch(NamedTuple):
    """An upload as a model takes it, uint8, shape (*patch_size, 3), and what is to be said of it."""

    pixels: np.ndarray
    notes: list[str]


class Service:
    """One server's models, decoder, scans and meters, started and stopped with the application.

    Args:
        settings: How the server is set up; all its models are loaded here.

    Raises:
        TumorTraceError: A model does not load, or two have one name.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.meters = Meters()
        self.catalogue = Catalogue(settings, lambda name, size: self.meters.batches.labels(name).observe(size))
        self.decoder = Decoder(settings.limits)
        self.review: Review | None = None  # where there are data to review, once started
        for served in self.catalogue.all:
            self.meters.queue.labels(served.name).set_function(partial(getattr, served.batcher, "waiting"))
        self.meters.decoding.set_function(lambda: self.decoder.waiting)
        self.slides = SlideJobs(
            settings.workspace / "slides",
            {served.name: served.named.resolve() for served in self.catalogue.all},
            weights={served.name: served.model.info.weights_sha256 for served in self.catalogue.all},
            slides=settings.slides,
            device=settings.device,
        )

    async def start(self) -> None:
        """Start the processes that decode, the models' queues, and the scans that wait."""
        await self.decoder.start()
        for served in self.catalogue.all:
            served.batcher.start()
        await asyncio.to_thread(self.slides.start)

    async def stop(self) -> None:
        """Answer what waits, then end the processes and threads; a scan under way goes on in the next server."""
        await asyncio.gather(*(served.batcher.stop() for served in self.catalogue.all))
        await self.decoder.stop()
        await asyncio.to_thread(self.slides.stop)

    async def patch(self, upload: UploadFile, served: Served, asked: Asked) -> Patch:
        """An upload as the patch that a model takes: decoded, resized and judged as `predict` does.

        Raises:
            ImageError: It cannot be decoded.
            DataError: What it shows would make answers wrong, as for `predict`.
            ModelError: Resampling is asked for and the model states no resolution.
            Problem: Too many images wait (503).
        """
        info = served.model.info
        if asked.resample and info.resolution is None:
            raise ModelError("the model states no resolution", where=info.name, remedy="leave out resample")
        wanted = info.resolution if asked.resample else None
        told = {"bits": asked.bits or info.bits, "resolution": asked.resolution, "resample": wanted}
        name = fit_to_show(upload.filename)
        decoded = await self.decoder.decode(upload.file, info.patch_size, name, **told)
        return Patch(decoded.pixels, _judged(name, decoded, info, asked))

    async def patches(
        self, uploads: list[UploadFile], served: Served, asked: Asked
    ) -> tuple[np.ndarray, list[list[str]]]:
        """Several uploads as `patch` makes them, uint8, shape (N, *patch_size, 3), and what is to be said of each.

        Raises:
            ImageError: One cannot be decoded; the first of them.
            DataError: One is refused, as by `patch`.
            Problem: There are too many of them (413), or too many wait (503).
        """
        most = self.settings.limits.files
        if len(uploads) > most:
            raise Problem(413, f"{len(uploads)} files", f"send at most {most} at once")
        images: list[np.ndarray] = []
        notes: list[list[str]] = []
        step = 2 * self.settings.limits.decoders  # a request of many files leaves room for the others
        for start in range(0, len(uploads), step):
            part = uploads[start : start + step]
            done = await asyncio.gather(*(self.patch(one, served, asked) for one in part), return_exceptions=True)
            for patch in done:
                if isinstance(patch, BaseException):
                    raise patch
                images.append(patch.pixels)
                notes.append(patch.notes)
        return np.stack(images), notes


def _judged(name: str, decoded: Decoded, info: ModelInfo, asked: Asked) -> list[str]:
    """What is to be said of an upload.

    Raises:
        DataError: It would make the answer wrong and is not allowed.
    """
    try:
        return judge_one(name, Look(**decoded.seen), info, resample=asked.resample, allow=asked.allow)
    except DataError as error:
        raise DataError(error.found, where=name, expected=error.expected, remedy=error.remedy) from None


def fit_to_show(name: str | None) -> str:
    """The last part of a name that came with an upload, printable, of at most 200 characters.

    Example:
        >>> fit_to_show("../../etc/slide.svs"), fit_to_show("")
        ('slide.svs', 'upload')
    """
    last = (name or "").replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in last if letter.isprintable())[:200] or "upload"


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


TheService = Annotated[Service, Depends(_service)]
"""As a parameter of a route, the service."""
