"""A copy of a log is a stranger's SQLite file, which can hold anything: `hansa audit verify` says so, and ends."""

# ruff: noqa: S608  # names of tables cannot be parameters, and stand in this file
from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from hansa.ledger import SqliteLogStore, SqliteWitness
from hansa.ledger.errors import LogDamagedError
from support.auditing import audited, failures
from support.audits import KEYS, LOG_SIGNERS, MEMBERS, story, write_store
from support.cli import Called

TRUTH = story()
VICTIM = MEMBERS[1]
ENDLESS = (
    "CREATE VIEW entries AS WITH RECURSIVE t (idx) AS (SELECT 0 UNION ALL SELECT idx + 1 FROM t)"
    " SELECT idx, zeroblob(32) AS hashes, zeroblob(60000) AS data FROM t"
)
WRONG = [
    ("entries", "data", "text"),
    ("entries", "data", 7),
    ("entries", "data", None),
    ("entries", "data", 1.5),
    ("entries", "hashes", "text"),
    ("entries", "hashes", None),
    ("head", "size", "a"),
    ("head", "size", None),
    ("head", "size", float(len(TRUTH.own[VICTIM]))),
    ("head", "root", "text"),
    ("head", "root", None),
    ("checkpoints", "text", 7),
    ("checkpoints", "text", None),
    ("checkpoints", "text", b"\xff"),
    ("checkpoints", "line", 7),
    ("checkpoints", "line", None),
    ("cosignatures", "line", 7),
    ("cosignatures", "line", None),
]


@pytest.fixture
def ledgers(tmp_path: Path) -> Path:
    return TRUTH.write(tmp_path)


@pytest.fixture
def path(ledgers: Path) -> Path:
    """The victim's own log as an SQLite file; its last checkpoint is cosigned, so that no table is empty."""
    shutil.rmtree(ledgers / "members" / VICTIM)
    entries = TRUTH.own[VICTIM]
    place = ledgers / "members" / "victim.sqlite"
    return write_store(entries, LOG_SIGNERS[VICTIM], place, (5, len(entries)), MEMBERS[:1])


@contextmanager
def edited(path: Path) -> Iterator[sqlite3.Connection]:
    """What somebody with the file and an SQLite shell can do; the triggers are gone."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        yield connection


def rebuild(path: Path, table: str, column: str, value: Any) -> None:
    """Make a table anew without types, and put a value of another one into it."""
    with edited(path) as connection:
        names = ", ".join(row[1] for row in connection.execute(f"PRAGMA table_info({table})"))
        connection.execute(f"CREATE TABLE other AS SELECT * FROM {table}")
        connection.execute(f"DROP TABLE {table}")
        connection.execute(f"CREATE TABLE {table} ({names})")
        connection.execute(f"INSERT INTO {table} SELECT * FROM other")
        connection.execute("DROP TABLE other")
        connection.execute(f"UPDATE {table} SET {column} = ?", (value,))


def disguise(path: Path, table: str, column: str, value: Any) -> None:
    """Put a value of another type into a table that still says that it is strict."""

    def declare(connection: sqlite3.Connection, text: str) -> None:
        connection.execute("PRAGMA writable_schema = ON")
        changed = connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (text, table))
        assert changed.rowcount == 1

    with edited(path) as connection:
        (strict,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        declare(connection, re.sub(r" (STRICT|NOT NULL|TEXT|BLOB|INTEGER(?! PRIMARY))\b", "", strict))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        last = "(SELECT max(rowid) FROM " + table + ")"  # one row, as a column may be unique
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = {last}", (value,))
        ((kind,),) = connection.execute(f"SELECT typeof({column}) FROM {table} WHERE rowid = {last}")
        assert kind == {str: "text", int: "integer", float: "real", bytes: "blob"}.get(type(value), "null")
        declare(connection, strict)


def told(called: Called) -> list[str]:
    """What is said about the victim's copy, which is wrong and no bug of the program."""
    assert "bug" not in called.stdout + called.stderr
    return [one["what"] for one in failures(called) if one["copy"].endswith("victim.sqlite")]


class TestTablesThatAreNotThoseOfALog:
    def test_the_copy_passes_before_anybody_edits_it(self, ledgers: Path, path: Path) -> None:
        assert audited(ledgers).status == 0
        with edited(path):
            pass  # triggers protect their owner, and prove nothing to others
        assert audited(ledgers).status == 0

    @pytest.mark.parametrize(("table", "column", "value"), WRONG)
    def test_a_table_that_was_made_anew(
        self, ledgers: Path, path: Path, table: str, column: str, value: Any
    ) -> None:
        rebuild(path, table, column, value)
        (what,) = told(audited(ledgers))
        assert "has other tables than a log" in what

    def test_a_view_without_end(self, ledgers: Path, path: Path) -> None:
        with edited(path) as connection:
            connection.execute("DROP TABLE entries")
            connection.execute(ENDLESS)
        KEYS.write(ledgers.parent / "compared.json")
        command = ["audit", "verify", str(ledgers), "--keys", str(ledgers.parent / "compared.json")]
        ended = subprocess.run(
            [sys.executable, "-c", "from hansa.cli import main; main()", *command],
            timeout=600,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 4, ended.stderr
        assert "has other tables than a log" in ended.stdout

    @pytest.mark.parametrize(
        "statement",
        [
            "CREATE TABLE more (x)",
            "CREATE VIEW more AS SELECT 1",
            "CREATE INDEX more ON entries (data)",
            "CREATE TRIGGER more BEFORE INSERT ON entries BEGIN SELECT 1; END",
            "CREATE TRIGGER entries_update BEFORE UPDATE ON entries BEGIN SELECT 1; END",
            "DROP TABLE cosignatures",
            "ALTER TABLE entries ADD COLUMN more BLOB",
        ],
    )
    def test_whatever_else_it_holds_or_lacks(self, ledgers: Path, path: Path, statement: str) -> None:
        with edited(path) as connection:
            connection.execute(statement)
        for read_only in (True, False):
            with pytest.raises(LogDamagedError, match="has other tables than a log"):
                SqliteLogStore(path, read_only=read_only)
        (what,) = told(audited(ledgers))
        assert "has other tables than a log" in what


class TestTablesThatLieAboutTheirTypes:
    @pytest.mark.parametrize(("table", "column", "value"), WRONG)
    def test_a_value_of_another_type(
        self, ledgers: Path, path: Path, table: str, column: str, value: Any
    ) -> None:
        disguise(path, table, column, value)
        SqliteLogStore(path, read_only=True).close()  # its tables are those of a log
        assert told(audited(ledgers))


class TestWitnesses:
    @pytest.fixture
    def memory(self, ledgers: Path) -> Path:
        place = ledgers / "members" / "witness.sqlite"
        with closing(SqliteWitness.create(place)) as witness:
            witness.advance("hansa.example/other", None, "a note")
        return place

    @pytest.mark.parametrize("value", [7, None, b"\xff", 1.5, "no note"])
    @pytest.mark.parametrize("change", [rebuild, disguise])
    def test_a_memory_that_holds_no_notes(self, ledgers: Path, memory: Path, change: Any, value: Any) -> None:
        change(memory, "seen", "note", value)
        called = audited(ledgers)
        assert called.status == 2, called.stdout
        assert called.envelope["error"]["code"] == "HANSA-761"

    def test_its_owner_does_not_cosign_from_it(self, memory: Path) -> None:
        disguise(memory, "seen", "note", 7)
        with (
            closing(SqliteWitness(memory)) as witness,
            pytest.raises(LogDamagedError, match="values of types"),
        ):
            witness.last("hansa.example/other")
