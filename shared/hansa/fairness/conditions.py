"""Conditions on a model: small frozen values that compose."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

from hansa.agreement.conditions import SMALL_IS_GOOD
from hansa.fairness.errors import EvaluationError
from hansa.fairness.judging import (
    Case,
    Condition,
    Judgement,
    NoInterval,
    OneInterval,
    Rules,
    Sense,
    all_of,
    unknown,
    within,
)
from hansa.fairness.layout import TableLayout, groups_of
from hansa.fairness.metrics import (
    Groups,
    Metric,
    apart,
    by_group,
    quality,
    tests_of_gap,
)


def _check_limit(name: str, limit: float, low: float, high: float) -> None:
    if not low <= limit <= high:
        raise EvaluationError(
            f"{name}: a limit of {limit:g} is outside {low:g} to {high:g}, and decides nothing"
        )


@dataclass(frozen=True)
class UtilityAtLeast(OneInterval):
    """The metric over all records is at least `minimum`.

    Raises:
        EvaluationError: the limit is no value that the metric can have, or small values of it are the good ones.
    """

    metric: Metric
    minimum: float

    def __post_init__(self) -> None:
        _check_limit(self.name, self.minimum, 0, 1)
        if self.metric in SMALL_IS_GOOD:
            raise EvaluationError(f"{self.metric} is better small; ask for utility by another metric")

    @property
    def name(self) -> str:
        return f"{self.metric} >= {self.minimum:g}"

    def judge(self, case: Case) -> Judgement:
        found = quality(case.evidence.tables, self.metric, case.reading)
        if found is None:
            return unknown(
                self.name,
                f"{self.metric} cannot be measured: the sums hold no records for it.",
                "at least",
                self.minimum,
            )
        return within(self.name, self.metric, found, "at least", self.minimum, case.reading)


@dataclass(frozen=True)
class GapAtMost(Condition):
    """No two groups of an attribute differ by more than `maximum`.

    Raises:
        EvaluationError: the limit is outside [0, 1].
    """

    metric: Metric
    attribute: str
    maximum: float

    def __post_init__(self) -> None:
        _check_limit(self.name, self.maximum, 0, 1)

    @property
    def name(self) -> str:
        return f"gap of {self.metric} by {self.attribute} <= {self.maximum:g}"

    def tests(self, layout: TableLayout) -> int:
        return tests_of_gap(layout, self.attribute)

    def judge(self, case: Case) -> Judgement:
        groups = by_group(
            case.evidence.tables,
            self.attribute,
            self.metric,
            case.reading,
            smallest=case.rules.smallest_group,
        )
        parts = []
        for a, b in combinations(groups.sizes, 2):
            name, exempt = f"{self.name}, {a} and {b}", bool({a, b} & case.rules.exempt)
            small = [group for group in (a, b) if group in groups.too_small]
            if small:
                parts.append(
                    unknown(
                        name, _too_small(groups, small[0], case.rules), "at most", self.maximum, exempt=exempt
                    )
                )
                continue
            between = apart(groups.estimates[a], groups.estimates[b])
            what = f"The difference of {self.metric} between {a} and {b}"
            parts.append(within(name, what, between, "at most", self.maximum, case.reading, exempt=exempt))
        return all_of(self.name, parts)


def _too_small(groups: Groups, name: str, rules: Rules) -> str:
    return (
        f"{name} is too small to judge: {groups.sizes[name]:.0f} positives as counted with noise, where "
        f"{rules.smallest_group:g} are needed."
    )


@dataclass(frozen=True)
class WorstGroupAtLeast(Condition):
    """The metric is at least `minimum` in every group of an attribute.

    Raises:
        EvaluationError: as for `UtilityAtLeast`.
    """

    metric: Metric
    attribute: str
    minimum: float

    def __post_init__(self) -> None:
        UtilityAtLeast(self.metric, self.minimum)

    @property
    def name(self) -> str:
        return f"{self.metric} of every {self.attribute} >= {self.minimum:g}"

    def tests(self, layout: TableLayout) -> int:
        return len(groups_of(layout, self.attribute))

    def judge(self, case: Case) -> Judgement:
        groups = by_group(
            case.evidence.tables,
            self.attribute,
            self.metric,
            case.reading,
            smallest=case.rules.smallest_group,
        )
        return _each(self, self.metric, groups, case, "at least", self.minimum)


@dataclass(frozen=True)
class LossAtMost(OneInterval):
    """The judged model is worse than the reference by at most `maximum`, over all records.

    Raises:
        EvaluationError: the limit is outside [0, 1].
    """

    metric: Metric
    maximum: float

    def __post_init__(self) -> None:
        _check_limit(self.name, self.maximum, 0, 1)

    @property
    def name(self) -> str:
        return f"loss of {self.metric} <= {self.maximum:g}"

    def judge(self, case: Case) -> Judgement:
        found = quality(case.evidence.tables, self.metric, case.reading, comparing=True)
        if found is None:
            return unknown(
                self.name,
                f"The loss of {self.metric} cannot be measured: the sums hold no records.",
                "at most",
                self.maximum,
            )
        return within(self.name, f"The loss of {self.metric}", found, "at most", self.maximum, case.reading)


@dataclass(frozen=True)
class GroupLossAtMost(Condition):
    """The judged model is worse than the reference by at most `maximum`, in every group of an attribute.

    Raises:
        EvaluationError: the limit is outside [0, 1].
    """

    metric: Metric
    attribute: str
    maximum: float

    def __post_init__(self) -> None:
        _check_limit(self.name, self.maximum, 0, 1)

    @property
    def name(self) -> str:
        return f"loss of {self.metric} of every {self.attribute} <= {self.maximum:g}"

    def tests(self, layout: TableLayout) -> int:
        return len(groups_of(layout, self.attribute))

    def judge(self, case: Case) -> Judgement:
        groups = by_group(
            case.evidence.tables,
            self.attribute,
            self.metric,
            case.reading,
            smallest=case.rules.smallest_group,
            comparing=True,
        )
        what = f"the loss of {self.metric}"
        return _each(self, what, groups, case, "at most", self.maximum)


def _each(
    condition: Condition,
    what: str,
    groups: Groups,
    case: Case,
    sense: Sense,
    limit: float,
) -> Judgement:
    """Every group of an attribute for itself."""
    parts = []
    for group in groups.sizes:
        name, exempt = f"{condition.name}, {group}", group in case.rules.exempt
        if group in groups.too_small:
            parts.append(unknown(name, _too_small(groups, group, case.rules), sense, limit, exempt=exempt))
        else:
            told = f"{group}: {what}"
            parts.append(
                within(name, told, groups.estimates[group], sense, limit, case.reading, exempt=exempt)
            )
    return all_of(condition.name, parts)


@dataclass(frozen=True)
class EpsilonAtMost(NoInterval):
    """At every member, ε of all that its data influenced is at most `maximum`.

    Raises:
        EvaluationError: the limit is not finite and above 0.
    """

    maximum: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.maximum) and self.maximum > 0):
            raise EvaluationError(f"a limit of ε = {self.maximum:g} decides nothing")

    @property
    def name(self) -> str:
        return f"epsilon at every member <= {self.maximum:g}"

    def judge(self, case: Case) -> Judgement:
        unchecked = sorted(name for name, value in case.evidence.epsilons.items() if math.isnan(value))
        over = sorted(name for name, value in case.evidence.epsilons.items() if value > self.maximum)
        if over:
            worst = max(over, key=lambda name: case.evidence.epsilons[name])
            told = f"ε is above {self.maximum:g} at {', '.join(over)}: {case.evidence.epsilons[worst]:.4g} at {worst}."
            return Judgement(self.name, "fail", told)
        if unchecked or not case.evidence.epsilons:
            return unknown(self.name, f"ε was not checked at {', '.join(unchecked) or 'any member'}.")
        most = max(case.evidence.epsilons.values())
        return Judgement(
            self.name, "pass", f"ε is at most {most:.4g} at every member, and {self.maximum:g} is allowed."
        )


@dataclass(frozen=True)
class MembersAtLeast(NoInterval):
    """Every sum that the model follows from, and the evaluation's, is over at least `minimum` members.

    Raises:
        EvaluationError: the limit is below 1.
    """

    minimum: int

    def __post_init__(self) -> None:
        if self.minimum < 1:
            raise EvaluationError(f"{self.minimum} members decide nothing")

    @property
    def name(self) -> str:
        return f"members >= {self.minimum}"

    def judge(self, case: Case) -> Judgement:
        fewest = min(case.evidence.members, case.evidence.tables.contributors)
        told = f"The smallest sum is over {fewest} members, and {self.minimum} are needed."
        return Judgement(self.name, "pass" if fewest >= self.minimum else "fail", told)


@dataclass(frozen=True)
class AttackWithinClaim(NoInterval):
    """No attack has shown a larger ε than is claimed; at least one member has attacked its own training."""

    @property
    def name(self) -> str:
        return "attack's lower bound <= claim"

    def judge(self, case: Case) -> Judgement:
        if not case.evidence.attacks:
            return unknown(self.name, "No member has attacked its training.")
        for name, bound in sorted(case.evidence.attacks.items()):
            told = f"At {name} an attack shows ε ≥ {bound.lower_bound:.4g}, and {bound.claim:.4g} is claimed."
            if bound.lower_bound > bound.claim:
                return Judgement(self.name, "fail", told)
            if math.isnan(bound.lower_bound) or math.isnan(bound.claim):
                return unknown(self.name, f"At {name} the attack has no bound.")
        return Judgement(
            self.name, "pass", f"{len(case.evidence.attacks)} attacks show no more than is claimed."
        )
