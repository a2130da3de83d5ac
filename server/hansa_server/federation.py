"""A whole run of a federation, in one function.

Every effect goes through `journal.once`, so that calling `run_federation` again with the same journal continues a
run; everything else is a function of the agreement and of what the members sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from hansa.agreement import Agreement
from hansa.errors import HansaError, MachineError, WireError
from hansa.protocol import Derivation, close_request, starting_state
from hansa.server_step import ServerState
from hansa.vectors import IN_MEMORY, Vector, Vectors
from hansa.wire import array_sha256
from hansa_server.journal import Journal
from hansa_server.members import Members
from hansa_server.rounds import RoundRecord
from hansa_server.summation import Summation

_LOG = logging.getLogger("hansa.coordinator")


@dataclass
class Outcome:
    """Where a run stands.

    Attributes:
        state: of the server optimiser after the last finished round.
        rounds: every round that was exchanged; the last may have failed (`state.round` counts the finished ones).
        stopped_because: why the run ended before its last round, or `None`.
        stopped_by: who ended it then: a ``rule`` of the run, a ``person``, or, where nobody calls a run again, the ``machine``
            that it ran on. A stop is final: members are told that the run is over.
        not_concluded: why what was to follow training did not take place, or `None`. The model is finished all the same.
    """

    state: ServerState
    rounds: list[RoundRecord] = field(default_factory=list)
    stopped_because: str | None = None
    stopped_by: Literal["rule", "person", "machine"] | None = None
    not_concluded: str | None = None


def run_federation(
    agreement: Agreement,
    model: Vector,
    members: Members,
    journal: Journal,
    *,
    run: str,
    summation: Summation,
    after_round: Callable[[Outcome], None] | None = None,
    conclude: Callable[[Outcome], None] | None = None,
    vectors: Vectors = IN_MEMORY,
    resumable: bool = True,
) -> Outcome:
    """Train as agreed: sum the members' updates, step, until the last round.

    Args:
        agreement: frozen.
        model: float64 [d], model 0, whose hash the agreement holds.
        members: the league, over some carrier.
        journal: keeps what was done.
        run: a name that no other run of these members has.
        summation: how the members' updates become a sum: `SecureSummation`.
        after_round: called with the outcome so far; may measure, and raise KeyboardInterrupt to stop.
        conclude: called once the last round is finished and members still take part: evaluations of the model, and what
            follows from them. What it raises as `HansaError` ends it, and is told in the outcome.
        vectors: where the model and the rest of the optimiser's state lie.
        resumable: whether somebody calls the run again after a `MachineError`. Otherwise one ends the run, as a rule does.

    Returns:
        The outcome; partial, with the reason, if too few members remained, a sum was not one of honest vectors, the
        model left the range of numbers, or a person stopped the run.

    Raises:
        WireError: `model` is not the agreement's model 0.
        MachineError: the carrier, a process or a disk of this machine failed. With the journal the run goes on from here.
    """
    terms = agreement.terms
    training = terms.training
    check_model_zero(agreement, model)
    derive = Derivation(agreement, run, vectors)
    outcome = Outcome(starting_state(agreement, model, vectors))
    try:
        for _ in range(training.rounds):
            # sum: the members train on the state's weights; only the exact sum of their updates is used
            aggregate = summation.sum(outcome.state, outcome.rounds.append)
            # step: the server optimiser, to the bit the same for whoever recomputes it, members first of all
            outcome.state = derive(outcome.state, aggregate)
            summation.followed(outcome.state)
            if after_round is not None:
                after_round(outcome)
    except MachineError as error:
        if resumable:
            raise  # nobody has ended the run; with the journal it goes on from here
        outcome.stopped_because, outcome.stopped_by = error.cause, "machine"
    except HansaError as error:
        outcome.stopped_because, outcome.stopped_by = error.cause, "rule"
    except KeyboardInterrupt:
        outcome.stopped_because = f"stopped by a person after round {outcome.state.round}"
        outcome.stopped_by = "person"
    if conclude is not None and outcome.stopped_because is None:
        try:
            conclude(outcome)
        except HansaError as error:
            if resumable and isinstance(error, MachineError):
                raise
            outcome.not_concluded = error.cause
    try:
        close_run(agreement, members, journal, run, summation)
    except MachineError as error:
        if resumable:
            raise
        _LOG.warning("not everybody was told that the run is over: %(why)s", {"why": error.diagnostics()})
    return outcome


def close_run(
    agreement: Agreement, members: Members, journal: Journal, run: str, summation: Summation
) -> None:
    """End a run: members free what they reserved and did not spend, and forget their secrets."""
    closing = {member.name: close_request(agreement, run) for member in agreement.terms.members}
    deadline = agreement.terms.training.deadline_s
    closed = journal.once(f"{run}/close", partial(members.exchange, closing, deadline))
    summation.closed(closing, closed)


def check_model_zero(agreement: Agreement, model: Vector) -> None:
    """Raise `WireError` unless `model` is what the agreement was frozen with."""
    if array_sha256(model) != agreement.require_frozen().model.initial_sha256:
        raise WireError("the model to start from is not the agreement's model 0")
