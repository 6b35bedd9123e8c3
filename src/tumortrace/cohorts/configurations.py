"""Configurations of a Hugging Face data set: several sets of images in one repository, of which one is taken.

They stand in the front matter of its README.md, https://huggingface.co/docs/hub/datasets-manual-configuration, or are
folders that hold shards of the same names, such as `40X/train-00000-of-00001.parquet` beside `100X/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tumortrace.cohorts.names import split_of
from tumortrace.cohorts.shards import split_of_shard
from tumortrace.errors import CohortError, plain

DEFAULT = "default"


@dataclass(frozen=True)
class Configuration:
    """One set of images.

    Attributes:
        name: Of it.
        shards: Its files that are there.
        default: Whether it is the one to take where none is named.
        splits: What README.md calls the split of a file.
    """

    name: str
    shards: list[Path]
    default: bool = False
    splits: dict[Path, str] = field(default_factory=dict)


def chosen(path: Path, shards: Sequence[Path]) -> tuple[Configuration, list[str]]:
    """The configuration to read, and what to say of it; all shards where there are no several.

    Args:
        path: The data.
        shards: All files there.

    Raises:
        CohortError: There are several, and none of them goes before the others.
    """
    declared = [one for one in _declared(path, shards) if one.shards]
    several = declared if len(declared) > 1 else _folders(path, shards)
    if len(several) < 2:
        return Configuration(DEFAULT, list(shards), splits=declared[0].splits if declared else {}), []
    names = ", ".join(plain(one.name) for one in several[:8]) + (", ..." if len(several) > 8 else "")
    first = next((one for one in several if one.default), None)
    if first is None:
        raise CohortError(
            f"{len(several)} configurations ({names}), each a set of images of its own",
            where=path,
            expected="one of them",
            remedy=f"name one, such as {_place(path, several[0])}",
        )
    other = next(one for one in several if one is not first)
    told = f"configuration {first.name} of {len(several)} ({names}) is taken; another is {_place(path, other)}"
    return first, [told]


def _place(path: Path, one: Configuration) -> str:
    """The folder that holds its files and no others', or else a folder to be made."""
    parents = {shard.parent for shard in one.shards}
    folder = next((part for part in sorted(parents) if part != path), None)
    while folder is not None and not all(shard.is_relative_to(folder) for shard in one.shards):
        folder = folder.parent
    if folder is None or folder == path:
        return f"a folder with {one.shards[0].name} and the like alone"
    return str(folder)


def _declared(path: Path, shards: Sequence[Path]) -> list[Configuration]:
    """Those that README.md names, with the files that its patterns match; none where it names none."""
    listed = _front_matter(path).get("configs")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    several = []
    for entry in entries:
        name = str(entry.get("config_name") or DEFAULT)
        splits: dict[Path, str] = {}
        for pattern, split in _patterns(entry):
            splits |= dict.fromkeys(_matched(path, pattern, shards), split)
        known = {shard: said for shard, text in splits.items() if (said := split_of(text))}
        default = entry.get("default") is True or name == DEFAULT
        several.append(Configuration(name, [shard for shard in shards if shard in splits], default, known))
    return several


def _patterns(entry: dict[str, Any]) -> list[tuple[str, str]]:
    """Patterns of a configuration's files, each with the split that it names or a blank."""
    files, base = entry.get("data_files"), str(entry.get("data_dir") or "").strip("/")
    listed = files if isinstance(files, list) else [files if files is not None else "**"]
    pairs = []
    for one in listed:
        paths, split = (one.get("path"), str(one.get("split") or "")) if isinstance(one, dict) else (one, "")
        pairs += [(str(text), split) for text in (paths if isinstance(paths, list) else [paths]) if text]
    return [(f"{base}/{pattern}" if base else pattern, split) for pattern, split in pairs]


def _matched(path: Path, pattern: str, shards: Sequence[Path]) -> list[Path]:
    try:
        matched = set(path.glob(pattern.rstrip("/")))
    except (ValueError, NotImplementedError):  # a pattern of another place
        return []
    return [shard for shard in shards if shard in matched or matched.intersection(shard.parents)]


def _front_matter(path: Path) -> dict[str, Any]:
    """The YAML between the first two lines of dashes of README.md; empty where there is none that can be read."""
    try:
        text = (path / "README.md").read_text("utf-8")
        content = yaml.safe_load(text.split("\n---", 1)[0].removeprefix("---")) if text.startswith("---") else {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _folders(path: Path, shards: Sequence[Path]) -> list[Configuration]:
    """Folders that have shards of the same names within, which say a split; none where fewer than two are there."""
    below: dict[str, list[Path]] = {}
    for shard in shards if path.is_dir() else ():
        parts = shard.relative_to(path).parts
        if len(parts) > 1 and split_of(parts[0]) is None and split_of_shard(shard, path / parts[0]):
            below.setdefault(parts[0], []).append(shard)
    inner = {name: {shard.relative_to(path / name) for shard in files} for name, files in below.items()}
    shared = [
        name for name, own in inner.items() if any(own & others for other, others in inner.items() if other != name)
    ]
    return [Configuration(name, below[name], name == DEFAULT) for name in shared] if len(shared) > 1 else []
