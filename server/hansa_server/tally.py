"""What a round of the secure sum costs, counted while it goes on."""

from __future__ import annotations

from collections import Counter

from hansa.errors import TooFewMembersError
from hansa.protocol import PolicyCode
from hansa.secagg import SumOutcome
from hansa.secagg.errors import QuorumError
from hansa.wire import Message
from hansa_server.rounds import RoundRecord, SumFacts


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
            opened=0 if outcome is None else len(outcome.record.noise_seeds),
        )
        return self.with_present(present, facts)

    def with_present(self, present: tuple[str, ...], facts: SumFacts | None) -> RoundRecord:
        """What is kept of a round whose sum holds these members' updates."""
        absent = {name: self.why(name) for name in self.members if name not in present}
        return RoundRecord(
            self.number, present, absent, dict(self._up), dict(self._down), self.seconds, facts
        )
