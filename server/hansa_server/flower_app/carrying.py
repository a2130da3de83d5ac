"""Objects on a short way through the SuperLink: streamed to and from files, by whoever Flower would admit.

All that is large between machines, and most requests, are objects that are pushed and pulled. Flower reads each into memory,
copies it several times and keeps it in its database. Here a push goes to a file as it arrives, and a pull comes from it; a pull of what
has been announced and has not come is held until it does, for a moment, where it says `WAITS`. Who is admitted is decided by Flower's own functions; what it says of nodes, tasks
and runs is remembered for a second. Whatever is not plainly in order is left to Flower, which answers it as it would have.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeAlias, TypeVar

from anyio import to_thread
from fastapi import HTTPException
from flwr.common.constant import SUPERLINK_NODE_ID, Status
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.supercore.constant import TASK_TOKEN_HEADER
from flwr.supercore.dependencies.task import authenticate_task
from flwr.supercore.dependencies.version import VersionDependency
from flwr.supercore.error import FlowerError
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.protobuf.translation import DecodeError  # type: ignore[attr-defined]
from flwr.superlink.routers.fleet.node_auth import authenticate_node
from starlette.datastructures import Headers

from hansa_server.flower_app.asgi import App, Receive, Scope, Send
from hansa_server.flower_app.objects import Content, ObjectFiles, Received
from hansa_server.flower_app.waiting import WAITS

_Request: TypeAlias = PullObjectRequest | PushObjectRequest | ConfirmMessageReceivedRequest
T = TypeVar("T")
R = TypeVar("R", PullObjectRequest, ConfirmMessageReceivedRequest)

_LOG = logging.getLogger("hansa.coordinator")
_FLEET, _RUNTIME = "/v1/fleet/", "/v1/runtime/"
_PUSH, _PULL, _CONFIRM = "push-object", "pull-object", "confirm-message-received"
_PATHS = frozenset(part + what for part in (_FLEET, _RUNTIME) for what in (_PUSH, _PULL, _CONFIRM))
_MOST_BYTES = 64 * 1024 * 1024  # of an object on the short way; Flower cuts arrays into five megabytes
_MOST_HEADER = 1024  # of a request, its content left out
_PIECE = 256 * 1024
_HELD_S, _MOST_HELD = 0.5, 512
_REMEMBERED_S = 1.0
_MOST_REMEMBERED = 4096
_CONTENT_PUSHED, _CONTENT_PULLED = 4 << 3 | 2, 3 << 3 | 2  # tags of `object_content`


class Remembered:
    """What was said a moment ago, so that it need not be looked up for each of many requests."""

    def __init__(self, seconds: float = _REMEMBERED_S) -> None:
        self._seconds = seconds
        self._said: dict[object, tuple[float, Any]] = {}

    def of(self, key: object, look: Callable[[], T]) -> T:
        """What `look` gives, or gave a moment ago."""
        now = time.monotonic()
        until, said = self._said.get(key, (0.0, None))
        if now < until:
            return said  # type: ignore[no-any-return]
        if len(self._said) >= _MOST_REMEMBERED:
            self._said.clear()
        found = look()
        self._said[key] = now + self._seconds, found
        return found


class _State:
    """Flower's state of the link, as far as admission asks it."""

    def __init__(self, flower: Any) -> None:
        self._flower, self._remembered = flower, Remembered()

    @property
    def whole(self) -> Any:
        return self._flower.state.linkstate_factory.state()

    def get_node_id_by_public_key(self, key: bytes) -> int | None:
        found: int | None = self._remembered.of(
            ("node", key), lambda: self.whole.get_node_id_by_public_key(key)
        )
        return found

    def get_task_by_token(self, token: str) -> Any:
        return self._remembered.of(("task", token), lambda: self.whole.get_task_by_token(token))

    def is_running(self, run: int) -> bool:
        said = self._remembered.of(("run", run), lambda: self.whole.get_run_status({run}).get(run))
        return said is not None and said.status == Status.RUNNING


@dataclass
class _Push:
    """A push whose content is about to come."""

    request: PushObjectRequest  # without content, and without what follows it
    length: int
    rest: bytes  # of the content, and of what follows it


class Carrying:
    """See above; an application around another.

    Args:
        app: that answers everything else.
        flower: Flower's application, whose state is asked.
        store: that Flower keeps its objects in.
    """

    def __init__(self, app: App, flower: Any, store: ObjectFiles) -> None:
        self._app, self._store, self._state = app, store, _State(flower)
        self._version = VersionDependency(component_name="SuperLink", connection_name="Runtime API")
        self._awaited: dict[str, asyncio.Event] = {}
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the application's start and end."""
        if scope["type"] != "http" or scope["path"] not in _PATHS or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        read = _Body(receive)
        ways = {_PUSH: self._push, _PULL: self._pull, _CONFIRM: self._confirm}
        if not await ways[scope["path"].rpartition("/")[2]](scope, read, send):
            await self._app(scope, read.again(), send)

    async def _pull(self, scope: Scope, read: _Body, send: Send) -> bool:
        request = await read.whole(PullObjectRequest)
        if request is None or self._admitted(scope, request) is None:
            return False
        found = self._store.content(request.object_id)
        if found is None and self._may_be_held(scope) and request.object_id in self._store:
            found = await self._awaiting(request.object_id)
        if found is None:
            return False
        await _send(send, found)
        return True

    async def _confirm(self, scope: Scope, read: _Body, send: Send) -> bool:
        """Whoever has all of a message says so, and its objects go."""
        request = await read.whole(ConfirmMessageReceivedRequest)
        if request is None or self._admitted(scope, request) is None:
            return False
        await to_thread.run_sync(self._store.delete, request.message_object_id)
        await _answer(send, 200, ConfirmMessageReceivedResponse().SerializeToString())
        return True

    def _may_be_held(self, scope: Scope) -> bool:
        return WAITS in dict(scope["headers"]) and self._held < _MOST_HELD

    async def _awaiting(self, number: str) -> Content | None:
        """An object that has been announced, once it has come; for a moment."""
        come = self._awaited.setdefault(number, asyncio.Event())
        self._held += 1
        try:
            await asyncio.wait_for(come.wait(), _HELD_S)
        except TimeoutError:
            if self._awaited.get(number) is come:
                del self._awaited[number]
        finally:
            self._held -= 1
        return self._store.content(number)

    async def _push(self, scope: Scope, read: _Body, send: Send) -> bool:
        push = await read.push()
        if push is None:
            return False
        run = self._admitted(scope, push.request)
        if run is None:
            return False
        try:
            with closing(self._store.receive(push.length)) as received:
                rest = await read.into(received, push.rest)
                if rest is None:  # whoever pushes has gone, or says more than a push does
                    await _answer(send, 400, b"")
                    return True
                stored = await to_thread.run_sync(
                    self._state.whole.store_object, run, rest.session_id, push.request.object_id, received
                )
        except OSError as error:
            _LOG.error("an object cannot be kept: %s", error.strerror)
            stored = False
        if stored and (come := self._awaited.pop(push.request.object_id, None)) is not None:
            come.set()
        await _answer(send, 200, PushObjectResponse(stored=stored).SerializeToString())
        return True

    def _admitted(self, scope: Scope, request: _Request) -> int | None:
        """The run of whoever Flower admits with this request; `None` where it would not, or may not."""
        headers = Headers(scope=scope)
        if headers.get("content-type", "") != PROTOBUF_MEDIA_TYPE:
            return None
        try:
            if scope["path"].startswith(_FLEET):
                authenticate_node(_as_request(headers, request, self._state))
                return request.run_id if self._state.is_running(request.run_id) else None
            self._version(_as_request(headers, request, self._state))
            token = headers.get(TASK_TOKEN_HEADER)
            task = authenticate_task(_as_request(headers, request, self._state), token, self._state)  # type: ignore[arg-type]
        except (FlowerError, HTTPException):
            return None
        return int(task.run_id) if request.node.node_id == SUPERLINK_NODE_ID else None


class _Body:
    """The body of a request, of which what was read can be read again."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._read: list[Any] = []
        self._more = True

    async def _piece(self) -> bytes:
        event = await self._receive()
        self._read.append(event)
        self._more = event["type"] == "http.request" and event.get("more_body", False)
        return bytes(event.get("body", b"")) if event["type"] == "http.request" else b""

    async def whole(self, kind: type[R]) -> R | None:
        """A request that is small, whole."""
        body = bytearray()
        while self._more and len(body) <= _MOST_HEADER:
            body += await self._piece()
        if self._more or len(body) > _MOST_HEADER:
            return None
        try:
            request: R = kind.FromString(bytes(body))
        except DecodeError:
            return None
        return request

    async def push(self) -> _Push | None:
        """What comes before the content of a push."""
        body = bytearray()
        while True:
            begun = _begun(bytes(body[:_MOST_HEADER]))
            if begun is not None:
                header, length, at = begun
                if not 0 < length <= _MOST_BYTES:
                    return None
                try:
                    request = PushObjectRequest.FromString(bytes(body[:header]))
                except DecodeError:
                    return None
                return _Push(request, length, bytes(body[at:]))
            if not self._more or len(body) > _MOST_HEADER:
                return None
            body += await self._piece()

    async def into(self, received: Received, rest: bytes) -> PushObjectRequest | None:
        """Have the content go where it is received; what follows it, or `None` where it is not all there, or not as it should be."""
        self._read.clear()  # from here on nobody reads it again
        piece, after = rest, bytearray()
        while True:
            wanted = received.size - received.length
            received.write(memoryview(piece)[:wanted])
            after += piece[wanted:]
            if len(after) > _MOST_HEADER:
                return None
            if not self._more:
                break
            piece = await self._piece()
            self._read.clear()
        try:
            said = PushObjectRequest.FromString(bytes(after))
        except DecodeError:
            return None
        return said if received.length == received.size and not said.object_content else None

    def again(self) -> Receive:
        """Gives what was read once more, and then the rest."""
        read = iter(self._read)

        async def receive() -> Any:
            for event in read:
                return event
            return await self._receive()

        return receive


def _begun(data: bytes) -> tuple[int, int, int] | None:
    """Where the content of a push begins, if that is in sight.

    Returns:
        Where its tag stands, how long it is, and where its first byte stands. A push whose fields come in another order than Flower writes
        them in has none.
    """
    at = 0
    try:
        while True:
            tag, after = _number(data, at)
            if tag == _CONTENT_PUSHED:
                length, begins = _number(data, after)
                return at, length, begins
            if tag >> 3 not in {1, 2, 3} or tag & 7 not in {0, 2}:
                return None
            number, at = _number(data, after)
            at += number if tag & 7 == 2 else 0
    except IndexError:
        return None


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, and where the next thing stands."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
        if shift > 63:
            raise IndexError("no number of a protobuf")


def _as_number(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


def _as_request(headers: Headers, request: Any, state: _State) -> Any:
    """What Flower's functions of admission look at."""
    factory = SimpleNamespace(state=lambda: state)
    app = SimpleNamespace(state=SimpleNamespace(linkstate_factory=factory))
    return SimpleNamespace(headers=headers, state=SimpleNamespace(protobuf_request=request), app=app)


async def _send(send: Send, content: Content) -> None:
    """An object, as Flower's `PullObjectResponse`."""
    head = PullObjectResponse(object_found=True, object_available=True).SerializeToString()
    head += bytes([_CONTENT_PULLED]) + _as_number(content.size)
    with _open(content) as file:
        await _start(send, 200, len(head) + content.size)
        if file is None:
            await send({"type": "http.response.body", "body": head + content.data})
            return
        await send({"type": "http.response.body", "body": head, "more_body": True})
        left = content.size
        while left:
            piece = file.read(min(_PIECE, left))
            if not piece:
                raise EOFError("an object is shorter than it was")
            left -= len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": left > 0})


@contextmanager
def _open(content: Content) -> Iterator[Any]:
    try:
        yield content.file
    finally:
        if content.file is not None:
            content.file.close()


async def _start(send: Send, status: int, length: int) -> None:
    headers = [
        (b"content-type", PROTOBUF_MEDIA_TYPE.encode()),
        (b"content-length", str(length).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _answer(send: Send, status: int, body: bytes) -> None:
    await _start(send, status, len(body))
    await send({"type": "http.response.body", "body": body})
