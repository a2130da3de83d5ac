"""The members of a real league, reached through the Grid of a running ServerApp.

A member's node is known by its Flower key, which its owner has vouched for. Nodes come and go: one that has taken its
place anew is sent again what it has not answered; one that lost it is waited for a while; and while too few are there
for anything to be summed, the run waits, says for whom, and goes on by itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from flwr.app import Array, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid

from hansa.errors import WireError
from hansa.wire import Message
from hansa_flower import MESSAGE_TYPE, from_records, to_records

_LOG = logging.getLogger("hansa.coordinator")
_POLL_S, _LONGEST_POLL_S, _LOOK_S, _SAY_S = 0.03, 0.3, 1.0, 5.0
_HELD_S = (
    0.2  # a question that took so long was held by the gate until there was something, or for long enough
)
_TTL_S = (
    3600.0  # a message that nobody fetched; a node that comes late does not answer what is older than itself
)
_PAUSES = "sum"  # the kind of request that makes no sense below a quorum


class KnowsNodes(Protocol):
    """A Flower Grid that also tells about nodes, as that of a SuperLink does."""

    def get_nodes(self) -> list[NodeInfo]:
        """Those that are online."""


class LetsGo(Protocol):
    """A Flower Grid that can take requests back."""

    def let_go(self, message_ids: Iterable[str]) -> None:
        """Nobody waits for replies to these any more."""


@dataclass(frozen=True)
class Patience:
    """How long a league is waited for.

    Attributes:
        floor: members without which nothing can be summed.
        wait_for_all_s: how long the first exchange waits for the others.
        absent_after_s: how long a member is waited for that has lost its place.
    """

    floor: int
    wait_for_all_s: float
    absent_after_s: float


@dataclass
class _Seat:
    """Where a member is."""

    node: int
    since: str  # when the node took its place
    gone: float | None = None  # when it was noticed that it lost it


class LeagueMembers:
    """`hansa_server.members.Members` over a SuperLink.

    Args:
        grid: of the running ServerApp; can `LetsGo`.
        names: member by its Flower key, as bytes in PEM.
        patience: see there.
        told: called with what the league waits for, empty where it waits for nothing, and with the members' state.
        stopped: whether somebody wants the run to end; looked at between two polls.
        grid_nodes: tells about nodes; by default `grid`.
    """

    def __init__(
        self,
        grid: Grid,
        names: Mapping[bytes, str],
        patience: Patience,
        told: Callable[[str, dict[str, str]], None],
        stopped: Callable[[], bool],
        grid_nodes: KnowsNodes | None = None,
    ) -> None:
        self._grid, self._names, self._patience = grid, dict(names), patience
        self._nodes: KnowsNodes = grid_nodes or grid  # type: ignore[assignment]
        self._lets_go: LetsGo = grid  # type: ignore[assignment]
        self._told, self._stopped_outside = told, stopped
        self._seats: dict[str, _Seat] = {}
        self._looked = self._said = 0.0
        self._begun = self._interrupted = False

    def exchange(self, requests: Mapping[str, Message], deadline_s: float) -> Mapping[str, Message]:
        """See `Members.exchange`; the deadline stands still while too few members are there."""
        pausing = any(request.kind == _PAUSES for request in requests.values())
        self._look(force=True)
        if not self._begun:
            self._wait_for_all(requests)
            self._begun = True
        asking = _Asking(self, requests, min(self._patience.floor, len(requests)) if pausing else 0)
        left, last = deadline_s, time.monotonic()
        poll = _POLL_S
        while asking.open:
            asking.push()
            asked = time.monotonic()
            # answers come together: soon after one the next is near, and long waits are for long work
            poll = _POLL_S if asking.pull() else min(1.1 * poll, _LONGEST_POLL_S)
            now = time.monotonic()
            held = now - asked > _HELD_S
            missing = asking.too_few()
            if missing:
                self._tell(f"waiting for {missing}")
            else:
                left -= now - last
                self._tell("")
            last = now
            if asking.done(now) or left <= 0:
                break
            self._pause(0.0 if held else poll)
            self._look()
        self._lets_go.let_go(asking.unanswered)
        return asking.replies

    @property
    def here(self) -> list[str]:
        """The members that have a place now."""
        return [name for name, seat in self._seats.items() if seat.gone is None]

    def seat(self, name: str) -> _Seat | None:
        """Where a member is, or was last."""
        return self._seats.get(name)

    def push(self, contents: Sequence[tuple[int, RecordDict]]) -> Sequence[str | None]:
        """Send requests to nodes; the ids under which their replies will come."""
        messages = [
            FlowerMessage(content, dst_node_id=node, message_type=MESSAGE_TYPE, ttl=_TTL_S)
            for node, content in contents
        ]
        return list(self._grid.push_messages(messages))

    def pull(self, ids: list[str]) -> Iterable[FlowerMessage]:
        """What has come of these."""
        return self._grid.pull_messages(ids)

    @property
    def absent_after_s(self) -> float:
        """See `Patience`."""
        return self._patience.absent_after_s

    def _wait_for_all(self, requests: Mapping[str, Message]) -> None:
        until = time.monotonic() + self._patience.wait_for_all_s
        while not set(requests) <= set(self.here) and time.monotonic() < until:
            missing = ", ".join(sorted(set(requests) - set(self.here)))
            self._tell(f"waiting for {missing}, at most {self._patience.wait_for_all_s:g} s")
            self._pause(_LONGEST_POLL_S)
            self._look()

    def _look(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self._looked < _LOOK_S:
            return
        self._looked = now
        online = set()
        for info in self._nodes.get_nodes():
            name = self._names.get(bytes(info.public_key))
            if name is None:
                continue
            online.add(name)
            seat = self._seats.get(name)
            if seat is None or (seat.node, seat.since) != (info.node_id, info.last_activated_at) or seat.gone:
                _LOG.info("%(member)s is there", {"member": name})
                self._seats[name] = _Seat(info.node_id, info.last_activated_at)
        for name, seat in self._seats.items():
            if name not in online and seat.gone is None:
                _LOG.warning("%(member)s has lost its place", {"member": name})
                seat.gone = now

    def _tell(self, waiting_for: str) -> None:
        now = time.monotonic()
        if now - self._said >= _SAY_S or waiting_for:
            self._said = now
            here = set(self.here)
            self._told(
                waiting_for, {name: "here" if name in here else "away" for name in self._names.values()}
            )

    def _pause(self, seconds: float) -> None:
        time.sleep(seconds)
        if not self._interrupted and self._stopped_outside():
            self._interrupted = True  # once: members are still to be told that the run is over
            raise KeyboardInterrupt


class _Asking:
    """One exchange: who was asked where, and what came back."""

    def __init__(self, members: LeagueMembers, requests: Mapping[str, Message], needed: int) -> None:
        self._members, self._needed = members, needed
        self._contents: dict[int, RecordDict] = {}  # one encoding for a request that goes to many
        self._arrays: dict[int, Array] = {}  # and of an array
        self._requests = requests
        self._sent: dict[str, tuple[int, str]] = {}  # where and to which of its lives a member was asked
        self._ids: dict[str, str] = {}  # message id to member
        self.replies: dict[str, Message] = {}

    @property
    def open(self) -> bool:
        """Whether somebody has not answered."""
        return len(self.replies) < len(self._requests)

    @property
    def unanswered(self) -> list[str]:
        """The ids of requests that brought no reply."""
        return list(self._ids)

    def push(self) -> None:
        """Ask whoever is there and was not asked since it came."""
        asked: list[tuple[str, _Seat]] = []
        for name in self._requests:
            seat = self._members.seat(name)
            if name in self.replies or seat is None or seat.gone is not None:
                continue
            if self._sent.get(name) != (seat.node, seat.since):
                asked.append((name, seat))
        if not asked:
            return
        numbers = self._members.push([(seat.node, self._content(name)) for name, seat in asked])
        for (name, seat), number in zip(asked, numbers, strict=True):
            self._sent[name] = seat.node, seat.since
            if number is not None:
                self._ids[number] = name

    def pull(self) -> bool:
        """Take what has come; whether anything has."""
        waiting = [number for number, name in self._ids.items() if name not in self.replies]
        before = len(self.replies)
        if not waiting:
            return False
        for message in self._members.pull(waiting):
            name = self._ids.pop(message.metadata.reply_to_message_id, None)
            if name is None:
                continue
            if message.has_error():
                # Flower's own word, for example of a place that was lost and taken again between two looks: the node is
                # asked anew, and repeats what it had answered
                _LOG.warning(
                    "%(member)s could not be asked: Flower's error %(flower_error)d",
                    {"member": name, "flower_error": message.error.code},
                )
                self._sent.pop(name, None)
                continue
            if not len(message.content):
                continue  # absence
            try:
                self.replies[name] = from_records(message.content)
            except WireError as error:
                _LOG.warning("%(member)s: %(error)s", {"member": name, "error": error})
        return len(self.replies) > before

    def _content(self, name: str) -> RecordDict:
        request = self._requests[name]
        content = self._contents.get(id(request))
        if content is None:
            content = self._contents[id(request)] = to_records(request, self._arrays)
        return content

    def too_few(self) -> str:
        """Who is waited for before the exchange can come to anything; empty where it can."""
        here = set(self._members.here)
        can = [name for name in self._requests if name in self.replies or name in here]
        if len(can) >= self._needed:
            return ""
        away = ", ".join(name for name in self._requests if name not in can)
        return f"{self._needed - len(can)} of {away}"

    def done(self, now: float) -> bool:
        """Whether nobody is left who could still answer."""
        if self.too_few():
            return False
        for name in self._requests:
            if name in self.replies:
                continue
            seat = self._members.seat(name)
            if seat is None:
                continue  # it was never there
            if seat.gone is None or now - seat.gone < self._members.absent_after_s:
                if self._answered_nothing(name, seat):
                    continue
                return False
        return True

    def _answered_nothing(self, name: str, seat: _Seat) -> bool:
        """Whether a member's node has replied, and with nothing that could be read: it is absent."""
        asked = self._sent.get(name) == (seat.node, seat.since)
        return asked and name not in self._ids.values()
