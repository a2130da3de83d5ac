"""The budget book as a state machine over records."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from hansa.errors import BudgetRefusedError, PrivacyParameterError
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.book import BudgetBook
from hansa.privacy.composition import Adding, FixedInAdvance, RenyiFilter
from hansa.privacy.errors import BudgetExceededError, BudgetRecordError
from hansa.privacy.events import Spend, gaussian, poisson_gaussian
from hansa.privacy.records import Abort, Close, Confirmation, Grant, Reservation
from hansa.privacy.words import rule_words
from support.budgets import DELTA, Crashed, Store, charge, grant

HUNDRED = epsilon_spent([Spend(gaussian(20.0), 100)], DELTA)


def opened(count: int = 100, epsilon: float = HUNDRED * 1.0001) -> tuple[Store, BudgetBook]:
    store = Store()
    book = store.begin(grant(epsilon))
    book.reserve("run", [charge(count)], "agreement")
    return store, book


def test_a_run_of_two_rounds_leaves_these_records():
    store, book = opened(4)
    book.confirm("run", "round 1", 2)
    book.abort("run", "round 1", 2)
    book.confirm("run", "round 1, again", 2)
    book.close("run")
    assert store.records == [
        grant(HUNDRED * 1.0001),
        Reservation("run", "agreement", (charge(4),)),
        Confirmation("run", "round 1", "training", 2),
        Abort("run", "round 1", "training", 2),
        Confirmation("run", "round 1, again", "training", 2),
        Close("run", {"training": 4}),
    ]
    assert book.aborted("run") == 1
    assert book.released("run") == 4


def test_an_open_reservation_counts_whole_and_a_closed_one_with_what_was_released():
    _, book = opened(100)
    book.confirm("run", "round 1", 30)
    assert book.spent() == (Spend(gaussian(20.0), 100),)
    book.close("run")
    assert book.spent() == (Spend(gaussian(20.0), 30),)
    book.reserve("next", [charge(70)], "agreement")
    with pytest.raises(BudgetExceededError):
        book.reserve("one more", [charge(1)], "agreement")


def test_a_question_whether_a_step_may_be_confirmed_records_nothing():
    store, book = opened(100)
    before = len(store.records)
    book.may_confirm("run", "round 1", 100)
    for step in (("run", "round 1", 101), ("run", "round 1", 0), ("other", "round 1", 1)):
        with pytest.raises(BudgetRefusedError):
            book.may_confirm(*step)
    book.confirm("run", "round 1", 30)
    with pytest.raises(BudgetRefusedError, match="on record already"):
        book.may_confirm("run", "round 1", 30)
    assert len(store.records) == before + 1
    assert book.released("run") == 30


def test_a_run_says_what_it_reserved_and_what_it_released_of_each_kind():
    book = Store().begin(grant(HUNDRED * 2))
    charges = (charge(50), charge(10, kind="evaluation"))
    book.reserve("run", charges, "agreement")
    assert book.reservation("run") == Reservation("run", "agreement", charges)
    assert book.reservation("other") is None
    book.confirm("run", "round 1", 7, "training")
    book.confirm("run", "round 2", 3, "evaluation")
    for _ in range(2):
        told = (book.released("run", "training"), book.released("run", "evaluation"), book.released("run"))
        assert told == (7, 3, 10)
        assert book.released("run", "compression") == book.released("other", "training") == 0
        book.close("run")
    assert book.reservation("run") is not None


def test_an_aborted_step_stays_charged():
    _, book = opened(100)
    book.confirm("run", "round 1", 10)
    book.abort("run", "round 1", 10)
    book.abort("run", "round 2", 10)  # it was never confirmed: it is charged now
    book.close("run")
    assert book.spent() == (Spend(gaussian(20.0), 20),)


def test_a_member_closes_with_more_than_is_on_record_and_never_with_less():
    _, book = opened(100)
    book.confirm("run", "round 1", 30)
    for wrong in ({"training": 29}, {"training": 101}, {}, {"training": 40, "other": 1}, {"training": 30.5}):
        with pytest.raises(BudgetRefusedError, match="cannot be closed"):
            book.close("run", wrong)
    book.close("run", {"training": 40})
    assert book.released("run") == 40
    assert book.spent() == (Spend(gaussian(20.0), 40),)
    book.close("run", {"training": 40})
    with pytest.raises(BudgetRefusedError, match="no open reservation"):
        book.close("run", {"training": 30})


def test_closing_a_run_that_nobody_reserved_changes_nothing():
    store, book = opened()
    book.close("another")
    assert len(store.records) == 2


def test_reserving_the_same_again_changes_nothing_and_anything_else_is_refused():
    store, book = opened(10)
    book.reserve("run", [charge(10)], "agreement")
    assert len(store.records) == 2
    for other in ([charge(9)], [charge(10, 21.0)], [charge(10, kind="evaluation")]):
        with pytest.raises(BudgetRefusedError, match="other events"):
            book.reserve("run", other, "agreement")
    with pytest.raises(BudgetRefusedError, match="other events"):
        book.reserve("run", [charge(10)], "another agreement")
    book.close("run")
    with pytest.raises(BudgetRefusedError, match="closed"):
        book.reserve("run", [charge(10)], "agreement")


def test_a_step_on_record_is_never_taken_again():
    """What was drawn for it may have left: drawing anew under one charge would be a second release."""
    store, book = opened(10)
    book.confirm("run", "round 1", 5)
    for again in (book.confirm, store.replay().confirm):
        with pytest.raises(BudgetRefusedError, match="on record already"):
            again("run", "round 1", 5)
    book.abort("run", "round 1", 5)
    for call in (book.confirm, book.abort):
        with pytest.raises(BudgetRefusedError, match="on record already"):
            call("run", "round 1", 5)
    assert book.released("run") == 5


def test_no_more_is_released_than_was_reserved_and_nothing_without():
    _, book = opened(10)
    book.confirm("run", "round 1", 8)
    for call in (book.confirm, book.abort):
        with pytest.raises(BudgetRefusedError, match="11 events of 10"):
            call("run", "round 2", 3)
        for count in (0, -1):
            with pytest.raises(BudgetRefusedError):
                call("run", "round 2", count)
        with pytest.raises(BudgetRefusedError, match="no open reservation"):
            call("another", "round 1", 1)
        with pytest.raises(BudgetRefusedError, match="nothing of kind"):
            call("run", "round 2", 1, "evaluation")
    book.close("run")
    with pytest.raises(BudgetRefusedError, match="no open reservation"):
        book.confirm("run", "round 2", 1)
    with pytest.raises(BudgetRefusedError, match="no open reservation"):
        book.abort("run", "round 1", 8)


def test_kinds_of_one_run_are_counted_apart():
    book = BudgetBook.begin(grant(10.0))
    book.reserve("run", [charge(10), charge(2, 5.0, kind="evaluation")])
    with pytest.raises(PrivacyParameterError, match="which one"):
        book.confirm("run", "round 1", 1)
    book.confirm("run", "round 1", 10, "training")
    book.confirm("run", "evaluation 1", 1, "evaluation")
    with pytest.raises(BudgetRefusedError, match="3 events of 2"):
        book.confirm("run", "evaluation 2", 2, "evaluation")
    book.close("run")
    assert book.spent() == (Spend(gaussian(20.0), 10), Spend(gaussian(5.0), 1))


# --- refusals say what would fit -----------------------------------------------------------------------------


def test_a_refusal_says_requested_remaining_and_what_would_fit():
    _, book = opened(60)
    with pytest.raises(BudgetExceededError) as raised:
        book.reserve("next", [charge(60)], "agreement")
    short = raised.value.shortfall
    assert short.against == "everyone"
    assert short.requested.epsilon == pytest.approx(epsilon_spent([Spend(gaussian(20.0), 60)], DELTA))
    assert short.remaining.epsilon == pytest.approx(HUNDRED - short.requested.epsilon, abs=1e-3)
    assert (short.steps, short.steps_that_fit) == (60, 40)
    assert short.noise_multiplier == 20.0
    assert "40 of its 60 steps would fit" in raised.value.what_to_do
    assert f"{short.noise_multiplier_that_fits:.4g}" in raised.value.what_to_do
    # both offers are true
    needed = short.noise_multiplier_that_fits
    assert needed == pytest.approx(20 * math.sqrt(60 / 40), rel=0.02)
    assert book.fits([charge(60, needed)])
    assert not book.fits([charge(60, needed * 0.98)])
    assert book.fits([charge(40)])
    assert not book.fits([charge(41)])


def test_a_refusal_spends_nothing():
    store, book = opened(60)
    before = book.state()
    with pytest.raises(BudgetExceededError):
        book.reserve("next", [charge(60)], "agreement")
    assert book.state() == before
    assert len(store.records) == 2


def test_where_the_rule_admits_no_further_run_a_refusal_says_so():
    book = BudgetBook.begin(grant(1.0, Adding(1)))
    book.reserve("run", [charge(1, 50.0)])
    with pytest.raises(BudgetExceededError, match="remains") as raised:
        book.reserve("next", [charge(1, 50.0)])
    assert raised.value.shortfall.noise_multiplier_that_fits is None
    assert "no further run is admitted, whatever it costs" in raised.value.cause
    assert raised.value.what_to_do == rule_words(Adding(1))
    assert raised.value.shortfall.steps_that_fit == 0
    without = replace(raised.value.shortfall, rule="")
    assert without.remedy() == "0 of its 1 steps would fit, or no noise lets all of them fit."


def test_sampled_steps_are_offered_noise_too():
    event = poisson_gaussian(0.1, 2.0)
    book = BudgetBook.begin(grant(1.0, FixedInAdvance()))
    with pytest.raises(BudgetExceededError) as raised:
        book.reserve("run", [charge(1).__class__("training", event, 100)])
    needed = raised.value.shortfall.noise_multiplier_that_fits
    assert needed is not None
    cost = epsilon_spent([Spend(poisson_gaussian(0.1, needed), 100)], DELTA)
    assert 0.97 < cost <= 1.0


def test_what_is_fixed_in_advance_is_one_agreement():
    """A second agreement is made after the outputs of the first were seen: the rule has no theorem for that."""
    book = BudgetBook.begin(grant(4.0, FixedInAdvance()))
    book.reserve("run-1", [charge(1)], "9f" * 32)
    book.reserve("run-2", [charge(1)], "9f" * 32)
    book.close("run-1")
    before = book.quotes()
    with pytest.raises(BudgetRefusedError, match="agreements follow one another"):
        book.reserve("run-3", [charge(1)], "8e" * 32)
    assert book.quotes() == before
    assert book.reservation("run-3") is None


# --- two budgets ---------------------------------------------------------------------------------------------


def test_each_of_two_limits_refuses_by_itself():
    own, shared = charge(100, 20.0, shared=40.0), epsilon_spent([Spend(gaussian(40.0), 100)], DELTA)
    assert BudgetBook.begin(grant(HUNDRED * 1.001, shared=shared * 1.001)).fits([own])
    for limits, against in (
        ((HUNDRED * 0.99, shared * 1.001), "everyone"),
        ((HUNDRED * 1.001, shared * 0.99), "any 1 other member and all outside"),
    ):
        book = BudgetBook.begin(grant(limits[0], shared=limits[1]))
        with pytest.raises(BudgetExceededError, match=against):
            book.reserve("run", [own])
        assert book.spent() == ()


def test_noise_that_fits_fits_both_limits():
    book = BudgetBook.begin(grant(HUNDRED, shared=HUNDRED / 4))
    with pytest.raises(BudgetExceededError) as raised:
        book.reserve("run", [charge(200, 20.0, shared=40.0)])
    factor = book.noise_that_fits([charge(200, 20.0, shared=40.0)])
    assert factor is not None
    assert book.fits([charge(200, 20.0 * factor, shared=40.0 * factor)])
    assert raised.value.shortfall.against == "everyone"


def test_an_agreement_made_for_fewer_colluders_counts_with_its_own_noise_alone():
    one = charge(100, 20.0, shared=40.0)
    book = BudgetBook.begin(grant(HUNDRED * 1.001, shared=HUNDRED * 0.9, coalition=2))
    with pytest.raises(BudgetExceededError, match="any 2 other members"):
        book.reserve("run", [one])


def test_local_noise_counts_whole_against_both():
    book = BudgetBook.begin(grant(HUNDRED * 2, shared=HUNDRED * 0.9))
    assert not book.fits([charge(100)])
    assert [quote.together for quote in book.quotes([charge(100)])] == [pytest.approx(HUNDRED)] * 2


# --- rules ---------------------------------------------------------------------------------------------------


def test_under_a_renyi_filter_an_early_end_gives_back_and_under_adding_it_does_not():
    for rule, expected in ((RenyiFilter(6), True), (Adding(2), False)):
        book = BudgetBook.begin(grant(4.0, rule))
        book.reserve("run", [charge(100)])
        (before,) = book.quotes()
        book.confirm("run", "round 1", 10)
        book.close("run")
        (after,) = book.quotes()
        assert (after.used < before.used) is expected


def test_what_fits_under_a_filter_is_what_its_theorem_says():
    """Σ n α / 2σ² ≤ ε − log(1 − 1/α) + log(δ α) / (α − 1), by hand."""
    order, epsilon = 6, 4.0
    room = epsilon - math.log(1 - 1 / order) + math.log(DELTA * order) / (order - 1)
    most = math.floor(room * 2 * 400 / order)
    book = BudgetBook.begin(grant(epsilon, RenyiFilter(order)))
    assert book.fits([charge(most)])
    assert not book.fits([charge(most + 1)])
    book.reserve("a", [charge(most // 2)])
    assert book.steps_that_fit([charge(most)]) == most - most // 2


# --- replay --------------------------------------------------------------------------------------------------


def test_replay_gives_the_same_book():
    store, book = opened(50)
    book.confirm("run", "round 1", 10)
    book.abort("run", "round 2", 10)
    book.close("run", {"training": 25})
    book.reserve("next", [charge(20)], "agreement")
    again = store.replay()
    assert again.state() == book.state()
    assert again.spent() == book.spent()
    again.confirm("next", "round 1", 1)
    assert len(store.records) == 7


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_store_that_fails_stops_the_book_until_it_is_replayed(when):
    store, book = opened(50)
    store.crash = when
    with pytest.raises(Crashed):
        book.confirm("run", "round 1", 10)
    for call in (
        lambda: book.confirm("run", "round 2", 1),
        lambda: book.reserve("next", [charge(1)], "agreement"),
        lambda: book.close("run"),
    ):
        with pytest.raises(BudgetRecordError, match="may or may not"):
            call()
    assert store.replay().released("run") == (10 if when == "after" else 0)
    assert store.replay().spent() == (Spend(gaussian(20.0), 50),)


R = Reservation("run", "", (charge(10),))
C = Confirmation("run", "round 1", "training", 5)


@pytest.mark.parametrize(
    "records",
    [
        [],
        [R],
        [grant(), grant()],
        [grant(), C],
        [grant(), R, R],
        [grant(), R, C, C],
        [grant(), R, C, Confirmation("run", "round 2", "training", 6)],
        [grant(), R, Confirmation("run", "round 1", "training", 0)],
        [grant(), R, Confirmation("run", "round 1", "evaluation", 1)],
        [grant(), R, C, Abort("run", "round 1", "training", 4)],
        [grant(), R, C, Close("run", {"training": 4})],
        [grant(), R, Close("run", {"training": 11})],
        [grant(), R, Close("run", {"training": 5}), C],
        [grant(), R, Close("run", {"training": 5}), Close("run", {"training": 5})],
        [grant(), Close("run", {})],
        [grant(HUNDRED / 2), Reservation("run", "", (charge(100),))],
        [grant(shared=HUNDRED / 2), Reservation("run", "", (charge(100),))],
    ],
)
def test_records_that_do_not_follow_are_refused(records):
    with pytest.raises(BudgetRecordError):
        BudgetBook.replay(records)


def test_the_last_digits_of_another_release_do_not_lose_a_book():
    records = [grant(HUNDRED * (1 - 5e-4)), Reservation("run", "", (charge(100),))]
    book = BudgetBook.replay(records)
    assert book.quotes()[0].remaining.epsilon == 0
    with pytest.raises(BudgetExceededError):
        book.reserve("next", [charge(1, 1e4)])


def test_a_book_knows_its_grant():
    assert isinstance(opened()[1].grant, Grant)
    assert opened()[1].quotes()[0].limit == grant(HUNDRED * 1.0001).everyone.loss
