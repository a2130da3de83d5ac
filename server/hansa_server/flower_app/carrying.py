"""Objects on a short way through the SuperLink: streamed to and from files, by whoever Flower would admit.

All that is large between machines, and most requests, are objects that are pushed and pulled. Flower reads each into memory,
copies it several times and keeps it in its database. Here a push goes to a file as it arrives, and a pull comes from it; a pull of what
has been announced and has not come is held until it does, for a moment, where it says `WAITS`. Who is admitted is decided by Flower's own functions; what it says of nodes, tasks
and runs is remembered for a second. Whatever is not plainly in order is left to Flower, which answers it as it would have: without its content
where that is large, since Flower reads it into memory before it asks who sent it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from anyio import to_thread
from fastapi import HTTPException
from flwr.common.constant import SUPERLINK_NODE_ID
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

from hansa_server.flower_app.admitted import Admission
from hansa_server.flower_app.asgi import App, Receive, Scope, Send
from hansa_server.flower_app.bounded import MOST_OBJECT_BYTES
from hansa_server.flower_app.objects import Content, ObjectFiles, Received
from hansa_server.flower_app.waiting import WAITS

_Request: TypeAlias = PullObjectRequest | PushObjectRequest | ConfirmMessageReceivedRequest
R = TypeVar("R", PullObjectRequest, ConfirmMessageReceivedRequest)

_LOG = logging.getLogger("hansa.coordinator")
_FLEET, _RUNTIME = "/v1/fleet/", "/v1/runtime/"
_PUSH, _PULL, _CONFIRM = "push-object", "pull-object", "confirm-message-received"
_PATHS = frozenset(part + what for part in (_FLEET, _RUNTIME) for what in (_PUSH, _PULL, _CONFIRM))
_MOST_HEADER = 1024  # of a request, its content left out
_PIECE = 256 * 1024
_MOST_LEFT = 64 * 1024  # of a push that Flower is given whole
_HELD_S, _MOST_HELD = 0.5, 512
_CONTENT_PUSHED, _CONTENT_PULLED = 4 << 3 | 2, 3 << 3 | 2  # tags of `object_content`


@dataclass
class _Push:
    """A push whose content is about to come."""

    request: PushObjectRequest  # without content, and without what follows it
    length: int
    head: bytes  # the same as it came
    rest: bytes  # of the content, and of what follows it


class Carrying:
    """See above; an application around another.

    Args:
        app: that answers everything else.
        state: Flower's, which is asked.
        store: that Flower keeps its objects in.
    """

    def __init__(self, app: App, state: Admission, store: ObjectFiles) -> None:
        self._app, self._store, self._state = app, store, state
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
            return await self._leave(read, send)
        run = self._admitted(scope, push.request)
        if run is None:
            if push.length < _MOST_LEFT // 2:
                return await self._leave(read, send)
            # Flower says why without the content, which it would read whole
            if await read.into(None, push) is None and not read.gone:
                await _answer(send, 400, b"")
                return True
            return read.gone
        try:
            with closing(self._store.receive(push.length, _sender(push.request))) as received:
                rest = await read.into(received, push)
                if rest is None:  # whoever pushes has gone, or says more than a push does
                    await _answer(send, 400, b"")
                    return True
                stored = await to_thread.run_sync(
                    self._state.whole.store_object, run, rest.session_id, push.request.object_id, received
                )
        except OSError as error:
            _LOG.error("an object cannot be kept: %s", error.strerror)
            stored = False
            await read.into(None, push)  # whoever sends it is told once it has been sent
        if stored and (come := self._awaited.pop(push.request.object_id, None)) is not None:
            come.set()
        await _answer(send, 200, PushObjectResponse(stored=stored).SerializeToString())
        return True

    async def _leave(self, read: _Body, send: Send) -> bool:
        """A push that is not in order is Flower's to answer where it is small."""
        if await read.ends_within(_MOST_LEFT) or read.gone:
            return read.gone
        await _answer(send, 413, b"")
        return True

    def _admitted(self, scope: Scope, request: _Request) -> int | None:
        """The run of whoever Flower admits with this request; `None` where it would not, or may not."""
        headers = Headers(scope=scope)
        if headers.get("content-type", "") != PROTOBUF_MEDIA_TYPE:
            return None
        try:
            if scope["path"].startswith(_FLEET):
                authenticate_node(self._state.as_request(headers, request))
                return request.run_id if self._state.is_running(request.run_id) else None
            self._version(self._state.as_request(headers, request))
            token = headers.get(TASK_TOKEN_HEADER)
            task = authenticate_task(self._state.as_request(headers, request), token, self._state)  # type: ignore[arg-type]
        except (FlowerError, HTTPException):
            return None
        return int(task.run_id) if request.node.node_id == SUPERLINK_NODE_ID else None


class _Body:
    """The body of a request, of which what was read can be read again."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._read: list[Any] = []
        self._more = True
        self.gone = False  # whoever sent it

    async def _piece(self) -> bytes:
        event = await self._receive()
        self._read.append(event)
        self.gone = event["type"] != "http.request"
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
                if not 0 < length <= MOST_OBJECT_BYTES:
                    return None
                try:
                    request = PushObjectRequest.FromString(bytes(body[:header]))
                except DecodeError:
                    return None
                return _Push(request, length, bytes(body[:header]), bytes(body[at:]))
            if not self._more or len(body) > _MOST_HEADER:
                return None
            body += await self._piece()

    async def ends_within(self, most: int) -> bool:
        """Whether all of it is there, and no more than so many bytes."""
        while self._more and self._length <= most:
            await self._piece()
        return not self._more and not self.gone and self._length <= most

    @property
    def _length(self) -> int:
        return sum(len(event.get("body", b"")) for event in self._read)

    async def into(self, received: Received | None, push: _Push) -> PushObjectRequest | None:
        """Have the content go where it is received, or nowhere, and be read again without it.

        Returns:
            What follows it; `None` where it is not all there, or not as it should be.
        """
        self._read.clear()  # from here on nobody reads it again
        piece, after, left = push.rest, bytearray(), push.length
        while True:
            if received is not None:
                received.write(memoryview(piece)[:left])
            after += piece[left:]
            left -= min(left, len(piece))
            if len(after) > _MOST_HEADER:
                return None
            if not self._more:
                break
            piece = await self._piece()
            self._read.clear()
        whole = {"type": "http.request", "body": push.head + after, "more_body": False}
        self._read.append(whole)
        try:
            said = PushObjectRequest.FromString(bytes(after))
        except DecodeError:
            return None
        return said if not left and not said.object_content else None

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


def _sender(request: PushObjectRequest) -> int | None:
    """The node whose objects count; a run's do not, which makes room for them itself."""
    node = request.node.node_id
    return None if node == SUPERLINK_NODE_ID else int(node)


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
