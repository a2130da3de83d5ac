"""Streams of words: which cipher, whose keys, and that no word comes twice."""

from __future__ import annotations

import copy
import os
import pickle
import threading

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from hansa.errors import PrivacyParameterError
from hansa.privacy import streams
from hansa.privacy.streams import AesStream, SecretStream

KEY = bytes(range(32))


def words(stream: AesStream | SecretStream, count: int) -> list[int]:
    made = np.zeros(count, dtype=np.uint64)
    stream.fill(made)
    return made.tolist()


def counter_blocks(key: bytes, count: int) -> list[int]:
    """AES of big-endian counters from 0, block by block, as little-endian words."""
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305  # blocks of a counter
    blocks = b"".join(encryptor.update(block.to_bytes(16, "big")) for block in range(count))
    return np.frombuffer(blocks, dtype="<u8").tolist()


def test_words_are_those_of_aes_256_in_counter_mode() -> None:
    assert words(AesStream(KEY), 600) == counter_blocks(KEY, 300)
    # NIST SP 800-38A has no vector from counter 0; this is AES-256 of a zero block, FIPS 197 known answer (all-zero key)
    assert (
        words(AesStream(bytes(32)), 2)
        == np.frombuffer(bytes.fromhex("dc95c078a2408989ad48a21492842087"), dtype="<u8").tolist()
    )


@given(st.lists(st.integers(0, 700), max_size=8))
def test_words_go_on_where_they_stopped(sizes: list[int]) -> None:
    stream = AesStream(KEY)
    parts = [word for size in sizes for word in words(stream, size)]
    assert parts == words(AesStream(KEY), sum(sizes))
    assert stream.left == streams.WORDS_PER_KEY - sum(sizes)


def test_a_request_longer_than_the_working_set_is_whole() -> None:
    count = 3 * (1 << 15) + 5
    assert words(AesStream(KEY), count) == counter_blocks(KEY, count // 2 + 1)[:count]


@pytest.mark.parametrize("length", [0, 16, 24, 31, 33])
def test_keys_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(PrivacyParameterError, match="32 bytes"):
        AesStream(bytes(length))


def test_a_key_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "WORDS_PER_KEY", 100)
    stream = AesStream(KEY)
    words(stream, 98)
    with pytest.raises(PrivacyParameterError, match="2 left"):
        words(stream, 3)
    assert words(stream, 2) == counter_blocks(KEY, 50)[-2:]


def test_a_secret_stream_goes_on_under_a_fresh_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "WORDS_PER_KEY", 100)
    keys: list[bytes] = []

    def counted(size: int) -> bytes:
        keys.append(os.urandom(size))
        return keys[-1]

    monkeypatch.setattr(streams.secrets, "token_bytes", counted)
    stream = SecretStream()
    made = words(stream, 60) + words(stream, 60) + words(stream, 250)
    wanted = [(keys[0], 60), (keys[1], 60), (keys[2], 100), (keys[3], 100), (keys[4], 50)]
    assert made == [word for key, count in wanted for word in counter_blocks(key, 50)[:count]]
    assert len(set(keys)) == len(keys) == 5
    assert len(set(made)) == len(made)


def test_every_stream_asks_the_operating_system_for_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[bytes] = []

    def counted(size: int) -> bytes:
        keys.append(os.urandom(size))
        return keys[-1]

    monkeypatch.setattr(streams.secrets, "token_bytes", counted)
    made = [words(SecretStream(), 4) for _ in range(1000)]
    assert len(set(keys)) == len(keys) == 1000
    assert {len(key) for key in keys} == {32}
    assert [words(AesStream(key), 4) for key in keys] == made


def test_a_key_that_came_before_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine whose source of random numbers is stuck."""
    fixed = os.urandom(32)
    monkeypatch.setattr(streams.secrets, "token_bytes", lambda _size: fixed)
    SecretStream()
    with pytest.raises(PrivacyParameterError, match="gave before"):
        SecretStream()


def test_the_memory_of_keys_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "REMEMBERED", 10)
    monkeypatch.setattr(SecretStream, "_seen", {})
    for _ in range(50):
        SecretStream()
    assert len(SecretStream._seen) == 10


def test_a_key_is_not_kept_in_what_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    key = os.urandom(32)
    monkeypatch.setattr(streams.secrets, "token_bytes", lambda _size: key)
    stream = SecretStream()
    assert key not in SecretStream._seen
    assert key not in vars(stream).values()


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickle.dumps])
def test_streams_are_neither_copied_nor_stored(again) -> None:
    with pytest.raises(TypeError, match="copied"):
        again(SecretStream())
    with pytest.raises(TypeError):
        copy.deepcopy(AesStream(KEY))
    with pytest.raises(TypeError):
        pickle.dumps(AesStream(KEY))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_draws_other_words() -> None:
    stream = SecretStream()
    words(stream, 4)
    reader, writer = os.pipe()
    with stream._lock:  # as another thread might hold it
        child = os.fork()
        if child == 0:  # pragma: no cover
            try:
                os.write(writer, np.array(words(stream, 8), dtype=np.uint64).tobytes())
            finally:
                os._exit(0)
    os.close(writer)
    theirs = os.read(reader, 64)
    os.close(reader)
    assert os.waitpid(child, 0)[1] == 0
    assert len(theirs) == 64
    assert not set(np.frombuffer(theirs, dtype=np.uint64).tolist()) & set(words(stream, 64))


def test_threads_never_get_the_same_word() -> None:
    stream = SecretStream()
    found: list[list[int]] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        found.append([word for _ in range(50) for word in words(stream, 100)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [word for part in found for word in part]
    assert len(everything) == len(set(everything)) == 20_000
