"""Where a verb may write: refused before the work rather than after it, and never over what is not its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tumortrace.errors import RunError, shown
from tumortrace.records.user_tables import read_text


def require_file(target: Path, *, inputs: Iterable[object] = ()) -> None:
    """Refuse a file that cannot be written, that is read by the same call, or that belongs to a run's records.

    Args:
        target: The file to write; its folder need not exist yet.
        inputs: What the call reads: paths are compared with `target`, anything else is passed over.

    Raises:
        RunError: It cannot be written there, or something of the user's would be lost.

    Example:
        >>> require_file(Path("labels.csv"), inputs=["labels.csv"])
        Traceback (most recent call last):
        tumortrace.errors.RunError: labels.csv: is what the call reads; expected another file. What to do: ...
    """
    if target.is_dir():
        raise RunError("is a folder", where=target, expected="a file", remedy=f"name one, such as {target / 'NAME'}")
    mine = os.path.realpath(target)
    if any(isinstance(read, str | os.PathLike) and os.path.realpath(read) == mine for read in inputs):
        raise RunError("is what the call reads", where=target, expected="another file", remedy="choose another -o")
    if (target.parent / "run.json").is_file() and target.exists():
        raise RunError(
            "a file of a run's own records, which would be lost",
            where=target,
            expected="another file",
            remedy="choose another -o",
        )
    _require_writable(target, target.parent)


def require_same_data(folder: Path, before: str, data: str) -> None:
    """Refuse a folder that holds what the same verb said of other data.

    Args:
        folder: The folder to write.
        before: The data of which it holds that; blank where it holds nothing, or does not say.
        data: The data of this call.

    Raises:
        RunError: They differ.
    """
    if before and before != data:
        expected = "the same data, or a folder not in use"
        raise RunError(f"holds results of {before}", where=folder, expected=expected, remedy="choose another -o")


def require_same_images(target: Path, ids: Iterable[str], *, before: str = "", data: str = "") -> None:
    """Refuse a file that is there and holds something else than a table of these images.

    Args:
        target: The file to write.
        ids: Ids of the images.
        before: The data of which it is known to hold rows; blank where nothing says so, or these are their images.
        data: The data of this call.

    Raises:
        RunError: It holds other images, those of other data under the same ids too, or is no table of images.
    """
    if not target.is_file() or not target.stat().st_size:
        return
    remedy = "choose another -o, or remove it"
    try:
        earlier = set(read_text(target, RunError)[0]["id"])
    except (RunError, KeyError):
        raise RunError("is there, and no table of images", where=target, remedy=remedy) from None
    whose = f" of {before}" if before else ""
    if others := earlier.symmetric_difference(ids):
        found = f"holds rows of other images{whose} ({len(earlier):,} rows, differing in {shown(min(others))})"
        raise RunError(found, where=target, expected="the same images, or a name not in use", remedy=remedy)
    if before and before != data:
        found = f"holds rows{whose}, whose images have the same ids and are others"
        raise RunError(found, where=target, expected=f"those of {data}, or a name not in use", remedy=remedy)


def require_folder(folder: Path) -> None:
    """Refuse a folder that cannot be made or written.

    Raises:
        RunError: It is a file, lies below one, or its place takes no files.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError("is a file", where=folder, expected="a folder, or a name not in use", remedy="choose another -o")
    _require_writable(folder, folder)


def require_own_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written, or that is a run's, whose report and metrics would be lost.

    Raises:
        RunError: It is one of these.
    """
    if (folder / "run.json").is_file():
        raise RunError(
            "the folder of a run, whose own metrics and report would be lost",
            where=folder,
            expected="a folder of its own",
            remedy=f"name another with -o, such as {folder / 'evaluations' / 'NAME'}",
        )
    require_folder(folder)


def differing(before: object, now: object, name: str = "") -> list[str]:
    """What differs between two requests as records hold them, by name, with both values where these are short.

    Example:
        >>> differing({"size": 96, "slides": [["a", 1], ["b", 2]]}, {"size": 64, "slides": [["a", 1], ["b", 3]]})
        ['size 96, now 64', 'slides b']
    """
    if before == now:
        return []
    old, new = _named(before, name), _named(now, name)
    if old is not None and new is not None:
        keys = dict.fromkeys((*new, *old))
        return [line for key in keys for line in differing(old.get(key), new.get(key), key)]
    told = f"{name} {before}, now {now}"
    return [name if isinstance(before, list | dict) or isinstance(now, list | dict) else told]


def _named(part: object, name: str) -> dict[str, object] | None:
    """The parts of a part by their names; rows are named by what stands first in them."""
    if isinstance(part, dict):
        return part
    if isinstance(part, list) and part and all(isinstance(row, list) and row for row in part):
        return {f"{name} {row[0]}": row[1:] for row in part}
    return None


def _require_writable(target: Path, folder: Path) -> None:
    """Try a nameless file in the nearest folder that exists: permissions alone do not tell of every file system."""
    nearest = next((part for part in (folder, *folder.absolute().parents) if part.exists()), Path.cwd())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise RunError(
            f"cannot be written ({error.strerror}: {nearest})",
            where=target,
            expected="a place that takes files",
            remedy="choose another -o",
        ) from None
