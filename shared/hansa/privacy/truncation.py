"""What a largest batch costs: the Poisson sample of a step, cut to B units by a uniformly random choice.

A unit that is added to n − 1 others, n ≤ N, is in the sample with probability q. Let K be how many of the others are in
it. If K < B nothing is cut, and the step is the Poisson-sampled Gaussian of rate q. If K ≥ B, the unit gets into the
batch with probability p ≤ q and then takes the place of another: the sum moves by up to twice the norm of one
contribution. Which B of the others are in the batch is uniform whatever K is, so that p is all that the sample's size
changes. Telling the attacker which of the two cases it is can only help; so each step is dominated by the mixture

    with probability 1 − t   a Poisson-sampled Gaussian of rate q,
    with probability t       the same with steps twice as long, that is with half the noise multiplier,

where t = P[Binomial(N − 1, q) ≥ B]. With n below N the true t is smaller and so is the divergence: each part's grows
with its rate, and the second's is the larger one, at every order. So the event needs no size of a dataset, only a cap.

Source: the two cases are those of arXiv 2508.15089. `dp_accounting` 0.6.0 computes p for one size n, and answers less
than this by about the share of a cut batch that is cut; its answer for N does not promise to hold for n < N.
"""

from __future__ import annotations

import math
from functools import lru_cache

from hansa.privacy.events import Truncation

LONGEST_STEP = 2.0  # in norms of one contribution: one unit in, another out
_ROOM = 1e-5  # of t: what float64's log Γ loses at 2^31 units, with room
_NEGLIGIBLE = 1e-18  # terms below this share of the sum are its rounding


@lru_cache(maxsize=1024)
def cut_share(cut: Truncation, rate: float) -> float:
    """t, the probability that a step's sample is cut when there are `cut.most_units` units; never too small.

    Args:
        cut: the public caps.
        rate: in (0, 1).
    """
    others, batch = cut.most_units - 1, cut.largest_batch
    if batch > others:
        return 0.0
    if batch > others * rate:
        return min(1.0, _tail(others, rate, batch) * (1 + _ROOM))
    return min(1.0, 1 - _tail(others, 1 - rate, others - batch + 1) * (1 - _ROOM))


def _tail(trials: int, rate: float, first: int) -> float:
    """P[Binomial ≥ first] for a `first` above the mean, where terms fall."""
    if first > trials:
        return 0.0
    log = (
        math.lgamma(trials + 1) - math.lgamma(first + 1) - math.lgamma(trials - first + 1)
        + first * math.log(rate) + (trials - first) * math.log1p(-rate)
    )  # fmt: skip
    term = total = 1.0
    odds = rate / (1 - rate)
    for k in range(first, trials):
        term *= (trials - k) / (k + 1) * odds
        total += term
        if term < _NEGLIGIBLE * total:
            break
    return math.exp(log) * total
