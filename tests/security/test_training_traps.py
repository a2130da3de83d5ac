"""What goes wrong in DP training elsewhere, tried on the clipped sums that run here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hansa.errors import TrainingError
from hansa.privacy.clipping import Clipping
from hansa.privacy.grid import Grid
from hansa_client.training.clipping import ClippedSumBuilder
from hansa_client.training.gradients import GradientEngine
from support.classifiers import built_of, moved

RECORDS = 6


class Net(nn.Module):
    """Two layers over sequences, wide enough for ghost norms, and a table of positions that is looked up once."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(3, 40)
        self.first = nn.Linear(40, 50)
        self.norm = nn.LayerNorm(50)
        self.head = nn.Linear(50, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x + self.places(torch.arange(3).unsqueeze(0)))
        return self.head(self.norm(torch.tanh(hidden))).mean(1)


def rows(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(RECORDS, 3, 40)).astype(np.float32)


def engine_of() -> GradientEngine:
    torch.manual_seed(0)
    return GradientEngine(built_of(moved(Net()).train(), {"x": rows()}))


def total(
    engine: GradientEngine, x: np.ndarray, kind: str = "flat", norm: float = 0.1
) -> tuple[np.ndarray, int]:
    builder = ClippedSumBuilder(Grid.of(norm, engine.built.flat.size), Clipping(kind, norm))
    labels = np.arange(len(x), dtype=np.int64) % 3
    engine.add_clipped(builder, {"x": x}, labels, np.arange(len(x)))
    return builder.finish().values, builder.non_finite_units


@pytest.mark.parametrize("kind", ["flat", "per-layer", "automatic"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, -3e38])
def test_nan_injection_counts_as_zero_and_disturbs_no_other_record(bad: float, kind: str) -> None:
    engine, x = engine_of(), rows()
    x[5, 1, 3] = bad
    got, unsound = total(engine, x, kind)
    without, _ = total(engine, x[:5], kind)
    assert unsound == 1
    assert np.abs(got - without).max() <= 1  # the batch's size may change a float's last digit


@pytest.mark.parametrize("size", [1e-45, 1e-30, 1e-20, 1e10, 1e18])
def test_tiny_and_huge_records_stay_within_the_bound(size: float) -> None:
    """A norm must not be small only because a product of small and large numbers was lost."""
    engine, x = engine_of(), rows()
    x[0] *= np.float32(size)
    got, _ = total(engine, x)
    without, _ = total(engine, np.delete(x, 0, axis=0))
    grid = Grid.of(0.1, engine.built.flat.size)
    # labels follow the place in the batch, so the records behind the first are told apart by their own sums
    alone, _ = total(engine, x[:1])
    assert np.linalg.norm(alone) <= grid.scale * grid.clipping_norm + np.sqrt(grid.dimension) / 2
    assert np.linalg.norm(got) <= RECORDS * grid.scale * grid.clipping_norm + np.sqrt(grid.dimension)
    assert np.linalg.norm(without) > 0


@pytest.mark.parametrize("size", [1e19, 1e25])
def test_large_gradients_on_tiny_activations_do_not_slip_through(size: float) -> None:
    """Squares of 1e-23 vanish in float32 and those of 1e19 do not: the ghost norm of their product reads as zero."""
    layer = nn.Linear(40, 50)
    module = nn.Sequential(layer, nn.Linear(50, 3)).train()
    engine = GradientEngine(built_of(Wrapped(moved(module)), {"x": rows()}))
    with torch.no_grad():
        module[1].weight.mul_(size)
    x = rows() * np.float32(1e-23)
    builder = ClippedSumBuilder(grid := Grid.of(1e-9, engine.built.flat.size))
    engine.add_clipped(builder, {"x": x[:1]}, np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))
    assert np.linalg.norm(builder.finish().values) <= grid.sensitivity


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).mean(1)


def test_a_zero_gradient_is_no_division_by_zero() -> None:
    engine = engine_of()
    with torch.no_grad():
        for parameter in engine.parameters:
            parameter.zero_()
    for kind in ("flat", "per-layer", "automatic"):
        values, unsound = total(engine, rows(), kind)
        assert unsound == 0
        assert np.isfinite(values).all()


@pytest.mark.parametrize("kind", ["flat", "per-layer", "automatic"])
def test_neighbouring_batches_are_within_the_sensitivity(kind: str) -> None:
    engine = engine_of()
    for seed in range(5):
        x = rows(seed) * 10
        grid = Grid.of(0.1, engine.built.flat.size)
        whole, _ = total(engine, x, kind)
        fewer, _ = total(engine, x[:-1], kind)
        distance = np.linalg.norm(whole - fewer)
        assert 0.5 * grid.scale * grid.clipping_norm < distance <= grid.sensitivity


def test_an_empty_batch_adds_nothing_and_fails_nowhere() -> None:
    values, unsound = total(engine_of(), rows()[:0])
    assert not values.any()
    assert unsound == 0


def test_a_weight_that_one_batch_does_not_use_has_a_gradient_of_zero() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.always, self.sometimes = nn.Linear(40, 3), nn.Linear(40, 3)

        def forward(self, x: Tensor) -> Tensor:
            out = self.always(x)
            return (out if len(x) > 3 else out + self.sometimes(x)).mean(1)

    engine = GradientEngine(built_of(moved(Sometimes()).train(), {"x": rows()}))
    values, _ = total(engine, rows())
    start = engine.built.flat.offsets[engine.built.flat.names.index("sometimes.weight")]
    assert not values[start : start + 120].any()
    assert values.any()


def test_a_rule_for_another_norm_than_the_grids_is_refused() -> None:
    with pytest.raises(TrainingError, match="another norm"):
        ClippedSumBuilder(Grid.of(1.0, 10), Clipping("flat", 2.0))
