"""The discrete Gaussian: its moments, its tails, its exact shape, and where its bits come from."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from randomgen import AESCounter
from scipy import stats

from hansa.errors import PrivacyParameterError
from hansa.privacy.noise import discrete_gaussian
from hansa.privacy.randomness import PublicSampling, SecretRandomness

DRAWS = 200_000


def generator(key: int) -> np.random.Generator:
    return np.random.Generator(AESCounter(key=key))


def probabilities(sigma: float) -> tuple[np.ndarray, np.ndarray]:
    support = np.arange(-math.ceil(12 * sigma), math.ceil(12 * sigma) + 1)
    weights = np.exp(-(support.astype(np.float64) ** 2) / (2 * sigma * sigma))
    return support, weights / weights.sum()


@pytest.mark.parametrize("sigma", [20.0, 20.5, 64.0, 4096.0, 1e6])
def test_moments_are_those_of_the_discrete_gaussian(sigma: float) -> None:
    draws = discrete_gaussian(generator(1), sigma, DRAWS).astype(np.float64)
    assert abs(draws.mean()) < 5 * sigma / math.sqrt(DRAWS)
    assert abs(draws.var() / sigma**2 - 1) < 5 * math.sqrt(2 / DRAWS)
    assert abs(stats.kurtosis(draws)) < 5 * math.sqrt(24 / DRAWS)
    assert abs(stats.skew(draws)) < 5 * math.sqrt(6 / DRAWS)


@pytest.mark.parametrize("sigma", [20.0, 33.3])
def test_every_integer_has_its_probability(sigma: float) -> None:
    support, expected = probabilities(sigma)
    draws = discrete_gaussian(generator(2), sigma, DRAWS)
    counted = np.bincount(draws - support[0], minlength=len(support))
    often = expected * DRAWS >= 20
    observed = np.append(counted[often], counted[~often].sum())
    wanted = np.append(expected[often], expected[~often].sum()) * DRAWS
    assert stats.chisquare(observed, wanted).pvalue > 1e-4


def test_a_rounded_normal_would_be_told_apart() -> None:
    """The test above can fail: at sigma 1 the two distributions differ visibly, and so does their chi-square."""
    sigma = 1.0
    support, expected = probabilities(sigma)
    draws = np.rint(generator(3).standard_normal(DRAWS) * sigma).astype(np.int64)
    counted = np.bincount(draws - support[0], minlength=len(support))
    often = expected * DRAWS >= 20
    observed = np.append(counted[often], counted[~often].sum())
    wanted = np.append(expected[often], expected[~often].sum()) * DRAWS
    assert stats.chisquare(observed, wanted).pvalue < 1e-10


def test_tails_are_neither_cut_nor_fat() -> None:
    draws = np.abs(discrete_gaussian(generator(4), 1000.0, 1_000_000))
    for deviations in (2, 3, 4):
        expected = 2 * stats.norm.sf((deviations * 1000.0 + 0.5) / 1000.0) * 1_000_000
        found = int((draws > deviations * 1000).sum())
        assert abs(found - expected) < 5 * math.sqrt(expected)


def test_a_large_sigma_is_normal_by_kolmogorov_smirnov() -> None:
    draws = discrete_gaussian(generator(5), 1e6, 50_000) / 1e6
    assert stats.kstest(draws, "norm").pvalue > 1e-4


@pytest.mark.parametrize("size", [0, 1, 7, 1 << 15, (1 << 15) + 1])
def test_the_size_is_what_was_asked_for(size: int) -> None:
    draws = discrete_gaussian(generator(6), 25.0, size)
    assert draws.shape == (size,)
    assert draws.dtype == np.int64


@pytest.mark.parametrize("sigma", [0.0, -1.0, 19.99, math.nan, math.inf, 2.0**41])
def test_parameters_without_a_guarantee_are_refused(sigma: float) -> None:
    with pytest.raises(PrivacyParameterError, match="outside"):
        discrete_gaussian(generator(7), sigma, 1)


def test_the_stream_is_aes_in_counter_mode() -> None:
    key = 0x000102030405060708090A0B0C0D0E0F
    encryptor = Cipher(algorithms.AES(key.to_bytes(16, "little")), modes.ECB()).encryptor()  # noqa: S305  # blocks of a counter
    blocks = b"".join(encryptor.update(block.to_bytes(16, "little")) for block in range(64))
    assert np.array_equal(AESCounter(key=key).random_raw(128), np.frombuffer(blocks, dtype="<u8"))


def test_no_two_secret_streams_share_a_key() -> None:
    draws = [tuple(SecretRandomness().noise(1e6, 8)) for _ in range(50)]
    assert len(set(draws)) == 50


def test_secret_streams_are_uncorrelated() -> None:
    a, b = SecretRandomness().noise(1e4, 100_000), SecretRandomness().noise(1e4, 100_000)
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(100_000)


def test_secret_keys_are_fresh_and_long() -> None:
    secret = SecretRandomness()
    keys = {secret.key() for _ in range(50)} | {SecretRandomness().key() for _ in range(50)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {32}


def test_public_keys_repeat_and_depend_on_every_name() -> None:
    first = PublicSampling(1, "a", 2).key()
    assert first == PublicSampling(1, "a", 2).key()
    assert len(first) == 32
    names = [(2, "a", 2), (1, "b", 2), (1, "a", 3), ("1a", 2)]
    assert first not in {PublicSampling(*name).key() for name in names}


def test_public_streams_refuse_to_make_noise() -> None:
    with pytest.raises(PrivacyParameterError, match="public stream"):
        PublicSampling(1).noise(100.0, 3)
