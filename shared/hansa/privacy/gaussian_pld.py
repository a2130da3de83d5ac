"""The privacy loss distribution of one Gaussian on a sample, computed for a whole grid of losses at once.

`dp_accounting` finds the point of each privacy loss one by one, in Python, which is most of what an ε costs. Everything else
here is that library's. Only this module imports it at its top, and is itself imported when an ε is computed.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from dp_accounting.pld.pld_pmf import PLDPmf, create_pmf_pessimistic_connect_dots_fixed_gap
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss


def gaussian_pld(multiplier: float, rate: float, interval: float) -> PrivacyLossDistribution:
    """The pessimistic PLD of one Gaussian on a Poisson sample, add-or-remove-one.

    Args:
        multiplier: standard deviation over L2 sensitivity.
        rate: of the sample, in (0, 1]; 1 is no sampling.
        interval: of the discretised privacy loss.

    Raises:
        ValueError, ArithmeticError: the library cannot compute it.

    Source: `from_gaussian_mechanism` of `dp_accounting` 0.6.0, by connect-the-dots (arXiv 2207.04380). The answers are equal
        (`tests/unit/test_privacy_gaussian_pld.py`).
    """
    removed = _pmf(multiplier, rate, interval, AdjacencyType.REMOVE)
    if rate == 1:
        return PrivacyLossDistribution(removed)  # adding is as removing
    return PrivacyLossDistribution(removed, _pmf(multiplier, rate, interval, AdjacencyType.ADD))


def _pmf(multiplier: float, rate: float, interval: float, adjacency: AdjacencyType) -> PLDPmf:
    loss = GaussianPrivacyLoss(multiplier, sampling_prob=rate, adjacency_type=adjacency)
    bounds = loss.connect_dots_bounds()
    lowest, highest = (
        math.floor(bounds.epsilon_lower / interval),
        math.ceil(bounds.epsilon_upper / interval),
    )
    deltas = _divergences(loss, multiplier, np.arange(lowest, highest + 1) * interval)
    return create_pmf_pessimistic_connect_dots_fixed_gap(interval, lowest, highest, deltas)


def _divergences(
    loss: GaussianPrivacyLoss, multiplier: float, epsilons: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """δ(ε) of the mechanism at each ε: P(x ≤ c) − e^ε·Q(x ≤ c), c the point whose privacy loss is ε.

    Args:
        loss: with sensitivity 1.
        epsilons: float64 [n].

    Returns:
        float64 [n], in [0, 1].
    """
    rate, adding = loss.sampling_prob, loss.adjacency_type == AdjacencyType.ADD
    farthest = math.inf if rate == 1 else -math.log1p(-rate)  # no loss is above it where a unit is added
    within = epsilons < farthest if adding else epsilons > -farthest
    found = np.zeros_like(epsilons) if adding else -np.expm1(np.minimum(epsilons, 0))
    inside = epsilons[within]
    unsampled = -_unsampled(-inside, rate) if adding else _unsampled(inside, rate)
    points = -0.5 - unsampled * multiplier**2 + adding
    found[within] = loss.mu_upper_cdf(points) - np.exp(inside + loss.mu_lower_log_cdf(points))
    clipped: npt.NDArray[np.float64] = np.clip(found, 0, 1)
    return clipped


def _unsampled(losses: npt.NDArray[np.float64], rate: float) -> npt.NDArray[np.float64]:
    """The loss without sampling, log(1 + (e^ε − 1)/q), of losses above log(1 − q); −∞ next to that."""
    if rate == 1:
        return losses
    shifted = losses + np.log(1 / rate)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: npt.NDArray[np.float64] = shifted + np.log1p(-np.exp(np.log(1 / rate - 1) - shifted))
    found[losses == 0] = 0.0
    found[np.isnan(found) | np.isclose(losses, math.log1p(-rate), rtol=1e-9, atol=0)] = -math.inf
    return found
