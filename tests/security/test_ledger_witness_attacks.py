"""What a log can try on its witnesses: older, forked and split histories, replays, and a race with the disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.errors import HansaError, ProofError
from hansa.ledger.checkpoint import Checkpoint, LogPolicy
from hansa.ledger.errors import (
    CosignatureQuorumError,
    ForkError,
    LogStoreError,
    NoteFormatError,
    NoteSignatureError,
    WitnessRefusedError,
)
from hansa.ledger.log import Log
from hansa.ledger.note import NoteSigner, SignatureType, SignedNote
from hansa.ledger.store import MemoryLogStore
from hansa.ledger.witness import InMemoryWitness, SqliteWitness, Witness, WitnessMemory
from hansa.merkle import leaf_hash

ORIGIN = "hansa.example/league"
LOG = NoteSigner.generate(ORIGIN)
SIGNER = NoteSigner.generate("hansa.example/w1", SignatureType.WITNESS)
NOW = 1_700_000_000
MEMORIES: dict[str, Callable[[Path], WitnessMemory]] = {
    "memory": lambda _: InMemoryWitness(),
    "sqlite": lambda folder: SqliteWitness.create(folder / "witness.sqlite"),
}


@pytest.fixture(params=list(MEMORIES))
def memory(request: pytest.FixtureRequest, tmp_path: Path) -> WitnessMemory:
    return MEMORIES[request.param](tmp_path)


@pytest.fixture
def witness(memory: WitnessMemory) -> Witness:
    return Witness(SIGNER, [LOG.key], memory)


def log_of(*entries: bytes) -> Log:
    log = Log(MemoryLogStore(), LOG)
    log.append(entries)
    return log


def ask(witness: Witness, log: Log, at: int = NOW) -> SignedNote:
    """What an honest log does."""
    seen, note = witness.seen(ORIGIN), log.checkpoint()
    size = 0 if seen is None else seen.size
    proof = log.prove_consistency(size, log.size) if size else []
    return log.add_cosignature(note, witness.cosign(note, proof, old_size=size, at=at), witness.key)


class TestHonestLog:
    def test_a_log_is_cosigned_as_it_grows(self, witness: Witness) -> None:
        log = log_of(b"1", b"2", b"3")
        policy = LogPolicy(LOG.key, (witness.key,), 1)
        for step in range(5):
            assert policy.verify(ask(witness, log, NOW + step)).cosigned == {witness.key.name: NOW + step}
            assert witness.seen(ORIGIN) == Checkpoint(ORIGIN, log.size, log.root)
            log.append([f"more {step}".encode(), b"x"])

    def test_the_same_checkpoint_again_is_cosigned_at_a_later_time(self, witness: Witness) -> None:
        log = log_of(b"1")
        ask(witness, log, NOW)
        assert ask(witness, log, NOW + 9).verify([witness.key]) == {witness.key: NOW + 9}

    def test_an_empty_log_is_cosigned_and_grows_without_a_proof(self, witness: Witness) -> None:
        log = log_of()
        ask(witness, log)
        log.append([b"1"])
        note = log.checkpoint()
        with pytest.raises(ProofError, match="no proof"):
            witness.cosign(note, [bytes(32)], old_size=0, at=NOW)
        witness.cosign(note, old_size=0, at=NOW)

    def test_a_nonce_is_cosigned_like_any_checkpoint(self, witness: Witness) -> None:
        log = log_of(b"1")
        ask(witness, log)
        note = log.checkpoint("nonce 7f")
        witness.cosign(note, old_size=1, at=NOW)
        seen = witness.seen(ORIGIN)
        assert seen is not None
        assert seen.extensions == ("nonce 7f",)


class TestOlderCheckpoint:
    def test_a_log_truncated_to_an_older_checkpoint_is_refused(self, witness: Witness) -> None:
        log = log_of(b"1", b"2", b"3")
        older = log.checkpoint()
        log.append([b"4"])
        ask(witness, log)
        for old_size, proof in ((0, []), (3, []), (4, []), (4, log.prove_consistency(3, 4))):
            with pytest.raises(WitnessRefusedError, match="older") as caught:
                witness.cosign(older, proof, old_size=old_size, at=NOW)
            assert caught.value.size == 4
        assert witness.seen(ORIGIN) == Checkpoint(ORIGIN, 4, log.root)

    def test_the_empty_log_again_is_refused(self, witness: Witness) -> None:
        ask(witness, log_of(b"1"))
        with pytest.raises(WitnessRefusedError, match="older"):
            witness.cosign(log_of().checkpoint(), old_size=0, at=NOW)

    def test_a_log_that_does_not_know_where_it_stands_is_told(self, witness: Witness) -> None:
        log = log_of(b"1", b"2")
        ask(witness, log)
        log.append([b"3"])
        for old_size in (0, 1, 3, 99, -1):
            with pytest.raises(WitnessRefusedError) as caught:
                witness.cosign(log.checkpoint(), log.prove_consistency(1, 3), old_size=old_size, at=NOW)
            assert caught.value.size == 2


class TestForkedView:
    def test_two_logs_of_one_size_are_a_fork_and_both_notes_are_kept(
        self, witness: Witness, memory: WitnessMemory
    ) -> None:
        ask(witness, log_of(b"1", b"2"))
        fork = log_of(b"1", b"other").checkpoint()
        with pytest.raises(ForkError) as caught:
            witness.cosign(fork, old_size=2, at=NOW)
        for note in caught.value.notes:
            assert LogPolicy(LOG.key).verify(note).checkpoint.size == 2
        assert len({SignedNote.parse(note).text for note in caught.value.notes}) == 2
        assert list(memory.forks()) == [caught.value.notes]
        with pytest.raises(ForkError):
            witness.cosign(fork, old_size=0, at=NOW)  # whatever the log says about what is known
        assert len(memory.forks()) == 1

    def test_a_longer_log_with_another_past_is_refused(self, witness: Witness) -> None:
        honest, fork = log_of(b"1", b"2", b"3"), log_of(b"1", b"other", b"3", b"4")
        ask(witness, honest)
        for proof in (fork.prove_consistency(3, 4), [], [bytes(32)] * 3):
            with pytest.raises(ProofError):
                witness.cosign(fork.checkpoint(), proof, old_size=3, at=NOW)
        seen = witness.seen(ORIGIN)
        assert seen is not None
        assert seen.root == honest.root

    def test_a_split_view_gets_no_quorum(self) -> None:
        """Four witnesses, quorum 3: a log that shows two histories gets at most one of them through."""
        witnesses = [
            Witness(NoteSigner.generate(f"w{i}", SignatureType.WITNESS), [LOG.key], InMemoryWitness())
            for i in range(4)
        ]
        policy = LogPolicy(LOG.key, tuple(witness.key for witness in witnesses), 3)
        left, right = log_of(b"common", b"for the left"), log_of(b"common", b"for the right")
        for witness in witnesses[:2]:
            cosigned_left = ask(witness, left)
        for witness in witnesses[2:]:
            cosigned_right = ask(witness, right)
        for note, log in ((cosigned_left, left), (cosigned_right, right)):
            with pytest.raises(CosignatureQuorumError):
                policy.verify(note)
            for witness in witnesses:
                try:
                    ask(witness, log)
                except ForkError:
                    continue
            with pytest.raises(CosignatureQuorumError):
                policy.verify(log.checkpoint())

    def test_cosignatures_of_another_history_do_not_count(self, witness: Witness) -> None:
        honest = ask(witness, log_of(b"1", b"2"))
        fork = log_of(b"1", b"other").checkpoint()
        grafted = SignedNote(fork.text, (*fork.signatures, honest.signatures[1]))
        with pytest.raises(NoteSignatureError):
            LogPolicy(LOG.key, (witness.key,), 1).verify(grafted)


class TestForeignAndFalse:
    def test_an_unknown_log_is_refused(self, witness: Witness) -> None:
        other = Log(MemoryLogStore(), NoteSigner.generate("hansa.example/other"))
        with pytest.raises(WitnessRefusedError, match="not known"):
            witness.cosign(other.checkpoint(), old_size=0, at=NOW)

    def test_a_checkpoint_that_the_log_has_not_signed_is_refused(self, witness: Witness) -> None:
        text = Checkpoint(ORIGIN, 1, leaf_hash(b"x")).text
        impostor = NoteSigner.generate(ORIGIN)
        with pytest.raises(NoteSignatureError):
            witness.cosign(SignedNote(text, (impostor.sign(text),)), old_size=0, at=NOW)
        with pytest.raises(NoteSignatureError):
            witness.cosign(SignedNote(text, (SIGNER.sign(text, NOW),)), old_size=0, at=NOW)
        assert witness.seen(ORIGIN) is None

    @pytest.mark.parametrize("note", ["", "no note", b"\xff", "text\n\n— a b\n"])
    def test_what_is_no_checkpoint_is_refused(self, witness: Witness, note: str | bytes) -> None:
        with pytest.raises(NoteFormatError):
            witness.cosign(note, old_size=0, at=NOW)

    def test_signatures_of_strangers_are_neither_kept_nor_a_hindrance(
        self, witness: Witness, memory: WitnessMemory
    ) -> None:
        note = log_of(b"1").checkpoint()
        crowd = note.with_signatures(NoteSigner.generate("stranger").sign(note.text))
        witness.cosign(crowd, old_size=0, at=NOW)
        assert memory.last(ORIGIN) == note.encoded

    def test_only_a_witness_key_cosigns(self) -> None:
        with pytest.raises(NoteFormatError, match="witness' key"):
            Witness(LOG, [LOG.key], InMemoryWitness())


class TestCopies:
    """A witness that holds the whole log looks up what others have to prove."""

    def test_a_copy_that_is_not_what_was_cosigned_gets_no_cosignature(self) -> None:
        memory = InMemoryWitness()
        witness = Witness(SIGNER, [LOG.key], memory)
        log, other = log_of(b"1", b"2"), log_of(b"1", b"other", b"3")
        note = log.checkpoint()
        witness.cosign_copy(note, Checkpoint.parse(note.text), log.root_at, at=NOW)
        known = memory.last(ORIGIN)
        fork = other.checkpoint()
        with pytest.raises(ProofError, match="not what was cosigned at 2 entries"):
            witness.cosign_copy(fork, Checkpoint.parse(fork.text), other.root_at, at=NOW)
        older = log_of(b"1").checkpoint()
        with pytest.raises(WitnessRefusedError, match="older"):
            witness.cosign_copy(older, Checkpoint.parse(older.text), log.root_at, at=NOW)
        assert memory.last(ORIGIN) == known
        log.append([b"3"])
        note = log.checkpoint()
        signature = witness.cosign_copy(note, Checkpoint.parse(note.text), log.root_at, at=NOW)
        assert SIGNER.key.verify(note.text, signature) == NOW


class TestDurable:
    def test_the_checkpoint_is_durable_before_the_cosignature_exists(self) -> None:
        order: list[str] = []

        class Watched(InMemoryWitness):
            def advance(self, origin: str, before: str | None, note: str, *, durable: bool = True) -> None:
                super().advance(origin, before, note)
                order.append("durable" if durable else "kept")

        class WatchedSigner(NoteSigner):
            def sign(self, text: str, at: int | None = None):
                order.append("signed")
                return super().sign(text, at)

        signer = WatchedSigner.parse(SIGNER.text)
        Witness(signer, [LOG.key], Watched()).cosign(log_of(b"1").checkpoint(), old_size=0, at=NOW)
        assert order == ["durable", "signed"]

    def test_a_memory_that_cannot_be_written_gives_no_cosignature(self) -> None:
        class Full(InMemoryWitness):
            def advance(self, origin: str, before: str | None, note: str, *, durable: bool = True) -> None:
                raise LogStoreError("database or disk is full")

        witness = Witness(SIGNER, [LOG.key], Full())
        with pytest.raises(LogStoreError, match="full"):
            witness.cosign(log_of(b"1").checkpoint(), old_size=0, at=NOW)

    def test_a_full_disk_leaves_the_old_checkpoint(self, tmp_path: Path) -> None:
        memory = SqliteWitness.create(tmp_path / "witness.sqlite")
        witness, log = Witness(SIGNER, [LOG.key], memory), log_of(b"1")
        ask(witness, log)
        (pages,) = memory._database.one("PRAGMA page_count") or (0,)
        memory._database.one(f"PRAGMA max_page_count = {pages}")
        cosigned = [1]

        def fill() -> None:
            for _ in range(1000):
                log.append([b"x"])
                ask(witness, log)
                cosigned.append(log.size)

        with pytest.raises(LogStoreError, match="full"):
            fill()
        seen = witness.seen(ORIGIN)
        assert seen is not None
        assert 1 < cosigned[-1] == seen.size < log.size

    def test_a_witness_remembers_over_a_restart(self, tmp_path: Path) -> None:
        path = tmp_path / "witness.sqlite"
        memory = SqliteWitness.create(path)
        ask(Witness(SIGNER, [LOG.key], memory), log_of(b"1", b"2"))
        memory.close()
        again = SqliteWitness(path)
        with pytest.raises(ForkError):
            Witness(SIGNER, [LOG.key], again).cosign(log_of(b"1", b"other").checkpoint(), old_size=2, at=NOW)
        again.close()
        assert len(SqliteWitness(path).forks()) == 1

    def test_two_requests_at_once_cannot_both_win(self, memory: WitnessMemory) -> None:
        """A longer checkpoint is stored between another's check and its writing."""
        log = log_of(b"1")
        note = log.checkpoint()
        log.append([b"2"])
        longer = log.checkpoint()

        class Slow:
            last, keep_fork, forks = memory.last, memory.keep_fork, memory.forks

            def advance(self, origin: str, before: str | None, note: str, *, durable: bool = True) -> None:
                Witness(SIGNER, [LOG.key], memory).cosign(longer, old_size=0, at=NOW)
                memory.advance(origin, before, note)

        with pytest.raises(LogStoreError, match="in between"):
            Witness(SIGNER, [LOG.key], Slow()).cosign(note, old_size=0, at=NOW)
        assert memory.last(ORIGIN) == longer.encoded

    def test_a_memory_has_one_holder_and_is_never_begun_over_another(self, tmp_path: Path) -> None:
        path = tmp_path / "witness.sqlite"
        with pytest.raises(LogStoreError, match="there is no witness' memory"):
            SqliteWitness(path)
        memory = SqliteWitness.create(path)
        with pytest.raises(LogStoreError, match="in use"):
            SqliteWitness(path)
        memory.close()
        with pytest.raises(LogStoreError, match="exists already"):
            SqliteWitness.create(path)

    def test_a_witness_forgets_nothing_by_accident(self, tmp_path: Path) -> None:
        path = tmp_path / "witness.sqlite"
        memory = SqliteWitness.create(path)
        ask(Witness(SIGNER, [LOG.key], memory), log_of(b"1"))
        memory.close()
        connection = sqlite3.connect(path)
        for statement in ("DELETE FROM seen", "UPDATE seen SET note = ''"):
            with pytest.raises(sqlite3.IntegrityError, match="forgets nothing"):
                connection.execute(statement)
        connection.close()


@given(st.data())
def test_whatever_a_log_shows_no_two_cosigned_histories_part(data: st.DataObject) -> None:
    """A log with two histories, any order of checkpoints, proofs and claims: one of them wins for good."""
    logs = [log_of(), log_of()]
    witness, cosigned = Witness(SIGNER, [LOG.key], InMemoryWitness()), []
    for _ in range(data.draw(st.integers(1, 12))):
        which = data.draw(st.integers(0, 1))
        log = logs[which]
        if data.draw(st.booleans()):
            log.append([data.draw(st.sampled_from([b"a", b"b"]))])
        seen = witness.seen(ORIGIN)
        size = data.draw(st.integers(0, log.size)) if data.draw(st.booleans()) else (seen.size if seen else 0)
        proof = log.prove_consistency(size, log.size) if 0 < size <= log.size else []
        try:
            witness.cosign(log.checkpoint(), proof, old_size=size, at=NOW)
        except HansaError:
            continue
        cosigned.append((log.size, log.root, tuple(log.entries())))
    for earlier, later in pairwise(cosigned):
        assert earlier[0] <= later[0]
        assert later[2][: earlier[0]] == earlier[2]
