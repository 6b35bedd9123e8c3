"""Commands from functions: a verb takes what its function takes, told as the function's docstring tells it."""

from __future__ import annotations

import builtins
import collections.abc
import importlib
import inspect
import math
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cyclopts import Parameter, Token, convert, validators
from docstring_parser.google import parse

from tumortrace.cli.urls import delivered, localised
from tumortrace.cli.verbs import Verb
from tumortrace.errors import RunError

SHARED = {"reading": "tumortrace.cohorts.cohort:Reading", "hands": "tumortrace.work.hands:Hands"}
"""What `**reading` stands for in a function that takes data, and `**hands` in one that divides its work."""

NAMES = {
    "annotation_classes": "--class",
    "audit": "--check",
    "changes": "--set",
    "corruptions": "--corruption",
    "methods": "--method",
    "out": ("--out", "-o"),
    "subgroups": "--subgroup",
}
"""Options that are called otherwise than the argument."""

TYPES: Mapping[str, Any] = {
    "split": Literal["group", "random"],
    "precision": Literal["auto", "32", "bf16"],
    "weights": str,
}
"""Arguments of which the command line knows more than the function's annotation says."""

LEAST = dict.fromkeys(("devices", "epochs_max", "nodes", "repeats", "sample", "trials", "workers"), 1) | {"folds": 2}
LEAST |= dict.fromkeys(("before_after", "pictures", "seed", "split_seed"), 0)
"""The least number that may be given."""

VARIABLES = {"token": "TUMORTRACE_TOKEN"}
"""Environment variables that stand for an option."""

_PYTHON = re.compile(r",? or (?:a recipe|a space|a loaded model|an? (?:open|opened) cohort)\b")  # what no word can name


def command(verb: Verb) -> Callable[..., int]:
    """What cyclopts calls for a verb: the function's parameters with types and help; returns the exit code."""
    function = load(verb.function)
    parameters = [p.replace(default=verb.defaults.get(p.name, p.default)) for p in parameters_of(function)]
    resume = load(verb.resume) if verb.resume else None
    if resume is not None:
        data, *others = parameters
        described = Parameter(help=f"{inspect.getdoc(resume).splitlines()[0]} Takes everything from its record.")  # type: ignore[union-attr]
        option = inspect.Parameter(
            "resume", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[Path | None, described]
        )
        kind, *rest = get_args(data.annotation)
        parameters = [data.replace(default=None, annotation=Annotated[kind | None, *rest]), option, *others]
    signature = inspect.Signature(parameters)

    def call(*words: Any, **options: Any) -> int:
        given = signature.bind(*words, **options).arguments
        given = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
        unsaid = {"out": signature.parameters["out"].default} if "out" in signature.parameters else {}
        named = localised(unsaid | given, parent=resume is not None)
        given = {name: named[name] for name in given}
        if "resume" in given:
            assert resume is not None
            folder = given.pop("resume")
            result = resume(folder, **_beside(resume, given, signature))
        elif resume is not None and "data" not in given:
            raise RunError("neither data nor --resume", expected="one of the two")
        else:
            result = function(**{**verb.defaults, **given})
        result = delivered(result, named)
        if verb.prints and isinstance(result, Path | str):
            print(result)
        return result if isinstance(result, int) else 0

    told = parse(inspect.getdoc(function) or "")
    call.__doc__ = "\n\n".join(text for text in (told.short_description, told.long_description) if text)
    call.__signature__ = signature  # type: ignore[attr-defined]
    del call.__annotations__["words"], call.__annotations__["options"]
    return call


def load(function: str) -> Callable[..., Any]:
    """The function that `module:name` stands for."""
    module, _, name = function.partition(":")
    loaded: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return loaded


def parameters_of(function: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    """The parameters of a function that words can give, each with its type and its help; positional ones first."""
    told = {entry.arg_name: entry.description or "" for entry in parse(inspect.getdoc(function) or "").params}
    shown: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        name, default = parameter.name, parameter.default
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            extended = getattr(function, "extends", None)
            others = parameters_of(load(extended or SHARED[name]))
            more = [other for other in others if other.name not in {p.name for p in shown}]
            shown += more if extended else [p.replace(kind=p.KEYWORD_ONLY) for p in more]
            continue
        kind = _typed(_hint(parameter.annotation, function))
        kind = kind if get_origin(kind) is Literal else TYPES.get(name) or kind
        if kind is None:
            continue
        text, listed = _PYTHON.sub("", told.get(name, "")), get_origin(kind) is list
        if listed and parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            text += " May be given several times."
        elif listed:  # it takes all words, also those behind options, so that those before it have no names
            shown = [other.replace(kind=inspect.Parameter.POSITIONAL_ONLY) for other in shown]
            option = Parameter(help=text, converter=converted, required=default is parameter.empty)
            word: Any = Annotated[get_args(kind)[0], option]
            shown.append(inspect.Parameter(name, inspect.Parameter.VAR_POSITIONAL, annotation=word))
            continue
        if listed and default is not parameter.empty:
            default = [default] if isinstance(default, str) else list(default or ()) or None
        option = Parameter(
            name=NAMES.get(name),
            help=text,
            show_default=", ".join if listed and default else None,
            negative="" if listed else None,
            converter=converted,
            validator=validators.Number(gte=LEAST[name]) if name in LEAST else None,
            env_var=VARIABLES.get(name),
        )
        kind = kind | None if default is None else kind
        shown.append(parameter.replace(default=default, annotation=Annotated[kind, option]))
    yield from sorted(shown, key=lambda parameter: parameter.kind)


def converted(type_: Any, tokens: Sequence[Token]) -> Any:
    """As cyclopts does, but 1.5 is not rounded where a whole number is asked for, and nan and inf are no numbers."""
    value = convert(type_, tokens)
    if isinstance(value, int | float) and not isinstance(value, bool):
        given = float(tokens[0].value) if "." in tokens[0].value else value
        if not math.isfinite(value) or given != value:
            raise ValueError
    return value


def _hint(annotation: Any, function: Callable[..., Any]) -> Any:
    """The annotation as an object; what is imported for type checkers alone stands for itself, as no word gives it."""

    class Known(dict[str, object]):
        def __missing__(self, name: str) -> Any:
            return vars(sys.modules[function.__module__]).get(name, getattr(builtins, name, object))

    return eval(annotation, {}, Known()) if isinstance(annotation, str) else annotation  # noqa: S307


def _typed(hint: Any) -> Any:
    """The type that words become: `Path` for a path, `str` for a path or a name, a list for a sequence; else None."""
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    members = tuple(member for member in members if member is not types.NoneType)
    for member in members:
        if get_origin(member) in (list, tuple, collections.abc.Sequence):
            inner: Any = _typed(get_args(member)[0])
            return None if inner is None else list[inner]
    if Path in members and len(members) <= 2:
        return Path
    return next((m for m in members if m in (str, int, float, bool) or get_origin(m) is Literal), None)


def _beside(resume: Callable[..., Any], given: Mapping[str, Any], signature: inspect.Signature) -> Mapping[str, Any]:
    """What may stand beside `--resume`; all else would be passed over, as everything comes from the record.

    Raises:
        RunError: Naming the first that was given.
    """
    allowed = {parameter.name for parameter in parameters_of(resume)}
    for argument, value in given.items():
        if argument not in allowed and value != signature.parameters[argument].default:
            name = NAMES.get(argument, "--" + argument.replace("_", "-"))
            option = argument if argument == "data" else name
            raise RunError(
                f"{option} and --resume",
                expected="--resume alone, which takes everything from the record",
                remedy="leave one of them out",
            )
    return {argument: value for argument, value in given.items() if argument in allowed}
