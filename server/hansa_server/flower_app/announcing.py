"""What is announced at the SuperLink before it is sent: a message, and the tree of its objects.

Flower takes any tree, of any depth, and walks it again as often as somebody asks; and it takes from a node whatever message the node writes,
times that are no numbers, and a sender's name that is not its own. Here a tree is that of a message as Hansa's are: a message, its content,
its records, their arrays, their chunks. Whatever else is announced is refused as Flower refuses bad requests, with status 400, and leaves nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.superlink.servicer.fleet import fleet_handlers

from hansa.wire import MAX_ARRAY_BYTES, MAX_ARRAYS
from hansa_flower.arriving import MOST_OBJECTS as MOST_RECORDS

LEVELS = 5  # a message, its content, records, arrays, chunks
MOST_CHUNKS = MAX_ARRAY_BYTES // FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE + MAX_ARRAYS
MOST_OBJECTS = MOST_RECORDS + MOST_CHUNKS
_NAME = re.compile(r"[0-9a-f]{64}")


class AnnouncementError(FlowerError, ValueError):
    """What a node announces is not what Hansa's messages are; Flower answers with status 400."""

    def __init__(self, why: str) -> None:
        super().__init__(ApiErrorCode.INVALID_PROTOBUF_PAYLOAD, f"an announcement is refused: {why}")


def objects_of(tree: ObjectTree) -> Mapping[str, Sequence[str]]:
    """The objects of a message's tree, each with its children; children stand before their parents.

    Raises:
        AnnouncementError: it is no message's.
    """
    found: dict[str, list[str]] = {}
    records = chunks = 0
    level, depth = [tree], 0
    while level:
        if depth == LEVELS:
            raise AnnouncementError(f"a tree of more than {LEVELS} levels")
        if depth == LEVELS - 1:
            chunks += len(level)
        else:
            records += len(level)
        if records > MOST_RECORDS or chunks > MOST_CHUNKS:
            raise AnnouncementError("a tree of more objects than a message has")
        for node in level:
            _note(found, node)
        level = [child for node in level for child in node.children]
        depth += 1
    return _below_first(tree.object_id, found)


def _note(found: dict[str, list[str]], node: ObjectTree) -> None:
    name, children = node.object_id, [child.object_id for child in node.children]
    if not _NAME.fullmatch(name):
        raise AnnouncementError("Invalid object ID, which is no SHA-256")
    if len(set(children)) < len(children):
        raise AnnouncementError(f"Object {name} has duplicate children.")
    if found.setdefault(name, children) != children:
        raise AnnouncementError(f"Object {name} is announced with different children.")


def _below_first(root: str, found: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """In the order of their heights; a tree of so few levels has no circle."""
    order: dict[str, list[str]] = {}
    waiting = [(root, False)]
    while waiting:
        name, is_done = waiting.pop()
        if name in order:
            continue
        if is_done:
            order[name] = found[name]
        else:
            waiting.append((name, True))
            waiting += [(child, False) for child in reversed(found[name])]
    return order


def node_of(request: PushMessagesRequest) -> int:
    """The node whose reply is announced.

    Raises:
        AnnouncementError: it is not one reply of the node that asks, with its own tree, and with times that are numbers.
    """
    if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
        raise AnnouncementError("not one message with one tree")
    metadata, tree = request.messages_list[0].metadata, request.message_object_trees[0]
    if metadata.message_id != tree.object_id:
        raise AnnouncementError("a message and a tree of something else")
    if metadata.src_node_id != request.node.node_id:
        raise AnnouncementError("a message of another node")
    if not metadata.reply_to_message_id:
        raise AnnouncementError("a message that answers nothing")
    if not all(map(math.isfinite, (metadata.created_at, metadata.ttl, *request.clientapp_runtime_list))):
        raise AnnouncementError("a time that is no number")
    return request.node.node_id


def refuse_bad_announcements() -> None:
    """Have Flower's part for nodes look at each announcement before it keeps anything of it; once in a process.

    A node that answers has all of the request, so that what is left of it here goes, whether the node says that it has it or not.
    """
    handlers: Any = fleet_handlers
    flowers = handlers.push_messages

    def push_messages(request: PushMessagesRequest, state: Any) -> Any:
        node = node_of(request)
        with state.object_store.announced_by(node):
            told = flowers(request, state)
        if told.objects_to_push:  # a reply that Flower has taken, to a request that was this node's
            state.object_store.delete(request.messages_list[0].metadata.reply_to_message_id)
        return told

    handlers.push_messages = push_messages
