"""Samples that are cut: the event against the mechanism itself, computed without any of its code."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hansa.errors import PrivacyParameterError
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.calibration import calibrated_noise_multiplier
from hansa.privacy.composition import rule_for
from hansa.privacy.crosscheck import checked_epsilon
from hansa.privacy.events import (
    MOST_UNITS,
    Spend,
    Truncation,
    event_from_json,
    event_to_json,
    gaussian,
    numbers_of,
    poisson_gaussian,
    rate_and_multiplier,
    truncated_poisson_gaussian,
    with_more_noise,
    with_noise,
)
from hansa.privacy.loss import PrivacyLoss
from hansa.privacy.renyi import renyi_loss
from hansa.privacy.sampling import TruncatedSampling
from hansa.privacy.truncation import LONGEST_STEP, cut_share
from hansa_client.accounting import member_checks

DELTA = 1e-6
rates = st.floats(-4, -0.01).map(lambda x: 10**x)


# --- how often a sample is cut ---------------------------------------------------------------------------


@given(rate=rates, units=st.integers(1, 5000), batch=st.integers(1, 5000))
def test_the_share_of_cut_samples_is_the_binomial_tail_and_never_less(rate, units, batch):
    share = cut_share(Truncation(units, batch), rate)
    exact = float(stats.binom.sf(batch - 1, units - 1, rate))
    own = 1e-9 if exact > 1e-200 else 1e-4  # what scipy's tails err by
    assert exact * (1 - own) - 1e-300 <= share <= min(1.0, exact * 1.0001 + 2e-5 * (exact > 0.4))


@pytest.mark.parametrize(("units", "batch", "rate"), [(523, 507, 10**-0.625), (60, 40, 0.1), (12, 5, 0.5)])
def test_the_share_is_never_less_than_the_sum_in_fractions(units, batch, rate):
    others, q = units - 1, Fraction(rate)
    exact = sum(math.comb(others, k) * q**k * (1 - q) ** (others - k) for k in range(batch, units))
    assert exact <= Fraction(cut_share(Truncation(units, batch), rate)) <= exact * Fraction("1.00002")


@pytest.mark.parametrize("batch", [10**6, 2**30 + 10**6, 2**30 - 10**6])
def test_the_share_at_the_most_units_that_there_may_be(batch):
    share = cut_share(Truncation(MOST_UNITS, batch), 0.5)
    exact = float(stats.binom.sf(batch - 1, MOST_UNITS - 1, 0.5))
    assert exact <= share <= exact * (1 + 1e-4)


@given(rate=rates, units=st.integers(2, 3000), batch=st.integers(1, 3000))
def test_more_units_are_cut_more_often(rate, units, batch):
    fewer, more = cut_share(Truncation(units - 1, batch), rate), cut_share(Truncation(units, batch), rate)
    assert fewer <= more * (1 + 3e-5)


# --- the event --------------------------------------------------------------------------------------------

EVENT = truncated_poisson_gaussian(0.05, 1.5, Truncation(1000, 70))


def test_an_event_says_its_caps():
    numbers = numbers_of(EVENT)
    assert (numbers.rate, numbers.multiplier, numbers.truncation) == (0.05, 1.5, Truncation(1000, 70))
    assert rate_and_multiplier(EVENT) == (0.05, 1.5)
    assert with_noise(EVENT, 3.0) == truncated_poisson_gaussian(0.05, 3.0, Truncation(1000, 70))
    assert with_more_noise(EVENT, 2.0) == with_noise(EVENT, 3.0)
    with pytest.raises(PrivacyParameterError, match="no noise"):
        with_noise({"type": "NonPrivate"}, 1.0)


def test_an_event_is_the_event_of_dp_accounting_and_back():
    import dp_accounting as dp

    theirs = dp.TruncatedSubsampledGaussianDpEvent(1000, 0.05, 70, 1.5)
    assert event_from_json(EVENT) == theirs
    assert event_to_json(theirs) == EVENT


@pytest.mark.parametrize(
    "change",
    [
        {"most_units": 0},
        {"most_units": -1},
        {"most_units": True},
        {"most_units": 1000.0},
        {"most_units": MOST_UNITS + 1},
        {"largest_batch": 0},
        {"largest_batch": "70"},
        {"largest_batch": None},
        {"sampling_probability": 1.0},
        {"sampling_probability": 0.0},
        {"sampling_probability": math.nan},
        {"event": {"type": "NonPrivate"}},
        {"event": {**gaussian(1.0), "more": 1}},
        {"type": "TruncatedPoisson"},
        {"more": 1},
    ],
)
def test_an_event_with_anything_else_is_refused_by_every_accountant(change):
    event = {**EVENT, **change}
    with pytest.raises(PrivacyParameterError):
        epsilon_spent([Spend(event, 1)], DELTA)
    with pytest.raises(PrivacyParameterError):
        renyi_loss([Spend(event, 1)], 4)
    with pytest.raises(PrivacyParameterError):
        checked_epsilon([Spend(event, 1)], DELTA, member_checks())


def test_a_rate_of_one_has_no_such_event():
    with pytest.raises(PrivacyParameterError, match="below 1"):
        truncated_poisson_gaussian(1.0, 1.0, Truncation(10, 5))


# --- the divergence of the mechanism itself ---------------------------------------------------------------


def densities(values, rate, batch, sigma, grid):
    """The output's density by enumerating every sample and every choice of who stays: exact, for few units."""
    density = np.zeros_like(grid)
    for chosen in itertools.product((False, True), repeat=len(values)):
        sample = [value for value, here in zip(values, chosen, strict=True) if here]
        likely = rate ** len(sample) * (1 - rate) ** (len(values) - len(sample))
        stays = list(itertools.combinations(sample, min(batch, len(sample))))
        for kept in stays:
            density += likely / len(stays) * stats.norm.pdf(grid, sum(kept), sigma)
    return density


def divergence(p, q, epsilon, grid):
    """Hockey-stick divergence at e^ε."""
    return float(np.maximum(p - math.exp(epsilon) * q, 0).sum() * (grid[1] - grid[0]))


NEIGHBOURS = [
    # the others, and who is added; one contribution has norm at most 1
    ((-1.0, -1.0), 1.0),
    ((-1.0, -1.0, -1.0), 1.0),
    ((1.0, -1.0, 0.5), 1.0),
    ((-1.0, -1.0, -1.0, -1.0), 1.0),
    ((0.0, 0.0, 0.0), -1.0),
]


@pytest.mark.parametrize(("others", "added"), NEIGHBOURS[1:3])
@pytest.mark.parametrize(("rate", "batch", "sigma"), [(0.5, 1, 1.0), (0.3, 2, 1.5)])
def test_the_event_is_never_below_the_mechanism(others, added, rate, batch, sigma):
    """Both directions, at the exact number of units and with room for more."""
    from hansa.privacy.accountant import _once

    grid = np.linspace(-14, 14, 4001)
    without = densities(others, rate, batch, sigma, grid)
    with_unit = densities((*others, added), rate, batch, sigma, grid)
    assert abs(with_unit.sum() * (grid[1] - grid[0]) - 1) < 1e-6
    for room in (0, 1):
        cut = Truncation(len(others) + 1 + room, batch)
        event = truncated_poisson_gaussian(rate, sigma, cut)
        (counted,) = _counted(event)
        distribution = _once(counted, 1e-4)
        for epsilon in (0.0, 0.1, 0.5, 1.0, 2.0, 3.0):
            exact = max(
                divergence(with_unit, without, epsilon, grid), divergence(without, with_unit, epsilon, grid)
            )
            assert distribution.get_delta_for_epsilon(epsilon) >= exact - 1e-9


def test_a_cut_sample_that_is_charged_as_poisson_would_be_below_the_mechanism():
    """Why there is an event of its own: one unit in and another out is a step of twice the length."""
    from hansa.privacy.accountant import _once

    grid = np.linspace(-14, 14, 4001)
    others, rate, batch, sigma = (-1.0, -1.0, -1.0), 0.7, 1, 1.0
    without = densities(others, rate, batch, sigma, grid)
    with_unit = densities((*others, 1.0), rate, batch, sigma, grid)
    (poisson,) = _counted(poisson_gaussian(rate, sigma))
    promised = _once(poisson, 1e-4).get_delta_for_epsilon(1.5)
    assert divergence(with_unit, without, 1.5, grid) > 1.05 * promised


def _counted(event):
    from hansa.privacy.events import counted

    return [name for name, _ in counted([Spend(event, 1)])]


@pytest.mark.parametrize(("others", "added"), NEIGHBOURS)
@pytest.mark.parametrize("order", [2, 3, 8, 16])
def test_the_renyi_loss_is_never_below_the_mechanism(others, added, order):
    grid, (rate, batch, sigma) = np.linspace(-25, 25, 20001), (0.4, 2, 1.2)
    without = densities(others, rate, batch, sigma, grid)
    with_unit = densities((*others, added), rate, batch, sigma, grid)
    width, floor = grid[1] - grid[0], 1e-250
    bound = renyi_loss(
        [Spend(truncated_poisson_gaussian(rate, sigma, Truncation(len(others) + 1, batch)), 1)], order
    )
    for p, q in ((with_unit, without), (without, with_unit)):
        held = (p > floor) & (q > floor)
        moment = float((p[held] * (p[held] / q[held]) ** (order - 1)).sum() * width)
        assert math.log(moment) / (order - 1) <= bound + 1e-9


# --- between its neighbours among events ------------------------------------------------------------------


@settings(max_examples=2)
@given(
    rate=st.floats(0.01, 0.5), multiplier=st.floats(0.8, 5), steps=st.integers(1, 30), spare=st.floats(0, 4)
)
def test_it_costs_between_poisson_and_steps_of_twice_the_length(rate, multiplier, steps, spare):
    units = 2000
    batch = max(1, math.ceil(units * rate + spare * math.sqrt(units * rate)))
    cut = truncated_poisson_gaussian(rate, multiplier, Truncation(units, batch))
    below, ours, above = (
        epsilon_spent([Spend(event, steps)], DELTA)
        for event in (
            poisson_gaussian(rate, multiplier),
            cut,
            poisson_gaussian(rate, multiplier / LONGEST_STEP),
        )
    )
    assert below * (1 - 1e-6) <= ours <= above * (1 + 1e-6)
    assert renyi_loss([Spend(cut, 1)], 8) >= renyi_loss([Spend(poisson_gaussian(rate, multiplier), 1)], 8)


@given(rate=st.floats(0.01, 0.4), multiplier=st.floats(0.7, 5), order=st.sampled_from([2, 5, 32, 256]))
def test_fewer_units_and_larger_batches_cost_less(rate, multiplier, order):
    def loss(units, batch):
        return renyi_loss(
            [Spend(truncated_poisson_gaussian(rate, multiplier, Truncation(units, batch)), 1)], order
        )

    batch = math.ceil(1000 * rate) + 5
    assert loss(800, batch) <= loss(1000, batch) * (1 + 1e-9)
    assert loss(1000, batch + 20) <= loss(1000, batch) * (1 + 1e-9)


def test_a_sample_that_is_never_cut_costs_what_poisson_does():
    event = truncated_poisson_gaussian(0.1, 1.0, Truncation(50, 50))
    assert epsilon_spent([Spend(event, 10)], DELTA) == epsilon_spent(
        [Spend(poisson_gaussian(0.1, 1.0), 10)], DELTA
    )


def test_some_standard_deviations_of_room_cost_next_to_nothing():
    """q = 0.05 of 10,000 units, σ = 1, 1,000 steps: a largest batch of 500 + 6 √475 is Poisson to 1 %."""

    def epsilon_of(event):
        return epsilon_spent([Spend(event, 1000)], DELTA, interval=1e-3)

    poisson = epsilon_of(poisson_gaussian(0.05, 1.0))
    assert (
        poisson
        <= epsilon_of(truncated_poisson_gaussian(0.05, 1.0, Truncation(10_000, 631)))
        <= 1.01 * poisson
    )
    assert epsilon_of(truncated_poisson_gaussian(0.05, 1.0, Truncation(10_000, 545))) > 1.01 * poisson


def test_dp_accounting_computes_one_size_and_ours_holds_for_all_smaller_ones():
    """Where few samples are cut the two agree; dp_accounting takes replacement for the cut part, which is looser."""
    import dp_accounting as dp
    from dp_accounting.pld import PLDAccountant

    event = truncated_poisson_gaussian(0.05, 1.5, Truncation(1000, 75))  # 3.6 standard deviations
    accountant = PLDAccountant(dp.NeighboringRelation.ADD_OR_REMOVE_ONE, 1e-3)
    accountant.compose(event_from_json(event), 200)
    ours = epsilon_spent([Spend(event, 200)], DELTA, interval=1e-3)
    assert ours == pytest.approx(accountant.get_epsilon(DELTA), rel=5e-3)
    vector = PLDAccountant(dp.NeighboringRelation.ADD_OR_REMOVE_ONE, 1e-3)
    vector.compose(dp.TruncatedSubsampledGaussianDpEvent(4, 0.5, 2, 1.0), 3)
    vector.compose(dp.TruncatedSubsampledGaussianDpEvent(3, 0.5, 2, 1.0), 2)
    assert vector.get_epsilon(1e-6) == pytest.approx(17.904330, abs=1e-5)  # their own vector


# --- what uses it -----------------------------------------------------------------------------------------


def test_prv_does_not_check_what_it_does_not_know():
    found = checked_epsilon([Spend(EVENT, 100)], DELTA, member_checks())
    assert {finding.accountant: str(finding.verdict) for finding in found.findings} == {
        "rdp": "agrees",
        "sum-attack": "agrees",
        "prv": "not checked",
    }
    assert "no samples that are cut" in found.not_checked[0].reason


def test_noise_is_calibrated_to_the_cut():
    sampling = TruncatedSampling(0.1, Truncation(500, 60))
    multiplier = calibrated_noise_multiplier(3.0, 1e-5, sampling, 200)
    assert 3.0 * 0.995 <= epsilon_spent([Spend(sampling.event(multiplier), 200)], 1e-5) <= 3.0
    assert epsilon_spent([Spend(poisson_gaussian(0.1, multiplier), 200)], 1e-5) < 3.0 * 0.99


def test_every_rule_of_a_grant_composes_it():
    limit = PrivacyLoss(8.0, 1e-5)
    blocks = rule_for(limit, 4)
    from hansa.privacy.composition import Block

    spends = (Spend(EVENT, 100), Spend(gaussian(20.0), 2))
    one = blocks.epsilon([Block(spends, spends)], limit.delta)
    two = blocks.epsilon([Block(spends, spends)] * 2, limit.delta)
    assert 0 < one < two < math.inf
