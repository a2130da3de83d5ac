"""What is kept of a round for the run's record: who was there, who was not and why, what travelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hansa.secagg import PhaseCost


@dataclass(frozen=True, slots=True)  # a run has one for each of its rounds
class SumFacts:
    """How the secure sum of a round went.

    Attributes:
        rounds: the secure sum's rounds that were begun for it: the last one is this sum's, those before it failed.
        dropped: the phase in which each member that is not in the sum, or helped no longer, was first missing.
        blamed: members whose own signatures prove that they misbehaved, and how.
        costs: bytes and seconds by phase; the next round's preparation is counted there.
        verified_by: who recomputed the sum from the masked vectors and opened seeds, if anyone has yet.
        opened: members that opened the surplus of their noise, which is taken off the sum.
    """

    rounds: tuple[int, ...]
    dropped: Mapping[str, str]
    blamed: Mapping[str, str]
    costs: Mapping[str, PhaseCost]
    verified_by: str | None = None
    opened: int = 0


@dataclass(frozen=True, slots=True)  # a run has one for each of its rounds
class RoundRecord:
    """What the coordinator knows of a round.

    Attributes:
        number: from 1.
        present: members whose updates were summed, in the agreement's order.
        absent: the others, with the code that the wire knows.
        upload_bytes, download_bytes: by member, as sent by and to it.
        seconds: of its exchanges.
        sum: how the secure sum went; absent in a baseline.
    """

    number: int
    present: tuple[str, ...]
    absent: Mapping[str, str]
    upload_bytes: Mapping[str, int]
    download_bytes: Mapping[str, int]
    seconds: float
    sum: SumFacts | None = field(default=None)

    def brief(self) -> RoundRecord:
        """Without what its phases cost, for a run of many rounds that nobody will ask for it."""
        return self if self.sum is None else replace(self, sum=replace(self.sum, costs={}))
