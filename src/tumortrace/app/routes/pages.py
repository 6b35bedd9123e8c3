"""The pages: they need no token themselves, as they ask for it."""

from __future__ import annotations

from functools import cache

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from tumortrace import __version__
from tumortrace.records.provenance import RESEARCH_USE

LINKS = (
    ("/", "patch", "Patch"),
    ("/slide", "slide", "Slide"),
    ("/review", "review", "Review"),
    ("/model", "model", "Model"),
    ("/docs", "docs", "API"),
)

router = APIRouter(include_in_schema=False)


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
    @router.get(path, name=name, response_class=HTMLResponse)
    async def answer() -> HTMLResponse:
        return HTMLResponse(page(name))


for _path, _name, _ in LINKS:
    _add(_path, _name)
