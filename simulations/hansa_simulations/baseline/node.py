"""The one member of a baseline: trains as a member of a federation would, and answers without masks.

A baseline is what a federation is compared with: all records in one place, or one member alone. There is nobody to hide
an update from, so that its node is a part of the simulator and not of what a member runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement, Privacy
from hansa.errors import BudgetRefusedError, PrivacyParameterError, TrainingError, WireError
from hansa.privacy.budget import InMemoryBudgetBook, PrivacyLoss
from hansa.privacy.events import Spend
from hansa.privacy.randomness import Randomness
from hansa.privacy.sampling import sampling_of
from hansa.protocol import (
    PolicyCode,
    Word,
    closed_reply,
    hello_reply,
    public_weights,
    refusal,
    update_encoding,
)
from hansa.wire import Message
from hansa_client.node import LocalTraining
from hansa_simulations.baseline.messages import update_reply
from hansa_simulations.baseline.state import NodeState, StateStore

_LOG = logging.getLogger("hansa.node")


class BaselineNode:
    """One member of a baseline.

    Args:
        agreement: frozen, with a baseline.
        member: the name there.
        training: trains on the records.
        spend: what the whole run is charged as; `None` when it claims no privacy.
        store: keeps the state between requests and processes.
        randomness: makes a fresh source for a round of a run.

    Raises:
        PrivacyParameterError: the agreement is that of a federation, whose updates leave only under masks.
    """

    def __init__(
        self,
        agreement: Agreement,
        member: str,
        training: LocalTraining,
        spend: Spend | None,
        store: StateStore,
        randomness: Callable[[str, int], Randomness],
    ) -> None:
        if agreement.terms.baseline is None:
            raise PrivacyParameterError("a federation is not summed without masks")
        self.agreement = agreement
        self.member = member
        self._training = training
        self._spend = spend
        self._store = store
        self._randomness = randomness
        self._encoding = update_encoding(agreement)
        self._weight = public_weights(agreement.terms)[member]
        self._dimension = agreement.require_frozen().model.parameters
        self._broken: set[str] = set()
        self._last: tuple[str, int, str, Message] | None = None

    def handle(self, request: Message) -> Message:
        """Answer a request.

        Raises:
            WireError: the request does not even say which run and round it is about, so it cannot be answered.
        """
        request.text("agreement_id"), request.text("run"), request.integer("round")
        try:
            return self._handle(request)
        except WireError as error:
            _LOG.warning("%s: %s", self.member, error.diagnostics())
            return refusal(request, PolicyCode.MESSAGE)
        except BudgetRefusedError as error:
            _LOG.warning("%s: %s", self.member, error.diagnostics())
            return refusal(request, PolicyCode.BUDGET)
        except Exception:  # noqa: BLE001  # whatever it was, it may speak of data: it stays in the member's own log
            _LOG.exception("%s: round %s was not answered", self.member, request.body["round"])
            return refusal(request, PolicyCode.ABSENT)

    def state(self) -> NodeState:
        """What the member remembers."""
        return self._store.load()

    def _handle(self, request: Message) -> Message:
        if request.text("agreement_id") != self.agreement.agreement_id:
            return refusal(request, PolicyCode.AGREEMENT)
        if request.kind == "train":
            return self._train(request)
        if request.kind == "close":
            return self._close(request)
        if request.kind == "hello":
            return hello_reply(request, self.member)
        return refusal(request, PolicyCode.MESSAGE)

    def _train(self, request: Message) -> Message:
        run, number = request.text("run"), request.integer("round")
        weights = request.array("weights", "<f8", self._dimension)
        asked = request.array_hashes["weights"]
        if self._last is not None and self._last[:3] == (run, number, asked):
            return self._last[3]
        state = self._store.load()
        if number <= state.last_round(run):
            return refusal(request, PolicyCode.ROUND)
        if asked != request.text("model_sha256"):
            return refusal(request, PolicyCode.MODEL)
        if self._spend is None and state.limit is not None:
            raise BudgetRefusedError("data with a budget take part in no run without privacy")
        if run in self._broken:
            return refusal(request, PolicyCode.ABSENT)
        book = self._book(state)
        if book is not None and self._spend is not None:
            book.reserve(run, self._spend)
            terms = self.agreement.terms
            book.confirm(run, f"round {number}", sampling_of(terms).events_in(terms.local_steps))
        # charged and saved before anything is drawn: a crash from here on leaves the round spent, never free
        self._save(state.at_round(run, number), book)
        reply = update_reply(request, self._encoding.encode(self._update(run, number, weights)))
        self._last = (run, number, asked, reply)
        return reply

    def _update(self, run: str, number: int, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        try:
            update = self._training.train(weights, self._randomness(run, number))
            return np.multiply(self._weight, update, dtype=np.float64)
        except TrainingError:
            self._broken.add(run)  # something ran that is not what is accounted: this run is over here
            raise

    def _close(self, request: Message) -> Message:
        state = self._store.load()
        book = self._book(state)
        if book is not None:
            book.close(request.text("run"))
            self._save(state, book)
        return closed_reply(request, Word())

    def _book(self, state: NodeState) -> InMemoryBudgetBook | None:
        return None if self._spend is None else budget_book(self.agreement.terms.privacy, state)

    def _save(self, state: NodeState, book: InMemoryBudgetBook | None) -> None:
        self._store.save(state if book is None else state.with_book(book))


def budget_book(privacy: Privacy, state: NodeState) -> InMemoryBudgetBook:
    """A member's book: the limit it set when it first reserved, and what its state says was spent.

    Before anything was reserved the limit is the agreement's. A later agreement neither raises it nor changes its δ.

    Raises:
        PrivacyParameterError: the terms claim no privacy, so there is no limit.
        BudgetRefusedError: they promise at another δ than the member's limit holds at.
    """
    if privacy.epsilon is None or privacy.delta is None:
        raise PrivacyParameterError("an agreement without epsilon and delta has no budget")
    limit = state.limit or PrivacyLoss(privacy.epsilon, privacy.delta)
    if limit.delta != privacy.delta:
        raise BudgetRefusedError(
            f"the member's limit holds at δ = {limit.delta:g}, and the agreement promises at {privacy.delta:g}"
        )
    return InMemoryBudgetBook(limit, state.book)
