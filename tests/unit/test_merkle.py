"""Trees of RFC 6962 against known roots, against a definition written down once more, and against lies."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.errors import ExitStatus, ProofError
from hansa.merkle import (
    EMPTY_ROOT,
    MAX_SIZE,
    Frontier,
    inclusion_paths,
    leaf_hash,
    node_hash,
    path_length,
    prove_consistency,
    prove_inclusion,
    subtree_root,
    tree_levels,
    tree_root,
    verify_consistency,
    verify_inclusion,
    verify_subtree_consistency,
)

# The certificate-transparency reference tree: inputs, and the root over the first n of them.
INPUTS = [
    bytes.fromhex(x)
    for x in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def leaves(count: int) -> list[bytes]:
    return [leaf_hash(f"leaf {index}".encode()) for index in range(count)]


def mth(hashes: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return hashlib.sha256(b"\x01" + mth(hashes[:k]) + mth(hashes[k:])).digest()


@lru_cache(maxsize=256)
def nodes(size: int):
    """Looks up complete subtrees only, as a store does."""
    hashes = leaves(size)

    def look(level: int, index: int) -> bytes:
        part = hashes[index << level : (index + 1) << level]
        assert len(part) == 1 << level, "asked for a subtree that is not complete"
        return mth(part)

    return look


class TestHashes:
    @pytest.mark.parametrize(("count", "root"), list(enumerate(ROOTS)))
    def test_roots_of_the_reference_tree(self, count: int, root: str) -> None:
        hashes = [leaf_hash(data) for data in INPUTS[:count]]
        frontier = Frontier()
        for leaf in hashes:
            frontier.append(leaf)
        assert tree_root(hashes).hex() == frontier.root.hex() == root

    def test_leaf_and_node_of_the_reference_implementation(self) -> None:
        leaf = "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
        assert leaf_hash(b"L123456").hex() == leaf
        node = "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"
        assert node_hash(b"N123", b"N456").hex() == node

    def test_leaves_and_nodes_are_kept_apart(self) -> None:
        left, right = leaf_hash(b"a"), leaf_hash(b"b")
        assert leaf_hash(left + right) != node_hash(left, right)

    def test_nothing_has_the_hash_of_nothing(self) -> None:
        assert tree_root([]) == EMPTY_ROOT == Frontier().root
        assert leaf_hash(b"") != EMPTY_ROOT


class TestGrowth:
    def test_a_frontier_has_the_root_at_every_size(self) -> None:
        frontier, hashes = Frontier(), leaves(130)
        for size, leaf in enumerate(hashes, start=1):
            completed = frontier.append(leaf)
            assert frontier.root == mth(hashes[:size])
            assert frontier.size == size
            for level, node in enumerate(completed):
                assert node == mth(hashes[size - (1 << level) : size])
            assert len(completed) == (size & -size).bit_length()

    @pytest.mark.parametrize("size", [0, 1, 2, 7, 8, 100])
    def test_it_can_be_taken_up_anywhere(self, size: int) -> None:
        frontier = Frontier.of(size, nodes(101))
        assert frontier.root == mth(leaves(size))
        copy = frontier.copy()
        copy.append(leaves(size + 1)[size])
        assert copy.root == mth(leaves(size + 1))
        assert frontier.size == size

    def test_an_edge_of_another_shape_is_refused(self) -> None:
        with pytest.raises(ProofError, match="2 nodes on its edge"):
            Frontier(5, leaves(3))

    @pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100])
    def test_levels_hold_every_node_once(self, size: int) -> None:
        levels = tree_levels(leaves(size))
        assert levels[0] == leaves(size)
        assert len(levels[-1]) == 1
        assert len(levels) == (size - 1).bit_length() + 1

    def test_a_tree_of_subtree_roots_is_the_same_tree(self) -> None:
        hashes = leaves(77)
        parts = [tree_root(hashes[start : start + 8]) for start in range(0, 77, 8)]
        assert tree_root(parts) == mth(hashes)


class TestProofs:
    @pytest.mark.parametrize("size", [*range(1, 40), 64, 100])
    def test_every_leaf_is_proved_and_nothing_else(self, size: int) -> None:
        hashes = leaves(size)
        root, paths = mth(hashes), inclusion_paths(hashes)
        for index in range(size):
            path = prove_inclusion(index, size, nodes(size))
            assert path == paths[index]
            assert len(path) == path_length(index, size)
            verify_inclusion(hashes[index], index, size, path, root)
            for lie in ((leaf_hash(b"other"), index), (hashes[index], (index + 1) % size)):
                if lie != (hashes[index], index):
                    with pytest.raises(ProofError):
                        verify_inclusion(*lie, size, path, root)

    def test_a_proof_is_about_the_size_that_was_asked_for(self) -> None:
        look = nodes(100)
        for size in range(8, 100, 7):
            verify_inclusion(
                leaves(8)[7], 7, size, prove_inclusion(7, size, look), subtree_root(0, size, look)
            )

    @pytest.mark.parametrize("size2", [1, 2, 3, 4, 7, 8, 9, 31, 32, 33, 61])
    def test_every_size_is_the_beginning_of_every_later_one(self, size2: int) -> None:
        look, root2 = nodes(size2), mth(leaves(size2))
        for size1 in range(1, size2 + 1):
            proof = prove_consistency(size1, size2, look)
            root1 = mth(leaves(size1))
            verify_consistency(size1, size2, proof, root1, root2)
            with pytest.raises(ProofError):
                verify_consistency(size1, size2, proof, mth([*leaves(size1 - 1), leaf_hash(b"x")]), root2)
            with pytest.raises(ProofError):
                verify_consistency(size1, size2, [*proof, bytes(32)], root1, root2)
            if proof:
                with pytest.raises(ProofError):
                    verify_consistency(size1, size2, proof[:-1], root1, root2)

    def test_proofs_of_the_example_in_the_specification(self) -> None:
        a, b, c, d, e, f, g = leaves(7)
        h, i, j = node_hash(a, b), node_hash(c, d), node_hash(e, f)
        k, el = node_hash(h, i), node_hash(j, g)
        look = nodes(7)
        assert prove_inclusion(0, 7, look) == [b, i, el]
        assert prove_inclusion(3, 7, look) == [c, h, el]
        assert prove_inclusion(4, 7, look) == [f, g, k]
        assert prove_inclusion(6, 7, look) == [j, k]
        assert prove_consistency(3, 7, look) == [c, d, h, el]
        assert prove_consistency(4, 7, look) == [el]
        assert prove_consistency(6, 7, look) == [j, g, k]

    def test_every_subtree_of_a_small_tree(self) -> None:
        size, proved = 21, 0
        look, root, hashes = nodes(size), mth(leaves(size)), leaves(size)
        for start in range(size):
            for end in range(start + 1, size + 1):
                if start % (1 << (end - start - 1).bit_length()):
                    with pytest.raises(ProofError, match="no subtree"):
                        prove_consistency(end, size, look, start=start)
                    continue
                part = mth(hashes[start:end])
                assert subtree_root(start, end, look) == part
                proof = prove_consistency(end, size, look, start=start)
                verify_subtree_consistency(start, end, size, proof, part, root)
                with pytest.raises(ProofError):
                    verify_subtree_consistency(start, end, size, proof, leaf_hash(b"x"), root)
                for index in range(start, end):
                    path = prove_inclusion(index, end, look, start=start)
                    verify_inclusion(hashes[index], index, end, path, part, start=start)
                proved += 1
        assert proved > 50

    @pytest.mark.parametrize(("index", "size"), [(-1, 4), (4, 4), (0, 0), (0, -1), (0, MAX_SIZE + 1)])
    def test_leaves_that_there_are_not(self, index: int, size: int) -> None:
        with pytest.raises(ProofError):
            prove_inclusion(index, size, nodes(4))
        with pytest.raises(ProofError):
            verify_inclusion(bytes(32), index, size, [], bytes(32))

    @pytest.mark.parametrize(("size1", "size2"), [(0, 4), (0, 0), (5, 4), (-1, 4), (1, MAX_SIZE + 1)])
    def test_sizes_that_prove_nothing(self, size1: int, size2: int) -> None:
        with pytest.raises(ProofError):
            verify_consistency(size1, size2, [], EMPTY_ROOT, EMPTY_ROOT)
        if size2 <= 4:
            with pytest.raises(ProofError):
                prove_consistency(size1, size2, nodes(4))

    def test_hashes_of_another_length_are_refused(self) -> None:
        left, right = leaves(2)
        root = node_hash(left, right)
        with pytest.raises(ProofError, match="not the hashes"):
            verify_inclusion(left, 0, 2, [right + b"\x00"], root)
        with pytest.raises(ProofError):
            verify_consistency(1, 2, [right[:-1]], left, root)

    def test_a_failed_proof_is_a_failed_verification(self) -> None:
        with pytest.raises(ProofError) as caught:
            verify_inclusion(bytes(32), 0, 1, [], bytes(31) + b"\x01")
        assert caught.value.exit_status == ExitStatus.VERIFICATION_FAILED


@given(size=st.integers(1, 300), data=st.data())
def test_a_bit_changed_anywhere_breaks_a_proof(size: int, data: st.DataObject) -> None:
    look, root = nodes(size), subtree_root(0, size, nodes(size))
    index = data.draw(st.integers(0, size - 1))
    older = data.draw(st.integers(1, size))
    leaf, path = look(0, index), prove_inclusion(index, size, look)
    proof, root1 = prove_consistency(older, size, look), subtree_root(0, older, look)
    verify_inclusion(leaf, index, size, path, root)
    verify_consistency(older, size, proof, root1, root)

    def flipped(node: bytes) -> bytes:
        bit = data.draw(st.integers(0, 255))
        return (int.from_bytes(node, "big") ^ 1 << bit).to_bytes(32, "big")

    place = data.draw(st.integers(0, len(path) + 1))
    parts = [leaf, root, *path]
    parts[place] = flipped(parts[place])
    with pytest.raises(ProofError):
        verify_inclusion(parts[0], index, size, parts[2:], parts[1])
    place = data.draw(st.integers(0, len(proof) + 1))
    parts = [root1, root, *proof]
    parts[place] = flipped(parts[place])
    with pytest.raises(ProofError):
        verify_consistency(older, size, parts[2:], parts[0], parts[1])
