"""Private evaluations, at the end of a run or after publication: a file, judged by all members in one noisy sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hansa.agreement import Agreement
from hansa.canonical import sha256_hex
from hansa.errors import HansaError, MachineError
from hansa.fairness.agreed import plan_of
from hansa.fairness.errors import EvaluationError
from hansa.fairness.evaluated import Evaluated
from hansa.fairness.release import EvaluationPlan
from hansa.gate.published import PublishedFile
from hansa.identity import Statement
from hansa.server_step import ServerState
from hansa.wire import Array
from hansa_server.federation import close_run
from hansa_server.journal import Journal
from hansa_server.members import Members
from hansa_server.summation import Note, SecureSummation


class Evaluations:
    """The evaluations of one run's final model, as many as the agreement allows.

    Args:
        agreement: frozen, with an `[evaluation]`.
        run: the run's name.
        summation: that has trained the model; its members still take part.

    Guarantees: what comes back is the noisy sum alone, over at least max(t, min_members) members; it is in the federation's log,
        where members and auditors recompute from it what is told.

    Raises:
        EvaluationError: the agreement has no evaluation.
    """

    def __init__(self, agreement: Agreement, run: str, summation: SecureSummation) -> None:
        self._agreement, self._run, self._summation = agreement, run, summation
        self._plan = plan_of(agreement)
        self._done = 0
        self.manifest = b""  # of the last evaluation: it names the files that members judged

    @property
    def left(self) -> int:
        """How many the agreement still allows."""
        evaluation = self._agreement.terms.evaluation
        return 0 if evaluation is None else evaluation.evaluations - self._done

    def evaluate(
        self, state: ServerState, judged: bytes, reference: bytes | None, note: Note = lambda _: None
    ) -> Evaluated:
        """Have a file judged. One that fails is used up: members may have been charged for it.

        Args:
            state: of the finished model.
            judged: the ONNX file that would ship.
            reference: the one that it is compared with, where the agreement compares.
            note: is given the round's record.

        Raises:
            EvaluationError: none is left, training is not finished, or there is a reference too many or too few.
            TooFewMembersError: too few answered; names who is missing and why.
            HansaError: there is no sum that could be used.
        """
        if self.left < 1:
            raise EvaluationError(
                f"the model was evaluated {self._done} times, as often as the agreement allows",
                remedy="What was not agreed before training needs a new agreement.",
            )
        if state.round != state.rounds:
            raise EvaluationError(
                f"the model is judged after {state.rounds} rounds of training, not after {state.round}"
            )
        if (reference is None) != (self._plan.layout.compared == "none"):
            raise EvaluationError("a second file is judged where the agreement compares, and only there")
        self._done += 1
        if reference is not None and sha256_hex(judged) == sha256_hex(reference):
            raise EvaluationError(
                "a file is not compared with itself", remedy="Compress the model, or compare nothing."
            )
        files, last = [data for data in (judged, reference) if data is not None], self.left == 0
        found, self.manifest = _evaluated(
            self._summation, self._plan, self._run, state.model_sha256, self._done, files, note, last=last
        )
        return found


def evaluate_published(
    agreement: Agreement,
    members: Members,
    journal: Journal,
    run: str,
    summation: SecureSummation,
    published: PublishedFile,
    files: Mapping[str, bytes],
    note: Note = lambda _: None,
) -> Evaluated:
    """A later evaluation of a published file, in a run of its own that trains nothing.

    Args:
        agreement: frozen, under which the file was published, with evaluations left.
        members: the league, over some carrier.
        journal: keeps what was done.
        run: a name that no other run of these members has.
        summation: of this run.
        published: what the federation's log shows of the file.
        files: the file, and the one that it is compared with where the agreement compares, by their SHA-256.
        note: is given the round's record, also where it failed.

    Raises:
        EvaluationError: a file is missing, or the agreement allows no further evaluation.
        TooFewMembersError: too few answered; names who is missing and why.
        HansaError: there is no sum that could be used.
        MachineError: something of this machine failed; with the journal the run goes on from here.

    Guarantees: what comes back is the noisy sum alone, over at least max(t, min_members) members; it is in the federation's
        log. Members check for themselves that the file was published, how often it was judged, and their budgets.
    """
    number, allowed = published.evaluations + 1, agreement.terms.evaluation
    if allowed is None or number > allowed.evaluations:
        raise EvaluationError(
            f"the file was evaluated {published.evaluations} times, as often as the agreement allows",
            remedy="What was not agreed before training needs a new agreement.",
        )
    missing = [name for name in published.artifacts if name not in files]
    if missing:
        raise EvaluationError(
            f"the file with SHA-256 {missing[0][:16]} is not there, and the agreement evaluates it",
            remedy="Give the files that the published evaluation judged.",
        )
    judged, plan = [files[name] for name in published.artifacts], plan_of(agreement)
    try:
        found, _ = _evaluated(summation, plan, run, published.model_sha256, number, judged, note, last=True)
    except MachineError:
        raise
    except HansaError:
        close_run(agreement, members, journal, run, summation)
        raise
    close_run(agreement, members, journal, run, summation)
    return found


def _evaluated(
    summation: SecureSummation,
    plan: EvaluationPlan,
    run: str,
    model_sha256: str,
    number: int,
    judged: Sequence[bytes],
    note: Note,
    *,
    last: bool,
) -> tuple[Evaluated, bytes]:
    """One evaluation, and the manifest that asked for it."""
    files = {sha256_hex(data): _bytes(data) for data in judged}
    outcome = summation.judge(model_sha256, number, files, note, last=last)
    artifact, *reference = files
    found = Evaluated(
        run,
        number,
        outcome.round,
        artifact,
        reference[0] if reference else None,
        plan,
        outcome.total,
        outcome.survivors,
    )
    return found, Statement.parse(outcome.record.manifest).data


def _bytes(data: bytes) -> Array:
    return np.frombuffer(data, dtype=np.uint8)
