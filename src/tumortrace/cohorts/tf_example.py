"""TFRecord files of `tf.train.Example` messages, read without TensorFlow.

A record is framed by its length (8 bytes, little endian), a checksum of the length, the message and a checksum of it
(https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details). The checksums are CRC-32C (RFC
3720, B.4), masked. The message is protocol buffers' wire format (https://protobuf.dev/programming-guides/encoding/):
`Example` has `features`, a map from names to one list of bytes, floats or whole numbers each (tensorflow/core/example).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import NamedTuple

import numpy as np

from tumortrace.errors import CohortError

_AT_ONCE = 256  # records whose checksums are computed together


class Span(NamedTuple):
    """Bytes of a file: where they begin, and how many."""

    offset: int
    length: int


Value = Span | int | float
"""The first value of a feature: bytes by where they lie in the file, as images need not be read."""


def records(content: memoryview, where: object) -> list[Span]:
    """Where each message of a TFRecord file lies, after both its checksums were checked.

    Args:
        content: The file's bytes, mapped into memory.
        where: The file, for messages.

    Raises:
        CohortError: It is no such file, damaged, or cut off.
    """
    spans: list[Span] = []
    start = 0
    while start < len(content):
        length = struct.unpack_from("<Q", content, start)[0] if start + 8 <= len(content) else len(content)
        if start + 16 + length > len(content):
            _check([Span(start, 8)] if start + 12 <= len(content) else [], content, len(spans), where)
            raise CohortError(f"cut off in record {len(spans):,}", where=where, remedy="download it again")
        spans.append(Span(start + 12, length))
        start += 16 + length
    for first in range(0, len(spans), _AT_ONCE):
        part = spans[first : first + _AT_ONCE]
        _check([Span(span.offset - 12, 8) for span in part], content, first, where)
        _check(part, content, first, where)
    return spans


def _check(spans: Sequence[Span], content: memoryview, first: int, where: object) -> None:
    """Refuse a file in which not their checksum stands behind spans; `first` is the number of the first record."""
    stated = [struct.unpack_from("<I", content, sum(span))[0] for span in spans]
    sums = checksums([content[span.offset : sum(span)] for span in spans])
    wrong = np.flatnonzero(sums != np.array(stated, np.uint32))
    if len(wrong):
        found = f"the checksum of record {first + int(wrong[0]):,} is wrong: damaged, or no TFRecord file"
        raise CohortError(found, where=where, remedy="download it again")


def features(content: memoryview, message: Span) -> dict[str, Value]:
    """The first value of each feature of an `Example`; features without one are left out.

    Args:
        content: The file's bytes.
        message: Where the message lies.

    Raises:
        ValueError: It is no such message.
    """
    values: dict[str, Value] = {}
    for number, features_message in _fields(content, message):
        if number != 1 or not isinstance(features_message, Span):
            continue
        for _, entry in _fields(content, features_message):
            if not isinstance(entry, Span):
                raise ValueError("no feature")
            parts = dict(_fields(content, entry))
            name, feature = parts.get(1), parts.get(2)
            if not isinstance(name, Span):
                raise ValueError("a feature without a name")
            value = _first(content, feature) if isinstance(feature, Span) else None
            if value is not None:
                values[bytes(content[name.offset : sum(name)]).decode()] = value
    return values


def checksums(messages: Sequence[bytes | memoryview]) -> np.ndarray:
    """Masked CRC-32C of each message, uint32: by `google_crc32c` where it is installed, else by a table, all together.

    Example:
        >>> unmasked = (checksums([b"123456789"]) - np.uint32(0xA282EAD8)).astype(np.uint64)
        >>> [hex(int(rest >> 17 | rest << 15) & 0xFFFFFFFF) for rest in unmasked]
        ['0xe3069283']
    """
    try:
        library = import_module("google_crc32c")
    except ImportError:
        plain = _crc32c(messages)
    else:
        plain = np.array([library.value(bytes(message)) for message in messages], np.uint64)
    rotated = (plain >> np.uint64(15) | plain << np.uint64(17)) & np.uint64(0xFFFFFFFF)
    masked: np.ndarray = ((rotated + np.uint64(0xA282EAD8)) & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return masked


def _table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(0x82F63B78), table >> 1).astype(np.uint32)
    return table


_TABLE = _table()


def _crc32c(messages: Sequence[bytes | memoryview]) -> np.ndarray:
    """CRC-32C of each message, uint64: byte by byte, but of all messages together, the longest first."""
    order = np.argsort([-len(message) for message in messages], kind="stable")
    lengths = np.array([len(messages[row]) for row in order], int)
    bytes_of = np.zeros((lengths[0] if len(lengths) else 0, len(messages)), np.uint8)
    for column, row in enumerate(order):
        bytes_of[: lengths[column], column] = np.frombuffer(messages[row], np.uint8)
    sums = np.full(len(messages), 0xFFFFFFFF, np.uint32)
    alive = np.searchsorted(-lengths, -np.arange(1, len(bytes_of) + 1), side="right")
    for place, count in enumerate(alive):
        part = sums[:count]
        part[:] = _TABLE[(part ^ bytes_of[place, :count]) & 0xFF] ^ part >> np.uint32(8)
    result = np.empty(len(messages), np.uint64)
    result[order] = sums ^ np.uint32(0xFFFFFFFF)
    return result


def _fields(content: memoryview, span: Span) -> Iterator[tuple[int, Value]]:
    """Number and value of each field of a message: a whole number, or the place of what has a length or is fixed."""
    place, end = span.offset, sum(span)
    while place < end:
        key, place = _varint(content, place, end)
        kind = key & 7
        if kind == 0:
            value, place = _varint(content, place, end)
            yield key >> 3, value
            continue
        if kind == 2:
            length, place = _varint(content, place, end)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        if place + length > end:
            raise ValueError("a field that is longer than its message")
        yield key >> 3, Span(place, length)
        place += length


def _varint(content: memoryview, place: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while place < end and shift < 70:
        byte = content[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
    raise ValueError("a number without end")


def _first(content: memoryview, feature: Span) -> Value | None:
    """The first value in a `Feature`: field 1 is a list of bytes, 2 of floats, 3 of whole numbers, packed or not."""
    for kind, values in _fields(content, feature):
        if not isinstance(values, Span):
            raise ValueError("no list of values")
        for _, value in _fields(content, values):
            if kind == 1:
                return value
            if kind == 2 and isinstance(value, Span) and value.length >= 4:
                return float(struct.unpack_from("<f", content, value.offset)[0])
            if kind == 3:
                number = _varint(content, value.offset, sum(value))[0] if isinstance(value, Span) else int(value)
                return number - (1 << 64) if number >> 63 else number
    return None
