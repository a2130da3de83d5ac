"""A member's copy of the federation's log: what comes is checked, kept, and cosigned."""

from __future__ import annotations

from pathlib import Path

import pytest

from hansa.ledger import (
    Checkpoint,
    InMemoryWitness,
    Log,
    LogPolicy,
    LogView,
    MemoryLogStore,
    SignedEntry,
    SqliteLogStore,
    SqliteWitness,
    verify_log,
)
from hansa.ledger.errors import (
    CheckpointRefusedError,
    LogDamagedError,
    LogStoreError,
    NewsRefusedError,
)
from hansa.ledger.store import Head, Row
from hansa.ledger.verify import GivenEntries
from hansa.protocol import fresh_line
from hansa_client.mirror import Mirror
from support import members
from support.ledgers import LOG_SIGNER, MEMBERS, amendment, keyring, signed
from support.members import RUN, WITNESSES
from support.mirrors import FEDERATION, League, Party, picture, played

NONCE = "5a" * 16


class TestNews:
    def test_a_round_leaves_the_same_log_everywhere(self) -> None:
        league = played(2)
        for party in league.parties.values():
            assert party.mirror.view.root == league.log.root
            assert party.mirror.outstanding() == ()
            assert all(party.mirror.shows(data) for data in party.ledger.entries_of(RUN))
            assert list(party.mirror.view.entries()) == list(league.log.entries())
        checkpoint = Checkpoint.parse(league.log.checkpoint().text)
        seen = verify_log(GivenEntries(list(league.log.entries())), checkpoint, keyring())
        assert seen.entries == {"agreement": 4, "reservation": 4, "release": 8, "aggregate": 2}

    def test_what_is_cosigned_is_what_all_witnesses_make_a_quorum_of(self) -> None:
        note = played(1).spread()
        policy = LogPolicy(LOG_SIGNER.key, tuple(signer.key for signer in WITNESSES.values()), 4)
        assert policy.verify(note).checkpoint.size == 13

    def test_the_same_news_again_changes_nothing(self) -> None:
        league = played(1)
        party, entries = league[0], list(league.log.entries())
        note = league.log.checkpoint()
        before = picture(party.mirror)
        for count in (0, 1, 5, len(entries)):
            again = party.mirror.news(entries[len(entries) - count :], note)
            assert WITNESSES[party.name].key.verify(note.text, again) is not None
            assert picture(party.mirror) == before

    def test_news_that_overlap_bring_what_is_new(self) -> None:
        league = played(1)
        party = league[0]
        members.release(party.ledger, 2)
        league.collect()
        party.mirror.news(list(league.log.entries(3)), league.log.checkpoint())
        assert party.mirror.size == league.log.size == 14
        assert party.mirror.outstanding() == ()

    def test_a_log_may_begin_empty(self) -> None:
        league = League()
        league[0].mirror.verify_manifest_checkpoint(league.spread())
        assert league[0].mirror.size == 0
        league.begin()
        league.spread()
        assert league[0].mirror.size == 8

    def test_a_gap_is_told_with_the_size_that_is_here(self) -> None:
        league = played(1)
        party = Party("hospital-1")
        with pytest.raises(NewsRefusedError, match="leaves a gap: 0 are here") as caught:
            party.mirror.news(list(league.log.entries(1)), league.log.checkpoint())
        assert caught.value.size == 0
        assert caught.value.travels

    def test_more_entries_than_the_checkpoint_has(self) -> None:
        league = played(1)
        note = league.log.checkpoint()
        with pytest.raises(NewsRefusedError, match="from entry -1 on"):
            league[0].mirror.news([*league.log.entries(), b"more"], note)

    @pytest.mark.parametrize("note", ["", "no note", "a\n\nb\n", b"\xff"])
    def test_what_is_no_checkpoint_is_refused(self, note: str | bytes) -> None:
        league = played(1)
        before = picture(league[0].mirror)
        with pytest.raises(NewsRefusedError):
            league[0].mirror.news([], note)
        assert picture(league[0].mirror) == before


class TestRestart:
    def test_a_mirror_is_its_store_and_nothing_else(self) -> None:
        league = played(2)
        party = league[0]
        before = picture(party.mirror)
        party.start()
        assert picture(party.mirror) == before
        league.round(3)
        assert party.mirror.size == league.log.size

    def test_it_lives_in_files(self, tmp_path: Path) -> None:
        league = played(1)
        store = SqliteLogStore.create(tmp_path / "mirror.sqlite")
        memory = SqliteWitness.create(tmp_path / "witness.sqlite")
        party = league[0]
        mirror = Mirror(store, FEDERATION, party.ledger.own, WITNESSES[party.name], memory)
        mirror.news(list(league.log.entries()), league.log.checkpoint())
        mirror.verify_manifest_checkpoint(league.spread())
        before = picture(mirror)
        store.close()
        memory.close()
        store, memory = SqliteLogStore(tmp_path / "mirror.sqlite"), SqliteWitness(tmp_path / "witness.sqlite")
        again = Mirror(store, FEDERATION, party.ledger.own, WITNESSES[party.name], memory)
        assert picture(again) == before
        note = LogView(store).last_checkpoint()
        assert note is not None
        assert len(FEDERATION.verify(note).cosigned) == 4
        store.close()
        memory.close()

    def test_a_process_that_died_between_copy_and_cosignature_cosigns_when_it_is_asked_again(self) -> None:
        league = played(1)
        party = league[0]
        members.release(party.ledger, 2)
        league.collect()
        note, entries = league.log.checkpoint(), list(league.log.entries(party.mirror.size))

        class Died(Exception):  # noqa: N818
            pass

        class Dying(InMemoryWitness):
            def advance(self, origin: str, before: str | None, note: str, *, durable: bool = True) -> None:
                raise Died

        dying = Dying()
        dying._last = party.memory._last  # type: ignore[attr-defined]
        mirror = Mirror(party.copy, FEDERATION, party.ledger.own, WITNESSES[party.name], dying)
        with pytest.raises(Died):
            mirror.news(entries, note)
        party.start()
        assert party.mirror.size == league.log.size
        cosignature = party.mirror.news(entries, note)
        assert WITNESSES[party.name].key.verify(note.text, cosignature) is not None

    def test_a_copy_that_was_edited_does_not_open(self) -> None:
        league = played(1)
        party = league[0]
        assert isinstance(party.copy, MemoryLogStore)
        row = party.copy._rows[9]
        party.copy._rows[9] = Row(row.hashes, row.data.replace(b'"count":2', b'"count":1'))
        with pytest.raises(LogDamagedError, match="entry 9"):
            party.start()

    def test_a_copy_of_another_history_than_was_cosigned_does_not_open(self) -> None:
        league = played(1)
        party = league[0]
        party.copy = MemoryLogStore()
        Log(party.copy, LOG_SIGNER).append([*list(league.log.entries())[:-1], b"something else"])
        with pytest.raises(LogDamagedError, match="not what was cosigned at 13 entries"):
            party.start()

    def test_an_older_copy_goes_on_from_where_it_is(self) -> None:
        league = played(1)
        party = league[0]
        older = MemoryLogStore()
        Log(older, LOG_SIGNER).append(league.log.entries(0, 6))
        party.copy = older
        party.start()
        assert party.mirror.size == 6
        league.round(2)
        assert party.mirror.size == league.log.size

    @pytest.mark.parametrize("late", [False, True])
    def test_after_a_write_that_failed_it_waits_for_a_restart(self, late: bool) -> None:
        class Full(MemoryLogStore):
            full = False

            def append(self, before: Head, rows: list[Row], root: bytes) -> None:  # type: ignore[override]
                if not self.full or late:
                    super().append(before, rows, root)
                if self.full:
                    raise LogStoreError("cannot use the disk: full")

        league = played(0)
        party = league[0]
        party.copy = store = Full()
        party.start()
        party.mirror.news(list(league.log.entries()), league.log.checkpoint())
        store.full = True
        members.release(party.ledger, 1)
        league.collect()
        with pytest.raises(LogStoreError, match="full"):
            league.news(party)
        store.full = False
        with pytest.raises(LogStoreError, match="could not be written before"):
            league.news(party)
        with pytest.raises(LogStoreError, match="could not be written before"):
            party.mirror.verify_manifest_checkpoint(league.log.checkpoint())
        party.start()
        league.news(party)
        assert party.mirror.size == league.log.size


class TestManifestCheckpoints:
    def test_a_quorum_is_enough_and_one_less_is_not(self) -> None:
        league = played(1)
        note = league.log.checkpoint("once more")
        for count, party in enumerate(league.parties.values(), 1):
            note = league.log.add_cosignature(note, league.news(party, note), WITNESSES[party.name].key)
            if count < 3:
                with pytest.raises(CheckpointRefusedError, match=f"{count} members have cosigned"):
                    league[0].mirror.verify_manifest_checkpoint(note)
        assert league[0].mirror.verify_manifest_checkpoint(note).checkpoint.size == 13
        assert len(league[0].mirror.verify_manifest_checkpoint(note.encoded).cosigned) == 4

    def test_a_process_that_has_just_started_wants_its_nonce(self) -> None:
        league = played(1)
        party = league[0]
        party.start()
        stale = league.spread()
        with pytest.raises(CheckpointRefusedError, match="fresh nonce"):
            party.mirror.verify_manifest_checkpoint(stale, NONCE)
        others = league.spread(fresh_line(MEMBERS[1], NONCE))
        with pytest.raises(CheckpointRefusedError, match="fresh nonce"):
            party.mirror.verify_manifest_checkpoint(others, NONCE)
        fresh = league.spread(fresh_line(MEMBERS[1], "00"), fresh_line(party.name, NONCE))
        assert party.mirror.verify_manifest_checkpoint(fresh, NONCE).checkpoint.size == 13

    def test_an_older_checkpoint_is_accepted_until_a_newer_one_was(self) -> None:
        league = played(1)
        party = league[0]
        older = league.spread()
        aside = league.spread("beside it")
        members.release(league.ledger(1), 2)
        league.collect()
        newer = league.spread()
        for note in (older, aside, newer, newer):
            party.mirror.verify_manifest_checkpoint(note)
        for _ in range(2):
            with pytest.raises(CheckpointRefusedError, match="older than that of 14"):
                party.mirror.verify_manifest_checkpoint(older)
            party.start()  # and it is not forgotten

    def test_a_checkpoint_of_what_was_not_shown_here_is_refused(self) -> None:
        league = played(1)
        party = league[0]
        members.release(league.ledger(1), 2)
        league.collect()
        note = league.log.checkpoint()
        for other in list(league.parties.values())[1:]:
            note = league.log.add_cosignature(note, league.news(other, note), WITNESSES[other.name].key)
        with pytest.raises(CheckpointRefusedError, match="of 14 entries; 13 were shown here"):
            party.mirror.verify_manifest_checkpoint(note)
        league.news(party)
        party.mirror.verify_manifest_checkpoint(note)

    def test_what_was_accepted_is_kept_with_its_cosignatures(self) -> None:
        league = played(1)
        note = league.spread()
        league[0].mirror.verify_manifest_checkpoint(note)
        kept = league[0].mirror.view.last_checkpoint()
        assert kept is not None
        assert FEDERATION.verify(kept).cosigned.keys() == FEDERATION.verify(note).cosigned.keys()

    def test_the_witness_of_a_revoked_member_does_not_count(self) -> None:
        league = played(1)
        league.log.append([signed(amendment()).encoded])
        note = league.log.checkpoint()
        for name in (MEMBERS[0], MEMBERS[1], MEMBERS[3]):
            party = league.parties[name]
            note = league.log.add_cosignature(note, league.news(party, note), WITNESSES[name].key)
        FEDERATION.verify(note)
        with pytest.raises(CheckpointRefusedError, match="2 members have cosigned"):
            league[0].mirror.verify_manifest_checkpoint(note)
        third = league[2]
        note = league.log.add_cosignature(note, league.news(third, note), WITNESSES[third.name].key)
        league[0].mirror.verify_manifest_checkpoint(note)


class TestOutstanding:
    def test_it_is_what_the_log_does_not_show_in_order(self) -> None:
        league = played(1)
        party = league[0]
        release = members.release(party.ledger, 2)
        closed = party.ledger.close(release.entry.agreement_id, RUN)  # type: ignore[union-attr]
        assert closed is not None
        assert party.mirror.outstanding() == (release.encoded, closed.encoded)
        assert not party.mirror.shows(release.encoded)
        league.log.append([release.encoded])
        league.news(party)
        assert party.mirror.shows(release.encoded)
        assert party.mirror.outstanding() == (closed.encoded,)

    def test_entries_under_another_agreement_are_another_logs_business(self) -> None:
        league = played(1)
        party = league[0]
        members.sign(party.ledger, "ee" * 32)
        party.ledger.reserve("ee" * 32, "run-9", [members.EVALUATION], members.PROTECTION)
        party.ledger.release(
            "ee" * 32,
            "run-9",
            round_number=1,
            step=0,
            purpose="evaluation",
            spend=members.Spend(members.EVALUATION.event, 1),
            y_sha256="ab" * 32,
            manifest_sha256="cd" * 32,
            rng="os",
        )
        assert party.mirror.outstanding() == ()
        party.mirror.verify_manifest_checkpoint(league.spread())

    def test_an_agreement_is_shown_before_any_run(self) -> None:
        league = League()
        (agreement,) = league[0].mirror.outstanding()
        league.collect()
        league.spread()
        assert all(party.mirror.shows(agreement) for party in league.parties.values())
        assert league[0].mirror.outstanding() == ()

    def test_a_member_that_has_said_nothing_has_nothing_to_show(self) -> None:
        assert Party("hospital-1").mirror.outstanding() == ()


def test_an_amendment_counts_from_the_entry_after_it() -> None:
    league = played(1)
    last = members.release(league.ledger(3), 2)
    league.log.append([last.encoded, signed(amendment()).encoded])
    for party in list(league.parties.values())[:3]:
        league.news(party)
        agreed = next(iter(party.mirror.keys.agreements.values()))
        assert agreed.roster_at(league.log.size).revoked == {MEMBERS[3]}
        party.start()
        assert next(iter(party.mirror.keys.agreements.values())) == agreed
    assert isinstance(SignedEntry.parse(league.log.entry(13)).entry, type(last.entry))
