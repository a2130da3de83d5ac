"""Rényi losses against dp_accounting, against closed forms, and where float64 gives out."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.errors import PrivacyParameterError
from hansa.privacy.events import Spend, gaussian, poisson_gaussian
from hansa.privacy.renyi import ORDERS, best_order, conversion_cost, epsilon_of_renyi, renyi_loss


def theirs(rate: float, multiplier: float, steps: int, order: int, delta: float) -> float:
    """ε at one order by dp_accounting."""
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant([order])
    event = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(multiplier))
    accountant.compose(event, steps)
    return float(accountant.get_epsilon(delta))


@given(
    rate=st.floats(-3, -0.01).map(lambda x: 10**x),
    multiplier=st.floats(0.5, 20),
    steps=st.integers(1, 10_000),
    order=st.sampled_from([2, 3, 5, 16, 64, 256]),
)
def test_a_loss_is_that_of_dp_accounting(rate, multiplier, steps, order):
    delta = 1e-6
    ours = epsilon_of_renyi(
        renyi_loss([Spend(poisson_gaussian(rate, multiplier), steps)], order), order, delta
    )
    other = theirs(rate, multiplier, steps, order, delta)
    if other > 0:  # theirs also knows a bound that answers 0 for tiny losses
        assert ours == pytest.approx(other, rel=1e-6, abs=1e-7 * steps)


def test_published_losses():
    """dp_accounting's own test: q = 0.01, σ = 2.5, 50 steps."""
    spends = [Spend(poisson_gaussian(0.01, 2.5), 50)]
    assert renyi_loss(spends, 5) == pytest.approx(2.1808e-3, rel=1e-4)
    assert renyi_loss(spends, 50) == pytest.approx(2.3846e-2, rel=1e-4)
    assert renyi_loss(spends, 100) == pytest.approx(1.67416308e2, rel=1e-6)


@given(multiplier=st.floats(0.01, 1e6), order=st.integers(2, 1024), count=st.integers(1, 10**6))
def test_unsampled_gaussians_are_in_closed_form(multiplier, order, count):
    expected = count * order / (2 * multiplier**2)
    assert renyi_loss([Spend(gaussian(multiplier), count)], order) == pytest.approx(expected)
    assert renyi_loss([Spend(poisson_gaussian(1.0, multiplier), count)], order) == pytest.approx(expected)


@given(
    rate=st.floats(1e-12, 1),
    multiplier=st.floats(1e-3, 1e9),
    order=st.integers(2, 512),
    step=st.integers(1, 64),
)
def test_losses_are_numbers_and_grow_with_the_order(rate, multiplier, order, step):
    spends = [Spend(poisson_gaussian(rate, multiplier), 1)]
    low, high = renyi_loss(spends, order), renyi_loss(spends, order + step)
    assert 0 <= low <= high * (1 + 1e-9)
    assert not math.isnan(high)
    # sampling never costs more than not sampling
    assert low <= order / (2 * multiplier**2) * (1 + 1e-9)


def test_losses_add_up_and_no_privacy_is_infinite():
    a, b = Spend(poisson_gaussian(0.1, 2.0), 30), Spend(gaussian(5.0), 4)
    assert renyi_loss([a, b], 8) == pytest.approx(renyi_loss([a], 8) + renyi_loss([b], 8))
    assert renyi_loss([a, Spend({"type": "NonPrivate"}, 1)], 8) == math.inf
    assert renyi_loss([], 8) == 0


@pytest.mark.parametrize("order", [1, 0, -2, 4097, 2.5, True, "3"])
def test_what_is_no_order_is_refused(order):
    for call in (lambda: renyi_loss([], order), lambda: epsilon_of_renyi(1.0, order, 1e-5)):
        with pytest.raises(PrivacyParameterError, match="order"):
            call()


@given(epsilon=st.floats(0.1, 20), delta=st.floats(-9, -2).map(lambda x: 10**x))
def test_the_best_order_holds_the_most_gaussian_releases(epsilon, delta):
    try:
        best = best_order(epsilon, delta)
    except PrivacyParameterError:
        assert all(conversion_cost(order, delta) >= epsilon for order in ORDERS)
        return
    capacity = {order: (epsilon - conversion_cost(order, delta)) * 2 / order for order in ORDERS}
    assert capacity[best] == max(capacity.values()) > 0
    # releases that use it up cost exactly the limit
    multiplier = 1 / math.sqrt(capacity[best])
    assert epsilon_of_renyi(renyi_loss([Spend(gaussian(multiplier), 1)], best), best, delta) == pytest.approx(
        epsilon
    )
