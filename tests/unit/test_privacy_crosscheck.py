"""Checks of an ε: agreement, contradiction, and what is neither."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.errors import ExitStatus, PrivacyParameterError
from hansa.privacy.accountant import PldAccountant, epsilon_spent
from hansa.privacy.crosscheck import (
    EVERYWHERE,
    LowerBound,
    UpperBound,
    Verdict,
    Within,
    checked_epsilon,
)
from hansa.privacy.errors import AccountantFailedError, AccountantsDisagreeError
from hansa.privacy.events import Spend, gaussian, poisson_gaussian
from hansa.privacy.rdp import RdpAccountant
from hansa_client.accounting import member_checks

SPENDS = [Spend(poisson_gaussian(0.04, 1.5), 2250)]
DELTA = 1e-5


class Says:
    """An accountant that always gives one answer, or fails."""

    name = "fixed"

    def __init__(self, answer: float | Exception) -> None:
        self.answer = answer

    def epsilon(self, spends, delta):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_an_answer_carries_what_became_of_its_checks():
    answer = checked_epsilon(SPENDS, DELTA)
    assert answer.epsilon == epsilon_spent(SPENDS, DELTA) == pytest.approx(6.768787, abs=1e-4)
    assert [(f.accountant, f.verdict) for f in answer.findings] == [
        ("rdp", Verdict.AGREES),
        ("sum-attack", Verdict.AGREES),
    ]
    assert answer.not_checked == ()
    assert answer.findings[1].epsilon < answer.epsilon < answer.findings[0].epsilon


def test_a_member_also_asks_prv():
    answer = checked_epsilon(SPENDS, DELTA, member_checks())
    found = {f.accountant: f for f in answer.findings}
    assert found["prv"].verdict is Verdict.AGREES
    assert found["prv"].epsilon == pytest.approx(6.777395712150674, abs=3e-3)
    assert abs(found["prv"].epsilon - answer.epsilon) <= 0.02


@pytest.mark.parametrize("wrong", [6.768787 + 0.03, 6.768787 - 0.03])
def test_an_answer_outside_twice_the_error_stops_the_run(wrong):
    with pytest.raises(AccountantsDisagreeError, match=r"differ by more than 0\.02") as raised:
        checked_epsilon(SPENDS, DELTA, [Within(Says(wrong), 0.02)])
    assert raised.value.exit_status is ExitStatus.FAILED
    assert "6.76879" in raised.value.cause
    assert "fixed" in raised.value.cause


def test_pld_above_rdp_stops_the_run():
    with pytest.raises(AccountantsDisagreeError, match="may not lie above"):
        checked_epsilon(SPENDS, DELTA, [UpperBound(Says(6.7))])


def test_pld_below_an_attack_stops_the_run():
    with pytest.raises(AccountantsDisagreeError, match="below an attack"):
        checked_epsilon(SPENDS, DELTA, [LowerBound(Says(6.8))])


@pytest.mark.parametrize(
    "answer", [AccountantFailedError("no memory"), math.nan, math.inf, -math.inf, -1.0], ids=str
)
@pytest.mark.parametrize(
    "check", [UpperBound, LowerBound, lambda a: Within(a, 0.02)], ids=["upper", "lower", "within"]
)
def test_a_failed_check_is_not_checked_and_never_a_pass(check, answer):
    checked = checked_epsilon(SPENDS, DELTA, [check(Says(answer)), *EVERYWHERE])
    first = checked.findings[0]
    assert first.verdict is Verdict.NOT_CHECKED
    assert checked.not_checked == (first,)
    assert first.epsilon is None
    assert "no memory" in first.reason or "it answers" in first.reason


@pytest.mark.parametrize("answer", [math.nan, -0.1])
def test_an_answer_of_record_that_is_no_number_is_an_error(answer):
    with pytest.raises(AccountantFailedError, match="of record"):
        checked_epsilon(SPENDS, DELTA, record=Says(answer))


def test_a_failure_of_the_record_is_not_swallowed():
    with pytest.raises(AccountantFailedError, match="no memory"):
        checked_epsilon(SPENDS, DELTA, record=Says(AccountantFailedError("no memory")))


def test_a_parameter_error_of_a_check_is_not_swallowed():
    with pytest.raises(PrivacyParameterError):
        checked_epsilon(SPENDS, DELTA, [UpperBound(Says(PrivacyParameterError("no such event")))])


def test_infinite_answers_agree():
    none = [Spend({"type": "NonPrivate"}, 1)]
    checked = checked_epsilon(none, DELTA, member_checks())
    assert checked.epsilon == math.inf
    assert not checked.not_checked
    assert json.loads(json.dumps(checked.as_dict(), allow_nan=False))["epsilon"] is None


def test_a_checked_answer_is_plain_json():
    checked = checked_epsilon(SPENDS, DELTA, [UpperBound(Says(AccountantFailedError("why")))])
    plain = json.loads(json.dumps(checked.as_dict()))
    assert plain["accountant"] == "pld"
    assert plain["checks"] == [
        {"accountant": "fixed", "verdict": "not checked", "epsilon": None, "reason": "why"}
    ]


@pytest.mark.parametrize(
    ("rate", "multiplier", "steps", "delta"),
    [
        # tiny losses, many steps: PLD's grid shows, and lies above RDP by up to 0.011
        (0.002262837377715582, 78.36821800120303, 60461, 1.2273890222943983e-05),
        (0.002747422212323961, 143.5439805177552, 80789, 0.00027419795835512085),
        (0.00011994041566467971, 13.184330205631467, 53781, 6.809780971453434e-05),
        (0.0007421210562438994, 19.7082734247581, 6148, 2.3170347541301493e-09),
    ],
)
def test_the_grid_of_pld_is_no_contradiction(rate, multiplier, steps, delta):
    spends = [Spend(poisson_gaussian(rate, multiplier), steps)]
    assert PldAccountant().epsilon(spends, delta) > RdpAccountant().epsilon(spends, delta)
    assert not checked_epsilon(spends, delta).not_checked


@settings(max_examples=40)
@given(
    rate=st.floats(-4, 0).map(lambda x: 10**x),
    multiplier=st.floats(-0.2, 2.5).map(lambda x: 10**x),
    steps=st.integers(1, 30_000),
    delta=st.floats(-9, -2).map(lambda x: 10**x),
    sampled=st.booleans(),
)
def test_pld_lies_between_attack_and_rdp(rate, multiplier, steps, delta, sampled):
    event = poisson_gaussian(rate, multiplier) if sampled else gaussian(multiplier)
    spends = [Spend(event, steps)]
    if RdpAccountant().epsilon(spends, delta) < 100:  # beyond, nobody would sign, and PLD takes long
        assert not checked_epsilon(spends, delta).not_checked
