"""Where a log lies, in memory and in a file: durable, whole, held by one process, and honest about damage."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hansa.ledger.database import Database, Layout
from hansa.ledger.errors import EntryError, LogDamagedError, LogStoreError, NoteSignatureError
from hansa.ledger.log import MAX_ENTRY_BYTES, Log, LogView
from hansa.ledger.note import NoteSigner, SignatureType
from hansa.ledger.store import LOG_LAYOUT, Head, LogStore, MemoryLogStore, SqliteLogStore
from hansa.merkle import (
    EMPTY_ROOT,
    leaf_hash,
    prove_consistency,
    prove_inclusion,
    tree_root,
    verify_consistency,
    verify_inclusion,
)

ORIGIN = "hansa.example/league/member-1"
SIGNER = NoteSigner.generate(ORIGIN)
WITNESS = NoteSigner.generate("hansa.example/witness", SignatureType.WITNESS)
STORES: dict[str, Callable[[Path], LogStore]] = {
    "memory": lambda _: MemoryLogStore(),
    "sqlite": lambda folder: SqliteLogStore.create(folder / "log.sqlite"),
}


@pytest.fixture(params=list(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LogStore:
    return STORES[request.param](tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


def entries(count: int, start: int = 0) -> list[bytes]:
    return [f"entry {index}".encode() for index in range(start, start + count)]


def filled(path: Path, count: int = 20) -> None:
    """A closed log of some entries and one checkpoint."""
    store = SqliteLogStore.create(path)
    log = Log(store, SIGNER)
    log.append(entries(count))
    log.checkpoint()
    store.close()


def edit(path: Path, *statements: str) -> None:
    """What somebody with the file and an SQLite shell can do."""
    connection = sqlite3.connect(path)
    for trigger in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {trigger[0]}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


class TestEveryStore:
    def test_a_new_log_is_empty(self, store: LogStore) -> None:
        log = Log(store, SIGNER)
        assert (log.size, log.root) == (0, EMPTY_ROOT)
        assert list(log.entries()) == []
        assert log.last_checkpoint() is None
        assert log.append([]) == range(0)

    def test_entries_come_back_in_order_with_the_root_of_every_size(self, store: LogStore) -> None:
        log, written = Log(store, SIGNER), entries(100)
        assert log.append(written[:1]) == range(1)
        assert log.append(written[1:60]) == range(1, 60)
        assert log.append(iter(written[60:])) == range(60, 100)
        assert list(log.entries()) == written
        assert list(log.entries(7, 9)) == written[7:9]
        assert log.entry(99) == written[99]
        hashes = [leaf_hash(data) for data in written]
        for size in (0, 1, 2, 63, 64, 65, 100):
            assert log.root_at(size) == tree_root(hashes[:size])
        assert (log.size, log.root) == (100, tree_root(hashes))

    def test_proofs_of_any_size_that_the_log_has_had(self, store: LogStore) -> None:
        log, written = Log(store, SIGNER), entries(77)
        log.append(written)
        for size in (1, 2, 33, 64, 77):
            for index in {0, size // 2, size - 1}:
                path = log.prove_inclusion(index, size)
                verify_inclusion(leaf_hash(written[index]), index, size, path, log.root_at(size))
            verify_consistency(size, 77, log.prove_consistency(size, 77), log.root_at(size), log.root)

    def test_what_is_not_there_is_a_typed_error(self, store: LogStore) -> None:
        log = Log(store, SIGNER)
        log.append(entries(3))
        for ask in (
            lambda: log.entry(3),
            lambda: log.entry(-1),
            lambda: list(log.entries(2, 1)),
            lambda: log.root_at(4),
            lambda: log.prove_inclusion(0, 4),
            lambda: log.prove_consistency(1, 4),
        ):
            with pytest.raises(LogStoreError):
                ask()

    @pytest.mark.parametrize("size", [0, MAX_ENTRY_BYTES + 1])
    def test_entries_that_tiles_cannot_hold_are_refused_with_all_beside_them(
        self, store: LogStore, size: int
    ) -> None:
        log = Log(store, SIGNER)
        with pytest.raises(EntryError, match=f"an entry of {size} bytes"):
            log.append([b"good", bytes(size)])
        assert log.size == 0
        log.append([bytes(MAX_ENTRY_BYTES)])
        assert log.size == 1

    def test_a_checkpoint_is_kept_and_signed_once(self, store: LogStore) -> None:
        log = Log(store, SIGNER)
        first = log.checkpoint()
        log.append(entries(5))
        second, again, other = log.checkpoint(), log.checkpoint(), log.checkpoint("nonce 01")
        assert second == again != other
        assert [note.text for note in log.checkpoints()] == [other.text, second.text, first.text]
        assert log.last_checkpoint() == other
        for note in (first, second, other):
            assert note.verify([SIGNER.key]) == {SIGNER.key: None}

    def test_cosignatures_stay_with_their_checkpoint_the_newest_of_each_witness(
        self, store: LogStore
    ) -> None:
        log, other = Log(store, SIGNER), NoteSigner.generate("hansa.example/w2", SignatureType.WITNESS)
        log.append(entries(5))
        note = log.checkpoint()
        note = log.add_cosignature(note, WITNESS.sign(note.text, 10), WITNESS.key)
        note = log.add_cosignature(note, other.sign(note.text, 11), other.key)
        cosigned = log.add_cosignature(note, WITNESS.sign(note.text, 12), WITNESS.key)
        keys = [SIGNER.key, WITNESS.key, other.key]
        assert cosigned.verify(keys) == {SIGNER.key: None, WITNESS.key: 12, other.key: 11}
        assert log.checkpoint() == cosigned
        log.append(entries(1, 5))
        assert log.checkpoint().verify(keys) == {SIGNER.key: None}

    def test_a_cosignature_that_is_none_is_not_kept(self, store: LogStore) -> None:
        log = Log(store, SIGNER)
        log.append(entries(2))
        note = log.checkpoint()
        with pytest.raises(NoteSignatureError):
            log.add_cosignature(note, WITNESS.sign("something else\n", 1), WITNESS.key)
        elsewhere = Log(MemoryLogStore(), SIGNER)
        elsewhere.append(entries(3))
        foreign = elsewhere.checkpoint()
        with pytest.raises(LogStoreError, match="not here"):
            log.add_cosignature(foreign, WITNESS.sign(foreign.text, 1), WITNESS.key)
        assert log.checkpoint() == note

    def test_an_append_over_another_state_is_refused(self, store: LogStore) -> None:
        one, two = Log(store, SIGNER), Log(store, SIGNER)
        one.append(entries(2))
        with pytest.raises((LogDamagedError, LogStoreError)):
            two.append([b"other"])
        assert list(LogView(store).entries()) == entries(2)

    def test_a_log_is_taken_up_where_it_was(self, store: LogStore) -> None:
        Log(store, SIGNER).append(entries(13))
        later = Log(store, SIGNER)
        later.append(entries(8, 13))
        assert later.root == tree_root([leaf_hash(data) for data in entries(21)])
        assert later.check() == Head(21, later.root)

    def test_only_a_log_key_signs_a_log(self, store: LogStore) -> None:
        with pytest.raises(LogStoreError, match="log's key"):
            Log(store, WITNESS)


class TestFile:
    def test_it_is_for_its_owner_alone(self, path: Path) -> None:
        old = os.umask(0)
        try:
            filled(path)
        finally:
            os.umask(old)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.with_name("log.sqlite.lock").stat().st_mode) == 0o600
        assert sorted(p.name for p in path.parent.iterdir()) == ["log.sqlite", "log.sqlite.lock"]

    def test_every_commit_waits_for_the_disk(self, path: Path) -> None:
        store = SqliteLogStore.create(path)
        log, said = Log(store, SIGNER), list[str]()
        assert store._database.one("PRAGMA journal_mode") == ("wal",)
        note = log.checkpoint(durable=False)
        log.add_cosignature(note, WITNESS.sign(note.text, 10), WITNESS.key)
        assert store._database.one("PRAGMA synchronous") == (1,)
        with store._database.reading() as connection:
            connection.set_trace_callback(said.append)
        for write in (lambda: log.append([b"one"]), log.checkpoint):
            log.checkpoint("in between", durable=False)
            said.clear()
            write()
            modes = [line for line in said if line.startswith("PRAGMA synchronous") or line == "COMMIT"]
            assert modes == ["PRAGMA synchronous = FULL", "COMMIT"]

    def test_what_does_not_wait_for_the_disk_outlives_its_process(self, path: Path) -> None:
        code = (
            "import os, sys; from pathlib import Path\n"
            "from hansa.ledger import Log, NoteSigner, SqliteLogStore\n"
            "log = Log(SqliteLogStore.create(Path(sys.argv[1])), NoteSigner.parse(sys.argv[2]))\n"
            "log.append([b'one']); witness = NoteSigner.parse(sys.argv[3])\n"
            "note = log.checkpoint(durable=False)\n"
            "log.add_cosignature(note, witness.sign(note.text, 10), witness.key); os._exit(9)"
        )
        ended = subprocess.run(
            [sys.executable, "-c", code, str(path), SIGNER.text, WITNESS.text], check=False
        )
        assert ended.returncode == 9
        note = Log(SqliteLogStore(path), SIGNER).last_checkpoint()
        assert note is not None
        assert note.verify([SIGNER.key, WITNESS.key]) == {SIGNER.key: None, WITNESS.key: 10}

    def test_what_was_appended_survives_the_death_of_its_process(self, path: Path) -> None:
        code = (
            "import os, sys; from pathlib import Path\n"
            "from hansa.ledger.store import SqliteLogStore; from hansa.ledger.log import Log\n"
            "from hansa.ledger.note import NoteSigner\n"
            "log = Log(SqliteLogStore.create(Path(sys.argv[1])), NoteSigner.parse(sys.argv[2]))\n"
            "log.append([b'one', b'two']); log.checkpoint(); os._exit(9)"
        )
        ended = subprocess.run([sys.executable, "-c", code, str(path), SIGNER.text], check=False)
        assert ended.returncode == 9
        log = Log(SqliteLogStore(path), SIGNER)
        assert list(log.entries()) == [b"one", b"two"]
        assert log.last_checkpoint() is not None

    def test_a_log_has_one_writer_and_any_readers(self, path: Path) -> None:
        writer = SqliteLogStore.create(path)
        log = Log(writer, SIGNER)
        log.append(entries(3))
        with pytest.raises(LogStoreError, match="in use by another process"):
            SqliteLogStore(path)
        reader = LogView(SqliteLogStore(path, read_only=True))
        assert list(reader.entries()) == entries(3)
        log.append(entries(2, 3))
        assert reader.size == 5
        writer.close()
        Log(SqliteLogStore(path), SIGNER).append(entries(1, 5))
        assert reader.size == 6

    def test_a_reader_changes_nothing(self, path: Path) -> None:
        filled(path)
        reader = SqliteLogStore(path, read_only=True)
        with pytest.raises(LogStoreError, match="readonly"):
            Log(reader, SIGNER).append([b"x"])

    def test_a_copy_is_read_where_nothing_can_be_written(
        self, path: Path, tmp_path: Path, monkeypatch
    ) -> None:
        filled(path)
        folder = tmp_path / "copy"
        folder.mkdir()
        shutil.copy(path, folder)
        folder.chmod(0o500)
        monkeypatch.setattr(os, "access", lambda place, _: place != folder)  # root may write anywhere
        try:
            view = LogView(SqliteLogStore(folder / path.name, read_only=True))
            assert list(view.entries()) == entries(20)
            assert [p.name for p in folder.iterdir()] == [path.name]
        finally:
            folder.chmod(0o700)

    def test_a_log_that_is_gone_is_not_begun_anew(self, path: Path) -> None:
        for read_only in (False, True):
            with pytest.raises(LogStoreError, match="there is no log at"):
                SqliteLogStore(path, read_only=read_only)
        assert not path.exists()

    def test_a_log_is_never_begun_over_another(self, path: Path) -> None:
        filled(path)
        before = path.read_bytes()
        with pytest.raises(LogStoreError, match="exists already"):
            SqliteLogStore.create(path)
        assert path.read_bytes() == before

    @pytest.mark.parametrize("end", ["-wal", "-shm", "-journal"])
    def test_what_another_log_left_is_not_played_into_a_new_one(self, path: Path, end: str) -> None:
        path.with_name(path.name + end).write_bytes(b"left")
        with pytest.raises(LogStoreError, match=f"{end} exists already"):
            SqliteLogStore.create(path)
        assert not path.exists()

    def test_after_an_input_or_output_error_the_file_is_opened_anew(self, path: Path) -> None:
        store = SqliteLogStore.create(path)
        log = Log(store, SIGNER)
        log.append(entries(3))
        failure = sqlite3.OperationalError("disk I/O error")
        failure.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC

        def fail() -> None:
            with store._database.writing() as connection:
                connection.execute("UPDATE head SET size = 99")
                raise failure

        with pytest.raises(LogStoreError, match="I/O error"):
            fail()
        with pytest.raises(LogStoreError, match="is closed"):
            log.append([b"x"])
        assert list(Log(SqliteLogStore(path), SIGNER).entries()) == entries(3)

    def test_what_a_crash_left_while_a_log_was_made_is_replaced(self, path: Path) -> None:
        path.with_name("log.sqlite.new").write_bytes(b"half")
        assert SqliteLogStore.create(path).head() == Head(0, EMPTY_ROOT)
        assert not path.with_name("log.sqlite.new").exists()

    def test_a_folder_that_is_not_there_is_a_clear_error(self, tmp_path: Path) -> None:
        with pytest.raises(LogStoreError, match="No such file"):
            SqliteLogStore.create(tmp_path / "nowhere" / "log.sqlite")

    def test_a_closed_log_says_so(self, path: Path) -> None:
        store = SqliteLogStore.create(path)
        store.close()
        store.close()
        with pytest.raises(LogStoreError, match="is closed"):
            store.head()


class TestDiskFull:
    @pytest.fixture
    def log(self, path: Path) -> Log:
        store = SqliteLogStore.create(path)
        log = Log(store, SIGNER)
        log.append(entries(10))
        log.checkpoint()
        (pages,) = store._database.one("PRAGMA page_count") or (0,)
        store._database.one(f"PRAGMA max_page_count = {pages + 3}")
        return log

    def test_a_batch_that_does_not_fit_leaves_nothing(self, log: Log, path: Path) -> None:
        before = (log.size, log.root)
        with pytest.raises(LogStoreError, match="full"):
            log.append([bytes([65 + i]) * 6000 for i in range(20)])
        assert (log.size, log.root) == before
        assert list(log.entries()) == entries(10)
        assert log.append([b"small"]) == range(10, 11)  # the same object goes on
        assert log.check().size == 11
        log._store.close()  # type: ignore[attr-defined]
        again = Log(SqliteLogStore(path), SIGNER)
        assert list(again.entries()) == [*entries(10), b"small"]

    def test_single_appends_stop_at_the_last_that_fits(self, log: Log, path: Path) -> None:
        written = entries(10)

        def fill() -> None:
            for index in range(1000):
                data = f"{index} ".encode() * 200
                log.append([data])
                written.append(data)

        with pytest.raises(LogStoreError, match="full"):
            fill()
        assert len(written) > 10
        assert list(log.entries()) == written
        assert log.check() == Head(len(written), log.root)


class TestDamage:
    @pytest.mark.parametrize(
        ("statements", "match"),
        [
            (["DELETE FROM entries WHERE idx = 19"], "another number of entries"),
            (["INSERT INTO entries VALUES (20, zeroblob(32), 'x')"], "datatype|cannot store"),
            (["INSERT INTO entries VALUES (20, zeroblob(32), x'00')"], "another number of entries"),
            (["UPDATE head SET size = 19"], "another number of entries"),
            (["UPDATE head SET root = zeroblob(32)"], "another root"),
            (["DELETE FROM head"], "another number of entries"),
            (["DELETE FROM entries", "UPDATE head SET size = 0"], "another root"),
            (["UPDATE entries SET hashes = zeroblob(64) WHERE idx = 19"], "another root|is missing"),
            (["UPDATE entries SET hashes = zeroblob(160) WHERE idx = 15"], "another root"),
            (["UPDATE entries SET hashes = x'' WHERE idx = 15"], "is missing"),
            (["UPDATE entries SET idx = 99 WHERE idx = 15"], "another number of entries"),
        ],
    )
    def test_a_head_that_does_not_fit_the_rows_is_found_on_opening(
        self, path: Path, statements: list[str], match: str
    ) -> None:
        filled(path)
        try:
            edit(path, *statements)
        except sqlite3.IntegrityError:
            return  # the table is strict
        with pytest.raises(LogDamagedError, match=match) as caught:
            Log(SqliteLogStore(path), SIGNER)
        assert "checkpoint" in caught.value.what_to_do

    def test_a_log_cut_back_behind_its_checkpoint_is_found_on_opening(self, path: Path) -> None:
        filled(path)
        short = Log(MemoryLogStore(), SIGNER)
        short.append(entries(12))
        edit(
            path,
            "DELETE FROM entries WHERE idx >= 12",
            f"UPDATE head SET size = 12, root = x'{short.root.hex()}'",  # noqa: S608
        )
        with pytest.raises(LogDamagedError, match="signed at 20 entries"):
            Log(SqliteLogStore(path), SIGNER)

    def test_a_changed_entry_is_found_where_it_is_read_and_by_a_full_check(self, path: Path) -> None:
        filled(path)
        edit(path, "UPDATE entries SET data = x'00' WHERE idx = 7")
        log = Log(SqliteLogStore(path), SIGNER)
        with pytest.raises(LogDamagedError, match="entry 7"):
            log.entry(7)
        with pytest.raises(LogDamagedError, match="entry 7"):
            list(log.entries())
        with pytest.raises(LogDamagedError, match="entry 7"):
            log.check()
        assert log.entry(6) == entries(20)[6]

    def test_a_missing_entry_in_the_middle_is_found(self, path: Path) -> None:
        filled(path)
        edit(path, "DELETE FROM entries WHERE idx = 6")
        log = Log(SqliteLogStore(path), SIGNER)
        with pytest.raises(LogDamagedError, match="entry 6 of the log is missing"):
            list(log.entries())
        with pytest.raises(LogDamagedError):
            log.prove_inclusion(7, 20)

    def test_a_changed_hash_inside_is_found_by_a_full_check(self, path: Path) -> None:
        filled(path)
        edit(
            path,
            "UPDATE entries SET hashes = CAST(substr(hashes, 1, 32) || zeroblob(32) AS BLOB) WHERE idx = 5",
        )
        log = Log(SqliteLogStore(path), SIGNER)
        assert list(log.entries()) == entries(20)
        with pytest.raises(LogDamagedError, match="entry 5"):
            log.check()

    def test_nothing_is_changed_or_removed_by_accident(self, path: Path) -> None:
        filled(path)
        connection = sqlite3.connect(path)
        for statement in (
            "UPDATE entries SET data = x'00'",
            "DELETE FROM entries",
            "DELETE FROM checkpoints",
            "UPDATE checkpoints SET line = ''",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="only grows"):
                connection.execute(statement)
        connection.close()

    def test_the_store_of_another_log_is_refused(self, path: Path) -> None:
        filled(path)
        with pytest.raises(LogStoreError, match="this is the log"):
            Log(SqliteLogStore(path), NoteSigner.generate("hansa.example/league/member-2"))

    def test_the_checkpoint_of_another_key_is_refused(self, path: Path) -> None:
        filled(path)
        with pytest.raises(NoteSignatureError):
            Log(SqliteLogStore(path), NoteSigner.generate(ORIGIN))

    def test_a_file_of_another_program_is_left_as_it_is(self, path: Path) -> None:
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE theirs (x)")
        connection.commit()
        connection.close()
        before = path.read_bytes()
        for read_only in (False, True):
            with pytest.raises(LogStoreError, match="is no log of Hansa"):
                SqliteLogStore(path, read_only=read_only)
        assert path.read_bytes() == before

    @pytest.mark.parametrize("version", [0, 2, 99])
    def test_another_version_is_refused_by_name(self, path: Path, version: int) -> None:
        filled(path)
        edit(path, f"PRAGMA user_version = {version}")
        before = path.read_bytes()
        with pytest.raises(LogStoreError, match=f"version {version}; this release reads version 1") as caught:
            SqliteLogStore(path)
        assert "release that wrote it" in caught.value.what_to_do
        assert path.read_bytes() == before

    @pytest.mark.parametrize(
        "content", [b"", b"not a database at all, but long enough to be one" * 200, b"SQLite format 3\x00"]
    )
    def test_a_file_that_is_no_database(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises((LogDamagedError, LogStoreError)):
            SqliteLogStore(path)
        assert path.read_bytes() == content

    @pytest.mark.parametrize(
        "needle", [b"SQLite format", b"CREATE TABLE entries", b"entry 3", b"entry 150", b"entry 299"]
    )
    def test_pages_that_were_overwritten(self, path: Path, needle: bytes) -> None:
        filled(path, 300)
        data = bytearray(path.read_bytes())
        place = data.index(needle)
        data[place : place + 300] = os.urandom(300)
        path.write_bytes(bytes(data))
        with pytest.raises((LogDamagedError, LogStoreError)):
            Log(SqliteLogStore(path), SIGNER).check()

    def test_a_file_that_was_cut_short(self, path: Path) -> None:
        filled(path, 300)
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 8192)
        with pytest.raises((LogDamagedError, LogStoreError)):
            Log(SqliteLogStore(path), SIGNER).check()

    def test_the_lock_is_given_back_when_a_file_cannot_be_used(self, path: Path) -> None:
        path.write_bytes(b"no database" * 500)
        with pytest.raises(LogDamagedError):
            SqliteLogStore(path)
        path.unlink()
        SqliteLogStore.create(path).close()

    def test_a_layout_is_not_another_layout(self, path: Path) -> None:
        Database.create(path, Layout("other thing", 7, 1, ("CREATE TABLE a (b)",))).close()
        with pytest.raises(LogStoreError, match="is no log of Hansa"):
            SqliteLogStore(path)


def test_the_empty_root_of_a_new_file_is_the_root_of_nothing() -> None:
    assert EMPTY_ROOT.hex() in LOG_LAYOUT.tables[2]


def test_proofs_look_up_few_nodes_however_long_the_log() -> None:
    """At 1,000,000 entries: 20 hashes, and O(log n) lookups."""
    looked: list[tuple[int, int]] = []

    def node(level: int, index: int) -> bytes:
        assert (index + 1) << level <= 1_000_000
        looked.append((level, index))
        return leaf_hash(f"{level}/{index}".encode())

    assert len(prove_inclusion(123_456, 1_000_000, node)) == 20
    assert len(looked) <= 40
    looked.clear()
    assert len(prove_consistency(765_432, 1_000_000, node)) <= 21
    assert len(looked) <= 40
