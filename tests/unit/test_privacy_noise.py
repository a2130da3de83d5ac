"""The discrete Gaussian: its statistics, those of broken samplers, its range, and what it may add to δ."""

from __future__ import annotations

import hashlib
import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.noise import CHECKS, SUSPICIOUS, pmf, suspicious

from hansa.errors import PrivacyParameterError
from hansa.privacy.noise import (
    LARGEST_SIGMA,
    SMALLEST_SIGMA,
    delta_of_draws,
    discrete_gaussian,
    statistical_distance,
)
from hansa.privacy.streams import AesStream

DRAWS = 1 << 19
SIGMAS = [20.0, 20.5, 33.3, 63.99, 64.0, 1000.0, 4096.0, 1e6, 2.0**30, LARGEST_SIGMA]


def stream(key: int) -> AesStream:
    """Of a fixed public key: the same draws on every machine."""
    return AesStream(key.to_bytes(32, "little"))


def draws(key: int, sigma: float, size: int = DRAWS) -> np.ndarray:
    return discrete_gaussian(stream(key), sigma, size)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_draws_pass_every_statistical_test(sigma: float) -> None:
    assert len(CHECKS) == 10
    assert suspicious(draws(1, sigma), sigma) == {}


def wider(sigma: float) -> np.ndarray:
    return draws(2, 1.05 * sigma)


def narrower(sigma: float) -> np.ndarray:
    return draws(3, max(0.95 * sigma, SMALLEST_SIGMA)) if sigma > 21 else scaled(0.95)(sigma)


def scaled(factor: float):
    return lambda sigma: np.rint(draws(4, 1e6) * (factor * sigma / 1e6)).astype(np.int64)


def repeated_block(sigma: float) -> np.ndarray:
    """8192 of half a million draws are those of an earlier place."""
    made = draws(5, sigma)
    made[200_000 : 200_000 + 8192] = made[10_000 : 10_000 + 8192]
    return made


def repeated_with_the_other_sign(sigma: float) -> np.ndarray:
    made = draws(6, sigma)
    made[200_000 : 200_000 + 8192] = -made[:8192] * np.where(np.arange(8192) % 2, 1, -1)
    return made


def rounded_down(sigma: float) -> np.ndarray:
    normal = np.random.Generator(np.random.PCG64(7)).standard_normal(DRAWS)
    return np.floor(normal * sigma).astype(np.int64)


def cut_at_four(sigma: float) -> np.ndarray:
    made = draws(8, sigma)
    return np.where(np.abs(made) > 4 * sigma, made[::-1], made)


def even(sigma: float) -> np.ndarray:
    return 2 * (draws(9, sigma) // 2)


def laplace(sigma: float) -> np.ndarray:
    made = np.random.Generator(np.random.PCG64(10)).laplace(0, sigma / math.sqrt(2), DRAWS)
    return np.rint(made).astype(np.int64)


def zero_twice(sigma: float) -> np.ndarray:
    """A sign and a magnitude of their own, 0 under both signs."""
    made = np.abs(draws(11, sigma))
    again = np.abs(draws(12, sigma, int((made > 0).sum())))
    made[made > 0] = again  # zeros keep their place, others are drawn once more
    return made * np.where(np.arange(DRAWS) % 2, 1, -1)


@pytest.mark.parametrize(
    ("broken", "caught_by"),
    [
        (wider, {"variance", "cells", "kolmogorov-smirnov", "tails"}),
        (narrower, {"variance", "cells", "kolmogorov-smirnov", "tails"}),
        (scaled(1.01), {"variance"}),
        (repeated_block, {"correlation"}),
        (repeated_with_the_other_sign, {"magnitudes"}),
        (rounded_down, {"mean", "cells"}),
        (cut_at_four, {"tails"}),
        (even, {"low bits"}),
        (laplace, {"kurtosis", "cells", "tails"}),
        (zero_twice, {"cells"}),
    ],
)
def test_a_broken_sampler_is_caught(broken, caught_by: set[str]) -> None:
    sigma = 20.0
    assert caught_by <= suspicious(broken(sigma), sigma).keys()


@pytest.mark.parametrize("sigma", [1000.0, 1e6])
@pytest.mark.parametrize("broken", [wider, narrower, repeated_block, cut_at_four, even])
def test_a_broken_sampler_is_caught_at_every_width(broken, sigma: float) -> None:
    assert suspicious(broken(sigma), sigma)


def test_a_block_that_is_drawn_again_is_caught() -> None:
    """As a stream that starts anew would: the second half of the draws is the first."""
    half = draws(13, 1e4, DRAWS // 4)
    whole = np.concatenate([half, half, draws(14, 1e4, DRAWS // 2)])
    assert "correlation" in suspicious(whole, 1e4)


def test_a_correct_sampler_is_not_accused_by_chance() -> None:
    """Over 60 keys no p-value is below the threshold, and their spread is that of p-values."""
    values = [check(draws(100 + key, 50.0, 1 << 15), 50.0) for key in range(60) for check in CHECKS.values()]
    assert min(values) > SUSPICIOUS
    assert 0.02 < np.mean(np.array(values) < 0.05) < 0.08


@pytest.mark.parametrize(
    ("sigma", "first", "digest"),
    [
        (
            20.0,
            [19, 0, 27, -14, 13, 5, -18, -8],
            "751fbd63c1e84b52ac4df6c924b1cecd763000a8c7b00e9fe10908a915216af7",
        ),
        (
            1000.0,
            [1058, 73, 1568, -666, 766, 328, -862, -384],
            "0782652007a475ae8e843107d4400d22142741a2c78d02f63d0e22aa70f0d178",
        ),
        (
            2.0**30,
            [1107333362, 43709353, 1618370032, -711199066, 783662094, 363440136, -917093422, -374104448],
            "970f0b0c6b20ab8646b4376f9d30088e7c7cf34620f77436889231eed8e5bdf3",
        ),
    ],
)
def test_draws_of_a_fixed_key_are_these(sigma: float, first: list[int], digest: str) -> None:
    made = discrete_gaussian(AesStream(bytes(range(32))), sigma, 200_000)
    assert made[:8].tolist() == first
    assert hashlib.sha256(made.astype("<i8").tobytes()).hexdigest() == digest


@pytest.mark.parametrize("size", [0, 1, 7, 1 << 16, (1 << 16) + 1])
def test_the_size_is_what_was_asked_for(size: int) -> None:
    made = draws(6, 25.0, size)
    assert made.shape == (size,)
    assert made.dtype == np.int64
    assert made.flags.owndata


@given(st.floats(SMALLEST_SIGMA, LARGEST_SIGMA), st.integers(0, 3000), st.integers(0, 2**32), st.booleans())
@settings(max_examples=60, deadline=None)
def test_draws_repeat_with_the_key_alone(sigma: float, size: int, key: int, same: bool) -> None:
    first = draws(key, sigma, size)
    second = draws(key if same else key + 1, sigma, size)
    assert np.abs(first).max(initial=0) < 20.1 * sigma + 64
    assert np.array_equal(first, second) == (same or size == 0) or size < 8


@given(st.floats(5, 40).map(lambda bits: 2.0**bits))
@settings(max_examples=40, deadline=None)
def test_the_spread_is_sigma_at_any_sigma(sigma: float) -> None:
    made = draws(15, sigma, 40_000)
    assert np.mean((made / sigma) ** 2) == pytest.approx(1, abs=6 * math.sqrt(2 / 40_000))
    assert abs(np.mean(made / sigma)) < 6 / math.sqrt(40_000)


@pytest.mark.parametrize("sigma", [0.0, -1.0, 19.99, math.nan, math.inf, 2.0**41])
def test_parameters_without_a_guarantee_are_refused(sigma: float) -> None:
    with pytest.raises(PrivacyParameterError, match="outside"):
        discrete_gaussian(stream(7), sigma, 1)
    with pytest.raises(PrivacyParameterError, match="outside"):
        statistical_distance(sigma, 1)


def test_what_is_cut_off_is_in_the_distance() -> None:
    """The tail beyond 20σ, summed: no more than the bound that is charged."""
    weights = [(-Decimal(k * k) / 800).exp() for k in range(2000)]
    beyond = 2 * sum(weights[400:]) / (2 * sum(weights) - 1)
    assert 0 < float(beyond) <= statistical_distance(20.0, 1) < 2.8e-87
    assert statistical_distance(1e6, 10**100) == 1.0
    assert statistical_distance(1e6, 0) == 0.0


def test_the_distance_is_nothing_beside_any_delta() -> None:
    for epsilon in (0.0, 1.0, 10.0, 50.0):
        for sigma in (SMALLEST_SIGMA, 1e3, LARGEST_SIGMA):
            assert delta_of_draws(epsilon, sigma, 2**63) <= 1e-10 * 1e-30
    assert delta_of_draws(1e4, 20.0, 1) == 1.0  # a bound that says nothing, and no overflow


def test_the_exact_probabilities_of_the_tests_are_those_of_the_definition() -> None:
    support, probabilities = pmf(20.0)
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities[support == 1] / probabilities[support == 0] == pytest.approx(math.exp(-1 / 800))
