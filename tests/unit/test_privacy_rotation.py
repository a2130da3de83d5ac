"""A rotation keeps lengths, is undone by everybody to the same bits, and spreads what one coordinate holds."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from scipy import stats

from hansa.errors import PrivacyParameterError
from hansa.privacy.distributed import RING_LIMIT, SharedNoise, largest_batch
from hansa.privacy.rotation import Rotation, block_size, largest_part, walsh_hadamard
from hansa.protocol.derivation import pooled_encoding

SIZES = [1, 2, 3, 5, 8, 28, 100, 1000, 4096]


def rotation(size: int, number: int = 1) -> Rotation:
    return Rotation.of_round(size, "a" * 64, "run", number)


def matrix(size: int) -> np.ndarray:
    """H as its definition has it: signs by the parity of the common bits of row and column."""
    rows = np.arange(size)
    return 1.0 - 2.0 * (np.bitwise_count(rows[:, None] & rows) % 2)


@pytest.mark.parametrize("size", [1, 2, 8, 256])
def test_butterflies_are_the_matrix(size: int) -> None:
    values = np.random.default_rng(size).integers(-1000, 1000, size).astype(np.float64)
    found = values.copy()
    walsh_hadamard(found)
    assert np.array_equal(found, matrix(size) @ values)  # of integers: exact both ways


def test_butterflies_are_taken_in_the_order_that_is_written_down() -> None:
    """Bits follow from the order; a program of another kind, one pair at a time, comes to the same."""
    values = np.random.default_rng(3).normal(size=1 << 12) * 10.0 ** np.arange(1 << 12).__mod__(9)
    slow = values.tolist()
    distance = len(slow) // 2
    while distance:
        for place in range(len(slow)):
            if not place & distance:
                a, b = slow[place], slow[place + distance]
                slow[place], slow[place + distance] = a + b, a - b
        distance //= 2
    walsh_hadamard(values)
    assert values.tolist() == slow


@pytest.mark.parametrize("size", [3, 28, 100])
def test_a_rotation_is_orthonormal(size: int) -> None:
    turned = rotation(size)
    columns = np.stack([turned.forward(column) for column in np.eye(size)])
    assert np.abs(columns @ columns.T - np.eye(size)).max() < 1e-14


@pytest.mark.parametrize("size", SIZES)
def test_it_is_undone_but_for_the_last_digits(size: int) -> None:
    turned, values = rotation(size), np.random.default_rng(size).normal(size=size)
    image = turned.forward(values)
    length = float(np.linalg.norm(values))
    allowed = 2 * (math.log2(block_size(size)) + 2) * 2.0**-52 * length
    assert abs(np.linalg.norm(image) - length) <= allowed
    assert np.linalg.norm(turned.inverse(image) - values) <= 2 * allowed
    assert np.linalg.norm(turned.forward(turned.inverse(values)) - values) <= 2 * allowed


def test_every_machine_computes_these_bits() -> None:
    """A digest that was written down once: float64 sums in a fixed order have no other result."""
    values = np.arange(-500, 501, dtype=np.float64) / 8
    digests = [
        hashlib.sha256(made.astype("<f8").tobytes()).hexdigest()[:16]
        for made in (rotation(1001).forward(values), rotation(1001).inverse(values))
    ]
    assert digests == ["162d4087a5717dc6", "01abe18f31906d6d"]


def test_no_two_rounds_share_their_signs() -> None:
    values = np.ones(64)
    seeds = [("a", "r", 1), ("a", "r", 2), ("a", "s", 1), ("b", "r", 1)]
    made = {Rotation.of_round(64, *seed).forward(values).tobytes() for seed in seeds}
    assert len(made) == len(seeds)
    assert np.array_equal(rotation(64).forward(values), rotation(64).forward(values))


@pytest.mark.parametrize(("run", "number"), [("", 1), ("r", 0)])
def test_signs_of_no_round_are_refused(run: str, number: int) -> None:
    with pytest.raises(PrivacyParameterError, match="run and the round"):
        Rotation.of_round(8, "a", run, number)


@pytest.mark.parametrize("wrong", [np.zeros(7), np.zeros(8, dtype=np.float32), np.zeros((2, 4))])
def test_what_is_no_vector_of_the_model_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(PrivacyParameterError, match="vector of 8"):
        rotation(8).forward(wrong)
    with pytest.raises(PrivacyParameterError, match="power of two"):
        walsh_hadamard(np.zeros(7))


@pytest.mark.parametrize("size", [75_000, 1 << 16])
@pytest.mark.parametrize("place", [0, -1, 40_000])
def test_a_peak_is_spread(size: int, place: int) -> None:
    """Wherever the peak is, also where only one of the two passes meets it."""
    peak = np.zeros(size)
    peak[place] = 1.0
    image = rotation(size).forward(peak)
    assert np.abs(image).max() <= largest_part(size)
    assert np.abs(image).max() * math.sqrt(block_size(size)) < 6


def test_a_rotated_gaussian_is_one() -> None:
    """Noise is the same in every direction, and so is what it costs the model."""
    noise = np.rint(np.random.default_rng(5).normal(size=75_000) * 1000)
    assert stats.kstest(rotation(75_000).inverse(noise) / 1000, stats.norm.cdf).pvalue > 1e-4


def noise_of(dimension: int, *, rotated: bool, batch: int = 4000, members: int = 10) -> SharedNoise:
    return SharedNoise.fitted(
        members=members, smallest_sum=7, colluding=1, noise_multiplier=2.0, clipping_norm=1.0,
        dimension=dimension, batch=batch, rotated=rotated,
    )  # fmt: skip


def test_room_is_kept_for_the_largest_part_alone() -> None:
    plain, turned = (noise_of(1 << 20, rotated=flag) for flag in (False, True))
    units = plain.grid.scale
    assert (
        plain.clamp < 4000 * units
    )  # whole batches on one coordinate do not fit, on the coarsest grid that is allowed
    assert turned.clamp >= 4000 * turned.grid.scale * largest_part(
        1 << 20
    )  # and here they do, on a finer one
    assert turned.grid.scale > plain.grid.scale
    for noise in (plain, turned):
        assert pooled_encoding(noise).reach(noise.members) <= RING_LIMIT
    # a member whose records all push one coordinate: cut without a rotation, whole with one
    batch = largest_batch(0.5, 7000)
    peak = np.zeros(1 << 20)
    peak[77] = min(batch, 4000)
    assert peak[77] * plain.grid.scale > plain.clamp
    assert np.abs(rotation(1 << 20).forward(peak * turned.grid.scale)).max() <= turned.clamp


def test_a_small_model_loses_nothing() -> None:
    plain, turned = (noise_of(28, rotated=flag, batch=20) for flag in (False, True))
    assert (plain.clamp, plain.grid) == (turned.clamp, turned.grid)
    assert turned.share_sigma == plain.share_sigma
