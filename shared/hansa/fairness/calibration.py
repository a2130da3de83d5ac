"""How far scores are from the frequencies that they claim, from binned, noisy counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hansa.fairness.intervals import Estimate, share

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CurvePoint:
    """One bin of a calibration curve.

    Attributes:
        low_edge, high_edge: scores of the bin.
        centre: stands for the scores in it.
        rows: noisy count.
        frequency: of the class among them, with its interval; `None` if the bin is empty as far as the sums tell.
    """

    low_edge: float
    high_edge: float
    centre: float
    rows: float
    frequency: Estimate | None


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error, binned.

    Attributes:
        estimate: Σ |hits − centre·rows| / Σ rows over bins. Noise and few records make it larger, never smaller on
            average; the interval's lower end takes that off.
        expected_if_perfect: what the error would be on average if every bin's frequency were its centre.
        hidden: half the widest bin: by how much centres can be wrong about the scores in a bin.
    """

    estimate: Estimate
    expected_if_perfect: float
    hidden: float


def curve(
    hits: Floats, misses: Floats, edges: tuple[float, ...], noise: float, z: float
) -> tuple[CurvePoint, ...]:
    """A calibration curve.

    Args:
        hits, misses: noisy counts of rows of the class and not, float64 [bins].
        edges: inner edges of bins.
        noise: variance of each count's noise.
        z: of each point's own interval.
    """
    ends = (0.0, *edges, 1.0)
    return tuple(
        CurvePoint(low, high, (low + high) / 2, float(h + m), share(float(h), float(m), noise, noise, z))
        for low, high, h, m in zip(ends[:-1], ends[1:], hits, misses, strict=True)
    )


def calibration_error(
    hits: Floats, misses: Floats, edges: tuple[float, ...], noise: float, z: float, lie: float = 0.0
) -> Calibration | None:
    """Expected calibration error with an interval that covers at least as often as asked.

    With d_b = hits − centre·rows, Σ|d̂_b| is off from Σ|d_b| by at most Σ|d̂_b − d_b|, a sum of |normal| whose mean and variance
    are Σ s_b·√(2/π) and Σ s_b²·(1 − 2/π). A high quantile of it is taken on both sides.

    Args:
        hits, misses: noisy counts, float64 [bins].
        edges: inner edges of bins.
        noise: variance of each count's noise.
        z: as elsewhere.
        lie: how far lies can have moved each count. Each moves |d_b| by at most `lie` in all, and Σ rows by 2·`lie`·bins.

    Returns:
        `None` if there are no rows as far as the sums tell.
    """
    ends = np.array((0.0, *edges, 1.0))
    centres = (ends[:-1] + ends[1:]) / 2
    rows, bins = hits + misses, len(hits)
    total = float(rows.sum())
    if not total > 0:
        return None
    noisy = noise * ((1 - centres) ** 2 + centres**2)
    drawn = np.maximum(hits + lie, 0) * (1 - centres) ** 2 + np.maximum(misses + lie, 0) * centres**2
    sd = np.sqrt(drawn + noisy)
    off = float(np.abs(hits - centres * rows).sum())
    least = total - 2 * lie * bins
    bottom, top = (
        max(0.0, off - lie * bins) / (total + 2 * lie * bins),
        min(1.0, (off + lie * bins) / least) if least > 0 else 1.0,
    )
    reach = math.sqrt(2 / math.pi) * float(sd.sum())
    reach += z * math.sqrt(float((sd**2).sum()) * (1 - 2 / math.pi))
    reach += z * top * math.sqrt(2 * noise * bins)
    reach = reach / least if least > 0 else 1.0
    perfect = np.sqrt(np.maximum(rows, 0) * centres * (1 - centres) + noisy)
    return Calibration(
        Estimate(
            min(1.0, off / total), max(0.0, bottom - reach), min(1.0, top + reach), min(1.0, bottom), top
        ),
        float(perfect.sum()) * math.sqrt(2 / math.pi) / total,
        float(np.diff(ends).max()) / 2,
    )
