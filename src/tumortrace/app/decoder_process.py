"""A process that decodes uploads and nothing else: started by `tumortrace.app.decoding`, killed on any breach.

It reads one JSON request per line from standard input and answers on standard output with one JSON line, followed
by the pixels where there are any. It imports neither torch nor pandas, may take a bounded amount of memory, and can
write no file.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import Any, BinaryIO

from tumortrace.errors import ImageError
from tumortrace.images.decoding import fit, read_with_facts


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints does not get between the answers
    rules = json.loads(sys.stdin.buffer.readline())
    confine(rules["bytes"])
    answer(answers, {"ready": True})
    for line in sys.stdin.buffer:
        header, pixels = decode(json.loads(line), rules)
        answer(answers, header, pixels)


def decode(request: dict[str, Any], rules: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """One image as `predict` decodes it.

    Args:
        request: `path` of the file, and `size`, (height, width) wanted in pixels.
        rules: `pixels` and `pages` that a file may have at most.

    Returns:
        Header with `format`, `frames` and the original `size`, and the pixels; or a header with the `error`.
    """
    try:
        image, facts = read_with_facts(request["path"], max_pixels=rules["pixels"])
        if facts.frames > rules["pages"]:
            raise ImageError(
                f"{facts.frames} pages or frames", expected=f"at most {rules['pages']}", remedy="save one as PNG"
            )
    except ImageError as error:
        found = error.found.replace(request["path"], "the file")
        return {"error": {"found": found, "expected": error.expected, "remedy": error.remedy}}, b""
    pixels = fit(image, tuple(request["size"])).tobytes()
    header = {"bytes": len(pixels), "format": facts.format, "frames": facts.frames, "size": image.shape[:2]}
    return header, pixels


def answer(stream: BinaryIO, header: dict[str, Any], pixels: bytes = b"") -> None:
    """Write one answer: its header as a line, then its content."""
    stream.write(json.dumps(header).encode() + b"\n" + pixels)
    stream.flush()


def confine(extra_bytes: int) -> None:
    """Bound memory, files and core dumps, where the system can."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + extra_bytes,) * 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
