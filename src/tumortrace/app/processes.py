"""What the server's child processes do: decode uploads, read slides, scan one slide; started by `app.workers`.

A child reads a line of JSON per request from standard input and answers on standard output with a line of JSON, then
with as many bytes as its `bytes` says. Who decodes or reads imports neither torch nor pandas, may take a bounded amount
of memory and can write no file: a hostile file ends it, not the server.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumortrace.errors import ModelError, TumorTraceError

if TYPE_CHECKING:
    from tumortrace.models.bundle import Model

Message = dict[str, Any]
"""One line between the server and a child."""

Reply = Callable[[Message], tuple[Message, bytes]]

OVERVIEW = "overview.jpg"
OPEN = 3  # slides that stay open; a plain image of 100 megapixels takes 300 MB


def main(kind: str) -> None:
    """Do the work of a `decoder`, a `reader` or a `scanner` until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints does not get between the answers

    def tell(header: Message, content: bytes = b"") -> None:
        answers.write(json.dumps(header | {"bytes": len(content)}).encode() + b"\n" + content)
        answers.flush()

    first = json.loads(sys.stdin.buffer.readline())
    if kind == "scanner":
        scan(first, tell)
        return
    reply = decoder(first) if kind == "decoder" else reader()
    confine(first["memory"])
    tell({"ready": True})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        try:
            header, content = reply(request)
        except TumorTraceError as error:
            cause = error.found.replace(request["path"], "the file")
            header, content = {"error": {"found": cause, "expected": error.expected, "remedy": error.remedy}}, b""
        tell(header, content)


def confine(extra: int) -> None:
    """Bound memory to so many bytes beyond what is taken now, and forbid files and core dumps, where the system can."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + extra,) * 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def decoder(rules: Message) -> Reply:
    """Decodes the image at `path`, as `predict` does, to `size` (height, width); at most `pixels` and `pages` of it.

    A request's `bits` and `resolution` are what the user says of the file, `resample` the um per px wanted. A header
    has what was `seen`, by the names of `cohorts.looks.Look`.
    """
    from PIL import Image

    from tumortrace.errors import ImageError
    from tumortrace.images.decoding import fit, fit_resolution, read_with_facts

    def reply(request: Message) -> tuple[Message, bytes]:
        image, facts = read_with_facts(request["path"], max_pixels=rules["pixels"], bits=request.get("bits"))
        if facts.frames > rules["pages"]:
            pages = f"{facts.frames} pages or frames"
            raise ImageError(pages, expected=f"at most {rules['pages']}", remedy="save one as PNG")
        size, wanted, stated = tuple(request["size"]), request.get("resample"), request.get("resolution")
        stated = stated or facts.resolution
        patch = fit_resolution(image, size, wanted / stated) if wanted and stated else fit(image, size)
        height, width = image.shape[:2]
        thinned = image[:: max(1, height // 32), :: max(1, width // 32)].reshape(-1, 3)
        two_valued = sum(number > 0 for number in Image.fromarray(image).convert("L").histogram()) <= 2
        seen = {"height": height, "width": width, "two_valued": two_valued, "spread": float(thinned.std(0).max())}
        return {"seen": facts._asdict() | seen | {"resolution": stated}}, patch.tobytes()

    return reply


def reader() -> Reply:
    """Tells what the slide at `path` is, or gives its `tile` (level, column, row) as a JPEG.

    A request's `file` changes where another file takes its place; its `overview` is a path or None, and its `reading`
    are `bits` and `plane` as `Slide` takes them. A header has the slide's `width`, `height`, `resolution`, `notes` and
    Deep Zoom `descriptor`, or `missing`.
    """
    from tumortrace.slides.deepzoom import DeepZoom
    from tumortrace.slides.slide import Slide

    opened: OrderedDict[tuple[Any, ...], tuple[Slide, DeepZoom]] = OrderedDict()

    def reply(request: Message) -> tuple[Message, bytes]:
        path, overview, reading = request["path"], request.get("overview"), request["reading"]
        key = (path, *request["file"], overview, *sorted(reading.items()))
        if key not in opened:
            slide = Slide(Path(path), **reading)
            opened[key] = (slide, DeepZoom(slide, overview and Path(overview)))
            if len(opened) > OPEN:
                opened.popitem(last=False)[1][0].close()
        opened.move_to_end(key)
        slide, zoom = opened[key]
        if "tile" not in request:
            facts = {"width": slide.width, "height": slide.height, "resolution": slide.resolution}
            return facts | {"notes": list(slide.notes), "descriptor": zoom.descriptor()}, b""
        tile = tuple(request["tile"])
        return ({}, zoom.tile(*tile)) if zoom.has(*tile) else ({"missing": True}, b"")

    return reply


def scan(request: Message, tell: Callable[[Message], None]) -> None:
    """Scan one slide with the arguments of `scan`, telling `done` and `total`, and at last `finished` or the `error`.

    It goes behind who asks for patches and ends with the server, however that ends: the next scan finishes it.
    """
    with suppress(AttributeError, OSError):
        os.nice(5)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        from tumortrace.slides.scan import scan

        model = load(Path(request["run"]), request["device"], request.pop("weights"))
        reading: Message = {name: request[name] for name in ("bits", "plane") if name in request}
        _keep_overview(request["slide"], Path(request["out"]).with_name(OVERVIEW), reading)
        scan(**request, model=model, progress=lambda done, total: tell({"done": done, "total": total}))
    except (TumorTraceError, OSError, MemoryError) as error:
        tell({"error": told(error, request["slide"])})
    else:
        tell({"finished": True})


_OPTION = re.compile(r"--([a-z-]+)")


def told(error: TumorTraceError | OSError | MemoryError, slide: str) -> dict[str, str]:
    """Cause and remedy of a scan that failed, without the path of the slide."""
    if isinstance(error, MemoryError):
        return {"cause": "the scan needs more memory than there is", "remedy": "scan it on a larger machine"}
    if isinstance(error, OSError):
        cause = f"the scan cannot be written ({error.strerror})"
        return {"cause": cause, "remedy": "free space on the server and scan it again"}
    cause = f"{error.found}; expected {error.expected}" if error.expected else error.found
    # options are the API's fields
    remedy = _OPTION.sub(lambda option: option[1].replace("-", "_"), error.remedy or "scan another")
    return {"cause": cause.replace(slide, "the file"), "remedy": remedy}


def load(run: Path, device: str, weights: str | None) -> Model:
    """The model that the server serves, known by the SHA-256 of its weights.

    Raises:
        ModelError: Another lies in its place by now, or it cannot be loaded.
    """
    from tumortrace.models.bundle import load_model

    model = load_model(run, device=device, backend=None)
    if weights is not None and model.info.weights_sha256 != weights:
        raise ModelError(
            f"{run.name} has been replaced since the server started", remedy="start the server again, then scan again"
        )
    return model


def _keep_overview(slide: str, target: Path, reading: Message) -> None:
    """Read a slide without small levels once for all viewers: this process has the time, the one for tiles has not."""
    from tumortrace.slides.deepzoom import DeepZoom
    from tumortrace.slides.slide import Slide

    with suppress(TumorTraceError, OSError), Slide(slide, **reading) as opened:  # what is wrong with it, the scan says
        zoom = DeepZoom(opened)
        if zoom.lacks_levels:
            zoom.write_overview(target)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()  # ends when the parent does
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
