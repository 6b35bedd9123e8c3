"""The pages, which need no token themselves, as they ask for it; whether the server is there, and how busy it is."""

from __future__ import annotations

from functools import cache
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, PlainTextResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from tumortrace import __version__
from tumortrace.app.service import TheService
from tumortrace.records.provenance import RESEARCH_USE

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


LINKS = (
    ("/", "patch", "Patch"),
    ("/slide", "slide", "Slide"),
    ("/review", "review", "Review"),
    ("/model", "model", "Model"),
    ("/docs", "docs", "API"),
)


@cache
def page(name: str) -> str:
    """The HTML of one page.

    Example:
        >>> "Research use only. Not a medical device." in page("patch")
        True
    """
    loader = PackageLoader("tumortrace.app")
    templates = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = templates.get_template(f"{name}.html.j2")
    return template.render(page=name, links=LINKS, version=__version__, research_use=RESEARCH_USE)


def _add(path: str, name: str) -> None:
    @router.get(path, name=name, response_class=HTMLResponse, include_in_schema=False)
    async def answer() -> HTMLResponse:
        return HTMLResponse(page(name))


for _path, _name, _ in LINKS:
    _add(_path, _name)
