"""Private evaluations at the end of a run: the file that would ship, judged by all members in one noisy sum."""

from __future__ import annotations

import numpy as np

from hansa.agreement import Agreement
from hansa.canonical import sha256_hex
from hansa.fairness.agreed import plan_of
from hansa.fairness.errors import EvaluationError
from hansa.fairness.evaluated import Evaluated
from hansa.identity import Statement
from hansa.server_step import ServerState
from hansa.wire import Array
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
        files = {sha256_hex(data): _bytes(data) for data in (judged, reference) if data is not None}
        if reference is not None and len(files) == 1:
            raise EvaluationError(
                "a file is not compared with itself", remedy="Compress the model, or compare nothing."
            )
        outcome = self._summation.judge(state, self._done, files, note)
        self.manifest = Statement.parse(outcome.record.manifest).data
        return Evaluated(
            self._run,
            self._done,
            outcome.round,
            sha256_hex(judged),
            None if reference is None else sha256_hex(reference),
            self._plan,
            outcome.total,
            outcome.survivors,
        )


def _bytes(data: bytes) -> Array:
    return np.frombuffer(data, dtype=np.uint8)
