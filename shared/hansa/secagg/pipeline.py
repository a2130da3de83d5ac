"""The coordinator of a run: one round summed and the next one prepared in the same exchanges.

A round is six exchanges in two halves: *preparing* (keys, shares, delivery) and *summing* (masked, confirm,
unmask). A steady round takes three, because the next one is prepared meanwhile; where the agreement trusts the
coordinator, delivery rides on the manifest, nothing is confirmed, and it takes two.

A driver repeats: `requests`, carry them, `receive` what comes back, `close`. When `ready` it calls `begin` with
what is to be summed. Everything the machine sends is a function of what it was given and received, so that a
driver that journals the replies resumes by playing them to a new machine.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np

from hansa.errors import HansaError, MachineError, WireError
from hansa.identity.keys import Signer
from hansa.identity.statement import Statement
from hansa.secagg import messages as m
from hansa.secagg.bundle import REFUSAL, bundle, unbundle
from hansa.secagg.coordinator import House, SumRound, vector_name
from hansa.secagg.errors import PhaseError, QuorumError, TranscriptError
from hansa.secagg.record import Phase, SumOutcome
from hansa.secagg.ring import RingVector
from hansa.secagg.store import NoSpool, Store
from hansa.secagg.terms import SumTerms
from hansa.secagg.workers import MaskWorkers
from hansa.vectors import IN_MEMORY, Vectors
from hansa.wire import Message

_REPLIES = {
    model.purpose_name: model for model in (m.Keys, m.Shares, m.Received, m.Masked, m.Confirm, m.Unmask)
}
_ASKED = frozenset(
    model.purpose_name
    for model in (
        m.KeysRequest, m.SharesRequest, m.Delivery, m.Manifest, m.Survivors, m.UnmaskRequest, m.Receipt,
    )
)  # fmt: skip
_CODE = re.compile(r"HANSA-[0-9]{3}")
MAX_REFUSALS = 1000  # kept; a member may refuse for ever


class Coordinator:
    """The coordinator of one run.

    Args:
        terms: the agreement's.
        run: the run's name.
        signer: the coordinator's identity.
        spool: where masked vectors wait until a verifier has recomputed their sum; `NoSpool` where they lie elsewhere.
        workers: processes for large vectors.
        clock: seconds, for the costs of phases.
        first_round: the number of the first round; never one that members have seen.
        vectors: where a sum stays once it is finished.
    """

    def __init__(
        self,
        terms: SumTerms,
        run: str,
        signer: Signer,
        *,
        spool: Store,
        workers: MaskWorkers | None = None,
        clock: Callable[[], float] = time.monotonic,
        first_round: int = 1,
        vectors: Vectors = IN_MEMORY,
    ) -> None:
        self._house = House(terms, m.Context(terms, run), signer, spool, workers or MaskWorkers(), vectors)
        self._clock, self._asked_at, self._asked = clock, clock(), list[SumRound]()
        self._current: SumRound | None = None
        self._upcoming, self._ahead = (
            SumRound(self._house, first_round),
            SumRound(self._house, first_round + 1),
        )
        self._previous: tuple[int, str | None, str | None] = (0, None, None)
        self._preparing = True
        self._spooled: dict[int, tuple[str, list[str]]] = {}
        self.refusals: list[tuple[str, str, str]] = []  # member, kind of request, code; the last ones

    @property
    def ready(self) -> bool:
        """Whether a round is prepared and none is being summed, so that `begin` may be called."""
        return self._current is None and self._upcoming.phase == Phase.READY

    @property
    def phases(self) -> dict[int, Phase]:
        """What each round in hand waits for, by its number."""
        return {one.number: one.phase for one in self._rounds()}

    @property
    def manifest_sha256(self) -> str:
        """Of the manifest of the round that is being summed; empty where none is."""
        return "" if self._current is None else self._current.manifest.sha256

    def begin(
        self,
        purpose: str,
        step: int,
        model_sha256: str,
        checkpoint: str = "",
        *,
        artifacts: tuple[str, ...] = (),
        last: bool = False,
    ) -> int:
        """Sum the prepared round; the next one is prepared meanwhile.

        Args:
            purpose: which of the agreement's vectors.
            step: where in the run's plan; a retry repeats it.
            model_sha256: of the model that every member holds.
            checkpoint: of the federation's log, cosigned.
            artifacts: of an evaluation: SHA-256 of the files.
            last: no round is planned after this one, so none is prepared meanwhile.

        Returns:
            The round's number.

        Raises:
            PhaseError: nothing is prepared, a round is being summed, or the agreement names no such vector.
        """
        if not self.ready:
            raise PhaseError("no round is prepared, or one is being summed")
        if purpose not in self._house.terms.vectors:
            raise PhaseError(f"the agreement names no vector {purpose!r}")
        number, manifest, aggregate = self._previous
        self._upcoming.begin(
            {
                "purpose": purpose, "step": step, "model_sha256": model_sha256, "checkpoint": checkpoint,
                "artifacts": artifacts,
                "previous_round": number, "previous_manifest_sha256": manifest, "previous_aggregate_sha256": aggregate,
            }
        )  # fmt: skip
        self._current, self._upcoming = self._upcoming, self._ahead
        self._ahead = SumRound(self._house, self._upcoming.number + 1)
        self._preparing = not last
        return self._current.number

    def requests(self) -> dict[str, Message]:
        """What to send now, one bundle per member; asking again asks only what is unanswered."""
        parts: dict[str, list[Message]] = defaultdict(list)
        self._asked = []
        for one in self._rounds():
            asked = one.requests()
            if asked:
                self._asked.append(one)
            for member, messages in asked.items():
                parts[member] += messages
                one.costs[one.phase.name.lower()].sent_bytes += sum(
                    message.payload_bytes for message in messages
                )
        self._asked_at = self._clock()
        return {member: bundle(messages) for member, messages in parts.items()}

    def receive(self, member: str, reply: Message) -> None:
        """Take one member's replies.

        Raises:
            HansaError: one of them is malformed, wrongly signed, not due, or contradicts an earlier one. That one
                changed nothing; the others of the bundle were taken.
            MachineError: it could not be kept, for no fault of the member's; another machine has to go on from the journal.
        """
        wrong: list[HansaError] = []
        for part in unbundle(reply):
            try:
                self._take(member, part)
            except MachineError:
                raise
            except HansaError as error:
                wrong.append(error)
        if wrong:
            raise wrong[0]

    def _take(self, member: str, part: Message) -> None:
        if part.kind == REFUSAL:
            kind, code = part.text("of"), part.text("code")
            if kind not in _ASKED or not _CODE.fullmatch(code):
                raise WireError("a refusal is not of a request, or names no error")
            self.refusals.append((member, kind, code))
            del self.refusals[:-MAX_REFUSALS]
            return
        if part.kind == m.NOTED:
            return
        if part.kind not in _REPLIES:
            raise WireError("a reply of a kind that a coordinator of secure sums does not know")
        said, statement = self._house.context.read(part, _REPLIES[part.kind], member)
        for one in self._rounds():
            if one.number == said.round:
                one.accept(said, statement, part)
                one.costs[one.phase.name.lower()].received_bytes += m.size_of(part)
                return
        raise PhaseError(f"round {said.round} is not in hand")

    def close(self) -> SumOutcome | None:
        """End the exchange: whoever has not answered by now is missing in this phase.

        Returns:
            The finished round, if this exchange finished one.

        Raises:
            QuorumError: too few answered; ask again with `requests`, or give up with `abandon`.
            BadShareError: secrets cannot be reconstructed; names who is to blame.
            SumOutOfRangeError: the unmasked sum is none that honest members could have made. The round is over.
        """
        for one in self._asked:
            one.costs[one.phase.name.lower()].seconds += self._clock() - self._asked_at
        self._asked = []
        current = self._current
        if self._preparing:
            self._close_upcoming(current)
        if current is None:
            return None
        try:
            current.close()
        finally:
            if current.phase == Phase.DONE:
                self._retire(current)
        return current.outcome

    def _retire(self, one: SumRound) -> None:
        aggregate = None if one.outcome is None else one.outcome.record.aggregate_sha256
        if one.phase > Phase.MASKED:  # its survivors may be signed: what follows must acknowledge it
            self._previous = one.number, one.manifest.sha256, aggregate
        if aggregate is not None and not isinstance(self._house.spool, NoSpool):
            self._spooled[one.number] = aggregate, one.spooled
        elif aggregate is None:
            self._house.spool.put_together({}, forget=one.spooled)
        self._current = None

    def _close_upcoming(self, current: SumRound | None) -> None:
        upcoming = self._upcoming
        if current is not None and current.phase == Phase.CONFIRM and upcoming.incomplete:
            return  # who is away now may share its secrets in the next exchange still
        try:
            upcoming.close()
            if current is not None and current.phase == Phase.UNMASK and upcoming.phase == Phase.DELIVERY:
                upcoming.close()  # no exchange is left for it: delivery rides on the manifest
        except QuorumError:
            if current is None:
                raise

    def abandon(self) -> int:
        """Give up the round that is being summed, or else the one being prepared; what members did is lost.

        Returns:
            Its number.
        """
        given_up, self._preparing = self._current, True
        if given_up is not None:
            self._retire(given_up)
        else:
            given_up, self._upcoming = self._upcoming, self._ahead
            self._ahead = SumRound(self._house, self._upcoming.number + 1)
        return given_up.number

    def masked(self, number: int, member: str) -> RingVector:
        """A survivor's masked vector, as a verifier needs it; dtype uint32.

        Raises:
            PhaseError: it is not spooled, or not any more.
        """
        stored = self._house.spool.get(vector_name(self._house.context.run, number, member))
        if stored is None:
            raise PhaseError(f"no masked vector of {member!r} is kept for round {number}")
        return np.frombuffer(stored, dtype="<u4")

    def release(self, statement: Statement) -> None:
        """Let go of a round's masked vectors, because a verifier has recomputed their sum.

        Raises:
            HansaError: the statement is not by a member or a named auditor, or of another sum.
        """
        roster = self._house.terms.roster
        if statement.signer not in {*roster.members, *roster.auditors}:
            raise TranscriptError("only a member or an auditor of the agreement can vouch for a sum")
        said = self._house.context.said(statement, m.Verified, statement.signer)
        aggregate, names = self._spooled.get(said.round, ("", []))
        if said.aggregate_sha256 != aggregate:
            raise TranscriptError(
                f"{statement.signer!r} vouches for another sum than that of round {said.round}"
            )
        self._house.spool.put_together({}, forget=names)
        self._spooled.pop(said.round)

    def _rounds(self) -> list[SumRound]:
        rounds = (self._current, self._upcoming, self._ahead) if self._preparing else (self._current,)
        return [one for one in rounds if one is not None]
