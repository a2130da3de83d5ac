"""The discrete Gaussian on the integers, from a cryptographic stream, and how far from it the draws are.

Draws are made by rejection under a staircase of integer steps (`hansa.privacy.staircase`), where every comparison is
decided as if it were made between real numbers. What comes out is the discrete Gaussian cut at R ≥ 20σ, exactly,
given uniform bits. The cut moves it by P(K < −R or K ≥ R) ≤ 2·exp(−R² / 2σ²) in total variation, since a discrete
Gaussian is sub-Gaussian with its own parameter (Canonne, Kamath, Steinke, arXiv 2004.00010, section 2).

What that adds to δ is `delta_of_draws`. It is below 1e-10 of any δ ≥ 1e-30 at any ε ≤ 50 and over 2^63 draws (a test
says so), so that no account mentions it. docs/noise.md has the derivations.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from hansa.errors import PrivacyParameterError
from hansa.privacy.staircase import REACH, Staircase, staircase
from hansa.privacy.streams import WordStream

SMALLEST_SIGMA = 20.0  # below, a sum of draws is no longer one draw of the summed variance (to 1e-30)
LARGEST_SIGMA = 2.0**40  # 20σ in float64 is an integer, and a word holds a slot and an offset
_BLOCK = 1 << 16  # draws per pass: the working arrays stay in the cache, and calls of numpy are few


def discrete_gaussian(stream: WordStream, sigma: float, size: int) -> npt.NDArray[np.int64]:
    """Independent draws with probability proportional to exp(−k² / 2 sigma²) over the integers.

    Args:
        stream: cryptographic, and read by nothing else.
        sigma: parameter in grid units, from `SMALLEST_SIGMA` to `LARGEST_SIGMA`.
        size: number of draws.

    Returns:
        int64 array of shape (size,).

    Raises:
        PrivacyParameterError: `sigma` is out of range.

    Guarantees: the distribution is within `statistical_distance(sigma, size)` of the one above, if the stream's words
        are uniform and independent.
    Leaks: time and memory depend on `sigma` and `size`, and a little on which draws were refused, never on data.

    Source: the distribution is Canonne, Kamath, Steinke (arXiv 2004.00010); the sampler is derived in `staircase`.
    """
    _check(sigma)
    out = np.empty(size, dtype=np.int64)
    _fill(stream, staircase(float(sigma)), out)
    return out


def _fill(stream: WordStream, steps: Staircase, out: npt.NDArray[np.int64]) -> None:
    refused = [
        start + steps.propose(stream, out[start : start + _BLOCK]) for start in range(0, len(out), _BLOCK)
    ]
    again = np.concatenate([np.empty(0, dtype=np.int64), *refused])
    if len(again):  # about 3 in 100: a place keeps asking until it is given something
        draws = np.empty(len(again), dtype=np.int64)
        _fill(stream, steps, draws)
        out[again] = draws


def statistical_distance(sigma: float, draws: int) -> float:
    """Total variation distance between so many draws and the same of the exact distribution, at most.

    Raises:
        PrivacyParameterError: `sigma` is out of range.
    """
    _check(sigma)
    return min(1.0, draws * 2 * math.exp(-REACH * REACH / 2))


def delta_of_draws(epsilon: float, sigma: float, draws: int) -> float:
    """What the distance adds to the δ of a mechanism that is (ε, δ)-DP with exact draws.

    If M' is within η of M on every input and M is (ε, δ)-DP, then P[M'(D) ∈ S] ≤ P[M(D) ∈ S] + η ≤
    e^ε·P[M(D') ∈ S] + δ + η ≤ e^ε·P[M'(D') ∈ S] + δ + (1 + e^ε)·η.

    Raises:
        PrivacyParameterError: `sigma` is out of range.
    """
    distance = statistical_distance(sigma, draws)
    return min(1.0, distance * (1 + math.exp(epsilon))) if epsilon < 700 else 1.0


def _check(sigma: float) -> None:
    if not SMALLEST_SIGMA <= sigma <= LARGEST_SIGMA:
        raise PrivacyParameterError(
            f"noise of standard deviation {sigma:g} grid units is outside [{SMALLEST_SIGMA:g}, {LARGEST_SIGMA:g}]",
            remedy="Choose a finer grid or more noise.",
        )
