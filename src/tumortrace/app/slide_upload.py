"""A form with a slide in it, written to the disk as it comes in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from tumortrace.app.problems import Problem

_FIELDS, _FIELD_BYTES = 16, 1000


@dataclass
class SlideForm:
    """What a form held.

    Attributes:
        fields: Its plain fields.
        file_name: The name that came with the file, None where there was none. Never a path.
    """

    fields: dict[str, str] = field(default_factory=dict)
    file_name: str | None = None


async def receive_form(
    content_type: str, body: AsyncIterator[bytes], target: Callable[[str], Path], fits: Callable[[int], bool]
) -> SlideForm:
    """Read a multipart form; its one file goes straight to the disk.

    Args:
        content_type: The request's.
        body: Its body, bounded by the server.
        target: Given the file's name, says where its bytes go.
        fits: Told how many bytes of the file come in, says whether there is room for them.

    Raises:
        Problem: It is no such form or breaks off (400, 415), holds more than it may (413), or the disk is full (507).
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Problem(415, "the body is no form", "send multipart/form-data with a field `file` or `name`")
    parts = _Parts(target, fits)
    try:
        parser = MultipartParser(options[b"boundary"], parts.callbacks)
        async for chunk in body:
            parser.write(chunk)
        parser.finalize()
    except (FormParserError, UnicodeDecodeError) as error:
        raise Problem(400, "the body cannot be read as a form", "send multipart/form-data") from error
    except ClientDisconnect:
        raise Problem(400, "the body breaks off", "send all of it") from None
    except OSError as error:
        cause = f"the slide cannot be written ({error.strerror})"
        raise Problem(507, cause, "free space on the server and try again") from error
    finally:
        parts.close()
    if not parts.whole:
        raise Problem(400, "the form ends in the middle", "send all of it")
    return parts.form


class _Parts:
    """The parts of a form as the parser finds them."""

    def __init__(self, target: Callable[[str], Path], fits: Callable[[int], bool]) -> None:
        self.form = SlideForm()
        self.whole = False
        self._target, self._fits = target, fits
        self._file: BinaryIO | None = None
        self._name, self._header, self._headers = "", b"", dict[bytes, bytes]()
        self._value = b""

    @property
    def callbacks(self) -> Any:
        """For the parser."""
        names = (
            "part_begin",
            "header_field",
            "header_value",
            "header_end",
            "headers_finished",
            "part_data",
            "part_end",
        )
        return {f"on_{name}": getattr(self, f"_{name}") for name in names} | {"on_end": self._end}

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _part_begin(self) -> None:
        self._headers, self._header, self._value = {}, b"", b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        self._name = options.get(b"name", b"").decode()
        if b"filename" in options:
            if self.form.file_name is not None or self._name != "file":
                raise Problem(400, "more than one file, or one in another field", "send one slide in the field `file`")
            self.form.file_name = options[b"filename"].decode(errors="replace")
            self._file = open(self._target(self.form.file_name), "xb")  # noqa: SIM115
        elif len(self.form.fields) >= _FIELDS:
            raise Problem(413, f"more than {_FIELDS} fields", "send only what is asked for")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is None:
            self._value += data[start:end]
            if len(self._value) > _FIELD_BYTES:
                raise Problem(413, f"a field of more than {_FIELD_BYTES} bytes", "send the slide in the field `file`")
            return
        if not self._fits(end - start):
            raise Problem(413, "there is no room for a slide of this size", "delete earlier scans, or serve a folder")
        self._file.write(data[start:end])

    def _part_end(self) -> None:
        if self._file is not None:
            self.close()
        else:
            self.form.fields[self._name] = self._value.decode()
        self._value = b""

    def _end(self) -> None:
        self.whole = True
