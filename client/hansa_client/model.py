"""The global model as a member derives it for itself: model 0, and the sums of the rounds since."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from itertools import chain
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement
from hansa.errors import ModelMismatchError, WireError
from hansa.identity import Statement
from hansa.identity.errors import RevokedError, SignatureError, UnknownSignerError
from hansa.protocol import UPDATE, Aggregate, starting_state
from hansa.secagg import Manifest, Store, SumTerms
from hansa.secagg.errors import QuorumError, StateError, SumOutOfRangeError, TranscriptError, VectorError
from hansa.secagg.messages import Context, Verified
from hansa.server_step import ServerState, state_from_message
from hansa.vectors import IN_FILES_FROM
from hansa.wire import array_sha256, from_bytes, in_place, pieces

Vector: TypeAlias = npt.NDArray[np.float64]
Derive: TypeAlias = Callable[[ServerState, Aggregate], ServerState]

_HASH_CHARACTERS, _ALIGNED = 64, 8  # bytes
_FALSE = (
    WireError, TranscriptError, SumOutOfRangeError, VectorError, QuorumError, SignatureError, RevokedError,
    UnknownSignerError,
)  # fmt: skip

_LOG = logging.getLogger("hansa.node")


class DerivedModel:
    """The model of one run at one member.

    Args:
        agreement: frozen.
        terms: of its secure sums.
        run: the run's name.
        start: float64 [d], model 0.
        derive: `hansa.protocol.Derivation`, or a shared one that remembers.
        store: keeps the state between processes; without one it starts again from model 0 and is sent every sum.

    Guarantees: what a member trains on follows from model 0 and from sums that enough members could have added up to,
        and from nothing else. Where the roster names auditors, one of them has recomputed each sum.
    Assumes: where it names none, the sums are those that the coordinator says they are. The manifest names the last
        one's hash, so that a false one is signed, and shows when somebody recomputes it.

    Raises:
        ModelMismatchError: `start` is not the agreement's model 0.
    """

    def __init__(
        self,
        agreement: Agreement,
        terms: SumTerms,
        run: str,
        start: Vector,
        derive: Derive,
        store: Store | None = None,
    ) -> None:
        if array_sha256(start) != agreement.require_frozen().model.initial_sha256:
            raise ModelMismatchError("the model to start from is not the agreement's model 0")
        self._agreement, self._start = agreement, start
        self._rounds = agreement.terms.training.rounds
        self._terms, self._context, self._derive = terms, Context(terms, run), derive
        self._store, self._name = store, f"{run}.model"
        kept = None if store is None else store.view(self._name)
        self._state, self._last_sum = (self._first(), None) if kept is None else _read(kept)

    @property
    def round(self) -> int:
        """How many sums it has followed."""
        return self._state.round

    @property
    def weights(self) -> Vector:
        """float64 [d], read-only."""
        return self._state.weights

    @property
    def adapted(self) -> Vector | None:
        """What adapts beside the weights, float64 [k], read-only; `None` where nothing does."""
        return self._state.adapted

    def follow(self, aggregates: Iterable[Aggregate]) -> None:
        """Take the steps that are new, in order; known ones, ones beyond a gap and false ones are passed over.

        Raises:
            ServerStateError: the model left the range of numbers.
        """
        before, state, last_sum = self.round, self._state, self._last_sum
        for aggregate in sorted(aggregates, key=lambda one: one.step):
            if aggregate.step != self.round:
                continue
            try:
                self._check_sum(aggregate)
                self._state = self._derive(self._state, aggregate)
            except _FALSE as error:
                _LOG.warning(
                    "the sum of step %(step)d is not followed: %(error)s",
                    {"step": aggregate.step, "error": error},
                )
                break
            self._last_sum = aggregate.sha256
        if self.round != before:
            try:
                self._keep()
            except BaseException:  # what is not kept is not told: the sums come again
                self._state, self._last_sum = state, last_sum
                raise

    def check_final(self, manifest: Manifest, *, first: bool) -> None:
        """Check that a manifest speaks of this very model, which training has finished.

        Args:
            manifest: of an evaluation.
            first: whether nothing but training came before, so that the last sum is the one that led to the model.

        Raises:
            ModelMismatchError: of another one, or training goes on.
        """
        if (
            self.round != self._rounds
            or manifest.model_sha256 != self._state.model_sha256
            or (first and manifest.previous_aggregate_sha256 != self._last_sum)
        ):
            raise ModelMismatchError(
                f"round {manifest.round} judges a model that this member does not hold, or that is not finished"
            )

    def check(self, manifest: Manifest) -> None:
        """Check that a manifest speaks of this very model, and of the sum that led to it.

        Raises:
            ModelMismatchError: of another one. The member then starts again from model 0 and asks for every sum.
        """
        if manifest.step > self.round:
            raise ModelMismatchError(
                f"round {manifest.round} trains model {manifest.step}; this member has followed {self.round} sums"
            )
        if (
            manifest.step != self.round
            or manifest.model_sha256 != self._state.model_sha256
            or manifest.previous_aggregate_sha256 != self._last_sum
        ):
            self._state, self._last_sum = self._first(), None
            self._keep()
            raise ModelMismatchError(
                f"round {manifest.round} names a model that does not follow from model 0 and the sums so far"
            )

    def forget(self) -> None:
        """The run is over."""
        if self._store is not None:
            self._store.delete(self._name)

    def _check_sum(self, aggregate: Aggregate) -> None:
        """Check what a member can: so many members could have added up to this, and an auditor says that they did."""
        terms, members = self._terms, len(aggregate.survivors)
        if members < terms.floor:
            raise QuorumError(f"a sum over {members} members, {terms.floor} are needed")
        # decoding checks the range of honest sums; it works on ring elements, which these were
        terms.vectors[UPDATE].quantiser.decode(aggregate.total.view(np.uint32), members)
        if not terms.roster.auditors:
            return
        statement = Statement.parse(aggregate.verified)
        if statement.signer not in terms.roster.auditors:
            raise TranscriptError("a sum was not recomputed by an auditor of the agreement")
        said = self._context.said(statement, Verified, statement.signer)
        if (said.aggregate_sha256, said.round) != (aggregate.sha256, aggregate.round):
            raise TranscriptError("an auditor has recomputed another sum than this one")

    def _first(self) -> ServerState:
        return starting_state(self._agreement, self._start)

    def _keep(self) -> None:
        """Have the state durable. A large one lies in its file from then on, and not in memory too."""
        if self._store is None:
            return
        message = self._state.message
        # vectors lie where processors like them
        room = _HASH_CHARACTERS + -len(message.header) % _ALIGNED
        told = (self._last_sum or "").ljust(room).encode()
        self._store.put_pieces(self._name, chain((told,), pieces(message)))
        if message.payload_bytes >= IN_FILES_FROM:
            kept = self._store.view(self._name)
            if kept is None:
                raise StateError("the model that was kept is gone")
            self._state = state_from_message(in_place(message, kept[room:]))


def _read(kept: memoryview) -> tuple[ServerState, str | None]:
    start = bytes(kept[: _HASH_CHARACTERS + _ALIGNED])
    # a message starts with the length of its header, whose first byte is 0
    room = start.find(0, _HASH_CHARACTERS)
    if room < 0 or not start[:room].isascii():
        raise StateError("the model that this member has kept is damaged")
    return state_from_message(from_bytes(kept[room:])), start[:room].decode().strip() or None
