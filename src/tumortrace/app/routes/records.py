"""What is on record of the models, for the pages."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter

from tumortrace.app.on_record import on_record
from tumortrace.app.problems import documented
from tumortrace.app.service import TheService
from tumortrace.inference.explain import METHODS

router = APIRouter(prefix="/api", tags=["models"])


@router.get("/records/{name}", responses=documented(404))
async def records(service: TheService, name: str) -> dict[str, Any]:
    """Everything on record of a model: metrics with intervals, calibration curve, decision rule, data, model card."""
    served = service.catalogue.get(name)
    found = await asyncio.to_thread(on_record, served.name, served.folder, served.model)
    return found | {
        "methods": [{"name": key, "title": METHODS[key].title, "signed": METHODS[key].signed} for key in served.methods]
    }
