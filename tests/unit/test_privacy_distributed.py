"""Shared noise in public numbers: what a share is, what many are, and what has room in the ring."""

from __future__ import annotations

import math

import pytest

from hansa.errors import PrivacyParameterError
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.charges import charges_of
from hansa.privacy.distributed import (
    LARGEST_ROUNDING_SHARE,
    RING_LIMIT,
    SharedNoise,
    largest_batch,
    losses,
    share_multiplier,
)
from hansa.privacy.grid import Grid
from hansa.protocol.derivation import pooled_encoding
from hansa.quorum import members_for, smallest_sum, threshold
from support.leagues import terms_of

LEAGUE = {
    "members": 5, "smallest_sum": 4, "colluding": 1, "noise_multiplier": 3.0, "clipping_norm": 0.5,
    "dimension": 28, "batch": 200,
}  # fmt: skip


def fitted(**changes: float) -> SharedNoise:
    return SharedNoise.fitted(**{**LEAGUE, **changes})  # type: ignore[arg-type]


def test_so_many_shares_as_were_promised_are_the_promised_noise() -> None:
    noise = fitted()
    assert noise.honest == 3
    charged = noise.share_sigma**2 - 4  # each share is charged as that continuous Gaussian, rounded
    assert math.sqrt(noise.honest * charged) / noise.grid.sensitivity == pytest.approx(3.0, rel=1e-12)
    assert noise.share_multiplier == share_multiplier(3.0, 4, 1) == pytest.approx(3.0 / math.sqrt(3))
    assert noise.grid.sensitivity == noise.grid.scale * 0.5 + math.sqrt(28)
    assert noise.share_sigma >= 20


def test_more_contributors_are_a_surplus() -> None:
    noise = fitted()
    assert [noise.surplus(k) for k in (3, 4, 5)] == [1.0, pytest.approx(4 / 3), pytest.approx(5 / 3)]
    assert noise.variance(5) == pytest.approx(5 * noise.share_sigma**2)
    sd = noise.mean_gradient_sd(4, 100.0)
    assert sd == pytest.approx(2 * noise.share_sigma / (noise.grid.scale * 100))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dimension": 75_000, "members": 100, "smallest_sum": 67, "batch": 1300},
        {"dimension": 10**7, "batch": 5000},
        {"noise_multiplier": 400.0, "dimension": 75_000},
        {"members": 3, "smallest_sum": 3, "clipping_norm": 1e-3},
    ],
)
def test_the_ring_holds_every_sum_and_its_noise(changes: dict[str, float]) -> None:
    noise = fitted(**changes)
    encoding = pooled_encoding(noise)  # the ring's own check: it refuses terms that do not fit
    assert encoding.magnitude == noise.clamp
    assert encoding.reach(noise.members) <= RING_LIMIT == encoding.limit
    assert (
        math.sqrt(noise.grid.dimension)
        <= LARGEST_ROUNDING_SHARE * noise.grid.scale * noise.grid.clipping_norm
    )
    assert noise.clamp >= 8 * noise.grid.scale * noise.grid.clipping_norm
    assert encoding.wrap_probability(noise.grid.dimension) == pytest.approx(noise.wrap_probability(1))
    assert noise.wrap_probability(10_000) < 1e-18


def test_a_small_model_keeps_the_fine_grid_and_is_never_clamped() -> None:
    noise = fitted()
    assert noise.grid == Grid.of(0.5, 28)
    assert noise.clamp == 200 * noise.grid.scale * 0.5


def test_what_has_no_room_is_refused_with_what_would_help() -> None:
    with pytest.raises(PrivacyParameterError, match="does not fit the ring") as refused:
        fitted(noise_multiplier=5e4, dimension=10**7)
    assert "adapter" in str(refused.value.diagnostics())


@pytest.mark.parametrize("numbers", [(1.0, 3, 3), (0.0, 3, 1), (math.inf, 3, 1)])
def test_no_share_is_made_of_nothing(numbers: tuple[float, int, int]) -> None:
    with pytest.raises(PrivacyParameterError):
        share_multiplier(*numbers)


def test_batches_are_smaller_than_the_largest() -> None:
    from scipy import stats

    for rate, units in ((0.5, 200), (0.1, 6000), (0.01, 190), (1.0, 40)):
        assert stats.binom.sf(largest_batch(rate, units), units, rate) < 1e-12


def test_quorums() -> None:
    assert [threshold(n) for n in (3, 4, 5, 6, 9)] == [3, 3, 4, 5, 7]
    assert [smallest_sum(n, 5) for n in (5, 9)] == [5, 7]
    assert members_for(1, 3, 3) == 5  # of four members three may be the smallest sum
    assert members_for(2, 1, 3) == 3


class TestLosses:
    def test_both_are_recomputed_from_the_terms(self) -> None:
        terms = terms_of(privacy={"mechanism": "distributed"}, training={"rounds": 8}).terms
        told = losses(terms, 2.0)
        (charge,) = charges_of(terms, 2.0)
        assert told.epsilon_any == epsilon_spent([charge.against(None)], 1e-3)
        assert told.epsilon_colluding == epsilon_spent([charge.against(1)], 1e-3)
        assert told.epsilon_any > 1.3 * told.epsilon_colluding
        assert (told.colluding, told.delta) == (1, 1e-3)

    def test_local_noise_is_one_number(self) -> None:
        told = losses(terms_of().terms, 2.0)
        assert told.epsilon_colluding is None

    def test_without_privacy_there_is_no_price(self) -> None:
        terms = terms_of(privacy={"mechanism": "none", "epsilon": None, "delta": None}).terms
        with pytest.raises(PrivacyParameterError, match="no price"):
            losses(terms, 1.0)
