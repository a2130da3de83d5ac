"""What a coordinator, or a careless member, might try against a budget."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hansa.errors import BudgetRefusedError
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.book import BudgetBook
from hansa.privacy.composition import Adding, AnyOf, FixedInAdvance, RenyiFilter, rule_for
from hansa.privacy.errors import BudgetExceededError, BudgetRecordError
from hansa.privacy.events import Spend, gaussian
from hansa.privacy.loss import PrivacyLoss
from hansa.privacy.records import Grant, Limit
from support.budgets import DATASET, DELTA, Store, charge, grant

RULES = [FixedInAdvance(), Adding(2), RenyiFilter(6), AnyOf((Adding(2), RenyiFilter(6)))]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_two_runs_that_each_fit_alone_are_not_both_admitted(rule):
    book = BudgetBook.begin(grant(4.0, rule))
    most = book.steps_that_fit([charge(5000)])
    assert most > 10
    book.reserve("a", [charge(most)])
    with pytest.raises(BudgetExceededError):
        book.reserve("b", [charge(most)])


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_run_that_nobody_closes_stays_spent_for_ever(rule):
    store = Store()
    book = store.begin(grant(4.0, rule))
    most = book.steps_that_fit([charge(5000)])
    book.reserve("a", [charge(most)])
    for _ in range(3):
        book = store.replay()
    with pytest.raises(BudgetExceededError):
        book.reserve("b", [charge(max(most // 2, 2))])


def test_retries_without_end_use_up_the_reservation_and_no_more():
    book = BudgetBook.begin(grant(4.0))
    book.reserve("run", [charge(20)])
    for number in range(10):
        book.confirm("run", f"try {number}", 2)
        book.abort("run", f"try {number}", 2)
    with pytest.raises(BudgetRefusedError, match="22 events of 20"):
        book.confirm("run", "try 10", 2)
    book.close("run")
    assert book.spent() == (Spend(gaussian(20.0), 20),)


def test_the_rule_cannot_be_chosen_after_the_fact():
    """A second grant, with a rule or an order under which more would fit, is no record that follows."""
    store = Store()
    book = store.begin(grant(4.0, RenyiFilter(4)))
    book.reserve("a", [charge(50)])
    with pytest.raises(BudgetRecordError, match="granted once"):
        BudgetBook.replay([*store.records, grant(4.0, RenyiFilter(6))])
    with pytest.raises(BudgetRecordError, match="granted once"):
        BudgetBook.replay([*store.records, grant(40.0, RenyiFilter(4))])


def test_a_reservation_that_was_made_smaller_afterwards_is_noticed():
    store = Store()
    book = store.begin(grant(4.0))
    book.reserve("run", [charge(20)])
    book.confirm("run", "round 1", 20)
    granted, reserved, confirmed = store.records
    fewer = replace(reserved, charges=(replace(reserved.charges[0], count=10),))
    with pytest.raises(BudgetRecordError, match="20 events of 10"):
        BudgetBook.replay([granted, fewer, confirmed])


def test_a_confirmation_that_was_left_out_is_not_given_back():
    """Without it the run is open, and counts whole; only the member's own close gives back."""
    store = Store()
    book = store.begin(grant(4.0))
    book.reserve("run", [charge(20)])
    book.confirm("run", "round 1", 20)
    without = [record for record in store.records if record is not store.records[-1]]
    assert BudgetBook.replay(without).spent() == book.spent()


def test_stopping_when_the_outputs_look_good_is_paid_for_under_every_valid_rule():
    """Of ten runs each is ended after its first step; under adding each still costs its whole plan."""
    whole = epsilon_spent([Spend(gaussian(20.0), 100)], DELTA / 10)
    book = BudgetBook.begin(grant(100.0, Adding(10)))
    for number in range(10):
        book.reserve(f"run {number}", [charge(100)])
        book.confirm(f"run {number}", "round 1", 1)
        book.close(f"run {number}")
    assert book.quotes()[0].used == pytest.approx(10 * whole)


def test_a_limit_for_one_run_is_the_exact_one_and_for_more_pays_for_the_choice():
    loss = PrivacyLoss(4.0, DELTA)
    one = BudgetBook.begin(Grant(DATASET, Limit(loss, rule_for(loss))))
    more = BudgetBook.begin(Grant(DATASET, Limit(loss, rule_for(loss, 3))))
    fits_one, fits_more = (book.steps_that_fit([charge(5000)]) for book in (one, more))
    assert epsilon_spent([Spend(gaussian(20.0), fits_one)], DELTA) <= 4.0
    assert epsilon_spent([Spend(gaussian(20.0), fits_one + 1)], DELTA) > 4.0
    assert fits_more < fits_one


def test_a_refusal_says_nothing_about_data():
    book = BudgetBook.begin(grant(0.5))
    with pytest.raises(BudgetExceededError) as raised:
        book.reserve("run", [charge(5000)])
    text = raised.value.diagnostics()
    assert "HANSA-401" in text
    assert DATASET not in text
