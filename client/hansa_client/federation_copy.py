"""A copy of the federation's log as a member gets it: a folder of tiles, a log's file, or the mirror of who follows it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from hansa.errors import UsageError
from hansa.following.mirror import STORE_NAME
from hansa.ledger import Checkpoint, LogView, SignedNote, SqliteLogStore, TileSource
from hansa.ledger.places import require_log_file, require_tiles


@dataclass(frozen=True)
class FederationCopy:
    """Entries and a checkpoint over them. Nothing of it is verified.

    Attributes:
        entries: the bytes of each.
        note: the checkpoint.
    """

    entries: tuple[bytes, ...]
    note: SignedNote


def read_copy(place: Path, line: str) -> FederationCopy:
    """Read a copy.

    Args:
        place: a folder of tiles, the file of a log, or the folder of a mirror.
        line: that the checkpoint should carry. A folder of tiles has one checkpoint alone; of a file's the newest with
            the line is taken, or the newest.

    Raises:
        UsageError: nothing is there, or something else.
        TilesError, LogStoreError, LogDamagedError: it is incomplete, or cannot be read.
        NoteFormatError: its checkpoint is none.
    """
    mirrored = place / STORE_NAME
    if mirrored.is_file():
        return _stored(mirrored, line)
    if place.is_file():
        return _stored(place, line)
    require_tiles(place)
    source = TileSource(place)
    return FederationCopy(tuple(source.read(0, source.size())), source.note)


def _stored(path: Path, line: str) -> FederationCopy:
    require_log_file(path)
    with closing(SqliteLogStore(path, read_only=True)) as store:
        view = LogView(store)
        notes = list(view.checkpoints())
        if not notes:
            raise UsageError(
                f"the log {path} has signed no checkpoint",
                remedy="Name a copy under the checkpoint with the line.",
            )
        note = next((one for one in notes if line in Checkpoint.parse(one.text).extensions), notes[0])
        return FederationCopy(tuple(view.entries(0, Checkpoint.parse(note.text).size)), note)
