"""What a dealer signs about its shares: one Merkle root per round.

For each holder there is a row of three hashes: of the self-mask share, of the mask-key share (each with its own
salt) and of the envelope that carries them. The rows are the leaves of a Merkle tree (RFC 6962, section 2.1)
whose root the dealer signs. A holder gets its row and the path to the root, so that an altered envelope is told
from a bad share; the coordinator gets all rows, so that a bad share names its dealer or its holder. One
signature per dealer instead of one per share keeps a round at n signatures, not n^2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from hansa.errors import ProofError
from hansa.merkle import inclusion_paths, leaf_hash, tree_root, verify_inclusion
from hansa.secagg.errors import TranscriptError

ROW_BYTES = 96
SALT_BYTES = 32


def share_hash(transcript: str, dealer: str, holder: str, kind: str, share: bytes, salt: bytes) -> bytes:
    """The salted hash of one share, bound to its round, dealer, holder and kind."""
    label = f"hansa/secagg/v1/share\n{transcript}\n{dealer}\n{holder}\n{kind}\n"  # none of these holds a line break
    return hashlib.sha256(label.encode() + salt + share).digest()


def merkle_root(rows: Sequence[bytes]) -> bytes:
    """The root of an RFC 6962 tree over at least one row."""
    return tree_root([leaf_hash(row) for row in rows])


def merkle_paths(rows: Sequence[bytes]) -> list[list[bytes]]:
    """For each row the sibling hashes from the bottom up."""
    return inclusion_paths([leaf_hash(row) for row in rows])


def check_path(row: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check that a row stands at its place in the tree of a root.

    Raises:
        TranscriptError: the path has not the length that it must have, or leads to another root.
    """
    try:
        verify_inclusion(leaf_hash(row), index, size, path, root)
    except ProofError:
        raise TranscriptError("a row of share hashes is not one that its dealer signed") from None
