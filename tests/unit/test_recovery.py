"""A ledger that was lost, or put back from an old copy, is rebuilt from what the league has cosigned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hansa.errors import BudgetRefusedError
from hansa.identity import COORDINATOR
from hansa.ledger import (
    InMemoryWitness,
    Log,
    LogStore,
    MemoryLogStore,
    RunClosed,
    SignedEntry,
    SignedNote,
    SqliteLogStore,
)
from hansa.ledger.errors import (
    CheckpointRefusedError,
    LogStoreError,
    LogVerificationError,
    OldCopyError,
    RecoveryError,
)
from hansa.privacy import records
from hansa.protocol import fresh_line
from hansa_client.recovery import Recovered, recover
from support import budgets, ledgers, members
from support.ledgers import AGREEMENT, LOG_SIGNER, MEMBERS, SIGNERS, amendment, signed
from support.members import LIMITS, MEMBER, PROTECTION, RUN, TRAINING, WITNESSES, Spend
from support.mirrors import FEDERATION, League, Party, copied, played

NONCE = "7e" * 16


def cosigned(league: League, *extensions: str, without: tuple[str, ...] = (MEMBER,)) -> SignedNote:
    """A checkpoint with this member's nonce and the cosignatures of the others."""
    note = league.log.checkpoint(*(extensions or (fresh_line(MEMBER, NONCE),)))
    for name, party in league.parties.items():
        if name not in without:
            note = league.log.add_cosignature(note, league.news(party, note), WITNESSES[name].key)
    return note


def rebuilt(league: League, store: LogStore, note: SignedNote | None = None, **changes: Any) -> Recovered:
    told: dict[str, Any] = {
        "federation": FEDERATION,
        "entries": list(league.log.entries()),
        "note": note or cosigned(league),
        "nonce": NONCE,
    }
    told.update(changes)
    return recover(
        store, lambda one: members.opened(one, clock=league[0].clock), *(told[key] for key in told)
    )


def with_grant() -> MemoryLogStore:
    """A new log in which the officer has put the grant back."""
    store = MemoryLogStore()
    members.opened(store).grant(members.budget())
    return store


def restart(party: Party, store: LogStore) -> None:
    party.own, party.copy, party.memory = store, MemoryLogStore(), InMemoryWitness()
    party.start()


class TestRebuilding:
    def test_an_old_copy_gets_back_what_it_lacks_byte_for_byte(self) -> None:
        league = played(1)
        backup = copied(league[0].own)
        league.round(2)
        league.round(3)
        lost = list(league.ledger(0).entries_of(RUN)[-2:])
        done = rebuilt(league, backup)
        assert [signed_.encoded for signed_ in done.entries] == lost
        assert done.forfeited == (RUN,)
        assert list(done.ledger.entries_of(RUN))[:-1] == list(league.ledger(0).entries_of(RUN))

    def test_what_was_lost_altogether_comes_back_behind_the_grant(self) -> None:
        league = played(3)
        done = rebuilt(league, with_grant())
        assert len(done.entries) == 5
        assert list(done.ledger.entries_of(RUN))[:-1] == list(league.ledger(0).entries_of(RUN))

    def test_a_run_that_was_open_is_over_and_counts_in_full(self) -> None:
        """A release that never arrived at the coordinator may have left: the whole reservation is gone."""
        league = played(2)
        backup = copied(league[0].own)
        members.release(league.ledger(0), 3)  # nobody else has ever seen it
        done = rebuilt(league, backup)
        assert done.ledger.book.spent() == (Spend(TRAINING.event, 20),)
        last = SignedEntry.parse(done.ledger.entries_of(RUN)[-1])
        assert isinstance(last.entry, RunClosed)
        assert last.entry.released == {"training": 20}
        ledgers.keyring().verify(last)
        for call in (
            lambda: done.ledger.may_release(RUN, "training", 1),
            lambda: members.release(done.ledger, 4),
            lambda: done.ledger.reserve(AGREEMENT, RUN, [TRAINING], PROTECTION),
        ):
            with pytest.raises(BudgetRefusedError):
                call()
        done.ledger.reserve(AGREEMENT, "run-2", [TRAINING], PROTECTION)

    def test_a_run_that_was_closed_stays_as_it_was_closed(self) -> None:
        league = played(2)
        backup = copied(league[0].own)
        league.ledger(0).close(AGREEMENT, RUN)
        league.collect()
        done = rebuilt(league, backup)
        assert done.forfeited == ()
        assert done.ledger.book.spent() == (Spend(TRAINING.event, 4),)
        assert done.ledger.log.root == league.ledger(0).log.root

    def test_a_ledger_that_lacks_nothing_is_left_as_it_is_but_for_its_open_runs(self) -> None:
        league = played(2)
        league.ledger(0).close(AGREEMENT, RUN)
        league.collect()
        before = league[0].own.head()
        done = rebuilt(league, league[0].own)
        assert (done.entries, done.forfeited) == ((), ())
        assert league[0].own.head() == before

    def test_recovering_twice_is_recovering_once(self) -> None:
        league = played(2)
        store = with_grant()
        first = rebuilt(league, store)
        head = store.head()
        again = rebuilt(league, store)
        assert (again.entries, again.forfeited) == ((), ())
        assert store.head() == head
        assert again.ledger.book.state() == first.ledger.book.state()

    def test_the_member_is_taken_back_and_the_league_learns_what_it_forfeited(self) -> None:
        league = played(2)
        party = league[0]
        store = with_grant()
        restart(party, store)
        with pytest.raises(OldCopyError):
            league.news(party)
        note = cosigned(league)
        rebuilt(league, store, note)
        restart(party, store)
        party.mirror.news(list(league.log.entries()), note)
        party.mirror.verify_manifest_checkpoint(note, NONCE)
        (forfeit,) = party.mirror.outstanding()
        league.collect()
        league.spread()
        assert all(other.mirror.shows(forfeit) for other in league.parties.values())
        party.ledger.reserve(AGREEMENT, "run-2", [TRAINING], PROTECTION)
        members.release(party.ledger, 1, run="run-2")
        league.collect()
        party.mirror.verify_manifest_checkpoint(league.spread())

    def test_runs_of_other_federations_stay_reserved(self) -> None:
        league = played(1)
        ledger = league.ledger(0)
        members.sign(ledger, "ee" * 32)
        ledger.reserve("ee" * 32, "elsewhere", [members.EVALUATION], PROTECTION)
        backup = copied(league[0].own)
        league.round(2)
        done = rebuilt(league, backup)
        assert done.forfeited == (RUN,)
        assert done.ledger.own.closed("elsewhere") is None
        assert Spend(members.EVALUATION.event, 2) in done.ledger.book.spent()

    def test_it_is_on_disk(self, tmp_path: Path) -> None:
        league = played(2)
        path = tmp_path / "ledger.sqlite"
        store = SqliteLogStore.create(path)
        members.opened(store).grant(members.budget())
        done = rebuilt(league, store)
        state = done.ledger.book.state()
        store.close()
        store = SqliteLogStore(path)
        assert members.opened(store).book.state() == state
        store.close()


class TestRefusals:
    @pytest.mark.parametrize("nonce", ["00" * 16, "", NONCE.upper()])
    def test_a_checkpoint_without_the_nonce_is_refused(self, nonce: str) -> None:
        """An older one, however many have cosigned it, may be from before the last release."""
        league, store = played(2), with_grant()
        head = store.head()
        with pytest.raises(RecoveryError, match="nonce of this recovery"):
            rebuilt(league, store, nonce=nonce)
        assert store.head() == head

    def test_another_members_nonce_is_refused(self) -> None:
        league = played(1)
        with pytest.raises(RecoveryError, match="nonce of this recovery"):
            rebuilt(league, with_grant(), cosigned(league, fresh_line(MEMBERS[1], NONCE)))

    def test_too_few_cosignatures_are_refused(self) -> None:
        league = played(1)
        note = cosigned(league, without=MEMBERS[:2])
        with pytest.raises(CheckpointRefusedError, match="2 members have cosigned"):
            rebuilt(league, with_grant(), note)

    def test_a_revoked_members_cosignature_does_not_count(self) -> None:
        league = played(1)
        league.log.append([signed(amendment()).encoded])
        with pytest.raises(CheckpointRefusedError, match="2 members have cosigned"):
            rebuilt(league, with_grant(), cosigned(league))

    @pytest.mark.parametrize("attack", ["dropped", "edited", "cut short", "reordered"])
    def test_another_log_than_was_cosigned_is_refused(self, attack: str) -> None:
        league, store = played(2), with_grant()
        entries = list(league.log.entries())
        mine = next(i for i, data in enumerate(entries) if data in league.ledger(0).entries_of(RUN)[2:])
        changed = {
            "dropped": [*entries[:mine], *entries[mine + 1 :], entries[-1]],
            "edited": [
                *entries[:mine],
                entries[mine].replace(b'"count":2', b'"count":1'),
                *entries[mine + 1 :],
            ],
            "cut short": entries[:-1],
            "reordered": [*entries[:mine], entries[mine + 1], entries[mine], *entries[mine + 2 :]],
        }[attack]
        head = store.head()
        with pytest.raises(LogVerificationError):
            rebuilt(league, store, entries=changed)
        assert store.head() == head

    def test_an_invented_spend_is_not_put_into_a_ledger(self) -> None:
        league, store = played(1), with_grant()
        lie = SignedEntry.sign(ledgers.release(9, MEMBER), SIGNERS[COORDINATOR]).encoded
        log = Log(MemoryLogStore(), LOG_SIGNER)
        log.append([*league.log.entries(), lie])
        note = log.checkpoint(fresh_line(MEMBER, NONCE))
        for name in MEMBERS:
            note = log.add_cosignature(note, WITNESSES[name].sign(note.text, 1), WITNESSES[name].key)
        with pytest.raises(LogVerificationError, match="has not signed its release"):
            rebuilt(league, store, note, entries=list(log.entries()))
        assert store.head().size == 1

    def test_without_the_grant_nothing_is_rebuilt(self) -> None:
        league, store = played(1), MemoryLogStore()
        with pytest.raises(RecoveryError, match="nothing was granted") as caught:
            rebuilt(league, store)
        assert "grant back first" in caught.value.what_to_do
        assert store.head().size == 0

    def test_a_smaller_grant_does_not_hide_what_was_spent(self) -> None:
        league, store = played(1), MemoryLogStore()
        small = records.Grant(LIMITS.dataset, budgets.grant(0.05).everyone)
        members.opened(store).grant(members.budget(limits=small))
        with pytest.raises(RecoveryError, match="does not fit this ledger"):
            rebuilt(league, store)
        assert store.head().size == 1

    @pytest.mark.parametrize("number", [2, 3])
    def test_a_member_that_ran_twice_is_not_made_one(self, number: int) -> None:
        """The copy went on by itself, in the same round or in another."""
        league = played(1)
        backup = copied(league[0].own)
        league.round(2)
        members.release(members.opened(backup), number, y_sha256="99" * 32)
        head = backup.head()
        with pytest.raises(RecoveryError, match="does not fit this ledger") as caught:
            rebuilt(league, backup)
        assert "ran twice" in caught.value.what_to_do
        assert backup.head() == head

    def test_a_disk_that_is_full_leaves_the_old_copy(self) -> None:
        class Full(MemoryLogStore):
            full = False

            def append(self, *arguments: Any) -> None:
                if self.full:
                    raise LogStoreError("cannot use the disk: full")
                super().append(*arguments)

        league, store = played(2), Full()
        members.opened(store).grant(members.budget())
        store.full = True
        with pytest.raises(LogStoreError, match="full"):
            rebuilt(league, store)
        assert store.head().size == 1
        store.full = False
        assert len(rebuilt(league, store).entries) == 4
