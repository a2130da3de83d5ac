"""What an audit reads: copies of logs, checkpoints that somebody kept, records of rounds.

Nothing that a copy says about itself is believed here or later. A copy also shows its entries *as they lie there*, with
the hashes that are stored beside them, so that what was changed in it can be named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from hansa.audit.errors import AuditSourceError
from hansa.audit.findings import RECORDS
from hansa.errors import HansaError
from hansa.ledger.database import Database
from hansa.ledger.errors import (
    CopyUnreadableError,
    LogDamagedError,
    LogStoreError,
    NoteFormatError,
    TilesError,
)
from hansa.ledger.note import MAX_NOTE_BYTES, SignedNote
from hansa.ledger.store import LOG_LAYOUT, Row, SqliteLogStore
from hansa.ledger.tiles import (
    CHECKPOINT_NAME,
    TILES_NAME,
    WIDTH,
    HashTile,
    TileSource,
    bundle_path,
    split_bundle,
    tile_path,
)
from hansa.ledger.trust import KEYS_NAME
from hansa.ledger.verify import EntrySource, GivenEntries, StoredEntries
from hansa.ledger.witness import WITNESS_LAYOUT
from hansa.merkle import HASH_BYTES

_SQLITE = b"SQLite format 3\x00"
_APPLICATION_ID = slice(68, 72)  # in the header of an SQLite file
_ALL = 1 << 62
_DEPTH = 3  # of folders below one that is named
_KEPT = ".checkpoint"  # how files with one kept checkpoint are called in folders


class LogCopy(Protocol):
    """A copy of a log."""

    @property
    def place(self) -> str:
        """Where it lies, for people."""

    @property
    def entries(self) -> EntrySource:
        """Its entries, for `hansa.ledger.verify_log`."""

    def notes(self) -> Sequence[SignedNote]:
        """The checkpoints in it.

        Raises:
            HansaError: there are none, or they cannot be read.
        """

    def lying(self) -> Iterator[bytes]:
        """The entries that are there, from the first to the last that is whole.

        Raises:
            CopyUnreadableError: the machine cannot read what is there.
        """

    def stored(self) -> Iterator[bytes]:
        """The hashes of entries that the copy holds beside them, as far as it has any.

        Raises:
            CopyUnreadableError: the machine cannot read what is there.
        """

    def tiles(self) -> Iterator[HashTile]:
        """The tiles of hashes of a copy that has any, for others to serve and read.

        Raises:
            CopyUnreadableError: the machine cannot read what is there.
        """


@dataclass(frozen=True)
class TileCopy:
    """A folder of tiles."""

    folder: Path

    @property
    def place(self) -> str:
        """See `LogCopy.place`."""
        return str(self.folder)

    @property
    def entries(self) -> TileSource:
        """See `LogCopy.entries`."""
        return TileSource(self.folder)

    def notes(self) -> Sequence[SignedNote]:
        """See `LogCopy.notes`."""
        return (self.entries.note,)

    def lying(self) -> Iterator[bytes]:
        """See `LogCopy.lying`."""
        for index, width in self._bundles():
            try:
                bundle = self.entries.wide(bundle_path(index, width), bundle_path(index))
            except TilesError:
                return
            entries = split_bundle(bundle)[0][:width]
            yield from entries
            if len(entries) < width:
                return

    def stored(self) -> Iterator[bytes]:
        """See `LogCopy.stored`."""
        for index, width in self._bundles():
            try:
                tile = self.entries.wide(tile_path(0, index, width), tile_path(0, index))
            except TilesError:
                return
            for place in range(0, width * HASH_BYTES, HASH_BYTES):
                yield tile[place : place + HASH_BYTES]

    def tiles(self) -> Iterator[HashTile]:
        """See `LogCopy.tiles`."""
        return self.entries.tiles()

    def _bundles(self) -> Iterator[tuple[int, int]]:
        """Index and width of each bundle that the checkpoint speaks of."""
        try:
            size = self.entries.size()
        except CopyUnreadableError:
            raise
        except HansaError:
            return
        for index in range(-(-size // WIDTH)):
            yield index, min(WIDTH, size - index * WIDTH)


@dataclass(frozen=True)
class StoreCopy:
    """A log in an SQLite file."""

    path: Path

    @property
    def place(self) -> str:
        """See `LogCopy.place`."""
        return str(self.path)

    @property
    def entries(self) -> StoredEntries:
        """See `LogCopy.entries`."""
        return StoredEntries(self.path)

    def notes(self) -> Sequence[SignedNote]:
        """See `LogCopy.notes`."""
        with closing(SqliteLogStore(self.path, read_only=True)) as store:
            found = tuple(store.checkpoints())
        if not found:
            raise LogStoreError(f"the log {self.path} has signed no checkpoint")
        return found

    def lying(self) -> Iterator[bytes]:
        """See `LogCopy.lying`."""
        return (row.data for row in self._rows())

    def stored(self) -> Iterator[bytes]:
        """See `LogCopy.stored`."""
        return (row.hashes[:HASH_BYTES] for row in self._rows())

    def tiles(self) -> Iterator[HashTile]:
        """See `LogCopy.tiles`."""
        return iter(())

    def _rows(self) -> Iterator[Row]:
        try:
            with closing(SqliteLogStore(self.path, read_only=True)) as store:
                yield from store.rows(0, _ALL)
        except (LogDamagedError, LogStoreError):  # behind the last row, or at the first that is damaged
            return


@dataclass(frozen=True)
class GivenCopy:
    """A copy in memory, as a member holds its mirror.

    Attributes:
        place: where it is said to lie.
        given: its entries.
        checkpoints: at least one.
    """

    place: str
    given: tuple[bytes, ...]
    checkpoints: tuple[SignedNote, ...]

    @property
    def entries(self) -> GivenEntries:
        """See `LogCopy.entries`."""
        return GivenEntries(self.given)

    def notes(self) -> Sequence[SignedNote]:
        """See `LogCopy.notes`."""
        if not self.checkpoints:
            raise NoteFormatError(f"{self.place} has no checkpoint")
        return self.checkpoints

    def lying(self) -> Iterator[bytes]:
        """See `LogCopy.lying`."""
        return iter(self.given)

    def stored(self) -> Iterator[bytes]:
        """See `LogCopy.stored`."""
        return iter(())

    def tiles(self) -> Iterator[HashTile]:
        """See `LogCopy.tiles`."""
        return iter(())


class RecordSource(Protocol):
    """The records of rounds, one JSON a line."""

    def lines(self) -> Iterator[bytes]:
        """Each line without its line break.

        Raises:
            CopyUnreadableError: the machine cannot read them.
        """


@dataclass(frozen=True)
class RecordFile:
    """A ``rounds.jsonl``."""

    path: Path

    def lines(self) -> Iterator[bytes]:
        """See `RecordSource.lines`."""
        try:
            with self.path.open("rb") as stream:
                for line in stream:
                    yield line.removesuffix(b"\n")
        except OSError as error:
            raise CopyUnreadableError(f"cannot read {self.path}: {error.strerror}") from None


@dataclass(frozen=True)
class GivenRecords:
    """Records in memory."""

    given: tuple[bytes, ...]

    def lines(self) -> Iterator[bytes]:
        """See `RecordSource.lines`."""
        return iter(self.given)


class Kept(NamedTuple):
    """A checkpoint that somebody kept.

    Attributes:
        place: by whom, or where it lies.
        note: as the log signed it.
    """

    place: str
    note: SignedNote


@dataclass(frozen=True)
class Sources:
    """Everything that an audit reads.

    Attributes:
        copies: of logs, several of one log among them.
        records: of the rounds, where they were given.
        kept: checkpoints from elsewhere, for example of witnesses.
    """

    copies: tuple[LogCopy, ...]
    records: RecordSource | None = None
    kept: tuple[Kept, ...] = ()


@dataclass
class _Found:
    copies: list[LogCopy] = field(default_factory=list)
    records: list[Path] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)


def read_sources(paths: Sequence[Path]) -> Sources:
    """Find out what lies at each place.

    Args:
        paths: folders of tiles, SQLite files of logs and of witnesses, files with one checkpoint each, a
            ``rounds.jsonl``, or folders that hold such things.

    Raises:
        AuditSourceError: something is none of these, or cannot be read; or no log is among them.
    """
    found = _Found()
    for path in paths:
        _sort(path, found)
    if not found.copies:
        raise AuditSourceError("there is no copy of a log in what was given")
    if len(found.records) > 1:
        raise AuditSourceError(
            f"{found.records[0]} and {found.records[1]} are both records of rounds: which ones?",
            remedy="Audit the logs of one federation at a time, with its own records and no others.",
        )
    records = RecordFile(found.records[0]) if found.records else None
    return Sources(tuple(found.copies), records, tuple(found.kept))


def keys_beside(paths: Sequence[Path]) -> Path | None:
    """The keys that lie in the one folder that was named; whoever made the logs may have made them too."""
    if len(paths) == 1 and (paths[0] / KEYS_NAME).is_file():
        return paths[0] / KEYS_NAME
    return None


def _sort(path: Path, found: _Found) -> None:
    try:
        if path.is_dir():
            before = len(found.copies) + len(found.records) + len(found.kept)
            _search(path, found, _DEPTH)
            if len(found.copies) + len(found.records) + len(found.kept) == before:
                raise AuditSourceError(f"there is no log and no {_KEPT} in the folder {path}")
        elif path.suffix == ".jsonl":
            _sort_records(path, found)
        else:
            _sort_file(path, found)
    except OSError as error:
        raise AuditSourceError(f"cannot read {error.filename or path}: {error.strerror}") from None


def _search(folder: Path, found: _Found, depth: int) -> None:
    if (folder / CHECKPOINT_NAME).is_file():
        found.copies.append(TileCopy(folder))
        return
    if (folder / TILES_NAME).is_dir():
        raise AuditSourceError(
            f"{folder} holds tiles and no {CHECKPOINT_NAME}, so that nothing says which log they are of",
            remedy="Ask for that copy again, with all of its files, or name the others without it.",
        )
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if depth:
                _search(path, found, depth - 1)
        elif path.suffix in {".sqlite", _KEPT}:
            _sort_file(path, found)
        elif path.name == RECORDS:
            _sort_records(path, found)


def _sort_records(path: Path, found: _Found) -> None:
    path.open("rb").close()  # what cannot be read is told before anything is checked
    found.records.append(path)


def _sort_file(path: Path, found: _Found) -> None:
    with path.open("rb") as stream:
        head = stream.read(MAX_NOTE_BYTES + 1)
    application = int.from_bytes(head[_APPLICATION_ID], "big") if head.startswith(_SQLITE) else None
    if application == LOG_LAYOUT.application_id:
        found.copies.append(StoreCopy(path))
    elif application == WITNESS_LAYOUT.application_id:
        found.kept += _witnessed(path)
    elif application is None:
        try:
            found.kept.append(Kept(str(path), SignedNote.parse(head)))
        except NoteFormatError:
            raise AuditSourceError(f"{path} is no log, no checkpoint and no {RECORDS}") from None
    else:
        raise AuditSourceError(f"{path} is a database of another program")


def _witnessed(path: Path) -> list[Kept]:
    """Every checkpoint that a witness has cosigned, and those with which a log was caught."""
    try:
        with (
            closing(Database(path, WITNESS_LAYOUT, read_only=True)) as memory,
            memory.reading() as connection,
        ):
            rows = connection.execute(
                "SELECT note FROM seen UNION SELECT known FROM forks UNION SELECT shown FROM forks"
            ).fetchall()
        return [Kept(str(path), SignedNote.parse(memory.typed(str, note))) for (note,) in rows]
    except HansaError as error:
        raise AuditSourceError(f"{path} cannot be read as a witness' memory: {error.cause}") from None
