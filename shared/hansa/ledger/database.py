"""One SQLite file that is written by one process and is on disk before a write returns, unless it says otherwise.

Write-ahead log, ``synchronous = FULL``, a lock file beside the database, an application id and a version in its
header. A file of another program, of another version, or with other tables is refused before anything in it changes.
Nor is a copy believed about the types of what it holds: a file can say that its tables are strict and lie.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from hansa.ledger.errors import LogDamagedError, LogStoreError

T = TypeVar("T")

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_PRAGMAS = ("trusted_schema = OFF", "cell_size_check = ON")
_CACHE_KIB = 512  # of pages of a file that a node or a coordinator holds for months; SQLite would take four times as much
_SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_master"
_BUSY_TIMEOUT_S = 5.0  # readers of other processes are quick


@dataclass(frozen=True)
class Layout:
    """What a file is, and which form of it.

    Attributes:
        what: in words.
        application_id: four letters in the header of the file.
        version: of the tables; another one is refused.
        tables: statements that make them.
    """

    what: str
    application_id: int
    version: int
    tables: Sequence[str]


class Database:
    """A connection to a file of one layout, which is there already: a log that is gone is never begun anew in silence.

    It may be used in turn by threads, never by two at once: whoever has several takes care of that.

    Args:
        path: see `create` for a new one.
        layout: what it must be.
        read_only: beside a writer, or of a copy; takes no lock.

    Raises:
        LogStoreError: it is missing, in use, of another program or version, or cannot be opened.
        LogDamagedError: it is no database any more, or has other tables than the layout.
    """

    def __init__(self, path: Path, layout: Layout, *, read_only: bool = False) -> None:
        self.path, self.layout = path, layout
        self._lock = None if read_only else _locked(path, layout)
        self._connection: sqlite3.Connection | None = None
        self._durable: bool | None = None  # how the last transaction was written
        try:
            with _told(path, layout):
                self._connection = _connect(path, layout, _options(path, read_only=read_only))
                for pragma in _PRAGMAS:  # above all for copies of strangers
                    self._connection.execute(f"PRAGMA {pragma}")
                if not read_only:
                    self._connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
                _require(self._connection, path, layout)
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, path: Path, layout: Layout) -> Database:
        """Make a new file of mode 0600 and open it; it appears under its name when it is whole.

        Raises:
            LogStoreError: there is one already, or it cannot be made.
        """
        lock = _locked(path, layout)
        try:
            with _told(path, layout):
                # A write-ahead log that was left behind would be played into the new file.
                for old in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal"))):
                    if old.exists():
                        raise LogStoreError(
                            f"{old} exists already", remedy="None is overwritten; choose another place."
                        )
                _make(path, layout)
        finally:
            os.close(lock)
        return cls(path, layout)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, its errors translated.

        Raises:
            LogStoreError, LogDamagedError: what SQLite says, or the file was closed.
        """
        with _told(self.path, self.layout):
            if self._connection is None:
                raise LogStoreError(f"{self.path} is closed")
            yield self._connection

    @contextlib.contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it is on disk when the block ends, or nothing of it happened.

        Args:
            durable: otherwise what was written outlives the process, and is on disk with the next durable
                transaction; a loss of power before that may undo it, whole.

        Raises:
            LogStoreError, LogDamagedError: what SQLite says; the file is as it was before. After an input or output
                error nobody can tell what the disk holds, so that the file is closed and has to be opened anew.
        """
        with self.reading() as connection:
            if durable is not self._durable:
                connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                if _code(error) == sqlite3.SQLITE_IOERR:
                    self.close()
                raise
            finally:
                if self._connection is not None and connection.in_transaction:
                    connection.execute("ROLLBACK")

    def one(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row of a query, if there is one."""
        with self.reading() as connection:
            row: tuple[Any, ...] | None = connection.execute(query, values).fetchone()
            return row

    def typed(self, kind: type[T], value: object) -> T:
        """A value of a row, which is of its column's type.

        Raises:
            LogDamagedError: it is of another type.
        """
        if type(value) is not kind:
            raise self.mistyped()
        return value

    def mistyped(self) -> LogDamagedError:
        """The error of a row that holds what no such file holds."""
        return LogDamagedError(f"{self.path} holds values of types that no {self.layout.what} holds")

    def close(self) -> None:
        """Close the file and give the lock back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _locked(path: Path, layout: Layout) -> int:
    # Beside the database and not on it: closing any descriptor of the database would drop SQLite's own locks.
    lock = path.with_name(path.name + ".lock")
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LogStoreError(f"cannot use {path}: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise LogStoreError(
            f"{path} is in use by another process",
            remedy=f"A {layout.what} has one writer; stop that process first.",
        ) from None
    return handle


def _make(path: Path, layout: Layout) -> None:
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)  # of a crash
    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(new, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")  # stays in the header
        connection.execute("BEGIN IMMEDIATE")
        for statement in layout.tables:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {layout.application_id}")
        connection.execute(f"PRAGMA user_version = {layout.version}")
        connection.execute("COMMIT")
    finally:
        connection.close()
    flush(new)
    new.rename(path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _options(path: Path, *, read_only: bool) -> str:
    if not read_only:
        return "mode=rw"
    # A copy on a medium that cannot be written has no write-ahead log, and SQLite cannot make one.
    alone = not path.with_name(path.name + "-wal").exists() and not os.access(path.parent, os.W_OK)
    return "mode=ro&immutable=1" if alone else "mode=ro"


def _connect(path: Path, layout: Layout, options: str) -> sqlite3.Connection:
    if not path.is_file():
        raise LogStoreError(f"there is no {layout.what} at {path}")
    address = f"file:{quote(str(path.absolute()))}?{options}"
    # a node answers in whatever thread its carrier has, one request at a time, which is all that SQLite asks for
    return sqlite3.connect(
        address, uri=True, isolation_level=None, timeout=_BUSY_TIMEOUT_S, check_same_thread=False
    )


def _require(connection: sqlite3.Connection, path: Path, layout: Layout) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != layout.application_id:
        raise LogStoreError(f"{path} is no {layout.what} of Hansa")
    if version != layout.version:
        raise LogStoreError(
            f"{path} is a {layout.what} of version {version}; this release reads version {layout.version}",
            remedy="Use the release that wrote it.",
        )
    _require_tables(connection, path, layout)


def _require_tables(connection: sqlite3.Connection, path: Path, layout: Layout) -> None:
    # A view in the place of a table may have no end, and a trigger of somebody else's do anything.
    wanted = _schema(layout)
    held = connection.execute(f"{_SCHEMA} LIMIT ?", (len(wanted) + 1,)).fetchall()
    lacking = wanted - set(held)
    if len(held) > len(wanted) - len(lacking) or any(kind != "trigger" for kind, *_ in lacking):
        raise LogDamagedError(f"{path} has other tables than a {layout.what}: it was edited, or made anew")


@cache
def _schema(layout: Layout) -> frozenset[tuple[str, ...]]:
    """What SQLite remembers of the statements of a layout."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for statement in layout.tables:
            connection.execute(statement)
        return frozenset(connection.execute(_SCHEMA).fetchall())


def _code(error: sqlite3.Error) -> int:
    """The primary result code; 0 for an error of the Python module itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


@contextlib.contextmanager
def _told(path: Path, layout: Layout) -> Iterator[None]:
    """Errors of SQLite and of the system as errors that a person can act on."""
    try:
        yield
    except sqlite3.Error as error:
        if _code(error) in _DAMAGED:
            raise LogDamagedError(f"{path} is damaged, or no {layout.what}: {error}") from None
        raise LogStoreError(f"cannot use {path}: {error}") from None
    except OSError as error:
        raise LogStoreError(f"cannot use {path}: {error.strerror}") from None
