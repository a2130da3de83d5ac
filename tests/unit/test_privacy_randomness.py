"""A member's randomness: one key for sampling, one for noise, and nothing shared between members, rounds and steps."""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from randomgen import AESCounter
from tests.support.noise import SUSPICIOUS, between

from hansa.errors import PrivacyParameterError
from hansa.privacy import streams
from hansa.privacy.noise import discrete_gaussian
from hansa.privacy.randomness import PublicSampling, SecretRandomness, _poisson_mask
from hansa.privacy.streams import AesStream

SIGMA = 100.0


@pytest.fixture
def public_keys(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Keys that are the same in every run of the tests, in the order in which they were asked for."""
    keys: list[bytes] = []

    def token_bytes(size: int) -> bytes:
        assert size == 32
        keys.append(hashlib.sha256(f"a public key of a test, {len(keys)}".encode()).digest())
        return keys[-1]

    monkeypatch.setattr(streams.secrets, "token_bytes", token_bytes)
    monkeypatch.setattr(streams.SecretStream, "_seen", {})
    return keys


def run_of(members: int, rounds: int, steps: int, size: int) -> np.ndarray:
    """Noise of every step of a federation; int64 [members × rounds × steps, size]."""
    rows = []
    for _member, _round in itertools.product(range(members), range(rounds)):
        secret = SecretRandomness()
        for _ in range(steps):
            secret.select(50, 0.5)
            rows.append(secret.noise(SIGMA, size))
    return np.array(rows)


def test_members_rounds_and_steps_are_independent(public_keys: list[bytes]) -> None:
    rows = run_of(6, 5, 4, 5000)
    assert rows.shape == (120, 5000)
    assert between(rows, SIGMA) > SUSPICIOUS
    assert between(rows[:, ::-1] * np.sign(rows), SIGMA) > SUSPICIOUS
    assert between(rows**2 - round(SIGMA**2), math.sqrt(2) * SIGMA**2) > SUSPICIOUS
    assert len(set(public_keys)) == len(public_keys) == 2 * 6 * 5
    assert len({row.tobytes() for row in rows}) == len(rows)


@pytest.mark.parametrize("shared", ["a member", "a round", "a step", "a part of a step"])
def test_shared_noise_would_be_caught(public_keys: list[bytes], shared: str) -> None:
    rows = run_of(3, 4, 4, 5000).reshape(3, 4, 4, 5000)
    if shared == "a member":  # the same seed at two hospitals
        rows[1] = rows[0]
    elif shared == "a round":  # a stream that starts anew in each round
        rows[2, 3] = rows[2, 0]
    elif shared == "a step":
        rows[1, 1, 3] = rows[1, 1, 2]
    else:
        rows[0, 1, 0, :800] = rows[2, 0, 3, :800]
    assert between(rows.reshape(-1, 5000), SIGMA) < SUSPICIOUS


def test_sampling_and_noise_have_keys_of_their_own(public_keys: list[bytes]) -> None:
    secret = SecretRandomness()
    drawn, noise = secret.select(4000, 0.5), secret.noise(SIGMA, 4000)
    assert len(public_keys) == 2
    words = np.empty(4000, dtype=np.uint64)
    AesStream(public_keys[0]).fill(words)
    assert np.array_equal(drawn, words < np.uint64(2**63))
    assert np.array_equal(noise, discrete_gaussian(AesStream(public_keys[1]), SIGMA, 4000))


@given(st.lists(st.one_of(st.integers(1, 90), st.none()), max_size=12))
@settings(deadline=None)
def test_how_much_is_read_of_one_changes_nothing_in_the_other(calls: list[int | None]) -> None:
    """Numbers are sizes of noise vectors, None is a selection, in any order."""
    with pytest.MonkeyPatch.context() as patch:
        keys = [bytes([number]) * 32 for number in (1, 2)]
        patch.setattr(streams.secrets, "token_bytes", lambda _size: keys.pop(0))
        patch.setattr(streams.SecretStream, "_seen", {})
        secret = SecretRandomness()
    selected = [secret.select(70, 0.3) if size is None else secret.noise(SIGMA, size) for size in calls]
    sampling, noise = AesStream(bytes([1]) * 32), AesStream(bytes([2]) * 32)
    for size, found in zip(calls, selected, strict=True):
        if size is None:
            words = np.empty(70, dtype=np.uint64)
            sampling.fill(words)
            assert np.array_equal(found, _poisson_mask(words, 0.3))
        else:
            assert np.array_equal(found, discrete_gaussian(noise, SIGMA, size))


def test_no_two_secret_streams_share_a_key() -> None:
    draws = [tuple(SecretRandomness().noise(1e6, 8)) for _ in range(50)]
    assert len(set(draws)) == 50


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickle.dumps])
def test_secret_randomness_is_neither_copied_nor_stored(again) -> None:
    secret = SecretRandomness()
    if again is copy.copy:  # shares both streams, each word of which goes to one of the two
        twin = copy.copy(secret)
        assert not set(twin.noise(1e9, 500)) & set(secret.noise(1e9, 500))
    else:
        with pytest.raises(TypeError, match="copied"):
            again(secret)


def test_a_forked_process_makes_other_noise() -> None:
    secret = SecretRandomness()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        try:
            os.write(writer, secret.noise(1e9, 64).tobytes())
        finally:
            os._exit(0)
    os.close(writer)
    theirs = os.read(reader, 512)
    os.close(reader)
    assert os.waitpid(child, 0)[1] == 0
    assert len(theirs) == 512
    assert not set(np.frombuffer(theirs, dtype=np.int64)) & set(secret.noise(1e9, 64))


def test_poisson_sampling_takes_each_unit_with_the_public_rate(public_keys: list[bytes]) -> None:
    secret = SecretRandomness()
    drawn = np.array([secret.select(1000, 0.3) for _ in range(300)])
    assert abs(drawn.mean() - 0.3) < 5 * math.sqrt(0.21 / drawn.size)
    sizes = drawn.sum(1)
    assert abs(sizes.var() / (1000 * 0.21) - 1) < 0.5  # a fixed batch size would have variance 0
    assert between((drawn[:60] * 10 - 3).astype(np.int64), math.sqrt(21)) > SUSPICIOUS
    assert secret.select(1000, 1.0).all()
    assert not secret.select(1000, 0.0).any()
    assert secret.select(0, 0.5).shape == (0,)


@given(st.floats(2.0**-12, 1.0, exclude_max=True))
def test_a_rate_is_kept_exactly(rate: float) -> None:
    """Of 2^64 words exactly rate·2^64 select: the last that does, and the first that does not."""
    below = int(rate * 2**64)
    assert below / 2**64 == rate
    assert _poisson_mask(np.array([0, below - 1, below], dtype=np.uint64), rate).tolist() == [
        True,
        True,
        False,
    ]


@given(st.floats(0, 2.0**-12))
def test_a_tiny_rate_is_never_exceeded(rate: float) -> None:
    most = math.floor(rate * 2**64)
    assert not _poisson_mask(np.array([most], dtype=np.uint64), rate).any()
    if most:
        assert _poisson_mask(np.array([most - 1], dtype=np.uint64), rate).all()


@pytest.mark.parametrize("rate", [-0.1, 1.0000001, math.nan, math.inf])
def test_rates_that_are_none_are_refused(rate: float) -> None:
    with pytest.raises(PrivacyParameterError, match="rate"):
        SecretRandomness().select(3, rate)
    with pytest.raises(PrivacyParameterError, match="rate"):
        PublicSampling(1).select(3, rate)


def test_public_sampling_repeats_and_depends_on_every_name() -> None:
    first = PublicSampling(1, "a", 2).select(500, 0.5)
    assert np.array_equal(first, PublicSampling(1, "a", 2).select(500, 0.5))
    for other in (
        PublicSampling(2, "a", 2),
        PublicSampling(1, "b", 2),
        PublicSampling(1, "a", 3),
        PublicSampling("1a", 2),
    ):
        assert not np.array_equal(first, other.select(500, 0.5))


def test_public_sampling_draws_what_it_always_drew() -> None:
    """Runs that were made with a seed can be made again: numpy's uniform numbers below the rate."""
    key = int.from_bytes(hashlib.sha256(b"1\x1fa\x1f2").digest()[:16], "little")
    generator = np.random.Generator(AESCounter(key=key))
    sampling = PublicSampling(1, "a", 2)
    for units, rate in ((1000, 0.25), (77, 0.013), (5000, 0.9)):
        assert np.array_equal(sampling.select(units, rate), generator.random(units) < rate)


def test_the_public_stream_is_aes_in_counter_mode() -> None:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key = 0x000102030405060708090A0B0C0D0E0F
    encryptor = Cipher(algorithms.AES(key.to_bytes(16, "little")), modes.ECB()).encryptor()  # noqa: S305  # blocks of a counter
    blocks = b"".join(encryptor.update(block.to_bytes(16, "little")) for block in range(64))
    assert np.array_equal(AESCounter(key=key).random_raw(128), np.frombuffer(blocks, dtype="<u8"))


def test_public_streams_refuse_to_make_noise() -> None:
    with pytest.raises(PrivacyParameterError, match="public stream"):
        PublicSampling(1).noise(100.0, 3)
