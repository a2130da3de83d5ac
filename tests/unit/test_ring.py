"""Updates in the ring: what the quantiser does to a sum of them, and how an agreement sets it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hansa.protocol import public_weights, update_encoding
from hansa.secagg.errors import SumTermsError, VectorError
from hansa.secagg.ring import Quantiser
from support.leagues import frozen_league

vectors = hnp.arrays(np.float64, st.integers(1, 8), elements=st.floats(-1e9, 1e9))


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=20))
def test_a_sum_is_off_by_half_a_step_for_each_vector(values: list[float]) -> None:
    encoding = Quantiser.finest(2.5, 20)
    parts = [np.array([v, -v]) for v in values]
    total = np.sum([encoding.encode(p) for p in parts], axis=0, dtype=np.uint32)
    decoded = encoding.to_units(encoding.decode(total, len(parts)))
    exact = np.sum([np.clip(p, -2.5, 2.5) for p in parts], axis=0)
    assert np.abs(decoded - exact).max() <= len(parts) * 0.5 / encoding.scale + 1e-12


@given(st.integers(1, 2**20), st.floats(1e-6, 1e6))
def test_the_extremes_of_any_number_of_members_do_not_wrap(members: int, bound: float) -> None:
    encoding = Quantiser.finest(bound, members)
    most = encoding.encode(np.array([bound, -bound, 1e300, -1e300]))
    total = (most.astype(np.uint64) * members).astype(np.uint32)
    reached = encoding.to_units(encoding.decode(total, members)) / members
    # the bound itself may lie between two steps
    assert np.abs(reached - [bound, -bound, bound, -bound]).max() < 1 / encoding.scale


@given(vectors)
def test_one_vector_survives(vector: np.ndarray) -> None:
    encoding = Quantiser.finest(1e9, 1)
    decoded = encoding.to_units(encoding.decode(encoding.encode(vector), 1))
    assert np.abs(decoded - vector).max() <= 0.5 / encoding.scale


def test_infinities_that_cancel_are_not_encoded() -> None:
    with pytest.raises(VectorError, match="NaN or infinities"):
        Quantiser.finest(1.0, 3).encode(np.array([np.inf, -np.inf]))


@pytest.mark.parametrize(
    ("bound", "members"),
    [(0.0, 3), (-1.0, 3), (math.nan, 3), (math.inf, 3), (1.0, 0), (5e-324, 3), (1e308, 100)],
)
def test_bounds_without_a_grid_are_refused(bound: float, members: int) -> None:
    with pytest.raises(SumTermsError, match="no grid fits"):
        Quantiser.finest(bound, members)


class TestUpdateEncoding:
    """The quantiser of an agreement's updates."""

    def test_without_noise_it_holds_sixteen_times_the_reach_of_a_unit_gradient(self) -> None:
        agreement, _ = frozen_league(privacy={"mechanism": "none", "epsilon": None, "delta": None})
        terms = agreement.terms
        reach = terms.training.learning_rate * terms.local_steps
        encoding = update_encoding(agreement)
        assert encoding.clip == pytest.approx(max(public_weights(terms).values()) * reach * 16)
        assert (encoding.members, encoding.noise_sd) == (len(terms.members), 0)

    def test_with_noise_no_member_is_clipped_within_eight_standard_deviations(self) -> None:
        agreement, _ = frozen_league()
        terms, multiplier = agreement.terms, agreement.require_frozen().noise_multiplier
        assert multiplier is not None
        norm = terms.privacy.clipping_norm
        for member in terms.members:
            expected_batch = terms.privacy.sampling_rate * member.units
            step = norm + 8 * multiplier * norm / expected_batch
            furthest = (
                public_weights(terms)[member.name] * terms.training.learning_rate * terms.local_steps * step
            )
            assert furthest < update_encoding(agreement).clip

    def test_all_members_at_the_bound_fit_and_a_finer_grid_does_not(self) -> None:
        encoding = update_encoding(frozen_league()[0])
        assert encoding == Quantiser.finest(encoding.clip, encoding.members)
        assert encoding.reach(encoding.members) <= encoding.limit
        with pytest.raises(SumTermsError):
            Quantiser(encoding.clip, 2 * encoding.scale, encoding.members)

    def test_it_follows_from_public_numbers_alone(self) -> None:
        assert update_encoding(frozen_league()[0]) == update_encoding(frozen_league()[0])
