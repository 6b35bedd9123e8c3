"""Labels: missing, not binary, spelled in several ways, one class absent or rare."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from tumortrace.cohorts.findings import EXAMPLES, FINDERS, Evidence, Example, Finding, Verdict, count, examples
from tumortrace.cohorts.labels import is_blank
from tumortrace.cohorts.source import read_alone

RARE = 0.1  # share of the smaller class below which accuracy and thresholds need care


@FINDERS.register("labels")
def find(evidence: Evidence) -> Iterator[Finding]:
    """Findings about labels."""
    yield from _unread(evidence)
    yield from _missing(evidence)
    yield from _classes(evidence)


def _unread(evidence: Evidence) -> Iterator[Finding]:
    """Texts that are no label, and labels spelled in several ways."""
    listed, classes = evidence.listed, evidence.cohort.classes
    texts = _texts(listed)
    read = {text: read_alone(text, classes) for text in texts.unique()}
    bad = listed[texts.map({text: label is None for text, label in read.items()}).astype(bool) & (texts != "")]
    if len(bad):
        counts = texts[bad.index].value_counts()
        names = ", ".join(f"{text!r} ({number:,})" for text, number in counts.head(5).items())
        message = f"{count(len(bad), 'label')} that name neither {classes[0]} nor {classes[1]}: {names}"
        shown = _rows(bad)
        remedy = "correct them, remove these rows, or keep two classes; --positive NAME names the positive one"
        yield Finding("labels-not-binary", "error", len(bad), message, remedy, shown)
    spellings = {label: [text for text in texts.unique() if text and read[text] == label] for label in (0, 1)}
    if max(map(len, spellings.values())) > 1:
        told = [f"{', '.join(map(repr, spellings[label]))} as {classes[label]}" for label in (0, 1) if spellings[label]]
        usual = {texts[texts.isin(spellings[label])].mode()[:1].squeeze() for label in (0, 1) if spellings[label]}
        odd = listed[(texts != "") & ~texts.isin(usual) & ~listed.index.isin(bad.index)]
        shown = _rows(odd)
        message = f"labels are spelled in several ways: {' and '.join(told)}"
        verdict: Verdict = "error" if evidence.refusal else "warning"
        yield Finding("labels-spelling", verdict, len(odd), message, "write each class in one way", shown)


def _texts(listed: pd.DataFrame) -> pd.Series:
    """What stands in the table as a label, blank where that is none."""
    texts = listed["text"].str.strip()
    return texts.mask(texts.map({text: is_blank(text) for text in texts.unique()}).astype(bool), "")


def _rows(listed: pd.DataFrame) -> tuple[Example, ...]:
    """The first of these rows, with what stands there as a label."""
    first = listed.head(EXAMPLES)
    says = [f"{text!r}, line {line}" for line, text in first["text"].items()]
    files = first["file"].fillna("")
    return tuple(Example(*each) for each in zip(first["id"], files, says, strict=True))


def _missing(evidence: Evidence) -> Iterator[Finding]:
    """Images without a label, unless it is the test images of a competition that have none."""
    table = evidence.table
    unread = evidence.listed.loc[_texts(evidence.listed) != "", "id"]
    bad = table[table["label"].isna() & ~table["id"].isin(unread)]
    test = (table["own_split"] == "test").fillna(False).astype(bool)
    if table.loc[test, "label"].isna().all() and not table.loc[~test, "label"].isna().all():
        bad = bad[~test[bad.index]]
    if len(bad):
        message = f"{len(bad):,} of {len(table):,} images carry no label: they serve neither training nor evaluation"
        verdict: Verdict = "note" if table["label"].isna().all() else "warning"
        yield Finding("labels-missing", verdict, len(bad), message, "label them, or leave them", examples(bad))


def _classes(evidence: Evidence) -> Iterator[Finding]:
    labels, classes = evidence.table["label"].dropna(), evidence.cohort.classes
    counts = [int((labels == label).sum()) for label in (0, 1)]
    if min(counts) == 0 < len(labels):
        absent = classes[counts.index(0)]
        message = f"no labelled image is of {absent}: nothing can be learned or measured"
        yield Finding("class-absent", "error", len(labels), message, f"add images of {absent}")
        return
    if len(labels) and min(counts) / len(labels) < RARE:
        rare = classes[counts.index(min(counts))]
        message = f"only {min(counts):,} of {len(labels):,} images ({min(counts) / len(labels):.1%}) are of {rare}"
        remedy = "go by AUROC, average precision and sensitivity, not by accuracy; look at the intervals"
        yield Finding("class-imbalance", "warning", min(counts), message, remedy)
    split = evidence.table["split"]
    per_split = pd.DataFrame({label: evidence.table["label"] == label for label in (0, 1)}).groupby(split).sum()
    lacking = [(name, classes[label]) for label in (0, 1) for name in per_split.index[per_split[label] == 0]]
    lacking = [(name, absent) for name, absent in lacking if per_split.loc[name].sum()]
    if lacking:
        message = "; ".join(f"the {name} split holds no image of {absent}" for name, absent in lacking)
        remedy = "divide the data anew, or add images: nothing can be measured there"
        yield Finding("class-absent-in-split", "warning", len(lacking), message, remedy)
