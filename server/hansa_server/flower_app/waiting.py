"""Questions that wait for news: whoever asks whether something has come is answered when it has.

Flower's parties ask again and again, and each question costs its SuperLink some milliseconds. Behind the gate one that says
`WAITS` is held until something was pushed since the same party asked last, or for some seconds; then Flower answers it. What
is answered, and to whom, is Flower's matter: waiting changes when, and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict

from hansa_server.flower_app.asgi import App, Receive, Scope, Send

WAITS = b"x-hansa-waits"
_NODE, _TOKEN = b"flwr-public-key", b"flwr-task-token"
_NODES_ASK, _NODES_TELL = "/v1/fleet/pull-messages", "/v1/fleet/push-messages"
_RUN_ASKS, _RUN_TELLS = "/v1/runtime/pull-messages", "/v1/runtime/push-messages"
NODE_WAITS_S, RUN_WAITS_S = 2.0, 0.5  # a node that is stopped, or a run, is not held for longer
_MOST_HELD = 512  # at once, and parties that are remembered: whoever comes beyond is answered at once


class _News:
    """How often something was pushed, and whoever waits for the next time."""

    def __init__(self) -> None:
        self.count = 0
        self._come = asyncio.Event()

    def tell(self) -> None:
        self.count += 1
        self._come.set()
        self._come = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._come.wait(), seconds)
        except TimeoutError:
            return


class Waiting:
    """See above; an application around another."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._requests, self._replies = _News(), _News()
        self._seen: OrderedDict[bytes, int] = (
            OrderedDict()
        )  # by party, what it had been told when it asked last
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the application's start and end."""
        path = scope["path"] if scope["type"] == "http" else ""
        if path == _NODES_ASK:
            await self._ask(scope, self._requests, _NODE, NODE_WAITS_S)
        elif path == _RUN_ASKS:
            await self._ask(scope, self._replies, _TOKEN, RUN_WAITS_S)
        await self._app(scope, receive, send)
        if path == _RUN_TELLS:
            self._requests.tell()
        elif path == _NODES_TELL:
            self._replies.tell()

    async def _ask(self, scope: Scope, news: _News, who: bytes, seconds: float) -> None:
        headers = dict(scope["headers"])
        if WAITS not in headers:
            return
        party = hashlib.sha256(headers.get(who, b"")).digest()
        if self._seen.get(party) == news.count and self._held < _MOST_HELD:
            self._held += 1
            try:
                await news.wait(seconds)
            finally:
                self._held -= 1
        self._seen[party] = news.count
        self._seen.move_to_end(party)
        while len(self._seen) > _MOST_HELD:
            self._seen.popitem(last=False)
