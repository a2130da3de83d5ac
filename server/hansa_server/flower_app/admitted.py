"""Who is admitted is Flower's to say; what its database answered a moment ago is not asked again for each of many requests."""

from __future__ import annotations

import binascii
import time
from base64 import b64decode
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

from fastapi import HTTPException
from flwr.common.constant import Status
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from flwr.superlink.routers.fleet.node_auth import authenticate_node
from starlette.datastructures import Headers

from hansa_server.flower_app.asgi import Scope

T = TypeVar("T")
_REMEMBERED_S = 1.0
_MOST_REMEMBERED = 4096


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


class Admission:
    """Flower's state of the link, as far as admission asks it.

    Args:
        flower: Flower's application.
    """

    def __init__(self, flower: Any) -> None:
        self._flower, self._remembered = flower, Remembered()

    @property
    def whole(self) -> Any:
        """All of the state."""
        return self._flower.state.linkstate_factory.state()

    def get_node_id_by_public_key(self, key: bytes) -> int | None:
        """As Flower's."""
        found: int | None = self._remembered.of(
            ("node", key), lambda: self.whole.get_node_id_by_public_key(key)
        )
        return found

    def get_task_by_token(self, token: str) -> Any:
        """As Flower's."""
        return self._remembered.of(("task", token), lambda: self.whole.get_task_by_token(token))

    def is_running(self, run: int) -> bool:
        """Whether a Flower run goes on."""
        said = self._remembered.of(("run", run), lambda: self.whole.get_run_status({run}).get(run))
        return said is not None and said.status == Status.RUNNING

    def as_request(self, headers: Headers, request: Any) -> Any:
        """What Flower's functions of admission look at."""
        factory = SimpleNamespace(state=lambda: self)
        app = SimpleNamespace(state=SimpleNamespace(linkstate_factory=factory))
        return SimpleNamespace(headers=headers, state=SimpleNamespace(protobuf_request=request), app=app)

    def node_of(self, scope: Scope) -> int | None:
        """The node that the head of a request proves to be a registered one's, before its body is read; `None` where it proves none."""
        headers = Headers(scope=scope)
        try:
            key = b64decode(headers[FLEET_HTTP_PUBLIC_KEY_HEADER], validate=True)
            authenticate_node(self.as_request(headers, ActivateNodeRequest(public_key=key)))
        except (KeyError, ValueError, binascii.Error, HTTPException):
            return None
        return self.get_node_id_by_public_key(key)
