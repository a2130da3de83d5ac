"""The grid: what rounding costs, and what a step on it is charged as."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.errors import PrivacyParameterError
from hansa.privacy.grid import Grid

norms = st.floats(1e-3, 1e3)
dimensions = st.integers(1, 10**8)


@given(norms, dimensions)
def test_rounding_costs_little_and_is_counted(norm: float, dimension: int) -> None:
    grid = Grid.of(norm, dimension)
    share = math.sqrt(dimension) / (grid.scale * norm)
    assert 0 < share <= 1e-3 + 1e-12
    assert grid.sensitivity == pytest.approx(grid.scale * norm * (1 + share))


@given(norms, dimensions, st.floats(0.3, 200))
def test_the_charge_is_what_was_calibrated(norm: float, dimension: int, multiplier: float) -> None:
    grid = Grid.of(norm, dimension)
    sigma = grid.sigma(multiplier)
    assert sigma >= 20
    assert grid.noise_multiplier(sigma) == pytest.approx(multiplier, rel=1e-9)
    assert sigma / grid.sensitivity >= multiplier  # the discrete Gaussian is charged as less noise than it is


@given(norms, st.integers(1, 40), st.integers(0, 2**32))
def test_a_rounded_difference_stays_within_the_sensitivity(norm: float, dimension: int, seed: int) -> None:
    grid = Grid.of(norm, dimension)
    rng = np.random.default_rng(seed)
    rest = rng.normal(0, 10 * norm, dimension)
    unit = rng.normal(0, 1, dimension)
    unit *= norm / np.linalg.norm(unit)
    with_unit, without = np.rint((rest + unit) * grid.scale), np.rint(rest * grid.scale)
    assert np.linalg.norm(with_unit - without) <= grid.sensitivity


@pytest.mark.parametrize(("norm", "dimension"), [(0.0, 1), (-1.0, 1), (math.nan, 1), (math.inf, 1), (1.0, 0)])
def test_grids_without_a_meaning_are_refused(norm: float, dimension: int) -> None:
    with pytest.raises(PrivacyParameterError):
        Grid.of(norm, dimension)


def test_noise_too_small_for_the_charge_is_refused() -> None:
    grid = Grid(clipping_norm=1.0, dimension=1, scale=10.0)
    with pytest.raises(PrivacyParameterError, match="grid units"):
        grid.sigma(1.0)
    with pytest.raises(PrivacyParameterError, match="grid units"):
        grid.noise_multiplier(19.0)


def test_the_discrete_gaussian_is_a_randomly_rounded_normal() -> None:
    """The event rule: N(0, σ² − 4), rounded at random with a discrete Gaussian of parameter 2, is the discrete
    Gaussian of parameter σ, to less than float64 can show."""
    sigma, r = 20.0, 2.0
    k = np.arange(-400, 401)
    direct = np.exp(-(k**2) / (2 * sigma**2))
    direct /= direct.sum()
    spread = math.sqrt(sigma**2 - r**2)
    x = np.linspace(-400, 400, 160_001)  # fine enough that the sum is the integral, to float64
    density = np.exp(-(x**2) / (2 * spread**2))
    mixed = np.zeros(len(k))
    offsets = np.arange(-40, 41)
    for start in range(0, len(x), 20_000):
        part = x[start : start + 20_000]
        near = np.rint(part)[:, None] + offsets[None, :]
        weight = np.exp(-((near - part[:, None]) ** 2) / (2 * r**2))
        weight *= (density[start : start + 20_000] / weight.sum(1))[:, None]
        inside = np.abs(near) <= 400
        np.add.at(mixed, (near[inside] + 400).astype(int), weight[inside])
    mixed /= mixed.sum()
    middle = np.abs(k) < 150  # beyond, the probabilities are below 1e-12 and float64's own errors show
    assert np.allclose(mixed[middle], direct[middle], rtol=1e-9, atol=0)
