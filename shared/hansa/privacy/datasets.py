"""What one unit can lose over all datasets of a member.

A budget belongs to the units of one dataset. Datasets that may share units add up, by basic composition of their
limits, which holds however their uses are interleaved (arXiv 2309.05901). Datasets that the member declared disjoint
compose in parallel: a unit is in one of them only. What is not declared disjoint counts as overlapping.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hansa.errors import PrivacyParameterError
from hansa.privacy.loss import PrivacyLoss
from hansa.privacy.records import Grant


def total_loss(grants: Sequence[Grant], coalition: int | None = None) -> PrivacyLoss:
    """The most that a unit of this member can lose, whatever happens under its grants.

    Args:
        grants: one for each dataset.
        coalition: against at most so many of the other members together; `None` against everyone. A grant without a
            limit for so many counts with its limit against everyone.

    Returns:
        ε and δ, each over the worst set of datasets that may share a unit.

    Raises:
        PrivacyParameterError: no grants, one dataset twice, or δ that add up to 1.

    Assumes: declarations of disjointness are true; they are the member's own.
    """
    limits = {grant.dataset: _limit(grant, coalition) for grant in grants}
    if not grants or len(limits) != len(grants):
        raise PrivacyParameterError("a total needs grants, each for another dataset")
    apart = {
        frozenset((grant.dataset, other))
        for grant in grants
        for other in grant.disjoint_from
        if other in limits
    }
    names = tuple(sorted(limits))
    return PrivacyLoss(
        _heaviest({name: limits[name].epsilon for name in names}, names, apart),
        _heaviest({name: limits[name].delta for name in names}, names, apart),
    )


def _limit(grant: Grant, coalition: int | None) -> PrivacyLoss:
    if coalition is None or grant.colluding is None or coalition > grant.coalition:
        return grant.everyone.loss
    return grant.colluding.loss


def _heaviest(weight: Mapping[str, float], left: tuple[str, ...], apart: set[frozenset[str]]) -> float:
    """The largest weight of a set among `left` in which no two are apart."""
    if not left:
        return 0.0
    first, rest = left[0], left[1:]
    beside = tuple(name for name in rest if frozenset((first, name)) not in apart)
    with_first = math.fsum((weight[first], _heaviest(weight, beside, apart)))
    if len(beside) == len(rest):
        return with_first  # it excludes nothing, so leaving it out gains nothing
    return max(with_first, _heaviest(weight, rest, apart))
