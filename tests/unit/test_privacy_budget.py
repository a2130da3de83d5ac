"""The budget book: reserve, confirm, close, refuse, restart."""

from __future__ import annotations

import pytest

from hansa.errors import BudgetRefusedError, PrivacyParameterError
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.budget import InMemoryBudgetBook, PrivacyLoss
from hansa.privacy.events import Spend, poisson_gaussian

DELTA = 1e-5
EVENT = poisson_gaussian(0.1, 2.0)
OTHER = poisson_gaussian(0.1, 3.0)
HUNDRED = epsilon_spent([Spend(EVENT, 100)], DELTA)


def book(epsilon: float = HUNDRED * 1.0001) -> InMemoryBudgetBook:
    return InMemoryBudgetBook(PrivacyLoss(epsilon, DELTA))


def test_a_run_that_fits_is_reserved_whole() -> None:
    held = book()
    held.reserve("run", Spend(EVENT, 100))
    assert held.spent() == (Spend(EVENT, 100),)
    assert held.remaining().epsilon == pytest.approx(0, abs=1e-3)


def test_reserving_the_same_again_changes_nothing() -> None:
    held = book()
    held.reserve("run", Spend(EVENT, 100))
    held.reserve("run", Spend(EVENT, 100))
    assert held.spent() == (Spend(EVENT, 100),)


def test_what_does_not_fit_is_refused_before_anything_is_spent() -> None:
    held = book()
    with pytest.raises(BudgetRefusedError, match="remains") as refused:
        held.reserve("run", Spend(EVENT, 101))
    assert "100 of its 101 steps would fit" in refused.value.what_to_do
    assert held.spent() == ()
    assert held.remaining().epsilon == pytest.approx(held.limit().epsilon)


def test_runs_add_up() -> None:
    held = book()
    held.reserve("a", Spend(EVENT, 60))
    with pytest.raises(BudgetRefusedError):
        held.reserve("b", Spend(EVENT, 60))
    held.reserve("b", Spend(EVENT, 40))
    assert epsilon_spent(held.spent(), DELTA) == pytest.approx(HUNDRED)


def test_a_run_cannot_change_its_events() -> None:
    held = book()
    held.reserve("run", Spend(EVENT, 10))
    with pytest.raises(BudgetRefusedError, match="other events"):
        held.reserve("run", Spend(OTHER, 10))
    with pytest.raises(BudgetRefusedError, match="other events"):
        held.reserve("run", Spend(EVENT, 11))


def test_a_step_counts_once_and_no_more_are_released_than_reserved() -> None:
    held = book()
    held.reserve("run", Spend(EVENT, 10))
    held.confirm("run", "round 1", 5)
    held.confirm("run", "round 1", 5)
    assert held.released("run") == 5
    held.confirm("run", "round 2", 5)
    with pytest.raises(BudgetRefusedError, match="11 events of 10"):
        held.confirm("run", "round 3", 1)
    assert held.released("run") == 10


def test_nothing_is_released_without_a_reservation() -> None:
    with pytest.raises(BudgetRefusedError, match="no open reservation"):
        book().confirm("run", "round 1", 1)


def test_a_reservation_that_is_not_closed_stays_spent_after_a_restart() -> None:
    held = book()
    held.reserve("run", Spend(EVENT, 100))
    held.confirm("run", "round 1", 1)
    again = InMemoryBudgetBook(held.limit(), held.snapshot())
    assert again.spent() == (Spend(EVENT, 100),)
    with pytest.raises(BudgetRefusedError):
        again.reserve("new", Spend(EVENT, 1))


def test_closing_frees_what_was_not_released_and_ends_the_run() -> None:
    held = book()
    held.reserve("run", Spend(EVENT, 100))
    held.confirm("run", "round 1", 30)
    held.close("run")
    assert held.spent() == (Spend(EVENT, 30),)
    for forbidden in (
        lambda: held.confirm("run", "round 2", 1),
        lambda: held.reserve("run", Spend(EVENT, 100)),
    ):
        with pytest.raises(BudgetRefusedError):
            forbidden()
    again = InMemoryBudgetBook(held.limit(), held.snapshot())
    again.reserve("new", Spend(EVENT, 70))
    with pytest.raises(BudgetRefusedError):
        again.confirm("run", "round 2", 1)


@pytest.mark.parametrize("count", [0, -1])
def test_counts_are_positive(count: int) -> None:
    held = book()
    with pytest.raises(PrivacyParameterError):
        held.reserve("run", Spend(EVENT, count))
    held.reserve("run", Spend(EVENT, 10))
    with pytest.raises(BudgetRefusedError):
        held.confirm("run", "round 1", count)


@pytest.mark.parametrize(
    "snapshot",
    [
        {"run": 3},
        {"run": {"event": EVENT, "count": 1, "confirmed": {}}},
        {"run": {"event": EVENT, "count": "1", "confirmed": {}, "closed": False}},
        {"run": {"event": EVENT, "count": 9, "confirmed": {"a": "3"}, "closed": True}},
        {"run": {"event": EVENT, "count": 9, "confirmed": {"a": -3}, "closed": True}},
        {"run": {"event": EVENT, "count": 9, "confirmed": {"a": True}, "closed": True}},
        {"run": {"event": EVENT, "count": 9, "confirmed": {"a": 10}, "closed": True}},
    ],
)
def test_a_saved_book_that_cannot_be_read_is_never_an_empty_one(snapshot: dict[str, object]) -> None:
    with pytest.raises(PrivacyParameterError, match="cannot be read"):
        InMemoryBudgetBook(PrivacyLoss(1.0, DELTA), snapshot)  # type: ignore[arg-type]
