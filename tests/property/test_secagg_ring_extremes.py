"""Extremes of the ring: any honest sum decodes exactly, any key order cancels, nothing in range is misread."""

from __future__ import annotations

import os
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hansa.secagg.errors import SumOutOfRangeError, SumTermsError
from hansa.secagg.masks import MaskKey, add_masks
from hansa.secagg.ring import Quantiser
from hansa.secagg.shares import PRIME, combine, lagrange_weights, split

CLIPS = st.floats(1e-6, 1e6)
MEMBERS = st.integers(3, 100)


def quantisers() -> st.SearchStrategy[Quantiser]:
    return st.builds(Quantiser.finest, CLIPS, MEMBERS, st.integers(1, 8))


@given(quantisers(), st.data())
@settings(max_examples=200, deadline=None)
def test_the_sum_of_any_contributions_is_exact(quantiser: Quantiser, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, min(quantiser.members, 8)))
    width = data.draw(st.sampled_from([32, 64]))
    finite = st.floats(width=width, allow_nan=False, allow_infinity=False)
    rows = data.draw(arrays(np.float32 if width == 32 else np.float64, (count, 5), elements=finite))
    total = np.zeros(5, dtype=np.uint32)
    for row in rows:
        total += quantiser.encode(row)
    bound = quantiser.magnitude
    if width == 32:  # single precision is clipped to the largest of its numbers that is not above Q
        nearest = np.float32(bound)
        bound = int(nearest) if int(nearest) <= bound else int(np.nextafter(nearest, np.float32(0)))
    exact = [
        sum(
            max(-bound, min(bound, round(Fraction(float(value)) * Fraction(quantiser.scale))))
            for value in column
        )
        for column in rows.T
    ]
    assert quantiser.decode(total, count).tolist() == exact


@given(quantisers(), st.sampled_from([-1, 1]))
def test_every_member_at_its_limit_is_within_the_range_and_a_step_more_is_not(
    quantiser: Quantiser, sign: int
) -> None:
    n = quantiser.members
    edge = np.full(3, sign * n * quantiser.magnitude, dtype=np.int64)
    assert quantiser.decode(edge.astype(np.uint32), n).tolist() == edge.tolist()
    try:
        quantiser.decode((edge + sign).astype(np.uint32), n)
    except SumOutOfRangeError:
        return
    raise AssertionError("a sum that no honest members can have was decoded")


@given(CLIPS, st.floats(1e-6, 1e12), MEMBERS, st.integers(1, 8), st.floats(0, 1e9))
def test_a_quantiser_that_exists_cannot_overflow(
    clip: float, scale: float, members: int, guard_bits: int, noise_sd: float
) -> None:
    try:
        quantiser = Quantiser(clip, scale, members, guard_bits, noise_sd)
    except SumTermsError:
        return
    assert members * quantiser.magnitude + 12 * noise_sd * members**0.5 <= 2 ** (31 - guard_bits)
    assert quantiser.magnitude >= 1


@given(arrays(np.int64, 6, elements=st.integers(-(2**63), 2**63 - 1)))
def test_integers_are_their_residues(values: np.ndarray) -> None:
    quantiser = Quantiser(clip=1.0, scale=1.0, members=3)
    assert quantiser.encode(values).tolist() == [int(value) % 2**32 for value in values]


@given(arrays(np.uint32, st.integers(1, 40)), st.integers(0, 4), st.integers(0, 4))
@settings(deadline=None)
def test_masks_come_off_in_any_order(start: np.ndarray, plus: int, minus: int) -> None:
    added, taken = [os.urandom(32) for _ in range(plus)], [os.urandom(32) for _ in range(minus)]
    vector = start.copy()
    add_masks(vector, [MaskKey(key) for key in added], [MaskKey(key) for key in taken])
    for key in reversed(taken):
        add_masks(vector, [MaskKey(key)])
    for key in added:
        add_masks(vector, [], [MaskKey(key)])
    assert (vector == start).all()


@given(st.binary(min_size=32, max_size=32), st.sets(st.integers(1, 100), min_size=3, max_size=12), st.data())
@settings(max_examples=60, deadline=None)
def test_any_threshold_of_holders_opens_any_secret(
    secret: bytes, holders: set[int], data: st.DataObject
) -> None:
    xs = sorted(holders)
    threshold = data.draw(st.integers(2, len(xs)))
    shares = dict(zip(xs, split(secret, xs, threshold, os.urandom), strict=True))
    some = data.draw(st.permutations(xs))[:threshold]
    assert combine([shares[x] for x in some], lagrange_weights(some)) == secret
    fewer = some[:-1]
    assert combine([shares[x] for x in fewer], lagrange_weights(fewer)) != secret


@given(st.sets(st.integers(1, 100), min_size=1, max_size=20))
def test_lagrange_weights_interpolate_polynomials(points: set[int]) -> None:
    xs = sorted(points)
    weights = lagrange_weights(xs)
    for degree in range(len(xs)):
        at_zero = sum(weight * pow(x, degree, PRIME) for weight, x in zip(weights, xs, strict=True)) % PRIME
        assert at_zero == (1 if degree == 0 else 0)
