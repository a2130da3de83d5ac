"""The ring of integers modulo 2^32, and the public quantiser that maps vectors into it.

A member's values are clipped to [-clip, clip], multiplied by a public scale and rounded to integers of at most
Q = floor(clip * scale) in magnitude. The terms are refused unless n * Q, and the reach of whatever noise the
members add to those integers, stay within 2^(31 - guard_bits): sums of n honest members then lie in a known
range, which is decoded exactly, and a wrong vector falls outside it with probability 1 - 2^-guard_bits in each
coordinate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hansa.canonical import Json
from hansa.errors import Problem
from hansa.secagg.errors import SumOutOfRangeError, SumTermsError, VectorError

RING_BITS = 32
NOISE_REACH_SD = 12.0  # standard deviations of the summed noise that the range allows for
_BLOCK = 64 * 1024  # entries; a block of float64 stays in the second-level cache

Vector = npt.NDArray[Any]
RingVector = npt.NDArray[np.uint32]
SumVector = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Quantiser:
    """Public map between numbers and the ring; every party holds the same.

    Attributes:
        clip: largest magnitude of one coordinate before encoding.
        scale: grid steps per unit. Decoding divides by it; a power of two makes that exact too.
        members: n, the most contributions that one sum can have.
        guard_bits: top bits of the ring that no honest sum reaches.
        noise_sd: standard deviation, in grid steps, of noise that each member has added to its integers after
            clamping them to Q (discrete Gaussian under `distributed`); 0 where noise came before rounding.

    Raises:
        SumTermsError: the numbers make no sense, or an honest sum could leave its range.
    """

    clip: float
    scale: float
    members: int
    guard_bits: int = 1
    noise_sd: float = 0.0

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise SumTermsError("the quantiser cannot be used", problems)

    def _problems(self) -> Iterator[Problem]:
        numbers = {"clip": self.clip, "scale": self.scale}
        for name, value in numbers.items():
            if not (math.isfinite(value) and value > 0):
                yield Problem(name, f"{value:g} is not a finite number above 0")
                return
        if not math.isfinite(self.clip * self.scale):
            yield Problem(
                "scale", f"{self.clip:g} * {self.scale:g} is beyond every ring", "choose a smaller scale"
            )
            return
        if not 1 <= self.guard_bits <= 8:
            yield Problem(
                "guard_bits", f"{self.guard_bits} is outside 1 to 8", "without one, no wrong sum is noticed"
            )
            return
        if not (math.isfinite(self.noise_sd) and self.noise_sd >= 0):
            yield Problem("noise_sd", f"{self.noise_sd:g} is not a finite number of at least 0")
            return
        if self.members < 1:
            yield Problem("members", f"{self.members} members have no sum")
        elif self.magnitude < 1:
            yield Problem("scale", "every value would round to 0", "choose a larger scale")
        elif self.reach(self.members) > self.limit:
            yield Problem(
                "scale",
                f"{self.members} members could sum to {self.reach(self.members)}, beyond {self.limit}",
                f"a scale of at most {self.limit / (self.members * self.clip):g} leaves no room for noise",
            )

    @classmethod
    def finest(cls, clip: float, members: int, guard_bits: int = 1) -> Quantiser:
        """The finest power-of-two grid on which n members cannot overflow.

        Raises:
            SumTermsError: clip or members are not above 0, or no double is the scale of such a grid.
        """
        if not (math.isfinite(clip) and clip > 0 and members > 0):
            raise SumTermsError("no grid fits", [Problem("clip", "clip and members must be above 0")])
        steps = 2.0 ** (RING_BITS - 1 - guard_bits) / (members * clip)
        if not (math.isfinite(steps) and steps > 0):
            raise SumTermsError("no grid fits", [Problem("clip", f"{clip:g} is too far from 1 for any grid")])
        return cls(clip, 2.0 ** math.floor(math.log2(steps)), members, guard_bits)

    @property
    def magnitude(self) -> int:
        """Q, the largest magnitude of one member's encoded coordinate before noise."""
        return math.floor(self.clip * self.scale)

    @property
    def limit(self) -> int:
        """No honest sum is larger in magnitude."""
        return int(2 ** (RING_BITS - 1 - self.guard_bits))

    def reach(self, contributors: int) -> int:
        """The largest magnitude that a coordinate of so many honest contributions may have."""
        noise = math.ceil(NOISE_REACH_SD * self.noise_sd * math.sqrt(contributors))
        return contributors * self.magnitude + noise

    def wrap_probability(self, length: int) -> float:
        """A bound on the probability that noise alone carries any coordinate of an honest sum out of its range.

        It is a failure of correctness only: the sum is refused, and nothing more is learned from it. Discrete
        Gaussian noise is sub-Gaussian with its own variance (Canonne, Kamath, Steinke 2020, arXiv 2004.00010),
        so each coordinate leaves the reach with at most 2 exp(-NOISE_REACH_SD^2 / 2).
        """
        if self.noise_sd == 0:
            return 0.0
        return min(1.0, length * 2 * math.exp(-(NOISE_REACH_SD**2) / 2))

    def tree(self) -> dict[str, Json]:
        """The quantiser as JSON values; the two real numbers as text, because signed statements hold no floats."""
        return {
            "clip": float(self.clip).hex(),
            "scale": float(self.scale).hex(),
            "members": self.members,
            "guard_bits": self.guard_bits,
            "noise_sd": float(self.noise_sd).hex(),
        }

    def encode(self, values: Vector, *, out: RingVector | None = None) -> RingVector:
        """A member's vector as elements of the ring.

        Args:
            values: shape (d,). Floating point: clipped, scaled and rounded to nearest even; float32 is clipped to
                the largest float32 that is not above Q. Integers (int32 or int64): already on the grid and, where
                there is noise, noised; they are reduced modulo 2^32 and never judged by value, since a refusal
                would depend on data.
            out: a uint32 vector of the same length to fill, for example in shared memory.

        Returns:
            The ring elements, dtype uint32, shape (d,).

        Raises:
            VectorError: wrong shape or dtype, NaN or infinity.
        """
        if not isinstance(values, np.ndarray) or values.ndim != 1:
            raise VectorError("a contribution is a one-dimensional array")
        if out is None:
            out = np.empty(values.shape, dtype="<u4")
        elif out.dtype != np.uint32 or out.ndim != 1:
            raise VectorError("a vector is encoded into a uint32 vector")
        elif out.shape != values.shape:
            raise VectorError(f"a contribution of {len(out)} entries was expected")
        if values.dtype in (np.int32, np.int64):
            np.copyto(out, values, casting="unsafe")  # C truncation of two's complement is reduction mod 2^32
            return out
        if values.dtype not in (np.float32, np.float64):
            raise VectorError(f"a contribution of type {values.dtype} cannot be encoded")
        single = (
            values.dtype == np.float32 and math.frexp(self.scale)[0] == 0.5
        )  # scaling rounds nothing then
        work = np.empty(min(_BLOCK, len(values)), dtype=values.dtype if single else np.float64)
        signed = out.view(np.int32)
        bound, factor = _not_above(self.magnitude, work.dtype), work.dtype.type(self.scale)
        with np.errstate(over="ignore"):  # a finite value that scales to infinity is clipped like any other
            for start in range(0, len(values), _BLOCK):
                block = values[start : start + _BLOCK]
                if not np.isfinite(block).all():
                    raise VectorError("a contribution holds NaN or infinities")
                scaled = work[: len(block)]
                np.multiply(block, factor, out=scaled)
                np.rint(scaled, out=scaled)
                scaled.clip(-bound, bound, out=scaled)
                np.copyto(signed[start : start + len(block)], scaled, casting="unsafe")
        return out

    def decode(self, total: RingVector, contributors: int) -> SumVector:
        """The exact sum of what was encoded.

        Args:
            total: the unmasked sum in the ring, shape (d,), dtype uint32.
            contributors: how many vectors are in it.

        Returns:
            The sum in grid steps, dtype int32 (an honest sum fits by construction); divide by `scale` for units.

        Raises:
            SumOutOfRangeError: coordinates lie where no honest sum can be.
            VectorError: `total` is no ring vector, or there are more contributions than members.
        """
        if total.dtype != np.uint32 or total.ndim != 1:
            raise VectorError("a sum is a uint32 vector")
        if not 1 <= contributors <= self.members:
            raise VectorError(f"a sum of {contributors} contributions of {self.members} members")
        signed = total.view(np.int32)
        reach = self.reach(contributors)
        if signed.size and (int(signed.min()) < -reach or int(signed.max()) > reach):
            outside = int(np.count_nonzero((signed < -reach) | (signed > reach)))
            raise SumOutOfRangeError(f"{outside} of {signed.size} coordinates of a sum are out of range")
        return signed

    def to_units(self, total: SumVector) -> npt.NDArray[np.float64]:
        """A decoded sum in units of the values, dtype float64."""
        units = total.astype(np.float64)
        return np.divide(units, self.scale, out=units)


def _not_above(magnitude: int, dtype: np.dtype[Any]) -> Any:
    """The largest number of a floating-point type that is not above an integer."""
    nearest = dtype.type(magnitude)
    return nearest if int(nearest) <= magnitude else np.nextafter(nearest, dtype.type(0))
