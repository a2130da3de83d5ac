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

from hansa.secagg.errors import TranscriptError

ROW_BYTES = 96
HASH_BYTES = 32
SALT_BYTES = 32


def share_hash(transcript: str, dealer: str, holder: str, kind: str, share: bytes, salt: bytes) -> bytes:
    """The salted hash of one share, bound to its round, dealer, holder and kind."""
    label = f"hansa/secagg/v1/share\n{transcript}\n{dealer}\n{holder}\n{kind}\n"  # none of these holds a line break
    return hashlib.sha256(label.encode() + salt + share).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """The root of an RFC 6962 tree over at least one leaf."""
    return _levels(leaves)[-1][0]


def merkle_paths(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """For each leaf the sibling hashes from the bottom up (RFC 6962, section 2.1.1)."""
    levels = _levels(leaves)
    paths = []
    for index in range(len(leaves)):
        path, position = [], index
        for level in levels[:-1]:
            sibling = position ^ 1
            if sibling < len(level):
                path.append(level[sibling])
            position //= 2
        paths.append(path)
    return paths


def path_length(index: int, size: int) -> int:
    """How many hashes lead from a leaf to the root of a tree of that size."""
    length, position, last = 0, index, size - 1
    while last > 0:
        length += 1 if position % 2 or position < last else 0
        position, last = position // 2, last // 2
    return length


def check_path(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf stands at its place in the tree of a root.

    Raises:
        TranscriptError: the path has not the length that it must have, or leads to another root.
    """
    if len(path) != path_length(index, size) or _climb(_leaf(leaf), index, size, path) != root:
        raise TranscriptError("a row of share hashes is not one that its dealer signed")


def _climb(node: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    siblings, position, last = iter(path), index, size - 1
    while last > 0:
        if position % 2:
            node = _node(next(siblings), node)
        elif position < last:
            node = _node(node, next(siblings))
        position, last = position // 2, last // 2
    return node


def _levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    # Pairing neighbours and carrying an odd last node up builds the same tree as RFC 6962's largest power of two.
    level = [_leaf(leaf) for leaf in leaves]
    levels = [level]
    while len(level) > 1:
        paired = [_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(paired) * 2 :]
        levels.append(level)
    return levels


def _leaf(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
