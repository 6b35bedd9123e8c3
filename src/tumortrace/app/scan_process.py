"""A process that scans one slide, so that a scan neither holds up who asks for patches nor takes the server down.

It reads what to scan from standard input, as one line of JSON, and writes its progress to standard output, a line of
JSON each: `{"done", "total"}`, and at last `{"finished": true}` or the `{"error"}`. It ends with its parent: what
it leaves behind, the next process finishes.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumortrace.app.slide_files import OVERVIEW
from tumortrace.errors import ModelError, TumorTraceError

if TYPE_CHECKING:
    from tumortrace.models.bundle import Model


def main() -> None:
    """Scan what the parent asks for."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints does not get between the answers
    with suppress(AttributeError, OSError):
        os.nice(5)  # who asks for patches goes first
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def tell(**content: Any) -> None:
        print(json.dumps(content), file=answers, flush=True)

    try:
        from tumortrace.slides.scan import scan

        weights = request.pop("weights")
        model = _load(Path(request["run"]), request["device"], weights)
        _keep_overview(request["slide"], Path(request["out"]).with_name(OVERVIEW))
        scan(**request, model=model, progress=lambda done, total: tell(done=done, total=total))
    except (TumorTraceError, OSError, MemoryError) as error:
        tell(error=_told(error, request["slide"]))
    else:
        tell(finished=True)


def _told(error: TumorTraceError | OSError | MemoryError, slide: str) -> dict[str, str]:
    """Cause and remedy, without the path of the slide."""
    if isinstance(error, MemoryError):
        return {"cause": "the scan needs more memory than there is", "remedy": "scan it on a larger machine"}
    if isinstance(error, OSError):
        cause = f"the scan cannot be written ({error.strerror})"
        return {"cause": cause, "remedy": "free space on the server and scan it again"}
    found = f"{error.found}; expected {error.expected}" if error.expected else error.found
    return {"cause": found.replace(slide, "the file"), "remedy": error.remedy or "scan another"}


def _load(run: Path, device: str, weights: str | None) -> Model:
    """The model that the server serves; another one may lie in its place by now.

    Raises:
        ModelError: It does, or it cannot be loaded.
    """
    from tumortrace.models.bundle import load_model

    model = load_model(run, device=device)
    if weights is not None and model.info.weights_sha256 != weights:
        raise ModelError(
            f"{run.name} has been replaced since the server started", remedy="start the server again, then scan again"
        )
    return model


def _keep_overview(slide: str, target: Path) -> None:
    """Read a slide without small levels once for all viewers: this process has the time, the one for tiles has not."""
    from tumortrace.slides.deepzoom import DeepZoom
    from tumortrace.slides.slide import Slide

    with suppress(TumorTraceError, OSError), Slide(slide) as opened:  # what is wrong with it, the scan says
        zoom = DeepZoom(opened)
        if zoom.lacks_levels:
            zoom.write_overview(target)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()  # ends when the parent does, however it ends
    os._exit(1)


if __name__ == "__main__":
    main()
