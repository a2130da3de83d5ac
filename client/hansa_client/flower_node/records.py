"""Wire messages as Flower records, and a ClientApp around nodes for simulations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.clientapp import ClientApp

from hansa.errors import WireError
from hansa.wire import DTYPES, Message, from_bytes, large_arrays, to_bytes

ACTION = "hansa"  # Flower's message type is "query.hansa"
RAW = "hansa.raw"  # an array's bytes, little-endian and row by row; Flower cuts them into chunks

_LOG = logging.getLogger("hansa.node")


class AnswersRequests(Protocol):
    """`hansa_client.node.Node`, or something that passes requests on to one."""

    def handle(self, request: Message) -> Message:
        """Answer a request."""


Encode: TypeAlias = Callable[[Message], RecordDict]
Decode: TypeAlias = Callable[[RecordDict], Message]


def to_records(message: Message) -> RecordDict:
    """A wire message as Flower records: its bytes in one, and large arrays beside them, which Flower cuts into chunks.

    Each record and each array is a request or two to the SuperLink, so that small arrays travel with the header.
    """
    large = large_arrays(message)
    content = RecordDict({"message": ConfigRecord({"bytes": to_bytes(message, large)})})
    if large:
        content["arrays"] = ArrayRecord(
            {
                name: Array(array.dtype.str, array.shape, RAW, array.tobytes())
                for name, array in message.arrays.items()
                if name in large
            }
        )
    return content


def from_records(content: RecordDict) -> Message:
    """The inverse of `to_records`; `WireError` for anything else."""
    record = content.config_records.get("message")
    data = None if record is None else record.get("bytes")
    if not isinstance(data, bytes):
        raise WireError("a Flower message does not carry a wire message")
    arrays: Mapping[str, Array] = content.array_records.get("arrays") or {}
    try:
        large = {name: _array(array) for name, array in arrays.items()}
    except ValueError:
        raise WireError("an array of a Flower message is not what it says") from None
    return from_bytes(data, large)


def _array(array: Array) -> npt.NDArray[Any]:
    if array.stype != RAW or array.dtype not in DTYPES:
        raise ValueError("not an array of the wire")
    return np.frombuffer(array.data, dtype=array.dtype).reshape(array.shape)


def client_app(
    node_of: Callable[[Context], AnswersRequests], encode: Encode = to_records, decode: Decode = from_records
) -> ClientApp:
    """A Flower ClientApp around nodes, for simulations.

    Args:
        node_of: the node that a Flower context belongs to.
        encode, decode: between wire messages and Flower records.
    """
    app = ClientApp()

    @app.query(ACTION)
    def answer(message: FlowerMessage, context: Context) -> FlowerMessage:
        return FlowerMessage(answered(node_of(context), message, encode, decode), reply_to=message)

    return app


def answered(node: AnswersRequests, message: FlowerMessage, encode: Encode, decode: Decode) -> RecordDict:
    """What a node answers to a Flower message; an empty record, which reads as absence, where it cannot."""
    try:
        return encode(node.handle(decode(message.content)))
    except Exception:  # noqa: BLE001  # whatever it is, Flower would send its text to the coordinator
        _LOG.exception("a request was not answered")  # by its type; Flower sees an empty record
        return RecordDict()
