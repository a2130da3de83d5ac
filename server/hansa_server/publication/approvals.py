"""Showing members the log until they have cosigned it, and collecting their approvals of what is to stand in it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hansa.agreement import Agreement
from hansa.errors import HansaError, MachineError
from hansa.gate.errors import ApprovalError
from hansa.identity import Statement
from hansa.ledger import Gate, Publication, SignedEntry
from hansa.ledger.entry import PURPOSE
from hansa.protocol import (
    PolicyCode,
    Proposed,
    approval_request,
    read_approved_reply,
)
from hansa.wire import Message
from hansa_server.history import History
from hansa_server.journal import Journal
from hansa_server.members import Members
from hansa_server.showing import Showing, Shown

_LOG = logging.getLogger("hansa.coordinator")


@dataclass(frozen=True)
class Approvals:
    """The members of one run, as far as their approvals and cosignatures are concerned.

    Attributes:
        agreement: frozen.
        run: the run's name.
        members: over some carrier.
        journal: keeps every exchange.
        history: the federation's log.
        clock: seconds, for how long members are waited for.
    """

    agreement: Agreement
    run: str
    members: Members
    journal: Journal
    history: History
    clock: Callable[[], float] = time.monotonic

    def shown(self) -> None:
        """Show the log to everybody until all that it holds is cosigned by a quorum.

        Raises:
            ApprovalError: too few members cosign it.
        """

        def exchange(requests: Mapping[str, Message], deadline_s: float, turn: int) -> Shown:
            asked = list[int]()

            def ask() -> Mapping[str, Message]:
                asked.append(turn)
                return self.members.exchange(requests, deadline_s)

            return self.journal.once(f"{self.run}/shown/{self.history.log.size}/{turn}", ask), bool(asked)

        showing = Showing(self.agreement, self.run, self.history, self.clock)
        showing.until(lambda: self.history.covered, lambda: self.history.roster.active, exchange)
        if not self.history.covered:
            raise ApprovalError("too few members have cosigned the federation's log")

    def of(
        self, entry: Gate | Publication, documents: Mapping[str, bytes], signed: SignedEntry
    ) -> SignedEntry:
        """Have members approve an entry.

        Args:
            entry: that is proposed.
            documents: what a member needs beside its own copy of the log, by name.
            signed: the entry with the coordinator's signature.

        Returns:
            The entry with the signatures of at least a quorum of members, each verified.

        Raises:
            ApprovalError: fewer approved it; says who did not.
        """
        request = approval_request(self.agreement, self.run, Proposed(entry.data, documents))
        requests = dict.fromkeys(self.history.roster.active, request)

        def ask() -> Mapping[str, Message]:
            deadline_s = self.agreement.terms.training.deadline_s
            replies = self.members.exchange(requests, deadline_s)
            self._approved(entry, request, replies)  # too few are not kept: who calls again asks again
            return replies

        replies = self.journal.once(f"{self.run}/approve/{entry.sha256}", ask)
        return signed.with_statements(self._approved(entry, request, replies))

    def _approved(
        self, entry: Gate | Publication, request: Message, replies: Mapping[str, Message]
    ) -> list[Statement]:
        """The members' signatures of an entry, where they are enough."""
        approved, refused = list[Statement](), dict[str, str]()
        for name in self.history.roster.active:
            try:
                approved.append(self._approval(name, entry, request, replies))
            except MachineError:
                raise  # no word of the member's
            except HansaError as error:
                refused[name] = error.cause
        if len(approved) < self.history.quorum:
            told = "; ".join(f"{name}: {why}" for name, why in sorted(refused.items()))
            raise ApprovalError(
                f"{len(approved)} members approve the {entry.type}, {self.history.quorum} are needed ({told})"
            )
        for name, why in refused.items():
            _LOG.warning("%s does not approve the %s: %s", name, entry.type, why)
        return approved

    def _approval(
        self, name: str, entry: Gate | Publication, request: Message, replies: Mapping[str, Message]
    ) -> Statement:
        if name not in replies:
            raise ApprovalError("no answer")
        said = read_approved_reply(request, replies[name])
        if isinstance(said, PolicyCode):
            raise ApprovalError(f"refuses: {said.value}")
        statement = Statement(PURPOSE + entry.type, name, entry.data, said)
        statement.verify(self.history.roster, PURPOSE + entry.type)
        return statement
