"""The whole member behind one door: `Node.handle(request) -> reply`.

Policy first, then budget, then training. Nothing leaves but a release: an update that is noised, charged, encoded
in the ring and masked; or a policy code that depends on no data. What goes wrong inside is written to the member's
own log and looks, from outside, like absence.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement, Privacy
from hansa.errors import BudgetRefusedError, PrivacyParameterError, TrainingError, WireError
from hansa.privacy.budget import InMemoryBudgetBook, PrivacyLoss
from hansa.privacy.events import Spend
from hansa.privacy.randomness import Randomness
from hansa.protocol import (
    PolicyCode,
    closed_reply,
    hello_reply,
    public_weights,
    refusal,
    update_encoding,
    update_reply,
)
from hansa.secagg import Manifest
from hansa.secagg.errors import RoundRefusedError
from hansa.wire import Message
from hansa_client.state import NodeState, StateStore
from hansa_client.summing import SumIdentity, SumParty

MAX_RUNS = 4  # in hand at once; a run has its machine and its model in memory

_LOG = logging.getLogger("hansa.node")


class LocalTraining(Protocol):
    """What a node asks of its trainer: `hansa_client.training.Trainer`, or one that does nothing in a bench."""

    def train(self, weights: npt.NDArray[np.float64], randomness: Randomness) -> npt.NDArray[np.float64]:
        """The round's local weights minus `weights`, float64 [d]."""


class Node:
    """One member of one agreement.

    Args:
        agreement: frozen; the only one that this node serves.
        member: its name there.
        training: trains on the member's data.
        spend: what the whole run is charged as; `None` when it claims no privacy.
        store: keeps the state between requests and restarts.
        randomness: makes a fresh source for a round of a run.
        sums: with what it takes part in secure sums; a node of a baseline has none.

    Guarantees: no reply depends on data except through `LocalTraining.train`, whose result is charged before it
        leaves, and leaves only masked, as part of a sum; a round is answered once, and the same request gets the
        same reply. In a baseline, which has one member and no sum to hide in, it leaves as it is.
    Leaks: that the member took part, and when.
    """

    def __init__(
        self,
        agreement: Agreement,
        member: str,
        training: LocalTraining,
        spend: Spend | None,
        store: StateStore,
        randomness: Callable[[str, int], Randomness],
        sums: SumIdentity | None = None,
    ) -> None:
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
        self._sums = sums
        self._parties: dict[str, SumParty] = {}  # the runs in hand, the last asked one last
        self._lock = threading.Lock()  # two requests at once would each load the state that the other changes

    def handle(self, request: Message) -> Message:
        """Answer a request.

        Raises:
            WireError: the request does not even say which run and round it is about, so it cannot be answered.
        """
        request.text("agreement_id"), request.text("run"), request.integer("round")
        try:
            with self._lock:
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

    def _handle(self, request: Message) -> Message:
        if request.text("agreement_id") != self.agreement.agreement_id:
            return refusal(request, PolicyCode.AGREEMENT)
        if request.kind == "sum":
            return self._party(request.text("run")).handle(request)
        if request.kind == "train":
            if self.agreement.terms.baseline is None:
                return refusal(request, PolicyCode.UNMASKED)
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
        update = self._update(run, number, number, weights)
        reply = update_reply(request, self._encoding.encode(update))
        self._last = (run, number, asked, reply)
        return reply

    def _party(self, run: str) -> SumParty:
        if self._sums is None:
            raise WireError("this node was given no identity for secure sums")
        party = self._parties.pop(run, None)
        if party is None:
            party = SumParty(self.agreement, run, self._sums, self._contribution)
        self._parties[run] = party
        while len(self._parties) > MAX_RUNS:
            self._parties.pop(next(iter(self._parties)))  # what it must remember lies in its store
        return party

    def _contribution(
        self, run: str, manifest: Manifest, weights: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        # a retry is a new round of the same step: charged again, with a fresh batch and fresh noise
        if manifest.round <= self._store.load().last_round(run):
            raise RoundRefusedError(f"round {manifest.round} was taken up before, and is never trained again")
        return self._update(run, manifest.round, manifest.step + 1, weights)

    def _update(
        self, run: str, number: int, step: int, weights: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """The weighted update of a round, float64 [d], charged and saved before anything is drawn."""
        state = self._store.load()
        if self._spend is None and state.limit is not None:
            raise BudgetRefusedError("data with a budget take part in no run without privacy")
        if run in self._broken:
            raise TrainingError(f"run {run[:12]} did something that is not accounted; it is over here")
        book = self._book(state)
        if book is not None and self._spend is not None:
            book.reserve(run, self._spend)
            book.confirm(run, f"round {number}", self.agreement.terms.local_steps)
        # a crash from here on leaves the round spent, never free
        self._save(state.at_round(run, number), book)
        try:
            return self._weight * self._training.train(weights, self._randomness(run, step))
        except TrainingError:
            self._broken.add(run)  # something ran that is not what is accounted: this run is over here
            raise

    def _close(self, request: Message) -> Message:
        if self._sums is not None:
            self._party(request.text("run")).end()
            del self._parties[request.text("run")]
        state = self._store.load()
        book = self._book(state)
        if book is not None:
            book.close(request.text("run"))
            self._save(state, book)
        return closed_reply(request)

    def state(self) -> NodeState:
        """What the member remembers, for its own eyes."""
        return self._store.load()

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
