"""An auditor's copy of the federation's log, checked as it comes.

Nothing is kept that was not proven: each piece comes with a checkpoint that the log has signed and a proof that the copy
with the piece is the beginning of that checkpoint's log; each entry is read, its signatures are checked, and it must be
allowed to stand where it stands (`hansa.audit.reading`). A log that shows less than it has shown, or something else, is
caught, and what it signed is kept as evidence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from hansa.audit.reading import LogReader
from hansa.errors import HansaError, ProofError, UsageError
from hansa.following.errors import MirrorError
from hansa.identity.files import read_small, replace_file
from hansa.ledger.checkpoint import Checkpoint, LogPolicy, VerifiedCheckpoint
from hansa.ledger.errors import ForkError, LogDamagedError, LogVerificationError
from hansa.ledger.log import MAX_ENTRY_BYTES, LogView
from hansa.ledger.note import MAX_NOTE_BYTES, SignedNote
from hansa.ledger.store import Head, Row, SqliteLogStore
from hansa.ledger.trust import TrustedKeys
from hansa.merkle import EMPTY_ROOT, Frontier, leaf_hash, subtree_root, verify_consistency

STORE_NAME, NEWEST_NAME, REFUSED_NAME = "federation.sqlite", "newest.checkpoint", "refused.checkpoint"


@dataclass(frozen=True)
class News:
    """What a source says comes next. Nothing of it is believed.

    Attributes:
        start: behind how many entries.
        entries: the bytes of each.
        note: a checkpoint over these, and perhaps over more.
        proof: that the log up to the last of these entries is the beginning of the checkpoint's.
    """

    start: int
    entries: tuple[bytes, ...]
    note: SignedNote
    proof: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Standing:
    """How far a mirror is.

    Attributes:
        size, root: of what is held and verified.
        sealed: how many entries the newest checkpoint covers that was shown.
        cosigned: how many entries the newest checkpoint covers that a quorum has cosigned.
        by: who cosigned that one, by the names of their keys.
    """

    size: int
    root: bytes
    sealed: int
    cosigned: int
    by: tuple[str, ...] = ()


class LogMirror:
    """The mirror in one folder. One process at a time.

    Args:
        folder: made where it is not there yet.
        keys: whose word counts; compared with their owners beforehand.

    Raises:
        UsageError: the folder cannot be made, or is none.
        MirrorError: the folder holds the mirror of another log, or something else.
        LogStoreError: another process has it, or it cannot be used.
        LogDamagedError: what it holds is not what was verified.
    """

    def __init__(self, folder: Path, keys: TrustedKeys) -> None:
        self._folder, self._keys, self._policy = folder, keys, keys.federation
        self._any = LogPolicy(self._policy.log, self._policy.witnesses)  # a quorum may come later
        _make_own(folder)
        path = folder / STORE_NAME
        self._store = SqliteLogStore(path) if path.exists() else SqliteLogStore.create(path)
        self._leaves: dict[bytes, int] = {}
        self._newest: VerifiedCheckpoint | None = None
        self._quorum: VerifiedCheckpoint | None = None
        try:
            head = LogView(self._store).check()
            self._frontier = Frontier.of(head.size, self._store.node)
            self._reader = LogReader(keys, keys.keyring, None, sealed=head.size)
            self._recover(head.size)
        except BaseException:
            self._store.close()
            raise

    @property
    def standing(self) -> Standing:
        """How far the mirror is."""
        newest = 0 if self._newest is None else self._newest.checkpoint.size
        quorum = self._quorum
        return Standing(
            self._frontier.size,
            self._frontier.root,
            newest,
            0 if quorum is None else quorum.checkpoint.size,
            () if quorum is None else tuple(sorted(quorum.cosigned)),
        )

    @property
    def origin(self) -> str:
        """The name of the log."""
        return self._policy.log.name

    @property
    def quorum(self) -> int:
        """How many members must have cosigned."""
        return self._policy.quorum

    def take(self, news: News) -> Standing:
        """Check what comes next, and keep it; on disk before return.

        Raises:
            NoteFormatError, NoteSignatureError: the checkpoint is none of this log.
            ForkError: the log has signed two histories; both checkpoints are kept in the folder.
            LogVerificationError: the log has become shorter, or an entry may not stand where it stands; says which.
                Nothing of this piece was kept.
        """
        seen = self._any.verify(news.note)
        checkpoint, size = seen.checkpoint, self._frontier.size
        self._compare(seen)
        if news.start != size or size + len(news.entries) > checkpoint.size:
            raise LogVerificationError(
                f"what was sent begins at entry {news.start}, and {size} of {checkpoint.size} are held"
            )
        frontier, rows = self._frontier.copy(), []
        for data in news.entries:
            if not 0 < len(data) <= MAX_ENTRY_BYTES:
                raise LogVerificationError(f"entry {frontier.size} has {len(data)} bytes")
            rows.append(Row(b"".join(frontier.append(leaf_hash(data))), data))
        self._require_beginning(frontier, seen, news)
        self._keep_newest(seen)
        self._read(size, news.entries)
        if rows:
            self._store.append(Head(size, self._frontier.root), rows, frontier.root)
            self._frontier = frontier
        if frontier.size == checkpoint.size:
            self._keep(seen)
        return self.standing

    def cosigned(self, note: SignedNote) -> Standing:
        """Keep a checkpoint of what is held already, for its cosignatures.

        Raises:
            NoteFormatError, NoteSignatureError: the checkpoint is none of this log.
            ForkError, LogVerificationError: it is not a beginning of what is held.
        """
        seen = self._any.verify(note)
        if seen.checkpoint.size > self._frontier.size:
            raise LogVerificationError(
                f"a checkpoint of {seen.checkpoint.size} entries came, and {self._frontier.size} are held"
            )
        self._require_own(seen)
        self._keep(seen)
        return self.standing

    def close(self) -> None:
        """Close the file and give the lock back."""
        self._store.close()

    # --- checks --------------------------------------------------------------------------------------------

    def _compare(self, seen: VerifiedCheckpoint) -> None:
        """A log never becomes shorter, and never another."""
        checkpoint, known = seen.checkpoint, self._newest
        if checkpoint.size <= self._frontier.size:
            self._require_own(seen)
        longest = max(self._frontier.size, 0 if known is None else known.checkpoint.size)
        if checkpoint.size < longest:
            self._refuse(seen)
            raise LogVerificationError(
                f"the log shows {checkpoint.size} entries, and it had signed {longest}: it was cut off, or restored from "
                f"an old copy; both checkpoints are in {self._folder}"
            )
        if (
            known is not None
            and known.checkpoint.size == checkpoint.size
            and known.checkpoint.root != checkpoint.root
        ):
            self._forked(seen)

    def _require_own(self, seen: VerifiedCheckpoint) -> None:
        """That a checkpoint is of a beginning of what is held."""
        size = seen.checkpoint.size
        if seen.checkpoint.root != (subtree_root(0, size, self._store.node) if size else EMPTY_ROOT):
            self._forked(seen)

    def _require_beginning(self, frontier: Frontier, seen: VerifiedCheckpoint, news: News) -> None:
        """That the copy with the new entries is a beginning of the log of the checkpoint."""
        checkpoint = seen.checkpoint
        if frontier.size == 0:
            return
        try:
            verify_consistency(frontier.size, checkpoint.size, news.proof, frontier.root, checkpoint.root)
        except ProofError as error:
            self._refuse(seen)
            what = (
                f"entries {news.start} to {frontier.size - 1} are not shown to be"
                if news.entries
                else f"the {frontier.size} entries that are held are not shown to be the first"
            )
            raise LogVerificationError(
                f"{what} in the log of the checkpoint over {checkpoint.size} entries, which is in {self._folder}: "
                f"another history, or a false proof ({error.cause})"
            ) from None

    def _read(self, start: int, entries: Iterable[bytes]) -> None:
        for index, data in enumerate(entries, start):
            leaf = leaf_hash(data)
            try:
                if leaf in self._leaves:
                    raise LogVerificationError(f"it is entry {self._leaves[leaf]} again")
                self._reader.take(index, data)
            except HansaError as error:
                kind = f" ({self._reader.type})" if self._reader.type else ""
                raise LogVerificationError(f"entry {index}{kind}: {error.cause}") from None
            self._leaves[leaf] = index

    def _forked(self, seen: VerifiedCheckpoint) -> NoReturn:
        self._refuse(seen)
        known = seen if self._newest is None else self._newest
        raise ForkError(
            f"the log {self.origin!r} has signed two histories: one of {known.checkpoint.size} entries, and another that "
            f"does not go with it, of {seen.checkpoint.size}; both checkpoints are in {self._folder}",
            (known.note.encoded, seen.note.encoded),
        )

    # --- keeping -------------------------------------------------------------------------------------------

    def _keep(self, seen: VerifiedCheckpoint) -> None:
        """Keep a checkpoint of a beginning of what is held, with the cosignatures that count."""
        known = {(key.name, key.id) for key in (self._policy.log, *self._policy.witnesses)}
        log, *others = sorted(
            (one for one in seen.note.signatures if (one.name, one.id) in known),
            key=lambda one: one.name != self._policy.log.name,
        )
        self._store.add_checkpoint(seen.note.text, log)
        self._store.add_cosignatures(seen.note.text, others)
        if len(seen.cosigned) >= self._policy.quorum and (
            self._quorum is None or seen.checkpoint.size >= self._quorum.checkpoint.size
        ):
            self._quorum = seen
        self._keep_newest(seen)

    def _keep_newest(self, seen: VerifiedCheckpoint) -> None:
        """The newest checkpoint, durable before any of its entries: what the log once signed it cannot take back."""
        known = self._newest
        if known is not None and seen.checkpoint.size < known.checkpoint.size:
            return
        if known is None or seen.note.text != known.note.text:
            replace_file(self._folder / NEWEST_NAME, seen.note.encoded.encode())
        self._newest = seen

    def _refuse(self, seen: VerifiedCheckpoint) -> None:
        replace_file(self._folder / REFUSED_NAME, seen.note.encoded.encode())

    def _recover(self, size: int) -> None:
        """What was verified in earlier processes; its hashes were made anew, its signatures are not checked again."""
        view = LogView(self._store)
        stored = [self._verified(note) for note in self._store.checkpoints()]
        for seen in stored:
            if seen.checkpoint.size > size or view.root_at(seen.checkpoint.size) != seen.checkpoint.root:
                raise LogDamagedError(f"the mirror in {self._folder} is not that of its checkpoints")
        self._newest = max(stored, key=lambda seen: seen.checkpoint.size, default=None)
        cosigned = [seen for seen in stored if len(seen.cosigned) >= self._policy.quorum]
        self._quorum = max(cosigned, key=lambda seen: seen.checkpoint.size, default=None)
        path = self._folder / NEWEST_NAME
        if path.exists():
            newest = self._verified(SignedNote.parse(read_small(path, MAX_NOTE_BYTES)))
            if self._newest is None or newest.checkpoint.size > self._newest.checkpoint.size:
                self._newest = newest
        if size > (0 if self._newest is None else self._newest.checkpoint.size):
            raise LogDamagedError(f"the mirror in {self._folder} holds entries that no checkpoint covers")
        try:
            self._read(0, view.entries())
        except HansaError as error:
            raise LogDamagedError(f"the mirror in {self._folder} cannot be read: {error.cause}") from None

    def _verified(self, note: SignedNote) -> VerifiedCheckpoint:
        origin = Checkpoint.parse(note.text).origin
        if origin != self.origin:
            raise MirrorError(f"{self._folder} is a mirror of {origin!r}, not of {self.origin!r}")
        return self._any.verify(note)


def _make_own(folder: Path) -> None:
    """Make the folder of a mirror; one that holds anything else is left as it is."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be the folder of a mirror: {error.strerror}",
            remedy="Name a new folder, or one that a mirror is in.",
        ) from None
    foreign = [name for name in found if not name.startswith((STORE_NAME, NEWEST_NAME, REFUSED_NAME))]
    if foreign and STORE_NAME not in found:
        raise MirrorError(f"{folder} is no mirror: it holds {foreign[0]!r}")
