"""What the routes share: the models, the decoder, the scans, the meters."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated

import numpy as np
from fastapi import Depends, Request, UploadFile

from tumortrace.app.catalogue import Catalogue, Served
from tumortrace.app.decoding import Decoder
from tumortrace.app.middleware import Meters
from tumortrace.app.problems import Problem
from tumortrace.app.review import Review
from tumortrace.app.settings import Settings
from tumortrace.app.slide_jobs import SlideJobs


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
        folders = {served.name: served.folder for served in self.catalogue.all}
        self.slides = SlideJobs(
            settings.workspace / "slides",
            folders,
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

    async def patch(self, upload: UploadFile, served: Served) -> np.ndarray:
        """An upload as the patch that a model takes, decoded and resized as `predict` does.

        Returns:
            uint8, shape (*patch_size, 3).

        Raises:
            ImageError: It cannot be decoded.
            Problem: Too many images wait (503).
        """
        return await self.decoder.decode(upload.file, served.model.info.patch_size, fit_to_show(upload.filename))

    async def patches(self, uploads: list[UploadFile], served: Served) -> np.ndarray:
        """Several uploads as `patch` makes them: uint8, shape (N, *patch_size, 3).

        Raises:
            ImageError: One cannot be decoded; the first of them.
            Problem: There are too many of them (413), or too many wait (503).
        """
        most = self.settings.limits.files
        if len(uploads) > most:
            raise Problem(413, f"{len(uploads)} files", f"send at most {most} at once")
        images: list[np.ndarray] = []
        step = 2 * self.settings.limits.decoders  # a request of many files leaves room for the others
        for start in range(0, len(uploads), step):
            part = (self.patch(upload, served) for upload in uploads[start : start + step])
            for decoded in await asyncio.gather(*part, return_exceptions=True):
                if isinstance(decoded, BaseException):
                    raise decoded
                images.append(decoded)
        return np.stack(images)


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
