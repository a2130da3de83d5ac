"""Masks: AES-256 in counter mode, expanded and added in blocks that stay in the cache.

A mask is the keystream of AES-256-CTR from counter 0, read as little-endian 32-bit words. The nonce is fixed
because a key expands into one mask and no more: `MaskKey` gives its bytes away once. Counter mode is seekable,
so that several processes expand disjoint parts of one vector (`hansa.secagg.workers`); threads would not help,
since the interpreter's lock is held while OpenSSL works.

AES-GCM encrypts with the same keystream: under a nonce of 96 zero bits its counter starts at 2 (NIST SP 800-38D,
7.1). OpenSSL uses the wide AES instructions of newer processors in GCM and not in CTR, so that GCM, its tag never
asked for, can be the faster way to the very same bytes. Which is faster is measured once in each process; what
comes out is the same either way.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import cache

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from hansa.secagg.errors import MaskKeyUsedError
from hansa.secagg.ring import RingVector

KEY_BYTES = 32
WORDS_PER_COUNTER = 4  # one AES block
_BLOCK_WORDS = 32 * 1024  # 128 KiB of keystream: per-call costs vanish, and three blocks stay in the cache
_ZEROS = memoryview(bytes(4 * _BLOCK_WORDS))
_GCM = modes.GCM(bytes(12))
_BEFORE_GCM = 2 * WORDS_PER_COUNTER  # words of the two counters that GCM keeps for itself and its tag
_MIN_GCM_WORDS = 16 * 1024  # below, a second cipher costs more than it saves
_PROBES = 3


class MaskKey:
    """A 256-bit key that expands into one mask, once."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError("a mask key has 32 bytes")
        self._key: bytes | None = key

    def take(self) -> bytes:
        """The key's bytes, the first time.

        Raises:
            MaskKeyUsedError: they were taken before.
        """
        key, self._key = self._key, None
        if key is None:
            raise MaskKeyUsedError("a mask key is used a second time")
        return key

    def __repr__(self) -> str:
        return "MaskKey(used)" if self._key is None else "MaskKey(unused)"


def add_masks(vector: RingVector, plus: Sequence[MaskKey], minus: Sequence[MaskKey] = ()) -> None:
    """Add the masks of some keys to a vector, and subtract those of others, modulo 2^32 and in place.

    Args:
        vector: dtype uint32, C-contiguous, shape (d,).
        plus, minus: keys, each used up by this call.

    Raises:
        MaskKeyUsedError: a key was used before; the vector is unchanged.
    """
    expand_into(vector, [key.take() for key in plus], [key.take() for key in minus], first_word=0)


def expand_into(
    vector: RingVector, plus: Sequence[bytes], minus: Sequence[bytes], *, first_word: int
) -> None:
    """Add and subtract keystreams, from a word of the mask on, modulo 2^32 and in place.

    Args:
        vector: the part of the whole vector that starts at `first_word`; dtype uint32, C-contiguous.
        plus, minus: AES-256 keys. That each is used for one mask is the caller's promise.
        first_word: a multiple of 4, where one AES block starts.
    """
    if first_word % WORDS_PER_COUNTER:
        raise ValueError("a part of a mask starts at a whole AES block")
    counter = (first_word // WORDS_PER_COUNTER).to_bytes(16, "big")
    if first_word == 0 and len(vector) >= _MIN_GCM_WORDS and gain_of_gcm() > 1:
        _expand(vector[:_BEFORE_GCM], plus, minus, modes.CTR(counter))
        _expand(vector[_BEFORE_GCM:], plus, minus, _GCM)
    else:
        _expand(vector, plus, minus, modes.CTR(counter))


@cache
def gain_of_gcm() -> float:
    """How many times faster the start of a mask is expanded and added through AES-GCM on this machine; at least 1."""
    vector = np.zeros(_BLOCK_WORDS, dtype="<u4")

    def seconds(mode: modes.CTR | modes.GCM) -> float:
        times = []
        for _ in range(_PROBES):
            started = time.perf_counter()
            _expand(vector, [os.urandom(KEY_BYTES)], [], mode)
            times.append(time.perf_counter() - started)
        return min(times)

    return max(1.0, seconds(modes.CTR(bytes(16))) / seconds(_GCM))


def _expand(
    vector: RingVector, plus: Sequence[bytes], minus: Sequence[bytes], mode: modes.CTR | modes.GCM
) -> None:
    streams = [
        (Cipher(algorithms.AES(key), mode).encryptor().update_into, operation)
        for keys, operation in ((plus, np.add), (minus, np.subtract))
        for key in keys
    ]
    keystream = memoryview(bytearray(4 * min(_BLOCK_WORDS, len(vector))))
    for start in range(0, len(vector), _BLOCK_WORDS):
        part = vector[start : start + _BLOCK_WORDS]
        zeros, stream = _ZEROS[: part.nbytes], keystream[: part.nbytes]
        words = np.frombuffer(stream, dtype="<u4")
        for encrypt, operation in streams:
            encrypt(zeros, stream)
            operation(part, words, out=part)
