"""A witness: cosigns a checkpoint only if it follows from all that it has cosigned before.

The rules are those of c2sp.org/tlog-witness, `add-checkpoint`, without its HTTP: the log names the size that it
believes the witness knows, and proves from there. The new checkpoint is durable before the cosignature exists, so
that a crash in between costs a cosignature and never a promise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from hansa.errors import ProofError
from hansa.ledger.checkpoint import Checkpoint, LogPolicy
from hansa.ledger.database import Database, Layout
from hansa.ledger.errors import ForkError, LogStoreError, NoteFormatError, WitnessRefusedError
from hansa.ledger.note import NoteSignature, NoteSigner, SignatureType, SignedNote, VerifierKey
from hansa.merkle import verify_consistency

WITNESS_LAYOUT = Layout(
    what="witness' memory",
    application_id=int.from_bytes(b"HWIT", "big"),
    version=1,
    tables=(
        "CREATE TABLE seen (id INTEGER PRIMARY KEY, origin TEXT NOT NULL, note TEXT NOT NULL) STRICT",
        "CREATE INDEX seen_by_origin ON seen (origin, id)",
        "CREATE TABLE forks (id INTEGER PRIMARY KEY, known TEXT NOT NULL, shown TEXT NOT NULL,"
        " UNIQUE (known, shown)) STRICT",
        *(
            f"CREATE TRIGGER {table}_{act.lower()} BEFORE {act} ON {table}"
            f" BEGIN SELECT RAISE (ABORT, 'a witness forgets nothing'); END"
            for table in ("seen", "forks")
            for act in ("UPDATE", "DELETE")
        ),
    ),
)


class WitnessMemory(Protocol):
    """What a witness has cosigned last, by log."""

    def last(self, origin: str) -> str | None:
        """The last checkpoint as the log signed it, if there is one."""

    def advance(self, origin: str, before: str | None, note: str, *, durable: bool = True) -> None:
        """Remember a newer one, if `before` is still the last.

        Args:
            origin: of the log.
            before, note: the last one, and the newer one.
            durable: on disk before return. Otherwise it outlives the process, and may be lost with the power: for who
                has the log itself on disk by then.

        Raises:
            LogStoreError: it is not the last, or the memory cannot be written.
        """

    def keep_fork(self, known: str, shown: str) -> None:
        """Keep two notes that prove that a log shows different histories; durable before return."""

    def forks(self) -> Sequence[tuple[str, str]]:
        """The proofs that were kept."""


class InMemoryWitness:
    """A memory for simulations and tests: as durable as the object."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}
        self._forks: list[tuple[str, str]] = []

    def last(self, origin: str) -> str | None:
        """See `WitnessMemory.last`."""
        return self._last.get(origin)

    def advance(self, origin: str, before: str | None, note: str, *, durable: bool = True) -> None:  # noqa: ARG002
        """See `WitnessMemory.advance`."""
        if self._last.get(origin) != before:
            raise LogStoreError("another checkpoint was cosigned in between")
        self._last[origin] = note

    def keep_fork(self, known: str, shown: str) -> None:
        """See `WitnessMemory.keep_fork`."""
        if (known, shown) not in self._forks:
            self._forks.append((known, shown))

    def forks(self) -> Sequence[tuple[str, str]]:
        """See `WitnessMemory.forks`."""
        return tuple(self._forks)


class SqliteWitness:
    """A memory in one SQLite file; every checkpoint that was cosigned stays in it.

    Args:
        path: see `create` for a new one.

    Raises:
        LogStoreError: it is missing, in use, of another program or version, or cannot be opened.
        LogDamagedError: it is no database any more.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path, WITNESS_LAYOUT)

    @classmethod
    def create(cls, path: Path) -> SqliteWitness:
        """Begin a memory; see `Database.create`."""
        Database.create(path, WITNESS_LAYOUT).close()
        return cls(path)

    def last(self, origin: str) -> str | None:
        """See `WitnessMemory.last`."""
        row = self._database.one("SELECT note FROM seen WHERE origin = ? ORDER BY id DESC LIMIT 1", origin)
        return None if row is None else self._database.typed(str, row[0])

    def advance(self, origin: str, before: str | None, note: str, *, durable: bool = True) -> None:
        """See `WitnessMemory.advance`."""
        with self._database.writing(durable=durable) as connection:
            if self.last(origin) != before:
                raise LogStoreError("another checkpoint was cosigned in between")
            connection.execute("INSERT INTO seen (origin, note) VALUES (?, ?)", (origin, note))

    def keep_fork(self, known: str, shown: str) -> None:
        """See `WitnessMemory.keep_fork`."""
        insert = "INSERT INTO forks (known, shown) VALUES (?, ?) ON CONFLICT DO NOTHING"
        with self._database.writing() as connection:
            connection.execute(insert, (known, shown))

    def forks(self) -> Sequence[tuple[str, str]]:
        """See `WitnessMemory.forks`."""
        with self._database.reading() as connection:
            return tuple(connection.execute("SELECT known, shown FROM forks ORDER BY id").fetchall())

    def close(self) -> None:
        """Close the file and give the lock back."""
        self._database.close()


class Witness:
    """Cosigns the checkpoints of the logs that it knows.

    Args:
        signer: a witness' key.
        logs: the keys of the logs; the name of each is its origin.
        memory: what was cosigned before.

    Guarantees: no two cosignatures of one memory are over histories of which neither begins the other.
    Assumes: the memory is never set back to an older copy. A member that was restored must be told by others where
        the log stands before it cosigns again.
    """

    def __init__(self, signer: NoteSigner, logs: Sequence[VerifierKey], memory: WitnessMemory) -> None:
        if signer.key.kind is not SignatureType.WITNESS:
            raise NoteFormatError("a witness signs with a witness' key")
        self._signer = signer
        self._policies: Mapping[str, LogPolicy] = {key.name: LogPolicy(key) for key in logs}
        self._memory = memory

    @property
    def key(self) -> VerifierKey:
        """The key that others pin for this witness."""
        return self._signer.key

    def seen(self, origin: str) -> Checkpoint | None:
        """The last checkpoint of a log that was cosigned, so that its log knows where to prove from."""
        known = self._memory.last(origin)
        return None if known is None else Checkpoint.parse(SignedNote.parse(known).text)

    def cosign(
        self, note: SignedNote | str | bytes, proof: Sequence[bytes] = (), *, old_size: int, at: int
    ) -> NoteSignature:
        """Cosign a checkpoint.

        Args:
            note: as the log signed it; other signatures are ignored.
            proof: that it follows from the checkpoint of `old_size` entries; none if that is 0 or its own size.
            old_size: of the last checkpoint that this witness has cosigned, as the log believes; 0 for none.
            at: now, in seconds since the epoch.

        Returns:
            The cosignature; the checkpoint is durable by then.

        Raises:
            NoteFormatError, NoteSignatureError: it is no checkpoint that the log has signed.
            WitnessRefusedError: of an unknown log, smaller than what was cosigned, or proved from another size.
            ForkError: the log has signed another history of the same size.
            ProofError: the proof does not hold.
        """
        note = note if isinstance(note, SignedNote) else SignedNote.parse(note)
        new = Checkpoint.parse(note.text)
        policy = self._policies.get(new.origin)
        if policy is None:
            raise WitnessRefusedError(f"the log {new.origin!r} is not known here", 0)
        policy.verify(note)

        def follows(last: Checkpoint | None) -> None:
            size = 0 if last is None else last.size
            if old_size != size:
                raise WitnessRefusedError(
                    f"the last checkpoint here has {size} entries, not {old_size}", size
                )
            if last is not None and size:
                verify_consistency(size, new.size, proof, last.root, new.root)
            elif proof:
                raise ProofError("every log begins with the empty one: that takes no proof")

        return self._cosigned(note, new, follows, at, durable=True)

    def cosign_copy(
        self, note: SignedNote, new: Checkpoint, root_at: Callable[[int], bytes], *, at: int
    ) -> NoteSignature:
        """Cosign a checkpoint of a log of which a whole copy is here, and on disk.

        What was cosigned before is looked up in the copy and needs no proof; a loss of power that takes the memory
        leaves the copy, from which nothing is cosigned but what continues it.

        Args:
            note: as the log signed it and the caller has verified; other signatures are ignored.
            new: what it says, which is the root of the copy.
            root_at: the root of the copy at a size that it has had.
            at: now, in seconds since the epoch.

        Raises:
            WitnessRefusedError: it is smaller than what was cosigned.
            ForkError: the log has signed another history of the same size.
            ProofError: the copy is not what was cosigned.
        """

        def follows(last: Checkpoint | None) -> None:
            if last is not None and root_at(last.size) != last.root:
                raise ProofError(
                    f"the copy of {new.origin!r} is not what was cosigned at {last.size} entries"
                )

        return self._cosigned(note, new, follows, at, durable=False)

    def _cosigned(
        self,
        note: SignedNote,
        new: Checkpoint,
        follows: Callable[[Checkpoint | None], None],
        at: int,
        *,
        durable: bool,
    ) -> NoteSignature:
        key = self._policies[new.origin].log
        shown = SignedNote(
            note.text, tuple(s for s in note.signatures if s.id == key.id and s.name == new.origin)
        )
        known = self._memory.last(new.origin)
        last = None if known is None else Checkpoint.parse(SignedNote.parse(known).text)
        size = 0 if last is None else last.size
        if new.size < size:
            raise WitnessRefusedError(
                f"a checkpoint of {new.size} entries is older than that of {size}", size
            )
        if known is not None and last is not None and new.size == size and new.root != last.root:
            self._memory.keep_fork(known, shown.encoded)
            raise ForkError(f"{new.origin!r} has signed two logs of {size} entries", (known, shown.encoded))
        follows(last)
        if shown.encoded != known:
            self._memory.advance(new.origin, known, shown.encoded, durable=durable)
        return self._signer.sign(note.text, at)
