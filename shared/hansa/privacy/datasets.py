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

_MOST_EXACT = 16  # names whose sets are all looked at; among more that are entangled the answer is a bound


def total_loss(grants: Sequence[Grant], coalition: int | None = None) -> PrivacyLoss:
    """The most that a unit of this member can lose, whatever happens under its grants.

    Args:
        grants: one for each dataset.
        coalition: against at most so many of the other members together; `None` against everyone. A grant without a
            limit for so many counts with its limit against everyone.

    Returns:
        ε and δ, each over the worst set of datasets that may share a unit; never below that.

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


def _heaviest(weight: Mapping[str, float], names: Sequence[str], apart: set[frozenset[str]]) -> float:
    """The largest weight of a set in which no two are apart, or, among many that are entangled, a bound of it."""
    near: dict[str, set[str]] = {name: set() for name in names}
    for first, second in map(sorted, apart):
        near[first].add(second)
        near[second].add(first)
    parts: list[float] = []
    left = set(names)
    for name in names:
        if name in left:
            group = _connected(name, near)
            left -= group
            parts += _exact(weight, group, near) if len(group) <= _MOST_EXACT else _bound(weight, group, near)
    return math.fsum(parts)


def _connected(start: str, near: Mapping[str, set[str]]) -> set[str]:
    found, edge = {start}, [start]
    while edge:
        more = near[edge.pop()] - found
        found |= more
        edge += more
    return found


def _exact(weight: Mapping[str, float], group: set[str], near: Mapping[str, set[str]]) -> list[float]:
    """The heaviest of all sets, each made with or without every name."""
    sets: list[tuple[str, ...]] = [()]
    for name in sorted(group):
        sets += [(*chosen, name) for chosen in sets if not near[name] & set(chosen)]
    return max(
        ([weight[name] for name in chosen] for chosen in sets), key=lambda held: (math.fsum(held), held)
    )


def _bound(weight: Mapping[str, float], group: set[str], near: Mapping[str, set[str]]) -> list[float]:
    """Of names that are all apart from each other one counts: the largest of each such circle, never too little."""
    circles: list[list[str]] = []
    for name in sorted(group, key=lambda one: (-weight[one], one)):
        circle = next((held for held in circles if near[name].issuperset(held)), None)
        if circle is None:
            circles.append([name])
        else:
            circle.append(name)
    return [weight[circle[0]] for circle in circles]
