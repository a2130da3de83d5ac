"""The whole member behind one door: `Node.handle(request) -> reply`.

Policy first, then budget, then training. Nothing leaves but a release: an update that is noised, charged, encoded
in the ring, put on record and masked; or a code that depends on no data. What goes wrong inside is written to the
member's own log and looks, from outside, like absence.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement
from hansa.errors import DataError, Problem, TrainingError, WireError
from hansa.gate.errors import GateMismatchError
from hansa.ledger.errors import EntryError, LogStoreError
from hansa.privacy.parts import InParts, PartSeeds
from hansa.privacy.randomness import Randomness
from hansa.privacy.rotation import Rotation
from hansa.protocol import (
    PolicyCode,
    approved_reply,
    closed_reply,
    hello_reply,
    public_weights,
    read_approval_request,
    read_witness_request,
    refusal,
    rotation_of,
    witnessed_reply,
)
from hansa.secagg import Manifest
from hansa.secagg.errors import StateError
from hansa.wire import Message
from hansa_client.records import Records
from hansa_client.summing import SumIdentity, SumParty

if TYPE_CHECKING:
    from hansa_client.evaluation.judging import LocalEvaluation

MAX_RUNS = 4  # in hand at once; a run has its machine and its model in memory
Vector = npt.NDArray[np.float64]
GridVector = npt.NDArray[np.int64]

_LOG = logging.getLogger("hansa.node")


class LocalTraining(Protocol):
    """What a node asks of its trainer: `hansa_client.training.Trainer`, or one that does nothing in a bench.

    Under ``distributed`` noise it is a `hansa_client.training.PooledTrainer`.
    """

    def train(
        self,
        weights: Vector,
        randomness: Randomness,
        rotation: Rotation | None = None,
        adapted: Vector | None = None,
    ) -> Vector | GridVector:
        """The round's local weights minus `weights`, float64 [d]; or the noisy clipped sum of one step, int64 [d].

        Args:
            weights: float64 [d], of the model.
            randomness: fresh for this call.
            rotation: of the round's sums, where the agreement has any.
            adapted: float64 [k], what has adapted to the sums so far, where the agreement has any of it.
        """


class Node:
    """One member of one agreement.

    Args:
        agreement: frozen; the only one that this node serves.
        member: its name there.
        training: trains on the member's data.
        records: the member's own log, its budget and its copy of the federation's log.
        randomness: makes a fresh source for a step of a run.
        sums: with what it takes part in secure sums.
        evaluation: evaluates model files on the member's data, where the agreement asks for that.

    Guarantees: no reply depends on data except through `LocalTraining.train` and `LocalEvaluation.evaluate`, whose result is charged and on record
        before it leaves, and leaves only masked, as part of a sum; a round is answered once, and the same request gets
        the same reply.
    Leaks: that the member took part, and when.
    """

    def __init__(
        self,
        agreement: Agreement,
        member: str,
        training: LocalTraining,
        records: Records,
        randomness: Callable[[str, int], Randomness],
        sums: SumIdentity,
        evaluation: LocalEvaluation | None = None,
    ) -> None:
        self.agreement = agreement
        self.member = member
        self._training, self._evaluation = training, evaluation
        self._records = records
        self._randomness = randomness
        self._sums = sums
        self._pooled = agreement.terms.privacy.mechanism == "distributed"
        self._weight = public_weights(agreement.terms)[member]
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
            _LOG.warning(
                "%(member)s cannot read a request: %(why)s",
                {"member": self.member, "why": error.diagnostics(), "error": error},
            )
            return refusal(request, PolicyCode.MESSAGE)
        except (LogStoreError, StateError) as error:  # a file of this machine, and what the system says of it
            _LOG.error(
                "%(member)s: a request of kind %(kind)s was not answered: %(why)s",
                {
                    "member": self.member,
                    "kind": request.kind[:32],
                    "why": error.diagnostics(),
                    "error": error,
                },
            )
            return refusal(request, PolicyCode.ABSENT)
        except Exception:  # noqa: BLE001  # whatever it was, it may speak of data: the member's own log says its type
            _LOG.exception(
                "%(member)s: a request of kind %(kind)s was not answered",
                {"member": self.member, "kind": request.kind[:32]},
            )
            return refusal(request, PolicyCode.ABSENT)

    def _handle(self, request: Message) -> Message:
        if request.text("agreement_id") != self.agreement.agreement_id:
            return refusal(request, PolicyCode.AGREEMENT)
        if request.kind == "sum":
            return self._party(request.text("run")).handle(request)
        if request.kind == "witness":
            return self._witness(request)
        if request.kind == "close":
            return self._close(request)
        if request.kind == "approve":
            return self._approve(request)
        if request.kind == "hello":
            return hello_reply(request, self.member)
        return refusal(request, PolicyCode.MESSAGE)

    def _party(self, run: str) -> SumParty:
        party = self._parties.pop(run, None)
        if party is None:
            party = SumParty(self.agreement, run, self._sums, self._records, self._update, self._table)
        self._parties[run] = party
        while len(self._parties) > MAX_RUNS:
            self._parties.pop(next(iter(self._parties)))  # what it must remember lies in its store
        return party

    def _update(
        self, run: str, manifest: Manifest, weights: Vector, adapted: Vector | None, seeds: PartSeeds | None
    ) -> Vector | GridVector:
        """The weighted update of a round, float64 [d], or the pooled step's integers, which nothing may scale."""
        rotation = rotation_of(self.agreement, run, manifest.round)
        source = self._randomness(run, manifest.step + 1)
        if seeds is not None:
            source = InParts(source, seeds)
        made = self._training.train(weights, source, rotation, adapted)
        if not self._pooled:
            return np.multiply(self._weight, made, dtype=np.float64)
        if made.dtype != np.int64:
            raise TrainingError(
                "a step of pooled training is summed on the integer grid, and this is no such sum"
            )
        return made

    def _table(self, run: str, step: int, files: Mapping[str, bytes], order: tuple[str, ...]) -> GridVector:
        """The noisy table of an evaluation, int64 [cells]."""
        if self._evaluation is None:
            raise DataError(
                "this member cannot evaluate",
                [Problem("evaluation", "has no data at this node", "say where they are, in node.toml")],
            )
        return self._evaluation.evaluate(files, order, self._randomness(run, step + 1))

    def _close(self, request: Message) -> Message:
        run = request.text("run")
        self._party(run).end()
        del self._parties[run]
        self._records.close(run)
        return closed_reply(request, self._records.word(run))

    def _witness(self, request: Message) -> Message:
        cosignature = self._records.hear(read_witness_request(request))
        word = replace(self._records.word(request.text("run")), cosignature=cosignature)
        return witnessed_reply(request, word)

    def _approve(self, request: Message) -> Message:
        try:
            signature = self._records.approve(request.text("run"), read_approval_request(request))
        except (GateMismatchError, EntryError) as error:
            _LOG.warning("%s: nothing was approved: %s", self.member, error.diagnostics())
            return refusal(request, PolicyCode.GATE)
        return approved_reply(request, signature)
