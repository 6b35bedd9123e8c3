"""Under which conditions a number came to be."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

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
    """Operating system and processor, in words, without the machine's name."""
    return f"{platform.system()} {platform.machine()}"
