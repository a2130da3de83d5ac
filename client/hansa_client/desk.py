"""The member's desk: every request comes here first, and the member's own rules are asked before anybody else.

One process serves all agreements of a member over one ledger. A request of an agreement that was not accepted, outside
the member's hours or while the member pauses gets a refusal, and nobody reads it any further.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from hansa.observing import About, about, about_request
from hansa.protocol import PolicyCode, refusal
from hansa.wire import Message
from hansa_client.policy import Policy

_LOG = logging.getLogger("hansa.node")


class Serves(Protocol):
    """`hansa_client.node.Node`."""

    def handle(self, request: Message) -> Message:
        """Answer a request."""


@dataclass(frozen=True)
class Answer:
    """One request and its reply, for whoever counts; public facts of a message alone.

    Attributes:
        about: what was asked.
        reply: as it leaves.
        bytes_in: of the request.
        seconds: that the answer took.
    """

    about: About
    reply: Message
    bytes_in: int
    seconds: float

    @property
    def outcome(self) -> str:
        """``answered``, or the code of the refusal."""
        code = self.reply.body.get("code") if self.reply.kind == "refusal" else None
        return str(code) if code is not None else "answered"


class Desk:
    """See above.

    Args:
        nodes: by agreement id.
        policy: the member's.
        now: the local clock.
        paused: whether the member takes no part for now.
        noted: told each answer, for whoever counts.

    Guarantees: what this refuses was neither read nor recorded by anybody else; its code follows from the request's agreement
        id, the clock and the member's rules alone.
    """

    def __init__(
        self,
        nodes: Mapping[str, Serves],
        policy: Policy,
        now: Callable[[], datetime],
        paused: Callable[[], bool] = lambda: False,
        noted: Callable[[Answer], None] = lambda _: None,
    ) -> None:
        self._nodes, self._policy, self._now, self._paused = dict(nodes), policy, now, paused
        self._noted, self._refused = noted, Counter[str]()

    def handle(self, request: Message) -> Message:
        """Answer a request.

        Raises:
            WireError: the request does not even say which run and round it is about, so it cannot be answered.
        """
        agreement_id, run = request.text("agreement_id"), request.text("run")
        exchange, asked = request.integer("round"), about_request(request)
        started = time.monotonic()
        with about(agreement=agreement_id[:16], run=run, round=asked.round, phase=asked.phase):
            reply = self._answer(request, agreement_id)
            done = Answer(asked, reply, request.payload_bytes, time.monotonic() - started)
            _LOG.info(
                "answered exchange %(exchange)d: %(outcome)s after %(seconds).3f s",
                {
                    "exchange": exchange,
                    "outcome": done.outcome,
                    "seconds": done.seconds,
                    "bytes_in": done.bytes_in,
                    "bytes_out": reply.payload_bytes,
                },
            )
            self._noted(done)
        return reply

    def _answer(self, request: Message, agreement_id: str) -> Message:
        node = self._nodes.get(agreement_id)
        if node is None:
            return self._refuse(
                request, PolicyCode.AGREEMENT, f"agreement {agreement_id[:16]} was not accepted here"
            )
        if self._paused():
            return self._refuse(request, PolicyCode.ABSENT, "this member pauses")
        if not self._policy.open_at(self._now()):
            return self._refuse(request, PolicyCode.ABSENT, f"it is outside {self._policy.hours}")
        return node.handle(request)

    def _refuse(self, request: Message, code: PolicyCode, why: str) -> Message:
        self._refused[why] += 1
        if self._refused[why] == 1:  # whoever asks again and again does not fill the log
            _LOG.warning(
                "a request of kind %(kind)s is refused: %(why)s",
                {"kind": request.kind[:32], "why": why, "code": code},
            )
        return refusal(request, code)
