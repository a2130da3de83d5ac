"""Intervals around what is computed from noisy counts: which records were drawn, the noise, and lies within caps.

All are score intervals: a value is in the interval if the sums are not too far from what that value would let one expect,
with the variance that this value implies. A ratio is never divided by its noisy denominator to get a spread (Fieller):
value v of h / (h + m) is judged by f(v) = (1 − v)·h − v·m, whose variance under v is n·v(1 − v) for which records were
drawn (Wilson) plus (1 − v)²·V_h + v²·V_m for the noise. docs/fairness.md derives what lies add.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_TURNS = 40  # of a bisection: 2^-40 of the width


@dataclass(frozen=True)
class Estimate:
    """A value and its interval.

    Attributes:
        value: computed from the noisy sums as they are.
        low, high: the interval. With liars allowed for, it holds whatever they did within their caps.
        value_low, value_high: between which the value would lie without the lies; both `value` if nobody lies.
    """

    value: float
    low: float
    high: float
    value_low: float
    value_high: float

    @classmethod
    def of(cls, value: float, low: float, high: float) -> Estimate:
        """An estimate without lies."""
        return cls(value, low, high, value, value)

    @property
    def half_width(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


def share_bounds(
    hits: npt.ArrayLike,
    misses: npt.ArrayLike,
    hits_noise: npt.ArrayLike,
    misses_noise: npt.ArrayLike,
    z: float,
    hits_lie: npt.ArrayLike = 0.0,
    misses_lie: npt.ArrayLike = 0.0,
) -> tuple[Floats, Floats]:
    """Bounds of hits / (hits + misses), where both are noisy. All arguments broadcast.

    Args:
        hits, misses: noisy counts of disjoint records.
        hits_noise, misses_noise: variance of their noise, in records².
        z: how many standard deviations are not too far.
        hits_lie, misses_lie: how far lies can have moved each.

    Returns:
        Lower and upper bounds in [0, 1]; 0 and 1 where the number of records is not above its noise's mean, 0.
    """
    h, m, vh, vm, lh, lm = (
        np.asarray(x, dtype=np.float64)
        for x in (hits, misses, hits_noise, misses_noise, hits_lie, misses_lie)
    )
    low = _lower(h, m, vh, vm, z, lh, lm)
    return low, 1 - _lower(m, h, vm, vh, z, lm, lh)


def _lower(h: Floats, m: Floats, vh: Floats, vm: Floats, z: float, lh: Floats, lm: Floats) -> Floats:
    """The smallest value that is not too far. With `z·√ + lies` on one side, f crosses it once below its own zero."""
    n = h + m
    most = np.maximum(n + lh + lm, 0)
    value = np.where(n > 0, np.clip(h / np.where(n > 0, n, 1), 0, 1), 0.0)

    def too_far(v: Floats) -> npt.NDArray[np.bool_]:
        spread = most * v * (1 - v) + vh * (1 - v) ** 2 + vm * v**2
        return np.asarray((1 - v) * h - v * m > z * np.sqrt(spread) + lh * (1 - v) + lm * v)

    return bisect(too_far, np.zeros_like(value + z), value)


def bisect(too_far: Callable[[Floats], npt.NDArray[np.bool_]], outside: Floats, inside: Floats) -> Floats:
    """Between a bound that may be too far and a value that is not; the bound itself where it is not too far."""
    outside, inside = (np.array(x, dtype=np.float64) for x in np.broadcast_arrays(outside, inside))
    kept = ~too_far(outside)
    reached = outside.copy()
    for _ in range(_TURNS):
        middle = (outside + inside) / 2
        far = too_far(middle)
        outside = np.where(far, middle, outside)
        inside = np.where(far, inside, middle)
    return np.where(kept, reached, outside)


def share(
    hits: float,
    misses: float,
    hits_noise: float,
    misses_noise: float,
    z: float,
    hits_lie: float = 0.0,
    misses_lie: float = 0.0,
) -> Estimate | None:
    """One share with its interval, as `share_bounds`; `None` if there are no records as far as the sums tell."""
    n = hits + misses
    if not n > 0:
        return None
    low, high = share_bounds(hits, misses, hits_noise, misses_noise, z, hits_lie, misses_lie)
    value = min(max(hits / n, 0.0), 1.0)
    return Estimate(
        value,
        min(float(low), value),
        max(float(high), value),
        _share_at(hits - hits_lie, misses + misses_lie),
        _share_at(hits + hits_lie, misses - misses_lie),
    )


def _share_at(hits: float, misses: float) -> float:
    hits, misses = max(hits, 0.0), max(misses, 0.0)
    return hits / (hits + misses) if hits + misses > 0 else 0.0


def difference(first: Estimate, second: Estimate) -> Estimate:
    """`first` − `second`, of disjoint records, by MOVER (Zou and Donner, Stat. Med. 27, 2008; Newcombe's hybrid score).

    With lies it is MOVER at the worst the two values can be: p₁ − p₂ + √((u₁ − p₁)² + (p₂ − l₂)²) grows with p₁ and u₁ and
    falls with p₂ and l₂, so its largest value is at the largest of the former and the smallest of the latter.
    """
    top = first.value_high - second.value_low
    bottom = first.value_low - second.value_high
    up = math.hypot(first.high - first.value_high, second.value_low - second.low)
    down = math.hypot(first.value_low - first.low, second.high - second.value_high)
    return Estimate(first.value - second.value, max(-1.0, bottom - down), min(1.0, top + up), bottom, top)


def mean(parts: list[Estimate]) -> Estimate:
    """The mean of estimates on disjoint records, by MOVER."""
    n = len(parts)
    low, high = (math.fsum(getattr(p, name) for p in parts) / n for name in ("value_low", "value_high"))
    down = math.sqrt(math.fsum((p.value_low - p.low) ** 2 for p in parts)) / n
    up = math.sqrt(math.fsum((p.high - p.value_high) ** 2 for p in parts)) / n
    value = math.fsum(p.value for p in parts) / n
    return Estimate(value, max(0.0, low - down), min(1.0, high + up), low, high)


def ratio(first: Estimate, second: Estimate) -> Estimate:
    """`first` / `second`, of disjoint records: the θ for which 0 is in MOVER's interval of first − θ·second.

    The upper bound is infinite where the denominator's interval reaches 0.

    Source: Donner and Zou, "Closed-form confidence intervals for functions of the normal mean and standard deviation",
        Stat. Methods Med. Res. 21 (2012), section 3.
    """
    p, q, low, high = first.value_low, second.value_high, first.low, second.high
    above, under = p * p - (p - low) ** 2, q * q - (high - q) ** 2
    root = p * q + math.sqrt(max(0.0, (p * q) ** 2 - above * under))
    bottom = max(0.0, above / root) if root > 0 else 0.0
    p, q, high, low = first.value_high, second.value_low, first.high, second.low
    above, under = p * p - (high - p) ** 2, q * q - (q - low) ** 2
    root = p * q + math.sqrt(max(0.0, (p * q) ** 2 - above * under))
    top = root / under if under > 0 else math.inf
    value = first.value / second.value if second.value > 0 else math.inf
    return Estimate(
        value,
        bottom,
        top,
        first.value_low / second.value_high if second.value_high > 0 else math.inf,
        first.value_high / second.value_low if second.value_low > 0 else math.inf,
    )


def paired_bounds(
    lost: npt.ArrayLike,
    won: npt.ArrayLike,
    records: npt.ArrayLike,
    z: float,
    entries: tuple[float, float, float] = (0, 0, 0),
    noise: float = 0.0,
    lie: float = 0.0,
) -> tuple[Floats, Floats]:
    """Bounds of (lost − won) / records: by how much one model is right less often than another on the same records.

    Args:
        lost: noisy count of records on which only the other is right.
        won: on which only this one is right.
        records: all of them.
        z: as elsewhere.
        entries: table entries under `lost`, `won` and the rest.
        noise: variance of the noise of an entry.
        lie: how far lies can have moved an entry.

    Returns:
        Bounds in [−1, 1]. Without noise and lies, the score interval of Tango (Stat. Med. 17, 1998).
    """
    b, c, n = (np.asarray(x, dtype=np.float64) for x in (lost, won, records))
    low = -_paired_upper(c, b, n, z, (entries[1], entries[0], entries[2]), noise, lie)
    return low, _paired_upper(b, c, n, z, entries, noise, lie)


def _paired_upper(
    b: Floats, c: Floats, n: Floats, z: float, entries: tuple[float, float, float], noise: float, lie: float
) -> Floats:
    e_b, e_c, e_0 = entries
    b0, c0 = (np.maximum(x + e * lie, 0) for x, e in ((b, e_b), (c, e_c)))
    most = np.maximum(np.maximum(n + lie * sum(entries), b0 + c0), 1e-9)
    value = np.where(n > 0, np.clip((b - c) / np.where(n > 0, n, 1), -1, 1), 1.0)

    def too_far(v: Floats) -> npt.NDArray[np.bool_]:
        # share of `won` that is most likely given v
        linear = -b0 - c0 + (2 * most - b0 + c0) * v
        q = (np.sqrt(np.maximum(linear**2 + 8 * most * c0 * v * (1 - v), 0)) - linear) / (4 * most)
        spread = most * np.maximum(2 * q + v * (1 - v), 0)
        spread = spread + noise * (e_b * (1 - v) ** 2 + e_c * (1 + v) ** 2 + e_0 * v**2)
        lies = lie * (e_b * np.abs(1 - v) + e_c * np.abs(1 + v) + e_0 * np.abs(v))
        return np.asarray(n * v - (b - c) > z * np.sqrt(spread) + lies)

    return bisect(too_far, np.ones_like(value), value)
