"""A log as a folder of files (c2sp.org/tlog-tiles): hash tiles, entry bundles, and the checkpoint over them.

Anybody can copy or serve the folder, and read it with any reader of that format. Full tiles never change; partial
ones belong to a size for which there was a checkpoint. The checkpoint is written last, so that a folder whose export
was cut off is the folder of the checkpoint before.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from hansa.ledger.checkpoint import Checkpoint, LogPolicy, VerifiedCheckpoint
from hansa.ledger.database import flush
from hansa.ledger.errors import CopyUnreadableError, TilesError
from hansa.ledger.log import LogView
from hansa.ledger.note import SignedNote
from hansa.merkle import (
    HASH_BYTES,
    leaf_hash,
    prove_consistency,
    prove_inclusion,
    subtree_root,
    tree_root,
)

WIDTH = 256  # hashes in a full tile, entries in a full bundle
_HEIGHT = 8  # WIDTH == 2**_HEIGHT
_CACHED_TILES = 4096  # 8 KiB each
CHECKPOINT_NAME, TILES_NAME = "checkpoint", "tile"


def tile_path(level: int, index: int, width: int = WIDTH) -> str:
    """Where a tile lies, for example ``tile/1/x001/x234/067`` or ``tile/0/273.p/112``."""
    return f"tile/{level}/{_numbered(index, width)}"


def bundle_path(index: int, width: int = WIDTH) -> str:
    """Where a bundle of entries lies, for example ``tile/entries/x001/067``."""
    return f"tile/entries/{_numbered(index, width)}"


def write_bundle(entries: Iterable[bytes]) -> bytes:
    """Entries one after the other, each behind its length in two bytes, big-endian."""
    return b"".join(len(data).to_bytes(2, "big") + data for data in entries)


def read_bundle(bundle: bytes) -> list[bytes]:
    """The entries of a bundle.

    Raises:
        TilesError: it is cut short.
    """
    entries, whole = split_bundle(bundle)
    if not whole:
        raise TilesError("a bundle of entries is cut short")
    return entries


def split_bundle(bundle: bytes) -> tuple[list[bytes], bool]:
    """The entries that a bundle holds as a whole, and whether nothing is left of it."""
    entries: list[bytes] = []
    place = 0
    while place < len(bundle):
        start = place + 2
        end = start + int.from_bytes(bundle[place:start], "big")
        if end > len(bundle):
            return entries, False
        entries.append(bundle[start:end])
        place = end
    return entries, True


def export_tiles(log: LogView, note: SignedNote, folder: Path) -> int:
    """Write what a folder lacks of a log at one of its checkpoints; on disk before return.

    Args:
        log: the whole log.
        note: the checkpoint; it is trusted to be the log's own.
        folder: new, or exported to before.

    Returns:
        How many files were written.

    Raises:
        TilesError: the folder holds another log, or a longer one; nothing was written.
        LogDamagedError: the log is not that of the checkpoint.
    """
    goal = Checkpoint.parse(note.text)
    done = _exported(log, goal, folder)
    if log.root_at(goal.size) != goal.root:
        raise TilesError(f"the log is not that of its checkpoint at {goal.size} entries")
    written, folders = 0, {folder}
    for path, data in _files(log, done, goal.size):
        folders |= _write(folder / path, data, folder)
        written += 1
    for place in sorted(folders, reverse=True):
        flush(place)
    _write(folder / CHECKPOINT_NAME, note.encoded.encode(), folder)
    flush(folder)
    return written + 1


def _exported(log: LogView, goal: Checkpoint, folder: Path) -> int:
    """How many entries the folder has already."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CHECKPOINT_NAME
    if not path.exists():
        return 0
    known = Checkpoint.parse(SignedNote.parse(path.read_bytes()).text)
    if known.origin != goal.origin or known.size > goal.size or log.root_at(known.size) != known.root:
        raise TilesError(f"{folder} holds another log than {goal.origin!r}, or a longer one")
    return known.size


def _files(log: LogView, done: int, size: int) -> Iterator[tuple[str, bytes]]:
    for index in range(done // WIDTH, -(-size // WIDTH)):
        start, end = index * WIDTH, min((index + 1) * WIDTH, size)
        entries = list(log.entries(start, end))
        yield bundle_path(index, end - start), write_bundle(entries)
        yield tile_path(0, index, end - start), b"".join(map(leaf_hash, entries))
    level = 1
    while size >> _HEIGHT * level:
        held, wanted = done >> _HEIGHT * level, size >> _HEIGHT * level
        for index in range(held // WIDTH, -(-wanted // WIDTH)):
            numbers = range(index * WIDTH, min((index + 1) * WIDTH, wanted))
            yield (
                tile_path(level, index, len(numbers)),
                b"".join(log.node(_HEIGHT * level, number) for number in numbers),
            )
        level += 1


def _write(path: Path, data: bytes, top: Path) -> set[Path]:
    """Replace a file as a whole; the folders whose names are still to be brought to disk."""
    new = path.with_name(path.name + ".new")
    path.parent.mkdir(parents=True, exist_ok=True)
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    return {parent for parent in path.parents if parent.is_relative_to(top)}


def _numbered(index: int, width: int) -> str:
    groups = [f"{index % 1000:03d}"]
    while index := index // 1000:
        groups.append(f"x{index % 1000:03d}")
    name = "/".join(reversed(groups))
    return name if width == WIDTH else f"{name}.p/{width}"


class HashTile(NamedTuple):
    """A tile of hashes as it lies there.

    Attributes:
        path: in its folder.
        level: of the tree, that its hashes are of.
        first: index of its first hash on that level.
        width: how many hashes a checkpoint speaks of.
        data: its bytes, of which a later export may have added some; `None` where it is missing.
    """

    path: str
    level: int
    first: int
    width: int
    data: bytes | None

    def wrong(self, expected: bytes) -> int | None:
        """The place in the tile of the first hash that is not the expected one, or is cut; `None` if all are right."""
        data = self.data or b""
        if len(data) in {len(expected), WIDTH * HASH_BYTES} and data.startswith(expected):
            return None
        places = range(0, len(expected), HASH_BYTES)
        different = (p for p in places if data[p : p + HASH_BYTES] != expected[p : p + HASH_BYTES])
        return next(different, len(expected) - HASH_BYTES) // HASH_BYTES


class TileSource:
    """The entries of a folder as they lie there, for `hansa.ledger.verify`; nothing is verified here.

    Args:
        folder: what `export_tiles` wrote, or any folder of that format.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def note(self) -> SignedNote:
        """The folder's checkpoint.

        Raises:
            TilesError: there is none.
            CopyUnreadableError: it is there, and the machine cannot read it.
            NoteFormatError: it is no note.
        """
        return SignedNote.parse(self._bytes(CHECKPOINT_NAME))

    def size(self) -> int:
        """How many entries the checkpoint speaks of."""
        return Checkpoint.parse(self.note.text).size

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """The entries [start, end).

        Raises:
            TilesError: a bundle is missing, or has not as many as it should.
            CopyUnreadableError: a bundle is there, and the machine cannot read it.
        """
        size = self.size()
        for index in range(start // WIDTH, -(-end // WIDTH)):
            first, width = index * WIDTH, min(WIDTH, size - index * WIDTH)
            entries = read_bundle(self.wide(bundle_path(index, width), bundle_path(index)))[:width]
            if len(entries) != width:
                raise TilesError(f"bundle {index} has {len(entries)} entries, not {width}")
            yield from entries[max(start - first, 0) : end - first]

    def tiles(self) -> Iterator[HashTile]:
        """Every tile of hashes that the checkpoint speaks of, lowest level first.

        Raises:
            CopyUnreadableError: a tile is there, and the machine cannot read it.
        """
        size, level = self.size(), 0
        while count := size >> _HEIGHT * level:
            for index in range(-(-count // WIDTH)):
                width = min(WIDTH, count - index * WIDTH)
                path = tile_path(level, index, width)
                try:
                    data = self.wide(path, tile_path(level, index))
                except TilesError:
                    data = None
                yield HashTile(path, _HEIGHT * level, index * WIDTH, width, data)
            level += 1

    def wide(self, path: str, full: str) -> bytes:
        """A partial file, or the full one where the partial was removed since."""
        try:
            return self._bytes(path)
        except TilesError:
            if path == full:
                raise
            return self._bytes(full)

    def _bytes(self, path: str) -> bytes:
        try:
            return (self._folder / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise TilesError(f"{self._folder} has no file {path}") from None
        except OSError as error:
            raise CopyUnreadableError(f"cannot read {self._folder / path}: {error.strerror}") from None


class TileLog:
    """A folder of tiles, read and verified: what it returns hangs from a checkpoint that the policy accepts.

    Args:
        folder: what `export_tiles` wrote, or any folder of that format.
        policy: whose word counts.

    Raises:
        TilesError: files are missing, or their hashes do not lead to the checkpoint's root.
        CopyUnreadableError: files are there, and the machine cannot read them.
        NoteFormatError, NoteSignatureError, CosignatureQuorumError: see `LogPolicy.verify`.
    """

    def __init__(self, folder: Path, policy: LogPolicy) -> None:
        self._source = TileSource(folder)
        self.seen: VerifiedCheckpoint = policy.verify(self._source.note)
        self.checkpoint = self.seen.checkpoint
        # The partial tiles are the right edge of the tree: the root covers each of their hashes.
        self._edge = {level: self._tile(level, self._count(level) // WIDTH) for level in range(_HEIGHT)}
        if subtree_root(0, self.checkpoint.size, self.node) != self.checkpoint.root:
            raise TilesError("the tiles do not lead to the root of their checkpoint")
        self._full = lru_cache(maxsize=_CACHED_TILES)(self._verified)

    def node(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree."""
        tile, height = divmod(level, _HEIGHT)
        first = index << height
        hashes = self._hashes(tile, first // WIDTH)
        return tree_root(hashes[first % WIDTH : first % WIDTH + (1 << height)])

    def entries(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The entries [start, end), each with the hash that the root covers.

        Raises:
            TilesError: a file is missing, or an entry is not the one that was logged.
        """
        end = self.checkpoint.size if end is None else end
        if not 0 <= start <= end <= self.checkpoint.size:
            raise TilesError(f"there are no entries from {start} to {end}")
        for index, data in enumerate(self._source.read(start, end), start):
            if leaf_hash(data) != self._hashes(0, index // WIDTH)[index % WIDTH]:
                raise TilesError(f"entry {index} is not the one that was logged")
            yield data

    def prove_inclusion(self, index: int) -> list[bytes]:
        """That an entry stands at its place in the log of the checkpoint."""
        return prove_inclusion(index, self.checkpoint.size, self.node)

    def prove_consistency(self, size1: int) -> list[bytes]:
        """That a shorter log is the beginning of that of the checkpoint."""
        return prove_consistency(size1, self.checkpoint.size, self.node)

    def _count(self, level: int) -> int:
        return self.checkpoint.size >> _HEIGHT * level

    def _hashes(self, level: int, index: int) -> list[bytes]:
        edge = self._count(level) // WIDTH
        return self._edge[level] if index == edge else self._full(level, index)

    def _tile(self, level: int, index: int) -> list[bytes]:
        width = min(self._count(level) - index * WIDTH, WIDTH)
        if width <= 0:
            return []
        data = self._source.wide(tile_path(level, index, width), tile_path(level, index))
        if len(data) % HASH_BYTES or not width * HASH_BYTES <= len(data) <= WIDTH * HASH_BYTES:
            raise TilesError(f"tile {index} of level {level} has {len(data)} bytes, not {width} hashes")
        return [data[i * HASH_BYTES : (i + 1) * HASH_BYTES] for i in range(width)]

    def _verified(self, level: int, index: int) -> list[bytes]:
        """A full tile, compared with the hash of it one level up."""
        hashes = self._tile(level, index)
        if tree_root(hashes) != self._hashes(level + 1, index // WIDTH)[index % WIDTH]:
            raise TilesError(f"tile {index} of level {level} is not the one that was logged")
        return hashes
