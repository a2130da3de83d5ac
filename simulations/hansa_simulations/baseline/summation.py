"""The sum of a baseline: there is none to protect, so its one member's update is taken as it is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

import numpy as np

from hansa.agreement import Agreement
from hansa.errors import WireError
from hansa.protocol import Aggregate, PolicyCode, update_encoding
from hansa.secagg.errors import QuorumError
from hansa.secagg.ring import RingVector
from hansa.server_step import ServerState
from hansa.wire import Message
from hansa_server.journal import Journal
from hansa_server.members import Members
from hansa_server.summation import Note
from hansa_server.tally import Tally
from hansa_simulations.baseline.messages import read_update, train_request


class PlainSummation:
    """The update of a baseline's one member, without masks: there is nobody to hide it from.

    Args:
        agreement: frozen, with a baseline.
        members: the one.
        journal: keeps every exchange.
        run: the run's name.
    """

    def __init__(self, agreement: Agreement, members: Members, journal: Journal, run: str) -> None:
        self._agreement, self._members, self._journal, self._run = agreement, members, journal, run
        self._names = tuple(member.name for member in agreement.terms.members)
        self._encoding = update_encoding(agreement)

    def sum(self, state: ServerState, note: Note) -> Aggregate:
        number, dimension = state.round + 1, len(state.weights)
        tally = Tally(number, self._names)
        request = train_request(self._agreement, self._run, number, state.weights)
        started = time.monotonic()
        exchange = partial(
            self._members.exchange,
            dict.fromkeys(self._names, request),
            self._agreement.terms.training.deadline_s,
        )
        replies = self._journal.once(f"{self._run}/{number}/update", exchange)
        total, present = np.zeros(dimension, dtype=np.uint32), []
        for name in self._names:
            reply = replies.get(name)
            tally.carried(name, request, reply)
            update = self._read(request, reply, dimension)
            if isinstance(update, PolicyCode):
                tally.refused(name, update)
            else:
                np.add(total, update, out=total)
                present.append(name)
        tally.seconds = time.monotonic() - started
        note(tally.with_present(tuple(present), None))
        if not present:
            raise tally.too_few(QuorumError("", missing=self._names), 1)
        return Aggregate(state.round, tuple(present), self._encoding.decode(total, len(present)))

    def followed(self, state: ServerState) -> None:
        """Nothing: a baseline keeps no record."""

    def closed(self, requests: Mapping[str, Message], replies: Mapping[str, Message]) -> None:
        """Nothing: a baseline keeps no record."""

    def _read(self, request: Message, reply: Message | None, dimension: int) -> RingVector | PolicyCode:
        if reply is None:
            return PolicyCode.ABSENT
        try:
            return read_update(request, reply, dimension)
        except WireError:
            return PolicyCode.MESSAGE
