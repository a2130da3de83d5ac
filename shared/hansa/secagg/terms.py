"""What the agreement fixes about its secure sums, in one value that every signature of a round covers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from hansa.canonical import Json, canonical_hash
from hansa.errors import Problem
from hansa.identity.roster import Roster
from hansa.privacy.parts import NoiseParts
from hansa.quorum import threshold
from hansa.secagg.errors import SumTermsError
from hansa.secagg.keys import PROTOCOL
from hansa.secagg.ring import Quantiser

MIN_MEMBERS = 3  # with two, each would learn the other's vector from the sum
MAX_LENGTH = 1_000_000_000

ThreatModel = Literal["malicious", "honest-but-curious"]


class StatedTerms(Protocol):
    """What the statements of a round are read against: of `SumTerms`, or of an auditor who has the keys alone."""

    @property
    def roster(self) -> Roster:
        """Whose keys count."""

    @property
    def sha256(self) -> str:
        """What every statement names."""

    @property
    def threshold(self) -> int:
        """Quorum t."""


@dataclass(frozen=True)
class VectorTerms:
    """One kind of vector that is summed: an update, a gradient, a histogram.

    Attributes:
        length: entries.
        quantiser: the map into the ring.
        parts: of the noise in each contribution, where its surplus is opened once survivors are signed.
    """

    length: int
    quantiser: Quantiser
    parts: NoiseParts | None = None

    def tree(self) -> dict[str, Json]:
        """As JSON values; without parts where there are none."""
        tree: dict[str, Json] = {"length": self.length, "quantiser": self.quantiser.tree()}
        return tree if self.parts is None else {**tree, "parts": self.parts.tree()}


@dataclass(frozen=True)
class SumTerms:
    """The secure sum's part of the agreement.

    Attributes:
        agreement_id: covers everything else that is agreed, the noise among it.
        roster: members, pinned keys, x-coordinates, revocations, in the agreement's order.
        vectors: what may be summed, by purpose.
        min_members: no member takes part in a sum over fewer.
        threat_model: ``malicious`` has the members confirm the survivors to each other; ``honest-but-curious``
            trusts the coordinator to follow the protocol and saves that exchange.
        post_quantum: hybrid ML-KEM-768 and X25519 for masks and envelopes.

    Raises:
        SumTermsError: the terms would not keep a contribution secret, or a sum exact.
    """

    agreement_id: str
    roster: Roster
    vectors: Mapping[str, VectorTerms]
    min_members: int = MIN_MEMBERS
    threat_model: ThreatModel = "malicious"
    post_quantum: bool = False

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise SumTermsError("these terms allow no secure sum", problems)

    def _problems(self) -> Iterator[Problem]:
        n = len(self.roster.members)
        if n < MIN_MEMBERS:
            yield Problem("members", f"{n} members", f"a secure sum needs at least {MIN_MEMBERS}")
        if not MIN_MEMBERS <= self.min_members <= max(n, MIN_MEMBERS):
            yield Problem("min_members", f"{self.min_members} is outside {MIN_MEMBERS} to {n}")
        if len(self.roster.active) < self.floor:
            yield Problem(
                "revoked", f"{len(self.roster.active)} members are left", f"{self.floor} are needed"
            )
        for purpose, vector in self.vectors.items():
            if not 1 <= vector.length <= MAX_LENGTH:
                yield Problem(f"vectors.{purpose}.length", f"{vector.length} is outside 1 to {MAX_LENGTH}")
            if vector.quantiser.members < n:
                yield Problem(
                    f"vectors.{purpose}.quantiser.members",
                    f"{vector.quantiser.members} is below {n}",
                    "sums could wrap",
                )
            if vector.parts is not None and not (self.confirmed and vector.parts.smallest_sum == self.floor):
                yield Problem(
                    f"vectors.{purpose}.parts",
                    "noise is opened for confirmed survivors alone, and in no sum below the smallest",
                )
        if not self.vectors:
            yield Problem("vectors", "nothing is to be summed")

    @property
    def threshold(self) -> int:
        """Quorum t = floor(2n/3) + 1 over all members of the agreement, so that two quorums share an honest member."""
        return threshold(len(self.roster.members))

    @property
    def floor(self) -> int:
        """No sum is over fewer: max(t, min_members)."""
        return max(self.threshold, self.min_members)

    @property
    def confirmed(self) -> bool:
        """Whether survivors are confirmed (phase D) before anything is unmasked."""
        return self.threat_model == "malicious"

    @cached_property
    def sha256(self) -> str:
        """What every statement of a round names: agreement, roster, t, quantisers, threat model."""
        vectors: dict[str, Json] = {purpose: vector.tree() for purpose, vector in self.vectors.items()}
        return canonical_hash(
            {
                "protocol": PROTOCOL,
                "agreement_id": self.agreement_id,
                "roster": self.roster.tree(),
                "threshold": self.threshold,
                "min_members": self.min_members,
                "threat_model": self.threat_model,
                "post_quantum": self.post_quantum,
                "vectors": vectors,
            }
        )
