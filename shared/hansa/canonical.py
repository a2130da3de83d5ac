"""Canonical JSON (RFC 8785) and its SHA-256: the bytes that are hashed, signed and logged."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import rfc8785

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"


def canonical_json(value: Json) -> bytes:
    """The RFC 8785 serialisation of a JSON value.

    Raises:
        ValueError: for what RFC 8785 cannot express (NaN, infinities, integers beyond 2^53 - 1).
    """
    return rfc8785.dumps(value)


def sha256_hex(data: bytes) -> str:
    """SHA-256 of `data` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def canonical_hash(value: Json) -> str:
    """SHA-256 of the canonical JSON of `value`, in hexadecimal."""
    return sha256_hex(canonical_json(value))
