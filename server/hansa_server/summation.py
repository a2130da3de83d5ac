"""How a round is summed: under masks, on record, and witnessed.

`SecureSummation` drives the coordinator's machine of `hansa.secagg` over the port `Members`. Every exchange goes
through the journal, and everything the machine sends is a function of what came back, so that a run that is called
again continues in the phase in which it stopped.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from pydantic import ValidationError

from hansa.agreement import Agreement
from hansa.errors import (
    BudgetRefusedError,
    HansaError,
    MachineError,
    ModelMismatchError,
    WireError,
)
from hansa.identity import Roster, Signer, Statement
from hansa.identity.errors import AmendmentError
from hansa.privacy.charges import EVALUATION, TRAINING
from hansa.protocol import (
    JUDGED,
    MAX_AGGREGATES,
    UPDATE,
    Aggregate,
    Answered,
    Asked,
    PolicyCode,
    read_sum_reply,
    sum_request,
    sum_terms,
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
from hansa.secagg.bundle import unbundle
from hansa.secagg.errors import QuorumError
from hansa.secagg.messages import SIGNED, Masked
from hansa.secagg.record import Phase
from hansa.secagg.record import RoundRecord as SignedRound
from hansa.secagg.ring import RingVector
from hansa.secagg.store import Store
from hansa.server_step import ServerState
from hansa.vectors import IN_MEMORY, Vectors
from hansa.wire import Array, Message
from hansa_server.history import History
from hansa_server.journal import Journal
from hansa_server.members import Members
from hansa_server.rounds import RoundRecord
from hansa_server.showing import Showing, Shown
from hansa_server.tally import Tally

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

    def followed(self, state: ServerState) -> None:
        """Put the last sum on record, with the model that followed from it."""

    def closed(self, requests: Mapping[str, Message], replies: Mapping[str, Message]) -> None:
        """Put on record what members say when the run is over, and have the record witnessed."""


@dataclass(frozen=True)
class _Wanted:
    """What one sum is of, as its manifest says it."""

    purpose: str
    step: int
    model_sha256: str
    last: bool  # no sum is planned after it
    files: Mapping[str, Array] = field(default_factory=dict)  # by SHA-256, the judged one first


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
        spool: where masked vectors wait until a verifier has recomputed their sum; `NoSpool` where a journal on disk keeps them.
        verifier: recomputes each sum at once; without one the vectors stay in the spool.
        history: the federation's log; an agreement that claims no privacy has none.
        records: told the signed record of every finished round.
        workers: processes for large vectors.
        vectors: where sums stay while members are told them.
        clock: seconds, for how long members are waited for.

    Raises:
        AmendmentError: the federation's log, which members believe, has other keys in force.
    """

    signer: Signer
    roster: Roster
    spool: Store
    verifier: Verifier | None = None
    history: History | None = None
    records: Callable[[SignedRound], None] = lambda _: None
    workers: MaskWorkers = field(default_factory=MaskWorkers)
    vectors: Vectors = IN_MEMORY
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if self.history is not None and self.history.roster.sha256 != self.roster.sha256:
            raise AmendmentError(
                "the roster is not the one that the federation's log has in force",
                remedy="Open the log with all amendments that are in force, and use the roster that follows.",
            )


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
        self._machine = Coordinator(
            self._terms, run, house.signer, spool=house.spool, workers=house.workers, vectors=house.vectors
        )
        self._aggregates: dict[int, Aggregate] = {}  # by step, those that some member may lack
        self._previous: SignedRound | None = None
        self._follows = dict.fromkeys(house.roster.members, 0)  # how many of them each member's model has
        self._summed: SumOutcome | None = None
        self._files: Mapping[str, Array] = {}  # that go out with a manifest
        self._silent: set[str] = set()  # who did not answer when it was asked last
        self._exchanges = self._retries = 0
        self._purpose = TRAINING  # of the round in hand, as entries name it
        self._phase = Phase.KEYS

    def sum(self, state: ServerState, note: Note) -> Aggregate:
        last = state.round + 1 == state.rounds and self._agreement.terms.evaluation is None
        wanted = _Wanted(UPDATE, state.round, state.model_sha256, last)
        outcome, line = self._summing(wanted, note)
        aggregate = Aggregate(
            state.round,
            outcome.survivors,
            outcome.total,
            line,
            outcome.round,
            known_sha256=outcome.record.aggregate_sha256,
        )
        self._keep(aggregate)
        return aggregate

    def judge(
        self, model_sha256: str, number: int, files: Mapping[str, Array], note: Note, *, last: bool
    ) -> SumOutcome:
        """Sum the members' noisy tables of one evaluation, and put the sum on record.

        Args:
            model_sha256: of the finished model.
            number: which of the evaluations that the agreement allows, from 1.
            files: bytes as uint8 by SHA-256: the file that is judged, then the one that it is compared with.
            note: is given the round's record, also where it failed.
            last: whether no sum is planned after it.

        Raises:
            TooFewMembersError: too few answered; names who is missing and why.
            HansaError: there is no sum that could be used.
        """
        step = self._agreement.terms.training.rounds + number - 1
        outcome, _ = self._summing(_Wanted(JUDGED, step, model_sha256, last, files), note)
        self._house.records(outcome.record)
        if self._house.history is not None:
            self._house.history.evaluation(outcome, number, tuple(files))
        self._summed = None
        return outcome

    def _summing(self, wanted: _Wanted, note: Note) -> tuple[SumOutcome, str]:
        """One sum, and the statement of who has recomputed it; summed again where that is allowed."""
        tally = Tally(wanted.step + 1, tuple(self._house.roster.members))
        self._purpose = EVALUATION if wanted.purpose == JUDGED else TRAINING
        while True:
            try:
                outcome = self._round(wanted, tally)
                verified = self._verify(outcome)
            except QuorumError as error:
                self._ended(self._machine.abandon(), type(error).__name__, error.missing)
                # once survivors are fixed they may be signed, and a signed round is never summed again
                if self._phase == Phase.MASKED and self._retries < self._agreement.terms.secure_sum.retries:
                    self._retries += 1
                    continue
                note(tally.record())
                raise tally.too_few(error, self._terms.floor) from None
            except MachineError:
                raise  # the round is not over: with the journal it goes on from here
            except HansaError as error:
                if tally.rounds:
                    self._ended(tally.rounds[-1], type(error).__name__)
                note(tally.record())
                raise
            note(tally.record(outcome, None if verified is None else verified.signer))
            self._previous = outcome.record
            self._summed = outcome
            return outcome, "" if verified is None else verified.line

    def followed(self, state: ServerState) -> None:
        if self._summed is None:
            return
        self._house.records(self._summed.record)
        if self._house.history is not None and state.adapted is not None:
            self._house.history.adaptation(self._summed, state)
        elif self._house.history is not None:
            self._house.history.aggregate(self._summed, state.model_sha256)
        self._summed = None

    def _round(self, wanted: _Wanted, tally: Tally) -> SumOutcome:
        """One round of the machine: prepare it, unless that was done meanwhile, and sum it."""
        self._phase = Phase.KEYS
        again = Counter[Phase]()
        while not self._machine.ready:
            self._exchange(tally, again)
        # kept: a run that is called again must name the very checkpoint that the manifest named before
        checkpoint = self._journal.once(
            f"{self._run}/checkpoint/{self._exchanges}", partial(self._settled, tally)
        )
        number = self._machine.begin(
            wanted.purpose,
            wanted.step,
            wanted.model_sha256,
            checkpoint,
            artifacts=tuple(wanted.files),
            last=wanted.last,
        )
        tally.rounds.append(number)
        while True:
            self._phase = self._machine.phases[number]
            self._files = wanted.files if self._phase == Phase.MASKED else {}
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
            name: sum_request(self._agreement, self._run, self._exchanges, self._asked(name, bundle))
            for name, bundle in self._machine.requests().items()
        }
        started = self._house.clock()
        exchange = partial(self._members.exchange, requests, self._agreement.terms.training.deadline_s)
        replies = self._journal.once(f"{self._run}/exchange/{self._exchanges}", exchange)
        with nullcontext() if self._house.history is None else self._house.history.gathering():
            for name, request in requests.items():
                reply = replies.get(name)
                self._carried(tally, name, request, reply)
                tally.refused(name, self._take(name, request, reply))
        try:
            return self._machine.close()
        except QuorumError:
            again[self._phase] += 1
            if again[self._phase] > ASKED_AGAIN:
                raise
            return None
        finally:
            tally.seconds += self._house.clock() - started

    def _carried(self, tally: Tally, name: str, request: Message, reply: Message | None) -> None:
        tally.carried(name, request, reply)
        if reply is None:
            self._silent.add(name)
        else:
            self._silent.discard(name)

    def _asked(self, name: str, bundle: Message) -> Asked:
        first = self._follows[name]
        steps = (step for step in range(first, first + MAX_AGGREGATES) if step in self._aggregates)
        history = self._house.history
        news = history.news(name) if history is not None and history.due(name) else None
        return Asked(bundle, tuple(self._aggregates[step] for step in steps), news, self._files)

    def _keep(self, aggregate: Aggregate) -> None:
        """Keep a sum until every member's model has followed it."""
        self._aggregates[aggregate.step] = aggregate
        for step in [step for step in self._aggregates if step < min(self._follows.values())]:
            del self._aggregates[step]

    def _settled(self, tally: Tally) -> str:
        """A checkpoint for a manifest that every member can accept.

        Where there is none, as when a member's process started right before, the log is shown once more to who is there,
        and again while that brings somebody further; see `Showing.until`.
        """
        history = self._house.history
        if history is None:
            return ""

        def there() -> list[str]:
            return [
                name for name in self._house.roster.active if name not in self._silent and history.due(name)
            ]

        def exchange(requests: Mapping[str, Message], deadline_s: float, _: int) -> Shown:
            started = self._house.clock()
            replies = self._members.exchange(requests, deadline_s)
            tally.seconds += self._house.clock() - started
            for name, request in requests.items():
                self._carried(tally, name, request, replies.get(name))
            return replies, True

        self._showing(history).until(lambda: history.settled, there, exchange)
        return history.cosigned

    def _showing(self, history: History) -> Showing:
        return Showing(self._agreement, self._run, history, self._house.clock)

    def _ended(self, number: int, why: str, missing: tuple[str, ...] = ()) -> None:
        if self._house.history is not None:
            self._house.history.abort(self._run, number, why, missing)

    def _take(self, name: str, request: Message, reply: Message | None) -> str | None:
        """Give the machine a member's reply; the code of what it refused, if it did."""
        if reply is None:
            return None
        before = len(self._machine.refusals)
        try:
            said = read_sum_reply(request, reply)
            if isinstance(said, PolicyCode):
                return said
            self._follows[name] = said.model_round
            self._remember(name, said)
            self._machine.receive(name, said.bundle)
        except MachineError:
            raise  # no word of the member's
        except HansaError as error:
            _LOG.warning("%(member)s: %(error)s", {"member": name, "error": error})
            return PolicyCode.MESSAGE
        # what it says to the manifest tells more than what it says to the next round's preparation
        refused = sorted(self._machine.refusals[before:], key=lambda one: one[1] == Manifest.purpose_name)
        return _TOLD.get(refused[-1][2], refused[-1][2]) if refused else None

    def _remember(self, name: str, said: Answered) -> None:
        """Log what a member says; a masked vector counts only if its member has put it on record.

        What a gate rests on is what releases say: one of another manifest or purpose would close it to everybody.

        Raises:
            HansaError: an entry or a cosignature is false, or a vector comes without its release.
        """
        history = self._house.history
        if history is None:
            return
        history.take(name, said.word)
        for part in unbundle(said.bundle):
            if part.kind == Masked.purpose_name:
                try:
                    masked = Masked.model_validate_json(Statement.parse(part.text(SIGNED)).data)
                except ValidationError:
                    raise WireError(f"{name!r} sends a masked vector that says something else") from None
                shown = history.shows(
                    name,
                    self._run,
                    masked.round,
                    y_sha256=masked.y_sha256,
                    manifest_sha256=self._machine.manifest_sha256,
                    purpose=self._purpose,
                )
                if not shown:
                    raise WireError(f"{name!r} sends a vector that it has not put on record as what it is")

    def closed(self, requests: Mapping[str, Message], replies: Mapping[str, Message]) -> None:
        history = self._house.history
        if history is None:
            return
        showing = self._showing(history)
        showing.take(requests, replies)
        shown = showing.requests(self._house.roster.active)
        exchange = partial(self._members.exchange, shown, self._agreement.terms.training.deadline_s)
        showing.take(shown, self._journal.once(f"{self._run}/witness", exchange))

    def _verify(self, outcome: SumOutcome) -> Statement | None:
        verifier = self._house.verifier
        if verifier is None:
            return None
        masked = partial(self._machine.masked, outcome.round)
        statement = verifier.verify(self._terms, outcome.record, masked, self._previous)
        self._machine.release(statement)
        return statement
