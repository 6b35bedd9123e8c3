"""A form with a slide in it, written to the disk as it comes in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from tumortrace.app.problems import Problem

_FIELDS, _FIELD_BYTES = 16, 1000


@dataclass(frozen=True)
class SlideForm:
    """What a form held.

    Attributes:
        fields: Its plain fields.
        file_name: The name that came with the file, None where there was none. Never a path.
    """

    fields: dict[str, str]
    file_name: str | None


async def receive_form(
    content_type: str, body: AsyncGenerator[bytes, None], target: Callable[[str], Path], fits: Callable[[int], bool]
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
    parser = _ToDisk(Headers({"content-type": content_type}), body, target, fits)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise Problem(400, "more than one file", "send one slide in the field `file`") from error
        if "aximum" in error.message:  # of fields, or of a field's length
            raise Problem(413, error.message.rstrip("."), "send one slide in the field `file`") from error
        raise Problem(400, "the body cannot be read as a form", "send multipart/form-data") from error
    except ClientDisconnect:
        raise Problem(400, "the body breaks off", "send all of it") from None
    except OSError as error:
        cause = f"the slide cannot be written ({error.strerror})"
        raise Problem(507, cause, "free space on the server and try again") from error
    finally:
        parser.close()
    if not parser.whole:
        raise Problem(400, "the form ends in the middle", "send all of it")
    return SlideForm({name: value for name, value in form.multi_items() if isinstance(value, str)}, parser.file_name)


class _ToDisk(MultiPartParser):
    """Starlette's parser, but that the file goes where we say instead of into a temporary one."""

    def __init__(
        self,
        headers: Headers,
        body: AsyncGenerator[bytes, None],
        target: Callable[[str], Path],
        fits: Callable[[int], bool],
    ) -> None:
        super().__init__(headers, body, max_files=1, max_fields=_FIELDS, max_part_size=_FIELD_BYTES)
        self.file_name: str | None = None
        self.whole = False
        self._target, self._fits = target, fits
        self._upload: UploadFile | None = None

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        upload = self._current_part.file
        if upload is not None:
            upload.file.close()
            if self._current_part.field_name != "file":
                raise Problem(400, "a file in another field", "send one slide in the field `file`")
            self.file_name, self._upload = upload.filename or "", upload
            upload.file = open(self._target(self.file_name), "xb")  # noqa: SIM115

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_part.file is not None and not self._fits(end - start):
            raise Problem(413, "there is no room for a slide of this size", "delete earlier scans, or serve a folder")
        super().on_part_data(data, start, end)

    def on_end(self) -> None:
        self.whole = True

    def close(self) -> None:
        """Close the file, all of which is then on the disk."""
        if self._upload is not None:
            self._upload.file.close()
