"""A process that reads slides and nothing else: started by `tumortrace.app.slide_reader`, killed on any breach.

It reads one JSON request per line from standard input and answers on standard output with one JSON line, followed by
a tile's JPEG where one was asked for. It imports neither torch nor pandas, may take a bounded amount of memory, and
can write no file.
"""

from __future__ import annotations

import json
import os
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

from tumortrace.app.decoder_process import answer, confine
from tumortrace.errors import TumorTraceError
from tumortrace.slides.deepzoom import DeepZoom
from tumortrace.slides.slide import Slide

_OPEN = 3  # slides that stay open; a plain image of 100 megapixels takes 300 MB


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints does not get between the answers
    rules = json.loads(sys.stdin.buffer.readline())
    confine(rules["bytes"])
    answer(answers, {"ready": True})
    opened = Opened()
    for line in sys.stdin.buffer:
        header, content = opened.reply(json.loads(line))
        answer(answers, header, content)


class Opened:
    """The slides that were asked for last, kept open."""

    def __init__(self) -> None:
        self._slides: OrderedDict[tuple[Any, ...], tuple[Slide, DeepZoom]] = OrderedDict()

    def reply(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """What a slide is, or one of its tiles.

        Args:
            request: `path`; `file`, which changes where another file takes its place; `overview`, a path or None; and
                where a tile is wanted `tile` with its level, column and row.

        Returns:
            A header with the slide's `width`, `height`, `resolution`, `notes` and Deep Zoom `descriptor`; or one with
            `bytes`, and the JPEG; or one with `missing` or the `error`.
        """
        try:
            slide, zoom = self._open(request)
            if "tile" not in request:
                facts = {"width": slide.width, "height": slide.height, "resolution": slide.resolution}
                return facts | {"notes": list(slide.notes), "descriptor": zoom.descriptor()}, b""
            level, column, row = request["tile"]
            if not zoom.has(level, column, row):
                return {"missing": True}, b""
            content = zoom.tile(level, column, row)
        except TumorTraceError as error:
            found = error.found.replace(request["path"], "the file")
            return {"error": {"found": found, "expected": error.expected, "remedy": error.remedy}}, b""
        return {"bytes": len(content)}, content

    def _open(self, request: dict[str, Any]) -> tuple[Slide, DeepZoom]:
        path, overview = request["path"], request.get("overview")
        key = (path, *request["file"], overview)
        if key not in self._slides:
            slide = Slide(Path(path))
            self._slides[key] = (slide, DeepZoom(slide, overview and Path(overview)))
            if len(self._slides) > _OPEN:
                self._slides.popitem(last=False)[1][0].close()
        self._slides.move_to_end(key)
        return self._slides[key]


if __name__ == "__main__":
    main()
