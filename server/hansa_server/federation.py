"""A whole run of a federation, in one function.

Every effect goes through `journal.once`, so that calling `run_federation` again with the same journal continues a
run; everything else is a function of the agreement and of what the members sent.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement, Terms
from hansa.errors import ServerStateError, TooFewMembersError, WireError
from hansa.protocol import (
    PolicyCode,
    close_request,
    public_weights,
    read_update,
    train_request,
    update_encoding,
)
from hansa.secagg.errors import SumOutOfRangeError
from hansa.secagg.ring import RingVector
from hansa.server_step import ServerState, initial_state, step
from hansa.wire import Message, array_sha256
from hansa_server.journal import Journal
from hansa_server.members import Members

Vector: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RoundRecord:
    """What the coordinator knows of a round.

    Attributes:
        number: from 1.
        present: members whose updates were summed, sorted.
        absent: the others, with the code that the wire knows.
        upload_bytes, download_bytes: by member, as sent by and to it.
        seconds: of the exchange.
    """

    number: int
    present: tuple[str, ...]
    absent: Mapping[str, PolicyCode]
    upload_bytes: Mapping[str, int]
    download_bytes: Mapping[str, int]
    seconds: float


@dataclass
class Outcome:
    """Where a run stands.

    Attributes:
        state: of the server optimiser after the last finished round.
        rounds: every round that was exchanged; the last may have failed (`state.round` counts the finished ones).
        stopped_because: why the run ended before its last round, or `None`.
        stopped_by: who ended it then: a ``rule`` of the run, or a ``person``. A stop is final: members are told
            that the run is over.
    """

    state: ServerState
    rounds: list[RoundRecord] = field(default_factory=list)
    stopped_because: str | None = None
    stopped_by: Literal["rule", "person"] | None = None


def run_federation(
    agreement: Agreement,
    model: Vector,
    members: Members,
    journal: Journal,
    *,
    run: str,
    after_round: Callable[[Outcome], None] | None = None,
) -> Outcome:
    """Train as agreed: ask, sum, step, until the last round.

    Args:
        agreement: frozen.
        model: float64 [d], model 0, whose hash the agreement holds.
        members: the league, over some carrier.
        journal: keeps what was done.
        run: a name that no other run of these members has.
        after_round: called with the outcome so far; may measure, and raise KeyboardInterrupt to stop.

    Returns:
        The outcome; partial, with the reason, if too few members remained, a sum was not one of honest vectors, the
        model left the range of numbers, or a person stopped the run.

    Raises:
        WireError: `model` is not the agreement's model 0.
        EngineError: the carrier failed.
    """
    terms = agreement.terms
    names = tuple(member.name for member in terms.members)
    weights, encoding, quorum = public_weights(terms), update_encoding(agreement), smallest_sum(terms)
    rule, training = terms.training.server, terms.training
    check_model_zero(agreement, model)
    outcome = Outcome(initial_state(rule, model, average_tail=training.average_tail, rounds=training.rounds))
    try:
        for number in range(1, training.rounds + 1):
            # ask: every member gets the same request, with the model and its hash
            request = train_request(agreement, run, number, outcome.state.weights)
            started = time.monotonic()
            exchange = partial(members.exchange, dict.fromkeys(names, request), training.deadline_s)
            replies = journal.once(f"{run}/{number}/update", exchange)
            # read: a reply is an update or a code; whatever cannot be read is an absence
            updates, absent = read_replies(request, replies, names, len(model))
            outcome.rounds.append(
                round_record(number, request, replies, updates, absent, time.monotonic() - started)
            )
            require_quorum(outcome.rounds[-1], quorum)
            # sum: exact, in the ring; only the sum is used from here on
            total = ring_sum(updates.values(), len(model))
            summed = encoding.to_units(encoding.decode(total, len(updates)))
            mean = summed / math.fsum(weights[name] for name in updates)
            # step: the server optimiser, to the bit the same for whoever recomputes it
            outcome.state = step(rule, outcome.state, mean)
            if after_round is not None:
                after_round(outcome)
    except (TooFewMembersError, SumOutOfRangeError, WireError, ServerStateError) as error:
        outcome.stopped_because, outcome.stopped_by = error.cause, "rule"
    except KeyboardInterrupt:
        outcome.stopped_because = f"stopped by a person after round {outcome.state.round}"
        outcome.stopped_by = "person"
    # close: members free what they reserved and did not spend
    closing = dict.fromkeys(names, close_request(agreement, run))
    journal.once(f"{run}/close", partial(members.exchange, closing, training.deadline_s))
    return outcome


def ring_sum(vectors: Iterable[RingVector], length: int) -> RingVector:
    """The sum modulo 2^32, in one accumulator: uint32 [length]."""
    total = np.zeros(length, dtype=np.uint32)
    for vector in vectors:
        np.add(total, vector, out=total)
    return total


def smallest_sum(terms: Terms) -> int:
    """How many members a sum needs: the agreement's floor, or one in a baseline that is no federation."""
    return 1 if terms.baseline is not None else terms.secure_sum.min_members


def check_model_zero(agreement: Agreement, model: Vector) -> None:
    """Raise `WireError` unless `model` is what the agreement was frozen with."""
    if array_sha256(model) != agreement.require_frozen().model.initial_sha256:
        raise WireError("the model to start from is not the agreement's model 0")


def read_replies(
    request: Message, replies: Mapping[str, Message], names: tuple[str, ...], dimension: int
) -> tuple[dict[str, RingVector], dict[str, PolicyCode]]:
    """Sort replies into updates and absences, in the order of the agreement."""
    updates: dict[str, RingVector] = {}
    absent: dict[str, PolicyCode] = {}
    for name in names:
        try:
            said = read_update(request, replies[name], dimension) if name in replies else PolicyCode.ABSENT
        except WireError:
            said = PolicyCode.MESSAGE
        if isinstance(said, PolicyCode):
            absent[name] = said
        else:
            updates[name] = said
    return updates, absent


def round_record(
    number: int,
    request: Message,
    replies: Mapping[str, Message],
    updates: Mapping[str, RingVector],
    absent: Mapping[str, PolicyCode],
    seconds: float,
) -> RoundRecord:
    """What is kept of a round."""
    upload = {name: reply.payload_bytes for name, reply in replies.items()}
    download = dict.fromkeys([*updates, *absent], request.payload_bytes)
    return RoundRecord(number, tuple(updates), dict(absent), upload, download, seconds)


def require_quorum(record: RoundRecord, quorum: int) -> None:
    """Raise `TooFewMembersError`, which names the missing, unless enough members are present."""
    if len(record.present) >= quorum:
        return
    missing = ", ".join(f"{name} ({code.value})" for name, code in record.absent.items())
    raise TooFewMembersError(
        f"round {record.number} had {len(record.present)} members of at least {quorum}; missing: {missing}"
    )
