"""Merkle trees of RFC 6962 (RFC 9162, section 2.1): hashes, growth, proofs, and their verification.

Functions take leaf hashes, not leaves. A complete subtree of 2^level leaves is a node (level, index); whoever can
look nodes up can make any proof with O(log n) of them. Subtrees [start, end) are those of
draft-ietf-plants-merkle-tree-certs, section 4: `start` is a multiple of the smallest power of two that is not
below their size. Sizes are at most 2^63 - 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from hansa.errors import ProofError

HASH_BYTES = 32
MAX_SIZE = 2**63 - 1
EMPTY_ROOT = hashlib.sha256(b"").digest()

Nodes: TypeAlias = Callable[
    [int, int], bytes
]  # (level, index) -> hash of the leaves [index, index + 1) << level


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


# --- whole trees -----------------------------------------------------------------------------------------


def tree_levels(hashes: Sequence[bytes]) -> list[list[bytes]]:
    """All levels of a tree over at least one leaf, leaf hashes first, the root last and alone.

    Pairing neighbours and carrying an odd last node up builds the same tree as RFC 6962's largest power of two.
    """
    level = list(hashes)
    levels = [level]
    while len(level) > 1:
        paired = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(paired) * 2 :]
        levels.append(level)
    return levels


def tree_root(hashes: Sequence[bytes]) -> bytes:
    """The root over leaf hashes, or over the roots of neighbouring subtrees that are complete up to the last."""
    return tree_levels(hashes)[-1][0] if hashes else EMPTY_ROOT


def inclusion_paths(hashes: Sequence[bytes]) -> list[list[bytes]]:
    """For each leaf the sibling hashes from the bottom up (RFC 6962, section 2.1.1)."""
    levels = tree_levels(hashes)
    paths = []
    for index in range(len(hashes)):
        path, position = [], index
        for level in levels[:-1]:
            sibling = position ^ 1
            if sibling < len(level):
                path.append(level[sibling])
            position //= 2
        paths.append(path)
    return paths


class Frontier:
    """The right edge of a growing tree: the complete subtrees that it consists of, largest first.

    Attributes:
        size: leaves so far.
    """

    def __init__(self, size: int = 0, nodes: Iterable[bytes] = ()) -> None:
        self.size = size
        self._nodes = list(nodes)
        if len(self._nodes) != size.bit_count():
            raise ProofError(f"a tree of {size} leaves has {size.bit_count()} nodes on its edge")

    @classmethod
    def of(cls, size: int, nodes: Nodes) -> Frontier:
        """The edge of a tree whose nodes can be looked up."""
        return cls(size, (nodes(level, index) for level, index in _cover(0, size)))

    def append(self, leaf: bytes) -> list[bytes]:
        """Add a leaf hash.

        Returns:
            The hashes of all complete subtrees that end with this leaf, itself first: 1 + as many as its index
            has trailing one bits. They never change again.
        """
        completed, index = [leaf], self.size
        while index & 1:
            leaf = node_hash(self._nodes.pop(), leaf)
            completed.append(leaf)
            index >>= 1
        self._nodes.append(leaf)
        self.size += 1
        return completed

    def copy(self) -> Frontier:
        """Another edge of the same tree."""
        return Frontier(self.size, self._nodes)

    @property
    def root(self) -> bytes:
        """The root of the tree so far."""
        return _folded(self._nodes) if self._nodes else EMPTY_ROOT


# --- making proofs ---------------------------------------------------------------------------------------


def subtree_root(start: int, end: int, nodes: Nodes) -> bytes:
    """The hash of the leaves [start, end) of a tree, for a valid subtree."""
    return (
        _folded([nodes(level, index) for level, index in _cover(start, end)]) if start < end else EMPTY_ROOT
    )


def prove_inclusion(index: int, end: int, nodes: Nodes, *, start: int = 0) -> list[bytes]:
    """That a leaf stands at its place in the tree of `end` leaves, or in the subtree [start, end).

    Args:
        index: of the leaf in the whole tree.
        end: the size of the tree that is proved against; it need not be the newest.
        nodes: looks complete subtrees up.
        start: of a subtree.

    Returns:
        Sibling hashes from the bottom up, 32 bytes each.

    Raises:
        ProofError: there is no such leaf, or no such subtree.
    """
    _check_subtree(start, end)
    if not start <= index < end:
        raise ProofError(f"there is no leaf {index} between {start} and {end}")
    path = []
    while end - start > 1:
        split = start + _half(end - start)
        if index < split:
            path.append(subtree_root(split, end, nodes))
            end = split
        else:
            path.append(subtree_root(start, split, nodes))
            start = split
    return path[::-1]


def prove_consistency(end: int, size: int, nodes: Nodes, *, start: int = 0) -> list[bytes]:
    """That a tree of `end` leaves, or the subtree [start, end), is the beginning (a part) of one of `size`.

    Args:
        end: of the older tree, or of the subtree; at least 1.
        size: of the newer tree.
        nodes: looks complete subtrees up.
        start: of a subtree.

    Returns:
        Hashes in the order of RFC 6962, section 2.1.2; none for two trees of one size.

    Raises:
        ProofError: there is no such subtree in a tree of that size, or it is empty and nothing can be proved.
    """
    _check_subtree(start, end)
    if not 0 <= start < end <= size:
        raise ProofError(f"nothing can be proved about [{start}, {end}) in a tree of {size} leaves")
    proof, known, low, high = [], True, 0, size
    while (start, end) != (low, high):
        split = low + _half(high - low)
        if end <= split:
            proof.append(subtree_root(split, high, nodes))
            high = split
        else:
            proof.append(subtree_root(low, split, nodes))
            if start < split:  # the older tree reaches into the right half: its root is no node here
                start, known = split, False
            low = split
    if not known:
        proof.append(subtree_root(low, high, nodes))
    return proof[::-1]


# --- verifying proofs ------------------------------------------------------------------------------------


def path_length(index: int, size: int) -> int:
    """How many hashes lead from a leaf to the root of a tree of that size."""
    length, position, last = 0, index, size - 1
    while last > 0:
        length += 1 if position % 2 or position < last else 0
        position, last = position // 2, last // 2
    return length


def verify_inclusion(
    leaf: bytes, index: int, end: int, path: Sequence[bytes], root: bytes, *, start: int = 0
) -> None:
    """Check that a leaf stands at its place in the tree of `end` leaves, or in the subtree [start, end).

    Args:
        leaf: its hash.
        index: its place in the whole tree.
        end: the size of the tree, or the end of the subtree.
        path: from `prove_inclusion`.
        root: of the tree or the subtree.
        start: of the subtree.

    Raises:
        ProofError: the proof has not the form that it must have, or leads to another root.
    """
    _check_subtree(start, end)
    if not start <= index < end:
        raise ProofError(f"there is no leaf {index} between {start} and {end}")
    index, end = index - start, end - start
    if len(path) != path_length(index, end) or any(len(node) != HASH_BYTES for node in (leaf, *path)):
        raise ProofError("an inclusion proof has not the hashes that its place in the tree calls for")
    node, siblings, last = leaf, iter(path), end - 1
    while last > 0:
        if index % 2:
            node = node_hash(next(siblings), node)
        elif index < last:
            node = node_hash(node, next(siblings))
        index, last = index // 2, last // 2
    if node != root:
        raise ProofError("an inclusion proof leads to another root")


def verify_consistency(size1: int, size2: int, proof: Sequence[bytes], root1: bytes, root2: bytes) -> None:
    """Check that the tree of `size1` leaves is the beginning of the tree of `size2`.

    Args:
        size1, size2: 0 < size1 <= size2. From an empty tree nothing follows, so that it is an error to ask.
        proof: from `prove_consistency`.
        root1, root2: of the older and the newer tree.

    Raises:
        ProofError: sizes for which there is no proof, or a proof of something else.
    """
    if size1 <= 0:
        raise ProofError("every tree begins with the empty one: that proves nothing")
    verify_subtree_consistency(0, size1, size2, proof, root1, root2)


def verify_subtree_consistency(
    start: int, end: int, size: int, proof: Sequence[bytes], subtree: bytes, root: bytes
) -> None:
    """Check that [start, end) with its hash is a part of the tree of `size` leaves.

    Source: draft-ietf-plants-merkle-tree-certs, section 4.4.3; with ``start = 0`` it is RFC 9162, section 2.1.4.2.

    Args:
        start, end: of the subtree. An empty one is a part of every tree, if its hash is that of no leaves.
        size: of the tree.
        proof: from `prove_consistency`.
        subtree, root: the two hashes.

    Raises:
        ProofError: no valid subtree of such a tree, or a proof of something else.
    """
    _check_subtree(start, end)
    if end > size or size > MAX_SIZE or any(len(node) != HASH_BYTES for node in proof):
        raise ProofError(f"a consistency proof is not one of [{start}, {end}) in a tree of {size} leaves")
    if start == end:
        if proof or subtree != EMPTY_ROOT:
            raise ProofError("an empty subtree has one hash and no proof")
        return
    first, last, right = start, end - 1, size - 1
    while first != last and (last % 2 or last == right):
        first, last, right = first // 2, last // 2, right // 2
    hashes = list(proof) if first != last else [subtree, *proof]
    if not hashes:
        raise ProofError("a consistency proof is empty")
    old = new = hashes[0]
    for node in hashes[1:]:
        if right == 0:
            raise ProofError("a consistency proof is too long")
        if last % 2 or last == right:
            old = node_hash(node, old) if first < last else old
            new = node_hash(node, new)
            while not last % 2:
                first, last, right = first // 2, last // 2, right // 2
        else:
            new = node_hash(new, node)
        first, last, right = first // 2, last // 2, right // 2
    if right != 0 or old != subtree or new != root:
        raise ProofError("a consistency proof does not lead from one root to the other")


def _check_subtree(start: int, end: int) -> None:
    if not 0 <= start <= end <= MAX_SIZE or start % (1 << max(end - start - 1, 0).bit_length()):
        raise ProofError(f"[{start}, {end}) is no subtree")


def _cover(start: int, end: int) -> Iterable[tuple[int, int]]:
    """The nodes (level, index) that make up a valid subtree, largest first."""
    while start < end:
        level = (end - start).bit_length() - 1
        yield level, start >> level
        start += 1 << level


def _folded(nodes: Sequence[bytes]) -> bytes:
    """The hash over complete subtrees, largest first."""
    whole = nodes[-1]
    for node in reversed(nodes[:-1]):
        whole = node_hash(node, whole)
    return whole


def _half(size: int) -> int:
    """The largest power of two below a size above 1."""
    return 1 << (size - 1).bit_length() - 1
