"""Charges: own noise and shared noise, and what an agreement's run costs."""

from __future__ import annotations

import math

import pytest

from hansa.errors import PrivacyParameterError
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.charges import Charge, charges_of, distributed_training
from hansa.privacy.events import Spend, gaussian, poisson_gaussian, rate_and_multiplier, with_more_noise
from hansa.privacy.sampling import PoissonSampling
from support.leagues import terms_of

EVENT, SHARED = poisson_gaussian(0.1, 1.0), poisson_gaussian(0.1, 2.0)


def test_local_noise_costs_the_same_against_anyone():
    charge = Charge("training", EVENT, 10)
    assert charge.against(None) == charge.against(1) == charge.against(99) == Spend(EVENT, 10)


def test_shared_noise_counts_against_coalitions_it_was_made_for():
    charge = Charge("training", EVENT, 10, SHARED, 2)
    assert charge.against(None) == Spend(EVENT, 10)
    assert charge.against(1) == charge.against(2) == Spend(SHARED, 10)
    assert charge.against(3) == Spend(EVENT, 10)  # three may know what was counted on as noise


def test_shares_add_up_in_variance():
    charge = distributed_training(PoissonSampling(0.1), 1.2, 100, smallest_sum=7, colluding=3)
    assert rate_and_multiplier(charge.against(3).event) == (0.1, 1.2)
    assert rate_and_multiplier(charge.against(None).event)[1] == pytest.approx(1.2 / math.sqrt(4))
    own, shared = (epsilon_spent([charge.against(who)], 1e-5) for who in (None, 3))
    assert own > 2 * shared


def test_shares_in_parts_leave_less_against_everyone():
    whole, parts = (
        distributed_training(PoissonSampling(0.1), 1.2, 100, smallest_sum=4, colluding=1, in_parts_of=n)
        for n in (0, 5)
    )
    assert parts.against(1) == whole.against(1)
    assert rate_and_multiplier(whole.event)[1] == pytest.approx(1.2 / math.sqrt(3))
    assert rate_and_multiplier(parts.event)[1] == pytest.approx(1.2 / math.sqrt(4))
    assert parts.in_parts_of == parts.with_count(3).in_parts_of == parts.with_more_noise(2.0).in_parts_of == 5


@pytest.mark.parametrize(("smallest", "colluding"), [(3, 3), (3, 4), (3, 0), (0, 1)])
def test_somebody_honest_must_be_left(smallest, colluding):
    with pytest.raises(PrivacyParameterError):
        distributed_training(PoissonSampling(0.1), 1.2, 100, smallest_sum=smallest, colluding=colluding)


@pytest.mark.parametrize(
    "values",
    [
        ("", EVENT, 1),
        ("x" * 65, EVENT, 1),
        ("a", EVENT, 0),
        ("a", EVENT, 1.0),
        ("a", {"type": "Laplace"}, 1),
        ("a", EVENT, 1, SHARED),  # against how many?
        ("a", EVENT, 1, None, 2),
        ("a", EVENT, 1, None, 0, 5),  # parts of noise that is not shared
        ("a", EVENT, 1, SHARED, 2, 2),  # all of them may collude
        ("a", EVENT, 1, SHARED, -1),
        ("a", SHARED, 1, EVENT, 1),  # less noise with help than without
        ("a", EVENT, 1, poisson_gaussian(0.01, 2.0), 1),  # another rate is another mechanism
    ],
)
def test_charges_without_a_meaning_cannot_be_made(values):
    with pytest.raises(PrivacyParameterError):
        Charge(*values)


def test_an_agreement_under_local_noise():
    terms = terms_of().terms
    (charge,) = charges_of(terms, 1.5)
    assert charge == Charge("training", poisson_gaussian(0.5, 1.5), 8)
    assert charges_of(terms, 1.5, rounds=3, retries=2)[0].count == 10  # two steps a round


def test_an_agreement_under_distributed_noise():
    terms = terms_of(privacy={"mechanism": "distributed", "colluding": 1}, training={"rounds": 8}).terms
    (charge,) = charges_of(terms, 1.5)
    # 3 members, t = 3: two shares against one that colludes
    assert rate_and_multiplier(charge.event)[1] == pytest.approx(1.5 / math.sqrt(2))
    assert charge.shared == poisson_gaussian(0.5, 1.5)
    assert charge.coalition == 1


def test_an_agreement_without_privacy_has_no_price():
    terms = terms_of(privacy={"mechanism": "none", "epsilon": None, "delta": None}).terms
    with pytest.raises(PrivacyParameterError, match="no price"):
        charges_of(terms, 1.0)


def test_more_noise_keeps_everything_else():
    charge = Charge("training", EVENT, 10, SHARED, 2).with_more_noise(1.5)
    assert charge == Charge("training", poisson_gaussian(0.1, 1.5), 10, poisson_gaussian(0.1, 3.0), 2)
    assert with_more_noise(gaussian(2.0), 2.0) == gaussian(4.0)
    assert with_more_noise({"type": "NonPrivate"}, 2.0) == {"type": "NonPrivate"}
