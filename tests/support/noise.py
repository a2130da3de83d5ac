"""Statistical tests of noise, as functions: they pass the sampler and must catch every broken one.

Each test takes draws that are claimed to be of the discrete Gaussian of a parameter and gives a p-value. Draws come from
fixed public keys, so a test that passes once passes always; `SUSPICIOUS` is what a correct sampler falls below once in
a million tests. Expected counts are exact: of the discrete Gaussian itself below σ = 2048, of the normal between half
integers above, where the two differ by less than 1e-8 of a probability.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import stats

Draws = npt.NDArray[np.int64]
Check = Callable[[Draws, float], float]

SUSPICIOUS = 1e-6
_EXACT_BELOW = 2048.0
_RARE = 20.0  # draws that are expected in a cell, at least


def pmf(sigma: float) -> tuple[Draws, npt.NDArray[np.float64]]:
    """The integers within 13σ and their probabilities."""
    support = np.arange(-math.ceil(13 * sigma), math.ceil(13 * sigma) + 1)
    weights = np.exp(-(support.astype(np.float64) ** 2) / (2 * sigma * sigma))
    return support, weights / weights.sum()


def below(edges: Draws, sigma: float) -> npt.NDArray[np.float64]:
    """P(K < edge) for each edge."""
    if sigma >= _EXACT_BELOW:
        return np.asarray(stats.norm.cdf((edges - 0.5) / sigma))
    support, probabilities = pmf(sigma)
    total = np.concatenate([[0.0], np.cumsum(probabilities)])
    return np.asarray(total[np.clip(edges - support[0], 0, len(support))])


def by_mean(draws: Draws, sigma: float) -> float:
    z = draws.mean() / sigma * math.sqrt(len(draws))
    return float(2 * stats.norm.sf(abs(z)))


def by_variance(draws: Draws, sigma: float) -> float:
    """The second moment about 0; the discrete Gaussian's is σ² to exp(−2π²σ²)."""
    z = (np.mean((draws / sigma) ** 2) - 1) * math.sqrt(len(draws) / 2)
    return float(2 * stats.norm.sf(abs(z)))


def by_skewness(draws: Draws, sigma: float) -> float:
    z = np.mean((draws / sigma) ** 3) * math.sqrt(len(draws) / 15)
    return float(2 * stats.norm.sf(abs(z)))


def by_kurtosis(draws: Draws, sigma: float) -> float:
    z = (np.mean((draws / sigma) ** 4) - 3) * math.sqrt(len(draws) / 96)
    return float(2 * stats.norm.sf(abs(z)))


def by_tails(draws: Draws, sigma: float) -> float:
    """How many lie beyond 2, 3, 4 and 4.5σ, on each side and on both, each by an exact binomial test."""
    worst = 1.0
    for deviations in (2.0, 3.0, 4.0, 4.5):
        edge = math.ceil(deviations * sigma)
        beyond = float(below(np.array([-edge + 1]), sigma)[0])
        above, under = int((draws >= edge).sum()), int((draws <= -edge).sum())
        for found, sides in ((above, 1), (under, 1), (above + under, 2)):
            worst = min(worst, float(stats.binomtest(found, len(draws), sides * beyond).pvalue))
    return min(1.0, 12 * worst)


def by_cells(draws: Draws, sigma: float) -> float:
    """Chi-square over cells of σ/16, single integers at small σ; cells where few are expected count as one."""
    width = max(1, math.floor(sigma / 16))
    edges = np.arange(-math.ceil(6 * sigma / width), math.ceil(6 * sigma / width) + 1) * width
    expected = np.diff(below(edges, sigma)) * len(draws)
    observed = np.diff(np.searchsorted(np.sort(draws), edges))
    often = expected >= _RARE
    wanted = np.append(expected[often], len(draws) - expected[often].sum())
    found = np.append(observed[often], len(draws) - observed[often].sum())
    return float(stats.chisquare(found, wanted, sum_check=False).pvalue)


def by_kolmogorov_smirnov(draws: Draws, sigma: float) -> float:
    """Against the exact distribution function at the integers; for a discrete law the p-value is an upper bound."""
    values, counts = np.unique(draws, return_counts=True)
    exact = below(values + 1, sigma)
    distance = float(np.max(np.abs(np.cumsum(counts) / len(draws) - exact)))
    return float(stats.kstwobign.sf(distance * math.sqrt(len(draws))))


def by_low_bits(draws: Draws, sigma: float) -> float:
    """Chi-square of the residues modulo 8: uniform to exp(−2π²σ²/64) < 4e-54 from σ = 20 on."""
    return float(stats.chisquare(np.bincount(draws & 7, minlength=8)).pvalue)


def by_correlation(draws: Draws, sigma: float) -> float:
    """The largest correlation between a draw and a later one, over all lags up to half the length."""
    scaled = draws / sigma
    length = len(scaled)
    spectrum = np.fft.rfft(scaled, 2 * length)
    lagged = np.fft.irfft(np.abs(spectrum) ** 2)[1 : length // 2]
    z = np.abs(lagged) / np.sqrt(length - np.arange(1, length // 2))
    return float(min(1.0, len(z) * 2 * stats.norm.sf(z.max())))


def by_magnitudes(draws: Draws, sigma: float) -> float:
    """The same of the squares, whose correlation a change of sign does not hide."""
    squares = (draws / sigma) ** 2 - 1
    return by_correlation(np.rint(squares * 1e6).astype(np.int64), math.sqrt(2) * 1e6)


CHECKS: dict[str, Check] = {
    "mean": by_mean,
    "variance": by_variance,
    "skewness": by_skewness,
    "kurtosis": by_kurtosis,
    "tails": by_tails,
    "cells": by_cells,
    "kolmogorov-smirnov": by_kolmogorov_smirnov,
    "low bits": by_low_bits,
    "correlation": by_correlation,
    "magnitudes": by_magnitudes,
}


def suspicious(draws: Draws, sigma: float) -> dict[str, float]:
    """The checks that the draws fail, with their p-values."""
    found = {name: check(draws, sigma) for name, check in CHECKS.items()}
    return {name: value for name, value in found.items() if not value > SUSPICIOUS}


def between(streams: npt.NDArray[np.int64], sigma: float) -> float:
    """The p-value of the largest correlation between any two rows of draws."""
    rows, length = streams.shape
    scaled = streams / sigma
    z = np.abs(scaled @ scaled.T)[np.triu_indices(rows, 1)] / math.sqrt(length)
    return float(min(1.0, len(z) * 2 * stats.norm.sf(z.max())))
