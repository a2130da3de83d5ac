"""Three outcomes: what a condition is judged on, by which rules, and what comes of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from hansa.fairness.errors import EvaluationError
from hansa.fairness.intervals import Estimate
from hansa.fairness.layout import TableLayout
from hansa.fairness.metrics import Reading, quantile
from hansa.fairness.release import NoisyTables

Outcome: TypeAlias = Literal["pass", "fail", "inconclusive"]
Sense: TypeAlias = Literal["at least", "at most"]


@dataclass(frozen=True)
class AttackBound:
    """What an attack on a member's training has shown.

    Attributes:
        lower_bound: of ε, at the attack's own confidence.
        claim: the ε that the accountant states for what was attacked.
    """

    lower_bound: float
    claim: float


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that a gate is decided on. Whoever has it comes to the same decision.

    Attributes:
        tables: noisy sums of the evaluation.
        epsilons: by member, ε of all that its data influenced in the model, evaluations included; by its own ledger.
        members: fewest members in any sum that the model follows from.
        attacks: by member that has attacked its own training.
    """

    tables: NoisyTables
    epsilons: Mapping[str, float] = field(default_factory=dict)
    members: int = 0
    attacks: Mapping[str, AttackBound] = field(default_factory=dict)


@dataclass(frozen=True)
class Rules:
    """How conditions are judged; fixed with the agreement.

    Attributes:
        error: probability, at most, that any interval of all evaluations of a model misses, and so that a condition passes
            or fails wrongly.
        evaluations: how many a model may have; the error is divided among them beforehand, used or not.
        liars: members that may have lied within their caps; what passes or fails does so whatever they did.
        smallest_group: groups with fewer positives, as counted with noise, are too small to judge.
        exempt: groups (``attribute=value``) that do not block where they are inconclusive. What fails, fails.

    Raises:
        EvaluationError: numbers out of range.
    """

    error: float = 0.05
    evaluations: int = 1
    liars: int = 0
    smallest_group: float = 200
    exempt: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not 0 < self.error < 1 or self.evaluations < 1 or self.liars < 0 or not self.smallest_group >= 0:
            raise EvaluationError(
                f"an error of {self.error:g} over {self.evaluations} evaluations with {self.liars} liars and groups from "
                f"{self.smallest_group:g} on cannot be judged by"
            )

    def reading(self, tests: int) -> Reading:
        """Of one of so many intervals."""
        return Reading(quantile(self.error / self.evaluations, max(tests, 1)), self.liars)


@dataclass(frozen=True)
class Judgement:
    """What became of a condition, or of a part of it.

    Attributes:
        name: of the condition, with its group.
        outcome: three-valued.
        sentence: the same for a person, with the numbers.
        exempt: whether what is inconclusive here does not block.
        estimate: what was judged; `None` where it is no estimate, or could not be measured.
        limit, sense: what it was judged against.
        parts: of which this one is put together.
        alternatives: whether one part is enough; otherwise every part must hold.
    """

    name: str
    outcome: Outcome
    sentence: str
    exempt: bool = False
    estimate: Estimate | None = None
    limit: float | None = None
    sense: Sense | None = None
    parts: tuple[Judgement, ...] = ()
    alternatives: bool = False

    @property
    def holds(self) -> bool:
        """Whether it lets a model through."""
        return self.outcome == "pass" or (self.outcome == "inconclusive" and self.exempt)

    def leaves(self) -> tuple[Judgement, ...]:
        """Every judgement below that is not put together from others."""
        return tuple(leaf for part in self.parts for leaf in part.leaves()) if self.parts else (self,)

    def needed(self) -> tuple[Judgement, ...]:
        """The judgements that must all hold for this one to hold; alternatives are one among them."""
        if not self.parts or self.alternatives:
            return (self,)
        return tuple(one for part in self.parts for one in part.needed())


@dataclass(frozen=True)
class Case:
    """What every condition of a decision is judged by.

    Attributes:
        evidence: what is known.
        rules: of the agreement.
        reading: of every interval, the same for all conditions that are judged together.
    """

    evidence: Evidence
    rules: Rules
    reading: Reading


class Condition(ABC):
    """Something that a model must satisfy to be published. A frozen value."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short, the same in every ledger, at most 200 characters."""

    @abstractmethod
    def tests(self, layout: TableLayout) -> int:
        """How many intervals it looks at: known before anything is measured, and shares of the error."""

    @abstractmethod
    def judge(self, case: Case) -> Judgement:
        """What becomes of it.

        Raises:
            EvaluationError: the tables do not hold what it asks about.
        """


class OneInterval(Condition):
    """A condition that looks at one interval."""

    def tests(self, _layout: TableLayout) -> int:
        return 1


class NoInterval(Condition):
    """A condition on public numbers."""

    def tests(self, _layout: TableLayout) -> int:
        return 0


def judge(condition: Condition, evidence: Evidence, rules: Rules) -> Judgement:
    """Decide a condition, with the error divided among all intervals in it and all evaluations allowed.

    Guarantees: if at most `rules.liars` members' tables are false, each within its caps, the probability over drawn records
        and noise that anything passes or fails wrongly is at most about `rules.error` / `rules.evaluations`.
    Assumes: evaluation records stand for those that the model is for; counts large enough for normal approximations (the
        coverage test says where).

    Raises:
        EvaluationError: the tables do not hold what the condition asks about.
    """
    reading = rules.reading(condition.tests(evidence.tables.layout))
    return condition.judge(Case(evidence, rules, reading))


def within(
    name: str,
    what: str,
    estimate: Estimate,
    sense: Sense,
    limit: float,
    reading: Reading,
    *,
    exempt: bool = False,
) -> Judgement:
    """Judge one estimate against a limit."""
    if sense == "at least":
        good, bad = estimate.low >= limit, estimate.high < limit
    else:
        good, bad = estimate.high <= limit, estimate.low > limit
    outcome: Outcome = "pass" if good else "fail" if bad else "inconclusive"
    verb = {"pass": "is", "fail": "is not", "inconclusive": "may or may not be"}[outcome]
    lies = f", whatever {reading.liars} members did within their caps" if reading.liars else ""
    sentence = f"{what} {verb} {sense} {limit:g}: {estimate.value:.4g}, {estimate.low:.4g} to {estimate.high:.4g}{lies}."
    if outcome == "fail":
        short = limit - estimate.value if sense == "at least" else estimate.value - limit
        sentence = f"{sentence[:-1]}; it misses by {short:.4g}."
    return Judgement(name, outcome, sentence, exempt, estimate, limit, sense)


def unknown(
    name: str,
    sentence: str,
    sense: Sense | None = None,
    limit: float | None = None,
    *,
    exempt: bool = False,
) -> Judgement:
    """What cannot be judged."""
    return Judgement(name, "inconclusive", sentence, exempt, None, limit, sense)


def all_of(name: str, parts: Sequence[Judgement]) -> Judgement:
    """Passes where every part does; exempt where everything inconclusive in it is."""
    outcomes = {part.outcome for part in parts}
    outcome: Outcome = (
        "fail" if "fail" in outcomes else "inconclusive" if "inconclusive" in outcomes else "pass"
    )
    return _together(name, outcome, parts, exempt=all(part.holds for part in parts))


def any_of(name: str, parts: Sequence[Judgement]) -> Judgement:
    """Passes where one part does, fails where every part does."""
    outcomes = {part.outcome for part in parts}
    outcome: Outcome = (
        "pass" if "pass" in outcomes else "inconclusive" if "inconclusive" in outcomes else "fail"
    )
    return _together(name, outcome, parts, exempt=any(part.holds for part in parts), alternatives=True)


def _together(
    name: str, outcome: Outcome, parts: Sequence[Judgement], *, exempt: bool, alternatives: bool = False
) -> Judgement:
    told = [part.sentence for part in parts if part.outcome == outcome]
    sentence = " ".join(told[:3]) + (f" And {len(told) - 3} more." if len(told) > 3 else "")
    return Judgement(
        name,
        outcome,
        sentence,
        exempt=outcome == "inconclusive" and exempt,
        parts=tuple(parts),
        alternatives=alternatives,
    )
