"""The area under a ROC curve from binned, noisy counts, and what binning hides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hansa.fairness.intervals import Estimate, bisect

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Area:
    """An AUC.

    Attributes:
        estimate: of the binned score, ties counted half.
        hidden: the AUC of the score itself is within this of the binned one: half the share of pairs of a positive and
            a negative that fall into one bin. From the noisy counts.
    """

    estimate: Estimate
    hidden: float


def area(positives: Floats, negatives: Floats) -> Floats:
    """AUC of binned scores, ties half. Arrays [..., bins] in, [...] out; NaN without both classes."""
    below = np.cumsum(negatives, axis=-1) - negatives / 2
    pairs = positives.sum(axis=-1) * negatives.sum(axis=-1)
    return np.asarray((positives * below).sum(axis=-1) / np.where(pairs > 0, pairs, np.nan))


def area_bounds(
    positives: Floats,
    negatives: Floats,
    noise: float,
    z: float,
) -> tuple[Floats, Floats, Floats]:
    """The AUC of binned scores and its bounds.

    Which records were drawn is judged as by Newcombe (Stat. Med. 25, 2006, part 2, method 5): Hanley and McNeil's variance at
    the bound. An AUC is a ratio of products of sums, so noise enters by its derivatives: an entry's is its placement among
    the other class less the AUC, over its own class's size; and, since both factors are noisy, by the variance of the
    product of two noises.

    Args:
        positives, negatives: noisy counts, float64 [..., bins].
        noise: variance of each count's noise.
        z: as elsewhere.

    Returns:
        Value, lower and upper bounds, each [...]; NaN, 0 and 1 where a class is empty as far as the sums tell.
    """
    p, n = positives.sum(axis=-1), negatives.sum(axis=-1)
    there = (p > 0) & (n > 0)
    p, n = np.where(there, p, 1.0), np.where(there, n, 1.0)
    raw = area(positives, negatives)
    value = np.clip(np.where(there, raw, 0.5), 0, 1)
    bins = positives.shape[-1]
    placed_p = np.clip((np.cumsum(negatives, axis=-1) - negatives / 2) / n[..., None], 0, 1)
    placed_n = np.clip(1 - (np.cumsum(positives, axis=-1) - positives / 2) / p[..., None], 0, 1)

    # sums over bins of (placement − bound)² and, over pairs of bins, of (order − bound)², as polynomials of the bound
    p_one, p_two = placed_p.sum(axis=-1), (placed_p**2).sum(axis=-1)
    n_one, n_two = placed_n.sum(axis=-1), (placed_n**2).sum(axis=-1)
    above, ties = bins * (bins - 1) / 2, bins  # pairs whose order counts 1, and one half

    def variance(bound: Floats) -> Floats:
        of_p = (p_two - 2 * bound * p_one + bins * bound**2) / p**2
        of_n = (n_two - 2 * bound * n_one + bins * bound**2) / n**2
        both = above + ties / 4 - bound * (2 * above + ties) + bins**2 * bound**2
        return np.asarray(_drawn(bound, p, n) + noise * (of_p + of_n + noise * both / (p * n) ** 2))

    def too_far(bound: Floats) -> npt.NDArray[np.bool_]:
        return np.asarray(np.abs(value - bound) > z * np.sqrt(variance(bound)))

    low = bisect(too_far, np.zeros_like(value), value)
    high = bisect(too_far, np.ones_like(value), value)
    return np.where(there, value, np.nan), np.where(there, low, 0.0), np.where(there, high, 1.0)


def area_estimate(
    positives: Floats, negatives: Floats, noise: float, z: float, lie: float = 0.0
) -> Area | None:
    """One AUC, its interval, and what binning hides; `None` without both classes.

    Lies: over all counts within `lie` of the noisy ones, the AUC is largest and smallest where the bins up to some place are
    moved one way and those above it the other, for each class at its own place (a ratio of linear functions of either
    class, whose weights grow with the bin). All pairs of places are tried.

    Args:
        positives, negatives: noisy counts, float64 [bins].
        noise: variance of each count's noise.
        z: as elsewhere.
        lie: how far lies can have moved each count.
    """
    value, low, high = (float(x) for x in area_bounds(positives, negatives, noise, z))
    if np.isnan(value):
        return None
    tied = float((np.maximum(positives, 0) * np.maximum(negatives, 0)).sum())
    hidden = min(0.5, tied / (2 * float(positives.sum() * negatives.sum())))
    if lie == 0:
        return Area(Estimate.of(value, min(low, value), max(high, value)), hidden)
    bottom, lowest = _worst(positives, negatives, noise, z, lie, up=False)
    top, highest = _worst(positives, negatives, noise, z, lie, up=True)
    return Area(
        Estimate(value, min(lowest, low), max(highest, high), min(bottom, value), max(top, value)), hidden
    )


def _drawn(bound: Floats, p: Floats, n: Floats) -> Floats:
    """Hanley and McNeil's variance of an AUC (1982), both sizes replaced by their mean; it falls with both sizes."""
    mean_size = np.maximum((p + n) / 2 - 1, 0)
    shape = (1 - bound) / (2 - bound) + bound / (1 + bound)
    return np.asarray(bound * (1 - bound) * (1 + mean_size * shape) / (p * n))


def _worst(
    positives: Floats, negatives: Floats, noise: float, z: float, lie: float, *, up: bool
) -> tuple[float, float]:
    """The most that the AUC can be without the lies (or the least), and a bound of the interval around any such.

    The bound takes the spread at the smallest sizes that the classes can have, and every placement as far away as can be.
    """
    bins = len(positives)
    step = np.where(np.arange(bins)[None, :] < np.arange(bins + 1)[:, None], -1.0, 1.0) * (1 if up else -1)
    p = np.maximum(positives + lie * step, 0)[:, None, :]
    n = np.maximum(negatives - lie * step, 0)[None, :, :]
    p, n = (np.broadcast_to(x, (bins + 1, bins + 1, bins)) for x in (p, n))
    p_least, n_least = (np.asarray(x.sum() - lie * bins) for x in (positives, negatives))
    if p_least <= 0 or n_least <= 0:
        return (1.0, 1.0) if up else (0.0, 0.0)
    values = area(p, n)
    value = np.asarray(np.nanmax(values) if up else np.nanmin(values))

    def too_far(bound: Floats) -> npt.NDArray[np.bool_]:
        away = np.maximum(bound, 1 - bound) ** 2
        noisy = (
            noise
            * away
            * (bins / p_least**2 + bins / n_least**2 + bins**2 * noise / (p_least * n_least) ** 2)
        )
        return np.asarray(np.abs(value - bound) > z * np.sqrt(_drawn(bound, p_least, n_least) + noisy))

    return float(value), float(bisect(too_far, np.asarray(1.0 if up else 0.0), value))
