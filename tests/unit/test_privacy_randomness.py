"""A member's randomness: one stream of keys for its draws, one of noise, and nothing shared between members, rounds and steps."""

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
from hansa.privacy.randomness import PublicSampling, SecretRandomness
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
            secret.key()
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


def test_keys_and_noise_have_streams_of_their_own(public_keys: list[bytes]) -> None:
    secret = SecretRandomness()
    key, noise = secret.key(), secret.noise(SIGMA, 4000)
    assert len(public_keys) == 2
    words = np.empty(4, dtype=np.uint64)
    AesStream(public_keys[0]).fill(words)
    assert key == words.tobytes()
    assert np.array_equal(noise, discrete_gaussian(AesStream(public_keys[1]), SIGMA, 4000))


@given(st.lists(st.one_of(st.integers(1, 90), st.none()), max_size=12))
@settings(deadline=None)
def test_how_much_is_read_of_one_changes_nothing_in_the_other(calls: list[int | None]) -> None:
    """Numbers are sizes of noise vectors, None is a key, in any order."""
    with pytest.MonkeyPatch.context() as patch:
        keys = [bytes([number]) * 32 for number in (1, 2)]
        patch.setattr(streams.secrets, "token_bytes", lambda _size: keys.pop(0))
        patch.setattr(streams.SecretStream, "_seen", {})
        secret = SecretRandomness()
    given_out = [secret.key() if size is None else secret.noise(SIGMA, size) for size in calls]
    keys_of, noise = AesStream(bytes([1]) * 32), AesStream(bytes([2]) * 32)
    for size, found in zip(calls, given_out, strict=True):
        if size is None:
            words = np.empty(4, dtype=np.uint64)
            keys_of.fill(words)
            assert found == words.tobytes()
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


def test_secret_keys_are_fresh_and_long(public_keys: list[bytes]) -> None:
    secret = SecretRandomness()
    keys = {secret.key() for _ in range(50)} | {SecretRandomness().key() for _ in range(50)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {32}
    assert keys.isdisjoint(public_keys)  # no stream's own key is given away


def test_public_keys_repeat_and_depend_on_every_name() -> None:
    first = PublicSampling(1, "a", 2).key()
    assert first == PublicSampling(1, "a", 2).key()
    assert len(first) == 32
    names = [(2, "a", 2), (1, "b", 2), (1, "a", 3), ("1a", 2)]
    assert first not in {PublicSampling(*name).key() for name in names}


def test_public_keys_are_the_words_of_the_public_stream() -> None:
    """Runs that were made with a seed can be made again, on any machine."""
    words = AESCounter(key=int.from_bytes(hashlib.sha256(b"1\x1fa\x1f2").digest()[:16], "little"))
    sampling = PublicSampling(1, "a", 2)
    for _ in range(3):
        assert sampling.key() == words.random_raw(4).astype("<u8").tobytes()


def test_the_public_stream_is_aes_in_counter_mode() -> None:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key = 0x000102030405060708090A0B0C0D0E0F
    encryptor = Cipher(algorithms.AES(key.to_bytes(16, "little")), modes.ECB()).encryptor()  # noqa: S305  # blocks of a counter
    blocks = b"".join(encryptor.update(block.to_bytes(16, "little")) for block in range(64))
    assert np.array_equal(AESCounter(key=key).random_raw(128), np.frombuffer(blocks, dtype="<u8"))


def test_public_streams_refuse_to_make_noise() -> None:
    with pytest.raises(PrivacyParameterError, match="public stream"):
        PublicSampling(1).noise(100.0, 3)
