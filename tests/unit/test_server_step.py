"""The server step: arithmetic by hand, what is refused, the tail, and the way through a journal."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hansa import server_step
from hansa.agreement.rules import INDIVIDUAL_UPDATE_RULES, SUPPORTED_RULES
from hansa.agreement.terms import ServerRule
from hansa.errors import ServerStateError, UnsupportedRuleError, WireError
from hansa.server_step import (
    ServerState,
    initial_state,
    published_weights,
    refuse_if_unsupported,
    state_from_message,
    step,
    tail_rounds,
)
from hansa.wire import Message, parse

Vector = npt.NDArray[np.float64]

WEIGHTS = np.array([1.0, -2.0, 0.5])
UPDATES = [np.array([0.5, 0.25, -1.0]), np.array([-0.5, 0.125, 0.0]), np.array([0.25, 4.0, -2.0])]


def run(rule: ServerRule, updates: list[Vector], *, average_tail: float = 0.0) -> list[ServerState]:
    """All states of a run that has as many rounds as updates."""
    states = [initial_state(rule, WEIGHTS, average_tail=average_tail, rounds=len(updates))]
    for update in updates:
        states.append(step(rule, states[-1], update))
    return states


def test_public_names() -> None:
    assert set(server_step.__all__) == {
        "ServerState", "initial_state", "learning_rate", "published_weights", "refuse_if_unsupported",
        "state_from_message", "step", "tail_rounds",
    }  # fmt: skip


# --- each rule by hand --------------------------------------------------------------------------------------


def test_fedavg_adds_the_update_times_the_rate() -> None:
    last = run(ServerRule(rule="fedavg", learning_rate=0.5), UPDATES[:1])[-1]
    assert last.weights.tolist() == [1.25, -1.875, 0.0]
    assert last.first_moment is None
    assert last.second_moment is None


def test_fedavgm_accumulates_a_velocity() -> None:
    last = run(ServerRule(rule="fedavgm", momentum=0.5), UPDATES[:2])[-1]
    # velocity: u1, then u1 / 2 + u2
    assert last.first_moment is not None
    assert last.first_moment.tolist() == [-0.25, 0.25, -0.5]
    assert last.weights.tolist() == [1.25, -1.5, -1.0]


def test_fedadam_moves_by_the_corrected_rate() -> None:
    rule = ServerRule(rule="fedadam", learning_rate=0.1, beta_1=0.5, beta_2=0.75, tau=0.25)
    last = run(rule, [np.array([0.5, 0.0, -1.0])])[-1]
    rate = 0.1 * math.sqrt(1 - 0.75**2) / (1 - 0.5**2)
    assert last.first_moment is not None
    assert last.second_moment is not None
    assert last.first_moment.tolist() == [0.25, 0.0, -0.5]
    assert last.second_moment.tolist() == [0.0625, 0.0, 0.25]
    assert last.weights.tolist() == [1.0 + rate * 0.25 / 0.5, -2.0, 0.5 - rate * 0.5 / 0.75]
    assert (last.beta_1_power, last.beta_2_power) == (0.25, 0.5625)


def test_fedyogi_moves_its_second_moment_towards_the_square() -> None:
    rule = ServerRule(rule="fedyogi", learning_rate=1.0, beta_1=0.0, beta_2=0.75, tau=0.5)
    first, second = run(rule, [np.array([2.0, 1.0, 0.0]), np.array([0.5, 0.5, 0.0])])[1:]
    assert first.second_moment is not None
    assert second.second_moment is not None
    assert first.second_moment.tolist() == [1.0, 0.25, 0.0]
    # entry 0 was above the square 0.25 and falls by a quarter of it, entry 1 was equal to it and stays
    assert second.second_moment.tolist() == [0.9375, 0.25, 0.0]
    assert first.weights.tolist() == [1.0 + 2.0 / 1.5, -2.0 + 1.0 / 1.0, 0.5]


def test_fedadagrad_sums_squares_and_keeps_no_first_moment() -> None:
    rule = ServerRule(rule="fedadagrad", learning_rate=1.0, beta_1=0.9, tau=1.0)
    last = run(rule, [np.array([3.0, 0.0, -1.0]), np.array([4.0, 0.0, 0.0])])[-1]
    assert last.second_moment is not None
    assert last.second_moment.tolist() == [25.0, 0.0, 1.0]
    assert last.weights.tolist() == [(1.0 + 3.0 / 4.0) + 4.0 / 6.0, -2.0, 0.5 - 1.0 / 2.0]
    assert last.first_moment is None


@pytest.mark.parametrize("name", SUPPORTED_RULES)
def test_an_update_is_added_not_subtracted(name: str) -> None:
    after = run(ServerRule(rule=name), [np.array([0.5, -0.5, 0.25])])[-1]
    assert np.sign(after.weights - WEIGHTS).tolist() == [1.0, -1.0, 1.0]


@pytest.mark.parametrize("name", SUPPORTED_RULES)
def test_a_step_changes_neither_state_nor_update(name: str) -> None:
    rule = ServerRule(rule=name)
    before, update = initial_state(rule, WEIGHTS, average_tail=1.0, rounds=2), UPDATES[0].copy()
    digest, weights = before.digest(), before.weights.copy()
    step(rule, before, update)
    assert np.array_equal(before.weights, weights)
    assert dataclasses.replace(before).digest() == digest
    assert np.array_equal(update, UPDATES[0])


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(INDIVIDUAL_UPDATE_RULES))
def test_rules_that_need_individual_updates_are_refused_by_name(name: str) -> None:
    with pytest.raises(UnsupportedRuleError, match=f"'{name}' reads every member's own update") as refusal:
        refuse_if_unsupported(name)
    assert all(rule in refusal.value.what_to_do for rule in SUPPORTED_RULES)
    with pytest.raises(UnsupportedRuleError):
        initial_state(ServerRule(rule=name), WEIGHTS, average_tail=0.0, rounds=1)


def test_an_unknown_rule_is_refused_and_a_known_one_is_not() -> None:
    with pytest.raises(UnsupportedRuleError, match="'adam' is not a server rule"):
        refuse_if_unsupported("adam")
    for name in SUPPORTED_RULES:
        refuse_if_unsupported(name)


BAD_VECTORS: dict[str, tuple[Any, str]] = {
    "float32": (np.zeros(3, dtype=np.float32), "float64, not float32"),
    "big-endian": (np.zeros(3, dtype=">f8"), "float64, not >f8"),
    "integers": (np.zeros(3, dtype=np.int64), "float64, not int64"),
    "matrix": (np.zeros((3, 1)), r"shape \(3, 1\)"),
    "list": ([0.0, 0.0, 0.0], "float64, not list"),
    "short": (np.zeros(2), "2 entries where the model has 3"),
    "long": (np.zeros(4), "4 entries where the model has 3"),
    "nan": (np.array([0.0, np.nan, np.inf]), "2 of 3 entries are not finite, the first at 1"),
    "minus infinity": (np.array([0.0, 0.0, -np.inf]), "1 of 3 entries are not finite, the first at 2"),
}


@pytest.mark.parametrize(("update", "told"), BAD_VECTORS.values(), ids=BAD_VECTORS)
def test_a_bad_update_is_refused(update: Any, told: str) -> None:
    rule = ServerRule()
    state = initial_state(rule, WEIGHTS, average_tail=0.0, rounds=1)
    with pytest.raises(ServerStateError, match=told):
        step(rule, state, update)
    assert step(rule, state, UPDATES[0]).round == 1  # and the state still works


@pytest.mark.parametrize(
    "weights", [np.zeros(3, dtype=np.float32), np.zeros(0), np.array([np.nan]), np.array(1.0)]
)
def test_bad_weights_are_refused(weights: Any) -> None:
    with pytest.raises(ServerStateError):
        initial_state(ServerRule(), weights, average_tail=0.0, rounds=1)


@pytest.mark.parametrize(("tail", "rounds"), [(-0.1, 3), (1.1, 3), (math.nan, 3), (0.5, 0)])
def test_a_tail_that_is_not_defined_is_refused(tail: float, rounds: int) -> None:
    with pytest.raises(ServerStateError, match="is not defined"):
        initial_state(ServerRule(), WEIGHTS, average_tail=tail, rounds=rounds)


def test_a_run_that_is_over_takes_no_more_steps() -> None:
    rule = ServerRule()
    last = run(rule, UPDATES)[-1]
    with pytest.raises(ServerStateError, match="3 rounds, and all of them are done"):
        step(rule, last, UPDATES[0])


@pytest.mark.parametrize(
    "other", [ServerRule(rule="fedavgm"), ServerRule(learning_rate=0.5), ServerRule(beta_2=0.999)]
)
def test_a_state_of_another_rule_is_refused(other: ServerRule) -> None:
    state = initial_state(ServerRule(), WEIGHTS, average_tail=0.0, rounds=1)
    with pytest.raises(ServerStateError, match="started with another rule"):
        step(other, state, UPDATES[0])


@pytest.mark.parametrize("missing", ["first_moment", "second_moment", "beta_1_power", "beta_2_power"])
def test_a_state_without_what_its_rule_keeps_is_refused(missing: str) -> None:
    rule = ServerRule(rule="fedadam")
    state = dataclasses.replace(initial_state(rule, WEIGHTS, average_tail=0.0, rounds=1), **{missing: None})
    with pytest.raises(ServerStateError, match="does not hold what 'fedadam' keeps"):
        step(rule, state, UPDATES[0])


def test_a_diverging_run_is_refused_without_a_warning_and_by_name() -> None:
    rule = ServerRule(learning_rate=1e300)
    state = initial_state(rule, WEIGHTS, average_tail=0.0, rounds=1)
    with pytest.raises(ServerStateError, match="the weights: 3 of 3 entries are not finite") as refusal:
        step(rule, state, np.array([1e10, -1e10, 1e10]))
    assert "smaller learning rate" in refusal.value.what_to_do


@pytest.fixture
def flushing() -> Iterator[None]:
    torch = pytest.importorskip("torch")
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers")
    yield
    torch.set_flush_denormal(False)


@pytest.mark.usefixtures("flushing")
def test_a_thread_that_flushes_subnormal_numbers_is_refused() -> None:
    rule = ServerRule()
    state = initial_state(rule, WEIGHTS, average_tail=0.0, rounds=1)
    with pytest.raises(ServerStateError, match="flushes subnormal numbers to zero"):
        step(rule, state, UPDATES[0])


# --- the state ----------------------------------------------------------------------------------------------

IMPOSSIBLE: dict[str, Callable[[ServerState], dict[str, Any]]] = {
    "a negative second moment": lambda s: {"second_moment": -np.ones(3)},
    "a moment of another length": lambda s: {"first_moment": np.zeros(4)},
    "a round beyond the last": lambda s: {"round": 4, "tail_sum": s.weights, "tail_count": 1},
    "a tail longer than the run": lambda s: {"tail_rounds": 4},
    "a tail before it begins": lambda s: {"tail_sum": s.weights, "tail_count": 1},
    "a tail without its sum": lambda s: {"round": 3, "tail_count": 1},
    "a tail that lost a model": lambda s: {"round": 3, "tail_sum": s.weights, "tail_count": 0},
    "a power of one": lambda s: {"beta_1_power": 1.0},
    "a power that is not a number": lambda s: {"beta_2_power": math.nan},
    "no weights": lambda s: {"weights": None},
}


@pytest.mark.parametrize("change", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_states_cannot_be_made(change: Callable[[ServerState], dict[str, Any]]) -> None:
    state = initial_state(ServerRule(rule="fedadam"), WEIGHTS, average_tail=1 / 3, rounds=3)
    with pytest.raises(ServerStateError):
        dataclasses.replace(state, **change(state))


def test_vectors_are_read_only_and_no_longer_the_callers() -> None:
    mine = WEIGHTS.copy()
    state = initial_state(ServerRule(rule="fedadam"), mine, average_tail=1.0, rounds=1)
    mine[0] = 99.0
    assert state.weights[0] == 1.0
    after = step(ServerRule(rule="fedadam"), state, UPDATES[0])
    vectors = (state.weights, after.weights, after.first_moment, after.second_moment, after.tail_sum)
    for vector in (*vectors, published_weights(after), published_weights(state)):
        assert vector is not None
        with pytest.raises(ValueError, match="read-only"):
            vector[0] = 7.0


def test_a_state_copies_a_vector_that_someone_could_still_write_to() -> None:
    mine = np.zeros(3)
    state = dataclasses.replace(
        initial_state(ServerRule(), WEIGHTS, average_tail=0.0, rounds=1), weights=mine
    )
    mine[:] = 5.0
    assert state.weights.tolist() == [0.0, 0.0, 0.0]


def test_states_are_equal_when_their_digests_are() -> None:
    rule = ServerRule(rule="fedyogi")
    one, two = run(rule, UPDATES), run(rule, UPDATES)
    assert one == two
    assert len({*one, *two}) == len(one)
    assert one[0] != "state"


@pytest.mark.parametrize("part", ["weights", "first_moment", "second_moment", "tail_sum"])
def test_the_digest_notices_the_last_bit_of_every_vector(part: str) -> None:
    state = run(ServerRule(rule="fedadam"), UPDATES, average_tail=1.0)[-1]
    changed = getattr(state, part).copy()
    changed[1] = np.nextafter(changed[1], np.inf)
    assert dataclasses.replace(state, **{part: changed}).digest() != state.digest()


def test_the_digest_notices_the_sign_of_zero_and_every_scalar() -> None:
    state = initial_state(ServerRule(rule="fedadam"), np.zeros(2), average_tail=0.0, rounds=3)
    changes: list[dict[str, Any]] = [
        {"weights": np.array([0.0, -0.0])}, {"round": 1}, {"rounds": 4}, {"rule_id": "0" * 64},
        {"beta_1_power": 0.5}, {"beta_2_power": 0.5}, {"tail_rounds": 1}, {"first_moment": None},
    ]  # fmt: skip
    digests = {state.digest(), *(dataclasses.replace(state, **change).digest() for change in changes)}
    assert len(digests) == len(changes) + 1


@pytest.mark.parametrize("name", SUPPORTED_RULES)
@pytest.mark.parametrize("stop", range(4))
def test_a_run_continues_from_its_journal_to_the_bit(name: str, stop: int) -> None:
    rule = ServerRule(rule=name)
    states = run(rule, UPDATES, average_tail=2 / 3)
    message = states[stop].message
    arrays = {key: np.frombuffer(array.tobytes(), dtype="<f8") for key, array in message.arrays.items()}
    resumed = state_from_message(parse(message.header, arrays))
    assert resumed == states[stop]
    for update in UPDATES[stop:]:
        resumed = step(rule, resumed, update)
    assert resumed == states[-1]
    assert published_weights(resumed).tobytes() == published_weights(states[-1]).tobytes()


def test_a_power_that_has_underflowed_survives_the_journal() -> None:
    state = initial_state(ServerRule(rule="fedadam"), WEIGHTS, average_tail=0.0, rounds=3)
    for power in (0.0, 5e-324, 1e-310):
        tiny = dataclasses.replace(state, beta_1_power=power)
        again = state_from_message(parse(tiny.message.header, tiny.message.arrays))
        assert again == tiny
        assert isinstance(again.beta_1_power, float)


def _changed(message: Message, **body: Any) -> Message:
    return Message(message.kind, {**message.body, **body}, message.arrays)


BAD_MESSAGES: dict[str, Callable[[Message], Message]] = {
    "another kind": lambda m: Message("update", m.body, m.arrays),
    "another specification": lambda m: _changed(m, specification=2),
    "a member too many": lambda m: _changed(m, note="x"),
    "a member too few": lambda m: Message(
        m.kind, {k: v for k, v in m.body.items() if k != "tail_count"}, m.arrays
    ),
    "no weights": lambda m: Message(m.kind, m.body, {}),
    "an array too many": lambda m: Message(m.kind, m.body, {**m.arrays, "gradient": m.arrays["weights"]}),
    "float32 weights": lambda m: Message(m.kind, m.body, {"weights": np.zeros(3, dtype=np.float32)}),
    "a round in words": lambda m: _changed(m, round="one"),
    "a negative round": lambda m: _changed(m, round=-1),
    "a power in words": lambda m: _changed(m, beta_1_power="half"),
    "a power that is true": lambda m: _changed(m, beta_2_power=True),
    "a rule that is a number": lambda m: _changed(m, rule_id=3),
}


@pytest.mark.parametrize("damage", BAD_MESSAGES.values(), ids=BAD_MESSAGES)
def test_damaged_states_are_refused_when_read(damage: Callable[[Message], Message]) -> None:
    message = initial_state(ServerRule(rule="fedadam"), WEIGHTS, average_tail=0.0, rounds=3).message
    with pytest.raises(WireError):
        state_from_message(damage(message))


# --- the tail -----------------------------------------------------------------------------------------------


def test_the_published_weights_are_the_mean_of_the_tail() -> None:
    states = run(ServerRule(), UPDATES, average_tail=0.5)  # ⌈0.5 · 3⌉ = 2 models
    assert [state.tail_count for state in states] == [0, 0, 1, 2]
    assert published_weights(states[1]) is states[1].weights
    assert published_weights(states[2]).tolist() == states[2].weights.tolist()
    expected = (states[2].weights + states[3].weights) / 2.0
    assert published_weights(states[3]).tolist() == expected.tolist()


def test_no_tail_publishes_the_last_model() -> None:
    last = run(ServerRule(), UPDATES)[-1]
    assert published_weights(last) is last.weights


@pytest.mark.parametrize(
    ("share", "rounds", "tail"),
    [
        (0.0, 10, 0), (1.0, 10, 10), (0.5, 10, 5), (0.5, 3, 2), (0.01, 3, 1), (1e-9, 100_000, 1),
        (0.999, 10, 10),
        # shares whose product with the rounds is above the integer in float64
        (0.07, 100, 7), (0.14, 50, 7), (0.28, 25, 7), (0.55, 100, 55), (0.56, 100, 56),
    ],
)  # fmt: skip
def test_the_length_of_the_tail(share: float, rounds: int, tail: int) -> None:
    assert tail_rounds(share, rounds) == tail
