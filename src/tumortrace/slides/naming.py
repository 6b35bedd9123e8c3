"""What a slide's results are called in the folder of a call: scans and features alike."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path

from tumortrace.slides.identity import content_of


def names_of(files: Sequence[Path], free: Callable[[str, Path], bool] = lambda name, file: True) -> list[str]:
    """What the results of each slide are called: as its file, and where another has that name, by more of its path.

    Names that differ only in capitals count as one, as they are on many disks.

    Args:
        files: Of the slides.
        free: Asked with a name and a slide: whether no results of another slide are kept under it.

    Example:
        >>> names_of([Path("a/x.svs"), Path("a/y.svs")]), names_of([Path("a/x.svs"), Path("b/x.svs")])
        (['x', 'y'], ['a-x', 'b-x'])
        >>> names_of([Path("a/x.svs"), Path("a/x.tif")])
        ['x-svs', 'x-tif']
    """
    candidates = [_names(file) for file in files]
    counts = [Counter(name.casefold() for name in names) for names in zip(*candidates, strict=True)]
    used: set[str] = set()
    chosen = []
    for file, names in zip(files, candidates, strict=True):
        for name, known in zip(names, counts, strict=True):
            if known[name.casefold()] == 1 and name.casefold() not in used and free(name, file):
                break
        used.add(name.casefold())
        chosen.append(name)
    return chosen


def _names(file: Path) -> list[str]:
    """What a slide can be called, the shortest first; the last is of this file and content alone."""
    stem, parent, ending = file.stem, Path(os.path.abspath(file)).parent.name, file.suffix.lstrip(".")
    unique = blake2b(f"{file.resolve()} {content_of(file)}".encode(), digest_size=4).hexdigest()
    return [stem, f"{parent}-{stem}", f"{stem}-{ending}", f"{parent}-{stem}-{ending}", f"{stem}-{unique}"]
