"""Logs that a ledger service shows: where they lie, and reading them from many threads at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

from hansa.errors import UsageError
from hansa.ledger import (
    Checkpoint,
    LogPolicy,
    LogView,
    MemoryLogStore,
    SqliteLogStore,
    TileSource,
    TrustedKeys,
)
from hansa.ledger.errors import LogDamagedError, NoteFormatError, NoteSignatureError
from hansa.ledger.places import require_log_file, require_tiles
from hansa.ledger.store import Head, Row
from hansa.ledger.tiles import CHECKPOINT_NAME
from hansa.merkle import EMPTY_ROOT, Frontier, leaf_hash


class ServedLog(Protocol):
    """One log."""

    @property
    def origin(self) -> str:
        """Its name."""

    def reading(self) -> AbstractContextManager[LogView]:
        """A view for one thread."""


class StoredLog:
    """A log in an SQLite file, read beside its writer; each reader has a connection of its own.

    Args:
        path: of the file.

    Raises:
        LogStoreError: it is no log.
        UsageError: it has signed no checkpoint, so that it has no name yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self.reading() as view:
            self.origin = _origin(view, path)

    @contextmanager
    def reading(self) -> Iterator[LogView]:
        """See `ServedLog.reading`."""
        with closing(SqliteLogStore(self._path, read_only=True)) as store:
            yield LogView(store)


class HeldLog:
    """A log in memory, or one that is written in this process by a store that many threads may read.

    Args:
        view: of it.
        origin: its name.
    """

    def __init__(self, view: LogView, origin: str) -> None:
        self._view, self.origin = view, origin

    def reading(self) -> AbstractContextManager[LogView]:
        """See `ServedLog.reading`."""
        return nullcontext(self._view)


def served_logs(paths: Sequence[Path]) -> tuple[ServedLog, ...]:
    """The logs at these places: SQLite files, or folders of tiles as they are now.

    Raises:
        UsageError: something is no log, or two are the same.
        LogStoreError, LogDamagedError, TilesError: one is damaged, or cannot be used.
    """
    for path in paths:
        (require_tiles if path.is_dir() else require_log_file)(path)
    logs = tuple(_tiles(path) if path.is_dir() else StoredLog(path) for path in paths)
    origins = [log.origin for log in logs]
    for origin in origins:
        if origins.count(origin) > 1:
            raise UsageError(f"the log {origin!r} is named twice", remedy="Name each log once.")
    return logs


def require_named(logs: Iterable[ServedLog], keys: TrustedKeys) -> None:
    """See that logs are those of a federation, so that nobody's logs are shown to the members of another.

    Args:
        logs: to be served.
        keys: of the federation.

    Raises:
        UsageError: a log is not named by the keys, or is signed by another key than they name.
    """
    federation = keys.federation.log
    own = {federation.name: federation, **{policy.log.name: policy.log for policy in keys.own_logs.values()}}
    for log in logs:
        remedy = "Are these the keys of this federation? Name its own keys.json, or its own logs."
        if log.origin not in own:
            raise UsageError(f"the keys name no log {log.origin!r}", remedy=remedy)
        with log.reading() as view:
            note = view.last_checkpoint()
        try:
            LogPolicy(own[log.origin]).verify("" if note is None else note)
        except (NoteFormatError, NoteSignatureError) as error:
            raise UsageError(
                f"the log {log.origin!r} is not signed by the key that the keys name for it: {error.cause}",
                remedy=remedy,
            ) from None


def _tiles(folder: Path) -> HeldLog:
    source = TileSource(folder)
    note = source.note
    checkpoint = Checkpoint.parse(note.text)
    store, frontier = MemoryLogStore(), Frontier()
    rows = list(_rows(source.read(0, checkpoint.size), frontier))
    if frontier.root != checkpoint.root:
        raise LogDamagedError(f"the entries in {folder} are not those of its {CHECKPOINT_NAME}")
    if rows:
        store.append(Head(0, EMPTY_ROOT), rows, frontier.root)
    first = next((one for one in note.signatures if one.name == checkpoint.origin), None)
    if first is None:
        raise LogDamagedError(f"the {CHECKPOINT_NAME} in {folder} is not signed by its log")
    store.add_checkpoint(note.text, first)
    store.add_cosignatures(note.text, [one for one in note.signatures if one is not first])
    return HeldLog(LogView(store), checkpoint.origin)


def _rows(entries: Iterable[bytes], frontier: Frontier) -> Iterator[Row]:
    for data in entries:
        yield Row(b"".join(frontier.append(leaf_hash(data))), data)


def _origin(view: LogView, path: Path) -> str:
    note = view.last_checkpoint()
    if note is None:
        raise UsageError(
            f"the log {path} has signed no checkpoint yet", remedy="Serve it once its writer has signed one."
        )
    return Checkpoint.parse(note.text).origin
