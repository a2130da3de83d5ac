"""From one round's state to the next."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np

from hansa.agreement.terms import ServerRule
from hansa.canonical import canonical_hash
from hansa.errors import ServerStateError
from hansa.server_step.rules import ARITHMETIC, Moving, refuse_if_unsupported
from hansa.server_step.schedule import learning_rate
from hansa.server_step.state import ServerState, finite_vector, require_finite, require_length
from hansa.vectors import IN_MEMORY, Array, Entrywise, Vector, Vectors, copied, in_blocks

_MADE = ("weights", "first_moment", "second_moment", "tail_sum")  # vectors of a state
_SMALLEST_NORMAL = np.array([2.0**-1022])


def tail_rounds(average_tail: float, rounds: int) -> int:
    """How many of the last models are averaged: ⌈share · rounds⌉, the share as the decimal it is written as.

    In doubles 0.07 times 100 is a little more than 7 and would round up to 8; in decimals it is 7.

    Args:
        average_tail: share in [0, 1].
        rounds: of the whole run, at least 1.

    Raises:
        ServerStateError: one of them is out of range.
    """
    if rounds < 1 or not 0.0 <= average_tail <= 1.0:
        raise ServerStateError(f"a tail of {average_tail!r} of {rounds} rounds is not defined")
    return math.ceil(Fraction(repr(float(average_tail))) * rounds)


def initial_state(
    rule: ServerRule,
    weights: Vector,
    *,
    average_tail: float,
    rounds: int,
    adapted: Vector | None = None,
    vectors: Vectors = IN_MEMORY,
) -> ServerState:
    """The state before the first round.

    Args:
        rule: the agreement's server rule.
        weights: model 0, float64 `[d]`, finite; copied.
        average_tail: share of the last rounds whose models are averaged for publication; 0 for none.
        rounds: of the whole run.
        adapted: quantities of the first step, float64 `[k]`, where any adapt.
        vectors: where the state's vectors are made.

    Raises:
        UnsupportedRuleError: the rule needs individual updates or is not known.
        ServerStateError: the weights are not a finite float64 vector, or the tail is out of range.
    """
    refuse_if_unsupported(rule.rule)
    keeps = ARITHMETIC[rule.rule]
    start = copied(finite_vector(weights, np.size(weights), "weights"), vectors)
    zeros = _zeros(start.size, vectors) if keeps.first_moment or keeps.second_moment else None
    return ServerState(
        rule_id=_rule_id(rule),
        round=0,
        rounds=rounds,
        tail_rounds=tail_rounds(average_tail, rounds),
        weights=start,
        first_moment=zeros if keeps.first_moment else None,
        second_moment=zeros if keeps.second_moment else None,
        beta_1_power=rule.beta_1 if keeps.beta_powers else None,
        beta_2_power=rule.beta_2 if keeps.beta_powers else None,
        adapted=adapted,
    )


def _zeros(length: int, vectors: Vectors) -> Vector:
    made = vectors.making(length)
    for part in in_blocks(length):
        made.add(np.zeros(part.stop - part.start))
    return made.done()


def step(
    rule: ServerRule,
    state: ServerState,
    mean_update: Vector | Entrywise,
    adapted: Vector | None = None,
    *,
    vectors: Vectors = IN_MEMORY,
) -> ServerState:
    """The state after one more round, computed block by block.

    Args:
        rule: the rule that `state` was started with.
        state: before the round; not changed.
        mean_update: weighted mean over members of local weights less global weights, float64 `[d]`, finite.
            An update is the opposite of a gradient: it is added.
        adapted: quantities of the next step, float64 `[k]`, where the state has any.
        vectors: where the new state's vectors are made.

    Returns:
        A new state, a function of the arguments' bits alone.

    Raises:
        UnsupportedRuleError: the rule needs individual updates or is not known.
        ServerStateError: the state belongs to another rule, the run has no rounds left or warms up to its end, the
            update does not fit, the result is not finite, or this thread does not compute as IEEE 754 says.
    """
    refuse_if_unsupported(rule.rule)
    if state.rule_id != _rule_id(rule):
        raise ServerStateError(
            f"the state was started with another rule than {rule.rule!r} with these parameters",
            remedy="Continue with the agreement that the run was started with.",
        )
    if state.round >= state.rounds:
        raise ServerStateError(f"the run has {state.rounds} rounds, and all of them are done")
    _require_matching_parts(rule, state)
    if _length(adapted) != _length(state.adapted):
        raise ServerStateError("what adapts does not go with the state: it has other quantities, or none")
    rate = learning_rate(rule, state.round, state.rounds)
    length = state.weights.size
    if isinstance(mean_update, Entrywise):
        require_length(mean_update, length, "mean update")
        source: Array = mean_update.source
    else:
        source = finite_vector(mean_update, length, "mean update")
    in_tail = state.round + 1 > state.rounds - state.tail_rounds
    read = (state.weights, state.first_moment, state.second_moment, state.tail_sum)
    kept = in_tail and state.tail_sum is not None
    there = (True, state.first_moment is not None, state.second_moment is not None, kept)
    made = {name: vectors.making(length) for name, is_there in zip(_MADE, there, strict=True) if is_there}
    # an overflow shows as an entry that is not finite, which the new state refuses by name and place
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        _require_gradual_underflow()
        for part in in_blocks(length, *read, source):
            update = mean_update[part]
            if not np.isfinite(update).all():
                require_finite(mean_update, "mean update")
            first, second, tail = (None if one is None else one[part] for one in read[1:])
            before = Moving(state.weights[part], first, second, state.beta_1_power, state.beta_2_power)
            after = ARITHMETIC[rule.rule].move(rule, rate, before, update)
            parts = {**vars(after), "tail_sum": None if tail is None else tail + after.weights}
            for name, vector in made.items():
                vector.add(parts[name])
    done = {name: vector.done() for name, vector in made.items()}
    if in_tail and not kept:
        done["tail_sum"] = done["weights"]
    return ServerState(
        rule_id=state.rule_id,
        round=state.round + 1,
        rounds=state.rounds,
        tail_rounds=state.tail_rounds,
        beta_1_power=after.beta_1_power,
        beta_2_power=after.beta_2_power,
        tail_count=state.tail_count + in_tail,
        adapted=adapted,
        **done,
    )


def _length(adapted: Vector | None) -> int:
    return 0 if adapted is None else adapted.size


@lru_cache(maxsize=64)
def _rule_id(rule: ServerRule) -> str:
    return canonical_hash(rule.tree())


def _require_matching_parts(rule: ServerRule, state: ServerState) -> None:
    """A state read from elsewhere may name the rule and lack what the rule keeps."""
    keeps = ARITHMETIC[rule.rule]
    expected = (keeps.first_moment, keeps.second_moment, keeps.beta_powers, keeps.beta_powers)
    found = (state.first_moment, state.second_moment, state.beta_1_power, state.beta_2_power)
    if tuple(part is not None for part in found) != expected:
        raise ServerStateError(f"the state does not hold what {rule.rule!r} keeps between rounds")


def _require_gradual_underflow() -> None:
    """Refuse to compute where tiny numbers are flushed to zero: the other members' bits would differ."""
    if not np.multiply(_SMALLEST_NORMAL, 0.5)[0] > 0.0:
        raise ServerStateError(
            "this thread's floating-point unit flushes subnormal numbers to zero",
            remedy="A library set this, for example torch.set_flush_denormal(True); turn it off.",
        )
