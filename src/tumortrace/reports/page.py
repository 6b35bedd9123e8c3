"""The one frame of all pages: templates filled in, figures and pictures embedded, so that a page is one file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader
from markupsafe import Markup
from PIL import Image

from tumortrace.records.files import write_text
from tumortrace.reports.drawing import Drawn
from tumortrace.reports.wording import decimals, interval, p_text, signed

REPORT = "report.html"
KINDS = {".svg": "image/svg+xml", ".png": "image/png"}
#: Variables of a template.
Context = dict[str, Any]


def write_page(path: Path, template: str, drawn: Drawn | None = None, **context: Any) -> Path:
    """Write a page: its template within the frame (`base.html.j2`), with its figures, and a line on those that failed.

    Args:
        path: HTML file to write; opens anywhere, offline and without scripts.
        template: Of this room.
        drawn: Its figures.
        **context: What the template shows.

    Returns:
        `path`.
    """
    write_text(path, render(template, **embed_figures(drawn or Drawn()), **context))
    return path


def embed_figures(drawn: Drawn) -> Context:
    """`figures`, the data URI of each by name, and `undrawn`, why others are left out."""
    return {
        "figures": {name: data_uri(path.read_bytes(), KINDS[path.suffix]) for name, path in drawn.files.items()},
        "undrawn": drawn.failed,
    }


class _NotAvailable(ChainableUndefined):
    """What a template shows for a value that no record holds."""

    def __str__(self) -> str:
        return "not available"

    __html__ = __str__


def render(template: str, **context: Any) -> str:
    """A template of this room, filled in; text from records is escaped."""
    return _environment().get_template(template).render(**context)


@cache
def _environment() -> Environment:
    """Where the templates are compiled, once each."""
    environment = Environment(
        loader=PackageLoader("tumortrace.reports"),
        autoescape=True,
        undefined=_NotAvailable,
        finalize=lambda value: "not available" if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    numbers: Mapping[str, Callable[..., Any]] = {
        "decimals": decimals,
        "interval": interval,
        "signed": signed,
        "p": p_text,
        "percent": lambda share: f"{100 * share:.1f} %",
        "thousands": lambda count: f"{count:,}" if isinstance(count, int) else count,
        "duration": _duration,
    }
    environment.filters |= {name: _or_dash(function) for name, function in numbers.items()}
    environment.filters |= {"md": _markdown, "mdcode": _markdown_code}
    return environment


def _or_dash(function: Callable[..., Any]) -> Callable[..., Any]:
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


def embed_picture(folder: Path, name: str | None, side: int) -> str | None:
    """A picture of `folder`, scaled to `side` pixels at most, as a data URI; None if it is missing or unreadable.

    Args:
        folder: What the record that names the picture may name files of, and no others.
        name: The file, relative to the folder.
        side: Pixels of the longer side.
    """
    path = (folder / str(name)).resolve()
    if not name or not path.is_relative_to(folder.resolve()):
        return None
    try:
        with Image.open(path) as file:
            return embed_image(file.convert("RGB"), side, "PNG")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def embed_image(picture: Image.Image, side: int, kind: str, **options: Any) -> str:
    """A picture, scaled to `side` pixels at most, as a data URI of the kind "PNG" or "JPEG"."""
    picture.thumbnail((side, side))
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return data_uri(content.getvalue(), f"image/{kind.lower()}")


def data_uri(content: bytes, kind: str) -> str:
    """Bytes of the media type `kind` as a data URI.

    Example:
        >>> data_uri(b"<svg/>", "image/svg+xml")
        'data:image/svg+xml;base64,PHN2Zy8+'
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
