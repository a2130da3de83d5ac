"""Messages on their way to a SuperLink: announced as trees of objects, then sent object by object.

Of what is sent a few objects are made at a time, so that a message of any size takes the memory of those.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from concurrent.futures import ThreadPoolExecutor

from flwr.app import Array
from flwr.app import Message as FlowerMessage
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)

from hansa.vectors import let_go

_AT_A_TIME = 2  # objects, of all messages together


class Sending:
    """Messages of one exchange; an object that several have is sent once.

    Args:
        messages: without ids of their own, which are made here.

    Attributes:
        announced: each message without its content.
        trees: of its objects, likewise.
    """

    def __init__(self, messages: Iterable[FlowerMessage]) -> None:
        self.announced: list[ProtoMessage] = []
        self.trees: list[ObjectTree] = []
        self._objects: dict[str, InflatableObject] = {}
        with no_object_id_recompute():
            for message in messages:
                message.metadata.__dict__["_message_id"] = message.object_id
                self.announced.append(message_to_proto(remove_content_from_message(message)))
                self.trees.append(get_object_tree(message))
                self._objects |= get_all_nested_objects(message)

    def send(self, lacking: Container[str], push: Callable[[str, bytes], None]) -> None:
        """Send those objects that the SuperLink lacks.

        Args:
            lacking: their ids.
            push: sends one. The first error that it raises is raised here, and nothing more is sent.
        """
        threads = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="hansa-sending")
        try:
            sending = [
                threads.submit(lambda number, one: push(number, one.deflate()), number, one)
                for number, one in self._objects.items()
                if number in lacking
            ]
            for sent in sending:
                sent.result()
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
        for one in self._objects.values():
            if isinstance(one, Array):
                let_go(memoryview(one.data))  # it was read to be hashed and sent
