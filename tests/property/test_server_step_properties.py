"""Properties of the server step: the bits of an entry depend on it alone, and each operation rounds once."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hansa.agreement.rules import SUPPORTED_RULES
from hansa.agreement.terms import ServerRule
from hansa.server_step import (
    ServerState,
    initial_state,
    learning_rate,
    published_weights,
    state_from_message,
    step,
    tail_rounds,
)
from hansa.wire import parse

Vector = npt.NDArray[np.float64]

# squares and sums of a few of these stay finite; subnormal numbers and both zeros are among them
NUMBERS = st.floats(-1e100, 1e100)
RATES = st.floats(1e-6, 10.0)
BETAS = st.floats(0.0, 0.9999)
VECTORS = ("weights", "first_moment", "second_moment", "tail_sum")


@st.composite
def rules(draw: st.DrawFn) -> ServerRule:
    return ServerRule(
        rule=draw(st.sampled_from(SUPPORTED_RULES)),
        learning_rate=draw(RATES),
        momentum=draw(BETAS),
        beta_1=draw(BETAS),
        beta_2=draw(BETAS),
        tau=draw(st.floats(1e-9, 1.0)),
        weight_decay=draw(st.floats(0.0, 0.09)),
        schedule=draw(st.sampled_from(("constant", "linear", "cosine"))),
        end_factor=draw(st.floats(0.0, 1.0)),
    )


@st.composite
def runs(draw: st.DrawFn) -> tuple[ServerRule, float, Vector, list[Vector]]:
    """A rule, a tail, model 0 and the mean update of each round."""
    length = draw(st.integers(1, 40))
    vector = arrays(np.float64, length, elements=NUMBERS)
    return (
        draw(rules()),
        draw(st.floats(0.0, 1.0)),
        draw(vector),
        draw(st.lists(vector, min_size=1, max_size=5)),
    )


def states_of(rule: ServerRule, tail: float, weights: Vector, updates: list[Vector]) -> list[ServerState]:
    states = [initial_state(rule, weights, average_tail=tail, rounds=len(updates))]
    for update in updates:
        states.append(step(rule, states[-1], update))
    return states


def bits(state: ServerState) -> dict[str, npt.NDArray[np.uint64]]:
    """The vectors of a state as integers, so that signs of zero and last bits count."""
    found: dict[str, Any] = {name: getattr(state, name) for name in VECTORS}
    return {name: vector.view(np.uint64) for name, vector in found.items() if vector is not None}


@given(runs(), st.data())
def test_blocks_computed_apart_join_to_the_same_bits(
    run: tuple[ServerRule, float, Vector, list[Vector]], data: st.DataObject
) -> None:
    rule, tail, weights, updates = run
    cut = data.draw(st.integers(0, weights.size))
    whole = bits(states_of(rule, tail, weights, updates)[-1])
    parts = [
        bits(states_of(rule, tail, weights[block].copy(), [update[block].copy() for update in updates])[-1])
        for block in (slice(0, cut), slice(cut, None))
        if weights[block].size
    ]
    for name, vector in whole.items():
        assert np.array_equal(np.concatenate([part[name] for part in parts]), vector)


@given(runs(), st.randoms(use_true_random=False))
def test_the_order_of_entries_does_not_matter(
    run: tuple[ServerRule, float, Vector, list[Vector]], random: Any
) -> None:
    rule, tail, weights, updates = run
    order = list(range(weights.size))
    random.shuffle(order)
    straight = bits(states_of(rule, tail, weights, updates)[-1])
    shuffled = bits(states_of(rule, tail, weights[order], [update[order] for update in updates])[-1])
    for name, vector in straight.items():
        assert np.array_equal(vector[order], shuffled[name])


@given(runs())
def test_neither_alignment_nor_stride_changes_a_bit(
    run: tuple[ServerRule, float, Vector, list[Vector]],
) -> None:
    """Vector units treat unaligned heads and tails by other instructions."""
    rule, tail, weights, updates = run
    strided = [np.repeat(update, 2)[::2] for update in updates]
    shifted = [np.concatenate([np.zeros(1), update])[1:] for update in updates]
    digests = {states_of(rule, tail, weights, given)[-1].digest() for given in (updates, strided, shifted)}
    assert len(digests) == 1


@given(runs())
def test_a_step_is_a_function_of_its_arguments(run: tuple[ServerRule, float, Vector, list[Vector]]) -> None:
    assert [s.digest() for s in states_of(*run)] == [s.digest() for s in states_of(*run)]


@given(runs())
def test_states_survive_the_journal(run: tuple[ServerRule, float, Vector, list[Vector]]) -> None:
    rule, _, _, updates = run
    states = states_of(*run)
    for index, state in enumerate(states):
        sent = {name: np.frombuffer(array.tobytes(), "<f8") for name, array in state.message.arrays.items()}
        again = state_from_message(parse(state.message.header, sent))
        assert again.digest() == state.digest()
        for update in updates[index:]:
            again = step(rule, again, update)
        assert again.digest() == states[-1].digest()


@given(runs())
def test_the_tail_is_the_mean_of_the_last_models(run: tuple[ServerRule, float, Vector, list[Vector]]) -> None:
    _, share, _, updates = run
    states = states_of(*run)
    count = ceil(Fraction(repr(share)) * len(updates))
    last = states[-1]
    assert last.tail_count == count
    if count == 0:
        assert published_weights(last).tobytes() == last.weights.tobytes()
        return
    models = [state.weights for state in states[-count:]]
    largest = np.max(np.abs(models), axis=0)
    exact = [sum(map(Fraction, column)) / count for column in zip(*models, strict=True)]
    for found, wanted, bound in zip(published_weights(last), exact, largest, strict=True):
        # at most one rounding per sum and one of the quotient, each of half a unit in the last place
        assert abs(Fraction(float(found)) - wanted) <= count * Fraction(float(bound)) / 2**52 + Fraction(
            5e-324
        )


@given(st.floats(0.0, 1.0), st.integers(1, 100_000))
def test_a_tail_is_within_the_run_and_covers_its_share(share: float, rounds: int) -> None:
    tail = tail_rounds(share, rounds)
    assert 0 <= tail <= rounds
    assert tail >= share * rounds * (1 - 1e-12)
    assert tail - 1 < share * rounds * (1 + 1e-12)


@given(runs())
def test_fedavg_rounds_once_per_operation(
    run: tuple[ServerRule, float, Vector, list[Vector]],
) -> None:
    rule, _, weights, updates = run
    rate = learning_rate(rule, 0, len(updates[:1]))
    after = states_of(rule.model_copy(update={"rule": "fedavg"}), 0.0, weights, updates[:1])[-1]
    for before, update, found in zip(weights, updates[0], after.weights, strict=True):
        product = float(Fraction(rate) * Fraction(float(update)))
        assert float(found) == float(Fraction(float(before)) + Fraction(product))


@given(runs(), st.integers(0, 2**32))
def test_every_rule_moves_each_weight_the_way_its_first_update_points(
    run: tuple[ServerRule, float, Vector, list[Vector]], seed: int
) -> None:
    rule, _, weights, _ = run
    update = np.random.default_rng(seed).normal(size=weights.size)
    moved = states_of(rule, 0.0, np.zeros(weights.size), [update])[-1].weights
    assert np.all(moved * np.sign(update) >= 0)
    assert np.any(moved != 0)


@given(runs())
def test_an_update_of_zero_leaves_fedavg_where_it_is(
    run: tuple[ServerRule, float, Vector, list[Vector]],
) -> None:
    rule, _, weights, _ = run
    after = states_of(rule.model_copy(update={"rule": "fedavg"}), 0.0, weights, [np.zeros(weights.size)])[-1]
    assert np.array_equal(after.weights, weights)
