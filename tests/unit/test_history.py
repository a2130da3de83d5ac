"""The coordinator's end of the federation's log: whose entries it takes, whom it tells when, and what it writes when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from hansa.errors import HansaError, WireError
from hansa.identity import Signer
from hansa.ledger import (
    Aggregate,
    AttackMade,
    Checkpoint,
    Log,
    LogPolicy,
    MemoryLogStore,
    NoteSigner,
    Release,
    SignedEntry,
    SignedNote,
    real,
)
from hansa.ledger.errors import EntryError, LogStoreError
from hansa.ledger.kinds import Kind
from hansa.ledger.store import Head, Row
from hansa.protocol import MAX_SAID, Word, fresh_line
from hansa.protocol.history import read_word, word_body
from hansa.secagg import SumOutcome
from hansa_server.history import History
from hansa_simulations.seat import history_of
from support.federations import Federation
from support.leagues import frozen_league

AGREEMENT, BUILT = frozen_league()


@pytest.fixture(scope="module")
def done() -> Federation:
    """A league after a run."""
    updates = {name: (lambda w: np.full_like(w, 0.125)) for name in "abc"}
    federation = Federation(AGREEMENT, BUILT.initial_vector(), updates)
    assert federation.run().stopped_because is None
    return federation


@pytest.fixture
def history(done: Federation) -> History:
    """A new log, to which nobody has said anything."""
    return history_of(empty_log(), AGREEMENT, done.keys)


def empty_log() -> Log:
    return Log(MemoryLogStore(), NoteSigner.generate("hansa.test/history"))


def said_by(done: Federation, name: str) -> tuple[bytes, ...]:
    """A member's entries of the run, with the signed agreement."""
    entries = (data for data in done.log.entries() if SignedEntry.parse(data).entry.writer == name)
    return tuple(entries)


class TestWhoseEntries:
    def test_a_members_own_are_taken_once_and_byte_for_byte(self, done: Federation, history: History) -> None:
        mine = said_by(done, "a")
        for _ in range(2):
            history.take("a", Word(0, mine))
        assert tuple(history.log.entries()) == mine
        assert len(mine) == 1 + 1 + 4 + 1

    def test_another_members_are_refused_even_under_its_true_signature(
        self, done: Federation, history: History
    ) -> None:
        with pytest.raises(WireError, match="not its own"):
            history.take("a", Word(0, said_by(done, "b")))
        assert history.log.size == 0

    def test_an_attack_on_ones_own_trainer_is_taken_for_the_gate(
        self, done: Federation, history: History
    ) -> None:
        release = next(e for e in map(SignedEntry.parse, done.log.entries()) if isinstance(e.entry, Release))
        made = AttackMade(
            at=release.entry.at, agreement_id=AGREEMENT.agreement_id, member="a", kind="gradients",
            canaries=1000, guessed_in=50, guessed_out=50, correct=60, confidence=real(0.95),
            delta=real(1e-3), spends=release.entry.spends,
        )  # fmt: skip
        mine = SignedEntry.sign(made, done.keys.signer("a"))
        history.take("a", Word(0, (mine.encoded,)))
        assert tuple(history.log.entries()) == (mine.encoded,)
        with pytest.raises(WireError, match="not its own"):
            history.take(
                "b", Word(0, (SignedEntry.sign(changed(made, correct=61), done.keys.signer("a")).encoded,))
            )

    def test_the_coordinators_are_refused(self, done: Federation, history: History) -> None:
        with pytest.raises(WireError, match="not its own"):
            history.take("a", Word(0, said_by(done, "coordinator")[:1]))
        assert history.log.size == 0

    def test_another_agreements_are_refused(self, done: Federation, history: History) -> None:
        first = next(
            s.entry for s in map(SignedEntry.parse, said_by(done, "a")) if s.entry.type == "reservation"
        )
        other = changed(first, agreement_id="f" * 64)
        with pytest.raises(WireError, match="another agreement"):
            history.take("a", Word(0, (SignedEntry.sign(other, done.keys.signer("a")).encoded,)))

    def test_a_false_signature_is_refused(self, done: Federation, history: History) -> None:
        entry = SignedEntry.parse(said_by(done, "a")[0]).entry
        forged = SignedEntry.sign(entry, Signer.generate("a"))
        with pytest.raises(HansaError):
            history.take("a", Word(0, (forged.encoded,)))
        assert history.log.size == 0

    def test_a_second_release_of_a_round_is_refused(self, done: Federation, history: History) -> None:
        said = said_by(done, "a")
        history.take("a", Word(0, said))
        release = next(
            entry
            for data in said
            if isinstance(entry := SignedEntry.parse(data).entry, Release) and entry.round == 1
        )
        second = changed(release, y_sha256="e" * 64)
        size = history.log.size
        with pytest.raises(WireError, match="two things"):
            history.take("a", Word(size, (SignedEntry.sign(second, done.keys.signer("a")).encoded,)))
        assert history.log.size == size
        assert history.released("a", "r", 1) == release.y_sha256

    def test_two_releases_of_a_round_in_one_word_are_refused(
        self, done: Federation, history: History
    ) -> None:
        mine = said_by(done, "a")
        place = next(i for i, data in enumerate(mine) if SignedEntry.parse(data).entry.type == "release")
        other = changed(SignedEntry.parse(mine[place]).entry, y_sha256="0" * 64)
        second = SignedEntry.sign(other, done.keys.signer("a")).encoded
        for word in ((*mine[: place + 1], second), (*mine[:place], second, mine[place])):
            with pytest.raises(WireError, match="two things about its vector of round 1"):
                history.take("a", Word(0, word))
            assert history.log.size == 0
            assert history.released("a", "r", 1) is None
        history.take("a", Word(0, mine))  # one alone is taken

    def test_what_is_no_entry_is_refused(self, history: History) -> None:
        with pytest.raises(EntryError):
            history.take("a", Word(0, (b"{}\n",)))


def changed(entry: Kind, **members: object) -> Kind:
    """The entry with other members, checked and encoded anew."""
    return type(entry).model_validate({**entry.model_dump(), **members})


class TestWhatIsWrittenWhen:
    def test_words_of_one_exchange_are_one_write(self, done: Federation, history: History) -> None:
        with history.gathering():
            for name in "abc":
                history.take(name, Word(0, said_by(done, name)))
                assert history.released(name, "r", 4) is not None  # known at once
            assert history.log.size == 0
        assert history.log.size == 3 * 7

    def test_what_was_said_before_something_went_wrong_is_written(
        self, done: Federation, history: History
    ) -> None:
        def one_exchange() -> None:
            with history.gathering():
                history.take("a", Word(0, said_by(done, "a")))
                history.take("b", Word(0, (b"{}",)))

        with pytest.raises(EntryError):
            one_exchange()
        assert tuple(history.log.entries()) == said_by(done, "a")

    def test_a_log_that_is_read_again_knows_what_it_knew(self, done: Federation) -> None:
        again = history_of(done.log, AGREEMENT, done.keys)
        size = done.log.size
        for name in "abc":
            again.take(name, Word(size, said_by(done, name)))
            assert again.released(name, "r", 4) is not None
        again.abort("r", 4, "too-few", ())
        assert done.log.size == size  # the round has its aggregate
        ended = [
            s.entry for s in map(SignedEntry.parse, done.log.entries()) if isinstance(s.entry, Aggregate)
        ]
        assert [entry.round for entry in ended] == [1, 2, 3, 4]
        assert all(not entry.excluded for entry in ended)


class Full(MemoryLogStore):
    """A disk that is full for a while."""

    full = False

    def append(self, before: Head, rows: Sequence[Row], root: bytes) -> None:
        if self.full:
            raise LogStoreError("no space left on the device")
        super().append(before, rows, root)


class TestDiskFull:
    def test_what_could_not_be_written_is_not_known_and_is_written_once_there_is_room(
        self, done: Federation
    ) -> None:
        store = Full()
        history = history_of(Log(store, NoteSigner.generate("hansa.test/full")), AGREEMENT, done.keys)
        history.take("b", Word(0, said_by(done, "b")))
        mine, size = said_by(done, "a"), history.log.size

        def one_exchange() -> None:
            with history.gathering():
                history.take("a", Word(0, mine))

        store.full = True
        with pytest.raises(LogStoreError):
            one_exchange()
        assert history.released("a", "r", 1) is None
        assert history.released("b", "r", 1) is not None
        store.full = False  # room was made, and the process lives
        for _ in range(2):
            one_exchange()
        assert tuple(history.log.entries(size)) == mine
        assert history.released("a", "r", 1) is not None

    def test_an_abort_that_could_not_be_written_is_written_later(self, done: Federation) -> None:
        store = Full()
        history = history_of(Log(store, NoteSigner.generate("hansa.test/full")), AGREEMENT, done.keys)
        store.full = True
        with pytest.raises(LogStoreError):
            history.abort("r", 1, "too-few", ())
        store.full = False
        for _ in range(2):
            history.abort("r", 1, "too-few", ())
        assert history.log.size == 1


class TestWhomItTells:
    def test_everybody_until_enough_have_cosigned_and_then_who_lacks_what_members_said(
        self, done: Federation, history: History
    ) -> None:
        history.take("a", Word(0, said_by(done, "a")))
        assert all(map(history.due, "abc"))
        note = history.news("b").checkpoint
        for name in "abc":
            signer = done.keys.witness_signer(name)
            line = signer.sign(history.news(name).checkpoint.split("\n\n")[0] + "\n", at=1_800_000_000).line
            assert history.due(name)
            history.take(name, Word(history.log.size, (), line))
        assert history.cosigned.startswith(note.split("\n\n")[0])
        assert not any(map(history.due, "abc"))
        history.abort("r", 9, "too-few", ())  # what the coordinator adds by itself can wait
        assert not any(map(history.due, "abc"))
        history.take("b", Word(history.log.size, said_by(done, "b")))
        assert all(map(history.due, "abc"))

    def test_a_nonce_is_repeated_until_its_member_takes_it_back(
        self, done: Federation, history: History
    ) -> None:
        history.take("c", Word(0, said_by(done, "c"), None, "0" * 32))
        for _ in range(2):
            assert history.due("c")
            assert f"fresh c {'0' * 32}" in history.news("a").checkpoint
        history.take("c", Word(0, (), None, None))
        assert "fresh" not in history.news("a").checkpoint


class TestHowMuchItTells:
    def test_a_coordinator_that_starts_sends_no_entries_before_it_knows_what_is_missing(
        self, done: Federation
    ) -> None:
        again, size = history_of(done.log, AGREEMENT, done.keys), done.log.size
        assert size > 20
        news = again.news("a")
        assert (news.start, news.entries) == (size, ())
        assert Checkpoint.parse(SignedNote.parse(news.checkpoint).text).size == size
        again.take("a", Word(size - 2))
        assert len(again.news("a").entries) == 2
        assert again.news("b").entries == ()  # of whom nothing is known yet

    def test_who_lacks_much_gets_it_in_pieces_each_under_a_checkpoint_of_its_own(
        self, done: Federation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hansa_server.history.MAX_NEWS", 4000)
        again, size = history_of(done.log, AGREEMENT, done.keys), done.log.size
        newest = done.log.checkpoint()
        again.take("a", Word(0))
        got: list[bytes] = []
        pieces = 0
        while len(got) < size:
            news = again.news("a")
            checkpoint = LogPolicy(done.log.key).verify(news.checkpoint).checkpoint
            assert 0 < len(news.entries) < size
            assert sum(map(len, news.entries)) <= 4000
            assert news.start == len(got)
            got += news.entries
            assert (checkpoint.size, checkpoint.root) == (len(got), done.log.root_at(len(got)))
            again.take("a", Word(len(got)))
            pieces += 1
        assert got == list(done.log.entries())
        assert pieces > 3
        last = done.log.last_checkpoint()
        assert last is not None
        assert last.text == newest.text  # whoever follows the log never sees it become shorter

    def test_members_without_a_mirror_catch_up_in_pieces_before_the_first_manifest(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hansa_server.history.MAX_NEWS", 8_000)  # what a round adds, and little more
        updates = {name: (lambda w: np.full_like(w, 0.125)) for name in "abc"}
        federation = Federation(AGREEMENT, BUILT.initial_vector(), updates)
        history = history_of(federation.log, AGREEMENT, federation.keys)
        for number in range(10, 170):
            history.abort("earlier", number, "too-few", ())
        outcome = federation.run()
        assert outcome.stopped_because is None
        assert outcome.rounds[0].present == ("a", "b", "c")
        assert federation.exchanges.count({"witness"}) > 5


class TestHowMuchItHears:
    def test_a_member_that_signs_without_end_fills_nobodys_mirror(
        self, done: Federation, history: History
    ) -> None:
        release = next(
            signed.entry
            for signed in map(SignedEntry.parse, said_by(done, "a"))
            if signed.entry.type == "release"
        )
        signer = done.keys.signer("a")
        many = [
            SignedEntry.sign(changed(release, round=number), signer).encoded
            for number in range(1, 2 * MAX_SAID + 9)
        ]
        for start in range(0, len(many), 100):
            history.take("a", Word(0, tuple(many[start : start + 100])))
        assert list(history.log.entries()) == many[:MAX_SAID]
        history.take("b", Word(0, said_by(done, "b")))  # the others are heard
        assert history.log.size == MAX_SAID + len(said_by(done, "b"))
        history.abort("r", 1, "too-few", ())  # the next round has room again, also for what was left out
        history.take("a", Word(0, tuple(many[MAX_SAID : MAX_SAID + 9])))
        assert history.released("a", "r", MAX_SAID + 9) is not None

    def test_a_word_with_more_entries_than_are_heard_is_refused(self) -> None:
        body = word_body(Word())
        entries = tuple(b"%d" % number for number in range(MAX_SAID + 1))
        assert read_word(body, entries[:-1]).entries == entries[:-1]
        with pytest.raises(WireError, match="257 entries at once"):
            read_word(body, entries)

    def test_a_member_that_has_more_to_say_says_it_in_several_words(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hansa_client.recording.MAX_SAID", 1)
        updates = {name: (lambda w: np.full_like(w, 0.125)) for name in "abc"}
        federation = Federation(AGREEMENT, BUILT.initial_vector(), updates)
        federation.run()  # a reservation and a release are due at once, so that the first rounds fail
        said = {name: said_by(federation, name) for name in "abc"}
        assert all(len(mine) >= 2 for mine in said.values())
        for mine in said.values():
            assert [SignedEntry.parse(data).entry.type for data in mine][:2] == ["agreement", "reservation"]


def test_a_vector_that_came_and_was_left_out_of_the_sum_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: list[SumOutcome] = []
    monkeypatch.setattr(History, "aggregate", lambda _self, outcome, _model: outcomes.append(outcome))
    updates = {name: (lambda w: np.full_like(w, 0.125)) for name in "abc"}
    federation = Federation(AGREEMENT, BUILT.initial_vector(), updates)
    federation.run()
    monkeypatch.undo()
    history = history_of(empty_log(), AGREEMENT, federation.keys)
    for name in "abc":
        history.take(name, Word(0, said_by(federation, name)))
    history.aggregate(replace(outcomes[0], survivors=outcomes[0].survivors[:-1]), "e" * 64)
    history.aggregate(outcomes[1], "e" * 64)
    logged = [SignedEntry.parse(data).entry for data in history.log.entries()]
    assert [entry.excluded for entry in logged if isinstance(entry, Aggregate)] == [("c",), ()]

    def test_of_who_was_heard_only_its_mirror_and_its_cosignature_are_taken(
        self, done: Federation, history: History
    ) -> None:
        first, second = "1" * 32, "2" * 32
        assert history.take("a", Word(0, said_by(done, "a"), None, first))
        assert not history.take("a", Word(0, said_by(done, "a"), None, first))  # nothing new in that
        size = history.log.size
        line = (
            done.keys.witness_signer("b").sign(text_of(history.news("b").checkpoint), at=1_800_000_000).line
        )
        assert not history.take("b", Word(3, said_by(done, "b"), line, second), new=False)
        assert history.log.size == size
        assert second not in history.news("b").checkpoint
        assert history.news("b").start == 3
        assert [len(note.signatures) for note in history.log.checkpoints()] == [2]
        assert not history.take("a", Word(0, (), None, second), new=False)
        assert fresh_line("a", first) in history.news("b").checkpoint  # the last that was taken
        assert history.take("a", Word(0, (), None, second))

    def test_a_mirror_that_is_said_to_be_lost_and_filled_again_brings_nobody_further(
        self, done: Federation
    ) -> None:
        again, size = history_of(done.log, AGREEMENT, done.keys), done.log.size
        assert again.reached == 0
        for said, reached in ((size, size), (0, size), (5, size), (0, size), (2 * size, size)):
            again.take("a", Word(said))
            assert again.reached == reached
        again.take("b", Word(2))
        assert again.reached == size + 2


def text_of(note: str) -> str:
    """Of a note, what is signed."""
    return note.split("\n\n", maxsplit=1)[0] + "\n"
