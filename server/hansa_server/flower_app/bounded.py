"""How much of a request is read, from whom, and for how long.

Flower reads a request's body whole before it asks who sent it. Here it gets the body once all of it is there: a little from anybody, and from a
node that its head proves to be registered, or from this machine, as much as its path needs. Objects pass on as they come, and are
held to the same.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE

from hansa_server.flower_app.asgi import App, Receive, Scope, Send

MOST_OBJECT_BYTES = max(
    8 * 2**20, FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE + 2**20
)  # a chunk, or a message's header
_ROUND_AN_OBJECT = 2048  # what a push says beside it
_PUSH, _ANNOUNCE, _FLEET = "/push-object", "/v1/fleet/push-messages", "/v1/fleet/"
_SAYS_WHY = {408: "the body of a request did not come", 413: "the body of a request is too large", 429: "too many at a time"}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What is read of a body.

    Attributes:
        stranger: bytes, from whoever reaches the port; questions of nodes are smaller.
        announcement: bytes, of a node's reply without its objects.
        here: bytes, from the coordinator's own processes, which announce the requests to all nodes in one.
        at_a_time: bodies of one node that are larger than a stranger's.
        piece_s: for the next piece of a body to come.
        begins_s: for what a stranger may send.
        whole_s: for all of a body.
    """

    stranger: int = 16 * 2**10
    announcement: int = 2**20
    here: int = 64 * 2**20
    at_a_time: int = 32
    piece_s: float = 30.0
    begins_s: float = 60.0
    whole_s: float = 600.0

    def most(self, path: str) -> int:
        """Bytes of a body, from whoever has proved to be admitted."""
        if path.endswith(_PUSH):
            return MOST_OBJECT_BYTES + _ROUND_AN_OBJECT
        if path.startswith(_FLEET):
            return self.announcement if path == _ANNOUNCE else self.stranger
        return self.here


class Bounded:
    """See above; an application around another.

    Args:
        app: that answers.
        node_of: the node that the head of a request proves to be registered.
        limits: see there.
    """

    def __init__(
        self, app: App, node_of: Callable[[Scope], int | None], limits: Limits | None = None
    ) -> None:
        self._app, self._node_of, self._limits = app, node_of, limits or Limits()
        self._large = Counter[int]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the application's start and end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(scope, receive, self)
        try:
            if scope["path"].endswith(_PUSH):
                await self._stream(body, scope, send)
            else:
                await self._pass_whole(body, scope, receive, send)
        finally:
            body.close()

    async def _pass_whole(self, body: _Body, scope: Scope, receive: Receive, send: Send) -> None:
        pieces, more = bytearray(), True
        while more:
            event = await body.receive()
            if event["type"] != "http.request":
                if body.refused:
                    await _refuse(send, body.refused)
                return
            pieces += event.get("body", b"")
            more = event.get("more_body", False)
        whole: list[MutableMapping[str, Any]] = [
            {"type": "http.request", "body": bytes(pieces), "more_body": False}
        ]

        async def again() -> MutableMapping[str, Any]:
            return whole.pop() if whole else await receive()

        await self._app(scope, again, send)

    async def _stream(self, body: _Body, scope: Scope, send: Send) -> None:
        """What is refused ends for the application like one whose sender has gone; what it would say to that is not sent."""
        has_begun = False

        async def unless_refused(event: MutableMapping[str, Any]) -> None:
            nonlocal has_begun
            if not body.refused or has_begun:
                has_begun = True
                await send(event)

        await self._app(scope, body.receive, unless_refused)
        if body.refused and not has_begun:
            await _refuse(send, body.refused)

    def enter(self, scope: Scope) -> tuple[int, Callable[[], None]]:
        """Where a body is larger than a stranger's.

        Returns:
            How many bytes it may have, and what is called at its end.

        Raises:
            _RefusedError: none.
        """
        path = scope["path"]
        if not path.startswith(_FLEET):  # the gate lets only this machine ask for it
            return self._limits.most(path), lambda: None
        node = self._node_of(scope)
        if node is None:
            raise _RefusedError(413)
        if self._large[node] >= self._limits.at_a_time:
            raise _RefusedError(429)
        self._large[node] += 1

        def left() -> None:
            self._large[node] -= 1
            if not self._large[node]:
                del self._large[node]

        return self._limits.most(path), left

    @property
    def limits(self) -> Limits:
        """What is read."""
        return self._limits


class _RefusedError(Exception):
    """A body that is not read.

    Args:
        status: that says why.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Body:
    """The body of one request, as far as it is read."""

    def __init__(self, scope: Scope, receive: Receive, bounded: Bounded) -> None:
        self._scope, self._receive, self._bounded = scope, receive, bounded
        self._limits = bounded.limits
        self._most, self._read = self._limits.stranger, 0
        self._left: Callable[[], None] = lambda: None
        self._has_more, self._is_large = True, False
        self._began = asyncio.get_running_loop().time()
        self.refused = 0  # the status

    async def receive(self) -> MutableMapping[str, Any]:
        """As the server's, until it is too much or too late: then as if whoever sends had gone."""
        if not self._has_more:
            return await self._receive()
        if not self.refused and not self._read:
            self._take_room(_declared(self._scope))
        if self.refused:
            return {"type": "http.disconnect"}
        try:
            event = await asyncio.wait_for(self._receive(), self._seconds())
        except TimeoutError:
            return self._refuse(408)
        self._has_more = event["type"] == "http.request" and event.get("more_body", False)
        self._read += len(event.get("body", b""))
        self._take_room(self._read)
        return {"type": "http.disconnect"} if self.refused else event

    def close(self) -> None:
        """Whatever came of it."""
        self._left()
        self._left = lambda: None

    def _take_room(self, size: int) -> None:
        if size > self._most and not self._is_large:
            self._is_large = True
            try:
                self._most, self._left = self._bounded.enter(self._scope)
            except _RefusedError as refused:
                self._refuse(refused.status)
                return
        if size > self._most:
            self._refuse(413)

    def _refuse(self, status: int) -> MutableMapping[str, Any]:
        self.refused, self._has_more = status, True
        return {"type": "http.disconnect"}

    def _seconds(self) -> float:
        passed = asyncio.get_running_loop().time() - self._began
        whole = self._limits.whole_s if self._is_large else self._limits.begins_s
        return max(0.0, min(self._limits.piece_s, whole - passed))


def _declared(scope: Scope) -> int:
    """What a head says of its body's length; 0 where it says nothing that could be believed."""
    said = dict(scope["headers"]).get(b"content-length", b"")
    return int(said) if said.isdigit() and len(said) < 20 else 0


async def _refuse(send: Send, status: int) -> None:
    """And end the connection: nobody reads the rest of the body."""
    body = json.dumps({"detail": _SAYS_WHY[status]}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
