"""A random rotation of the whole gradient sum: coordinates of comparable size, so that the ring holds larger sums.

A member's sum may hold all of its length in one coordinate, and the ring must have room for that. A randomised Hadamard
transform x → H·D·x (D random signs, H the normalised Walsh-Hadamard matrix) spreads it: no coordinate of the image of a
fixed x is larger than r·‖x‖ / √m but for a probability of 2·exp(−r² / 2). It is orthonormal, so that clipping norms and
L2 sensitivity are the same before and after, and everybody undoes it on the sum.

H needs a power of two. Padding would send up to twice the integers and round as many. Instead H·D is taken twice, each time on
m = 2^⌊log2 d⌋ coordinates, first on the first m and then on the last m: as 2m > d both together touch every coordinate,
and the vector keeps its length. Where d is a power of two, once is enough.

Source: Ailon, Chazelle (STOC 2006) for the transform; Suresh et al. (arXiv 1611.00429) for distributed means.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt

from hansa.canonical import canonical_hash
from hansa.errors import PrivacyParameterError

Vector = npt.NDArray[np.float64]

SPREAD_SD = 12.0  # r: no coordinate of a rotated vector is larger than r·‖x‖ / √m, but with 2·exp(−72)
_BLOCK = 1 << 16  # entries of a block on which many stages are taken while it is in the cache
_PROTOCOL = "hansa/rotation/v1"


def block_size(dimension: int) -> int:
    """The m of a vector of length d: the largest power of two that is not above it.

    Raises:
        PrivacyParameterError: there is no coordinate.
    """
    if dimension < 1:
        raise PrivacyParameterError("a rotation needs at least one coordinate")
    return 1 << (dimension.bit_length() - 1)


def largest_part(dimension: int) -> float:
    """The part of a vector's length that one rotated coordinate holds at most: min(1, r / √m).

    Given what is left of x after the first pass, an entry of the second is a sum of m entries of x with independent random
    signs, over √m: sub-Gaussian with variance at most ‖x‖² / m (Hoeffding). So is an entry that only the first pass
    touches. Hence any of d coordinates is above with a probability of at most 2·d·exp(−`SPREAD_SD`² / 2).
    """
    return min(1.0, SPREAD_SD / math.sqrt(block_size(dimension)))


class Rotation:
    """The rotation of one round of one run.

    Args:
        dimension: d.
        seed: public, any bytes. Equal seeds give equal rotations.

    Guarantees: `forward` and `inverse` are orthonormal maps in exact arithmetic, each the other's inverse. Both are float64 sums,
        differences and products in an order that is fixed here, so that every machine computes the same bits.
    Assumes: signs that were fixed without looking at the vector; a liar may choose a vector that knows them, whose coordinates
        are then cut by its own clamp. Neither sensitivity nor noise rests on the signs.

    In float64 an image errs by at most 2·(log2(m) + 2)·2^-52·‖x‖ in L2 norm.
    """

    def __init__(self, dimension: int, seed: bytes) -> None:
        self.dimension = dimension
        size = block_size(dimension)
        self._places = (
            (slice(0, size),) if size == dimension else (slice(0, size), slice(dimension - size, dimension))
        )
        bits = hashlib.shake_256(seed).digest(len(self._places) * max(1, size // 8))
        signs = 1.0 - 2.0 * np.unpackbits(np.frombuffer(bits, np.uint8))
        self._signs = np.array_split(signs, len(self._places))
        self._signs = [part[:size] for part in self._signs]
        self._factor = _inverse_root(size)

    @classmethod
    def of_round(cls, dimension: int, agreement_id: str, run: str, number: int) -> Rotation:
        """The rotation that everybody derives for a round of a run; rounds, retries among them, have numbers of their own.

        Raises:
            PrivacyParameterError: no run or no round is named.
        """
        if not run or number < 1:
            raise PrivacyParameterError("the signs of a rotation follow from the run and the round of a sum")
        return cls(dimension, bytes.fromhex(canonical_hash([_PROTOCOL, agreement_id, run, number])))

    def forward(self, values: Vector) -> Vector:
        """The rotated vector, float64 [d].

        Args:
            values: float64 [d].
        """
        out = self._checked(values)
        for place, signs in zip(self._places, self._signs, strict=True):
            part = out[place]
            part *= signs
            walsh_hadamard(part)
            part *= self._factor
        return out

    def inverse(self, values: Vector) -> Vector:
        """What `forward` makes `values` of, float64 [d], but for the last digits.

        Args:
            values: float64 [d].
        """
        out = self._checked(values)
        for place, signs in zip(reversed(self._places), reversed(self._signs), strict=True):
            part = out[place]
            walsh_hadamard(part)
            part *= self._factor
            part *= signs
        return out

    def _checked(self, values: Vector) -> Vector:
        if values.dtype != np.float64 or values.shape != (self.dimension,):
            raise PrivacyParameterError(
                f"a vector of {self.dimension} doubles can be rotated, and nothing else"
            )
        return values.copy()


def walsh_hadamard(values: Vector) -> None:
    """Replace a vector by its unnormalised Walsh-Hadamard transform, in natural order.

    The butterflies (a, b) → (a + b, a − b) are taken at distances m/2, m/4, … 1, in this order: the bits of the result follow
    from that and not from the blocks in which memory is walked through.

    Args:
        values: float64 [m], C-contiguous, m a power of two.

    Raises:
        PrivacyParameterError: another length.
    """
    size = len(values)
    if size < 1 or size & (size - 1):
        raise PrivacyParameterError(f"{size} entries are no power of two")
    columns = 1 << ((size.bit_length() - 1) // 2)
    rows = size // columns
    table = values.reshape(rows, columns)
    wide = max(1, _BLOCK // rows)
    for start in range(0, columns, wide):  # the long distances: between rows
        block = table[:, start : start + wide]
        block[...] = _between_rows(np.ascontiguousarray(block))
    tall = max(1, _BLOCK // columns)
    for start in range(0, rows, tall):  # the short ones, within a row: between rows of the transpose
        block = table[start : start + tall]
        block[...] = _between_rows(np.ascontiguousarray(block.T)).T


def _between_rows(block: Vector) -> Vector:
    rows, columns = block.shape
    spare = np.empty_like(block)
    distance = rows // 2
    while distance:
        shape = (rows // (2 * distance), 2, distance * columns)
        source, target = block.reshape(shape), spare.reshape(shape)
        np.add(source[:, 0], source[:, 1], out=target[:, 0])
        np.subtract(source[:, 0], source[:, 1], out=target[:, 1])
        block, spare = spare, block
        distance //= 2
    return block


def _inverse_root(size: int) -> float:
    """1 / √m of a power of two: exact, or exact but for one correctly rounded root."""
    exponent = size.bit_length() - 1
    return math.ldexp(math.sqrt(0.5) if exponent % 2 else 1.0, -(exponent // 2))
