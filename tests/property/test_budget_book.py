"""Whatever is done to a book, with a crash between any two records: limits hold and nothing is forgotten.

The oracle computes what was really released with closed forms of its own, from the outside.
"""

from __future__ import annotations

import math
from collections import Counter
from contextlib import suppress
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hansa.errors import BudgetRefusedError
from hansa.privacy.book import BudgetBook
from hansa.privacy.composition import Adding, AnyOf, FixedInAdvance, RenyiFilter, Rule
from hansa.privacy.errors import BudgetRecordError
from support.budgets import DELTA, Crashed, Store, charge, grant

RUNS = st.sampled_from(["a", "b", "c", "d", "e"])
STEPS = st.sampled_from([f"round {number}" for number in range(6)])
CRASHES = st.sampled_from([None, None, None, "before", "after"])
LIMIT = 4.0
MULTIPLIERS = [10.0, 20.0, 40.0]
ORDER = 8


def tail(x: float) -> float:
    return 0.5 * math.erfc(x / math.sqrt(2))


def exact_gaussian_delta(mu: float, epsilon: float) -> float:
    """δ of Gaussian releases with Σ 1/σ² = μ² at ε (Balle and Wang 2018)."""
    return tail(epsilon / mu - mu / 2) - math.exp(epsilon) * tail(epsilon / mu + mu / 2) if mu else 0.0


class Budget(RuleBasedStateMachine):
    """A member, its store, and what really left it."""

    composition: ClassVar[Rule] = FixedInAdvance()
    shared: ClassVar[float] = (
        1.5  # the second limit: with twice the noise it sometimes binds and sometimes not
    )

    @initialize()
    def begin(self) -> None:
        self.store = Store()
        self.book = self.store.begin(grant(LIMIT, self.composition, shared=self.shared))
        self.left: Counter[tuple[str, float]] = Counter()  # releases by run and multiplier
        self.multiplier: dict[str, float] = {}
        self.seen = {1: self.picture(self.book)}  # of the live book, by number of records

    @staticmethod
    def picture(book: BudgetBook) -> object:
        return book.state(), book.spent(), book.spent(1)

    def do(self, crash: str | None, call) -> bool:
        """Call; after a crash start again from what was stored. True if the call came back."""
        self.store.crash = crash
        try:
            call()
        except Crashed:
            self.book = self.store.replay()
            return False
        except BudgetRefusedError:
            return False
        finally:
            self.store.crash = None
            self.seen[len(self.store.records)] = self.picture(self.book)
        return True

    @rule(run=RUNS, count=st.integers(1, 400), multiplier=st.sampled_from(MULTIPLIERS), crash=CRASHES)
    def reserve(self, run: str, count: int, multiplier: float, crash: str | None) -> None:
        before = len(self.store.records)
        asked = charge(count, multiplier, shared=2 * multiplier)
        self.do(crash, lambda: self.book.reserve(run, [asked]))
        if len(self.store.records) > before:
            self.multiplier[run] = multiplier

    @rule(run=RUNS, step=STEPS, count=st.integers(1, 200), crash=CRASHES)
    def confirm_and_release(self, run: str, step: str, count: int, crash: str | None) -> None:
        if self.do(crash, lambda: self.book.confirm(run, step, count)):
            self.left[run, self.multiplier[run]] += count

    @rule(run=RUNS, step=STEPS, crash=CRASHES)
    def confirm_and_release_the_rest(self, run: str, step: str, crash: str | None) -> None:
        state = self.book.state().get(run)
        if state is not None:
            count = state["reserved"]["training"] - self.book.released(run)
            if self.do(crash, lambda: self.book.confirm(run, step, count)):
                self.left[run, self.multiplier[run]] += count

    @rule(run=RUNS, step=STEPS, count=st.integers(1, 50), crash=CRASHES)
    def abort(self, run: str, step: str, count: int, crash: str | None) -> None:
        self.do(crash, lambda: self.book.abort(run, step, count))

    @rule(run=RUNS, crash=CRASHES)
    def close(self, run: str, crash: str | None) -> None:
        self.do(crash, lambda: self.book.close(run))

    @rule(data=st.data())
    def close_with_more_than_was_recorded(self, data: st.DataObject) -> None:
        """Something left before its record was made, against the rule; the member owns up when it closes."""
        if not self.multiplier:
            return
        run = data.draw(st.sampled_from(sorted(self.multiplier)))
        more = data.draw(st.integers(1, 300))
        told = self.book.released(run) + more
        if self.do(None, lambda: self.book.close(run, {"training": told})):
            self.left[run, self.multiplier[run]] += more

    @rule()
    def restart(self) -> None:
        self.book = self.store.replay()

    @rule(run=RUNS, data=st.data())
    def a_stored_record_never_comes_twice(self, run: str, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.store.records) - 1))
        twice = [*self.store.records, self.store.records[index]]
        with suppress(BudgetRecordError):
            BudgetBook.replay(twice)
            raise AssertionError("a record was taken twice")

    @invariant()
    def what_left_is_within_both_limits(self) -> None:
        if not hasattr(self, "left"):
            return
        for factor, limit in ((1, LIMIT), (2, self.shared)):
            square = math.fsum(
                count / (factor * multiplier) ** 2 for (_, multiplier), count in self.left.items()
            )
            assert exact_gaussian_delta(math.sqrt(square), limit) <= DELTA * (1 + 1e-6)

    @invariant()
    def what_left_is_on_record(self) -> None:
        if not hasattr(self, "left"):
            return
        for (run, _), count in self.left.items():
            assert count <= self.book.released(run)
        for coalition, factor in ((None, 1), (1, 2)):
            spent: Counter[float] = Counter()
            for spend in self.book.spent(coalition):
                spent[spend.event["noise_multiplier"]] += spend.count
            left: Counter[float] = Counter()
            for (_, multiplier), count in self.left.items():
                left[factor * multiplier] += count
            assert all(spent[multiplier] >= count for multiplier, count in left.items())

    def teardown(self) -> None:
        """Every prefix of the records is the book as it was then."""
        if not hasattr(self, "store"):
            return
        records = self.store.records
        BudgetBook.replay(records)
        for number in range(1, len(records) + 1):
            again = BudgetBook.replay(
                records[:number], tolerance=math.inf
            )  # limits were checked by the first
            if number in self.seen:
                assert self.picture(again) == self.seen[number]


class UnderRenyi(Budget):
    composition = RenyiFilter(ORDER)
    shared = 1.85

    @rule(run=RUNS, multiplier=st.sampled_from(MULTIPLIERS), extra=st.integers(0, 5))
    def reserve_at_the_edge(self, run: str, multiplier: float, extra: int) -> None:
        asked = charge(5000, multiplier, shared=2 * multiplier)
        most = self.book.steps_that_fit([asked])
        if most + extra and run not in self.multiplier:
            taken = self.do(None, lambda: self.book.reserve(run, [asked.with_count(most + extra)]))
            assert taken is (extra == 0)
            if taken:
                self.multiplier[run] = multiplier

    @invariant()
    def the_sum_at_the_order_is_within_its_budget(self) -> None:
        """Σ n α / 2σ² ≤ ε − log(1 − 1/α) + log(δ α) / (α − 1)."""
        if not hasattr(self, "left"):
            return
        for factor, limit in ((1, LIMIT), (2, self.shared)):
            budget = limit - math.log(1 - 1 / ORDER) + math.log(DELTA * ORDER) / (ORDER - 1)
            lost = math.fsum(
                count * ORDER / (2 * (factor * multiplier) ** 2)
                for (_, multiplier), count in self.left.items()
            )
            assert budget > 0
            assert lost <= budget * (1 + 1e-9)


class UnderAdding(Budget):
    composition = Adding(3)


class UnderEither(Budget):
    composition = AnyOf((Adding(2), RenyiFilter(ORDER)))


@pytest.mark.parametrize("machine", [Budget, UnderRenyi, UnderAdding, UnderEither])
def test_the_limits_admit_runs_and_refuse_others(machine):
    """Otherwise the machines would only ever be refused, and show nothing."""
    book = Store().begin(grant(LIMIT, machine.composition, shared=machine.shared))
    assert book.fits([charge(50, 20.0, shared=40.0)])
    assert not book.fits([charge(400, 10.0, shared=20.0)])


def quick(examples: int, steps: int = 15) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


TestUnderRenyi = UnderRenyi.TestCase
TestUnderRenyi.settings = quick(200, 30)
TestFixedInAdvance = Budget.TestCase
TestFixedInAdvance.settings = quick(5)
TestUnderAdding = UnderAdding.TestCase
TestUnderAdding.settings = quick(6)
TestUnderEither = UnderEither.TestCase
TestUnderEither.settings = quick(8)
