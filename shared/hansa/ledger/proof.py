"""Offline proofs (c2sp.org/tlog-proof@v1): one file that says "this entry is in that log, and witnesses saw it"."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass

from hansa.ledger.checkpoint import Checkpoint, LogPolicy, VerifiedCheckpoint
from hansa.ledger.errors import NoteFormatError
from hansa.ledger.note import MAX_NOTE_BYTES, SignedNote, decode64
from hansa.merkle import HASH_BYTES, MAX_SIZE, leaf_hash, verify_inclusion

HEADER = "c2sp.org/tlog-proof@v1"
MAX_PATH = 63
_EXTRA, _INDEX = "extra ", "index "


@dataclass(frozen=True)
class TlogProof:
    """That an entry stands at its place in the log of a checkpoint.

    Attributes:
        index: the place, from 0.
        path: sibling hashes from the bottom up.
        note: the checkpoint with its signatures.
        extra: for the reader; nothing vouches for it.
    """

    index: int
    path: tuple[bytes, ...]
    note: SignedNote
    extra: bytes | None = None

    def __post_init__(self) -> None:
        whole = len(self.path) <= MAX_PATH and all(len(node) == HASH_BYTES for node in self.path)
        if not 0 <= self.index <= MAX_SIZE or not whole or self.extra == b"":
            raise NoteFormatError(
                f"a proof has no index, or not up to {MAX_PATH} hashes of {HASH_BYTES} bytes"
            )
        Checkpoint.parse(self.note.text)

    @property
    def encoded(self) -> str:
        """The text of a ``.tlog-proof`` file."""
        extra = [] if self.extra is None else [_EXTRA + b64encode(self.extra).decode()]
        path = [b64encode(node).decode() for node in self.path]
        return "\n".join([HEADER, *extra, f"{_INDEX}{self.index}", *path, "", self.note.encoded])

    @classmethod
    def parse(cls, text: str | bytes) -> TlogProof:
        """Read a proof; nothing is verified.

        Raises:
            NoteFormatError: it is not header, index, hashes and a checkpoint, each in its one form, or too large.
        """
        if len(text) > 2 * MAX_NOTE_BYTES:
            raise NoteFormatError("a proof is too large")
        try:
            whole = text.decode() if isinstance(text, bytes) else text
        except UnicodeDecodeError:
            raise NoteFormatError("a proof is not UTF-8") from None
        head, _, note = whole.partition("\n\n")
        header, *lines = head.split("\n")
        extra = None
        if lines and lines[0].startswith(_EXTRA):
            extra = decode64(lines.pop(0).removeprefix(_EXTRA), "the extra data of a proof")
        index = lines.pop(0) if lines else ""
        number = index.removeprefix(_INDEX)
        if (
            header != HEADER
            or not number.isascii()
            or not number.isdigit()
            or len(number) > len(str(MAX_SIZE))
        ):
            raise NoteFormatError(f"a proof does not begin with {HEADER!r} and an index")
        path = tuple(decode64(line, "a hash of a proof") for line in lines)
        proof = cls(int(number), path, SignedNote.parse(note), extra)
        if proof.encoded != whole:
            raise NoteFormatError("a proof is not in its one form")
        return proof

    def verify(self, entry: bytes, policy: LogPolicy) -> VerifiedCheckpoint:
        """Check that the entry is in the log.

        Args:
            entry: its bytes as they are logged.
            policy: whose word counts.

        Raises:
            NoteSignatureError, CosignatureQuorumError: see `LogPolicy.verify`.
            ProofError: the entry does not stand there.
        """
        seen = policy.verify(self.note)
        verify_inclusion(leaf_hash(entry), self.index, seen.checkpoint.size, self.path, seen.checkpoint.root)
        return seen
