"""The state of the server optimiser: all that the next step needs, and nothing that it does not.

A state is a `hansa.wire` message when it is journalled or sent to a late joiner: its canonical header holds
the counters and binds each vector by SHA-256, and the SHA-256 of that header is the state's digest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hansa.canonical import sha256_hex
from hansa.errors import ServerStateError, WireError
from hansa.privacy.adaptation import model_name
from hansa.vectors import IN_MEMORY, Entrywise, Vector, Vectors, in_blocks
from hansa.wire import Message, array_sha256

# of the arithmetic in docs/decisions/0010-server-step.md; another arithmetic is another number
SPECIFICATION = 1
KIND = "server-state"

_VECTORS = ("weights", "first_moment", "second_moment", "tail_sum")
_ADAPTED = "adapted"  # a vector of another length than the weights
_COUNTERS = ("round", "rounds", "tail_rounds", "tail_count")
_POWERS = ("beta_1_power", "beta_2_power")


@dataclass(frozen=True, eq=False)
class ServerState:
    """The server optimiser after some rounds. Two states are equal when their digests are.

    Attributes:
        rule_id: SHA-256 of the rule and its parameters; `step` refuses a state of another rule.
        round: steps taken so far; 0 is model 0.
        rounds: steps of the whole run.
        tail_rounds: how many of the last models are averaged; 0 for none.
        weights: the model, float64 `[d]`, read-only like every vector here.
        first_moment: momentum of FedAvgM, m of FedAdam, FedYogi and AdamW; float64 `[d]`.
        second_moment: v of FedAdam, FedYogi, FedAdagrad and AdamW; float64 `[d]`, not below 0.
        beta_1_power, beta_2_power: of FedAdam and AdamW: β₁ and β₂ to the power `round` + 1, kept by multiplication.
        tail_sum: sum of the models of the tail so far, float64 `[d]`; absent before the tail.
        tail_count: how many models are in `tail_sum`.
        adapted: quantities that follow from the sums beside the weights, such as the clipping norm of the next step
            (`hansa.privacy.adaptation`); float64 `[k]`, absent where nothing adapts.

    Raises:
        ServerStateError: a vector has another dtype or length or is not finite, or the counters do not fit.
    """

    rule_id: str
    round: int
    rounds: int
    tail_rounds: int
    weights: Vector
    first_moment: Vector | None = None
    second_moment: Vector | None = None
    beta_1_power: float | None = None
    beta_2_power: float | None = None
    tail_sum: Vector | None = None
    tail_count: int = 0
    adapted: Vector | None = None

    def __post_init__(self) -> None:
        length = np.size(self.weights)
        for name in _VECTORS:
            value = getattr(self, name)
            if value is not None or name == "weights":
                object.__setattr__(self, name, _frozen(finite_vector(value, length, name.replace("_", " "))))
        if self.adapted is not None:
            adapted = finite_vector(self.adapted, np.size(self.adapted), "vector of adapted quantities")
            object.__setattr__(self, _ADAPTED, _frozen(adapted))
        second = self.second_moment
        if second is not None and not all((second[part] >= 0.0).all() for part in in_blocks(length, second)):
            raise ServerStateError("the second moment has entries below 0")
        if not 0 <= self.tail_rounds <= self.rounds or not 0 <= self.round <= self.rounds:
            raise ServerStateError(
                f"round {self.round} of {self.rounds} with a tail of {self.tail_rounds} is no state of a run"
            )
        in_tail = max(0, self.round - (self.rounds - self.tail_rounds))
        if self.tail_count != in_tail or (self.tail_sum is None) != (in_tail == 0):
            raise ServerStateError(
                f"after round {self.round} the tail holds {in_tail} models, not {self.tail_count}"
            )
        for name in _POWERS:
            power = getattr(self, name)
            if power is not None and not (isinstance(power, float) and 0.0 <= power < 1.0):
                raise ServerStateError(f"{name} is outside [0, 1)")

    @cached_property
    def message(self) -> Message:
        """The state as a wire message: JSON in the canonical header, vectors as arrays."""
        body = {name: getattr(self, name) for name in ("rule_id", *_COUNTERS, *_POWERS)}
        vectors = (*_VECTORS, _ADAPTED)
        arrays = {name: getattr(self, name) for name in vectors if getattr(self, name) is not None}
        hashed = {"weights": self.weights_sha256}
        return Message(KIND, {"specification": SPECIFICATION, **body}, arrays, hashed=hashed)

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights."""
        return array_sha256(self.weights)

    @property
    def model_sha256(self) -> str:
        """What manifests and logs name this model by: the SHA-256 of its weights, and of what adapts with them, if anything.

        So nobody holds the model that a manifest names and another clipping norm.
        """
        weights = self.weights_sha256
        return weights if self.adapted is None else model_name(weights, self.adapted.tolist())

    @cached_property
    def _digest(self) -> str:
        return sha256_hex(self.message.header)

    def digest(self) -> str:
        """SHA-256 of the canonical header, which binds every vector by its own SHA-256; in hexadecimal."""
        return self._digest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ServerState) and self.digest() == other.digest()

    def __hash__(self) -> int:
        return hash(self.digest())


def published_weights(state: ServerState, vectors: Vectors = IN_MEMORY) -> Vector:
    """The weights that would be published now: the tail's mean once the tail has begun, else the model.

    Args:
        state: after some rounds.
        vectors: where a mean is made.

    Returns:
        float64 `[d]`, read-only; the entries are `tail_sum / tail_count`.
    """
    if state.tail_sum is None:
        return state.weights
    mean = vectors.making(state.tail_sum.size)
    for part in in_blocks(state.tail_sum.size, state.tail_sum):
        mean.add(np.divide(state.tail_sum[part], float(state.tail_count)))
    return mean.done()


def state_from_message(message: Message) -> ServerState:
    """The state that `ServerState.message` was made from.

    Args:
        message: built by this process, or checked by `hansa.wire.parse`.

    Raises:
        WireError: it is no state, or one of another specification.
        ServerStateError: it is a state that no run can be in.
    """
    if message.kind != KIND:
        raise WireError(f"a message of kind {message.kind!r} is no server state")
    if message.body.get("specification") != SPECIFICATION:
        raise WireError(
            "a server state was made by another specification of the server step",
            remedy=f"This release computes specification {SPECIFICATION}; resume with the writer's.",
        )
    if set(message.body) != {"specification", "rule_id", *_COUNTERS, *_POWERS}:
        raise WireError("a server state does not have the members of one")
    if "weights" not in message.arrays or not set(message.arrays) <= {*_VECTORS, _ADAPTED}:
        raise WireError(f"a server state carries the arrays {sorted(message.arrays)}")
    length = message.arrays["weights"].size
    vectors: Mapping[str, Vector] = {
        name: message.array(name, "<f8", array.size if name == _ADAPTED else length)
        for name, array in message.arrays.items()
    }
    state = ServerState(
        rule_id=message.text("rule_id"),
        round=message.integer("round"),
        rounds=message.integer("rounds"),
        tail_rounds=message.integer("tail_rounds"),
        weights=vectors["weights"],
        first_moment=vectors.get("first_moment"),
        second_moment=vectors.get("second_moment"),
        beta_1_power=_power(message, "beta_1_power"),
        beta_2_power=_power(message, "beta_2_power"),
        tail_sum=vectors.get("tail_sum"),
        tail_count=message.integer("tail_count"),
        adapted=vectors.get(_ADAPTED),
    )
    vars(state)["weights_sha256"] = message.array_hashes["weights"]  # known by now; see `cached_property`
    return state


def finite_vector(value: object, length: int, name: str) -> Vector:
    """`value`, once it is known to be a vector of `length` finite float64 entries.

    Raises:
        ServerStateError: with what is wrong and where it starts.
    """
    if not isinstance(value, np.ndarray):
        raise ServerStateError(f"the {name} must be a vector of float64, not {type(value).__name__}")
    if value.dtype.str != "<f8" or value.ndim != 1:
        raise ServerStateError(
            f"the {name} must be a vector of float64, not {value.dtype} of shape {value.shape}"
        )
    require_length(value, length, name)
    require_finite(value, name)
    return value


def require_finite(value: Vector | Entrywise, name: str) -> None:
    """Go through a vector and refuse it where an entry is not finite.

    Raises:
        ServerStateError: with how many are not, and where the first is.
    """
    wrong, first = 0, 0
    for part in in_blocks(value.size, value.source if isinstance(value, Entrywise) else value):
        finite = np.isfinite(value[part])
        if not finite.all():
            first = first if wrong else part.start + int(np.argmin(finite))
            wrong += finite.size - int(np.count_nonzero(finite))
    if wrong:
        raise ServerStateError(
            f"the {name}: {wrong} of {value.size} entries are not finite, the first at {first}",
            remedy="The run diverged or its data are damaged; a smaller learning rate may help.",
        )


def require_length(value: Vector | Entrywise, length: int, name: str) -> None:
    """Refuse a vector that has not as many entries as the model, or none.

    Raises:
        ServerStateError: with how many there are.
    """
    if value.size != length or length == 0:
        raise ServerStateError(f"the {name} has {value.size} entries where the model has {length}")


def _frozen(value: Vector) -> Vector:
    """A read-only array, copied when someone could still write to it."""
    if value.flags.writeable or not value.flags.c_contiguous:
        value = np.array(value, dtype=np.float64, order="C")
        value.flags.writeable = False
    return value


def _power(message: Message, name: str) -> float | None:
    value = message.body[name]
    if value is None:
        return None
    # canonical JSON writes 0.0 as 0, so a power that has underflowed comes back as an integer
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise WireError(f"message {message.kind!r}: {name!r} must be a number or null")
    return float(value)
