"""How a round is summed: under masks, or, in a baseline of one member, as it is.

`SecureSummation` drives the coordinator's machine of `hansa.secagg` over the port `Members`. Every exchange goes
through the journal, and everything the machine sends is a function of what came back, so that a run that is called
again continues in the phase in which it stopped.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np

from hansa.agreement import Agreement
from hansa.errors import BudgetRefusedError, HansaError, ModelMismatchError, TooFewMembersError, WireError
from hansa.identity import Roster, Signer, Statement
from hansa.protocol import (
    MAX_AGGREGATES,
    UPDATE,
    Aggregate,
    PolicyCode,
    read_sum_reply,
    read_update,
    sum_request,
    sum_terms,
    train_request,
    update_encoding,
)
from hansa.secagg import (
    Coordinator,
    Manifest,
    MaskWorkers,
    SumOutcome,
    SumTerms,
    attest,
    follows,
    verify_sum,
)
from hansa.secagg.errors import QuorumError
from hansa.secagg.record import Phase
from hansa.secagg.record import RoundRecord as SignedRound
from hansa.secagg.ring import RingVector
from hansa.secagg.store import Store
from hansa.server_step import ServerState
from hansa.wire import Message
from hansa_server.journal import Journal
from hansa_server.members import Members
from hansa_server.rounds import RoundRecord, SumFacts

ASKED_AGAIN = 2  # times that too few answers are asked for again, each time until the agreement's deadline
_TOLD = {
    BudgetRefusedError.code: PolicyCode.BUDGET,
    ModelMismatchError.code: PolicyCode.MODEL,
    WireError.code: PolicyCode.MESSAGE,
}

_LOG = logging.getLogger("hansa.coordinator")

Note = Callable[[RoundRecord], None]


class Summation(Protocol):
    """Sums the members' updates at one state of the model."""

    def sum(self, state: ServerState, note: Note) -> Aggregate:
        """Sum a round.

        Args:
            state: whose weights the members train on.
            note: is given the round's record, also where it failed.

        Raises:
            TooFewMembersError: too few answered; names who is missing and why.
            HansaError: there is no sum that could be used; see `hansa.secagg.errors`.
        """


@dataclass(frozen=True)
class Verifier:
    """A named party that recomputes every sum before its masked vectors are let go.

    Attributes:
        signer: a member's or an auditor's key.
        workers: processes for large vectors.
    """

    signer: Signer
    workers: MaskWorkers = field(default_factory=MaskWorkers)

    def verify(
        self,
        terms: SumTerms,
        record: SignedRound,
        masked: Callable[[str], RingVector],
        previous: SignedRound | None = None,
    ) -> Statement:
        """Recompute a sum, and say so.

        Args:
            terms: the agreement's.
            record: the round's.
            masked: gives a survivor's masked vector.
            previous: the record of the last finished round.

        Raises:
            SumVerificationError: the record does not prove the sum that it names, or does not follow from the last.
        """
        follows(record, previous)
        verify_sum(terms, record, masked, workers=self.workers)
        return attest(terms, record, self.signer)


@dataclass(frozen=True)
class SumHouse:
    """With what the coordinator runs secure sums.

    Attributes:
        signer: its key, which the roster pins.
        roster: the keys in force.
        spool: where masked vectors wait until a verifier has recomputed their sum.
        verifier: recomputes each sum at once; without one the vectors stay in the spool.
        workers: processes for large vectors.
    """

    signer: Signer
    roster: Roster
    spool: Store
    verifier: Verifier | None = None
    workers: MaskWorkers = field(default_factory=MaskWorkers)


class SecureSummation:
    """The members' updates under double masking: nobody sees a single one.

    Args:
        agreement: frozen.
        members: the league, over some carrier.
        journal: keeps every exchange.
        run: the run's name.
        house: the coordinator's own.

    Raises:
        SumTermsError: no sum under this agreement would be both secret and exact.
    """

    def __init__(
        self, agreement: Agreement, members: Members, journal: Journal, run: str, house: SumHouse
    ) -> None:
        self._agreement, self._members, self._journal, self._run = agreement, members, journal, run
        self._house = house
        self._terms = sum_terms(agreement, house.roster)
        self._machine = Coordinator(self._terms, run, house.signer, spool=house.spool, workers=house.workers)
        self._aggregates: dict[int, Aggregate] = {}  # by step, those that some member may lack
        self._previous: SignedRound | None = None
        self._follows = dict.fromkeys(house.roster.members, 0)  # how many of them each member's model has
        self._exchanges = self._retries = 0
        self._phase = Phase.KEYS

    def sum(self, state: ServerState, note: Note) -> Aggregate:
        tally = Tally(state.round + 1, tuple(self._house.roster.members))
        while True:
            try:
                outcome = self._round(state, tally)
                verified = self._verify(outcome)
            except QuorumError as error:
                self._machine.abandon()
                # once survivors are fixed they may be signed, and a signed round is never summed again
                if self._phase == Phase.MASKED and self._retries < self._agreement.terms.secure_sum.retries:
                    self._retries += 1
                    continue
                note(tally.record())
                raise tally.too_few(error, self._terms.floor) from None
            except HansaError:
                note(tally.record())
                raise
            note(tally.record(outcome, None if verified is None else verified.signer))
            line = "" if verified is None else verified.line
            aggregate = Aggregate(state.round, outcome.survivors, outcome.total, line)
            self._previous = outcome.record
            self._keep(aggregate)
            return aggregate

    def _round(self, state: ServerState, tally: Tally) -> SumOutcome:
        """One round of the machine: prepare it, unless that was done meanwhile, and sum it."""
        self._phase = Phase.KEYS
        again = Counter[Phase]()
        while not self._machine.ready:
            self._exchange(tally, again)
        weights = state.message.array_hashes["weights"]
        number = self._machine.begin(UPDATE, state.round, weights, last=tally.number == state.rounds)
        tally.rounds.append(number)
        while True:
            self._phase = self._machine.phases[number]
            outcome = self._exchange(tally, again)
            if outcome is not None:
                return outcome

    def _exchange(self, tally: Tally, again: Counter[Phase]) -> SumOutcome | None:
        """Ask, carry, take, close; who has not answered is asked again while too few have.

        Raises:
            QuorumError: too few have, and they were asked often enough.
        """
        self._exchanges += 1
        requests = {
            name: sum_request(self._agreement, self._run, self._exchanges, bundle, self._lacking(name))
            for name, bundle in self._machine.requests().items()
        }
        started = time.monotonic()
        exchange = partial(self._members.exchange, requests, self._agreement.terms.training.deadline_s)
        replies = self._journal.once(f"{self._run}/exchange/{self._exchanges}", exchange)
        for name, request in requests.items():
            reply = replies.get(name)
            tally.carried(name, request, reply)
            tally.refused(name, self._take(name, request, reply))
        try:
            return self._machine.close()
        except QuorumError:
            again[self._phase] += 1
            if again[self._phase] > ASKED_AGAIN:
                raise
            return None
        finally:
            tally.seconds += time.monotonic() - started

    def _keep(self, aggregate: Aggregate) -> None:
        """Keep a sum until every member's model has followed it."""
        self._aggregates[aggregate.step] = aggregate
        for step in [step for step in self._aggregates if step < min(self._follows.values())]:
            del self._aggregates[step]

    def _lacking(self, name: str) -> list[Aggregate]:
        first = self._follows[name]
        return [self._aggregates[s] for s in range(first, first + MAX_AGGREGATES) if s in self._aggregates]

    def _take(self, name: str, request: Message, reply: Message | None) -> str | None:
        """Give the machine a member's reply; the code of what it refused, if it did."""
        if reply is None:
            return None
        before = len(self._machine.refusals)
        try:
            said = read_sum_reply(request, reply)
            if isinstance(said, PolicyCode):
                return said
            bundle, follows = said
            self._follows[name] = follows
            self._machine.receive(name, bundle)
        except HansaError as error:
            _LOG.warning("%s: %s", name, error.cause)
            return PolicyCode.MESSAGE
        # what it says to the manifest tells more than what it says to the next round's preparation
        refused = sorted(self._machine.refusals[before:], key=lambda one: one[1] == Manifest.purpose_name)
        return _TOLD.get(refused[-1][2], refused[-1][2]) if refused else None

    def _verify(self, outcome: SumOutcome) -> Statement | None:
        verifier = self._house.verifier
        if verifier is None:
            return None
        masked = partial(self._machine.masked, outcome.round)
        statement = verifier.verify(self._terms, outcome.record, masked, self._previous)
        self._machine.release(statement)
        return statement


class Tally:
    """What a round costs while it goes on, over all its exchanges and tries.

    Attributes:
        number: of the round, from 1.
        members: of the agreement.
        rounds: the machine's rounds that were begun for it.
        seconds: of its exchanges.
    """

    def __init__(self, number: int, members: tuple[str, ...]) -> None:
        self.number, self.members = number, members
        self.rounds: list[int] = []
        self.seconds = 0.0
        self._up, self._down = Counter[str](), dict.fromkeys(members, 0)
        self._codes: dict[str, str] = {}

    def carried(self, name: str, request: Message, reply: Message | None) -> None:
        """Count the bytes of one request and its reply."""
        self._down[name] += request.payload_bytes
        if reply is not None:
            self._up[name] += reply.payload_bytes

    def refused(self, name: str, code: str | None) -> None:
        """Keep the last code that a member gave."""
        if code is not None:
            self._codes[name] = code

    def why(self, name: str) -> str:
        """Why a member is missing, as the wire knows it."""
        return self._codes.get(name, PolicyCode.ABSENT)

    def too_few(self, error: QuorumError, floor: int) -> TooFewMembersError:
        """The end of a run for want of members, with their names."""
        missing = ", ".join(f"{name} ({self.why(name)})" for name in error.missing)
        return TooFewMembersError(
            f"round {self.number} had {error.present} members of at least {floor}; missing: {missing}"
        )

    def record(self, outcome: SumOutcome | None = None, verified_by: str | None = None) -> RoundRecord:
        """What is kept of the round; without an outcome, of one that failed."""
        present = () if outcome is None else outcome.survivors
        facts = SumFacts(
            rounds=tuple(self.rounds),
            dropped={} if outcome is None else dict(outcome.dropped),
            blamed={} if outcome is None else dict(outcome.blamed),
            costs={} if outcome is None else dict(outcome.costs),
            verified_by=verified_by,
        )
        return self.with_present(present, facts)

    def with_present(self, present: tuple[str, ...], facts: SumFacts | None) -> RoundRecord:
        """What is kept of a round whose sum holds these members' updates."""
        absent = {name: self.why(name) for name in self.members if name not in present}
        return RoundRecord(
            self.number, present, absent, dict(self._up), dict(self._down), self.seconds, facts
        )


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

    def _read(self, request: Message, reply: Message | None, dimension: int) -> RingVector | PolicyCode:
        if reply is None:
            return PolicyCode.ABSENT
        try:
            return read_update(request, reply, dimension)
        except WireError:
            return PolicyCode.MESSAGE
