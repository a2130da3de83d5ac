"""What a SuperLink answers about one reply ends neither the run's process nor the other replies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from flwr.app import Message as FlowerMessage
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedResponse, PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from hansa.wire import Message
from hansa_flower import from_records, to_records
from hansa_server.flower_app.league_grid import LeagueGrid

GOOD, LARGE = (Message("sum", {"run": "r"}, {"u": np.arange(n, dtype="<u4")}) for n in (3, 400_000))


def failed(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "https://superlink")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, request=request))


class SuperLink:
    """Has replies, some of which it cannot give."""

    def __init__(self) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self.replies: dict[str, tuple[Any, Any]] = {}
        self.objects: dict[str, bytes] = {}
        self.confirmed: list[str] = []
        self.fails = {what: set[str]() for what in ("list", "object", "confirm")}

    def has(self, number: str, reply: Message) -> str:
        asked = FlowerMessage(to_records(GOOD), dst_node_id=2, message_type="query.hansa")
        asked.metadata.__dict__["_message_id"] = number
        message = FlowerMessage(to_records(reply), reply_to=asked)
        message.metadata.__dict__["_message_id"] = message.object_id
        self.objects |= {one: it.deflate() for one, it in get_all_nested_objects(message).items()}
        self.replies[number] = (
            message_to_proto(remove_content_from_message(message)),
            get_object_tree(message),
        )
        return message.object_id

    def PullMessages(self, request: Any) -> PullAppMessagesResponse:  # noqa: N802  # Flower's name
        if self.fails["list"] & set(request.message_ids):
            raise failed(500)
        found = [self.replies[number] for number in request.message_ids if number in self.replies]
        return PullAppMessagesResponse(
            messages_list=[proto for proto, _ in found], message_object_trees=[tree for _, tree in found]
        )

    def PullObject(self, request: Any) -> PullObjectResponse:  # noqa: N802
        if request.object_id in self.fails["object"]:
            raise failed(400)
        content = self.objects[request.object_id]
        return PullObjectResponse(object_found=True, object_available=True, object_content=content)

    def ConfirmMessageReceived(self, request: Any) -> ConfirmMessageReceivedResponse:  # noqa: N802
        if request.message_object_id in self.fails["confirm"]:
            raise failed(500)
        self.confirmed.append(request.message_object_id)
        return ConfirmMessageReceivedResponse()

    def close(self) -> None: ...


@pytest.fixture
def there() -> SuperLink:
    return SuperLink()


@pytest.fixture
def grid(there: SuperLink, tmp_path: Path) -> Iterator[LeagueGrid]:
    flowers = HttpGrid("127.0.0.1:1", insecure=True, token="of nobody")
    flowers.set_run(Run.create_empty(1))
    made = LeagueGrid(flowers, tmp_path, reply_bytes=1_000_000)
    made._client = there  # type: ignore[assignment]
    yield made
    made.close()


def pulled(grid: LeagueGrid, *numbers: str) -> dict[str, Any]:
    """By what it answers, a reply, or `None` for Flower's error."""
    return {
        one.metadata.reply_to_message_id: None if one.has_error() else one.content
        for one in grid.pull_messages(numbers)
    }


def test_replies_that_cannot_be_listed_together_are_taken_one_by_one(
    there: SuperLink, grid: LeagueGrid
) -> None:
    there.has("a", GOOD)
    there.fails["list"] = {"b"}
    got = pulled(grid, "a", "b", "c")
    assert from_records(got.pop("a")) == GOOD
    assert got == {"b": None}  # so that it is asked for again; of c there is no news
    assert pulled(grid, "b") == {"b": None}


def test_an_object_that_cannot_be_had_costs_its_reply_alone(there: SuperLink, grid: LeagueGrid) -> None:
    there.has("a", GOOD)
    there.fails["object"] = {there.has("b", LARGE)}
    got = pulled(grid, "a", "b")
    assert (from_records(got["a"]), got["b"]) == (GOOD, None)


def test_a_reply_that_is_here_counts_whatever_the_superlink_says_then(
    there: SuperLink, grid: LeagueGrid
) -> None:
    there.fails["confirm"] = {there.has("a", GOOD)}
    assert from_records(pulled(grid, "a")["a"]) == GOOD


def test_a_reply_that_is_larger_than_there_is_room_for_is_no_reply(
    there: SuperLink, grid: LeagueGrid
) -> None:
    there.has("a", GOOD)
    there.has("b", LARGE)
    got = pulled(grid, "a", "b")
    assert from_records(got["a"]) == GOOD
    assert len(got["b"]) == 0  # absence


def test_requests_that_nobody_waits_for_are_taken_back_as_far_as_they_can_be(
    there: SuperLink, grid: LeagueGrid
) -> None:
    there.fails["confirm"] = {"a"}
    grid.let_go(["a", "b"])
    assert there.confirmed == ["b"]
