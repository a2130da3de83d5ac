"""Flower's SuperLink runs whatever code it is sent by whoever reaches its control: here nobody from elsewhere does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hansa_server.flower_app.superlink import HEADER, Gate

SECRET = b"0f" * 32


def asked(path: str, *, client: str | None, server: str = "10.0.0.5", secret: bytes | None = None) -> int:
    """The status of one request through the gate; 200 is the application's."""
    sent: list[dict[str, Any]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    scope = {
        "type": "http", "path": path, "server": (server, 8000),
        "client": None if client is None else (client, 40_000),
        "headers": [] if secret is None else [(HEADER, secret)],
    }  # fmt: skip
    asyncio.run(Gate(application, SECRET)(scope, receive, send))
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    ("path", "client", "secret", "status"),
    [
        ("/v1/fleet/pull-messages", "203.0.113.9", None, 200),  # nodes prove themselves to Flower
        ("/v1/control/start-run", "203.0.113.9", None, 404),
        ("/v1/control/start-run", "203.0.113.9", SECRET, 404),  # a stolen secret is of no use elsewhere
        ("/v1/control/start-run", "127.0.0.1", None, 404),
        ("/v1/control/start-run", "127.0.0.1", SECRET[:-1], 404),
        ("/v1/control/start-run", "127.0.0.1", SECRET, 200),
        ("/v1/control/start-run", "::1", SECRET, 200),
        ("/v1/control/start-run", "10.0.0.5", SECRET, 200),  # this machine under its own address
        ("/v1/control/start-run", None, SECRET, 404),
        ("/v1/runtime/acquire-task", "203.0.113.9", None, 404),
        ("/v1/runtime/acquire-task", "127.0.0.1", None, 200),
        ("/v1/fleet/../control/start-run", "203.0.113.9", None, 404),
        ("/v1/fleet/%2e%2e/control/start-run", "203.0.113.9", None, 404),
        ("/v1/CONTROL/start-run", "127.0.0.1", SECRET, 404),
        ("/health", "203.0.113.9", None, 404),
        ("/openapi.json", "127.0.0.1", SECRET, 404),
        ("", "203.0.113.9", None, 404),
    ],
)
def test_who_may_ask_what(path, client, secret, status):
    assert asked(path, client=client, secret=secret) == status


def test_what_is_no_http_is_closed():
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def never(*_: Any) -> None:
        raise AssertionError("it passed")

    asyncio.run(Gate(never, SECRET)({"type": "websocket", "path": "/v1/fleet/x"}, never, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
