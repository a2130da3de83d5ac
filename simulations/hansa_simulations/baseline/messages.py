"""The requests of a baseline: one member, no sum to protect. A node of a federation refuses them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement
from hansa.canonical import Json
from hansa.errors import WireError
from hansa.protocol.common import PolicyCode, read_refusal, reference
from hansa.secagg.ring import RingVector
from hansa.wire import Message, array_sha256


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
    return Message("update", reference(request), {"update": update})


def read_update(request: Message, reply: Message, dimension: int) -> RingVector | PolicyCode:
    """What a reply to a train request says: a ring vector of uint32 [d], or why there is none.

    Raises:
        WireError: the reply answers another request or is malformed.
    """
    refused = read_refusal(request, reply)
    if refused is not None:
        return refused
    if reply.kind != "update":
        raise WireError(f"a reply of kind {reply.kind!r} does not answer a train request")
    return reply.array("update", "<u4", dimension)
