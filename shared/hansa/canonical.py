"""Canonical JSON (RFC 8785) and its SHA-256: the bytes that are hashed, signed and logged."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TypeAlias

import rfc8785

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

# On values without floats and with ASCII keys the standard library writes what RFC 8785 demands, many times faster.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, check_circular=False)


def canonical_json(value: Json) -> bytes:
    """The RFC 8785 serialisation of a JSON value.

    Raises:
        ValueError: for what RFC 8785 cannot express (NaN, infinities, integers beyond 2^53 - 1).
    """
    if is_plain(value):
        with suppress(UnicodeEncodeError):  # a lone surrogate: RFC 8785's own error is the one below
            return plain_json(value)
    return rfc8785.dumps(value)


def plain_json(value: Json) -> bytes:
    """As `canonical_json`, of a value that `is_plain` was asked about already.

    Raises:
        UnicodeEncodeError: a text holds a lone surrogate.
    """
    return _ENCODER.encode(value).encode()


def is_plain(value: object) -> bool:
    """Whether a value is JSON without floats, with integers within 2^53 - 1 and with keys in ASCII."""
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return True
    if kind is int:
        return -(2**53) < value < 2**53  # type: ignore[operator]  # narrowed by kind
    if kind is dict:
        # loops, and texts without a call: nearly all that is signed is text, and this is asked of all that is signed
        for key, item in value.items():  # type: ignore[attr-defined]
            if type(key) is not str or not key.isascii() or not (type(item) is str or is_plain(item)):
                return False
        return True
    return (kind is list or kind is tuple) and all(map(is_plain, value))  # type: ignore[call-overload]


def sha256_hex(data: bytes) -> str:
    """SHA-256 of `data` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def canonical_hash(value: Json) -> str:
    """SHA-256 of the canonical JSON of `value`, in hexadecimal."""
    return sha256_hex(canonical_json(value))


def differing_place(said: object, follows: object, tolerance: float = 1e-6, place: str = "") -> str | None:
    """The first place at which two trees differ, as names joined by dots; `None` where they say the same.

    Args:
        said, follows: mappings and sequences of plain values, for example a model's dump.
        tolerance: by how much floats may differ, of themselves or of 1: two machines may round otherwise.
        place: of the trees in a larger one.
    """
    if isinstance(said, float) and isinstance(follows, float):
        same = math.isclose(said, follows, rel_tol=tolerance, abs_tol=tolerance)
    elif isinstance(said, Mapping) and isinstance(follows, Mapping):
        if said.keys() != follows.keys():
            return place
        pairs = [(str(key), said[key], follows[key]) for key in said]
        return _first_of(pairs, tolerance, place)
    elif isinstance(said, list | tuple) and isinstance(follows, list | tuple):
        if len(said) != len(follows):
            return place
        pairs = [(str(i), one, other) for i, (one, other) in enumerate(zip(said, follows, strict=True))]
        return _first_of(pairs, tolerance, place)
    else:
        same = type(said) is type(follows) and said == follows
    return None if same else place


def _first_of(pairs: Sequence[tuple[str, object, object]], tolerance: float, place: str) -> str | None:
    found = (
        differing_place(one, other, tolerance, f"{place}.{name}".strip(".")) for name, one, other in pairs
    )
    return next((one for one in found if one is not None), None)
