"""Shamir secret sharing over the field of integers modulo the Mersenne prime 2^521 - 1.

A 256-bit secret is the constant term of a polynomial of degree t - 1 whose other coefficients are uniform; a
share is its value at the holder's x. Any t shares give the secret, fewer say nothing about it (Shamir 1979).
Each secret gets its own polynomial. Python's integers are not constant-time: whoever can time a member's
process to that precision is on the member's machine already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import mul

PRIME = 2**521 - 1
SECRET_BYTES = 32
SHARE_BYTES = 66
_FIELD_BITS = 521

Rand = Callable[[int], bytes]


def split(secret: bytes, xs: Sequence[int], threshold: int, rand: Rand) -> list[bytes]:
    """Share a secret.

    Args:
        secret: 32 bytes.
        xs: the holders' distinct x-coordinates, from 1.
        threshold: t, how many shares give the secret.
        rand: a source of that many random bytes.

    Returns:
        One share of 66 big-endian bytes for each x.
    """
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= len(xs) or len(set(xs)) != len(xs) or min(xs) < 1:
        raise ValueError("a sharing needs 32 secret bytes, distinct positive x and a threshold they can meet")
    coefficients = [_element(rand) for _ in range(threshold - 1)]
    constant = int.from_bytes(secret, "big")
    shares = []
    for x in xs:
        value = 0
        for coefficient in coefficients:  # Horner; x is small, so that reducing once at the end is cheapest
            value = (value + coefficient) * x
        shares.append(((value + constant) % PRIME).to_bytes(SHARE_BYTES, "big"))
    return shares


def lagrange_weights(xs: Iterable[int]) -> list[int]:
    """Weights w_i with f(0) = sum of w_i f(x_i), once for all secrets that the same holders open.

    Args:
        xs: distinct x-coordinates of the holders, as many as the threshold.
    """
    points = list(xs)
    weights = []
    for x in points:
        numerator = denominator = 1
        for other in points:
            if other != x:
                numerator *= other
                denominator *= other - x
        weights.append(numerator * pow(denominator, -1, PRIME) % PRIME)
    return weights


def combine(shares: Sequence[bytes], weights: Sequence[int]) -> bytes:
    """The secret of t shares.

    Args:
        shares: 66 bytes each, in the order of the weights.
        weights: from `lagrange_weights`.

    Returns:
        32 bytes if the shares are of one such secret; anything else comes out as 66 bytes. Shares carry no proof
        of their own: the caller compares the secret with what its dealer committed to.
    """
    secret: int = sum(map(mul, map(int.from_bytes, shares), weights)) % PRIME
    return secret.to_bytes(SECRET_BYTES if secret < 2 ** (8 * SECRET_BYTES) else SHARE_BYTES, "big")


def _element(rand: Rand) -> int:
    while True:
        value = int.from_bytes(rand(SHARE_BYTES), "big") >> (8 * SHARE_BYTES - _FIELD_BITS)
        if value != PRIME:
            return value
