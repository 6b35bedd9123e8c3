"""Whole slides: scanned in the background, shown as Deep Zoom tiles, with heat map and outlines."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, Field, ValidationError

from tumortrace.app.middleware import BodyLimit
from tumortrace.app.problems import Problem, busy, documented
from tumortrace.app.service import TheService, fit_to_show
from tumortrace.app.slide_jobs import SlideJobs, Status
from tumortrace.app.slide_reader import Busy
from tumortrace.app.slide_upload import receive_form
from tumortrace.records.record import Open
from tumortrace.records.scans import ScanJob
from tumortrace.records.tables import TILES
from tumortrace.reports.wording import called
from tumortrace.slides.dense import dense_overlap
from tumortrace.slides.slide import RESOLUTIONS
from tumortrace.slides.tiling import cells

router = APIRouter(prefix="/api/slides", tags=["slides"])

BODY_LIMITS = {"/api/slides": BodyLimit(bytes=4 << 30, seconds=3600, streamed=True)}


class ServedSlide(BaseModel):
    """A slide in the served folder."""

    name: str
    bytes: int


class Failure(BaseModel):
    """Why a scan failed, and what to do."""

    cause: str
    remedy: str


class Scan(BaseModel):
    """A scan and where it stands.

    Attributes:
        id: Under which it is asked for.
        name: The slide's.
        model: That scans it.
        status: `queued`, `running`, `done` or `failed`.
        done: Tiles done so far.
        total: All tiles; 0 until they are known.
        error: Why it failed; else null.
        result: What scan.json holds once it is done: counts, score, area of tumour, notes; else null.
    """

    id: str
    name: str
    model: str
    status: Status
    done: int = Field(ge=0)
    total: int = Field(ge=0)
    error: Failure | None
    result: Open | None


class Slides(BaseModel):
    """What can be scanned, and what has been."""

    slides: list[ServedSlide]
    scans: list[Scan]


class Started(BaseModel):
    """A scan that waits for its turn."""

    id: str


class HeatTile(BaseModel):
    """One cell of the heat map, in px of the slide at full resolution."""

    x: int
    y: int
    width: int
    height: int
    probability: float = Field(ge=0, le=1)
    decision: Literal["positive", "negative", "refer"]


class Heat(BaseModel):
    """The heat map: cells side by side.

    Attributes:
        width: Of the slide in px at full resolution.
        height: Likewise.
        threshold: A probability of at least this is a positive call.
        positive_class: Whose probability is shown, as people call it.
        tiles: The cells.
    """

    width: int
    height: int
    threshold: float
    positive_class: str
    tiles: list[HeatTile]


@contextmanager
def _told() -> Iterator[None]:
    """Refusals of the jobs as the API's."""
    try:
        yield
    except Busy as error:
        raise busy(str(error)) from None
    except LookupError as error:
        cause = str(error.args[0])
        raise Problem(404, cause, "look at /api/slides for what there is") from None


def _job(service: TheService, id: Annotated[str, Path(description="Id of a scan")]) -> ScanJob:
    try:
        return service.slides.get(id)
    except LookupError:
        raise Problem(404, "no scan of this id", "look at /api/slides for what there is") from None


TheJob = Annotated[ScanJob, Depends(_job)]


@router.get("")
def slides(service: TheService) -> Slides:
    """List the slides of the served folder, and all scans, the latest first."""
    served = [ServedSlide(name=name, bytes=size) for name, size in service.slides.files.served().items()]
    scans = []
    for job in service.slides.jobs:
        with suppress(LookupError):  # deleted meanwhile
            scans.append(_scan(service.slides, job))
    return Slides(slides=served, scans=scans)


_FORM = {
    "type": "object",
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "A slide"},
        "name": {"type": "string", "description": "Or the name of a slide in the served folder"},
        "model": {"type": "string", "description": "Name of a model as in /api/models; default the first"},
        "overlap": {"type": "number", "minimum": 0, "maximum": 0.9, "description": "Of neighbouring tiles"},
        "resolution": {"type": "number", "description": "Um per px of a slide that does not state it"},
        "patch_resolution": {"type": "number", "description": "Um per px of the patches of a model that states none"},
        "bits": {"type": "integer", "minimum": 9, "maximum": 16, "description": "Of a deep slide that does not say"},
        "plane": {"type": "integer", "minimum": 1, "description": "Of focus; default the middle one"},
        "dense": {"type": "boolean", "description": "One pass over whole regions; of networks that do not pad alone"},
    },
}


@router.post(
    "",
    status_code=202,
    responses=documented(400, 404, 408, 413, 415, 422, 503, 507),
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
)
async def start_scan(request: Request, service: TheService) -> Started:
    """Start a scan of an uploaded slide, or of one in the served folder; ask for its progress by the id."""
    jobs, uploaded = service.slides, list[str]()

    def target(name: str) -> Any:
        job_id, path = jobs.files.upload_target(name)
        uploaded.append(job_id)
        return path

    try:
        with _told():
            jobs.require_room()
            fits = await asyncio.to_thread(jobs.files.room_for_upload)
            form = await receive_form(request.headers.get("content-type", ""), request.stream(), target, fits)
            options = _options(form.fields)
            name, model = form.fields.get("name"), form.fields.get("model")
            asked = service.catalogue.get(model).model
            info = asked.info
            if options.get("dense"):
                dense_overlap(asked, options.get("overlap", 0.0))
            if info.bits is not None:  # so that the slide is shown as it is scanned
                options.setdefault("bits", info.bits)
            if info.resolution is None and "patch_resolution" not in options:
                cause = "the model states no resolution of its training patches"
                raise Problem(422, cause, "state it in the field `patch_resolution`, in um per pixel")
            if (name is None) == (form.file_name is None):
                raise Problem(422, "neither a file nor a name, or both", "send a slide in `file`, or `name` one")
            shown = name if form.file_name is None else fit_to_show(form.file_name)
            upload = uploaded[0] if uploaded else None
            job = await asyncio.to_thread(jobs.add, str(shown), model=model, options=options, uploaded=upload)
    except BaseException:
        for job_id in uploaded:
            jobs.files.discard(job_id)
        raise
    return Started(id=job.id)


@router.get("/{id}")
def status(service: TheService, job: TheJob) -> Scan:
    """Say where a scan stands, and its result once it is done."""
    with _told():
        return _scan(service.slides, job)


@router.delete("/{id}", status_code=204)
def delete(service: TheService, job: TheJob) -> Response:
    """Cancel a scan where it waits or runs; remove its results and the uploaded slide."""
    with _told():
        service.slides.delete(job.id)
    return Response(status_code=204)


@router.get("/{id}/slide.dzi", response_class=Response, responses=documented(422))
def descriptor(service: TheService, job: TheJob) -> Response:
    """Describe the slide as a Deep Zoom pyramid."""
    with _told():
        return Response(service.slides.descriptor(job), media_type="application/xml")


@router.get("/{id}/slide_files/{level}/{tile}.jpeg", response_class=Response, responses=documented(422))
def tile(
    service: TheService,
    job: TheJob,
    level: Annotated[int, Path(ge=0, le=64)],
    tile: Annotated[str, Path(pattern=r"^\d{1,7}_\d{1,7}$", description="COLUMN_ROW")],
) -> Response:
    """One Deep Zoom tile."""
    column, row = (int(part) for part in tile.split("_"))
    with _told():
        content = service.slides.tile(job, level, column, row)
    return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400"})


@router.get("/{id}/heat.json", response_model=Heat)
def heat(service: TheService, job: TheJob) -> JSONResponse:
    """The heat map as numbers, to be drawn over the slide."""
    with _told():
        record = service.slides.files.record(job)
        tiles = TILES.read(service.slides.files.result(job, TILES.name).parent)
    shown = cells(tiles, record.overlap)[["x", "y", "width", "height", "probability", "decision"]]
    facts = {"width": record.width, "height": record.height, "threshold": record.threshold}
    positive_class = called(record.positive_class)
    return JSONResponse(facts | {"positive_class": positive_class, "tiles": shown.to_dict("records")})


@router.get("/{id}/tiles.csv", response_class=FileResponse)
def tiles(service: TheService, job: TheJob) -> FileResponse:
    """The table of tiles."""
    return _file(service.slides, job, TILES.name, "text/csv")


@router.get("/{id}/outlines.geojson", response_class=FileResponse)
def outlines(service: TheService, job: TheJob) -> FileResponse:
    """Tumour outlines that QuPath opens."""
    return _file(service.slides, job, "outlines.geojson", "application/geo+json")


@router.get("/{id}/heatmap.png", response_class=FileResponse)
def heatmap(service: TheService, job: TheJob) -> FileResponse:
    """The heat map as a picture."""
    return _file(service.slides, job, "heatmap.png", "image/png")


def _file(jobs: SlideJobs, job: ScanJob, name: str, kind: str) -> FileResponse:
    with _told():
        path = jobs.files.result(job, name)
    return FileResponse(path, media_type=kind, filename=f"{job.name}.{name}")


def _scan(jobs: SlideJobs, job: ScanJob) -> Scan:
    status = job.status
    return Scan(
        id=job.id,
        name=job.name,
        model=job.model,
        status=status,
        done=job.done,
        total=job.total,
        error=None if job.error is None else Failure(**job.error),
        result=jobs.files.record(job).as_json() if status == "done" else None,
    )


class _Options(BaseModel):
    """Options of `scan` that a form may carry."""

    overlap: float | None = Field(None, ge=0, le=0.9)
    resolution: float | None = Field(None, ge=RESOLUTIONS[0], le=RESOLUTIONS[1])
    patch_resolution: float | None = Field(None, ge=RESOLUTIONS[0], le=RESOLUTIONS[1])
    bits: int | None = Field(None, ge=9, le=16)
    plane: int | None = Field(None, ge=1)
    dense: bool | None = None


def _options(fields: dict[str, str]) -> dict[str, float]:
    try:
        given = _Options.model_validate({name: fields[name] for name in _Options.model_fields if fields.get(name)})
    except ValidationError as error:
        first = error.errors()[0]
        raise Problem(422, f"{first['loc'][0]}: {first['msg']}", "look at /docs for what it may be") from None
    return given.model_dump(exclude_none=True)
