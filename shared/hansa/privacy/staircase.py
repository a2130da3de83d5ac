"""The staircase under which a discrete Gaussian is drawn, and the decision whether a proposal lies below the curve.

Integers are cut into steps of equal width 2^m, from −R to R − 1, with R at least 20σ. For the curve g(k) = c·exp(−k² /
2σ²) each step b has two whole numbers, low_b ≤ g(k) ≤ high_b for all k in b. Of 2^16 equally likely slots, low_b point
to step b for certain and high_b − low_b with a condition. A 64-bit word is one proposal: its 16 highest bits choose the
slot, its m lowest bits the integer within the step. A conditional proposal is kept if V·(high_b − low_b) + low_b < g(k)
for a uniform V of [0, 1); a certain one always is. So k is proposed and kept with a probability proportional to
low_b + (g(k) − low_b) = g(k): the discrete Gaussian cut at R, with no error from the table, whose entries are integers.

V is a real number of which as many bits are drawn as the comparison needs: float64 decides where the two sides are
further apart than 2^-24, of V's scale, and else `is_below` draws on and compares in exact arithmetic.
Errors of the float64 side: with y = k²/2σ² ≤ 201, c ≤ 1308 and an exp that is right to 2^-40 (a test holds numpy's
against `decimal`), g(k) is off by at most c·exp(−y)·(y·2^-51 + 2^-40 + 2^-52) < 2^-29, V by 2^-53.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from hansa.privacy.streams import WordStream

REACH = 20.0  # in standard deviations: P(|K| ≥ 20σ) ≤ 2·exp(−200) < 2.8e-87
SLOT_BITS = 16
SLOTS = 1 << SLOT_BITS
_SLOT_SHIFT = np.uint64(64 - SLOT_BITS)
_STEPS_PER_SIGMA = 5  # log2: a step is between 1/64 and 1/32 of σ wide, or a single integer
_SAFE = 1e-9  # relative, between the curve as float64 has it and the whole numbers around it
_UNSURE = 2.0**-24
_BITS = 64  # of V, drawn at a time

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Staircase:
    """The table for one σ. Made by `staircase`.

    Attributes:
        sigma: the parameter, in grid units.
        height: c; with the steps it decides how often a proposal is refused, not what is drawn.
        width_bits: m.
        certain: slots that need no condition are those below.
        first: int64 [2^16], the smallest integer of each slot's step.
        low: float64 [2^16 − certain], low_b of each conditional slot.
        rise: float64 [2^16 − certain], high_b − low_b, at least 1.
    """

    sigma: float
    height: float
    width_bits: int
    certain: int
    first: Integers = field(repr=False)
    low: npt.NDArray[np.float64] = field(repr=False)
    rise: npt.NDArray[np.float64] = field(repr=False)

    def propose(self, stream: WordStream, out: Integers) -> Integers:
        """Overwrite `out` with proposals.

        Args:
            stream: read for as many words as `out` has entries, then for those that conditions need.
            out: int64 [n], C-contiguous.

        Returns:
            int64, the places in `out` whose proposal is refused. All others hold independent draws, whatever was
            refused.
        """
        words = np.empty(len(out), dtype=np.uint64)
        stream.fill(words)
        slots = np.right_shift(words, _SLOT_SHIFT).view(np.int64)
        words &= np.uint64((1 << self.width_bits) - 1)
        np.take(self.first, slots, out=out, mode="wrap")  # modes other than "raise" write without a buffer
        out += words.view(np.int64)
        conditional = np.flatnonzero(slots >= self.certain)
        return conditional[~self._kept(stream, out[conditional], slots[conditional] - self.certain)]

    def _kept(self, stream: WordStream, k: Integers, slots: Integers) -> npt.NDArray[np.bool_]:
        drawn = np.empty(len(k), dtype=np.uint64)
        stream.fill(drawn)
        low, rise = self.low[slots], self.rise[slots]
        margin = k / self.sigma
        margin *= margin
        margin *= -0.5
        np.exp(margin, out=margin)
        margin *= self.height
        margin -= low
        margin /= rise
        margin -= drawn * 2.0**-_BITS
        kept = margin > 0
        for place in np.flatnonzero(np.abs(margin) <= _UNSURE):
            kept[place] = is_below(
                stream, int(drawn[place]), int(k[place]), int(low[place]), int(rise[place]), self
            )
        return kept


def is_below(stream: WordStream, drawn: int, k: int, low: int, rise: int, steps: Staircase) -> bool:
    """Whether V·rise + low < c·exp(−k² / 2σ²), exactly.

    Args:
        stream: of V's further bits.
        drawn: V's first 64 bits.
        k, low, rise: of the proposal.
        steps: of σ and c, which are the rational numbers that the two floats stand for.
    """
    sigma, height = Fraction(steps.sigma), Fraction(steps.height)
    exponent = Fraction(k * k) / (2 * sigma * sigma)
    value, bits = drawn, _BITS
    word = np.empty(1, dtype=np.uint64)
    while True:
        below, above = _around_exponential(exponent, bits)
        if Fraction(value + 1, 1 << bits) * rise + low <= height * below:
            return True
        if Fraction(value, 1 << bits) * rise + low >= height * above:
            return False
        stream.fill(word)
        value, bits = (value << _BITS) | int(word[0]), bits + _BITS


def _around_exponential(exponent: Fraction, bits: int) -> tuple[Fraction, Fraction]:
    """Two numbers around exp(−exponent), closer to each other than V's last bit; 0 ≤ exponent ≤ 1000."""
    with localcontext() as context:
        context.prec = bits // 3 + 10
        value = (-(Decimal(exponent.numerator) / Decimal(exponent.denominator))).exp()
        # the division is right to 10^(1 − prec) of at most 1000, exp itself to one more 10^(1 − prec)
        slack = Fraction(1001, 10 ** (context.prec - 1))
    return Fraction(value) * (1 - slack), Fraction(value) * (1 + slack)


@lru_cache(maxsize=40)  # parts of noise have a table each, 34 at most in a league of 100
def staircase(sigma: float) -> Staircase:
    """The table for one σ of 20 to 2^40: half a megabyte, in about a millisecond."""
    width_bits = max(0, math.frexp(sigma)[1] - 1 - _STEPS_PER_SIGMA)
    width = 1 << width_bits
    count = math.ceil(REACH * sigma / width)
    starts = np.arange(-count, count, dtype=np.int64) * width
    ends = starts + (width - 1)
    nearest = _curve(np.where(starts >= 0, starts, ends), sigma)
    farthest = _curve(np.where(starts >= 0, ends, starts), sigma)
    height = _height(nearest, SLOTS * width / (sigma * math.sqrt(2 * math.pi)))
    low = np.floor(height * farthest * (1 - _SAFE)).astype(np.int64)
    high = _ceiling(height, nearest)
    high[count] += SLOTS - int(high.sum())  # slots that are left over refuse: they stand above the curve
    first = np.concatenate([np.repeat(starts, low), np.repeat(starts, high - low)])
    steps = Staircase(
        sigma=sigma,
        height=height,
        width_bits=width_bits,
        certain=int(low.sum()),
        first=first,
        low=np.repeat(low, high - low).astype(np.float64),
        rise=np.repeat(high - low, high - low).astype(np.float64),
    )
    for array in (steps.first, steps.low, steps.rise):
        array.flags.writeable = False
    return steps


def _curve(k: Integers, sigma: float) -> npt.NDArray[np.float64]:
    scaled = k / sigma
    return np.exp(-0.5 * scaled * scaled)


def _ceiling(height: float, nearest: npt.NDArray[np.float64]) -> Integers:
    return np.ceil(height * nearest * (1 + _SAFE)).astype(np.int64)


def _height(nearest: npt.NDArray[np.float64], without_loss: float) -> float:
    """The largest c, nearly, whose steps fit in the slots."""
    fits, fails = 0.0, without_loss
    for _ in range(20):
        middle = (fits + fails) / 2
        if int(_ceiling(middle, nearest).sum()) <= SLOTS:
            fits = middle
        else:
            fails = middle
    return fits
