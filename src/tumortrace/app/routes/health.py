"""Whether the server is there, and how busy it is."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from tumortrace.app.service import TheService

router = APIRouter(tags=["operation"])


class Health(BaseModel):
    """That the server answers."""

    status: Literal["ok"] = "ok"


@router.get("/healthz")
async def healthz() -> Health:
    """Answer that the server is there; needs no token."""
    return Health()


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(service: TheService) -> PlainTextResponse:
    """Requests, latency, batches, queues and refusals for Prometheus."""
    return PlainTextResponse(generate_latest(service.meters.registry), media_type=CONTENT_TYPE_LATEST)
