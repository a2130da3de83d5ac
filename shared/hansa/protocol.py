"""The requests and replies of a run, and what both sides derive from the agreement to read them.

In a federation every exchange is one `sum_request`: a bundle of the secure sum's messages, and the sums of earlier
rounds from which the member derives the model for itself. `train_request` and `update_reply` are for baselines of
a simulation alone, which have one member and no sum to protect; a node of a federation refuses them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement, Terms
from hansa.canonical import Json
from hansa.errors import WireError
from hansa.identity import Roster
from hansa.privacy.grid import Grid
from hansa.secagg.bundle import BUNDLE
from hansa.secagg.ring import Quantiser, RingVector, SumVector
from hansa.secagg.terms import SumTerms, VectorTerms
from hansa.server_step import ServerState, step
from hansa.wire import Array, Message, array_sha256

UPDATE = "update"  # the one vector that is summed so far: members' weighted updates
MAX_AGGREGATES = 16  # in one request; a member that is further behind catches up over several exchanges

_NOISE_TAIL = 8.0  # standard deviations within which an update is encoded without clipping
_BATCH_TAIL = 2.0  # realised over expected batch size, likewise
_PLAIN_BOUND = 16.0  # of a mean gradient's entry in a run without clipping


class PolicyCode(StrEnum):
    """Why a member does not take part. A code is all that the wire knows; none depends on data."""

    ABSENT = "absent"
    AGREEMENT = "agreement-unknown"
    ROUND = "round-not-new"
    MODEL = "model-mismatch"
    BUDGET = "budget-spent"
    MESSAGE = "message-malformed"
    UNMASKED = "sum-unmasked"


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


def sum_request(
    agreement: Agreement, run: str, number: int, bundle: Message, aggregates: Sequence[Aggregate] = ()
) -> Message:
    """One exchange of a federation.

    Args:
        number: of the exchange in this run.
        bundle: the secure sum's messages for one member.
        aggregates: that the member lacks, in order of their steps; at most `MAX_AGGREGATES`.
    """
    listed: list[Json] = [
        {"step": a.step, "survivors": list(a.survivors), "verified": a.verified} for a in aggregates
    ]
    body: Mapping[str, Json] = {
        "agreement_id": agreement.agreement_id, "run": run, "round": number,
        "bundle": bundle.body, "aggregates": listed,
    }  # fmt: skip
    totals = {f"total.{a.step}": a for a in aggregates}
    arrays = {**bundle.arrays, **{name: a.total for name, a in totals.items()}}
    hashed = {**bundle.hashed, **{name: a.sha256 for name, a in totals.items()}}
    return Message("sum", body, arrays, hashed=hashed)


def read_sum_request(request: Message, dimension: int) -> tuple[Message, tuple[Aggregate, ...]]:
    """The bundle and the aggregates of a request.

    Raises:
        WireError: it is malformed, or a sum has another length than the model.
    """
    if set(request.body) != {*_REFERENCE, "bundle", "aggregates"}:
        raise WireError("a request for a sum does not have the members of one")
    listed = request.body["aggregates"]
    if not isinstance(listed, list) or len(listed) > MAX_AGGREGATES:
        raise WireError("a request brings a list of earlier sums, and not too many")
    aggregates = tuple(_aggregate(request, item, dimension) for item in listed)
    taken = {f"total.{aggregate.step}" for aggregate in aggregates}
    if len(taken) != len(aggregates):
        raise WireError("a request brings one sum twice")
    return _bundle_of(request, taken), aggregates


def sum_reply(request: Message, bundle: Message, model_round: int) -> Message:
    """A member's answers to a bundle.

    Args:
        bundle: its replies.
        model_round: how many sums its model has followed, so that it is sent those it lacks.
    """
    body = {**_reference(request), "bundle": bundle.body, "model_round": model_round}
    return Message("summed", body, bundle.arrays, hashed=bundle.hashed)


def read_sum_reply(request: Message, reply: Message) -> tuple[Message, int] | PolicyCode:
    """A member's bundle and how many sums its model has followed, or why there is none.

    Raises:
        WireError: the reply answers another request or is malformed.
    """
    refused = _read_refusal(request, reply)
    if refused is not None:
        return refused
    if reply.kind != "summed" or set(reply.body) != {*_REFERENCE, "bundle", "model_round"}:
        raise WireError(f"a reply of kind {reply.kind!r} does not answer a request for a sum")
    return _bundle_of(reply, set()), reply.integer("model_round")


def _aggregate(request: Message, item: Json, dimension: int) -> Aggregate:
    if not isinstance(item, dict) or set(item) != {"step", "survivors", "verified"}:
        raise WireError("an earlier sum is told by its step, its survivors and who has recomputed it")
    at, survivors, verified = item["step"], item["survivors"], item["verified"]
    if not isinstance(at, int) or isinstance(at, bool) or at < 0 or not isinstance(survivors, list):
        raise WireError("an earlier sum is told by a step and a list of survivors")
    names = tuple(name for name in survivors if isinstance(name, str))
    if len(set(names)) != len(survivors) or not isinstance(verified, str):
        raise WireError("the survivors of a sum are distinct names, and a statement is a text")
    return Aggregate(at, names, request.array(f"total.{at}", "<i4", dimension), verified)


def _bundle_of(message: Message, taken: Iterable[str]) -> Message:
    """The bundle inside a request or reply; `hansa.secagg.bundle` judges what it holds."""
    body = message.body["bundle"]
    if not isinstance(body, dict):
        raise WireError("a bundle is missing")
    arrays: dict[str, Array] = {name: array for name, array in message.arrays.items() if name not in taken}
    return Message(BUNDLE, body, arrays, hashed={name: message.array_hashes[name] for name in arrays})


def train_request(agreement: Agreement, run: str, number: int, weights: npt.NDArray[np.float64]) -> Message:
    """Ask the one member of a baseline for its update of a round.

    Args:
        weights: float64 [d], the round's global weights.
    """
    body: Mapping[str, Json] = {
        "agreement_id": agreement.agreement_id,
        "run": run,
        "round": number,
        "model_sha256": array_sha256(weights),
    }
    return Message("train", body, {"weights": weights})


def update_reply(request: Message, update: RingVector) -> Message:
    """The answer in a baseline: the weighted update in the ring, unmasked.

    Args:
        update: uint32 [d].
    """
    return Message("update", _reference(request), {"update": update})


def refusal(request: Message, code: PolicyCode) -> Message:
    """A member's answer when it does not take part: a code, and no word more."""
    return Message("refusal", {**_reference(request), "code": code.value})


def close_request(agreement: Agreement, run: str) -> Message:
    """Tell members that a run is over, so that reserved and unused budget is free again."""
    return Message("close", {"agreement_id": agreement.agreement_id, "run": run, "round": 0})


def closed_reply(request: Message) -> Message:
    """A member's answer to `close_request`."""
    return Message("closed", _reference(request))


def hello_request(agreement: Agreement, run: str) -> Message:
    """Ask who a node is, before the first round."""
    return Message("hello", {"agreement_id": agreement.agreement_id, "run": run, "round": 0})


def hello_reply(request: Message, member: str) -> Message:
    """A member's answer to `hello_request`: its name in the agreement."""
    return Message("member", {**_reference(request), "member": member})


def read_hello(request: Message, reply: Message) -> str:
    """The member's name; `WireError` if the reply is something else."""
    if reply.kind != "member" or {key: reply.body.get(key) for key in _REFERENCE} != _reference(request):
        raise WireError("a reply does not say who the node is")
    return reply.text("member")


def read_update(request: Message, reply: Message, dimension: int) -> RingVector | PolicyCode:
    """What a reply to a train request says: a ring vector of uint32 [d], or why there is none.

    Raises:
        WireError: the reply answers another request or is malformed.
    """
    refused = _read_refusal(request, reply)
    if refused is not None:
        return refused
    if reply.kind != "update":
        raise WireError(f"a reply of kind {reply.kind!r} does not answer a train request")
    return reply.array("update", "<u4", dimension)


def _read_refusal(request: Message, reply: Message) -> PolicyCode | None:
    if {key: reply.body.get(key) for key in _REFERENCE} != _reference(request):
        raise WireError("a reply answers another request")
    if reply.kind != "refusal":
        return None
    try:
        return PolicyCode(reply.text("code"))
    except ValueError:
        raise WireError("a refusal names a code that this release does not know") from None


_REFERENCE = ("agreement_id", "run", "round")


def _reference(request: Message) -> dict[str, str | int]:
    return {
        "agreement_id": request.text("agreement_id"),
        "run": request.text("run"),
        "round": request.integer("round"),
    }
