"""One registered node, or somebody without a key, wants the SuperLink of a league to stop: by what it announces, sends, or does not send."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from flwr.proto.fleet_pb2 import PushMessagesRequest, PushMessagesResponse
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import Metadata, ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.error import FlowerError
from flwr.supercore.error.catalog import API_ERROR_MAP
from flwr.supercore.object_store.object_store import NoObjectInStoreError
from flwr.superlink.servicer.fleet import fleet_handlers

from hansa_server.flower_app import objects
from hansa_server.flower_app.announcing import refuse_bad_announcements
from hansa_server.flower_app.objects import ObjectFiles

RUN = 7


def named(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def tree(text: str, *children: ObjectTree) -> ObjectTree:
    return ObjectTree(object_id=named(text), children=children)


def chain(length: int) -> ObjectTree:
    """A flat tree whose last mentions say something else than its first: a chain of any depth."""
    links = [tree(f"c{n}", *([tree(f"c{n + 1}")] if n + 1 < length else [])) for n in range(length)]
    return tree("chain", *links)


def lattice(depth: int) -> ObjectTree:
    """Likewise of two objects a level, each above both of the next: 2**depth ways from the top to the bottom."""
    rows = [
        tree(f"{side}{n}", *([tree(f"{one}{n + 1}") for one in "ab"] if n + 1 < depth else []))
        for n in range(depth)
        for side in "ab"
    ]
    return tree("lattice", *rows)


def deep(levels: int) -> ObjectTree:
    one = tree("d0")
    for n in range(1, levels):
        one = tree(f"d{n}", one)
    return one


HOSTILE: dict[str, Callable[[], ObjectTree]] = {
    "a chain in a flat tree": lambda: chain(150),
    "a lattice in a flat tree": lambda: lattice(5),
    "a lattice upside down": lambda: ObjectTree(object_id=named("up"), children=list(lattice(5).children)[::-1]),
    "deeper than a message": lambda: deep(6),
    "more records than a message has": lambda: tree("wide", tree("content", *(tree(f"r{n}") for n in range(80)))),
    "more chunks than arrays have": lambda: tree(
        "root", tree("content", tree("record", tree("array", *(tree(f"k{n}") for n in range(1800)))))
    ),
    "a child twice": lambda: tree("twice", tree("one"), tree("one")),
    "itself": lambda: tree("self", tree("self")),
    "another name than a hash": lambda: ObjectTree(object_id="0x" + "1" * 62),
    "a path": lambda: ObjectTree(object_id="../../etc/passwd"),
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectFiles]:
    made = ObjectFiles(tmp_path / "objects")
    yield made
    made.close()


@pytest.mark.parametrize("what", HOSTILE)
def test_a_tree_that_is_no_messages_is_refused_and_leaves_nothing(store: ObjectFiles, what: str) -> None:
    with pytest.raises(ValueError):  # what it says is of no consequence
        store.preregister(RUN, HOSTILE[what]())
    assert len(store) == 0


def test_old_trees_that_are_no_messages_are_not_there_and_go(store: ObjectFiles) -> None:
    """As an earlier release has taken them."""
    links = [named(f"c{n}") for n in range(1500)]
    with store._transaction() as database:
        database.executemany("INSERT INTO objects (id, parents) VALUES (?, 1)", [(one,) for one in links])
        database.execute("UPDATE objects SET parents = 0 WHERE id = ?", (links[0],))
        database.executemany("INSERT INTO children VALUES (?, ?)", list(pairwise(links)))
        database.executemany("INSERT INTO runs VALUES (?, ?)", [(str(RUN), one) for one in links])
    with pytest.raises(NoObjectInStoreError):
        store.get_object_tree(links[0])
    store.delete(links[0])
    assert len(store) == 0


def message(text: str, chunks: int = 3) -> ObjectTree:
    """The tree of a message with one array."""
    array = tree(f"{text} array", *(tree(f"{text} {n}") for n in range(chunks)))
    return tree(text, tree(f"{text} content", tree(f"{text} record", array)))


def test_a_whole_message_passes_and_is_told_as_it_was_announced(store: ObjectFiles) -> None:
    asked = message("m", 1000)
    assert len(store.preregister(RUN, asked)) == len(store) == 1004
    told = store.get_object_tree(asked.object_id)
    chunks = told.children[0].children[0].children[0].children
    assert {one.object_id for one in chunks} == {named(f"m {n}") for n in range(1000)}
    store.delete_objects_in_run(RUN)
    assert len(store) == 0


def test_a_node_that_announces_ever_more_loses_what_it_announced_before(
    store: ObjectFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "MOST_OF_NODE", 40)
    store.preregister(RUN, asked := message("the run's own"))
    with store.announced_by(5):
        store.preregister(RUN, others := message("another node's"))
    for n in range(50):
        with store.announced_by(6):
            store.preregister(RUN, last := message(f"m{n}", 10))
    assert len(store) < 7 + 7 + 40
    for kept in (asked, others, last):
        assert store.get_object_tree(kept.object_id).object_id == kept.object_id


def content(size: int, text: bytes = b"x") -> tuple[str, bytes]:
    data = f"ArrayChunk  {size}".encode() + b"\x00" + (text * size)[:size]
    return hashlib.sha256(data).hexdigest(), data


def test_no_node_fills_the_disk(tmp_path: Path) -> None:
    store = ObjectFiles(tmp_path / "objects", node_bytes=10_000)
    own, others = [content(3000, bytes([n])) for n in range(5)], content(3000, b"o")
    with store.announced_by(6):
        for number, _ in own:
            store.preregister(RUN, ObjectTree(object_id=number))
    with store.announced_by(5):
        store.preregister(RUN, ObjectTree(object_id=others[0]))
    for number, data in own[:3]:
        store.put(number, data)
    with pytest.raises(OSError, match="reply_bytes"):
        store.put(*own[3])  # also whoever goes round the short way
    with pytest.raises(OSError, match="reply_bytes"):
        store.receive(3000, 6)
    store.put(*others)
    store.delete(own[0][0])
    store.put(*own[3])
    assert sum(path.stat().st_size for path in store.folder.glob("*") if "." not in path.name) <= 13_000


def test_what_a_node_is_sending_counts_and_a_push_that_breaks_off_does_not(tmp_path: Path) -> None:
    store = ObjectFiles(tmp_path / "objects", node_bytes=10_000_000)
    begun = [store.receive(3_000_000, 6) for _ in range(3)]
    with pytest.raises(OSError, match="reply_bytes"):
        store.receive(3_000_000, 6)
    store.receive(3_000_000, 7).close()
    for one in begun:
        one.close()
        one.close()
    many = [store.receive(1, 6) for _ in range(32)]
    with pytest.raises(OSError, match="reply_bytes"):
        store.receive(1, 6)
    for one in many:
        one.close()
    store.receive(10_000_000, 6).close()


def reply(**changes: Any) -> PushMessagesRequest:
    """An announcement of node 6."""
    asked = message("reply")
    metadata: dict[str, Any] = {
        "message_id": asked.object_id, "src_node_id": 6, "dst_node_id": 1, "reply_to_message_id": "a",
        "created_at": 2e9, "ttl": 60.0, "message_type": "query.hansa", "run_id": RUN,
    }  # fmt: skip
    one = ProtoMessage(metadata=Metadata(**(metadata | changes)))
    return PushMessagesRequest(node=Node(node_id=6), messages_list=[one], message_object_trees=[asked])


def twice() -> PushMessagesRequest:
    request = reply()
    request.messages_list.append(request.messages_list[0])
    return request


BAD_ANNOUNCEMENTS: dict[str, Callable[[], PushMessagesRequest]] = {
    "another message than its tree's": lambda: reply(message_id=named("other")),
    "in another node's name": lambda: reply(src_node_id=7),
    "in the coordinator's name": lambda: reply(src_node_id=1, dst_node_id=7, reply_to_message_id=""),
    "no reply": lambda: reply(reply_to_message_id=""),
    "a time that is no number": lambda: reply(created_at=float("nan")),
    "a reply for ever": lambda: reply(ttl=float("inf")),
    "nothing": lambda: PushMessagesRequest(node=Node(node_id=6)),
    "two": twice,
}


@pytest.fixture
def handler(store: ObjectFiles, monkeypatch: pytest.MonkeyPatch) -> Callable[[PushMessagesRequest], Any]:
    """Flower's, which keeps what it is given."""

    def flowers(request: PushMessagesRequest, state: Any) -> PushMessagesResponse:
        if request.messages_list[0].metadata.run_id != RUN:
            return PushMessagesResponse()
        return PushMessagesResponse(objects_to_push=store.preregister(RUN, request.message_object_trees[0]))

    monkeypatch.setattr(fleet_handlers, "push_messages", flowers)
    refuse_bad_announcements()
    return lambda request: fleet_handlers.push_messages(request, SimpleNamespace(object_store=store))  # type: ignore[arg-type]


@pytest.mark.parametrize("what", BAD_ANNOUNCEMENTS)
def test_an_announcement_that_is_no_reply_of_its_node_is_a_bad_request(
    handler: Callable[[PushMessagesRequest], Any], store: ObjectFiles, what: str
) -> None:
    with pytest.raises(FlowerError) as refused:
        handler(BAD_ANNOUNCEMENTS[what]())
    assert API_ERROR_MAP[refused.value.code].http_status_code == httpx.codes.BAD_REQUEST
    assert len(store) == 0


def test_a_reply_is_announced_as_its_nodes(
    handler: Callable[[PushMessagesRequest], Any], store: ObjectFiles
) -> None:
    assert len(handler(reply()).objects_to_push) == 7
    assert store._of(6) == (7, 0)


def test_a_request_that_was_answered_goes_whether_its_node_says_so_or_not(
    handler: Callable[[PushMessagesRequest], Any], store: ObjectFiles
) -> None:
    store.preregister(RUN, asked := message("request"))
    handler(reply(reply_to_message_id=asked.object_id, run_id=RUN + 1))  # which Flower does not take
    assert asked.object_id in store
    handler(reply(reply_to_message_id=asked.object_id))
    assert asked.object_id not in store
