"""What people write as a label, as 0 and 1 with the positive class named."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from typing import NamedTuple, TypedDict

import pandas as pd

from tumortrace.errors import CohortError

_MISSING = frozenset(("", "nan", "na", "n/a", "<na>", "null"))
# Compared without case, blanks, hyphens and underscores.
_DISEASE = r"(tumou?r(ous)?|cancer(ous)?|carcinoma|malignan(t|cy)|metasta(sis|ses|tic)|idc)"
_POSITIVE = re.compile(rf"1|t(rue)?|y(es)?|pos(itive)?|{_DISEASE}|idcpositive")
_NEGATIVE = re.compile(rf"0|f(alse)?|no?|neg(ative)?|(no|non|not){_DISEASE}|idcnegative|benign|normal|healthy|control")

# Where there are more than two classes: those that a user is likely to mean, to show how the option is written.
_LIKELY = re.compile(
    r"\d*(tum|ic|dcis|ssa)|.*(aca|scc|\.hg)|gleason[345]|"
    r"(?!no[nt]?|cancerassociated).*(tumou?r|cancer|carcinoma|malignan|metasta|invasive|insitu).*"
)


class Naming(TypedDict):
    """The fields of a `Cohort` that name its classes."""

    classes: tuple[str, str]
    class_names: tuple[str, ...]
    positive_names: tuple[str, ...]


class Labels(NamedTuple):
    """Labels as numbers.

    Attributes:
        numbers: Int64, one per text: 1 positive, 0 negative, missing where the text was blank.
        classes: Names of the negative and the positive class, as the user spells them; of a side with several classes
            their names joined by `+`.
        note: How texts became numbers, where that was not plain; else None.
        class_names: All classes where there are more than two: negative ones, then positive ones; else empty.
        positive_names: Those of them that count as positive.
        texts: The class of each text, missing where it was blank; None where there are no more than two classes.
    """

    numbers: pd.Series
    classes: tuple[str, str]
    note: str | None
    class_names: tuple[str, ...] = ()
    positive_names: tuple[str, ...] = ()
    texts: pd.Series | None = None

    @property
    def naming(self) -> Naming:
        """What a cohort is told of its classes."""
        return {
            "classes": self.classes,
            "class_names": self.class_names,
            "positive_names": self.positive_names,
        }

    def into(self, table: pd.DataFrame) -> pd.DataFrame:
        """The table, whose rows the texts were, with `label`, and with `class_name` where there are more than two."""
        table = table.assign(label=self.numbers.to_numpy())
        return table if self.texts is None else table.assign(class_name=self.texts.to_numpy())


def binary_labels(
    texts: Sequence[str], *, positive: str | None = None, merge: Sequence[str] = (), where: object = None
) -> Labels:
    """Labels 0 and 1 for texts that name two classes, or more where it is said which count as positive.

    Of two classes the positive one is the one named by `positive`, else it is known by its spelling (1, true,
    malignant, tumour, cancer, metastasis, positive ... against 0, false, benign, normal, negative ...); case does not
    matter. Of more than two, `positive` names all that are positive, separated by commas.

    Args:
        texts: One text per image; blank ones are unlabelled.
        positive: Name of the positive class, or names of several.
        merge: Classes that become one before anything else, each `NAME=a,b`.
        where: The file or folder, for messages.

    Returns:
        The numbers, the class names and a note.

    Raises:
        CohortError: There is one class only, a name is none of them, or which are positive is neither named nor known.

    Example:
        >>> labels = binary_labels(["Malignant", "Benign", ""])
        >>> labels.numbers.tolist(), labels.classes
        ([1, 0, <NA>], ('Benign', 'Malignant'))
        >>> labels = binary_labels(["benign", "invasive", "normal", "in situ"], positive="in situ,invasive")
        >>> labels.numbers.tolist(), labels.classes, labels.class_names
        ([0, 1, 0, 1], ('benign+normal', 'in situ+invasive'), ('benign', 'normal', 'in situ', 'invasive'))
        >>> binary_labels(["benign", "malignant", "normal"], merge=["no=benign,normal"]).classes
        ('no', 'malignant')
    """
    series = pd.Series(list(texts), dtype=object).str.strip()
    if merge:
        series = _merged(series, merge, where)
    plain = series.map({text: _plain(text) for text in series.unique()})
    names = _names(series, plain)
    if not names:
        return Labels(pd.Series(pd.NA, index=series.index, dtype="Int64"), ("negative", "positive"), None)
    if len(names) == 1:
        raise CohortError(
            f"1 class ({_listed(list(names.values()))})",
            where=where,
            expected="two classes",
            remedy="keep two classes, or use labels 0 and 1 in a table; --positive NAME says which of two is positive",
        )
    chosen = _positive_forms(names, positive, where)
    others = sorted((form for form in names if form not in chosen), key=lambda form: names[form])
    numbers = plain.map(dict.fromkeys(chosen, 1) | dict.fromkeys(others, 0)).astype("Int64")
    negative, positives = (tuple(names[form] for form in forms) for forms in (others, chosen))
    if len(names) == 2:
        note = None
        if {*chosen, *others} != {"0", "1"} or chosen == ["0"]:
            note = f"class {positives[0]!r} is positive (label 1), {negative[0]!r} negative (label 0)"
        return Labels(numbers, (negative[0], positives[0]), note)
    note = f"of {len(names)} classes {_listed(positives)} count as positive (label 1), {_listed(negative)} as negative"
    texts_of = plain.map(names)
    return Labels(numbers, ("+".join(negative), "+".join(positives)), note, negative + positives, positives, texts_of)


def ask_for_positive(names: Sequence[str], where: object) -> CohortError:
    """The refusal of more than two classes of which nobody has said which are positive, with the option to type."""
    names = sorted(names)
    likely = [name for name in names if _LIKELY.fullmatch(_plain(name))]
    chosen = likely if 0 < len(likely) < len(names) else names[-1:]
    such = shlex.quote(_listed(chosen).replace(", ", ","))
    refusal = CohortError(
        f"{len(names)} classes ({_listed(names)})",
        where=where,
        expected="two, or to be told which of them count as tumour",
        remedy=f"add --positive with their names, such as --positive {such}; "
        "--merge NAME=a,b makes several classes one",
    )
    refusal.classes = tuple(names)
    return refusal


def names_of(text: str, names: Collection[str]) -> list[str]:
    """The names that a text lists with commas between them, where names may hold commas too.

    Args:
        text: As a user types it.
        names: Those that there are, in any spelling of case, blanks, hyphens and underscores.

    Returns:
        Each as it is spelled in the text; from the left, the longest that is a name is taken.

    Example:
        >>> names_of("Normal, adjacent,in situ", ["normal, adjacent", "In Situ"])
        ['Normal, adjacent', 'in situ']
    """
    forms, parts = set(map(_plain, names)), text.split(",")
    listed: list[str] = []
    while parts:
        joined = (",".join(parts[:end]).strip() for end in range(len(parts), 0, -1))
        listed.append(next((name for name in joined if _plain(name) in forms), parts[0].strip()))
        parts = parts[listed[-1].count(",") + 1 :]
    return listed


def refuse_options(positive: str | None, merge: Sequence[str], classes: tuple[str, str], where: object) -> None:
    """Refuse `--positive` of another class and `--merge` where the data define their two classes themselves.

    Raises:
        CohortError: Naming the option.
    """
    if positive not in (None, classes[1]):
        found = f"no positive class {positive!r}"
        raise CohortError(found, where=where, expected=f"{classes[1]}, as the data say", remedy="leave --positive out")
    if merge:
        found = f"--merge {merge[0]}"
        raise CohortError(
            found, where=where, expected=f"the two classes {' and '.join(classes)}", remedy="leave it out"
        )


def is_blank(text: str) -> bool:
    """Whether a text stands for no label: nothing, or a spelling of missing such as NaN or N/A.

    Example:
        >>> [is_blank(text) for text in ("", " NaN ", "0")]
        [True, True, False]
    """
    return text.strip().casefold() in _MISSING


def read_alone(text: str, classes: tuple[str, str]) -> int | None:
    """1 or 0 for a text that names one of the classes or is known by its spelling; None for any other.

    Example:
        >>> [read_alone(text, ("a", "b")) for text in ("B", "Tumour", "no", "2", "")]
        [1, 1, 0, None, None]
    """
    for label, name in enumerate(classes):
        if text.strip().casefold() == name.casefold():
            return label
    for other in ("0", "1"):
        try:
            label = binary_labels([text, other]).numbers[0]
        except CohortError:
            continue
        return None if pd.isna(label) else int(label)
    return None


def class_of(text: str, classes: Sequence[str], merge: Sequence[str] = ()) -> str | None:
    """The class that a text names, after merging; of two classes also one that is known by its spelling.

    Example:
        >>> class_of("In Situ", ("benign", "insitu", "invasive")), class_of("Tumour", ("no", "yes"))
        ('insitu', 'yes')
        >>> class_of("dysplasia", ("benign", "insitu", "invasive"))
    """
    target = merged_name(text, merge)
    named = same_class(target, classes)
    if named is not None or len(classes) != 2:
        return named
    label = read_alone(target, (classes[0], classes[1]))
    return None if label is None else classes[label]


def merged_name(text: str, merge: Sequence[str]) -> str:
    """The class that `NAME=a,b` makes of a class; itself where none does.

    Example:
        >>> merged_name("Benign", ["no=benign,normal"]), merged_name("invasive", ["no=benign,normal"])
        ('no', 'invasive')
    """
    return next((new for name, new in _spelled(merge, [text]).items() if _plain(name) == _plain(text)), text)


def same_class(text: str, classes: Sequence[str]) -> str | None:
    """The class that differs from a text by case, blanks, hyphens and underscores at most.

    Example:
        >>> same_class("In Situ", ["benign", "in_situ"])
        'in_situ'
    """
    return next((name for name in classes if _plain(name) == _plain(text)), None)


def commonest_classes(texts: pd.Series, positive: str | None) -> tuple[str, str]:
    """Names of the classes after the two commonest labels that are known to be two classes."""
    common = [text for text in texts.str.strip().value_counts().index if text][:6]
    for one in common:
        for other in common:
            try:
                labels = binary_labels([one, other], positive=positive)
            except CohortError:
                continue
            return labels.classes
    return "negative", "positive"


def _plain(text: str) -> str:
    """A spelling without what does not matter; blank where there is no label."""
    text = text.strip().casefold()
    if is_blank(text):
        return ""
    try:
        number = float(text)
    except ValueError:
        return re.sub(r"[\s_-]+", "", text) or text
    return str(int(number)) if number in (0, 1) else text


def _names(series: pd.Series, plain: pd.Series) -> dict[str, str]:
    """Plain form of each class to its commonest spelling, the commonest class first."""
    counts = series.groupby([plain, series]).size().sort_values(ascending=False, kind="stable")
    names: dict[str, str] = {}
    for form, spelling in counts.index:
        names.setdefault(form, form if form in ("0", "1") else spelling)
    names.pop("", None)
    return names


def _merged(series: pd.Series, merge: Sequence[str], where: object) -> pd.Series:
    """The texts with those classes that `merge` names under their new names."""
    there = _names(series, series.map(_plain))
    spelled = _spelled(merge, there.values())
    targets = {_plain(name): target for name, target in spelled.items()}
    if there and (unknown := [name for name in spelled if _plain(name) not in there]):
        found = f"--merge names {unknown[0]!r}, which is no class"
        raise CohortError(
            found, where=where, expected=f"some of {_listed(sorted(there.values()))}", remedy="correct it"
        )
    return series.map(lambda text: targets.get(_plain(text), text))


def _spelled(merge: Sequence[str], there: Collection[str]) -> dict[str, str]:
    """The new name of each class that `NAME=a,b` merges, as the user spells it; `there` are the classes that exist."""
    targets: dict[str, str] = {}
    for one in merge:
        name, equals, parts = one.partition("=")
        names = names_of(parts, there)
        if not equals or not name.strip() or "" in map(_plain, names):
            raise CohortError(
                f"--merge {one}", expected="a name and the classes that it takes, such as no=benign,normal"
            )
        forms = set(map(_plain, targets))
        if twice := [other for other in names if _plain(other) in forms]:
            raise CohortError(f"--merge names {twice[0]!r} twice", expected="each class once", remedy="correct it")
        targets |= dict.fromkeys(names, name.strip())
    return targets


def _positive_forms(names: dict[str, str], positive: str | None, where: object) -> list[str]:
    """Plain forms of the positive classes, in the order in which the user names them."""
    spellings = _listed(sorted(names.values()))
    if positive is not None:
        spelled = {_plain(name): name for name in names_of(positive, names.values())}
        chosen = list(spelled)
        if unknown := [name for form, name in spelled.items() if form not in names]:
            found = f"no class named {unknown[0]!r}"
            raise CohortError(found, where=where, expected=f"one of {spellings}", remedy="correct --positive NAME")
        if len(chosen) == len(names):
            found = f"--positive names all {len(names)} classes ({spellings})"
            raise CohortError(found, where=where, expected="at least one that is negative", remedy="leave one out")
        return chosen
    if len(names) > 2:
        raise ask_for_positive(list(names.values()), where)
    known = [form for form in names if _POSITIVE.fullmatch(form)]
    if len(known) != 1 or not any(_NEGATIVE.fullmatch(form) for form in names):
        refusal = CohortError(
            f"which of the classes {spellings} is positive is not known",
            where=where,
            remedy="name it with --positive NAME",
        )
        refusal.classes = tuple(names.values())
        raise refusal
    return known


def _listed(names: Sequence[str]) -> str:
    """Names in one line, of at most 160 characters."""
    line = ", ".join(name[:60] for name in names[:12]) + (", ..." if len(names) > 12 else "")
    return line if len(line) <= 160 else line[:157] + "..."
