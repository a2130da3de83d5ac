"""The server's learning rate: exact by whole numbers, correctly rounded, the same for coordinator and members."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.agreement.terms import ServerRule
from hansa.canonical import canonical_hash
from hansa.errors import ServerStateError
from hansa.protocol import Aggregate, Derivation
from hansa.server_step import initial_state, learning_rate, state_from_message, step
from hansa.server_step.schedule import factor
from hansa.wire import parse
from support.leagues import frozen_league

COSINE = ServerRule(schedule="cosine")


def test_the_rate_warms_up_in_equal_parts_and_then_stays() -> None:
    rule = ServerRule(learning_rate=0.4, warmup_rounds=4)
    assert [learning_rate(rule, r, 6) for r in range(6)] == [
        0.1,
        0.2,
        float(Fraction(0.4) * 3 / 4),
        0.4,
        0.4,
        0.4,
    ]


def test_a_linear_rate_would_be_at_its_end_right_after_the_last_round() -> None:
    rule = ServerRule(schedule="linear", end_factor=0.5, warmup_rounds=1)
    assert [learning_rate(rule, r, 5) for r in range(5)] == [1.0, 1.0, 0.875, 0.75, 0.625]


def test_half_a_cosine_has_its_known_values() -> None:
    assert [factor(COSINE, r, 6) for r in (0, 2, 3, 4)] == pytest.approx([1.0, 0.75, 0.5, 0.25], rel=1e-30)
    assert factor(COSINE, 0, 6) == 1
    assert abs(factor(COSINE, 3, 6) - Fraction(1, 2)) < Fraction(1, 2**120)


def _cosine(angle: Decimal) -> Decimal:
    total, term, order = Decimal(0), Decimal(1), 0
    while abs(term) > Decimal(10) ** -70:
        total += term
        term *= -angle * angle / ((order + 1) * (order + 2))
        order += 2
    return total


PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")


@given(st.integers(1, 100_000), st.data())
def test_the_cosine_is_right_to_thirty_six_digits_so_that_rates_are_rounded_correctly(
    rounds: int, data: st.DataObject
) -> None:
    number = data.draw(st.integers(0, rounds - 1))
    with localcontext(prec=80):
        exact = (1 + _cosine(PI * number / rounds)) / 2
        found = factor(COSINE, number, rounds)
        assert abs(Decimal(found.numerator) / found.denominator - exact) < Decimal(10) ** -36
    assert learning_rate(COSINE, number, rounds) == float(exact) or float(exact) < 1e-19


@given(
    st.sampled_from(("constant", "linear", "cosine")),
    st.integers(1, 300),
    st.integers(0, 299),
    st.floats(0.0, 1.0),
)
def test_rates_rise_to_the_agreed_one_and_never_again(
    schedule: str, rounds: int, warmup: int, end: float
) -> None:
    warmup = min(warmup, rounds - 1)
    rule = ServerRule.model_validate({"schedule": schedule, "warmup_rounds": warmup, "end_factor": end})
    rates = [learning_rate(rule, number, rounds) for number in range(rounds)]
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[warmup] == 1.0
    assert rates[: warmup + 1] == sorted(rates[: warmup + 1])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)


@pytest.mark.parametrize(("number", "rounds", "warmup"), [(-1, 3, 0), (3, 3, 0), (0, 3, 3), (0, 0, 0)])
def test_a_round_that_no_schedule_has_is_refused(number: int, rounds: int, warmup: int) -> None:
    with pytest.raises(ServerStateError, match="has no round"):
        learning_rate(ServerRule(warmup_rounds=warmup), number, rounds)


def test_adamw_by_hand() -> None:
    rule = ServerRule(rule="adamw", learning_rate=0.5, beta_1=0.5, beta_2=0.75, tau=0.25, weight_decay=0.5)
    state = initial_state(rule, np.array([1.0, -2.0]), average_tail=0.0, rounds=2)
    assert (state.beta_1_power, state.beta_2_power) == (0.5, 0.75)
    after = step(rule, state, np.array([1.0, 0.0]))
    # m / (1 - 0.5) = 1 and √v / √(1 - 0.75) = 1, so the step is 0.5 / 1.25; weights first shrink by a quarter
    assert after.weights.tolist() == [0.75 + 0.4, -1.5]
    assert after.first_moment is not None
    assert after.second_moment is not None
    assert after.first_moment.tolist() == [0.5, 0.0]
    assert after.second_moment.tolist() == [0.25, 0.0]
    assert (after.beta_1_power, after.beta_2_power) == (0.25, 0.5625)


def test_coordinator_and_members_derive_the_same_states_and_resume_them() -> None:
    rule = {
        "rule": "adamw", "learning_rate": 0.1, "weight_decay": 0.1, "schedule": "cosine", "warmup_rounds": 1,
    }  # fmt: skip
    agreement, built = frozen_league(training={"server": rule})
    start = built.initial_vector()
    training, names = agreement.terms.training, tuple(member.name for member in agreement.terms.members)
    assert agreement.terms.tree()["training"]["server"]["schedule"] == "cosine"  # type: ignore[index, call-overload]
    coordinator = member = initial_state(training.server, start, average_tail=0.0, rounds=training.rounds)
    derive, own = Derivation(agreement), Derivation(agreement)
    generator = np.random.default_rng(1)
    for number in range(training.rounds):
        total = generator.integers(-(10**6), 10**6, size=start.size, dtype=np.int32)
        coordinator = derive(coordinator, Aggregate(number, names, total))
        # the member was restarted in between
        member = state_from_message(parse(member.message.header, member.message.arrays))
        member = own(member, Aggregate(number, names, total.copy()))
        assert member.digest() == coordinator.digest()
    with_another = agreement.derive(training={"server": {**rule, "schedule": "linear"}})
    assert with_another.terms_id != agreement.terms_id
    other = initial_state(with_another.terms.training.server, start, average_tail=0.0, rounds=training.rounds)
    assert other.rule_id != coordinator.rule_id


def test_rules_without_decay_or_schedule_keep_their_ids() -> None:
    old = {
        "rule": "fedavg", "learning_rate": 1.0, "momentum": 0.9, "beta_1": 0.9, "beta_2": 0.99, "tau": 1e-3,
    }  # fmt: skip
    assert canonical_hash(ServerRule().tree()) == canonical_hash(old)
    for change in ({"weight_decay": 0.1}, {"schedule": "linear"}, {"warmup_rounds": 1}, {"end_factor": 0.1}):
        assert ServerRule.model_validate(change).tree() == {**old, **change}
