"""Conditions on conditions, and the one that is none."""

from __future__ import annotations

from dataclasses import dataclass

from hansa.fairness.conditions import GapAtMost
from hansa.fairness.errors import EvaluationError
from hansa.fairness.judging import Case, Condition, Judgement, NoInterval, all_of, any_of
from hansa.fairness.layout import TableLayout


class _Several(Condition):
    """Conditions that are judged together."""

    conditions: tuple[Condition, ...]

    def _check(self) -> None:
        if not self.conditions:
            raise EvaluationError(
                "no condition at all would let everything through", remedy="Say so with UnsafeNoGate."
            )

    def tests(self, layout: TableLayout) -> int:
        return sum(condition.tests(layout) for condition in self.conditions)

    def _judged(self, case: Case) -> list[Judgement]:
        return [condition.judge(case) for condition in self.conditions]


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

    def judge(self, case: Case) -> Judgement:
        return all_of(self.name, self._judged(case))


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

    def judge(self, case: Case) -> Judgement:
        return any_of(self.name, self._judged(case))


@dataclass(frozen=True)
class UnsafeNoGate(NoInterval):
    """Lets everything through. For experiments; nobody is protected by it."""

    @property
    def name(self) -> str:
        return "no gate"

    def judge(self, _case: Case) -> Judgement:
        return Judgement(self.name, "pass", "There is no gate: this passes whatever the model does.")


def equalized_odds(attribute: str, maximum: float) -> And:
    """True- and false-positive rates of any two groups differ by at most `maximum`."""
    return And(
        GapAtMost("true-positive-rate", attribute, maximum),
        GapAtMost("false-positive-rate", attribute, maximum),
    )
