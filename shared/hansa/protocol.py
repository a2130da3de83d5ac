"""The requests and replies of a round, and what both sides derive from the agreement to read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement, Terms
from hansa.canonical import Json
from hansa.errors import WireError
from hansa.privacy.grid import Grid
from hansa.secagg.ring import Quantiser, RingVector
from hansa.wire import Message, array_sha256

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


def train_request(agreement: Agreement, run: str, number: int, weights: npt.NDArray[np.float64]) -> Message:
    """Ask for a member's update of a round.

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
    """A member's answer: its weighted update in the ring.

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
    if {key: reply.body.get(key) for key in _REFERENCE} != _reference(request):
        raise WireError("a reply answers another request")
    if reply.kind == "refusal":
        try:
            return PolicyCode(reply.text("code"))
        except ValueError:
            raise WireError("a refusal names a code that this release does not know") from None
    if reply.kind != "update":
        raise WireError(f"a reply of kind {reply.kind!r} does not answer a train request")
    return reply.array("update", "<u4", dimension)


_REFERENCE = ("agreement_id", "run", "round")


def _reference(request: Message) -> dict[str, str | int]:
    return {
        "agreement_id": request.text("agreement_id"),
        "run": request.text("run"),
        "round": request.integer("round"),
    }
