"""A slide that comes in: what breaks off, and what the disk does not take, is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.requests import ClientDisconnect

from tumortrace.app.problems import Problem
from tumortrace.app.slide_upload import SlideForm, receive_form

HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.svs"\r\n\r\n'


def receive(target: Path, *parts: bytes | Exception) -> SlideForm:
    async def body() -> AsyncIterator[bytes]:
        for part in parts:
            if isinstance(part, Exception):
                raise part
            yield part

    return asyncio.run(receive_form("multipart/form-data; boundary=b", body(), lambda name: target, lambda count: True))


def test_a_slide_is_written_as_it_came(tmp_path: Path) -> None:
    """Byte for byte, whatever the pieces; its name is known."""
    form = receive(tmp_path / "slide", HEAD[:50], HEAD[50:] + b"\r\n--", b"x\0", b"\r\n--b--\r\n")
    assert form.file_name == "a.svs"
    assert (tmp_path / "slide").read_bytes() == b"\r\n--x\0"


def test_a_caller_that_leaves_is_no_unforeseen_error(tmp_path: Path) -> None:
    """Its upload is refused like any that breaks off."""
    with pytest.raises(Problem) as refusal:
        receive(tmp_path / "slide", HEAD, b"abc", ClientDisconnect())
    assert refusal.value.status_code == 400


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """507, with what to do."""
    full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115 - closed by what is tested
    monkeypatch.setattr("builtins.open", lambda *_: full)
    with pytest.raises(Problem) as refusal:
        receive(tmp_path / "slide", HEAD, b"abc")
    assert refusal.value.status_code == 507
    assert "free space" in refusal.value.remedy
