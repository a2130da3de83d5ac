"""The global model as a member derives it for itself: model 0, and the sums of the rounds since."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement
from hansa.errors import ModelMismatchError
from hansa.protocol import Aggregate
from hansa.secagg import Manifest, Store
from hansa.server_step import ServerState, initial_state, state_from_message
from hansa.wire import array_sha256, from_bytes, to_bytes

Vector: TypeAlias = npt.NDArray[np.float64]
Derive: TypeAlias = Callable[[ServerState, Aggregate], ServerState]


class DerivedModel:
    """The model of one run at one member.

    Args:
        agreement: frozen.
        start: float64 [d], model 0.
        derive: `hansa.protocol.Derivation`, or a shared one that remembers.
        store: keeps the state between processes, under `name`; without one it starts again from model 0 and is sent
            every sum.
        name: in the store.

    Guarantees: what a member trains on follows from model 0 and the sums that the coordinator has named, and from
        nothing else.
    Assumes: the sums are the true ones; a verifier recomputes them, and the next manifest names the last one's hash.

    Raises:
        ModelMismatchError: `start` is not the agreement's model 0.
    """

    def __init__(
        self,
        agreement: Agreement,
        start: Vector,
        derive: Derive,
        store: Store | None = None,
        name: str = "model",
    ) -> None:
        training = agreement.terms.training
        if array_sha256(start) != agreement.require_frozen().model.initial_sha256:
            raise ModelMismatchError("the model to start from is not the agreement's model 0")
        self._first = initial_state(
            training.server, start, average_tail=training.average_tail, rounds=training.rounds
        )
        self._derive, self._store, self._name = derive, store, name
        kept = None if store is None else store.get(name)
        self._state = self._first if kept is None else state_from_message(from_bytes(kept))
        self._last_sum: str | None = None  # the last sum's hash, as far as this process has seen it

    @property
    def round(self) -> int:
        """How many sums it has followed."""
        return self._state.round

    @property
    def weights(self) -> Vector:
        """float64 [d], read-only."""
        return self._state.weights

    def follow(self, aggregates: Iterable[Aggregate]) -> None:
        """Take the steps that are new, in order; known ones and ones beyond a gap are passed over.

        Raises:
            WireError: a sum belongs to no step or to no members.
            ServerStateError: the model left the range of numbers.
        """
        before = self.round
        for aggregate in sorted(aggregates, key=lambda one: one.step):
            if aggregate.step == self.round:
                self._state = self._derive(self._state, aggregate)
                self._last_sum = aggregate.sha256
        if self.round != before:
            self._keep()

    def check(self, manifest: Manifest) -> None:
        """Check that a manifest speaks of this very model.

        Raises:
            ModelMismatchError: of another one. The member then starts again from model 0 and asks for every sum.
        """
        known = self._last_sum
        if manifest.step > self.round:
            raise ModelMismatchError(
                f"round {manifest.round} trains model {manifest.step}; this member has followed {self.round} sums"
            )
        named = manifest.previous_aggregate_sha256
        if (
            manifest.step != self.round
            or manifest.model_sha256 != self._state.message.array_hashes["weights"]
            or (None not in {named, known} and named != known)
        ):
            self._state, self._last_sum = self._first, None
            self._keep()
            raise ModelMismatchError(
                f"round {manifest.round} names a model that does not follow from model 0 and the sums so far"
            )

    def forget(self) -> None:
        """The run is over."""
        if self._store is not None:
            self._store.delete(self._name)

    def _keep(self) -> None:
        if self._store is not None:
            self._store.put(self._name, to_bytes(self._state.message))
