"""Conditions on a model: small frozen values that compose."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from hansa.fairness.errors import EvaluationError
from hansa.fairness.judging import (
    Condition,
    Evidence,
    Judgement,
    Rules,
    all_of,
    any_of,
    unknown,
    within,
)
from hansa.fairness.layout import TableLayout, groups_of
from hansa.fairness.metrics import (
    SMALL_IS_GOOD,
    Groups,
    Metric,
    Reading,
    apart,
    by_group,
    quality,
    tests_of_gap,
)

if TYPE_CHECKING:
    from hansa.agreement.terms import Terms


def _check_limit(name: str, limit: float, low: float, high: float) -> None:
    if not low <= limit <= high:
        raise EvaluationError(
            f"{name}: a limit of {limit:g} is outside {low:g} to {high:g}, and decides nothing"
        )


@dataclass(frozen=True)
class UtilityAtLeast:
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

    def tests(self, layout: TableLayout) -> int:
        return 1

    def judge(self, evidence: Evidence, rules: Rules, reading: Reading) -> Judgement:
        found = quality(evidence.tables, self.metric, reading)
        if found is None:
            return unknown(self.name, f"{self.metric} cannot be measured: the sums hold no records for it.")
        return within(self.name, self.metric, found, "at least", self.minimum, reading)


@dataclass(frozen=True)
class GapAtMost:
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

    def judge(self, evidence: Evidence, rules: Rules, reading: Reading) -> Judgement:
        groups = by_group(
            evidence.tables, self.attribute, self.metric, reading, smallest=rules.smallest_group
        )
        parts = []
        for a, b in combinations(groups.sizes, 2):
            name, exempt = f"{self.name}, {a} and {b}", bool({a, b} & rules.exempt)
            small = [group for group in (a, b) if group in groups.too_small]
            if small:
                parts.append(unknown(name, _too_small(groups, small[0], rules), exempt=exempt))
                continue
            between = apart(groups.estimates[a], groups.estimates[b])
            what = f"The difference of {self.metric} between {a} and {b}"
            parts.append(within(name, what, between, "at most", self.maximum, reading, exempt=exempt))
        return all_of(self.name, parts)


def _too_small(groups: Groups, name: str, rules: Rules) -> str:
    return (
        f"{name} is too small to judge: {groups.sizes[name]:.0f} positives as counted with noise, where "
        f"{rules.smallest_group:g} are needed."
    )


@dataclass(frozen=True)
class WorstGroupAtLeast:
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

    def judge(self, evidence: Evidence, rules: Rules, reading: Reading) -> Judgement:
        groups = by_group(
            evidence.tables, self.attribute, self.metric, reading, smallest=rules.smallest_group
        )
        return all_of(self.name, _each(self, groups, rules, reading, "at least", self.minimum, self.metric))


@dataclass(frozen=True)
class LossAtMost:
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

    def tests(self, layout: TableLayout) -> int:
        return 1

    def judge(self, evidence: Evidence, rules: Rules, reading: Reading) -> Judgement:
        found = quality(evidence.tables, self.metric, reading, comparing=True)
        if found is None:
            return unknown(
                self.name, f"The loss of {self.metric} cannot be measured: the sums hold no records."
            )
        return within(self.name, f"The loss of {self.metric}", found, "at most", self.maximum, reading)


@dataclass(frozen=True)
class GroupLossAtMost:
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

    def judge(self, evidence: Evidence, rules: Rules, reading: Reading) -> Judgement:
        groups = by_group(
            evidence.tables,
            self.attribute,
            self.metric,
            reading,
            smallest=rules.smallest_group,
            comparing=True,
        )
        what = f"the loss of {self.metric}"
        return all_of(self.name, _each(self, groups, rules, reading, "at most", self.maximum, what))


def _each(condition, groups, rules, reading, sense, limit, what):  # type: ignore[no-untyped-def]
    parts = []
    for group in groups.sizes:
        name, exempt = f"{condition.name}, {group}", group in rules.exempt
        if group in groups.too_small:
            parts.append(unknown(name, _too_small(groups, group, rules), exempt=exempt))
        else:
            told = f"{group}: {what}"
            parts.append(within(name, told, groups.estimates[group], sense, limit, reading, exempt=exempt))
    return parts


@dataclass(frozen=True)
class EpsilonAtMost:
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

    def tests(self, layout: TableLayout) -> int:
        return 0

    def judge(self, evidence: Evidence, rules: Rules, reading: Reading) -> Judgement:
        unchecked = sorted(name for name, value in evidence.epsilons.items() if math.isnan(value))
        over = sorted(name for name, value in evidence.epsilons.items() if value > self.maximum)
        if over:
            worst = max(over, key=lambda name: evidence.epsilons[name])
            told = f"ε is above {self.maximum:g} at {', '.join(over)}: {evidence.epsilons[worst]:.4g} at {worst}."
            return Judgement(self.name, "fail", told)
        if unchecked or not evidence.epsilons:
            return unknown(self.name, f"ε was not checked at {', '.join(unchecked) or 'any member'}.")
        most = max(evidence.epsilons.values())
        return Judgement(
            self.name, "pass", f"ε is at most {most:.4g} at every member, and {self.maximum:g} is allowed."
        )


@dataclass(frozen=True)
class MembersAtLeast:
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

    def tests(self, layout: TableLayout) -> int:
        return 0

    def judge(self, evidence: Evidence, rules: Rules, reading: Reading) -> Judgement:
        fewest = min(evidence.members, evidence.tables.contributors)
        told = f"The smallest sum is over {fewest} members, and {self.minimum} are needed."
        return Judgement(self.name, "pass" if fewest >= self.minimum else "fail", told)


@dataclass(frozen=True)
class AttackWithinClaim:
    """No attack has shown a larger ε than is claimed; at least one member has attacked its own training."""

    @property
    def name(self) -> str:
        return "attack's lower bound <= claim"

    def tests(self, layout: TableLayout) -> int:
        return 0

    def judge(self, evidence: Evidence, rules: Rules, reading: Reading) -> Judgement:
        if not evidence.attacks:
            return unknown(self.name, "No member has attacked its training.")
        for name, bound in sorted(evidence.attacks.items()):
            told = f"At {name} an attack shows ε ≥ {bound.lower_bound:.4g}, and {bound.claim:.4g} is claimed."
            if bound.lower_bound > bound.claim:
                return Judgement(self.name, "fail", told)
            if math.isnan(bound.lower_bound) or math.isnan(bound.claim):
                return unknown(self.name, f"At {name} the attack has no bound.")
        return Judgement(self.name, "pass", f"{len(evidence.attacks)} attacks show no more than is claimed.")


class _Several:
    """Conditions that are judged together."""

    conditions: tuple[Condition, ...]

    def _check(self) -> None:
        if not self.conditions:
            raise EvaluationError(
                "no condition at all would let everything through", remedy="Say so with UnsafeNoGate."
            )

    def tests(self, layout: TableLayout) -> int:
        return sum(condition.tests(layout) for condition in self.conditions)

    def _judged(self, evidence: Evidence, rules: Rules, reading: Reading) -> list[Judgement]:
        return [condition.judge(evidence, rules, reading) for condition in self.conditions]


@dataclass(frozen=True, init=False)
class And(_Several):
    """Every condition holds.

    Raises:
        EvaluationError: there is none.
    """

    conditions: tuple[Condition, ...]

    def __init__(self, *conditions: Condition) -> None:
        object.__setattr__(self, "conditions", conditions)
        self._check()

    @property
    def name(self) -> str:
        return f"all of {len(self.conditions)} conditions"

    def judge(self, evidence: Evidence, rules: Rules, reading: Reading) -> Judgement:
        return all_of(self.name, self._judged(evidence, rules, reading))


@dataclass(frozen=True, init=False)
class Or(_Several):
    """At least one condition holds.

    Raises:
        EvaluationError: there is none.
    """

    conditions: tuple[Condition, ...]

    def __init__(self, *conditions: Condition) -> None:
        object.__setattr__(self, "conditions", conditions)
        self._check()

    @property
    def name(self) -> str:
        return f"one of {len(self.conditions)} conditions"

    def judge(self, evidence: Evidence, rules: Rules, reading: Reading) -> Judgement:
        return any_of(self.name, self._judged(evidence, rules, reading))


@dataclass(frozen=True)
class UnsafeNoGate:
    """Lets everything through. For experiments; nobody is protected by it."""

    @property
    def name(self) -> str:
        return "no gate"

    def tests(self, layout: TableLayout) -> int:
        return 0

    def judge(self, evidence: Evidence, rules: Rules, reading: Reading) -> Judgement:
        return Judgement(self.name, "pass", "There is no gate: this passes whatever the model does.")


def equalized_odds(attribute: str, maximum: float) -> And:
    """True- and false-positive rates of any two groups differ by at most `maximum`."""
    return And(
        GapAtMost("true-positive-rate", attribute, maximum),
        GapAtMost("false-positive-rate", attribute, maximum),
    )


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
