"""A message: one header (RFC 8785 JSON, the very bytes that are signed and logged) and typed arrays.

The same message travels by function call inside one process and inside Flower messages between machines.
Arrays are described in the header (name, dtype, shape) and bound to it by their SHA-256, so a signature over
the header bytes covers the whole message. What arrives is checked before anything acts on it: sizes, types,
protocol version, hashes. A failed check is a `WireError` and changes no state.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hansa.canonical import Json, canonical_json
from hansa.errors import WireError
from hansa.vectors import pieces_of

PROTOCOL_VERSION = 1
MAX_HEADER_BYTES = 4 * 1024 * 1024  # a manifest with 100 signed keys is near 100 KiB
MAX_ARRAYS = 64
MAX_ARRAY_BYTES = 8 * 1024**3  # 10^9 float64 entries
MAX_DIMENSIONS = (
    32  # what numpy holds in every release (64 since 2.0); an array of Hansa's own has one or two
)
DTYPES = frozenset({"<u4", "<i4", "<i8", "<f4", "<f8", "|u1"})

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Message:
    """One request or reply; two are equal if their headers are, which bind the arrays.

    Attributes:
        kind: what the message is, for example ``train`` or ``update``.
        body: JSON values; no arrays and no secrets.
        arrays: name to little-endian array; read-only views, dtypes from `DTYPES`.
        hashed: SHA-256 of arrays that this side has hashed already, to spare doing it twice; whoever passes one
            vouches for it. `parse` never does: what arrives is always hashed.
    """

    kind: str
    body: Mapping[str, Json]
    arrays: Mapping[str, Array] = field(default_factory=dict)
    hashed: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if len(self.arrays) > MAX_ARRAYS:
            raise WireError(f"a message carries {len(self.arrays)} arrays; at most {MAX_ARRAYS} are allowed")
        frozen: dict[str, Array] = {}
        for name, given in self.arrays.items():
            array = given
            if not isinstance(array, np.ndarray) or array.dtype.str not in DTYPES:
                raise WireError(f"array {name!r} is of a type that the wire does not carry")
            if array.ndim > MAX_DIMENSIONS:
                raise WireError(f"array {name!r} has more than {MAX_DIMENSIONS} dimensions")
            flags = array.flags
            if flags.writeable or not flags.c_contiguous or type(array) is not np.ndarray:
                array = np.ascontiguousarray(array).view()
                array.flags.writeable = False
            frozen[name] = array
        object.__setattr__(self, "arrays", frozen)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Message) and self.header == other.header

    def __hash__(self) -> int:
        return hash(self.header)

    @cached_property
    def array_hashes(self) -> Mapping[str, str]:
        """SHA-256 of each array by name, computed once from the arrays that this message holds, or vouched for."""
        return {name: self.hashed.get(name) or array_sha256(array) for name, array in self.arrays.items()}

    @cached_property
    def header(self) -> bytes:
        """The canonical header bytes; they bind the arrays by hash."""
        header = self._header_with(self.array_hashes)
        if len(header) > MAX_HEADER_BYTES:
            raise WireError(f"a header of {len(header)} bytes is over the limit of {MAX_HEADER_BYTES}")
        return header

    def _header_with(self, hashes: Mapping[str, str]) -> bytes:
        arrays = {
            name: {"dtype": a.dtype.str, "shape": list(a.shape), "sha256": hashes[name]}
            for name, a in self.arrays.items()
        }
        value: Json = {"version": PROTOCOL_VERSION, "kind": self.kind, "body": self.body, "arrays": arrays}
        return canonical_json(value)

    @cached_property
    def payload_bytes(self) -> int:
        """Bytes that travel: header and arrays. Counting them hashes nothing: every hash is as long as another."""
        known = self.__dict__.get("header")  # `cached_property` keeps it there
        header = known or self._header_with(dict.fromkeys(self.arrays, "0" * 64))
        return len(header) + sum(a.nbytes for a in self.arrays.values())

    def text(self, key: str) -> str:
        """A string of the body; `WireError` if it is missing or of another type."""
        value = self.body.get(key)
        if not isinstance(value, str):
            raise WireError(f"message {self.kind!r}: {key!r} must be a string")
        return value

    def integer(self, key: str) -> int:
        """A non-negative integer of the body; `WireError` if it is missing or of another type."""
        value = self.body.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise WireError(f"message {self.kind!r}: {key!r} must be a non-negative integer")
        return value

    def array(self, name: str, dtype: str, length: int) -> Array:
        """A vector of the stated dtype and length; `WireError` otherwise."""
        value = self.arrays.get(name)
        if value is None or value.dtype.str != dtype or value.shape != (length,):
            raise WireError(f"message {self.kind!r}: array {name!r} must be {dtype} of shape ({length},)")
        return value


_PREFIX_BYTES = 8
_TOGETHER_BYTES = 1024 * 1024


def large_arrays(message: Message) -> frozenset[str]:
    """The arrays that a carrier takes apart from the rest: those that do not fit into a megabyte with all smaller ones."""
    room, large = _TOGETHER_BYTES, set[str]()
    for name, array in sorted(message.arrays.items(), key=lambda item: (item[1].nbytes, item[0])):
        room -= array.nbytes
        if room < 0:
            large.add(name)
    return frozenset(large)


def to_bytes(message: Message, apart: Container[str] = ()) -> bytes:
    """A message as one string of bytes: length of the header (8 bytes), header, arrays in the order of their names.

    Args:
        message: to write.
        apart: names of arrays that are left out, since they travel beside the bytes.
    """
    return b"".join(pieces(message, apart))


def pieces(message: Message, apart: Container[str] = ()) -> Iterator[bytes | memoryview]:
    """The bytes of `to_bytes` one after another, arrays as views of their own memory; see `hansa.vectors.pieces_of`."""
    yield len(message.header).to_bytes(_PREFIX_BYTES, "big")
    yield message.header
    for name in sorted(message.arrays):
        if name not in apart:
            yield from pieces_of(message.arrays[name])


def from_bytes(data: bytes | memoryview, apart: Mapping[str, Array] | None = None) -> Message:
    """The inverse of `to_bytes`.

    Args:
        data: as `to_bytes` made it; the arrays of the message are views of it.
        apart: the arrays that came beside it.

    Raises:
        WireError: see `parse`, or the bytes are cut short or too many.
    """
    length = int.from_bytes(data[:_PREFIX_BYTES], "big")
    if length > MAX_HEADER_BYTES:
        raise WireError(f"a header of {length} bytes is over the limit of {MAX_HEADER_BYTES}")
    header, at = bytes(data[_PREFIX_BYTES : _PREFIX_BYTES + length]), _PREFIX_BYTES + length
    arrays: dict[str, Array] = dict(apart or {})
    try:
        said = json.loads(header, parse_int=_number)["arrays"]
        for name in sorted(set(said) - set(arrays)):
            dtype, shape, size = described(said[name], len(data) - at)
            arrays[name] = np.frombuffer(data[at : at + size], dtype=dtype).reshape(shape)
            at += size
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise WireError("these bytes are not a message") from None
    if at != len(data):
        raise WireError("these bytes are not one whole message")
    return parse(header, arrays)


def in_place(message: Message, data: memoryview) -> Message:
    """The same message, whose arrays are views of its own bytes; nothing is hashed again.

    Args:
        message: whose hashes are known.
        data: what `to_bytes` made of it, for example in a file.
    """
    at, arrays = _PREFIX_BYTES + len(message.header), dict[str, Array]()
    for name in sorted(message.arrays):
        array = message.arrays[name]
        arrays[name] = np.frombuffer(data[at : at + array.nbytes], array.dtype).reshape(array.shape)
        at += array.nbytes
    return Message(message.kind, message.body, arrays, hashed=message.array_hashes)


def described(said: Any, room: int) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """An array, as somebody says that it is whom nobody has checked.

    The product of a list without end would be one call for hours, in which no signal is heard. Here it takes `MAX_DIMENSIONS` steps at
    the most, of integers that a double holds, and stops where there is no room any more.

    Args:
        said: JSON, of which `dtype` and `shape` are looked at.
        room: how many bytes the array may have.

    Returns:
        Its type, its shape, and how many bytes that makes.

    Raises:
        WireError: that is no array of the wire, or a larger one.
    """
    dtype, shape = (said.get("dtype"), said.get("shape")) if isinstance(said, dict) else (None, None)
    if not isinstance(dtype, str) or dtype not in DTYPES or not isinstance(shape, list):
        raise WireError("no array of the wire is described so")
    if len(shape) > MAX_DIMENSIONS or not all(type(n) is int and 0 <= n < 2**53 for n in shape):
        raise WireError("no array of the wire is described so")  # true is no length, nor is NaN
    size = 0 if 0 in shape else np.dtype(dtype).itemsize
    for length in shape:
        if size > room:
            break
        size *= length
    if size > room:
        raise WireError(f"an array is over the limit of {room} bytes")
    return np.dtype(dtype), tuple(shape), size


def array_sha256(array: Array) -> str:
    """SHA-256 of an array's little-endian, row-major bytes, in hexadecimal."""
    hashed = hashlib.sha256()
    for piece in pieces_of(np.ascontiguousarray(array)):
        hashed.update(piece)
    return hashed.hexdigest()


def _number(digits: str) -> int | float:
    """Digits without point or exponent: canonical JSON writes integers so, and doubles of up to 10^21."""
    number = int(digits) if len(digits) < 18 else float(digits)
    return number if abs(number) < 2**53 else float(number)


def parse(header: bytes, arrays: Mapping[str, Array]) -> Message:
    """Read a message that came from elsewhere.

    Args:
        header: canonical header bytes as sent.
        arrays: the arrays that came with it, by name.

    Raises:
        WireError: size, JSON, canonical form, version, array set, dtype, shape or hash is not right.
    """
    if len(header) > MAX_HEADER_BYTES:
        raise WireError(f"a header of {len(header)} bytes is over the limit of {MAX_HEADER_BYTES}")
    try:
        value = json.loads(header, parse_int=_number)
    except (ValueError, RecursionError):
        raise WireError("a header is not JSON") from None
    if not isinstance(value, dict) or set(value) != {"version", "kind", "body", "arrays"}:
        raise WireError("a header does not have the four members of a message")
    if value["version"] != PROTOCOL_VERSION:
        raise WireError(
            "a message speaks another protocol version",
            remedy=f"This side speaks version {PROTOCOL_VERSION}; install matching releases on both sides.",
        )
    kind, body, described = value["kind"], value["body"], value["arrays"]
    if not isinstance(kind, str) or not isinstance(body, dict) or not isinstance(described, dict):
        raise WireError("a header's members have the wrong types")
    if set(described) != set(arrays):
        raise WireError("the arrays of a message are not those that its header names")
    message = Message(kind, body, arrays)
    if sum(a.nbytes for a in message.arrays.values()) > MAX_ARRAY_BYTES:
        raise WireError(f"the arrays of a message are over the limit of {MAX_ARRAY_BYTES} bytes")
    try:
        same = message.header == header  # one comparison covers canonical form, dtypes, shapes and hashes
    except (ValueError, RecursionError):
        raise WireError("a header holds values that canonical JSON cannot express") from None
    if not same:
        raise WireError("a message is not canonical, or its arrays are not those that were sent")
    return message
