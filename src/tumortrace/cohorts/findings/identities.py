"""Ids and groups: repeated, or alike but for case or Unicode form."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

import pandas as pd

from tumortrace.cohorts.findings import EXAMPLES, FINDERS, Evidence, Example, Finding, count


@FINDERS.register("identities")
def find(evidence: Evidence) -> Iterator[Finding]:
    """Findings about ids and names of groups."""
    yield from _repeated(evidence)
    yield from _blank(evidence.listed)
    table, listed = evidence.table, evidence.listed
    ids = pd.concat([table["id"], listed["id"]])
    yield from _alike(ids, "ids-alike", "id", "give each image an id of its own: on many disks these are one file")
    remedy = "write each slide or patient in one way: splits take these for different ones"
    yield from _alike(table["group"], "groups-alike", "group", remedy)


def _repeated(evidence: Evidence) -> Iterator[Finding]:
    """Ids that come twice: in the cohort, or in the label table, where exact repeats are dropped on opening."""
    table, listed = evidence.table, evidence.listed
    named = listed[listed["id"] != ""]
    twice = [each[each["id"].duplicated(keep=False)].groupby("id") for each in (table, named)]
    values = [twice[0][["label", "digest"]].nunique().max(axis=1), twice[1]["text"].nunique()]
    clashing = sorted({identity for each in values for identity in each.index[each > 1]})
    alike = sorted({identity for each in values for identity in each.index} - set(clashing))
    if clashing:
        message = f"{_ids(clashing)}, with different labels or pictures"
        leave_out = dict.fromkeys(table.index[table["id"].isin(clashing)], "its id stands for several things")
        shown = _lines(clashing, listed)
        yield Finding("ids-conflict", "error", len(clashing), message, "keep the row that is right", shown, leave_out)
    if alike:
        message = f"{_ids(alike)}, for the same picture and label"
        yield Finding("ids-repeated", "warning", len(alike), message, "keep one row of each", _lines(alike, listed))


def _ids(ids: list[str]) -> str:
    return f"{count(len(ids), 'id')} {'comes' if len(ids) == 1 else 'come'} more than once"


def _lines(ids: list[str], listed: pd.DataFrame) -> tuple[Example, ...]:
    """The first of these ids, with their lines in the label table."""
    lines = {each: listed.index[listed["id"] == each][:4] for each in ids[:EXAMPLES]}
    return tuple(Example(each, says=", ".join(f"line {line}" for line in found)) for each, found in lines.items())


def _blank(listed: pd.DataFrame) -> Iterator[Finding]:
    blank = listed.index[listed["id"] == ""]
    if len(blank):
        message = f"{count(len(blank), 'row')} without an id (line {', '.join(map(str, blank[:3]))})"
        yield Finding("ids-blank", "error", len(blank), message, "fill it in, or remove the row")


def _alike(names: pd.Series, name: str, what: str, remedy: str) -> Iterator[Finding]:
    distinct = names.dropna().drop_duplicates()
    plain = distinct.map(lambda text: unicodedata.normalize("NFKC", text).casefold().strip())
    alike = distinct[plain.duplicated(keep=False)]
    if len(alike):
        sets = plain[alike.index].rank(method="dense").astype(int)
        order = sets.sort_values(kind="stable").index[:EXAMPLES]
        shown = tuple(Example(alike[row], says=ascii(alike[row]), set=int(sets[row])) for row in order)
        message = f"{count(len(alike), what)} that differ in case, blanks or Unicode form only"
        yield Finding(name, "warning", len(alike), message, remedy, shown)
