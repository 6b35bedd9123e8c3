"""At which scale tiles are taken: the slide's resolution against that of the patches that the model learnt from."""

from __future__ import annotations

from tumortrace.errors import SlideError
from tumortrace.images.depth import asked_for
from tumortrace.slides.slide import RESOLUTIONS, Slide


def slide_resolution(
    slide: Slide, given: float | None, override: float | None, notes: list[str], option: str = "--resolution"
) -> float | None:
    """Um per px of a slide: what it states, else `given`; `override` goes before both. What is odd goes to `notes`.

    `option` is what gives it in the command.
    """
    stated = slide.resolution
    if override is not None:
        if stated is not None:
            notes.append(f"the slide states {stated:.4g} um/px; it was taken to have {override:.4g}, as was asked")
        return override
    if stated is not None and given is not None and abs(given / stated - 1) > 0.01:
        notes.append(
            f"the slide states {stated:.4g} um/px, which was taken; {option} {given:.4g} is for slides that state "
            "none (--override-resolution goes before what a slide states)"
        )
    return given if stated is None else stated


def tile_scale(
    trained: float | None, given: float | None, slide: Slide, resolution: float | None, notes: list[str]
) -> float:
    """Level-0 px per px of a tile; what was assumed is added to `notes`.

    Args:
        trained: Um per px of the model's patches as the model states them, or None.
        given: The same as the caller states them, or None.
        slide: The slide.
        resolution: Its um per px, or None.
        notes: Of the scan.

    Raises:
        SlideError: The patches' resolution is not known, or the slide's.
    """
    wanted = patch_resolution_of(trained, given)
    if trained is None:
        notes.append(f"the model states no resolution; its patches were taken to have {wanted:g} um/px, as was asked")
    elif given is not None and given != trained:
        notes.append(f"the model's patches had {trained:g} um/px; tiles were taken at {given:g}, as was asked")
    if resolution is None:
        raise SlideError(
            slide.unbelieved or "states no resolution",
            where=slide.path,
            expected=f"um per pixel, because the model was trained at {wanted:g}",
            remedy="state it with --resolution, such as --resolution 0.25 for most 40x scans or 0.5 for 20x",
        )
    if wanted < 0.8 * resolution:
        notes.append(
            f"the slide ({resolution:.3g} um/px) is coarser than the model's patches ({wanted:.3g} um/px); tiles were "
            "enlarged and probabilities are less reliable"
        )
    return wanted / resolution


def patch_resolution_of(trained: float | None, given: float | None) -> float:
    """Um per px of the patches that a model was trained on, as the caller states them, else as the model does.

    Raises:
        SlideError: Neither does.
    """
    wanted = given or trained
    if wanted is None:
        raise SlideError(
            "the model states no resolution of its training patches",
            expected="um per pixel, since tiles of another size than the patches give other answers",
            remedy="state it with --patch-resolution, such as --patch-resolution 0.5 for patches of 20x",
        )
    return wanted


def level_to_read(slide: Slide, scale: float, asked: str | int, notes: list[str]) -> int:
    """Number of the level from which tiles are read; `notes` says where tiles are enlarged from it.

    Args:
        slide: The slide.
        scale: Level-0 px per px of a tile.
        asked: `auto` for the coarsest level that is no coarser than tiles, or a number.
        notes: Of the scan.

    Raises:
        SlideError: The slide has no such level.
    """
    best, levels = slide.level_for(scale), slide.reader.levels
    if asked == "auto":
        return best
    try:
        number = int(asked)
    except ValueError:
        number = -1
    if not 0 <= number < len(levels):
        smaller = [f"{place} ({level.across:g} times smaller)" for place, level in enumerate(levels)][1:]
        sizes = ", ".join(["0 (full resolution)", *smaller])
        raise SlideError(
            f"--read-level {asked}",
            where=slide.path,
            expected=f"auto or one of its levels: {sizes}",
            remedy="change it",
        )
    if levels[number].across > scale * 1.01:
        notes.append(
            f"level {number} was read, as was asked, which is {levels[number].across / scale:.3g} times coarser than "
            "tiles; they were enlarged and probabilities are less reliable"
        )
    elif number != best:
        notes.append(f"level {number} was read, as was asked, in place of level {best}")
    return number


def require_bits(slide: Slide) -> None:
    """Nothing, where it is known how many bits hold the slide's picture.

    Raises:
        SlideError: Nothing states it, and by the range of its numbers the slide would be nearly black.
    """
    if slide.reader.bits:
        doubt = next(note for note in slide.notes if "too dark" in note)
        raise SlideError(
            doubt, where=slide.path, expected="a slide that says its bits", remedy=asked_for(slide.reader.bits)
        )


def check_arguments(
    overlap: float,
    minimum_tissue: float,
    batch_size: int,
    bits: int | None,
    resolutions: dict[str, float | None],
) -> None:
    """Refuse values out of range; `resolutions` by the name of their option."""
    checks = [
        ("--overlap", overlap, 0 <= overlap <= 0.9, "between 0 and 0.9"),
        ("--minimum-tissue", minimum_tissue, 0 <= minimum_tissue <= 1, "between 0 and 1"),
        ("--batch-size", batch_size, batch_size >= 1, "at least 1"),
        ("--bits", bits, bits is None or 9 <= bits <= 16, "9 to 16, such as 12; slides of 8 bits need none"),
    ]
    low, high = RESOLUTIONS
    for name, value in resolutions.items():
        if value is not None:
            checks.append((name, value, low <= value <= high, f"um per pixel from {low} to {high}"))
    for name, value, valid, expected in checks:
        if not valid:
            raise SlideError(f"the value {value!r}", where=name, expected=expected, remedy="change it")
