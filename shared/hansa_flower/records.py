"""Wire messages as Flower records, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from hansa.errors import WireError
from hansa.wire import DTYPES, Message, from_bytes, large_arrays, to_bytes

ACTION = "hansa"
MESSAGE_TYPE = f"query.{ACTION}"
RAW = "hansa.raw"  # an array's bytes, little-endian and row by row

Encode: TypeAlias = Callable[[Message], RecordDict]
Decode: TypeAlias = Callable[[RecordDict], Message]


def to_records(message: Message, known: dict[int, Array] | None = None) -> RecordDict:
    """A wire message as Flower records: its bytes in one, and large arrays beside them, which Flower cuts into chunks.

    Each record and each array is a request or two to the SuperLink, so that small arrays travel with the header.

    Args:
        message: to carry.
        known: by `id`, arrays of other messages of the same exchange: one that goes to many is hashed once. Flower then reads
            the array's own memory, which must stay until it has been sent. Without it arrays are copied.
    """
    large = large_arrays(message)
    content = RecordDict({"message": ConfigRecord({"bytes": to_bytes(message, large)})})
    if large:
        record = ArrayRecord()
        for name in sorted(large):
            record[name] = _flower_array(message.arrays[name], known)
        content["arrays"] = record
    return content


def _flower_array(array: npt.NDArray[Any], known: dict[int, Array] | None) -> Array:
    if known is None:
        return Array(array.dtype.str, array.shape, RAW, array.tobytes())
    if id(array) not in known:
        made = known[id(array)] = Array(array.dtype.str, array.shape, RAW, b"")
        raw: Any = array
        made.data = memoryview(raw).cast("B")  # type: ignore[assignment]  # Flower slices it into chunks, as it would bytes
    return known[id(array)]


def from_records(content: RecordDict) -> Message:
    """The inverse of `to_records`; `WireError` for anything else."""
    record = content.config_records.get("message")
    data = None if record is None else record.get("bytes")
    if not isinstance(data, bytes):
        raise WireError("a Flower message does not carry a wire message")
    arrays: Mapping[str, Array] = content.array_records.get("arrays") or {}
    try:
        large = {name: _wire_array(array) for name, array in arrays.items()}
    except (ValueError, TypeError, OverflowError):
        raise WireError("an array of a Flower message is not what it says") from None
    return from_bytes(data, large)


def _wire_array(array: Array) -> npt.NDArray[Any]:
    if array.stype != RAW or array.dtype not in DTYPES:
        raise ValueError("not an array of the wire")
    return np.frombuffer(array.data, dtype=array.dtype).reshape(array.shape)
