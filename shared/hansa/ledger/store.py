"""Where a log lies: entries with the hashes that they complete, the tree head, checkpoints and cosignatures.

An entry's row holds its bytes and, one after the other, the hashes of all complete subtrees that end with it: the
leaf, the pair, the four, and so on. That is every node of the tree, each written once with the entry that completes
it, so that a proof looks up O(log n) rows and nothing is ever rewritten but the head.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from hansa.ledger.database import Database, Layout
from hansa.ledger.errors import LogDamagedError, LogStoreError
from hansa.ledger.note import NoteSignature, SignedNote
from hansa.merkle import EMPTY_ROOT, HASH_BYTES

LOG_LAYOUT = Layout(
    what="log",
    application_id=int.from_bytes(b"HLOG", "big"),
    version=1,
    tables=(
        "CREATE TABLE entries (idx INTEGER PRIMARY KEY, hashes BLOB NOT NULL, data BLOB NOT NULL) STRICT",
        "CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, root BLOB NOT NULL) STRICT",
        "INSERT INTO head VALUES (1, 0, x'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855')",
        "CREATE TABLE checkpoints (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, line TEXT NOT NULL) STRICT",
        "CREATE TABLE cosignatures (id INTEGER PRIMARY KEY, checkpoint INTEGER NOT NULL, line TEXT NOT NULL,"
        " UNIQUE (checkpoint, line)) STRICT",
        *(
            f"CREATE TRIGGER {table}_{act.lower()} BEFORE {act} ON {table}"
            f" BEGIN SELECT RAISE (ABORT, 'a log only grows'); END"
            for table in ("entries", "checkpoints", "cosignatures")
            for act in ("UPDATE", "DELETE")
        ),
    ),
)


class Row(NamedTuple):
    """An entry as it is stored.

    Attributes:
        hashes: of the complete subtrees that end with it, itself first; 32 bytes each.
        data: its bytes.
    """

    hashes: bytes
    data: bytes


class Head(NamedTuple):
    """What a store says about its tree."""

    size: int
    root: bytes


class LogStore(Protocol):
    """What `hansa.ledger.log` needs of a place."""

    def head(self) -> Head:
        """Size and root after the last append."""

    def append(self, before: Head, rows: Sequence[Row], root: bytes) -> None:
        """Write rows after `before` and the new root; all of it is durable before return, or nothing happened."""

    def rows(self, start: int, end: int) -> Iterator[Row]:
        """The rows [start, end), in order.

        Raises:
            LogDamagedError: one of them is missing.
        """

    def node(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree.

        Raises:
            LogDamagedError: it is missing.
        """

    def add_checkpoint(
        self,
        text: str,
        signature: NoteSignature,
        cosignatures: Iterable[NoteSignature] = (),
        *,
        durable: bool = True,
    ) -> None:
        """Keep a checkpoint, unless it is known, and cosignatures of it.

        Args:
            text: of the checkpoint's note.
            signature: the log's.
            cosignatures: of witnesses.
            durable: on disk before return. Otherwise it outlives the process, and is on disk with the next append.
        """

    def add_cosignatures(self, text: str, signatures: Iterable[NoteSignature]) -> None:
        """Keep cosignatures of a checkpoint that is known.

        They outlive the process, and are on disk with the next append: what a loss of power takes can be asked for
        again.
        """

    def checkpoints(self, text: str | None = None) -> Iterator[SignedNote]:
        """Checkpoints with the newest cosignature of each witness, newest first; or the one with this text."""


@dataclass
class _Kept:
    text: str
    line: NoteSignature
    cosignatures: list[NoteSignature]


class MemoryLogStore:
    """A log for simulations and tests: as durable as the object."""

    def __init__(self) -> None:
        self._head = Head(0, EMPTY_ROOT)
        self._rows: list[Row] = []
        self._checkpoints: list[_Kept] = []

    def head(self) -> Head:
        """See `LogStore.head`."""
        return self._head

    def append(self, before: Head, rows: Sequence[Row], root: bytes) -> None:
        """See `LogStore.append`."""
        if before != self._head:
            raise LogDamagedError("the log was written from elsewhere")
        self._rows += rows
        self._head = Head(len(self._rows), root)

    def rows(self, start: int, end: int) -> Iterator[Row]:
        """See `LogStore.rows`."""
        return _contiguous(enumerate(self._rows[start:end], start), start, end)

    def node(self, level: int, index: int) -> bytes:
        """See `LogStore.node`."""
        place = (index + 1 << level) - 1
        return _node(self._rows[place].hashes if place < len(self._rows) else None, level, index)

    def add_checkpoint(
        self,
        text: str,
        signature: NoteSignature,
        cosignatures: Iterable[NoteSignature] = (),
        *,
        durable: bool = True,  # noqa: ARG002  # this one is as durable as it can be
    ) -> None:
        """See `LogStore.add_checkpoint`."""
        if all(kept.text != text for kept in self._checkpoints):
            self._checkpoints.append(_Kept(text, signature, []))
        self.add_cosignatures(text, cosignatures)

    def add_cosignatures(self, text: str, signatures: Iterable[NoteSignature]) -> None:
        """See `LogStore.add_cosignatures`."""
        for kept in self._checkpoints:
            if kept.text == text:
                kept.cosignatures += signatures
                return
        raise LogStoreError("a cosignature is of a checkpoint that is not here")

    def checkpoints(self, text: str | None = None) -> Iterator[SignedNote]:
        """See `LogStore.checkpoints`."""
        for kept in reversed(self._checkpoints):
            if text in {None, kept.text}:
                yield _noted(kept.text, kept.line, kept.cosignatures)


class SqliteLogStore:
    """A log in one SQLite file.

    Args:
        path: see `create` for a new one.
        read_only: beside the writer, or of a copy.

    Raises:
        LogStoreError: it is missing, in use, of another program or version, or cannot be opened.
        LogDamagedError: it is no database any more.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._database = Database(path, LOG_LAYOUT, read_only=read_only)

    @classmethod
    def create(cls, path: Path) -> SqliteLogStore:
        """Begin a log; see `Database.create`."""
        Database.create(path, LOG_LAYOUT).close()
        return cls(path)

    def head(self) -> Head:
        """See `LogStore.head`."""
        row = self._database.one("SELECT size, root, (SELECT max(idx) FROM entries) FROM head")
        if row is None or row[0] != (-1 if row[2] is None else row[2]) + 1:
            raise LogDamagedError(f"{self._database.path} has another number of entries than its head says")
        return Head(self._database.typed(int, row[0]), self._database.typed(bytes, row[1]))

    def append(self, before: Head, rows: Sequence[Row], root: bytes) -> None:
        """See `LogStore.append`."""
        after = before.size + len(rows)
        numbered = ((index, *row) for index, row in enumerate(rows, before.size))
        with self._database.writing() as connection:
            connection.executemany("INSERT INTO entries VALUES (?, ?, ?)", numbered)
            moved = connection.execute(
                "UPDATE head SET size = ?, root = ? WHERE size = ? AND root = ?", (after, root, *before)
            )
            if moved.rowcount != 1:
                raise LogDamagedError(f"{self._database.path} was written from elsewhere")

    def rows(self, start: int, end: int) -> Iterator[Row]:
        """See `LogStore.rows`."""
        query = "SELECT idx, hashes, data FROM entries WHERE idx >= ? AND idx < ? ORDER BY idx"
        with self._database.reading() as connection:
            found = connection.execute(query, (start, end))
            yield from _contiguous(self._typed(found), start, end)

    def node(self, level: int, index: int) -> bytes:
        """See `LogStore.node`."""
        row = self._database.one("SELECT hashes FROM entries WHERE idx = ?", (index + 1 << level) - 1)
        return _node(None if row is None else self._database.typed(bytes, row[0]), level, index)

    def add_checkpoint(
        self,
        text: str,
        signature: NoteSignature,
        cosignatures: Iterable[NoteSignature] = (),
        *,
        durable: bool = True,
    ) -> None:
        """See `LogStore.add_checkpoint`."""
        insert = "INSERT INTO checkpoints (text, line) VALUES (?, ?) ON CONFLICT DO NOTHING"
        with self._database.writing(durable=durable) as connection:
            connection.execute(insert, (text, signature.line))
            _cosigned(connection, text, cosignatures)

    def add_cosignatures(self, text: str, signatures: Iterable[NoteSignature]) -> None:
        """See `LogStore.add_cosignatures`."""
        with self._database.writing(durable=False) as connection:
            _cosigned(connection, text, signatures)

    def checkpoints(self, text: str | None = None) -> Iterator[SignedNote]:
        """See `LogStore.checkpoints`."""
        query = "SELECT id, text, line FROM checkpoints WHERE ? IS NULL OR text = ? ORDER BY id DESC"
        more = "SELECT line FROM cosignatures WHERE checkpoint = ? ORDER BY id"
        with self._database.reading() as connection:
            for number, known, line in connection.execute(query, (text, text)):
                lines = connection.execute(more, (number,)).fetchall()
                parsed = [self._signature(one) for (one,) in lines]
                yield _noted(self._database.typed(str, known), self._signature(line), parsed)

    def close(self) -> None:
        """Close the file and give the lock back."""
        self._database.close()

    def _typed(self, found: Iterable[tuple[int, object, object]]) -> Iterator[tuple[int, Row]]:
        for index, hashes, data in found:
            if type(hashes) is not bytes or type(data) is not bytes:
                raise self._database.mistyped()
            yield index, Row(hashes, data)

    def _signature(self, line: object) -> NoteSignature:
        return NoteSignature.parse(self._database.typed(str, line))


def _cosigned(connection: sqlite3.Connection, text: str, signatures: Iterable[NoteSignature]) -> None:
    row = connection.execute("SELECT id FROM checkpoints WHERE text = ?", (text,)).fetchone()
    if row is None:
        raise LogStoreError("a cosignature is of a checkpoint that is not here")
    insert = "INSERT INTO cosignatures (checkpoint, line) VALUES (?, ?) ON CONFLICT DO NOTHING"
    connection.executemany(insert, ((row[0], signature.line) for signature in signatures))


def _contiguous(rows: Iterable[tuple[int, Row]], start: int, end: int) -> Iterator[Row]:
    for index, row in rows:
        if index != start:
            break
        start += 1
        yield row
    if start < end:
        raise LogDamagedError(f"entry {start} of the log is missing")


def _node(hashes: bytes | None, level: int, index: int) -> bytes:
    node = (hashes or b"")[level * HASH_BYTES : (level + 1) * HASH_BYTES]
    if len(node) != HASH_BYTES:
        raise LogDamagedError(f"node {index} of level {level} of the log is missing")
    return node


def _noted(text: str, line: NoteSignature, cosignatures: Iterable[NoteSignature]) -> SignedNote:
    note = SignedNote(text, (line,))
    for signature in cosignatures:
        note = note.with_signatures(signature)
    return note
