"""Rewriting history: what somebody does to a log's entries, and where it is found.

The victim is an auditor or a member with a copy of the log and a checkpoint that witnesses have cosigned.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.errors import ProofError
from hansa.identity import COORDINATOR, Signer
from hansa.ledger import (
    Checkpoint,
    GivenEntries,
    InMemoryWitness,
    Keyring,
    LogPolicy,
    SignedEntry,
    SqliteLogStore,
    StoredEntries,
    TileSource,
    Witness,
    export_tiles,
    verify_log,
)
from hansa.ledger import verify as verification
from hansa.ledger.errors import CosignatureQuorumError, ForkError, LogDamagedError, LogVerificationError
from hansa.ledger.log import Log
from support.ledgers import (
    AGREEMENT,
    LOG_SIGNER,
    MEMBERS,
    ORIGIN,
    SIGNERS,
    WITNESS_SIGNERS,
    Dying,
    amendment,
    keyring,
    log_of,
    one_of_each,
    release,
    releases,
    signed,
)

COUNT = 40
ENTRIES = releases(COUNT)
TRUTH = log_of(ENTRIES)
CHECKPOINT = Checkpoint(ORIGIN, COUNT, TRUTH.root)
FORGED = SignedEntry.sign(release(99), SIGNERS[COORDINATOR]).encoded


def claims(entries: list[bytes]) -> Checkpoint:
    """What a log says that signs these entries, whatever they are."""
    return Checkpoint(ORIGIN, len(entries), log_of(entries).root)


# attack: what the attacker's copy holds
ATTACKS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "entry edited": lambda e: [*e[:7], e[7].replace(b'"count":20', b'"count":19'), *e[8:]],
    "entry replaced by another signed one": lambda e: [*e[:7], signed(release(98)).encoded, *e[8:]],
    "signature removed": lambda e: [*e[:7], e[7].split(b"\n")[0] + b"\n", *e[8:]],
    "signature renewed": lambda e: [
        *e[:7],
        SignedEntry.sign(release(8), Signer.generate(MEMBERS[0])).encoded,
        *e[8:],
    ],
    "entry dropped and the last doubled": lambda e: [*e[:7], *e[8:], e[-1]],
    "entries reordered": lambda e: [*e[:7], e[8], e[7], *e[9:]],
    "entry inserted": lambda e: [*e[:7], FORGED, *e[7:]],
    "entry duplicated": lambda e: [*e[:8], e[7], *e[8:]],
    "last entry replaced": lambda e: [*e[:-1], FORGED],
    "two entries run into one": lambda e: [*e[:7], e[7] + e[8], *e[9:], FORGED],
}


class TestCopies:
    def test_the_true_log_passes(self) -> None:
        seen = verify_log(GivenEntries(ENTRIES), CHECKPOINT, keyring())
        assert (seen.entries, seen.signatures) == ({"release": COUNT}, COUNT)
        assert seen.checkpoint == CHECKPOINT

    @pytest.mark.parametrize("attack", list(ATTACKS))
    @pytest.mark.parametrize("keys", [None, keyring()], ids=["tree alone", "with signatures"])
    def test_a_changed_copy_is_not_the_log_that_was_signed(self, attack: str, keys: Keyring | None) -> None:
        with pytest.raises(LogVerificationError):
            verify_log(GivenEntries(ATTACKS[attack](ENTRIES)), CHECKPOINT, keys)

    def test_a_copy_truncated_to_an_older_checkpoint_is_short(self) -> None:
        with pytest.raises(LogVerificationError, match="has 39 entries, its checkpoint 40"):
            verify_log(GivenEntries(ENTRIES[:-1]), CHECKPOINT)

    def test_a_copy_that_is_longer_is_judged_at_the_checkpoint(self) -> None:
        assert (
            verify_log(GivenEntries([*ENTRIES, b"whatever comes"]), CHECKPOINT, keyring()).signatures == COUNT
        )

    def test_a_copy_that_ends_while_it_is_read(self) -> None:
        class Ending(GivenEntries):
            def size(self) -> int:
                return COUNT

        with pytest.raises(LogVerificationError, match="ends after entry 9"):
            verify_log(Ending(ENTRIES[:10]), CHECKPOINT)

    def test_an_empty_log_is_the_log_of_no_entries(self) -> None:
        empty = Checkpoint(ORIGIN, 0, log_of([]).root)
        assert verify_log(GivenEntries([]), empty, keyring()).entries == {}
        assert verify_log(GivenEntries(ENTRIES), empty).signatures == 0


class TestLogsThatSignAnything:
    """The log itself is the attacker: its checkpoint covers what it wrote, and what it wrote may not stand there."""

    @pytest.mark.parametrize(
        ("entries", "match"),
        [
            ([*ENTRIES[:3], FORGED], "entry 3: 'hospital-1' has not signed its release"),
            ([*ENTRIES[:3], ENTRIES[1]], "entry 3 is entry 1 again"),
            ([ENTRIES[0], b"no entry\n"], "entry 1: an entry cannot be read"),
            ([ENTRIES[0], ENTRIES[1].split(b"\n")[0]], "entry 1: an entry is cut short"),
            ([signed(release(agreement_id="e5" * 32)).encoded], "entry 0: the agreement e5e5e5e5e5e5"),
            (
                [SignedEntry.sign(release(1), Signer.generate(MEMBERS[0])).encoded],
                "entry 0: a signature for ledger.release is not by 'hospital-1'",
            ),
        ],
    )
    def test_the_first_entry_that_may_not_stand_there_is_named(
        self, entries: list[bytes], match: str
    ) -> None:
        with pytest.raises(LogVerificationError, match=match):
            verify_log(GivenEntries(entries), claims(entries), keyring())

    def test_without_keys_signatures_are_read_and_not_believed(self) -> None:
        entries = [*ENTRIES[:3], FORGED]
        assert verify_log(GivenEntries(entries), claims(entries)).signatures == 0

    def test_a_spend_under_another_members_number_is_found(self) -> None:
        """The coordinator moves a spend from one member to another by editing the name."""
        moved = ENTRIES[5].replace(b'"member":"hospital-1"', b'"member":"hospital-2"')
        with pytest.raises(LogVerificationError, match="entry 0"):
            verify_log(GivenEntries([moved]), claims([moved]), keyring())

    def test_a_revoked_members_entries_count_before_its_amendment_alone(self) -> None:
        last = SignedEntry.sign(release(1, MEMBERS[3]), SIGNERS[MEMBERS[3]]).encoded
        after = SignedEntry.sign(release(2, MEMBERS[3]), SIGNERS[MEMBERS[3]]).encoded
        entries = [last, signed(amendment()).encoded, ENTRIES[0]]
        assert verify_log(GivenEntries(entries), claims(entries), keyring()).signatures == 3
        entries.append(after)
        with pytest.raises(LogVerificationError, match="entry 3: the key of 'hospital-4' is revoked"):
            verify_log(GivenEntries(entries), claims(entries), keyring())

    def test_an_amendment_that_too_few_approved_spoils_the_log(self) -> None:
        change = amendment()
        few = change.model_copy(update={"approvals": dict(list(change.approvals.items())[:2])})
        few.__dict__.pop("data", None)
        entries = [ENTRIES[0], signed(few).encoded]
        with pytest.raises(LogVerificationError, match="entry 1: 2 members approved, 3 are needed"):
            verify_log(GivenEntries(entries), claims(entries), keyring())

    def test_words_about_an_amendment_are_none(self) -> None:
        entry = release(rng='a text with "type":"amendment" in it')
        entries = [signed(entry).encoded]
        assert verify_log(GivenEntries(entries), claims(entries), keyring()).entries == {"release": 1}

    def test_twins_are_told_from_hashes_that_begin_alike(self) -> None:
        one, other = b"\x01" * 8 + b"a" * 24, b"\x01" * 8 + b"b" * 24
        verification._refuse_twins(one + other + b"c" * 32)
        with pytest.raises(LogVerificationError, match="entry 2 is entry 0 again"):
            verification._refuse_twins(one + other + one)
        with pytest.raises(LogVerificationError, match="entry 3 is entry 1 again"):
            verification._refuse_twins(b"c" * 32 + other + one + other)
        verification._refuse_twins(b"")


class TestForkedView:
    def test_no_two_histories_get_a_quorum(self) -> None:
        """Four witnesses, three needed: the coordinator shows one history to half of them, another to the rest."""
        witnesses = [Witness(signer, [LOG_SIGNER.key], InMemoryWitness()) for signer in WITNESS_SIGNERS]
        policy = LogPolicy(LOG_SIGNER.key, tuple(signer.key for signer in WITNESS_SIGNERS), 3)
        with_spend, without = log_of(ENTRIES[:10]), log_of([*ENTRIES[:9], signed(release(50)).encoded])
        accepted, refused = [], 0
        for log in (with_spend, without):
            note = log.checkpoint()
            for witness in witnesses:
                try:
                    note = log.add_cosignature(note, witness.cosign(note, old_size=0, at=1), witness.key)
                except ForkError:
                    refused += 1
            try:
                accepted.append(policy.verify(note).checkpoint.root)
            except CosignatureQuorumError:
                refused += 1
        assert accepted == [with_spend.root]
        assert refused == 4 + 1

    def test_a_proof_from_one_view_is_nothing_in_the_other(self) -> None:
        left, right = log_of(ENTRIES[:10]), log_of([*ENTRIES[:9], FORGED])
        proof = left.proof(9, left.checkpoint())
        proof.verify(ENTRIES[9], LogPolicy(LOG_SIGNER.key))
        with pytest.raises(ProofError, match="another root"):
            right.proof(9, right.checkpoint()).verify(ENTRIES[9], LogPolicy(LOG_SIGNER.key))


def edit(path: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(path)
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute(statement, values)
    connection.commit()
    connection.close()


class TestStores:
    """The same with an SQLite shell: the copy is a file that was edited where it lies."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        store = SqliteLogStore.create(tmp_path / "log.sqlite")
        Log(store, LOG_SIGNER).append(ENTRIES)
        store.close()
        return tmp_path / "log.sqlite"

    def test_an_untouched_file_passes(self, path: Path) -> None:
        assert verify_log(StoredEntries(path), CHECKPOINT, keyring()).signatures == COUNT

    @pytest.mark.parametrize(
        ("attack", "statement", "values"),
        [
            ("edited", "UPDATE entries SET data = ? WHERE idx = 7", (ENTRIES[9],)),
            ("dropped", "DELETE FROM entries WHERE idx = 7", ()),
            ("truncated", "DELETE FROM entries WHERE idx = 39", ()),
            ("inserted", "INSERT INTO entries VALUES (40, zeroblob(32), ?)", (FORGED,)),
            ("moved", "UPDATE entries SET idx = 100 WHERE idx = 7", ()),
        ],
    )
    def test_an_edited_file_is_found(self, path: Path, attack: str, statement: str, values: tuple) -> None:
        edit(path, statement, *values)
        with pytest.raises((LogVerificationError, LogDamagedError)):
            verify_log(StoredEntries(path), CHECKPOINT, keyring())

    def test_a_file_whose_hashes_were_made_anew_is_found_too(self, path: Path, tmp_path: Path) -> None:
        """The attacker rebuilds a whole, coherent store: only the checkpoint tells."""
        other = SqliteLogStore.create(tmp_path / "other.sqlite")
        forged = Log(other, LOG_SIGNER)
        forged.append([*ENTRIES[:7], signed(release(98)).encoded, *ENTRIES[8:]])
        assert forged.check().size == COUNT
        with pytest.raises(LogVerificationError, match="is not the log that"):
            verify_log(StoredEntries(tmp_path / "other.sqlite"), CHECKPOINT, keyring())

    def test_a_folder_of_tiles_is_a_copy_like_any_other(self, tmp_path: Path) -> None:
        export_tiles(TRUTH, TRUTH.checkpoint(), tmp_path)
        assert verify_log(TileSource(tmp_path), CHECKPOINT, keyring()).signatures == COUNT
        bundle = next((tmp_path / "tile/entries/000.p").iterdir())
        bundle.write_bytes(bundle.read_bytes().replace(b'"count":20', b'"count":19', 1))
        with pytest.raises(LogVerificationError):
            verify_log(TileSource(tmp_path), CHECKPOINT)


class TestProcesses:
    def test_the_answer_is_the_same_from_two_processes(self, tmp_path: Path, monkeypatch) -> None:
        store = SqliteLogStore.create(tmp_path / "log.sqlite")
        log = Log(store, LOG_SIGNER)
        monkeypatch.setattr(verification, "CHUNK", 512)
        many = [SignedEntry(release(number)).encoded for number in range(1, 1201)]
        log.append(many)
        checkpoint, seen = Checkpoint(ORIGIN, log.size, log.root), []
        one = verify_log(StoredEntries(tmp_path / "log.sqlite"), checkpoint, progress=seen.append)
        two = verify_log(StoredEntries(tmp_path / "log.sqlite"), checkpoint, processes=2)
        assert one == two
        assert one.entries == {"release": 1200}
        assert seen == [512, 1024, 1200]
        store.close()
        edit(tmp_path / "log.sqlite", "UPDATE entries SET data = ? WHERE idx = 1100", b"{}\n")
        with pytest.raises(LogVerificationError, match="entry 1100"):
            verify_log(StoredEntries(tmp_path / "log.sqlite"), checkpoint, processes=2)

    def test_a_process_that_dies_is_not_a_pass(self, monkeypatch) -> None:
        monkeypatch.setattr(verification, "CHUNK", 512)
        many = [SignedEntry(release(number)).encoded for number in range(1, 520)]
        with pytest.raises(LogVerificationError, match="nothing is known"):
            verify_log(Dying(many), claims(many), processes=2)


@given(st.data())
def test_any_other_sequence_of_entries_is_another_log(data: st.DataObject) -> None:
    """Edits, drops, insertions, swaps: whatever is not the very sequence is refused against its checkpoint."""
    entries = [SignedEntry(release(number)).encoded for number in range(1, 12)]
    checkpoint = claims(entries)
    changed = list(entries)
    for _ in range(data.draw(st.integers(1, 3))):
        what = data.draw(st.sampled_from(["drop", "insert", "swap", "edit"]))
        place = data.draw(st.integers(0, max(len(changed) - 1, 0)))
        if what == "drop" and changed:
            changed.pop(place)
        elif what == "insert":
            changed.insert(place, data.draw(st.sampled_from([*entries, FORGED])))
        elif what == "swap" and changed:
            other = data.draw(st.integers(0, len(changed) - 1))
            changed[place], changed[other] = changed[other], changed[place]
        elif what == "edit" and changed:
            changed[place] = data.draw(st.sampled_from([*entries, FORGED, b"x\n"]))
    if changed[: len(entries)] == entries:
        assert verify_log(GivenEntries(changed), checkpoint).entries == {"release": len(entries)}
    else:
        with pytest.raises(LogVerificationError):
            verify_log(GivenEntries(changed), checkpoint)


def test_a_log_of_every_type_passes_with_all_its_signatures() -> None:
    each = one_of_each()
    entries = [signed(entry).encoded for entry in each.values()]
    seen = verify_log(GivenEntries(entries), claims(entries), keyring())
    assert seen.entries == dict.fromkeys(each, 1)
    assert seen.signatures == 13 + 4 + 4
    assert AGREEMENT in keyring().agreements
