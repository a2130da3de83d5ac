"""One connection to the SuperLink's port: what comes before the body of a request is held to a size and to a time.

uvicorn keeps the head of a request, however long, until all of it is there, and waits for it as long as whoever connected likes. Both are open to
anybody who reaches the port: memory and connections would come to their end.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = (
    64 * 2**10
)  # beyond the last body or request; a head of Flower's nodes has about one kilobyte
HEAD_WITHIN_S = 30.0
CLOSES_WITHIN_S = 2.0


class BoundedConnection(HttpToolsProtocol):
    """See above; uvicorn's own otherwise, of which this uses what it overrides."""

    _head_bytes = 0
    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head is waited for from here on."""
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._come()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes; whoever sends ever more that belong to no head's end and to no body that is read is cut off."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MOST_HEAD_BYTES:
            self.transport.abort()
        elif self._due is None and (self.cycle is None or self.cycle.response_complete):
            self._expect()  # uvicorn's own patience between two requests ended with these bytes, which began none

    def on_message_begin(self) -> None:
        """A head begins."""
        if self._due is None:
            self._expect()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is there."""
        self._head_bytes = 0
        self._come()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Some of a body; how much of it is read is `Bounded`'s matter, and nothing is once it was answered."""
        if not self.cycle.response_complete:
            self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """What comes after it is of another request."""
        self._head_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is sent; where it is the last, TLS would wait for the other end to agree, and read on meanwhile."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._come()
            self._expect(CLOSES_WITHIN_S)

    def _expect(self, seconds: float | None = None) -> None:
        self._due = self.loop.call_later(HEAD_WITHIN_S if seconds is None else seconds, self._give_up)

    def _come(self) -> None:
        due: Any = self._due
        if due is not None:
            due.cancel()
            self._due = None

    def _give_up(self) -> None:
        self._due = None
        self.transport.abort()
