"""A node's end of a request on its way: taken to disk as it comes, waited for while it comes, and given up when it stops."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message as FlowerMessage
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    PullObjectRequest,
    PullObjectResponse,
)
from flwr.proto.node_pb2 import Node as FlowerNode
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.supercore.task_identity import TaskIdentity

from hansa.errors import EngineError
from hansa.vectors import Mapped
from hansa.wire import Message
from hansa_client.flower_node import Link, LinkTerms, link
from hansa_flower import from_records, to_records
from hansa_flower.arriving import Arriving

ASKED = Message("sum", {"run": "r"}, {"y": np.arange(600_000, dtype="<u4"), "s": np.arange(3, dtype="<i8")})


class SuperLink:
    """Has a request, of which objects arrive one after the other."""

    def __init__(self, arrived: int) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        message = FlowerMessage(to_records(ASKED), dst_node_id=1, message_type="query.hansa")
        message.metadata.__dict__["_message_id"] = message.object_id
        self.objects = {number: one.deflate() for number, one in get_all_nested_objects(message).items()}
        self.tree = get_object_tree(message)
        self.arriving = Arriving(message_to_proto(remove_content_from_message(message)), self.tree)
        self.arrived = arrived
        self.confirmed: list[str] = []
        self.pulled: list[str] = []

    def PullObject(self, request: PullObjectRequest) -> PullObjectResponse:  # noqa: N802  # Flower's name
        there = list(self.objects)[: self.arrived]
        if request.object_id not in there:
            return PullObjectResponse(object_found=True, object_available=False)
        self.pulled.append(request.object_id)
        return PullObjectResponse(
            object_found=True, object_available=True, object_content=self.objects[request.object_id]
        )

    def ConfirmMessageReceived(  # noqa: N802  # likewise
        self, request: ConfirmMessageReceivedRequest
    ) -> ConfirmMessageReceivedResponse:
        self.confirmed.append(request.message_object_id)
        return ConfirmMessageReceivedResponse()


class Nowhere:
    def get(self) -> int | None:
        return None

    def put(self, node_id: int) -> None: ...


class Nobody:
    def handle(self, request: Message) -> Message:
        return request


def link_in(folder: Path) -> Link:
    terms = LinkTerms("localhost:1", b"", ec.generate_private_key(ec.SECP384R1()), folder)
    return Link(terms, Nobody(), Nowhere())


def fetched(there: SuperLink, folder: Path, stop: threading.Event | None = None) -> FlowerMessage | None:
    return link_in(folder)._fetched(there, FlowerNode(node_id=1), there.arriving, stop or threading.Event())  # type: ignore[arg-type]


def test_a_large_array_lies_on_disk_without_a_name(tmp_path: Path) -> None:
    there = SuperLink(99)
    asked = fetched(there, tmp_path)
    assert asked is not None
    got = from_records(asked.content)
    assert got == ASKED
    root: object = got.arrays["y"]
    while isinstance(root, np.ndarray | memoryview):
        root = root.base if isinstance(root, np.ndarray) else root.obj
    assert isinstance(root, Mapped)
    assert list(tmp_path.iterdir()) == []
    assert there.confirmed == [there.arriving.object_id]


def test_what_comes_slowly_is_waited_for_as_long_as_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = SuperLink(99)
    fetched(there, tmp_path)
    there.objects = {
        number: there.objects[number] for number in there.pulled
    }  # in the order in which they are asked for
    there.arriving, there.arrived = Arriving(there.arriving.proto, there.tree), 0
    clock, pull = 0.0, there.PullObject

    def arrives(request: PullObjectRequest) -> PullObjectResponse:
        """Each piece is there a little less than the limit after it was asked for first."""
        nonlocal clock
        answer = pull(request)
        if not answer.object_available:
            clock += 0.9 * link._NEXT_PIECE_WITHIN_S
            there.arrived += 1
        return answer

    there.PullObject = arrives  # type: ignore[method-assign]
    monkeypatch.setattr(link, "time", SimpleNamespace(monotonic=lambda: clock))
    asked = fetched(there, tmp_path)
    assert asked is not None
    assert from_records(asked.content) == ASKED
    assert clock > 2 * link._NEXT_PIECE_WITHIN_S


def test_what_stops_coming_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_NEXT_PIECE_WITHIN_S", 0.2)
    there = SuperLink(2)
    with pytest.raises(ObjectPullError, match="not arrived in full"):
        fetched(there, tmp_path)
    assert there.confirmed == []


def test_a_node_that_stops_waits_for_nothing(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    there = SuperLink(2)
    assert fetched(there, tmp_path, stop) is None
    assert there.confirmed == []


def test_a_node_that_stops_while_pieces_come_takes_no_more(tmp_path: Path) -> None:
    stop, there = threading.Event(), SuperLink(99)
    pull = there.PullObject

    def stops(request: PullObjectRequest) -> PullObjectResponse:
        stop.set()
        return pull(request)

    there.PullObject = stops  # type: ignore[method-assign]
    assert fetched(there, tmp_path, stop) is None
    assert len(there.pulled) == 1
    assert there.confirmed == []


@pytest.mark.parametrize("wrong", ["rubbish", "a full disk"])
def test_what_cannot_be_read_or_kept_is_logged_and_the_node_goes_on(
    wrong: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    there = SuperLink(99)
    if wrong == "rubbish":
        there.objects = dict.fromkeys(there.objects, b"ConfigRecord  3\0\xff\xff\xff")
    made = link_in(tmp_path if wrong == "rubbish" else tmp_path / "gone")
    made._answer(there, FlowerNode(node_id=1), there.arriving, threading.Event())  # type: ignore[arg-type]
    assert "came to nothing" in caplog.text
    assert there.confirmed == []


def test_a_disk_that_takes_no_more_is_told_to_the_member_alone(tmp_path: Path) -> None:
    there = SuperLink(99)
    with pytest.raises(EngineError, match="cannot be kept"):
        fetched(there, tmp_path / "gone")
    assert there.confirmed == []
