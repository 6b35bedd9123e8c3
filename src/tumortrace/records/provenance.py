"""Under which conditions a number came to be."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("tumortrace", "torch", "lightning-fabric", "numpy", "pandas", "pillow")

RESEARCH_USE = "Research use only. Not a medical device: not for diagnosis or treatment."


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on.

    Example:
        >>> "torch" in versions()
        True
    """
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine() -> str:
    """Operating system, processor and number of cores, in words, without the machine's name.

    Example:
        >>> "core" in machine()
        True
    """
    cores = os.cpu_count() or 1
    kind = " ".join(part for part in (f"{platform.system()} {platform.machine()}", _processor()) if part)
    return f"{kind}, {cores} core{'s' if cores > 1 else ''}"


def _processor() -> str:
    """The processor's name, as the system tells it; empty where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        name = platform.processor()
        return "" if name == platform.machine() else name
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
