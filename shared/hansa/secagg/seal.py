"""Sealing of what a member keeps between phases: AES-256-GCM under a key kept outside the state folder.

Guarantees: a copy of the folder (a backup, a stolen disk) gives nothing away without the key.
Assumes: the key's file is elsewhere and readable by its owner alone, or is handed over by systemd.
Leaks: sizes, and when something was written. It does not protect against root, nor against putting back an older
copy of the folder, which is why a restored node needs a fresh checkpoint before it takes part again.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hansa.identity.keys import read_private, write_private
from hansa.secagg.errors import StateError
from hansa.secagg.shares import Rand

KEY_BYTES = 32
_NONCE_BYTES = 12


class Seal:
    """Authenticated encryption of named bytes.

    Args:
        key: 32 bytes.
        rand: a source of that many random bytes, for nonces.
    """

    def __init__(self, key: bytes, rand: Rand = os.urandom) -> None:
        if len(key) != KEY_BYTES:
            raise StateError(f"a sealing key has {KEY_BYTES} bytes")
        self._aead = AESGCM(key)
        self._rand = rand

    @classmethod
    def load(cls, path: Path) -> Seal:
        """Read the key from a file that only its owner can read, for example a systemd credential.

        Raises:
            KeyFileError: it is missing or readable by others.
            StateError: it has not 32 bytes.
        """
        return cls(read_private(path))

    @staticmethod
    def create(path: Path) -> None:
        """Write a new key with mode 0600; an existing one is never overwritten."""
        write_private(path, os.urandom(KEY_BYTES))

    def seal(self, name: str, data: bytes) -> bytes:
        """Encrypt, bound to the name under which the bytes are stored."""
        nonce = self._rand(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, data, name.encode())

    def open(self, name: str, sealed: bytes) -> bytes:
        """Decrypt.

        Raises:
            StateError: another key, another name, or altered bytes.
        """
        try:
            return self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError):
            raise StateError(
                f"{name} cannot be opened with this key",
                remedy="Give the node the key that its state was sealed with.",
            ) from None
