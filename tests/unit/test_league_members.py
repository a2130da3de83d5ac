"""Members that come and go: who is asked, asked again, waited for and given up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.task_identity import TaskIdentity

from hansa.wire import Message
from hansa_flower import from_records, to_records
from hansa_server.flower_app.league import LeagueMembers, Patience

KEYS = {name: name.encode() * 4 for name in "abc"}


class Grid:
    """A SuperLink of the mind: nodes by name, each answering, silent, or broken."""

    def __init__(self, *names: str) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self.since = dict.fromkeys(names, "1")
        self.answers: dict[str, Callable[[], RecordDict | Error | None]] = {}
        self.pushed: list[str] = []
        self.gone: list[str] = []
        self._replies: dict[str, FlowerMessage] = {}

    def get_nodes(self) -> list[NodeInfo]:
        return [
            NodeInfo(node_id=ord(name), public_key=KEYS[name], last_activated_at=since)
            for name, since in self.since.items()
        ]

    def push_messages(self, messages: Iterable[FlowerMessage]) -> list[str]:
        ids = []
        for message in messages:
            name = chr(message.metadata.dst_node_id)
            self.pushed.append(name)
            ids.append(str(len(self.pushed)))
            message.metadata.__dict__["_message_id"] = ids[-1]
            content = self.answers.get(name, lambda message=message: message.content)()
            if content is not None:
                self._replies[ids[-1]] = FlowerMessage(content, reply_to=message)
        return ids

    def let_go(self, ids: Iterable[str]) -> None:
        self.gone += ids

    def pull_messages(self, ids: Iterable[str]) -> list[FlowerMessage]:
        return [self._replies.pop(number) for number in ids if number in self._replies]


def request(kind: str = "sum") -> dict[str, Message]:
    message = Message(kind, {"run": "r"}, {"u": np.arange(3, dtype="<u4")})
    return dict.fromkeys("abc", message)


def league(grid: Grid, floor: int = 2, absent_after_s: float = 0.1) -> tuple[LeagueMembers, list[str]]:
    told: list[str] = []
    patience = Patience(floor, 0.0, absent_after_s)
    names = {key: name for name, key in KEYS.items()}
    return LeagueMembers(grid, names, patience, lambda why, _: told.append(why), lambda: False), told  # type: ignore[arg-type]


def later(act: Callable[[], None], seconds: float) -> None:
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()


def test_all_that_are_there_are_asked_and_one_that_is_not_is_not_waited_for() -> None:
    grid = Grid("a", "b")
    members, _ = league(grid)
    started = time.monotonic()
    replies = members.exchange(request(), 30.0)
    assert sorted(replies) == ["a", "b"]
    assert all(np.array_equal(reply.arrays["u"], np.arange(3)) for reply in replies.values())
    assert time.monotonic() - started < 25


def test_below_the_floor_the_deadline_stands_still_and_it_goes_on_by_itself() -> None:
    grid = Grid("a")
    members, told = league(grid)
    later(lambda: grid.since.update(c="1"), 1.2)
    assert sorted(members.exchange(request(), 0.3)) == ["a", "c"]
    assert "waiting for 1 of b, c" in told


def test_what_is_no_sum_waits_for_nobody() -> None:
    members, told = league(Grid())
    assert members.exchange(request("close"), 30.0) == {}
    assert not any(told)


def test_a_node_that_flower_could_not_reach_is_asked_again() -> None:
    """A node that lost its place and took it between two looks: Flower answers for it, and that is no absence."""
    grid = Grid("a", "b", "c")
    answers = [Error(code=1, reason="not there"), to_records(request()["c"])]
    grid.answers["c"] = lambda: answers.pop(0)
    members, _ = league(grid)
    assert sorted(members.exchange(request(), 30.0)) == ["a", "b", "c"]
    assert grid.pushed.count("c") == 2


def test_what_a_node_does_not_answer_is_taken_back() -> None:
    """A node that keeps its place and fetches nothing would have the requests of all rounds lie on the coordinator's disk."""
    grid = Grid("a", "b", "c")
    grid.answers["c"] = lambda: None
    members, _ = league(grid)
    assert sorted(members.exchange(request(), 0.2)) == ["a", "b"]
    assert [grid.pushed[int(number) - 1] for number in grid.gone] == ["c"]


def test_a_node_that_took_its_place_anew_is_asked_again() -> None:
    grid = Grid("a", "b", "c")
    silent = [True]
    grid.answers["c"] = lambda: None if silent[0] else to_records(request()["c"])

    def restarted() -> None:
        silent[0] = False
        grid.since["c"] = "2"

    members, _ = league(grid)
    later(restarted, 0.3)
    assert sorted(members.exchange(request(), 30.0)) == ["a", "b", "c"]
    assert grid.pushed.count("c") == 2


def test_a_node_that_is_gone_is_given_up_after_a_while_and_a_silent_one_at_the_deadline() -> None:
    grid = Grid("a", "b", "c")
    grid.answers["c"] = lambda: None
    members, _ = league(grid)
    later(lambda: grid.since.pop("c"), 0.2)
    started = time.monotonic()
    assert sorted(members.exchange(request(), 60.0)) == ["a", "b"]
    assert time.monotonic() - started < 50
    grid.since["c"] = "2"
    assert sorted(members.exchange(request(), 0.5)) == ["a", "b"]


@pytest.mark.parametrize(
    "content", [RecordDict(), RecordDict({"message": ConfigRecord({"bytes": b"\0" * 9})})]
)
def test_an_answer_that_says_nothing_is_absence_at_once(content: RecordDict) -> None:
    grid = Grid("a", "b", "c")
    grid.answers["b"] = lambda: content
    members, _ = league(grid)
    started = time.monotonic()
    assert sorted(members.exchange(request(), 30.0)) == ["a", "c"]
    assert time.monotonic() - started < 25


def test_a_node_with_a_key_that_nobody_vouched_for_is_never_asked() -> None:
    grid = Grid("a", "b", "c")
    names = {KEYS["a"]: "a", KEYS["b"]: "b"}
    patience = Patience(2, 0.0, 0.1)
    members = LeagueMembers(grid, names, patience, lambda *_: None, lambda: False)  # type: ignore[arg-type]
    assert sorted(members.exchange(request(), 5.0)) == ["a", "b"]
    assert "c" not in grid.pushed


def test_a_person_who_stops_a_run_is_heard_once_and_members_are_still_told() -> None:
    grid = Grid("a")
    names = {key: name for name, key in KEYS.items()}
    members = LeagueMembers(grid, names, Patience(3, 0.0, 0.1), lambda *_: None, lambda: True)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        members.exchange(request(), 60.0)
    assert sorted(members.exchange(request("close"), 5.0)) == ["a"]
    assert from_records(to_records(request()["a"])) == request()["a"]
