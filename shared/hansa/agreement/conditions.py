"""The conditions of a publication as an agreement states them: data, one table each, that compose.

What they mean is `hansa.fairness.conditions`; `hansa.fairness.agreed` makes the one of the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from hansa.agreement.section import Count, Name, Positive, Section, as_tuple

MAX_CONDITIONS = 50  # in one list
MAX_DEPTH = 4  # of lists in lists

MetricName: TypeAlias = Literal[
    "accuracy",
    "balanced-accuracy",
    "auc",
    "prevalence",
    "selection-rate",
    "true-positive-rate",
    "false-positive-rate",
    "positive-predictive-value",
    "calibration-error",
]
SMALL_IS_GOOD: frozenset[MetricName] = frozenset({"false-positive-rate", "calibration-error"})
Share: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class UtilityTerm(Section):
    """The metric over all records is at least so large; `metric` is by default that of `[fairness]`."""

    kind: Literal["utility"]
    metric: MetricName | None = None
    at_least: Share


class GapTerm(Section):
    """No two groups differ by more; of one attribute, or of each."""

    kind: Literal["gap"]
    metric: MetricName | None = None
    attribute: Name | None = None
    at_most: Share


class WorstGroupTerm(Section):
    """The metric is at least so large in every group; of one attribute, or of each."""

    kind: Literal["worst-group"]
    metric: MetricName | None = None
    attribute: Name | None = None
    at_least: Share


class EpsilonTerm(Section):
    """ε of the run, training and evaluations, is at most so large at every member."""

    kind: Literal["epsilon"]
    at_most: Positive


class MembersTerm(Section):
    """No sum is over fewer members."""

    kind: Literal["members"]
    at_least: Count


class AttackTerm(Section):
    """A member has attacked its trainer, and no attack shows more than is claimed."""

    kind: Literal["attack"]


class LossTerm(Section):
    """The file that ships is worse than the model before compression by at most so much, over all records."""

    kind: Literal["loss"]
    metric: MetricName | None = None
    at_most: Share


class GroupLossTerm(Section):
    """The same in every group; of one attribute, or of each."""

    kind: Literal["group-loss"]
    metric: MetricName | None = None
    attribute: Name | None = None
    at_most: Share


class UnsafeNoGateTerm(Section):
    """Always holds. For experiments; nobody is protected by it."""

    kind: Literal["unsafe-no-gate"]


class AllOfTerm(Section):
    """Every one of these holds."""

    kind: Literal["all-of"]
    conditions: SomeConditionTerms


class AnyOfTerm(Section):
    """At least one of these holds."""

    kind: Literal["any-of"]
    conditions: SomeConditionTerms


ConditionTerm: TypeAlias = Annotated[
    UtilityTerm
    | GapTerm
    | WorstGroupTerm
    | EpsilonTerm
    | MembersTerm
    | AttackTerm
    | LossTerm
    | GroupLossTerm
    | UnsafeNoGateTerm
    | AllOfTerm
    | AnyOfTerm,
    Field(discriminator="kind"),
]
ConditionTerms: TypeAlias = Annotated[
    tuple[ConditionTerm, ...], BeforeValidator(as_tuple), Field(max_length=MAX_CONDITIONS)
]
SomeConditionTerms: TypeAlias = Annotated[
    tuple[ConditionTerm, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=MAX_CONDITIONS)
]


def walked(
    terms: Iterable[ConditionTerm], place: str = "publication.conditions", depth: int = 1
) -> Iterator[tuple[str, int, ConditionTerm]]:
    """Every condition with its place in the file and how deep it stands, lists of conditions among them."""
    for number, term in enumerate(terms):
        here = f"{place}.{number}"
        yield here, depth, term
        if isinstance(term, AllOfTerm | AnyOfTerm):
            yield from walked(term.conditions, f"{here}.conditions", depth + 1)
