"""What a node answers to Flower messages, and a ClientApp around nodes for simulations."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from flwr.app import Context, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.clientapp import ClientApp

from hansa.wire import Message
from hansa_flower.records import ACTION, Decode, Encode, from_records, to_records

_LOG = logging.getLogger("hansa.node")


class AnswersRequests(Protocol):
    """`hansa_client.node.Node`, or something that passes requests on to one."""

    def handle(self, request: Message) -> Message:
        """Answer a request."""


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
