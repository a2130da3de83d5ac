"""The surplus of noise in parts: opened seeds are proven by what was signed before, and their noise leaves the sum."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from hansa.privacy.parts import end_of
from hansa.secagg.ring import RingVector
from hansa.secagg.terms import VectorTerms
from hansa.wire import array_sha256


def proves(seed: bytes, removed: int, noise_end_sha256: str) -> bool:
    """Whether a seed opens so many parts of the chain whose end a member signed; a caller must act on the answer.

    Args:
        seed: 32 bytes.
        removed: parts that it is said to open; none are opened by anything.
        noise_end_sha256: as the member's `Masked` names it.
    """
    if removed < 1 or not noise_end_sha256:
        return False
    return array_sha256(np.frombuffer(end_of(seed, removed), np.uint8)) == noise_end_sha256


def take_off(total: RingVector, terms: VectorTerms, seeds: Iterable[bytes], removed: int) -> None:
    """Subtract the opened parts of noise from an unmasked sum, in the ring.

    Args:
        total: dtype uint32, shape (d,); changed.
        terms: of the vector.
        seeds: of those who opened the surplus of their shares. The noise of all others stays.
        removed: how many parts each seed opens.
    """
    for seed in seeds:
        if terms.parts is not None:
            noise = terms.parts.surplus_of(seed, removed, len(total))
            np.subtract(total, noise.astype(np.uint32), out=total)  # two's complement: reduction modulo 2^32
