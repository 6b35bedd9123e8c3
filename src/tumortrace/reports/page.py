"""Templates of this room filled in: filters for numbers, and what is shown for a value that no record holds."""

from __future__ import annotations

import html
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader
from markupsafe import Markup

from tumortrace.reports.records import decimals, interval


class _NotAvailable(ChainableUndefined):
    """What a template shows for a value that no record holds."""

    def __str__(self) -> str:
        return "not available"

    __html__ = __str__


def render(template: str, **context: Any) -> str:
    """A template of this room, filled in; text from records is escaped."""
    environment = Environment(
        loader=PackageLoader("tumortrace.reports"),
        autoescape=True,
        undefined=_NotAvailable,
        finalize=lambda value: "not available" if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "decimals": _defined(decimals),
        "interval": _defined(interval),
        "percent": _defined(lambda share: f"{100 * share:.1f} %"),
        "thousands": _defined(lambda count: f"{count:,}" if isinstance(count, int) else count),
        "duration": _defined(_duration),
        "md": _markdown,
        "mdcode": _markdown_code,
    }
    return environment.get_template(template).render(**context)


def _defined(function: Any) -> Any:
    """The filter `function`, which passes a value that no record holds on as a dash."""
    return lambda value, *rest: "—" if value is None or isinstance(value, _NotAvailable) else function(value, *rest)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def _markdown(value: object) -> Markup:
    """Text for one line of Markdown, in which no character acts as markup."""
    text = " ".join(str("not available" if value is None else value).split())
    plain = "".join(f"\\{character}" if character in "\\`*_[]|#" else character for character in text)
    return Markup(html.escape(plain, quote=False))


def _markdown_code(value: object) -> Markup:
    if value is None or isinstance(value, _NotAvailable):
        return Markup("not available")
    return Markup("`" + " ".join(str(value).replace("`", "'").split()) + "`")
