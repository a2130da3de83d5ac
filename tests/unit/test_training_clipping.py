"""Clipped sums: bounded, exact, and indifferent to how a batch is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hansa.errors import TrainingError
from hansa.privacy.grid import Grid
from hansa_client.training.clipping import ClippedSum, ClippedSumBuilder

SHAPES = ((3, 2), (4,))
DIMENSION = 10
GRID = Grid.of(1.5, DIMENSION)


def gradients(records: int, seed: int, size: float = 1.0) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [size * torch.randn((records, *shape), generator=rng) for shape in SHAPES]


def clipped(parts: list[tuple[list[torch.Tensor], np.ndarray]], grid: Grid = GRID) -> np.ndarray:
    builder = ClippedSumBuilder(grid)
    for part, units in parts:
        builder.add([g.clone() for g in part], units)
    return builder.finish().values


def each(records: int) -> np.ndarray:
    return np.arange(records, dtype=np.int64)


def rows(part: list[torch.Tensor], chosen: slice) -> list[torch.Tensor]:
    return [g[chosen] for g in part]


@given(st.integers(1, 30), st.integers(0, 10**6), st.floats(1e-3, 1e6))
def test_one_unit_is_within_the_bound(records: int, seed: int, size: float) -> None:
    part = gradients(records, seed, size)
    for i in range(records):
        one = clipped([(rows(part, slice(i, i + 1)), each(1))])
        assert np.linalg.norm(one) <= GRID.scale * GRID.clipping_norm + np.sqrt(DIMENSION) / 2


@given(st.integers(2, 30), st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_removing_a_unit_moves_the_sum_by_at_most_the_sensitivity(
    records: int, seed: int, size: float
) -> None:
    part = gradients(records, seed, size)
    with_it = clipped([(part, each(records))])
    without = clipped([(rows(part, slice(1, records)), each(records - 1))])
    assert np.linalg.norm(with_it - without) <= GRID.sensitivity


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 10**6))
def test_how_a_batch_is_cut_changes_nothing(records: int, cut: int, seed: int) -> None:
    part = gradients(records, seed, 3.0)
    pieces = [(rows(part, slice(i, i + cut)), each(min(cut, records - i))) for i in range(0, records, cut)]
    assert np.array_equal(clipped(pieces), clipped([(part, each(records))]))


def test_a_small_gradient_is_kept_to_the_grid() -> None:
    part = gradients(1, 0, 1e-3)
    flat = np.concatenate([g[0].flatten().double().numpy() for g in part])
    assert (
        np.abs(clipped([(part, each(1))]) / GRID.scale - flat).max()
        <= 0.51 / GRID.scale + 2**-12 * np.abs(flat).max()
    )


def test_a_large_gradient_keeps_its_direction() -> None:
    part = gradients(1, 0, 1e4)
    flat = np.concatenate([g[0].flatten().double().numpy() for g in part])
    got = clipped([(part, each(1))]) / GRID.scale
    assert np.linalg.norm(got) == pytest.approx(1.5, rel=1e-3)
    assert got @ flat / np.linalg.norm(flat) == pytest.approx(1.5, rel=1e-3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_a_gradient_that_is_not_finite_counts_as_zero(bad: float) -> None:
    part = gradients(3, 1)
    alone = clipped([(rows(part, slice(1, 3)), each(2))])
    part[0][0, 0, 0] = bad
    builder = ClippedSumBuilder(GRID)
    builder.add([g.clone() for g in part], each(3))
    assert np.array_equal(builder.finish().values, alone)
    assert builder.non_finite_units == 1


@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-30])
def test_zero_and_denormal_gradients_are_no_trouble(size: float) -> None:
    assert np.array_equal(clipped([(gradients(4, 2, size), each(4))]), np.zeros(DIMENSION))


def test_records_of_a_unit_are_summed_and_clipped_once() -> None:
    part = gradients(5, 3, 10.0)
    units = np.array([0, 1, 0, 1, 0])
    got = clipped([(part, units)])
    summed = [torch.stack([g[units == u].sum(0) for u in (0, 1)]) for g in part]
    assert np.array_equal(got, clipped([(summed, each(2))]))
    one_unit = clipped([(part, np.zeros(5, dtype=np.int64))])
    assert np.linalg.norm(one_unit) <= GRID.scale * 1.5 + np.sqrt(DIMENSION) / 2


def test_an_empty_sum_is_zero() -> None:
    assert np.array_equal(ClippedSumBuilder(GRID).finish().values, np.zeros(DIMENSION))


def test_a_finished_sum_takes_nothing_more() -> None:
    builder = ClippedSumBuilder(GRID)
    builder.add(gradients(3, 1, 1.0), each(3))
    total = builder.finish()
    before = total.values.copy()
    with pytest.raises(TrainingError, match="finished"):
        builder.add(gradients(3, 1, 1.0), each(3))
    assert builder.finish() is total
    assert np.array_equal(total.values, before)


@pytest.mark.parametrize(
    "values", [np.zeros(9, dtype=np.int64), np.zeros(10), np.zeros((10, 1), dtype=np.int64)]
)
def test_a_clipped_sum_is_made_of_grid_integers_only(values: np.ndarray) -> None:
    with pytest.raises(TrainingError):
        ClippedSum(values, GRID)


def test_a_clipped_sum_cannot_be_changed() -> None:
    total = ClippedSumBuilder(GRID).finish()
    with pytest.raises(ValueError, match="read-only"):
        total.values[0] = 1
