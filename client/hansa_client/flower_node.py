"""The member's end of the Flower carrier: a ClientApp that hands requests to the node and returns its replies.

Nothing but `hansa.wire` messages passes. Flower would put the text of an exception into its reply; here nothing is
raised towards it, and a request that cannot be answered gets an empty record, which reads as absence.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol, TypeAlias

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.clientapp import ClientApp

from hansa.errors import WireError
from hansa.wire import Message, parse

ACTION = "hansa"  # Flower's message type is "query.hansa"

_LOG = logging.getLogger("hansa.node")


class AnswersRequests(Protocol):
    """`hansa_client.node.Node`, or something that passes requests on to one."""

    def handle(self, request: Message) -> Message:
        """Answer a request."""


Encode: TypeAlias = Callable[[Message], RecordDict]
Decode: TypeAlias = Callable[[RecordDict], Message]


def to_records(message: Message) -> RecordDict:
    """A wire message as Flower records: the header's bytes and the arrays, which Flower cuts into chunks."""
    arrays = ArrayRecord({name: Array(array) for name, array in message.arrays.items()})
    return RecordDict({"header": ConfigRecord({"bytes": message.header}), "arrays": arrays})


def from_records(content: RecordDict) -> Message:
    """The inverse of `to_records`; `WireError` for anything else."""
    record = content.config_records.get("header")
    arrays = content.array_records.get("arrays")
    header = None if record is None else record.get("bytes")
    if not isinstance(header, bytes) or arrays is None:
        raise WireError("a Flower message does not carry a wire message")
    return parse(header, {name: array.numpy() for name, array in arrays.items()})


def client_app(
    node_of: Callable[[Context], AnswersRequests], encode: Encode = to_records, decode: Decode = from_records
) -> ClientApp:
    """A Flower ClientApp around nodes.

    Args:
        node_of: the node that a Flower context belongs to.
        encode, decode: between wire messages and Flower records.
    """
    app = ClientApp()

    @app.query(ACTION)
    def answer(message: FlowerMessage, context: Context) -> FlowerMessage:
        try:
            content = encode(node_of(context).handle(decode(message.content)))
        except Exception:  # noqa: BLE001  # whatever it is, Flower would send its text to the coordinator
            _LOG.exception("a request was not answered")  # stays here; Flower sees an empty record
            content = RecordDict()
        return FlowerMessage(content, reply_to=message)

    return app
