"""Shamir sharing, Merkle rows and who is left out after complaints."""

from __future__ import annotations

import os
import random
from itertools import combinations

import pytest

from hansa.merkle import path_length
from hansa.secagg.commitments import check_path, merkle_paths, merkle_root, share_hash
from hansa.secagg.dealing import left_out
from hansa.secagg.errors import TranscriptError
from hansa.secagg.shares import PRIME, SHARE_BYTES, combine, lagrange_weights, split


@pytest.mark.parametrize(("n", "t"), [(1, 1), (3, 3), (5, 4), (7, 5)])
def test_any_threshold_of_shares_gives_the_secret(n: int, t: int) -> None:
    secret = os.urandom(32)
    xs = list(range(1, n + 1))
    shares = dict(zip(xs, split(secret, xs, t, os.urandom), strict=True))
    chosen = list(combinations(xs, t))
    assert chosen
    for some in chosen:
        assert combine([shares[x] for x in some], lagrange_weights(some)) == secret


def test_one_share_too_few_gives_something_else() -> None:
    secret = os.urandom(32)
    shares = split(secret, [1, 2, 3, 4, 5], 4, os.urandom)
    assert combine(shares[:3], lagrange_weights([1, 2, 3])) != secret


def test_shares_are_values_of_the_polynomial() -> None:
    drawn = iter([bytes([1]) * SHARE_BYTES, bytes([2]) * SHARE_BYTES])
    secret = bytes(range(32))
    shares = split(secret, [1, 4, 100], 3, lambda _: next(drawn))
    # x^2 has the coefficient drawn first, x the second, each its top 521 bits.
    a, b = (int.from_bytes(bytes([value]) * SHARE_BYTES, "big") >> 7 for value in (1, 2))
    for x, share in zip([1, 4, 100], shares, strict=True):
        assert int.from_bytes(share, "big") == (a * x * x + b * x + int.from_bytes(secret, "big")) % PRIME


def test_the_one_value_outside_the_field_is_drawn_again() -> None:
    drawn = [b"\xff" * SHARE_BYTES, bytes(SHARE_BYTES)]
    shares = split(bytes(32), [1, 2], 2, lambda _: drawn.pop(0))
    assert shares == [bytes(SHARE_BYTES)] * 2
    assert not drawn


def test_secrets_at_the_ends_of_their_range_survive() -> None:
    for secret in (bytes(32), b"\xff" * 32, b"\x00" * 31 + b"\x01"):
        shares = split(secret, [1, 2, 3], 3, os.urandom)
        assert combine(shares, lagrange_weights([1, 2, 3])) == secret


def test_shares_of_no_32_byte_secret_come_out_longer() -> None:
    shares = [(PRIME - 1).to_bytes(SHARE_BYTES, "big")] * 3  # the constant polynomial p - 1
    assert len(combine(shares, lagrange_weights([1, 2, 3]))) == SHARE_BYTES


@pytest.mark.parametrize(
    ("secret", "xs", "t"),
    [
        (bytes(31), [1, 2], 1),
        (bytes(32), [0, 1], 1),
        (bytes(32), [1, 1], 1),
        (bytes(32), [1, 2], 3),
        (bytes(32), [1], 0),
    ],
    ids=["short secret", "x of zero", "same x twice", "threshold above holders", "threshold of zero"],
)
def test_impossible_sharings_are_refused(secret: bytes, xs: list[int], t: int) -> None:
    with pytest.raises(ValueError, match="a sharing needs"):
        split(secret, xs, t, os.urandom)


@pytest.mark.parametrize("size", [*range(1, 20), 64, 100])
def test_every_leaf_leads_to_the_root_and_no_other_does(size: int) -> None:
    leaves = [os.urandom(96) for _ in range(size)]
    root, paths = merkle_root(leaves), merkle_paths(leaves)
    for index, leaf in enumerate(leaves):
        assert len(paths[index]) == path_length(index, size)
        check_path(leaf, index, size, paths[index], root)
        with pytest.raises(TranscriptError):
            check_path(leaf[:-1] + bytes([leaf[-1] ^ 1]), index, size, paths[index], root)
        with pytest.raises(TranscriptError):
            check_path(leaf, index, size, [*paths[index], bytes(32)], root)
        if size > 1:
            with pytest.raises(TranscriptError):
                check_path(leaf, (index + 1) % size, size, paths[index], root)
            with pytest.raises(TranscriptError):
                check_path(leaf, index, size, paths[index][:-1], root)


def test_a_share_hash_is_bound_to_everything() -> None:
    arguments = ("a" * 64, "dealer", "holder", "self-mask", b"share", b"salt")
    known = share_hash(*arguments)
    others = [("b" * 64, "x", "y", "mask-key", b"other", b"pepper")[i] for i in range(6)]
    changed = {share_hash(*arguments[:i], others[i], *arguments[i + 1 :]) for i in range(6)}
    assert len(changed) == 6
    assert known not in changed


@pytest.mark.parametrize(
    ("complaints", "out"),
    [
        ({}, set()),
        ({"a": ("b",)}, {"a", "b"}),
        ({"a": ("d",), "b": ("d",), "c": ("d",)}, {"d"}),
        ({"a": ("b", "c", "d")}, {"a"}),
        ({"a": ("b",), "c": ("d",)}, {"a", "b", "c", "d"}),
        ({"a": ("d",), "b": ("d",), "e": ("f",)}, {"d", "e", "f"}),
        ({"a": ("b",), "b": ("a",)}, {"a", "b"}),
    ],
)
def test_who_is_left_out_after_complaints(complaints: dict[str, tuple[str, ...]], out: set[str]) -> None:
    assert left_out(complaints) == out


def test_no_complaint_is_left_between_those_who_stay() -> None:
    generator = random.Random(3)  # noqa: S311  (which complaints to try is no secret)
    names = [f"m{i}" for i in range(12)]
    for _ in range(200):
        complaints = {
            holder: tuple(generator.sample([n for n in names if n != holder], generator.randint(0, 3)))
            for holder in names
        }
        out = left_out(complaints)
        assert all(
            holder in out or dealer in out for holder, dealers in complaints.items() for dealer in dealers
        )
