"""Verifying a whole log from a copy: every entry is hashed and read anew, and every signature checked.

The copy is an `EntrySource`, a store or a folder of tiles; nothing that it says about itself is believed. Work is
linear in the number of entries and goes to as many processes as are given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from hansa.errors import HansaError
from hansa.ledger.checkpoint import Checkpoint
from hansa.ledger.errors import LogVerificationError
from hansa.ledger.membership import AmendmentMade
from hansa.ledger.signed import Keyring, SignedEntry
from hansa.ledger.store import SqliteLogStore
from hansa.merkle import HASH_BYTES, leaf_hash, tree_root

CHUNK = (
    1 << 14
)  # entries that one process takes at a time; a power of two, so that its root is a node of the tree
_AMENDMENT = b'"type":"amendment"'


class EntrySource(Protocol):
    """A copy of a log. It is sent to other processes, so that it names the copy and does not hold it open."""

    def size(self) -> int:
        """How many entries there are."""

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes of the entries [start, end), in order."""


@dataclass(frozen=True)
class StoredEntries:
    """The entries of a log in an SQLite file.

    Attributes:
        path: of the file; it is only read.
    """

    path: Path

    def size(self) -> int:
        """See `EntrySource.size`."""
        with closing(SqliteLogStore(self.path, read_only=True)) as store:
            return store.head().size

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """See `EntrySource.read`."""
        with closing(SqliteLogStore(self.path, read_only=True)) as store:
            for row in store.rows(start, end):
                yield row.data


@dataclass(frozen=True)
class GivenEntries:
    """Entries in memory.

    Attributes:
        entries: their bytes.
    """

    entries: Sequence[bytes]

    def size(self) -> int:
        """See `EntrySource.size`."""
        return len(self.entries)

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """See `EntrySource.read`."""
        return iter(self.entries[start:end])


@dataclass(frozen=True)
class VerifiedLog:
    """A log that is what its checkpoint says.

    Attributes:
        checkpoint: that it was compared with.
        entries: how many there are of each type.
        signatures: how many were checked.
    """

    checkpoint: Checkpoint
    entries: Mapping[str, int]
    signatures: int


class _Checked(NamedTuple):
    hashes: bytes
    types: Counter[str]
    signatures: int


def verify_log(
    source: EntrySource,
    checkpoint: Checkpoint,
    keys: Keyring | None = None,
    *,
    processes: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> VerifiedLog:
    """Check that a copy is the log of a checkpoint, and that all in it may stand there.

    Args:
        source: the copy; it may be longer than the checkpoint says.
        checkpoint: verified before, by `LogPolicy.verify`.
        keys: whose signatures count; without them signatures are read and not checked. Amendments in the log change
            them from there on.
        processes: how many cores to use.
        progress: told how many entries are done.

    Raises:
        LogVerificationError: entries are missing, edited, reordered, inserted, doubled, malformed, or signed by nobody
            who may; says which entry where one can be told.
    """
    size, held = checkpoint.size, source.size()
    if held < size:
        raise LogVerificationError(f"the copy has {held} entries, its checkpoint {size}")
    if keys is not None:
        keys = _with_amendments(source, size, keys)
    hashes, types, signatures = [], Counter[str](), 0
    for checked in _checked(source, size, keys, processes):
        hashes.append(checked.hashes)
        types += checked.types
        signatures += checked.signatures
        progress(sum(map(len, hashes)) // HASH_BYTES)
    roots = [tree_root(_split(part)) for part in hashes]
    if tree_root(roots) != checkpoint.root:
        raise LogVerificationError(
            f"the copy is not the log that {checkpoint.origin!r} signed at {size} entries"
        )
    _refuse_twins(b"".join(hashes))
    return VerifiedLog(checkpoint, dict(types), signatures)


def _checked(source: EntrySource, size: int, keys: Keyring | None, processes: int) -> Iterator[_Checked]:
    starts = range(0, size, CHUNK)
    tasks = ((source, start, min(start + CHUNK, size), keys) for start in starts)
    if processes == 1 or len(starts) < 2:
        yield from map(_check, tasks)
        return
    try:
        # Not forked: the caller may have threads, whose locks a fork would copy.
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            yield from pool.map(_check, tasks)
    except BrokenProcessPool:
        raise LogVerificationError(
            "a process that verified entries ended; nothing is known of the log"
        ) from None


def _check(task: tuple[EntrySource, int, int, Keyring | None]) -> _Checked:
    source, start, end, keys = task
    hashes, types, signatures = [], Counter[str](), 0
    for index, data in enumerate(source.read(start, end), start):
        hashes.append(leaf_hash(data))
        signed = _readable(data, index)
        types[signed.entry.type] += 1
        if keys is not None:
            _told(index, keys, signed)
            signatures += len(signed.statements)
    if len(hashes) != end - start:
        raise LogVerificationError(f"the copy ends after entry {start + len(hashes) - 1}")
    return _Checked(b"".join(hashes), types, signatures)


def _readable(data: bytes, index: int) -> SignedEntry:
    try:
        return SignedEntry.parse(data)
    except HansaError as error:
        raise LogVerificationError(f"entry {index}: {error.cause}") from None


def _told(index: int, keys: Keyring, signed: SignedEntry) -> None:
    try:
        keys.verify(signed, index)
    except HansaError as error:
        raise LogVerificationError(f"entry {index}: {error.cause}") from None


def _with_amendments(source: EntrySource, size: int, keys: Keyring) -> Keyring:
    # Quotes inside JSON strings are escaped, so that no text of an entry can look like this member.
    for index, data in enumerate(source.read(0, size)):
        if _AMENDMENT in data:
            entry = _readable(data, index).entry
            if isinstance(entry, AmendmentMade):
                try:
                    keys = keys.amended(entry, index)
                except HansaError as error:
                    raise LogVerificationError(f"entry {index}: {error.cause}") from None
    return keys


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[place : place + HASH_BYTES] for place in range(0, len(hashes), HASH_BYTES)]


def _refuse_twins(hashes: bytes) -> None:
    """No entry stands in a log twice: a spend that was copied would look like two."""
    beginnings = np.frombuffer(hashes, dtype="<u8")[:: HASH_BYTES // 8]
    order = np.argsort(beginnings, kind="stable")
    same = np.flatnonzero(beginnings[order][1:] == beginnings[order][:-1])
    suspects: Iterable[int] = sorted({int(order[i + step]) for i in same for step in (0, 1)})
    found = sorted((hashes[i * HASH_BYTES : (i + 1) * HASH_BYTES], i) for i in suspects)
    for (one, first), (other, second) in pairwise(found):
        if one == other:
            raise LogVerificationError(f"entry {second} is entry {first} again")
