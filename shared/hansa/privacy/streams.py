"""Streams of uniform 64-bit words: AES-256 in counter mode, a key to each stream.

A stream gives a word away once and cannot be wound back, copied, or carried into another process. Fixed keys are for
what is public and for tests; what must stay secret is read from a `SecretStream`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from typing import ClassVar, NoReturn, Protocol

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from hansa.errors import PrivacyParameterError

KEY_BYTES = 32
REMEMBERED = 1 << 14
WORDS_PER_KEY = (
    1 << 33
)  # 2^32 AES blocks: they differ from random ones by at most 2^-65, since no two are alike
_ZEROS = memoryview(
    bytes(1 << 18)
)  # the working set stays in the cache, the interpreter's lock is held briefly

Words = npt.NDArray[np.uint64]


class WordStream(Protocol):
    """Independent uniform words, none of them twice."""

    def fill(self, words: Words) -> None:
        """Overwrite a C-contiguous array with the next words."""


class AesStream:
    """The keystream of AES-256-CTR from counter 0, read as little-endian 64-bit words.

    Not safe for several threads at once.

    Raises:
        PrivacyParameterError: the key has not 32 bytes; in `fill`: more than `WORDS_PER_KEY` words were asked for.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise PrivacyParameterError(f"a stream's key has {KEY_BYTES} bytes, not {len(key)}")
        self._cipher: CipherContext = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        self.left = WORDS_PER_KEY

    def fill(self, words: Words) -> None:
        if len(words) > self.left:
            raise PrivacyParameterError(
                f"{len(words)} words were asked of a key that has {self.left} left",
                remedy="Take a fresh key.",
            )
        self.left -= len(words)
        space = words.data.cast("B")
        for start in range(0, len(space), len(_ZEROS)):
            part = space[start : start + len(_ZEROS)]
            self._cipher.update_into(_ZEROS[: len(part)], part)


class SecretStream:
    """Words from a key that nobody knows, not even the member's own operator; safe for several threads.

    Guarantees: each stream has keys of its own from the operating system, held in memory only; a key makes at most
        `WORDS_PER_KEY` words, then a fresh one follows; a forked process goes on under a key of its own.
    Assumes: the operating system's generator is one. A key that is among the last `REMEMBERED` of the process is refused.
    """

    _seen: ClassVar[dict[bytes, None]] = {}  # digests of keys, oldest first
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._renew()

    def fill(self, words: Words) -> None:
        if os.getpid() != self._process:
            self._lock = threading.Lock()  # the parent's may have been held when the process was forked
            self._renew()
        with self._lock:
            for start in range(0, len(words), WORDS_PER_KEY):
                part = words[start : start + WORDS_PER_KEY]
                if self._stream.left < len(part):
                    self._renew()
                self._stream.fill(part)

    def _renew(self) -> None:
        self._stream = AesStream(self._fresh_key())
        self._process = os.getpid()

    @classmethod
    def _fresh_key(cls) -> bytes:
        key = secrets.token_bytes(KEY_BYTES)
        digest = hashlib.sha256(b"hansa stream key\n" + key).digest()
        with cls._guard:
            if digest in cls._seen:
                raise PrivacyParameterError(
                    "the operating system gave a key that it gave before: its random numbers are not random",
                    remedy="Do not train on this machine until its source of random numbers is repaired.",
                )
            cls._seen[digest] = None
            if len(cls._seen) > REMEMBERED:
                del cls._seen[next(iter(cls._seen))]
        return key

    @classmethod
    def unlock_after_fork(cls) -> None:
        """Another thread may have held the lock when the process was forked."""
        cls._guard = threading.Lock()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret stream is neither copied nor stored: its words would be drawn twice")


if hasattr(os, "register_at_fork"):  # not everywhere; where it is not, there is no fork
    os.register_at_fork(after_in_child=SecretStream.unlock_after_fork)
