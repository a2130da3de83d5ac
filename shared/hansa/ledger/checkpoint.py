"""Checkpoints (c2sp.org/tlog-checkpoint@v1.0.0): what a log says it is, and who must have said so.

A log's own signature proves who is to blame. That everybody sees the same log rests on witnesses: each cosigns only
what follows from all that it has cosigned before (`hansa.ledger.witness`).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass

from hansa.ledger.errors import CosignatureQuorumError, NoteFormatError, NoteSignatureError
from hansa.ledger.note import SignatureType, SignedNote, VerifierKey, check_text, decode64
from hansa.merkle import EMPTY_ROOT, HASH_BYTES, MAX_SIZE


@dataclass(frozen=True)
class Checkpoint:
    """A tree head.

    Attributes:
        origin: the name of the log, which is also the name of its key.
        size: how many entries it has.
        root: over all of them, 32 bytes.
        extensions: more lines, which cosignatures cover and nobody has to understand.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_text(self.text)
        if (
            not self.origin
            or not all(self.extensions)
            or any("\n" in x for x in (self.origin, *self.extensions))
        ):
            raise NoteFormatError(
                "the origin and the extensions of a checkpoint are lines that are not empty"
            )
        if not 0 <= self.size <= MAX_SIZE or len(self.root) != HASH_BYTES:
            raise NoteFormatError(f"the checkpoint of {self.origin!r} has no size and root of a tree")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise NoteFormatError(f"the checkpoint of {self.origin!r} has another root than no entries have")

    @property
    def text(self) -> str:
        """The text of its note."""
        lines = (self.origin, str(self.size), b64encode(self.root).decode(), *self.extensions)
        return "".join(f"{line}\n" for line in lines)

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read the text of a note.

        Raises:
            NoteFormatError: it is not origin, size and root, each in its one form.
        """
        origin, *rest = text.removesuffix("\n").split("\n")
        if (
            len(rest) < 2
            or not rest[0].isascii()
            or not rest[0].isdigit()
            or len(rest[0]) > len(str(MAX_SIZE))
        ):
            raise NoteFormatError("a checkpoint is not an origin, a size and a root")
        checkpoint = cls(origin, int(rest[0]), decode64(rest[1], "the root of a checkpoint"), tuple(rest[2:]))
        if checkpoint.text != text:
            raise NoteFormatError("a checkpoint is not in its one form")
        return checkpoint


@dataclass(frozen=True)
class VerifiedCheckpoint:
    """A checkpoint that a policy accepts.

    Attributes:
        checkpoint: what it says.
        cosigned: the witnesses that cosigned it, with the time at which they did, in seconds since the epoch.
        note: the note that says so.
    """

    checkpoint: Checkpoint
    cosigned: Mapping[str, int]
    note: SignedNote


@dataclass(frozen=True)
class LogPolicy:
    """Whose word counts about one log.

    Attributes:
        log: the log's own key; its name is the origin of every checkpoint.
        witnesses: keys of witnesses, of which no two are the same, nor the log's: a cosignature does not cover the
            name of its witness, so that one key under two names would count twice.
        quorum: how many of them must have cosigned.
    """

    log: VerifierKey
    witnesses: tuple[VerifierKey, ...] = ()
    quorum: int = 0

    def __post_init__(self) -> None:
        types = {key.kind for key in self.witnesses}
        if self.log.kind is not SignatureType.LOG or types - {SignatureType.WITNESS}:
            raise NoteFormatError("a policy names a log by a log's key, and witnesses by witnesses' keys")
        parties = (self.log, *self.witnesses)
        for which in ({key.public for key in parties}, {key.name for key in parties}):
            if len(which) != len(parties):
                raise NoteFormatError("a policy names a key, or a name, twice")
        if not 0 <= self.quorum <= len(self.witnesses):
            raise NoteFormatError(f"a policy demands {self.quorum} of {len(self.witnesses)} witnesses")

    def verify(self, note: SignedNote | str | bytes) -> VerifiedCheckpoint:
        """Check a checkpoint's signatures.

        Raises:
            NoteFormatError: the note is no checkpoint.
            NoteSignatureError: the log has not signed it, it is of another log, or a witness' signature is false.
            CosignatureQuorumError: too few witnesses have cosigned it.
        """
        note = note if isinstance(note, SignedNote) else SignedNote.parse(note)
        checkpoint = Checkpoint.parse(note.text)
        if checkpoint.origin != self.log.name:
            raise NoteSignatureError(
                f"a checkpoint is of the log {checkpoint.origin!r}, not {self.log.name!r}"
            )
        signed = note.verify((self.log, *self.witnesses))
        if self.log not in signed:
            raise NoteSignatureError(f"the log {self.log.name!r} has not signed its checkpoint")
        cosigned = {key.name: at for key, at in signed.items() if at is not None}
        if len(cosigned) < self.quorum:
            raise CosignatureQuorumError(
                f"{len(cosigned)} witnesses have cosigned {self.log.name!r} at {checkpoint.size} entries; "
                f"{self.quorum} are needed"
            )
        return VerifiedCheckpoint(checkpoint, cosigned, note)
