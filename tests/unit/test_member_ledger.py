"""A member's ledger: granted by its officer, reserved before work, released once, replayed from its log alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hansa.errors import BudgetRefusedError, HansaError, PrivacyParameterError
from hansa.identity import COORDINATOR, Signer
from hansa.identity.errors import SignatureError, UnknownSignerError
from hansa.ledger import (
    AgreementSigned,
    AttackMade,
    BudgetGranted,
    Checkpoint,
    Log,
    MemoryLogStore,
    Release,
    Reservation,
    RunClosed,
    SignedEntry,
    SqliteLogStore,
    officer_of,
)
from hansa.ledger.budgets import granted, reserved
from hansa.ledger.errors import (
    ClockError,
    EntryError,
    LogDamagedError,
    LogStoreError,
    LogVerificationError,
    NoBudgetError,
)
from hansa.ledger.kinds import Kind
from hansa.ledger.store import Head, Row
from hansa.privacy import records
from hansa.privacy.charges import Charge
from hansa.privacy.errors import BudgetExceededError, BudgetRecordError
from hansa.privacy.events import Spend, gaussian
from hansa_client.ledger import MemberLedger
from hansa_client.protection import Protection
from support import budgets, ledgers
from support.ledgers import AGREEMENT, HASH, MEMBERS, OFFICERS, OTHER, SIGNERS, TERMS, one_of_each, signed
from support.members import (
    EVALUATION,
    LIMITS,
    MEMBER,
    OWN_LOGS,
    PROTECTION,
    RUN,
    SOFTWARE,
    TRAINING,
    WITNESSES,
    Clock,
    budget,
    opened,
    ready,
    release,
    sign,
    trained,
)


def kinds(ledger: MemberLedger) -> list[type[Kind]]:
    return [type(SignedEntry.parse(data).entry) for data in ledger.log.entries()]


def state(ledger: MemberLedger) -> object:
    return (
        ledger.log.root,
        {dataset: (book.grant, book.state(), book.spent()) for dataset, book in ledger.books.items()},
        [ledger.entries_of(run) for run in ledger.runs()],
    )


class TestGrants:
    def test_the_officers_grant_is_the_limit(self) -> None:
        ledger = opened()
        ledger.grant(budget())
        assert ledger.book.grant == LIMITS
        assert ledger.dataset_id == LIMITS.dataset
        assert ledger.granted.max_records_per_unit == 4
        assert kinds(ledger) == [BudgetGranted]

    def test_the_same_grant_again_changes_nothing(self) -> None:
        ledger = opened()
        ledger.grant(budget())
        ledger.grant(budget())
        assert ledger.log.size == 1

    def test_a_budget_is_never_raised_for_the_same_dataset(self) -> None:
        ledger = opened()
        ledger.grant(budget())
        before = state(ledger)
        with pytest.raises(BudgetRefusedError, match="for its whole life"):
            ledger.grant(budget(limits=budgets.grant(100.0)))
        assert state(ledger) == before

    @pytest.mark.parametrize(
        ("signer", "error"),
        [
            (SIGNERS[MEMBER], UnknownSignerError),
            (SIGNERS[COORDINATOR], UnknownSignerError),
            (OFFICERS[MEMBERS[1]], UnknownSignerError),
            (Signer.generate(officer_of(MEMBER)), SignatureError),
            (None, EntryError),
        ],
        ids=["the member", "the coordinator", "another officer", "an imposter", "nobody"],
    )
    def test_nobody_else_grants(self, signer: Signer | None, error: type[HansaError]) -> None:
        ledger = opened()
        forged = SignedEntry.sign(budget().entry, *([] if signer is None else [signer]))
        with pytest.raises(error):
            ledger.grant(forged)
        assert ledger.log.size == 0
        with pytest.raises(NoBudgetError):
            ledger.dataset_id  # noqa: B018

    def test_another_members_grant_is_refused(self) -> None:
        ledger = opened()
        with pytest.raises(EntryError, match="none of 'hospital-1'"):
            ledger.grant(budget(MEMBERS[1]))
        assert ledger.log.size == 0

    @pytest.mark.parametrize("name", ["release", "agreement", "gate"])
    def test_what_is_no_grant_is_refused(self, name: str) -> None:
        with pytest.raises(EntryError, match="no grant"):
            opened().grant(signed(one_of_each()[name]))

    def test_without_a_grant_nothing_can_be_reserved(self) -> None:
        ledger = opened()
        sign(ledger)
        with pytest.raises(NoBudgetError, match="nothing can be reserved") as caught:
            ledger.reserve(AGREEMENT, RUN, [TRAINING], PROTECTION)
        assert "privacy officer" in caught.value.what_to_do
        assert isinstance(caught.value, BudgetRefusedError)
        assert caught.value.travels
        for property_ in ("book", "granted", "dataset_id"):
            with pytest.raises(NoBudgetError):
                getattr(ledger, property_)

    def test_a_reservation_names_the_log_that_has_to_show_the_run(self) -> None:
        ledger = opened()
        ledger.grant(budget())
        sign(ledger)
        named = ledger.reserve(AGREEMENT, RUN, [TRAINING], PROTECTION, ledgers.LOG_SIGNER.key)
        again = ledger.reserve(AGREEMENT, RUN, [TRAINING], PROTECTION, ledgers.LOG_SIGNER.key)
        assert again.encoded == named.encoded
        assert isinstance(named.entry, Reservation)
        assert named.entry.federation_log == ledgers.LOG_SIGNER.key.text

    def test_more_is_granted_for_another_dataset_id(self) -> None:
        ledger = trained(3)
        more = budgets.grant(4.0)
        more = records.Grant("e" * 32, more.everyone)
        ledger.grant(budget(limits=more))
        assert ledger.dataset_id == "e" * 32
        ledger.reserve(AGREEMENT, "run-2", [Charge("training", gaussian(40.0), 2)], PROTECTION)
        release(ledger, 4)  # the run that is open goes on under what it reserved
        assert ledger.books[LIMITS.dataset].released(RUN) == 8
        assert ledger.books["e" * 32].released("run-2") == 0
        assert set(ledger.books["e" * 32].state()) == {"run-2"}

    def test_a_node_may_say_which_dataset_it_trains_on(self) -> None:
        store = MemoryLogStore()
        ledger = ready(store)
        ledger.grant(budget(limits=records.Grant("e" * 32, LIMITS.everyone)))
        assert opened(store).dataset_id == "e" * 32
        assert opened(store, dataset_id=LIMITS.dataset).dataset_id == LIMITS.dataset
        with pytest.raises(NoBudgetError, match="dataset cccccccccccc"):
            opened(store, dataset_id="c" * 32).book  # noqa: B018


class TestAgreements:
    def test_a_member_signs_once_with_its_own_keys(self) -> None:
        ledger = opened()
        first = sign(ledger)
        assert sign(ledger) == first
        assert ledger.log.size == 1
        entry = first.entry
        assert isinstance(entry, AgreementSigned)
        assert entry.log_key == OWN_LOGS[MEMBER].key.text
        assert entry.officer_key == OFFICERS[MEMBER].public_key
        ledgers.keyring().verify(first)

    def test_it_signs_no_other_terms_under_the_same_id(self) -> None:
        ledger = opened()
        sign(ledger)
        for terms, witness in ((OTHER, WITNESSES[MEMBER]), (TERMS, WITNESSES[MEMBERS[1]])):
            with pytest.raises(EntryError, match="other terms or keys"):
                ledger.sign_agreement(
                    AGREEMENT,
                    terms_id=terms,
                    roster_sha256=ledgers.ROSTER.sha256,
                    witness_key=witness.key,
                )
        assert ledger.log.size == 1


class TestReservations:
    def test_a_run_is_reserved_once_and_whole(self) -> None:
        ledger = ready()
        first = ledger.reserve(AGREEMENT, RUN, [TRAINING, EVALUATION], PROTECTION)
        assert ledger.reserve(AGREEMENT, RUN, [TRAINING, EVALUATION], PROTECTION) == first
        assert kinds(ledger) == [BudgetGranted, AgreementSigned, Reservation]
        assert ledger.book.spent() == (Spend(TRAINING.event, 20), Spend(EVALUATION.event, 2))
        ledgers.keyring().verify(first)

    def test_other_charges_under_the_same_name_are_refused(self) -> None:
        ledger = ready()
        ledger.reserve(AGREEMENT, RUN, [TRAINING], PROTECTION)
        with pytest.raises(BudgetRefusedError, match="other events"):
            ledger.reserve(AGREEMENT, RUN, [TRAINING.with_count(21)], PROTECTION)
        sign(ledger, OTHER)
        with pytest.raises(BudgetRefusedError, match="other events"):
            ledger.reserve(OTHER, RUN, [TRAINING], PROTECTION)
        assert ledger.log.size == 4

    def test_a_limit_is_a_limit_and_the_refusal_says_what_would_fit(self) -> None:
        ledger = ready()
        before = state(ledger)
        with pytest.raises(BudgetExceededError, match="remains") as caught:
            ledger.reserve(AGREEMENT, RUN, [TRAINING.with_count(10**6)], PROTECTION)
        assert caught.value.shortfall.steps_that_fit > 20
        assert state(ledger) == before

    @pytest.mark.parametrize(
        "protection",
        [
            Protection("record", 4),
            Protection("patient", 3),
            Protection("patient", 5),
            Protection("patient", 4, "replace-one"),
        ],
    )
    def test_an_agreement_about_another_unit_is_refused(self, protection: Protection) -> None:
        ledger = ready()
        with pytest.raises(BudgetRefusedError, match="granted for a patient with at most 4 records"):
            ledger.reserve(AGREEMENT, RUN, [TRAINING], protection)
        assert ledger.log.size == 2

    def test_an_agreement_that_was_not_signed_is_refused(self) -> None:
        ledger = ready()
        with pytest.raises(BudgetRefusedError, match="not signed"):
            ledger.reserve(OTHER, RUN, [TRAINING], PROTECTION)

    def test_nothing_is_no_reservation(self) -> None:
        with pytest.raises(PrivacyParameterError):
            ready().reserve(AGREEMENT, RUN, [], PROTECTION)


class TestReleases:
    def test_a_release_is_signed_and_says_what_it_was_made_with(self) -> None:
        ledger = trained(0)
        done = release(ledger, 1)
        entry = done.entry
        assert isinstance(entry, Release)
        assert (entry.member, entry.unit, entry.round, entry.step) == (MEMBER, "patient", 1, 0)
        assert entry.spends[0].spend == Spend(TRAINING.event, 2)
        assert entry.software == SOFTWARE.versions
        assert ledger.log.entry(3) == done.encoded
        ledgers.keyring().verify(done)

    def test_a_budget_counts_down_and_stops_before_work(self) -> None:
        ledger = trained(9)
        ledger.may_release(RUN, "training", 2)
        ledger.may_release(RUN, "training", 2, 10)
        release(ledger, 10)
        size = ledger.log.size
        with pytest.raises(BudgetRefusedError, match="22 events of 20"):
            ledger.may_release(RUN, "training", 2)
        with pytest.raises(BudgetRefusedError, match="22 events of 20"):
            release(ledger, 11)
        assert ledger.log.size == size

    def test_asking_changes_nothing(self) -> None:
        ledger = trained(1)
        before = state(ledger)
        for _ in range(3):
            ledger.may_release(RUN, "training", 18)
        with pytest.raises(BudgetRefusedError):
            ledger.may_release(RUN, "training", 19)
        assert state(ledger) == before

    @pytest.mark.parametrize(
        "changes",
        [
            {"round_number": 3},
            {"round_number": 2},
            {"purpose": "evaluation"},
            {"spend": Spend(gaussian(41.0), 2)},
            {"spend": Spend(TRAINING.event, 0)},
            {"spend": Spend(TRAINING.event, 15)},
            {"run": "run-2"},
        ],
        ids=["round again", "older round", "purpose", "less noise said", "nothing", "too much", "run"],
    )
    def test_what_was_not_reserved_is_refused_and_leaves_no_trace(self, changes: dict[str, Any]) -> None:
        ledger = trained(3)
        before = state(ledger)
        number = changes.get("round_number", 4)
        with pytest.raises(BudgetRefusedError):
            release(ledger, number, **{key: value for key, value in changes.items() if key != "round_number"})
        assert state(ledger) == before
        release(ledger, 4)

    def test_a_run_of_another_agreement_is_refused(self) -> None:
        ledger = trained(1)
        sign(ledger, OTHER)
        with pytest.raises(BudgetRefusedError, match="under this agreement"):
            ledger.release(
                OTHER,
                RUN,
                round_number=2,
                step=1,
                purpose="training",
                spend=Spend(TRAINING.event, 1),
                y_sha256=HASH,
                manifest_sha256=HASH,
                rng="os",
            )
        with pytest.raises(BudgetRefusedError, match="under this agreement"):
            ledger.close(OTHER, RUN)

    def test_what_no_entry_can_say_is_refused_before_it_is_counted(self) -> None:
        ledger = trained(1)
        before = state(ledger)
        with pytest.raises(EntryError, match="y_sha256"):
            release(ledger, 2, y_sha256="secret")
        assert state(ledger) == before
        release(ledger, 2)

    def test_the_question_names_run_kind_and_round(self) -> None:
        ledger = trained(2)
        for run, kind, number in (("run-2", "training", 3), (RUN, "evaluation", 3), (RUN, "training", 2)):
            with pytest.raises(BudgetRefusedError):
                ledger.may_release(run, kind, 1, number)


class TestClosing:
    def test_the_rest_is_free_again_and_nothing_more_is_released(self) -> None:
        ledger = trained(3)
        done = ledger.close(AGREEMENT, RUN)
        assert done is not None
        assert isinstance(done.entry, RunClosed)
        assert done.entry.released == {"training": 6}
        assert ledger.book.spent() == (Spend(TRAINING.event, 6),)
        for call in (
            lambda: release(ledger, 4),
            lambda: ledger.may_release(RUN, "training", 1),
            lambda: ledger.reserve(AGREEMENT, RUN, [TRAINING], PROTECTION),
        ):
            with pytest.raises(BudgetRefusedError):
                call()
        assert ledger.close(AGREEMENT, RUN) == done

    def test_every_kind_is_counted_for_itself(self) -> None:
        ledger = ready()
        ledger.reserve(AGREEMENT, RUN, [TRAINING, EVALUATION], PROTECTION)
        release(ledger, 1)
        release(ledger, 2, 1, purpose="evaluation", spend=Spend(EVALUATION.event, 1))
        done = ledger.close(AGREEMENT, RUN)
        assert done is not None
        assert isinstance(done.entry, RunClosed)
        assert done.entry.released == {"training": 2, "evaluation": 1}

    def test_what_never_began_needs_no_end(self) -> None:
        ledger = ready()
        assert ledger.close(AGREEMENT, "run-9") is None
        assert ledger.log.size == 2


class TestAttacks:
    """What a member's attack on its own trainer came to: signed, kept, and no spend."""

    def made(self, **changes: Any) -> AttackMade:
        entry = one_of_each()["attack"]
        assert isinstance(entry, AttackMade)
        return entry.model_copy(update={"member": MEMBER, "agreement_id": AGREEMENT, **changes})

    def test_it_is_signed_and_spends_nothing(self) -> None:
        store = MemoryLogStore()
        ledger = ready(store)
        before = ledger.book.spent()
        signed = ledger.record_attack(self.made(at=ledger.own.now()))
        assert signed.statements[0].signer == MEMBER
        assert ledger.holds(signed.encoded)
        again = opened(store)
        assert again.holds(signed.encoded)
        assert again.book.spent() == before

    @pytest.mark.parametrize("changes", [{"member": "somebody-else"}, {"agreement_id": "9" * 64}])
    def test_another_members_or_of_an_agreement_that_was_not_signed(self, changes: dict[str, str]) -> None:
        ledger = ready()
        size = ledger.log.size
        with pytest.raises(EntryError, match="not this member's to record"):
            ledger.record_attack(self.made(**changes))
        assert ledger.log.size == size


class TestReopened:
    def test_the_budget_is_the_log_and_nothing_else(self) -> None:
        store = MemoryLogStore()
        ledger = trained(3, store)
        assert state(opened(store)) == state(ledger)
        ledger.close(AGREEMENT, RUN)
        again = opened(store)
        assert state(again) == state(ledger)
        assert again.close(AGREEMENT, RUN) == ledger.close(AGREEMENT, RUN)

    def test_a_member_that_starts_again_goes_on_where_it_was(self, tmp_path: Path) -> None:
        store = SqliteLogStore.create(tmp_path / "ledger.sqlite")
        trained(2, store)
        store.close()
        store = SqliteLogStore(tmp_path / "ledger.sqlite")
        again = opened(store)
        with pytest.raises(BudgetRefusedError):
            release(again, 2)
        release(again, 3)
        again.reserve(AGREEMENT, RUN, [TRAINING], PROTECTION)
        assert again.book.released(RUN) == 6
        assert again.log.size == 6
        store.close()

    def test_entries_of_a_run_are_what_it_stands_on(self) -> None:
        ledger = trained(2)
        ledger.reserve(AGREEMENT, "run-2", [TRAINING], PROTECTION)
        release(ledger, 1, run="run-2")
        ledger.close(AGREEMENT, RUN)
        told = [type(SignedEntry.parse(data).entry) for data in ledger.entries_of(RUN)]
        assert told == [AgreementSigned, Reservation, Release, Release, RunClosed]
        assert ledger.runs() == (RUN, "run-2")
        assert ledger.entries_of("run-3") == ()
        for data in ledger.entries_of("run-2"):
            assert ledger.holds(data)
            place = ledger.place_of(data)
            assert place is not None
            assert ledger.log.entry(place) == data
        assert not ledger.holds(b"something else")

    def test_a_key_that_was_replaced_still_counts_for_what_it_signed(self) -> None:
        store = MemoryLogStore()
        trained(1, store)
        new = Signer.generate(MEMBER)
        log = Log(store, OWN_LOGS[MEMBER])
        officer = OFFICERS[MEMBER].public_key
        with pytest.raises(LogVerificationError, match="entry 1 of 'hospital-1': a agreement is not signed"):
            MemberLedger(log, new, officer, SOFTWARE)
        former = (SIGNERS[MEMBER].public_key,)
        again = MemberLedger(log, new, officer, SOFTWARE, former_keys=former)
        release(again, 2)
        assert again.book.released(RUN) == 4

    def test_a_checkpoint_is_of_all_that_is_there(self) -> None:
        ledger = trained(2)
        note = ledger.checkpoint("fresh 00")
        checkpoint = Checkpoint.parse(note.text)
        assert (checkpoint.size, checkpoint.root) == (5, ledger.log.root)
        assert checkpoint.extensions == ("fresh 00",)


def forged(*entries: Kind | SignedEntry) -> MemoryLogStore:
    """A coherent log that holds these entries, whoever has signed them."""
    store = MemoryLogStore()
    every = (one if isinstance(one, SignedEntry) else signed(one) for one in entries)
    Log(store, OWN_LOGS[MEMBER]).append(one.encoded for one in every)
    return store


AGREED = one_of_each()["agreement"]
GRANTED = budget()
GRANT = GRANTED.entry
assert isinstance(GRANT, BudgetGranted)
ASKED = records.Reservation(RUN, AGREEMENT, (TRAINING,))
RESERVED = reserved(GRANT, ASKED, at=ledgers.AT)
ELSEWHERE = reserved(
    granted(
        records.Grant("e" * 32, LIMITS.everyone),
        member=MEMBER,
        unit="patient",
        max_records_per_unit=4,
        at=ledgers.AT,
    ),
    ASKED,
    at=ledgers.AT,
)
MORE = reserved(
    GRANT,
    records.Reservation(RUN, AGREEMENT, (TRAINING.with_count(10**6),)),
    at=ledgers.AT,
)


class TestDamage:
    @pytest.mark.parametrize(
        ("entries", "match"),
        [
            ([AGREED, RESERVED], "entry 1 of 'hospital-1': a reservation is of a dataset"),
            ([GRANTED, RESERVED], "entry 1 of 'hospital-1': a reservation is of an agreement"),
            ([GRANTED, AGREED, ELSEWHERE], "entry 2 of 'hospital-1': a reservation is of a dataset"),
            ([GRANTED, AGREED, SignedEntry(RESERVED)], "entry 2 of 'hospital-1': .* not its own word"),
            (
                [GRANTED, AGREED, SignedEntry.sign(RESERVED, Signer.generate(MEMBER))],
                "entry 2 of 'hospital-1': .* not signed by a key",
            ),
            ([GRANTED, one_of_each()["aggregate"]], "entry 1 of 'hospital-1': .* not its own word"),
            ([budget(MEMBERS[1])], "entry 0 of 'hospital-1': a budget of 'hospital-2'"),
            (
                [SignedEntry.sign(GRANTED.entry, Signer.generate(officer_of(MEMBER)))],
                "entry 0 of 'hospital-1': .* not granted by its officer",
            ),
            ([GRANTED, budget(limits=budgets.grant(100.0))], "entry 1 of 'hospital-1': .* granted twice"),
        ],
    )
    def test_a_log_that_holds_what_it_may_not_does_not_open(
        self, entries: list[Kind | SignedEntry], match: str
    ) -> None:
        store = forged(*entries)
        with pytest.raises(LogVerificationError, match=match):
            opened(store)

    def test_a_log_over_its_limit_does_not_open(self) -> None:
        opened(forged(GRANTED, AGREED, RESERVED))
        with pytest.raises(BudgetRecordError, match="record 2 of a budget"):
            opened(forged(GRANTED, AGREED, MORE))

    def test_bytes_that_are_no_entry_do_not_open(self) -> None:
        store = MemoryLogStore()
        Log(store, OWN_LOGS[MEMBER]).append([GRANTED.encoded, b"{}\n"])
        with pytest.raises(LogVerificationError, match="entry 1"):
            opened(store)

    def test_an_edited_entry_does_not_open(self) -> None:
        store = MemoryLogStore()
        trained(3, store)
        row = store._rows[4]
        store._rows[4] = Row(row.hashes, row.data.replace(b'"count":2', b'"count":1'))
        with pytest.raises(LogDamagedError, match="entry 4"):
            opened(store)

    def test_a_log_that_lost_its_end_does_not_open_behind_its_checkpoint(self) -> None:
        store = MemoryLogStore()
        ledger = trained(3, store)
        ledger.checkpoint()
        shorter = forged(*(SignedEntry.parse(data) for data in list(ledger.log.entries())[:-1]))
        shorter._checkpoints = store._checkpoints
        with pytest.raises(LogDamagedError, match="not the one that it signed at 6 entries"):
            opened(shorter)

    def test_another_members_log_does_not_open(self) -> None:
        store = MemoryLogStore()
        trained(1, store, MEMBERS[1])
        with pytest.raises(LogVerificationError, match="entry 0"):
            opened(store)


class Failing(MemoryLogStore):
    """A disk that is full from one write on; `late` has written it by then."""

    def __init__(self, late: bool = False) -> None:
        super().__init__()
        self.full, self.late = False, late

    def append(self, before: Head, rows: Any, root: bytes) -> None:
        if self.full and not self.late:
            raise LogStoreError("cannot use the disk: full")
        super().append(before, rows, root)
        if self.full:
            raise LogStoreError("cannot use the disk: gone")


class TestFullDisk:
    @pytest.mark.parametrize("late", [False, True])
    @pytest.mark.parametrize(
        "call",
        [
            lambda ledger: release(ledger, 3),
            lambda ledger: ledger.reserve(AGREEMENT, "run-2", [TRAINING], PROTECTION),
            lambda ledger: ledger.close(AGREEMENT, RUN),
            lambda ledger: sign(ledger, OTHER),
            lambda ledger: ledger.grant(budget(limits=records.Grant("e" * 32, LIMITS.everyone))),
        ],
        ids=["release", "reserve", "close", "sign", "grant"],
    )
    def test_after_a_write_that_failed_nothing_more_leaves(
        self, call: Callable[[MemberLedger], object], late: bool
    ) -> None:
        store = Failing(late)
        ledger = trained(2, store)
        store.full = True
        with pytest.raises(LogStoreError, match="disk"):
            call(ledger)
        store.full = False
        for next_ in (
            call,
            lambda ledger: release(ledger, 4),
            lambda ledger: ledger.may_release(RUN, "training", 1),
            lambda ledger: ledger.checkpoint(),
        ):
            with pytest.raises(LogStoreError, match="could not be written before") as caught:
                next_(ledger)
            assert "start the node again" in caught.value.what_to_do
        again = opened(store)
        assert again.log.size == 5 + late
        assert again.books[LIMITS.dataset].released(RUN) >= 4

    def test_a_release_that_may_have_been_stored_is_spent_after_a_restart(self) -> None:
        store = Failing(late=True)
        ledger = trained(2, store)
        store.full = True
        with pytest.raises(LogStoreError):
            release(ledger, 3)
        store.full = False
        again = opened(store)
        assert again.book.released(RUN) == 6
        with pytest.raises(BudgetRefusedError):
            release(again, 3)


class TestClock:
    def test_a_clock_that_was_set_back_a_little_stands_still(self) -> None:
        clock = Clock()
        ledger = ready(clock=clock)
        first = ledger.reserve(AGREEMENT, RUN, [TRAINING], PROTECTION).entry.at
        clock.time -= timedelta(minutes=4)
        assert release(ledger, 1).entry.at == first

    def test_a_clock_that_was_set_back_far_stops_the_member(self) -> None:
        clock, store = Clock(), MemoryLogStore()
        ledger = ready(store, clock=clock)
        ledger.reserve(AGREEMENT, RUN, [TRAINING], PROTECTION)
        clock.time -= timedelta(days=30)
        before = state(ledger)
        with pytest.raises(ClockError, match="2026-01-30"):
            release(ledger, 1)
        assert state(ledger) == before
        again = opened(store, clock=clock)
        with pytest.raises(ClockError):
            release(again, 1)
        clock.time += timedelta(days=31)
        release(again, 1)

    def test_the_officers_clock_is_another_one(self) -> None:
        ledger = opened()
        ledger.grant(budget(at="2099-01-01T00:00:00Z"))
        assert sign(ledger).entry.at.startswith("2026-")


def test_a_ledger_needs_no_torch() -> None:
    program = "import sys, hansa_client.ledger; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert "hansa_client.ledger" in loaded
    assert not {"torch", "flwr", "opacus", "pandas", "transformers", "scipy"} & loaded
