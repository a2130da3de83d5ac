"""Protocol Buffers' wire format, read strictly: fields of one message, in order, and nothing else.

A reader of a few pages stands between a file from outside and a library of a million lines. It knows the four wire
types that proto2 and proto3 write and refuses groups, over-long varints and lengths that leave the message
(https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from hansa.artifact.errors import ModelFileError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
Value = int | memoryview


def fields(message: memoryview) -> Iterator[tuple[int, int, Value]]:
    """The fields of a message: number, wire type, value. Lengths are checked before anything is sliced.

    Raises:
        ModelFileError: it is no message.
    """
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise _broken()
        if kind == VARINT:
            value, at = _varint(message, at)
            yield number, kind, value
            continue
        if kind == BYTES:
            length, at = _varint(message, at)
        elif kind in (FIXED32, FIXED64):
            length = 4 if kind == FIXED32 else 8
        else:
            raise _broken()
        if length > end - at:
            raise _broken()
        yield number, kind, message[at : at + length]
        at += length


def integers(kind: int, value: Value) -> list[int]:
    """The signed 64-bit integers of a repeated field, packed or not."""
    if kind == VARINT and isinstance(value, int):
        return [_signed(value)]
    if kind != BYTES or isinstance(value, int):
        raise _broken()
    found, at = [], 0
    while at < len(value):
        one, at = _varint(value, at)
        found.append(_signed(one))
    return found


def integer(kind: int, value: Value) -> int:
    """The signed 64-bit integer of a singular field."""
    if kind != VARINT or not isinstance(value, int):
        raise _broken()
    return _signed(value)


def message(kind: int, value: Value) -> memoryview:
    """The bytes of a message, a string or bytes."""
    if kind != BYTES or isinstance(value, int):
        raise _broken()
    return value


def text(kind: int, value: Value) -> str:
    """A string."""
    try:
        return bytes(message(kind, value)).decode()
    except UnicodeDecodeError:
        raise _broken() from None


def packed(kind: int, value: Value, item_bytes: int) -> int:
    """How many numbers of a fixed or a varying size a repeated field holds; 0 bytes an item stands for varints."""
    if item_bytes == 0:
        return len(integers(kind, value))
    if kind in (FIXED32, FIXED64):
        return 1
    octets = message(kind, value)
    if len(octets) % item_bytes:
        raise _broken()
    return len(octets) // item_bytes


def encode(number: int, value: int | bytes | str) -> bytes:
    """One field, for writers of small messages: an integer as a varint, text and bytes with their length."""
    if isinstance(value, int):
        return _written(number << 3 | VARINT) + _written(value & (2**64 - 1))
    octets = value.encode() if isinstance(value, str) else value
    return _written(number << 3 | BYTES) + _written(len(octets)) + octets


def encode_float(number: int, value: float) -> bytes:
    """One field of a 32-bit float."""
    return _written(number << 3 | FIXED32) + struct.pack("<f", value)


def _written(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise _broken()
        octet = message[at]
        at += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            if value >= 2**64:
                raise _broken()
            return value, at
    raise _broken()


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _broken() -> ModelFileError:
    return ModelFileError("the model's file is not whole: it is no ONNX, or was cut short")
