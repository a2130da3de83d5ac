"""The event rule: a discrete Gaussian of parameter σ is a continuous one of variance σ² − 4, rounded without the data.

docs/noise.md derives how far the two are apart; here both are computed with 110 digits.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.privacy.grid import ROUNDING_RATIO, Grid, epsilon_of_rounding

DIGITS = 110
PI = Decimal(
    "3.141592653589793238462643383279502884197169399375105820974944"
    "592307816406286208998628034825342117067982148086513"
)
_STEP = Decimal("0.25")  # of the sums that stand for integrals: right to exp(−2π²v / step²) < 1e-500, v ≈ r²


def gauss(distance: Decimal, variance: Decimal) -> Decimal:
    return (-distance * distance / (2 * variance)).exp()


@cache
def total(fraction: Decimal, variance: Decimal) -> Decimal:
    """S(x) = Σ over the integers of exp(−(j − x)² / 2·variance), which depends on x modulo 1 alone."""
    reach = int(variance.sqrt() * 24) + 2
    return sum((gauss(j - fraction, variance) for j in range(-reach, reach + 1)), Decimal(0))


def rounded(k: int, sigma: Decimal, r: Decimal) -> Decimal:
    """P(k) where x ~ N(0, σ² − r²) is rounded at random, to j with probability ∝ exp(−(j − x)² / 2r²)."""
    spread = sigma * sigma - r * r
    middle = (k * spread / (sigma * sigma) / _STEP).to_integral_value()
    points = int(r * 24 / _STEP)
    mass = Decimal(0)
    for index in range(-points, points + 1):
        x = (middle + index) * _STEP
        mass += gauss(x, spread) * gauss(k - x, r * r) / total(x % 1, r * r)
    return mass * _STEP / (2 * PI * spread).sqrt()


def discrete(k: int, sigma: Decimal) -> Decimal:
    """P(k) of the discrete Gaussian. Its sum over the integers is σ√2π up to exp(−2π²σ²), which is below 1e-3000."""
    return gauss(Decimal(k), sigma * sigma) / (sigma * (2 * PI).sqrt())


def apart(k: int, sigma: float, r: float = 2.0) -> Decimal:
    """By how much the two probabilities differ, relative."""
    with localcontext() as context:
        context.prec = DIGITS
        wide, narrow = Decimal(sigma), Decimal(r)
        return rounded(k, wide, narrow) / discrete(k, wide) - 1


def predicted(k: int, sigma: float, r: float) -> float:
    """The two leading terms of the derivation: 2a² − 2ab·cos 2πc."""
    v = r * r * (1 - r * r / (sigma * sigma))
    a, b = math.exp(-2 * math.pi**2 * r * r), math.exp(-2 * math.pi**2 * v)
    return 2 * a * a - 2 * a * b * math.cos(2 * math.pi * (k * (1 - r * r / (sigma * sigma)) % 1))


@pytest.mark.parametrize("sigma", [20.0, 20.5, 25.0, 64.0, 1000.0, 2.0**20])
def test_the_two_are_the_same_to_more_than_1e30(sigma: float) -> None:
    for deviations in (-7.5, -1, -0.01, 0, 0.33, 1, 3, 10, 19.9):
        difference = apart(round(deviations * sigma), sigma)
        assert abs(difference) < Decimal(ROUNDING_RATIO) < Decimal("1e-30")


@pytest.mark.parametrize("sigma", [20.0, 20.5, 33.3, 64.0])
def test_what_is_left_is_what_the_derivation_says(sigma: float) -> None:
    for k in (0, 1, 7, 20, 55):
        assert float(apart(k, sigma)) == pytest.approx(predicted(k, sigma, 2.0), rel=1e-6)


@given(st.floats(20, 300), st.floats(-6, 6))
@settings(max_examples=25, deadline=None)
def test_they_are_the_same_at_any_sigma(sigma: float, deviations: float) -> None:
    assert abs(apart(round(deviations * sigma), sigma)) < Decimal(ROUNDING_RATIO)


def test_a_smaller_difference_of_variances_would_not_do() -> None:
    """With σ² − 1/4 in place of σ² − 4 the same computation finds the two apart, by what the formula says."""
    difference = float(apart(5, 20.0, 0.5))
    assert difference == pytest.approx(predicted(5, 20.0, 0.5), rel=0.05)
    assert abs(difference) > 1e-7
    with localcontext() as context:
        context.prec = DIGITS
        wrong = rounded(10, Decimal(20), Decimal(2)) / discrete(10, (Decimal(400) + 4).sqrt()) - 1
    assert abs(wrong) > Decimal("1e-3")  # and a wrong variance shows


def test_the_bound_holds_in_its_worst_case() -> None:
    """|P'/P − 1| ≤ 2ab + 4.1a², largest at σ = 20."""
    a, b = math.exp(-8 * math.pi**2), math.exp(-8 * math.pi**2 * (1 - 4 / 400))
    assert 2 * a * b + 4.1 * a * a < ROUNDING_RATIO
    assert epsilon_of_rounding(2**63) < 1e-48
    assert epsilon_of_rounding(0) == 0.0


@given(st.floats(1e-3, 1e3), st.integers(1, 10**8), st.floats(0.3, 200))
def test_the_multiplier_is_that_of_the_continuous_gaussian(
    norm: float, dimension: int, multiplier: float
) -> None:
    grid = Grid.of(norm, dimension)
    sigma = grid.sigma(multiplier)
    assert (grid.noise_multiplier(sigma) * grid.sensitivity) ** 2 + 4 == pytest.approx(sigma**2, rel=1e-12)
    assert grid.noise_multiplier(sigma) <= sigma / grid.sensitivity
