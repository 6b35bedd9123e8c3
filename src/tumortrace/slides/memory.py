"""How many tiles fit into the memory that a scan may take."""

from __future__ import annotations

import re

from tumortrace.errors import SlideError, shown

BATCH = 256  # tiles per call of the model where memory is not bounded
_LEAST = 8
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# Fixed figures and no measurements: another batch is another scan, and the same command is to go on with the same one.
_PROCESS = 1280 << 20  # libraries, overview of the slide, heat maps
_PER_PIXEL = 1024  # bytes of a tile's pixel: read ahead twice, as the model takes it, and what its layers keep


def memory_of(text: str) -> int:
    """Bytes that a text such as `4GB` or `512 MiB` names; K, M, G and T are powers of 1024.

    Raises:
        SlideError: It names none.

    Example:
        >>> memory_of("4GB") == memory_of("4096 MiB") == 4 << 30
        True
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise SlideError(f"--max-memory {shown(text)}", expected="a size such as 4GB", remedy="correct it")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def batch_within(limit: str | None, patch_size: tuple[int, int], weights: int = 0) -> int:
    """Tiles per call of the model that keep a scan within `limit`: the largest power of two up to 256.

    Args:
        limit: As `memory_of` takes it; None does not bound it.
        patch_size: Height and width of a tile in px.
        weights: Bytes of the model's weights.

    Raises:
        SlideError: `limit` is no size, or too little for the smallest batch.

    Example:
        >>> [batch_within(limit, (96, 96)) for limit in (None, "4GB", "2GB")]
        [256, 256, 64]
    """
    if limit is None:
        return BATCH
    tile = patch_size[0] * patch_size[1] * _PER_PIXEL
    fixed = _PROCESS + 3 * weights
    batch = BATCH
    while fixed + batch * tile > memory_of(limit):
        batch //= 2
        if batch < _LEAST:
            least = (fixed + _LEAST * tile) / (1 << 30)
            raise SlideError(
                f"--max-memory {limit}", expected=f"at least {least:.1f}GB for this model", remedy="raise it"
            )
    return batch
