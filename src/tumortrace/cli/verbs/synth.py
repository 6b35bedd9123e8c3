"""`tumortrace synth`: generate synthetic tissue."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tumortrace.cli.app import Seed, app


@app.command
def synth(kind: Literal["patches", "slide", "mri"], out: Path, *, count: int | None = None, seed: Seed = 0) -> None:
    """Generate synthetic tissue: H&E-like patches, a whole slide, or breast MRI slices.

    Args:
        kind: What to generate.
        out: Folder (or .tif file for a slide) to write.
        count: Number of images; patches 2000, MRI slices 200.
        seed: Same seed, same bytes.
    """
    from tumortrace.cohorts.synthetic import synthesise
    from tumortrace.errors import CohortError
    from tumortrace.records.progress import say

    if kind == "slide" and count is not None:
        raise CohortError("--count for a slide", expected="none, as it is one", remedy="leave --count out")
    counts = {"patches": 2000, "slide": 1, "mri": 200}
    say(f"synth: {synthesise(kind, out, count=counts[kind] if count is None else count, seed=seed)}")
