"""A log: entries that are only ever added, and proofs about them at any size it has had."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from hansa.ledger.checkpoint import Checkpoint
from hansa.ledger.errors import EntryError, LogDamagedError, LogStoreError
from hansa.ledger.note import NoteSignature, NoteSigner, SignatureType, SignedNote, VerifierKey
from hansa.ledger.proof import TlogProof
from hansa.ledger.store import Head, LogStore, Row
from hansa.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    Frontier,
    leaf_hash,
    prove_consistency,
    prove_inclusion,
    subtree_root,
)

MAX_ENTRY_BYTES = 65_535  # tlog-tiles gives the length of an entry two bytes


class LogView:
    """Reading a log.

    Args:
        store: where it lies.
    """

    def __init__(self, store: LogStore) -> None:
        self._store = store

    @property
    def size(self) -> int:
        """How many entries there are."""
        return self._store.head().size

    @property
    def root(self) -> bytes:
        """The root over all of them."""
        return self._store.head().root

    def root_at(self, size: int) -> bytes:
        """The root over the first `size` entries.

        Raises:
            LogStoreError: the log is shorter.
        """
        self._require(size)
        return subtree_root(0, size, self._store.node)

    def node(self, level: int, index: int) -> bytes:
        """The hash of the complete subtree over the entries [index, index + 1) << level.

        Raises:
            LogDamagedError: there is no such subtree.
        """
        return self._store.node(level, index)

    def entry(self, index: int) -> bytes:
        """The bytes of one entry.

        Raises:
            LogStoreError: the log is shorter.
            LogDamagedError: the bytes are not those that were logged.
        """
        return next(self.entries(index, index + 1))

    def entries(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes of the entries [start, end), in order; see `entry`."""
        end = self.size if end is None else end
        self._require(end)
        if not 0 <= start <= end:
            raise LogStoreError(f"there are no entries from {start} to {end}")
        for index, row in enumerate(self._store.rows(start, end), start):
            if row.hashes[:HASH_BYTES] != leaf_hash(row.data):
                raise LogDamagedError(f"entry {index} of the log has been changed")
            yield row.data

    def prove_inclusion(self, index: int, size: int) -> list[bytes]:
        """That an entry stands at its place in the log of `size` entries.

        Raises:
            LogStoreError: the log is shorter.
            ProofError: there is no such entry.
        """
        self._require(size)
        return prove_inclusion(index, size, self._store.node)

    def prove_consistency(self, size1: int, size2: int) -> list[bytes]:
        """That the log of `size1` entries is the beginning of the log of `size2`.

        Raises:
            LogStoreError: the log is shorter.
            ProofError: `size1` is 0 or above `size2`.
        """
        self._require(size2)
        return prove_consistency(size1, size2, self._store.node)

    def proof(self, index: int, note: SignedNote, extra: bytes | None = None) -> TlogProof:
        """The offline proof of one entry under a checkpoint of this log."""
        path = self.prove_inclusion(index, Checkpoint.parse(note.text).size)
        return TlogProof(index, tuple(path), note, extra)

    def checkpoints(self) -> Iterator[SignedNote]:
        """All checkpoints that were signed, newest first, each with the newest cosignature of every witness."""
        return self._store.checkpoints()

    def last_checkpoint(self) -> SignedNote | None:
        """The newest checkpoint that was signed, if any was."""
        return next(iter(self._store.checkpoints()), None)

    def check(self) -> Head:
        """Hash every entry anew and compare with every hash that is stored: O(n).

        Raises:
            LogDamagedError: entry and hashes differ; says where.
        """
        head, frontier = self._store.head(), Frontier()
        for index, row in enumerate(self._store.rows(0, head.size)):
            if b"".join(frontier.append(leaf_hash(row.data))) != row.hashes:
                raise LogDamagedError(f"entry {index} of the log, or a hash beside it, has been changed")
        if frontier.root != head.root:
            raise LogDamagedError("the log has another root than its head says")
        return head

    def _require(self, size: int) -> None:
        held = self.size
        if size > held:
            raise LogStoreError(f"the log has {held} entries, not {size}")


class Log(LogView):
    """Writing a log. One object writes a store; what it returns is durable.

    Args:
        store: where it lies.
        signer: signs checkpoints; its name is the log's origin.

    Raises:
        LogDamagedError: the head of the store, its last checkpoint and its rows do not belong together. The check
            is O(log n); `LogView.check` and `hansa.ledger.verify` look at every entry.
        LogStoreError: it is the store of another log.
    """

    def __init__(self, store: LogStore, signer: NoteSigner) -> None:
        super().__init__(store)
        if signer.key.kind is not SignatureType.LOG:
            raise LogStoreError("a log signs with a log's key")
        self._signer = signer
        self._frontier = self._recovered()

    @property
    def key(self) -> VerifierKey:
        """The key that others pin for this log."""
        return self._signer.key

    @property
    def size(self) -> int:
        """How many entries there are."""
        return self._frontier.size

    @property
    def root(self) -> bytes:
        """The root over all of them."""
        return self._frontier.root

    def append(self, entries: Iterable[bytes]) -> range:
        """Add entries, all or none; on disk before return.

        Args:
            entries: the bytes of each, at most 65,535.

        Returns:
            Their places in the log.

        Raises:
            EntryError: an entry is empty or too large.
            LogStoreError: they cannot be stored, for example because the disk is full.
        """
        frontier, rows = self._frontier.copy(), []
        before = Head(frontier.size, frontier.root)
        for data in entries:
            if not 0 < len(data) <= MAX_ENTRY_BYTES:
                raise EntryError(f"an entry of {len(data)} bytes is not one of 1 to {MAX_ENTRY_BYTES}")
            rows.append(Row(b"".join(frontier.append(leaf_hash(data))), data))
        if rows:
            self._store.append(before, rows, frontier.root)
            self._frontier = frontier
        return range(before.size, frontier.size)

    def checkpoint(self, *extensions: str, durable: bool = True) -> SignedNote:
        """Sign the log as it is now; kept before it is returned, with the cosignatures that it has already.

        Args:
            extensions: more lines that cosignatures cover, for example a nonce.
            durable: whether it is on disk by then, as the entries are anyhow.
        """
        head = Checkpoint(self.key.name, self._frontier.size, self._frontier.root, extensions)
        self._store.add_checkpoint(head.text, self._signer.sign(head.text), durable=durable)
        return next(self._store.checkpoints(head.text))

    def checkpoint_at(self, size: int) -> SignedNote:
        """Sign the log as it was at a size, for who catches up with it in pieces; such a note is not kept.

        Raises:
            LogStoreError: the log is shorter.
        """
        head = Checkpoint(self.key.name, size, self.root_at(size) if size else EMPTY_ROOT)
        return SignedNote(head.text, (self._signer.sign(head.text),))

    def add_cosignature(self, note: SignedNote, signature: NoteSignature, witness: VerifierKey) -> SignedNote:
        """Keep a witness' cosignature of one of this log's checkpoints.

        Returns:
            The note with it.

        Raises:
            NoteSignatureError: it is not by that witness over that checkpoint.
            LogStoreError: the checkpoint is not of this log.
        """
        SignedNote(note.text, (signature,)).verify((witness,))
        self.keep_cosignatures(note, (signature,))
        return note.with_signatures(signature)

    def keep_cosignatures(self, note: SignedNote, signatures: Sequence[NoteSignature]) -> None:
        """Keep cosignatures of one of this log's checkpoints that were verified, all or none.

        Raises:
            LogStoreError: the checkpoint is not of this log, or they cannot be stored.
        """
        self._store.add_cosignatures(note.text, signatures)

    def _recovered(self) -> Frontier:
        head = self._store.head()
        frontier = Frontier.of(head.size, self._store.node)
        if frontier.root != head.root:
            raise LogDamagedError("the log has another root than its head says")
        for note in islice(self._store.checkpoints(), 1):
            last = Checkpoint.parse(note.text)
            if last.origin != self.key.name:
                raise LogStoreError(f"this is the log {last.origin!r}, not {self.key.name!r}")
            note.verify((self.key,))
            known = subtree_root(0, last.size, self._store.node) if 0 < last.size <= head.size else EMPTY_ROOT
            if last.size > head.size or known != last.root:
                raise LogDamagedError(f"the log is not the one that it signed at {last.size} entries")
        return frontier
