"""Sums in the ring: exact, in range, and told when they are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hansa.errors import TrainingError, WireError
from hansa.secagg.ring import RingEncoding, ring_sum

vectors = hnp.arrays(np.float64, st.integers(1, 8), elements=st.floats(-1e9, 1e9))


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=20), st.integers(0, 1000))
def test_a_sum_decodes_to_the_sum_of_what_was_encoded(values: list[float], seed: int) -> None:
    encoding = RingEncoding(bound=2.5, members=20)
    parts = [np.array([v, -v]) for v in values]
    decoded = encoding.decode_sum(ring_sum([encoding.encode(p) for p in parts], 2), len(parts))
    exact = np.sum([np.clip(p, -2.5, 2.5) for p in parts], axis=0)
    assert np.abs(decoded - exact).max() <= len(parts) * encoding.resolution / 2 + 1e-12


@given(st.integers(1, 2**20))
def test_the_extremes_of_all_members_do_not_wrap(members: int) -> None:
    encoding = RingEncoding(bound=1.0, members=members)
    most = encoding.encode(np.array([1.0, -1.0, 1e300, -1e300]))
    total = (most.astype(np.uint64) * members).astype(np.uint32)
    assert np.allclose(encoding.decode_sum(total, members), [members, -members, members, -members])


@given(vectors)
def test_one_vector_survives(vector: np.ndarray) -> None:
    encoding = RingEncoding(bound=1e9, members=3)
    assert (
        np.abs(encoding.decode_sum(encoding.encode(vector), 1) - vector).max()
        <= encoding.resolution / 2 * 1.001
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_not_encoded(bad: float) -> None:
    with pytest.raises(TrainingError, match="NaN or infinity"):
        RingEncoding(1.0, 3).encode(np.array([0.0, bad]))


def test_infinities_that_cancel_are_not_encoded() -> None:
    with pytest.raises(TrainingError):
        RingEncoding(1.0, 3).encode(np.array([np.inf, -np.inf]))


def test_a_sum_out_of_range_is_told() -> None:
    encoding = RingEncoding(bound=1.0, members=5)
    honest = encoding.encode(np.array([1.0]))
    cheat = np.array([2**31 - 1], dtype=np.uint32)
    with pytest.raises(WireError, match="out of range"):
        encoding.decode_sum(ring_sum([honest, cheat], 1), 2)


@pytest.mark.parametrize("count", [0, 6])
def test_a_sum_over_more_than_were_foreseen_is_refused(count: int) -> None:
    encoding = RingEncoding(bound=1.0, members=5)
    with pytest.raises(WireError, match="not foreseen"):
        encoding.decode_sum(np.zeros(1, dtype=np.uint32), count)


@pytest.mark.parametrize(("bound", "members"), [(0.0, 3), (-1.0, 3), (np.nan, 3), (np.inf, 3), (1.0, 0)])
def test_encodings_without_a_meaning_are_refused(bound: float, members: int) -> None:
    with pytest.raises(WireError):
        RingEncoding(bound, members)
