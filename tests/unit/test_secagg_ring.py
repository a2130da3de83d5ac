"""The quantiser: what is refused, what is clipped, and that sums decode exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hansa.secagg.errors import SumOutOfRangeError, SumTermsError, VectorError
from hansa.secagg.ring import NOISE_REACH_SD, Quantiser


def test_encoding_rounds_to_nearest_even_and_clips() -> None:
    quantiser = Quantiser(clip=1.0, scale=4.0, members=3)
    values = np.array([0.0, 0.1, 0.125, 0.375, -0.125, 0.99, 1.0, 7.0, -7.0])
    steps = quantiser.encode(values).view(np.int32)
    assert steps.tolist() == [0, 0, 0, 2, 0, 4, 4, 4, -4]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_float_widths_encode_alike(dtype: type) -> None:
    quantiser = Quantiser.finest(1.0, 10)
    values = np.random.default_rng(1).normal(0, 0.5, 200_000).astype(dtype)
    exact = np.clip(
        np.rint(values.astype(np.float64) * quantiser.scale), -quantiser.magnitude, quantiser.magnitude
    )
    assert (quantiser.encode(values).view(np.int32) == exact).all()


def test_a_magnitude_that_float32_cannot_hold_is_never_exceeded() -> None:
    quantiser = Quantiser(clip=1 - 2.0**-30, scale=2.0**28, members=3)
    assert int(np.float32(quantiser.magnitude)) > quantiser.magnitude  # rounding would go beyond it
    single = quantiser.encode(np.array([9.0, -9.0], dtype=np.float32)).view(np.int32).tolist()
    below = int(np.nextafter(np.float32(quantiser.magnitude), np.float32(0)))
    assert single == [below, -below]
    assert quantiser.encode(np.array([9.0])).tolist() == [quantiser.magnitude]


def test_a_scale_that_is_no_power_of_two_is_worked_out_in_double_precision() -> None:
    quantiser = Quantiser(clip=1.0, scale=10_000_019.0, members=3)
    value = np.float32(0.7654321)
    assert quantiser.encode(np.array([value])).tolist() == [round(float(value) * 10_000_019.0)]


def test_finite_values_that_scale_to_infinity_are_clipped() -> None:
    quantiser = Quantiser(clip=1.0, scale=2.0**20, members=3)
    steps = quantiser.encode(np.array([3e38, -3e38], dtype=np.float32)).view(np.int32)
    assert steps.tolist() == [2**20, -(2**20)]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 70_000])
def test_values_that_are_no_numbers_are_refused(bad: float, place: int) -> None:
    values = np.zeros(70_001)
    values[place] = bad
    with pytest.raises(VectorError, match="NaN or infinities") as caught:
        Quantiser.finest(1.0, 3).encode(values)
    assert str(place) not in caught.value.cause  # nothing that depends on data


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((2, 2)),
        np.zeros(3, dtype=np.float16),
        np.zeros(3, dtype=np.complex128),
        np.zeros(3, dtype=bool),
        np.zeros(3, dtype=np.uint32),
        [0.0, 1.0],
    ],
    ids=["matrix", "float16", "complex", "bool", "uint32", "list"],
)
def test_other_shapes_and_types_are_refused(values: object) -> None:
    with pytest.raises(VectorError):
        Quantiser.finest(1.0, 3).encode(values)  # type: ignore[arg-type]


@pytest.mark.parametrize("out", [np.zeros(2, np.uint32), np.zeros(3, np.int32)], ids=["length", "dtype"])
def test_an_output_of_another_kind_is_refused(out: np.ndarray) -> None:
    with pytest.raises(VectorError):
        Quantiser.finest(1.0, 3).encode(np.zeros(3), out=out)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_integers_on_the_grid_are_reduced_and_never_judged(dtype: type) -> None:
    quantiser = Quantiser(clip=10.0, scale=1.0, members=3)
    values = np.array([5, -5, 11, -(2**31), 2**31 - 1], dtype=dtype)
    assert quantiser.encode(values).view(np.int32).tolist() == values.tolist()


def test_integers_wider_than_the_ring_wrap() -> None:
    quantiser = Quantiser(clip=10.0, scale=1.0, members=3)
    assert quantiser.encode(np.array([2**32 + 7, -(2**32) - 7])).tolist() == [7, 2**32 - 7]


def test_the_largest_sum_is_decoded_and_one_more_is_not() -> None:
    quantiser = Quantiser(clip=1.0, scale=2.0**20, members=4)
    full = np.full(3, 4 * quantiser.magnitude, dtype=np.int64)
    assert quantiser.decode(full.astype(np.uint32), 4).tolist() == full.tolist()
    for outside in (full + 1, -full - 1):
        with pytest.raises(SumOutOfRangeError, match="3 of 3"):
            quantiser.decode(outside.astype(np.uint32), 4)


def test_fewer_contributors_narrow_the_range() -> None:
    quantiser = Quantiser(clip=1.0, scale=2.0**20, members=4)
    three = np.array([3 * quantiser.magnitude + 1], dtype=np.uint32)
    quantiser.decode(three, 4)
    with pytest.raises(SumOutOfRangeError):
        quantiser.decode(three, 3)


@pytest.mark.parametrize("contributors", [0, 5])
def test_a_number_of_contributors_that_cannot_be_is_refused(contributors: int) -> None:
    with pytest.raises(VectorError):
        Quantiser(clip=1.0, scale=2.0, members=4).decode(np.zeros(1, np.uint32), contributors)


def test_noise_widens_the_range_by_its_reach() -> None:
    quiet = Quantiser(clip=1.0, scale=1000.0, members=4)
    noisy = Quantiser(clip=1.0, scale=1000.0, members=4, noise_sd=50.0)
    assert noisy.reach(4) == quiet.reach(4) + math.ceil(NOISE_REACH_SD * 50 * 2)
    noisy.decode(np.array([noisy.reach(4)], dtype=np.uint32), 4)
    with pytest.raises(SumOutOfRangeError):
        quiet.decode(np.array([noisy.reach(4)], dtype=np.uint32), 4)


def test_the_probability_of_a_wrap_by_noise_is_stated_and_tiny() -> None:
    quantiser = Quantiser(clip=1.0, scale=1000.0, members=4, noise_sd=50.0)
    assert 0 < quantiser.wrap_probability(10**8) < 1e-22
    assert Quantiser(clip=1.0, scale=1000.0, members=4).wrap_probability(10**8) == 0


@pytest.mark.parametrize("members", [3, 10, 100])
@pytest.mark.parametrize("guard_bits", [1, 4])
@pytest.mark.parametrize("clip", [1e-3, 1.0, 250.0])
def test_the_finest_grid_cannot_overflow_and_a_finer_one_is_refused(
    members: int, guard_bits: int, clip: float
) -> None:
    quantiser = Quantiser.finest(clip, members, guard_bits)
    assert members * quantiser.magnitude <= quantiser.limit < 2**31
    with pytest.raises(SumTermsError):
        Quantiser(clip, quantiser.scale * 2, members, guard_bits)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"clip": 0.0}, "clip"),
        ({"clip": math.nan}, "clip"),
        ({"clip": math.inf}, "clip"),
        ({"scale": -1.0}, "scale"),
        ({"scale": 0.5}, "scale"),
        ({"scale": 2.0**31}, "scale"),
        ({"clip": 1e200, "scale": 1e200}, "scale"),
        ({"members": 0}, "members"),
        ({"guard_bits": 0}, "guard_bits"),
        ({"guard_bits": 9}, "guard_bits"),
        ({"noise_sd": -1.0}, "noise_sd"),
        ({"noise_sd": math.nan}, "noise_sd"),
        ({"noise_sd": 1e9}, "scale"),
    ],
)
def test_a_quantiser_that_could_wrap_or_loses_everything_is_refused(changes: dict, place: str) -> None:
    with pytest.raises(SumTermsError) as caught:
        Quantiser(**{"clip": 1.0, "scale": 1000.0, "members": 5, **changes})
    assert [problem.place for problem in caught.value.problems] == [place]


def test_units_come_back_exactly_on_a_grid_of_powers_of_two() -> None:
    quantiser = Quantiser.finest(1.0, 3)
    values = np.array([0.25, -0.5, 0.75])
    total = quantiser.encode(values)
    total += quantiser.encode(values)
    assert quantiser.to_units(quantiser.decode(total, 2)).tolist() == [0.5, -1.0, 1.5]
