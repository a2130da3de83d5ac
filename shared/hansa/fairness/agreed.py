"""The conditions and the rules that an agreement states."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hansa.fairness.composition import And, UnsafeNoGate
from hansa.fairness.conditions import (
    EpsilonAtMost,
    GapAtMost,
    GroupLossAtMost,
    LossAtMost,
    MembersAtLeast,
    UtilityAtLeast,
    WorstGroupAtLeast,
)
from hansa.fairness.judging import Condition, Rules
from hansa.fairness.metrics import Metric

if TYPE_CHECKING:
    from hansa.agreement.terms import Terms


def conditions_of(terms: Terms) -> Condition:
    """The conditions that an agreement states, or `UnsafeNoGate` where it states none.

    ε and members are conditions wherever the agreement promises privacy. An attack is none, as agreements do not ask for one.
    """
    fairness, publication = terms.fairness, terms.publication
    attributes = [group.name for group in terms.data.groups]
    metric: Metric = fairness.metric
    found: list[Condition] = []
    if publication.min_quality is not None:
        found.append(UtilityAtLeast(metric, publication.min_quality))
    if fairness.max_gap is not None:
        found += [GapAtMost(metric, name, fairness.max_gap) for name in attributes]
    if fairness.min_worst_group is not None:
        found += [WorstGroupAtLeast(metric, name, fairness.min_worst_group) for name in attributes]
    if publication.max_quality_loss is not None:
        found.append(LossAtMost(metric, publication.max_quality_loss))
        found += [GroupLossAtMost(metric, name, publication.max_quality_loss) for name in attributes]
    if terms.private and terms.privacy.epsilon is not None:
        found += [EpsilonAtMost(terms.privacy.epsilon), MembersAtLeast(terms.secure_sum.min_members)]
    return And(*found) if found else UnsafeNoGate()


def rules_of(terms: Terms, *, error: float = 0.05, liars: int = 0) -> Rules:
    """The rules that an agreement states.

    Args:
        terms: of the agreement.
        error, liars: as in `Rules`; agreements do not state them yet.
    """
    return Rules(
        error=error,
        evaluations=terms.publication.evaluations,
        liars=liars,
        smallest_group=terms.fairness.min_group_size,
        exempt=frozenset(terms.fairness.exempt),
    )
