"""The budget book of one member: reserve before work, confirm after release, refuse before spending.

A book belongs to the units of one dataset. It holds DP events with their counts, never a running ε: ε is
computed from the events when someone asks. A whole run is reserved at its worst before its first step; what is
neither confirmed nor handed back by closing the run stays spent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from hansa.canonical import Json
from hansa.errors import BudgetRefusedError, PrivacyParameterError
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.events import Spend

Snapshot: TypeAlias = Mapping[str, Json]


@dataclass(frozen=True)
class PrivacyLoss:
    """An (ε, δ) statement: what was spent, what is left, or what is asked for."""

    epsilon: float
    delta: float


class BudgetBook(Protocol):
    """What a node needs of a budget, in memory or in a ledger."""

    def reserve(self, run: str, spend: Spend) -> None:
        """Reserve a run's worst case before any of it happens; the same reservation again is a no-op.

        Raises:
            BudgetRefusedError: it would exceed the limit (says requested, remaining and what would fit), the run
                holds other events already, or it was closed.
        """

    def confirm(self, run: str, step: str, count: int) -> None:
        """Count `count` events of a reservation as released under the name `step`; the same step counts once.

        Raises:
            BudgetRefusedError: nothing is reserved, or more would be released than was.
        """

    def close(self, run: str) -> None:
        """End a run: what it reserved and did not release is free again, and it can release nothing more."""

    def spent(self) -> Sequence[Spend]:
        """Everything that counts as spent: released, or reserved and possibly released."""

    def released(self, run: str) -> int:
        """How many events of a run were confirmed."""

    def limit(self) -> PrivacyLoss:
        """The most that may ever be spent."""

    def remaining(self) -> PrivacyLoss:
        """What is left of ε at the limit's δ, reservations counted as spent."""


@dataclass
class _Run:
    spend: Spend
    confirmed: dict[str, int] = field(default_factory=dict)
    closed: bool = False

    @property
    def released(self) -> int:
        return sum(self.confirmed.values())


class InMemoryBudgetBook:
    """A budget book in memory; `snapshot` is what a node saves of it between processes.

    Args:
        limit: the most that may ever be spent.
        snapshot: of an earlier book of the same dataset.

    Guarantees: ε of `spent()` never exceeds the limit.
    Assumes: events across runs are composed as if all were fixed beforehand; runs chosen after seeing the outputs
        of others need a rule for adaptive composition.
    """

    def __init__(self, limit: PrivacyLoss, snapshot: Snapshot | None = None) -> None:
        self._limit = limit
        self._runs: dict[str, _Run] = {}
        for run, state in (snapshot or {}).items():
            self._runs[run] = _read_run(state)

    def reserve(self, run: str, spend: Spend) -> None:
        if spend.count < 1:
            raise PrivacyParameterError("a reservation needs at least one event")
        held = self._runs.get(run)
        if held is not None:
            if held.spend == spend and not held.closed:
                return
            what = "was closed" if held.closed else "holds a reservation of other events"
            raise BudgetRefusedError(f"run {run[:12]} {what}", remedy="Start another run.")
        before = self.spent()
        if self._epsilon([*before, spend]) > self._limit.epsilon:
            left = self.remaining()
            raise BudgetRefusedError(
                f"the run asks for ε = {self._epsilon([spend]):.4g} at δ = {left.delta:g}; "
                f"ε = {left.epsilon:.4g} of {self._limit.epsilon:.4g} remains",
                remedy=f"{self._count_that_fits(spend)} of its {spend.count} steps would fit, or all with more noise.",
            )
        self._runs[run] = _Run(spend)

    def confirm(self, run: str, step: str, count: int) -> None:
        held = self._runs.get(run)
        if held is None or held.closed:
            raise BudgetRefusedError(f"run {run[:12]} has no open reservation")
        if step in held.confirmed:
            return
        if count < 1 or held.released + count > held.spend.count:
            raise BudgetRefusedError(
                f"run {run[:12]} would release {held.released + count} events of {held.spend.count} reserved"
            )
        held.confirmed[step] = count

    def close(self, run: str) -> None:
        held = self._runs.get(run)
        if held is not None:
            held.closed = True

    def spent(self) -> Sequence[Spend]:
        counted = ((r.spend, r.released if r.closed else r.spend.count) for r in self._runs.values())
        return tuple(Spend(spend.event, count) for spend, count in counted if count)

    def released(self, run: str) -> int:
        held = self._runs.get(run)
        return 0 if held is None else held.released

    def limit(self) -> PrivacyLoss:
        return self._limit

    def remaining(self) -> PrivacyLoss:
        left = self._limit.epsilon - self._epsilon(self.spent())
        return PrivacyLoss(max(left, 0.0), self._limit.delta)

    def snapshot(self) -> Snapshot:
        """The book as plain JSON values, for `InMemoryBudgetBook(limit, snapshot)`."""
        return {
            run: {
                "event": dict(held.spend.event),
                "count": held.spend.count,
                "confirmed": dict(held.confirmed),
                "closed": held.closed,
            }
            for run, held in self._runs.items()
        }

    def _epsilon(self, spends: Sequence[Spend]) -> float:
        return epsilon_spent(spends, self._limit.delta)

    def _count_that_fits(self, spend: Spend) -> int:
        before = self.spent()
        low, high = 0, spend.count
        while high - low > 1:
            middle = (low + high) // 2
            fits = self._epsilon([*before, Spend(spend.event, middle)]) <= self._limit.epsilon
            low, high = (middle, high) if fits else (low, middle)
        return low


def _read_run(state: Json) -> _Run:
    match state:
        case {
            "event": Mapping() as event,
            "count": int() as count,
            "confirmed": Mapping() as steps,
            "closed": bool() as closed,
        }:
            confirmed = {
                str(step): number for step, number in steps.items() if type(number) is int and number > 0
            }
            if type(count) is int and len(confirmed) == len(steps) and 0 <= sum(confirmed.values()) <= count:
                return _Run(Spend(event, count), confirmed, closed)
    raise PrivacyParameterError(
        "a saved budget book cannot be read", remedy="Restore it from a copy; do not start anew."
    )
