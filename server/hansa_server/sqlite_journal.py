"""A journal in one SQLite file: on disk before anything is made of what an effect gave.

Effects give text, or messages by member. A message is kept as the bytes that came; large ones lie in files of their own
beside the database, so that reading one back does not bring the others into memory.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from hansa.canonical import sha256_hex
from hansa.errors import EngineError, WireError
from hansa.vectors import Mapped
from hansa.wire import Message, from_bytes, pieces, to_bytes

T = TypeVar("T")

_INLINE_BYTES = 64 * 1024
_TABLES = """
CREATE TABLE IF NOT EXISTS effects (key TEXT PRIMARY KEY, text TEXT) STRICT;
CREATE TABLE IF NOT EXISTS replies (
    key TEXT NOT NULL, member TEXT NOT NULL, place INTEGER NOT NULL, sha256 TEXT NOT NULL, file TEXT, data BLOB,
    PRIMARY KEY (key, member)
) STRICT;
"""


class SqliteJournal:
    """See `hansa_server.journal.Journal`; one process writes it at a time, which its caller sees to.

    Args:
        folder: of the run; made where it is not there.

    Raises:
        EngineError: the file cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "replies"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._database = sqlite3.connect(folder / "journal.sqlite", isolation_level=None)
            self._database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + _TABLES)
        except (OSError, sqlite3.Error) as error:
            raise _broken(folder, error) from None

    def once(self, key: str, effect: Callable[[], T]) -> T:
        """See `Journal.once`.

        Raises:
            EngineError: it cannot be read or written; nothing was kept.
        """
        try:
            row = self._database.execute("SELECT text FROM effects WHERE key = ?", (key,)).fetchone()
            if row is not None:
                kept: Any = row[0] if row[0] is not None else self._replies(key)
                return kept  # type: ignore[no-any-return]
        except sqlite3.Error as error:
            raise _broken(self._folder.parent, error) from None
        result = effect()
        try:
            self._keep(key, result)
        except (OSError, sqlite3.Error) as error:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise _broken(self._folder.parent, error) from None
        return result

    def close(self) -> None:
        """Give the file back."""
        self._database.close()

    def _keep(self, key: str, result: object) -> None:
        rows = list(self._rows(key, result)) if isinstance(result, Mapping) else []
        if not isinstance(result, str | Mapping):
            raise TypeError(f"a journal keeps text and messages, and {key} gave {type(result).__name__}")
        if any(row[4] is not None for row in rows):
            _flush(self._folder)
        self._database.execute("BEGIN IMMEDIATE")
        self._database.executemany("INSERT INTO replies VALUES (?, ?, ?, ?, ?, ?)", rows)
        text = result if isinstance(result, str) else None
        self._database.execute("INSERT INTO effects VALUES (?, ?)", (key, text))
        self._database.execute("COMMIT")

    def _rows(
        self, key: str, replies: Mapping[str, Message]
    ) -> Iterator[tuple[str, str, int, str, str | None, bytes | None]]:
        for place, (member, message) in enumerate(replies.items()):
            digest = sha256_hex(message.header)  # which binds the arrays, by hashes that are known already
            if message.payload_bytes <= _INLINE_BYTES:
                yield key, member, place, digest, None, to_bytes(message)
            else:
                self._write(message, digest)
                yield key, member, place, digest, digest, None

    def _write(self, message: Message, name: str) -> None:
        """A file of a message; written from the arrays' own memory, however large they are."""
        path = self._folder / "writing"
        with path.open("wb") as file:
            file.writelines(pieces(message))
            file.flush()
            os.fsync(file.fileno())
        path.replace(self._folder / name)

    def _replies(self, key: str) -> KeptReplies:
        return _kept(self._database, self._folder, key)


class KeptReplies(Mapping[str, Message]):
    """Replies as they lie on disk, each read when it is asked for.

    Raises, where one is asked for:
        EngineError: its file is gone, or is another.
    """

    def __init__(self, folder: Path, rows: Mapping[str, tuple[str, str | None, bytes | None]]) -> None:
        self._folder, self._rows = folder, rows

    def __getitem__(self, member: str) -> Message:
        digest, file, data = self._rows[member]
        found: bytes | memoryview
        try:
            found = data if data is not None else _mapped(self._folder / str(file))
        except OSError as error:
            raise _broken(self._folder.parent, error) from None
        except ValueError:  # an empty file
            found = b""
        with suppress(WireError):  # what was changed need not be a message any more
            message = from_bytes(found)
            if sha256_hex(message.header) == digest:
                return message
        raise EngineError(f"a reply that is kept in {self._folder.parent} has changed")

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


class JournalReader:
    """The replies that the journal of a run keeps, for whoever looks at it afterwards.

    Args:
        folder: of the run.

    Raises:
        EngineError: from this or from what is asked: there is no journal, or it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._database = sqlite3.connect(
                f"file:{quote(str(folder / 'journal.sqlite'))}?mode=ro", uri=True
            )
        except sqlite3.Error as error:
            raise _broken(folder, error) from None

    def keys(self, prefix: str) -> list[str]:
        """Of the effects whose keys start so, in the order in which they were kept."""
        try:
            keys = self._database.execute("SELECT key FROM effects ORDER BY rowid").fetchall()
        except sqlite3.Error as error:
            raise _broken(self._folder, error) from None
        return [key for (key,) in keys if key.startswith(prefix)]

    def replies(self, key: str) -> KeptReplies:
        """Of one effect."""
        try:
            return _kept(self._database, self._folder / "replies", key)
        except sqlite3.Error as error:
            raise _broken(self._folder, error) from None

    def close(self) -> None:
        """Give the file back."""
        self._database.close()


def _kept(database: sqlite3.Connection, folder: Path, key: str) -> KeptReplies:
    rows = database.execute(
        "SELECT member, sha256, file, data FROM replies WHERE key = ? ORDER BY place", (key,)
    ).fetchall()
    return KeptReplies(folder, {member: (digest, file, data) for member, digest, file, data in rows})


def _mapped(path: Path) -> memoryview:
    """A file that is read where it is looked at."""
    return memoryview(Mapped.at(path))


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _broken(folder: Path, error: OSError | sqlite3.Error) -> EngineError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return EngineError(
        f"the journal in {folder} cannot be used: {reason}",
        remedy="Make room on the disk or correct the permissions, then `hansa run resume`.",
    )


def journal_size(folder: Path) -> int:
    """How many effects the journal of a run keeps; 0 where there is none yet.

    Raises:
        EngineError: it is no journal any more.
    """
    path = folder / "journal.sqlite"
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database:
            (count,) = database.execute("SELECT count(*) FROM effects").fetchone()
    except sqlite3.OperationalError:  # it is being made
        return 0
    except sqlite3.Error as error:
        raise _broken(folder, error) from None
    return int(count)
