"""Files: missing, without a label, undecodable, of another format than their name says."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pandas as pd

from tumortrace.cohorts.findings import EXAMPLES, FINDERS, LEAVE_OUT, Evidence, Example, Finding, count, examples

_ENDINGS = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm", ".pnm", ".pbm"),
    "JPEG2000": (".jp2",),
}


@FINDERS.register("files")
def find(evidence: Evidence) -> Iterator[Finding]:
    """Findings about files, those that can be read least first."""
    yield from _missing(evidence)
    yield from _undecodable(
        evidence.table, "truncated", "cut off before its end", "cut off before their end", "copy or download them again"
    )
    yield from _undecodable(evidence.table, "unreadable", "not readable", "not readable", "restore them")
    yield from _unlisted(evidence)
    yield from _wrong_format(evidence.sound)


def _missing(evidence: Evidence) -> Iterator[Finding]:
    rows, gone = evidence.listed, evidence.table[evidence.table["problem"] == "missing"]
    lost = rows[rows["file"].isna()]
    if number := len(gone) + len(lost):
        shown = [Example(str(name), says=f"line {line}") for line, name in lost["id"].head(EXAMPLES).items()]
        shown += [
            Example(name, says=os.path.basename(path)) for name, path in gone[["id", "path"]].to_numpy()[:EXAMPLES]
        ]
        total = len(rows) or len(evidence.table)
        message = f"{number:,} of {total:,} images that the data name {'is' if number == 1 else 'are'} not there"
        remedy = "copy or download the rest, or remove these rows"
        leave_out = dict.fromkeys(gone.index, "there is no such file")
        yield Finding("files-missing", "error", number, message, remedy, tuple(shown[:EXAMPLES]), leave_out)


def _undecodable(table: pd.DataFrame, name: str, one: str, many: str, remedy: str) -> Iterator[Finding]:
    bad = table[table["problem"] == name]
    if len(bad):
        message = f"{len(bad):,} of {len(table):,} images {f'is {one}' if len(bad) == 1 else f'are {many}'}"
        shown = examples(bad, bad["reason"])
        leave_out = dict(zip(bad.index, bad["reason"], strict=True))
        yield Finding(name, "error", len(bad), message, f"{remedy}, or {LEAVE_OUT}", shown, leave_out)


def _unlisted(evidence: Evidence) -> Iterator[Finding]:
    files = evidence.unlisted
    if files:
        where = "row in the label table" if len(evidence.listed) else "class folder"
        message = f"{count(len(files), 'image')} beside the others {'has' if len(files) == 1 else 'have'} no {where}"
        shown = tuple(Example(os.path.basename(file), file) for file in files[:EXAMPLES])
        yield Finding("files-unlabelled", "warning", len(files), message, "label or remove them", shown)


def _wrong_format(sound: pd.DataFrame) -> Iterator[Finding]:
    suffix = sound["path"].map(lambda path: os.path.splitext(path)[1].lower())
    known = sound["format"].isin(_ENDINGS.keys()) & suffix.isin({each for names in _ENDINGS.values() for each in names})
    told = pd.Series([end in _ENDINGS.get(kind, ()) for end, kind in zip(suffix, sound["format"])], sound.index, bool)
    bad = sound[known & ~told]
    if len(bad):
        says = [f"{kind} named {end}" for end, kind in zip(suffix[bad.index], bad["format"])]
        message = f"{count(len(bad), 'image')} of another format than the name says, such as {says[0]}"
        remedy = "rename them: TumorTrace goes by the content, other programs may not"
        yield Finding("wrong-format", "warning", len(bad), message, remedy, examples(bad, says))
