"""The pages: files that need no token, as they ask for it."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import FileResponse

from tumortrace.app.settings import STATIC

router = APIRouter(include_in_schema=False)


@router.get("/")
async def index() -> FileResponse:
    """The first page."""
    return FileResponse(STATIC / "index.html")
