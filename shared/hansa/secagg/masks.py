"""Masks: AES-256 in counter mode, expanded and added in blocks that stay in the cache.

A mask is the keystream of AES-256-CTR from counter 0, read as little-endian 32-bit words. The nonce is fixed
because a key expands into one mask and no more: `MaskKey` gives its bytes away once. Counter mode is seekable,
so that several processes expand disjoint parts of one vector (`hansa.secagg.workers`); threads would not help,
since the interpreter's lock is held while OpenSSL works.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from hansa.secagg.errors import MaskKeyUsedError
from hansa.secagg.ring import RingVector

KEY_BYTES = 32
WORDS_PER_COUNTER = 4  # one AES block
_BLOCK_WORDS = (
    64 * 1024
)  # 256 KiB of keystream: per-call costs vanish, and two blocks stay in the second-level cache
_ZEROS = memoryview(bytes(4 * _BLOCK_WORDS))


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
    streams = [
        (Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor().update_into, operation)
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
