"""Requests that never end, that come by the byte, or that are larger than anything a league sends: none takes the SuperLink's memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from hansa_server.flower_app import connections
from hansa_server.flower_app.asgi import Receive, Scope, Send
from hansa_server.flower_app.bounded import MOST_OBJECT_BYTES, Bounded, Limits
from hansa_server.flower_app.connections import MOST_HEAD_BYTES, BoundedConnection

PIECE = 64 * 1024
NODE = (b"node", b"6")  # a head that proves it, here
LIMITS = Limits()
AT_ONCE = Limits(piece_s=0.01)


class Door:
    """An application behind the limits, which reads as Flower does, and somebody who sends."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.app = Bounded(self._app, lambda scope: 6 if NODE in scope["headers"] else None, limits)
        self.got: list[bytes] = []
        self.begun = asyncio.Event()

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            event = await receive()
            self.begun.set()
            if event["type"] != "http.request":
                await send({"type": "http.response.start", "status": 500, "headers": []})
                return
            body, more = body + event["body"], event["more_body"]
        self.got.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def ask(self, path: str, sender: Sender, *headers: tuple[bytes, bytes]) -> int:
        sent: list[Any] = []

        async def send(event: Any) -> None:
            sent.append(event)

        scope = {"type": "http", "method": "POST", "path": path, "headers": list(headers)}
        await self.app(scope, sender.receive, send)
        starts = [event for event in sent if event["type"] == "http.response.start"]
        assert len(starts) == 1
        if starts[0]["status"] >= 400:
            assert (b"connection", b"close") in starts[0]["headers"]  # nobody reads the rest
            assert json.loads(sent[1]["body"])["detail"]
        return int(starts[0]["status"])


class Sender:
    """So many bytes, and then the end, or nothing."""

    def __init__(self, length: int, *, ends: bool = True) -> None:
        self.left, self.sent, self._ends = length, 0, ends

    async def receive(self) -> dict[str, Any]:
        if not self.left and not self._ends:
            await asyncio.Event().wait()
        size = min(PIECE, self.left)
        self.left -= size
        self.sent += size
        return {"type": "http.request", "body": bytes(size), "more_body": self.left > 0 or not self._ends}


def run(story: Callable[[], Any]) -> Any:
    return asyncio.run(story())


ENDLESS = 10**12
PATHS = {
    "/v1/fleet/activate-node": LIMITS.stranger,
    "/v1/fleet/pull-messages": LIMITS.stranger,
    "/v1/fleet/push-messages": LIMITS.announcement,
    "/v1/fleet/push-object": MOST_OBJECT_BYTES + 2048,
    "/v1/runtime/push-messages": LIMITS.here,
    "/v1/runtime/push-object": MOST_OBJECT_BYTES + 2048,
    "/v1/control/start-run": LIMITS.here,
}


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_never_ends_is_cut_off(path: str) -> None:
    async def story() -> None:
        door, sender = Door(), Sender(ENDLESS)
        assert await door.ask(path, sender, NODE) == 413
        assert sender.sent <= PATHS[path] + PIECE
        assert door.got == []

    run(story)


@pytest.mark.parametrize("path", PATHS)
def test_what_a_league_sends_passes(path: str) -> None:
    async def story() -> None:
        door = Door()
        assert await door.ask(path, Sender(PATHS[path]), NODE) == 200
        assert await door.ask(path, Sender(0), NODE) == 200
        assert [len(body) for body in door.got] == [PATHS[path], 0]

    run(story)


@pytest.mark.parametrize("path", [path for path in PATHS if "fleet" in path])
def test_of_somebody_without_a_key_little_is_read(path: str) -> None:
    async def story() -> None:
        door, sender = Door(), Sender(ENDLESS)
        assert await door.ask(path, sender) == 413
        assert sender.sent <= LIMITS.stranger + PIECE
        assert await door.ask(path, Sender(LIMITS.stranger)) == 200  # so that Flower says what is wrong

    run(story)


def test_a_length_that_is_too_large_is_not_begun_to_be_read() -> None:
    async def story() -> None:
        door, sender = Door(), Sender(ENDLESS)
        for path, most in PATHS.items():
            assert await door.ask(path, sender, NODE, (b"content-length", b"%d" % (most + 1))) == 413
            assert await door.ask(path, Sender(0), NODE, (b"content-length", b"-1")) == 200
        assert sender.sent == 0

    run(story)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("length", [0, 100, 70_000])
def test_a_body_that_stops_coming_is_given_up(path: str, length: int) -> None:
    async def story() -> None:
        status = await Door(AT_ONCE).ask(path, Sender(length, ends=False), NODE)
        assert status == (413 if length > PATHS[path] else 408)

    run(story)


def test_a_body_that_comes_by_the_byte_is_given_up_in_the_end() -> None:
    class Slow(Sender):
        async def receive(self) -> dict[str, Any]:
            await asyncio.sleep(0)
            self.sent += 1
            return {"type": "http.request", "body": b"", "more_body": True}

    async def story() -> None:
        for path in PATHS:
            assert await Door(Limits(begins_s=0.0)).ask(path, Slow(1), NODE) == 408
        assert await Door(Limits(whole_s=0.0)).ask("/v1/fleet/push-object", Sender(10**6), NODE) == 408

    run(story)


def test_one_node_sends_so_many_at_a_time_and_goes_on_when_they_are_done() -> None:
    async def story() -> None:
        door = Door(Limits(at_a_time=2))
        many = [
            asyncio.create_task(door.ask("/v1/fleet/push-object", Sender(70_000, ends=False), NODE))
            for _ in range(2)
        ]
        await door.begun.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert await door.ask("/v1/fleet/push-object", Sender(70_000), NODE) == 429
        for one in many:
            one.cancel()
        await asyncio.gather(*many, return_exceptions=True)
        assert await door.ask("/v1/fleet/push-object", Sender(70_000), NODE) == 200
        assert not door.app._large

    run(story)


class Wire(asyncio.Transport):
    """The other end of a connection, as far as uvicorn asks it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = self.is_cut = False

    def write(self, data: Any) -> None:
        self.written += data

    def abort(self) -> None:
        self.is_cut = True

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed or self.is_cut

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def _says_so(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def connected() -> tuple[BoundedConnection, Wire]:
    connection = BoundedConnection(Config(_says_so, log_config=None, ws="none"), ServerState(), {})
    connection.connection_made(wire := Wire())
    return connection, wire


ENDLESS_HEADS: dict[str, tuple[bytes, bytes]] = {
    "a path": (b"POST /v1/fleet/", b"x" * 1000),
    "a header": (b"POST / HTTP/1.1\r\nx: ", b"y" * 1000),
    "headers": (b"POST / HTTP/1.1\r\n", b"x: " + b"y" * 995 + b"\r\n"),
    "a chunk's remarks": (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1;", b"z" * 1000),
    "trailers": (
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n",
        b"x: " + b"y" * 995 + b"\r\n",
    ),
    "a body that was answered": (b"POST / HTTP/1.1\r\ncontent-length: 100000000\r\n\r\n", b"b" * 1000),
    "empty lines": (b"", b"\r\n" * 500),
    "what is no HTTP any more": (
        b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"x" * 1000,
    ),
}


@pytest.mark.parametrize("what", ENDLESS_HEADS)
def test_a_head_that_never_ends_is_cut_off(what: str) -> None:
    async def story() -> None:
        connection, wire = connected()
        begins, goes_on = ENDLESS_HEADS[what]
        connection.data_received(begins)
        while connection.tasks:  # noqa: ASYNC110  # an answer, where there is one
            await asyncio.sleep(0)
        sent = 0
        while not wire.is_cut:
            connection.data_received(goes_on)
            sent += len(goes_on)
            assert sent <= MOST_HEAD_BYTES + 1000
        connection.connection_lost(None)

    run(story)


@pytest.mark.parametrize("begins", [b"", b"\r\n", b"POST /v1/fleet/push-object HTTP/1.1\r\ncontent-"])
def test_whoever_connects_and_says_nothing_is_not_waited_for(
    begins: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_WITHIN_S", 0.0)

    async def story() -> None:
        connection, wire = connected()
        if begins:
            connection.data_received(begins)
        while not wire.is_cut:  # noqa: ASYNC110  # it is what is looked at
            await asyncio.sleep(0)
        connection.connection_lost(None)

    run(story)


def test_a_connection_that_is_closed_does_not_wait_for_the_other_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CLOSES_WITHIN_S", 0.0)

    async def story() -> None:
        connection, wire = connected()
        connection.data_received(b"POST / HTTP/1.1\r\nconnection: close\r\ncontent-length: 100000\r\n\r\n")
        while not wire.is_cut:  # noqa: ASYNC110  # likewise
            await asyncio.sleep(0)
        assert b"200 OK" in wire.written
        connection.connection_lost(None)

    run(story)


def test_a_connection_that_asks_is_kept_and_one_that_was_answered_is_not_held_by_empty_lines() -> None:
    async def story() -> None:
        connection, wire = connected()
        for n in range(200):  # together more than a head may have
            connection.data_received(
                b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 600\r\n\r\n" + bytes(600)
            )
            while wire.written.count(b"200 OK") <= n:  # noqa: ASYNC110  # likewise
                await asyncio.sleep(0)
        assert (wire.is_cut, connection._due) == (False, None)
        connection.data_received(b"\r\n")
        assert connection._due is not None
        connection.connection_lost(None)
        assert connection._due is None

    run(story)
