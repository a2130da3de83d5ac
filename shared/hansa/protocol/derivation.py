"""What both sides derive from the agreement: weights, the encoding of updates, the sum's terms, the next model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from hansa.agreement import Agreement, Terms
from hansa.errors import WireError
from hansa.identity import Roster
from hansa.privacy.grid import Grid
from hansa.secagg.ring import Quantiser, SumVector
from hansa.secagg.terms import SumTerms, VectorTerms
from hansa.server_step import ServerState, step
from hansa.wire import array_sha256

UPDATE = "update"  # the one vector that is summed so far: members' weighted updates
_NOISE_TAIL = 8.0  # standard deviations within which an update is encoded without clipping
_BATCH_TAIL = 2.0  # realised over expected batch size, likewise
_PLAIN_BOUND = 16.0  # of a mean gradient's entry in a run without clipping


def public_weights(terms: Terms) -> Mapping[str, float]:
    """Each member's share in the average, of a total of 1; from declared numbers only."""
    # `sum` rounds differently from Python 3.12 on; `fsum` is the exact sum, rounded once, everywhere
    total = math.fsum(member.public_weight for member in terms.members)
    return {member.name: member.public_weight / total for member in terms.members}


def update_encoding(agreement: Agreement) -> Quantiser:
    """The quantiser of weighted updates, from public numbers: the finest grid on which all members' sum fits.

    Updates are clipped to it after the noise, which is post-processing under the local mechanism; the bound is
    set so that this happens with negligible probability.
    """
    terms, frozen = agreement.terms, agreement.require_frozen()
    weights = public_weights(terms)
    reach = terms.training.learning_rate * terms.local_steps
    if not terms.private or frozen.noise_multiplier is None:
        return Quantiser.finest(max(weights.values()) * reach * _PLAIN_BOUND, len(terms.members))
    norm = terms.privacy.clipping_norm
    grid = Grid.of(norm, frozen.model.parameters)
    noise = grid.sigma(frozen.noise_multiplier) / grid.scale
    bound = max(
        weights[m.name]
        * reach
        * (_BATCH_TAIL * norm + _NOISE_TAIL * noise / (terms.privacy.sampling_rate * m.units))
        for m in terms.members
    )
    return Quantiser.finest(bound, len(terms.members))


def sum_terms(agreement: Agreement, roster: Roster) -> SumTerms:
    """What the agreement fixes about its secure sums.

    Args:
        agreement: frozen.
        roster: the keys in force; its members are the agreement's, in its order.

    Raises:
        SumTermsError: no sum under these terms would be both secret and exact.
    """
    secure_sum, length = agreement.terms.secure_sum, agreement.require_frozen().model.parameters
    return SumTerms(
        agreement.agreement_id,
        roster,
        {UPDATE: VectorTerms(length, update_encoding(agreement))},
        min_members=secure_sum.min_members,
        threat_model=secure_sum.threat_model,
        post_quantum=secure_sum.post_quantum,
    )


@dataclass(frozen=True, eq=False)
class Aggregate:
    """A finished sum, as members need it to derive the next model.

    Attributes:
        step: where in the run's plan it was summed, from 0.
        survivors: whose updates are in it, in the agreement's order.
        total: int32 [d], in grid steps.
        verified: signed statement of somebody that has recomputed it (`hansa.secagg.attest`), as a line; empty
            where nobody has.
    """

    step: int
    survivors: tuple[str, ...]
    total: SumVector
    verified: str = ""

    @cached_property
    def sha256(self) -> str:
        """Of the total, as the next round's manifest names it."""
        return array_sha256(self.total)


class Derivation:
    """How one model follows from another: the same function, to the bit, at the coordinator and every member.

    Args:
        agreement: frozen.
    """

    def __init__(self, agreement: Agreement) -> None:
        self._rule = agreement.terms.training.server
        self._weights, self._encoding = public_weights(agreement.terms), update_encoding(agreement)

    def __call__(self, state: ServerState, aggregate: Aggregate) -> ServerState:
        """The state after a step.

        Raises:
            WireError: the aggregate is of another step, or of no set of members.
            ServerStateError: the model left the range of numbers.
        """
        if aggregate.step != state.round or not aggregate.survivors:
            raise WireError(f"a sum of step {aggregate.step} does not follow model {state.round}")
        if not set(aggregate.survivors) <= set(self._weights):
            raise WireError("a sum names somebody who is no member")
        # `fsum` is the exact sum, rounded once, on every machine
        weight = math.fsum(self._weights[name] for name in aggregate.survivors)
        return step(self._rule, state, self._encoding.to_units(aggregate.total) / weight)
