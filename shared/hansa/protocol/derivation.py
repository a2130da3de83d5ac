"""What both sides derive from the agreement: weights, the encoding of updates, the sum's terms, the next model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hansa.agreement import Agreement, Terms
from hansa.errors import PrivacyParameterError, WireError
from hansa.fairness.agreed import plan_of
from hansa.fairness.release import EvaluationPlan
from hansa.identity import Roster
from hansa.privacy.adaptation import Adaptation, adaptation_of, summed_length
from hansa.privacy.distributed import SharedNoise
from hansa.privacy.grid import Grid
from hansa.privacy.parts import NoiseParts
from hansa.privacy.rotation import Rotation
from hansa.secagg.ring import Quantiser, SumVector
from hansa.secagg.terms import SumTerms, VectorTerms
from hansa.server_step import ServerState, initial_state, step
from hansa.vectors import IN_MEMORY, Entrywise, Vector, Vectors
from hansa.wire import array_sha256

UPDATE = "update"  # what is summed in training: members' weighted updates
JUDGED = "evaluation"  # what is summed in an evaluation: members' noisy tables
_NOISE_TAIL = 8.0  # standard deviations within which an update is encoded without clipping
_BATCH_TAIL = 2.0  # realised over expected batch size, likewise
_PLAIN_BOUND = 16.0  # of a mean gradient's entry in a run without clipping


def public_weights(terms: Terms) -> Mapping[str, float]:
    """Each member's share in the average, of a total of 1; from declared numbers only."""
    # `sum` rounds differently from Python 3.12 on; `fsum` is the exact sum, rounded once, everywhere
    total = math.fsum(member.public_weight for member in terms.members)
    return {member.name: member.public_weight / total for member in terms.members}


def update_encoding(agreement: Agreement) -> Quantiser:
    """The quantiser of what is summed, from public numbers.

    Under ``distributed`` members' integers are on the agreed grid already (`pooled_encoding`). Otherwise it is the finest grid
    on which all members' weighted updates fit. Updates are clipped to it after the noise, which is post-processing under the local mechanism; the bound is
    set so that this happens with negligible probability.
    """
    terms, frozen = agreement.terms, agreement.require_frozen()
    weights = public_weights(terms)
    if terms.privacy.mechanism == "distributed":
        return pooled_encoding(shared_noise(agreement))
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


def shared_noise(agreement: Agreement) -> SharedNoise:
    """The noise of a step under ``distributed``, from the frozen agreement.

    Raises:
        AgreementError: the agreement is not frozen.
        PrivacyParameterError: another mechanism, or numbers that leave the ring no room.
    """
    frozen = agreement.require_frozen()
    if agreement.terms.privacy.mechanism != "distributed" or frozen.noise_multiplier is None:
        raise PrivacyParameterError("noise is shared under mechanism = 'distributed' alone")
    return SharedNoise.of(agreement.terms, frozen.model.parameters, frozen.noise_multiplier)


def noise_parts(agreement: Agreement) -> NoiseParts | None:
    """The parts of members' shares of the noise; `None` where shares are drawn in one.

    Raises:
        PrivacyParameterError: a part would be below 20 grid units.
    """
    return shared_noise(agreement).parts if agreement.terms.privacy.noise_in_parts else None


def update_length(agreement: Agreement) -> int:
    """How many integers a round sums: the model's weights, and what is counted beside their gradients."""
    return summed_length(agreement.terms, agreement.require_frozen().model.parameters)


def starting_state(agreement: Agreement, model: Vector, vectors: Vectors = IN_MEMORY) -> ServerState:
    """The state before the first round.

    Args:
        agreement: frozen.
        model: float64 [d], model 0.
        vectors: where the state's are made.
    """
    training, adapts = agreement.terms.training, adaptation_of(agreement.terms)
    return initial_state(
        training.server,
        model,
        average_tail=training.average_tail,
        rounds=training.rounds,
        adapted=None if adapts is None else np.array(adapts.first),
        vectors=vectors,
    )


def rotation_of(agreement: Agreement, run: str, number: int) -> Rotation | None:
    """How sums of a round are rotated: a public function of agreement, run and round. `None` where they are not.

    Args:
        agreement: frozen.
        run: its name.
        number: of the round, from 1; a retry has another.

    Raises:
        PrivacyParameterError: sums are rotated, and no run or no round is named.
    """
    if agreement.terms.privacy.rotation == "none":
        return None
    return Rotation.of_round(agreement.require_frozen().model.parameters, agreement.agreement_id, run, number)


def pooled_encoding(noise: SharedNoise) -> Quantiser:
    """How members' noisy integer sums enter the ring: as they are, modulo 2^32.

    Its reach is n clamped sums and 12 standard deviations of all shares together; a total beyond it is refused.
    """
    clip = (
        noise.clamp + 0.5
    ) / noise.grid.scale  # so that its product with the scale rounds down to the clamp
    return Quantiser(clip, noise.grid.scale, noise.members, noise_sd=noise.share_sigma)


def table_encoding(plan: EvaluationPlan, members: int) -> Quantiser:
    """How members' noisy tables enter the ring: as they are, for sums over so many members at most.

    Raises:
        SumTermsError: caps and noise of so many members do not fit into the ring.
    """
    return Quantiser(float(plan.cell_cap), float(plan.scale), members, noise_sd=plan.sigma)


def sum_terms(agreement: Agreement, roster: Roster) -> SumTerms:
    """What the agreement fixes about its secure sums.

    Args:
        agreement: frozen.
        roster: the keys in force; its members are the agreement's, in its order.

    Raises:
        SumTermsError: no sum under these terms would be both secret and exact.
    """
    secure_sum = agreement.terms.secure_sum
    vectors = {
        UPDATE: VectorTerms(update_length(agreement), update_encoding(agreement), noise_parts(agreement))
    }
    if agreement.terms.evaluation is not None:
        plan = plan_of(agreement)
        vectors[JUDGED] = VectorTerms(plan.layout.size, table_encoding(plan, len(agreement.terms.members)))
    return SumTerms(
        agreement.agreement_id,
        roster,
        vectors,
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
        total: int32 [d], in grid steps; behind the model's coordinates those that are counted beside it, if any.
        verified: signed statement of somebody that has recomputed it (`hansa.secagg.attest`), as a line; empty
            where nobody has.
        round: of the secure sum, from 1. A step that is summed again has another.
        known_sha256: of the total, where this side has hashed it already; whoever passes one vouches for it.
    """

    step: int
    survivors: tuple[str, ...]
    total: SumVector
    verified: str = ""
    round: int = 0
    known_sha256: str = ""

    @cached_property
    def sha256(self) -> str:
        """Of the total, as the next round's manifest names it."""
        return self.known_sha256 or array_sha256(self.total)


class Derivation:
    """How one model follows from another: the same function, to the bit, at the coordinator and every member.

    Args:
        agreement: frozen.
        run: the run's name, from which rotations follow where the agreement has any.
        vectors: where models are made. A sum that is rotated is turned back in memory, at once.
    """

    def __init__(self, agreement: Agreement, run: str = "", vectors: Vectors = IN_MEMORY) -> None:
        terms = agreement.terms
        self._agreement, self._run, self._vectors = agreement, run, vectors
        self._rule = terms.training.server
        self._weights, self._encoding = public_weights(terms), update_encoding(agreement)
        self._pooled = terms.privacy.mechanism == "distributed"
        self._divisor = terms.privacy.sampling_rate * sum(member.units for member in terms.members)
        self._learning_rate = terms.training.learning_rate
        self._adapts, self._norm = adaptation_of(terms), terms.privacy.clipping_norm
        self._expected = {member.name: terms.privacy.sampling_rate * member.units for member in terms.members}

    def __call__(self, state: ServerState, aggregate: Aggregate) -> ServerState:
        """The state after a step.

        Raises:
            WireError: the aggregate is of another step, or of no set of members.
            PrivacyParameterError: sums are rotated, and no run or no round is named.
            ServerStateError: the model left the range of numbers.
        """
        if aggregate.step != state.round or not aggregate.survivors:
            raise WireError(f"a sum of step {aggregate.step} does not follow model {state.round}")
        if not set(aggregate.survivors) <= set(self._weights):
            raise WireError("a sum names somebody who is no member")
        units, total = self._encoding.to_units, aggregate.total
        if not self._pooled:
            # `fsum` is the exact sum, rounded once, on every machine
            weight = math.fsum(self._weights[name] for name in aggregate.survivors)
            return self._stepped(state, Entrywise(total, lambda part: units(part) / weight))
        # the update is a step down the noisy mean gradient: over q times all agreed units, whoever is missing
        rate, divisor = -self._learning_rate, self._divisor
        if self._adapts is not None:
            return self._adapted_step(self._adapts, state, aggregate)
        turned = rotation_of(self._agreement, self._run, aggregate.round)
        if turned is not None:
            gradient = turned.inverse(units(total))
            return self._stepped(state, Entrywise(gradient, lambda part: rate * (part / divisor)))
        return self._stepped(state, Entrywise(total, lambda part: rate * (units(part) / divisor)))

    def _stepped(self, state: ServerState, update: Entrywise, adapted: Vector | None = None) -> ServerState:
        return step(self._rule, state, update, adapted, vectors=self._vectors)

    def _adapted_step(self, adapts: Adaptation, state: ServerState, aggregate: Aggregate) -> ServerState:
        """A step whose gradients were clipped to the norm of this state, and the quantities of the next."""
        units, total = self._encoding.to_units, aggregate.total
        if state.adapted is None or len(total) != len(state.weights) + adapts.coordinates:
            raise WireError(
                "a sum does not hold what this agreement counts beside gradients, or the state does not"
            )
        now, length = tuple(state.adapted.tolist()), len(state.weights)
        # a gradient that was clipped to the step's norm stands on the grid as `gradient_part` of the agreed one
        unit = adapts.norm_of(now) / (self._norm * adapts.gradient_part)
        factor, rate = unit / self._divisor, -self._learning_rate
        counted = (units(total[length:]) / self._norm).tolist()
        batch = math.fsum(self._expected[name] for name in aggregate.survivors)
        following = np.array(adapts.following(now, counted, batch))
        update = Entrywise(total[:length], lambda part: rate * (units(part) * factor))
        return self._stepped(state, update, following)
