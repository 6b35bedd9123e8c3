"""What can be wrong with what is said of the pictures: labels, ids, slides or patients."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

import pandas as pd

from tumortrace.cohorts.cohort import COLUMNS, Cohort
from tumortrace.cohorts.columns import listed
from tumortrace.cohorts.findings import EXAMPLES, FINDERS, Evidence, Example, Finding, Verdict, count, examples, several
from tumortrace.cohorts.labels import class_of, is_blank
from tumortrace.cohorts.levels import group_levels_told, relative
from tumortrace.cohorts.splits import LEAK
from tumortrace.records.remote import mirrored

RARE = 0.1  # share of the smaller class below which accuracy and thresholds need care


@FINDERS.register("labels")
def find(evidence: Evidence) -> Iterator[Finding]:
    """Findings about labels."""
    yield from _unread(evidence)
    yield from _missing(evidence)
    yield from _classes(evidence)


def _unread(evidence: Evidence) -> Iterator[Finding]:
    """Texts that are no label, and labels spelled in several ways."""
    listed, cohort = evidence.listed, evidence.cohort
    classes = cohort.class_names or cohort.classes
    merge = cohort.source.reading.merge if cohort.source else ()
    texts = _texts(listed)
    read = {text: class_of(text, classes, merge) for text in texts.unique()}
    bad = listed[texts.map({text: name is None for text, name in read.items()}).astype(bool) & (texts != "")]
    if len(bad):
        counts = texts[bad.index].value_counts()
        names = ", ".join(f"{text!r} ({number:,})" for text, number in counts.head(5).items())
        known = f"neither {classes[0]} nor {classes[1]}" if len(classes) == 2 else "none of the classes"
        message = f"{count(len(bad), 'label')} that name {known}: {names}"
        shown = _rows(bad)
        remedy = "correct them, remove these rows, or keep two classes; --positive NAME names the positive one"
        yield Finding("labels-not-binary", "error", len(bad), message, remedy, shown)
    if merge:
        return  # several spellings of a class are what was asked for
    spellings = {name: [text for text in texts.unique() if text and read[text] == name] for name in classes}
    if max(map(len, spellings.values())) > 1:
        told = [f"{', '.join(map(repr, spellings[name]))} as {name}" for name in classes if spellings[name]]
        usual = {texts[texts.isin(spellings[name])].mode()[:1].squeeze() for name in classes if spellings[name]}
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


# Ids and groups: repeated, or alike but for case or Unicode form.


@FINDERS.register("identities")
def find_identities(evidence: Evidence) -> Iterator[Finding]:
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


# Groups (slides or patients): unknown, in several splits, each of one class.


FEW = 10  # groups per class below which groups of one class each are no basis
TELLS = 0.8  # informedness of the guess "as the others of its group" from which on the group tells the label


@FINDERS.register("groups")
def find_groups(evidence: Evidence) -> Iterator[Finding]:
    """Findings about groups."""
    yield from _across_splits(evidence.table)
    yield from _unknown(evidence)
    yield from _telling(evidence.table)


def _across_splits(table: pd.DataFrame) -> Iterator[Finding]:
    bad = table[several(table, "group", "split")]
    groups = bad["group"].unique()
    if len(groups):
        known = table["group"].nunique()
        message = f"patients leak: {len(groups):,} of {known:,} groups (slides or patients) stand in several splits"
        own = table["own_split"].notna().any()
        remedy = (
            "correct the splits that the data bring, so that each slide or patient stands in one; "
            f"--allow {LEAK} goes on with the leak, on record"
            if own
            else "split by group (--split group)"
        )
        where = bad.groupby("group")["split"].value_counts()
        says = [
            ", ".join(f"{images} in {split}" for split, images in where[name].items()) for name in groups[:EXAMPLES]
        ]
        shown = tuple(Example(name, says=text) for name, text in zip(groups, says, strict=False))
        yield Finding(LEAK, "error", len(groups), message, remedy, shown)


def _unknown(evidence: Evidence) -> Iterator[Finding]:
    table = evidence.table
    unknown = int(table["group"].isna().sum())
    if unknown:
        message = f"leakage is not ruled out: the slide or patient of {unknown:,} of {len(table):,} images is not known"
        remedy = "; ".join(_ways_to_groups(evidence.cohort))
        yield Finding("groups-unknown", "warning", unknown, message, remedy)


def _ways_to_groups(cohort: Cohort) -> Iterator[str]:
    """What can name slides or patients in these data: columns, folders, names of files."""
    table = cohort.table
    own = [name for name in table if name not in (*COLUMNS, "class_name") and 1 < table[name].nunique() < len(table)]
    if own:
        yield f"name it with --group-column: {listed(own)}"
    if cohort.source and not any(image.part for image in cohort.images):
        levels = group_levels_told(relative(table["path"].tolist(), mirrored(cohort.source.path)))
        yield from [levels] if levels else []
    yield "give a table with a column group or patient, or say --group-from-name where file names hold it"


def _telling(table: pd.DataFrame) -> Iterator[Finding]:
    """Groups that tell the label, unless all of many are of one class: then it is the patient that is labelled."""
    known = table[table["group"].notna() & table["label"].notna()]
    positives = known.groupby("group")["label"].agg(images="size", positive="sum")
    if len(positives) < 2 or positives["images"].max() < 2:
        return
    one_class = (positives["positive"] == 0) | (positives["positive"] == positives["images"])
    by_class = [
        int((one_class & (positives["positive"] > 0)).sum()),
        int((one_class & (positives["positive"] == 0)).sum()),
    ]
    if min(by_class) == 0 or (one_class.all() and min(by_class) >= FEW):
        return
    size, total = (known["group"].map(positives[column]).astype(float) for column in positives)
    label = known["label"].astype(float)
    others = ((total - label) / (size - 1))[size > 1]
    guess = (others > 0.5).groupby(label[others.index]).mean()
    if guess.get(1.0, 0.0) - guess.get(0.0, 1.0) >= TELLS:
        message = (
            f"the group alone tells the label: {int(one_class.sum()):,} of {len(positives):,} groups are of one class, "
            "so that a model may learn slides instead of tissue"
        )
        remedy = "add groups that hold both classes; judge by group, and trust intervals by group only"
        first = positives[one_class].sort_values("images", ascending=False, kind="stable").head(EXAMPLES)
        shown = tuple(
            Example(str(row.Index), says=f"{row.positive} of {row.images} positive") for row in first.itertuples()
        )
        yield Finding("group-tells-label", "warning", int(one_class.sum()), message, remedy, shown)
