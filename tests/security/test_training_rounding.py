"""What float32 and bfloat16 do to norms and sums, on gradients that were made to be rounded badly.

A unit whose records (or whose uses of a shared weight) cancel has a short gradient, so that nothing is cut off, while
numbers of any size pass through the sum and take the other units' digits with them.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hansa.privacy.clipping import LEAST_NORM
from hansa.privacy.grid import Grid
from hansa_client.training.bookkeeping.uses import (
    Memory,
    Noted,
    Outer,
    Rows,
    Units,
    Use,
    Whole,
    squared_norms,
)
from hansa_client.training.clipping import LOW_PRECISION_MARGIN, MARGIN, ClippedSumBuilder
from hansa_client.training.gradients import GradientEngine
from support.classifiers import built_of, moved

OTHERS = 20


class Logits(nn.Module):
    """Logistic regression whose weights are zero: every label is as likely, so that two records cancel exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out


@pytest.fixture(scope="module")
def engine() -> GradientEngine:
    probe = np.array([[3.0, -1.0], [0.5, 4.0]], dtype=np.float32)
    made = GradientEngine(built_of(Logits().train(), {"x": probe}))
    with torch.no_grad():
        for parameter in made.parameters:
            parameter.zero_()
    return made


def clipped(engine: GradientEngine, x: np.ndarray, labels: np.ndarray, units: np.ndarray) -> np.ndarray:
    builder = ClippedSumBuilder(Grid.of(1.0, engine.built.flat.size))
    engine.add_clipped(builder, {"x": x}, labels, units)
    return builder.finish().values


@pytest.mark.parametrize("value", [1e3, 1e6, 1e9, 1e15])
@pytest.mark.parametrize("place", [0, 7, OTHERS])
@pytest.mark.parametrize("uneven", [0.0, 1e-7])
def test_records_of_a_patient_that_cancel(
    engine: GradientEngine, value: float, place: int, uneven: float
) -> None:
    """Two records that are alike but for their label: without noise they took back what came before them."""
    x, labels = np.ones((OTHERS, 2), np.float32), np.zeros(OTHERS, np.int64)
    pair = np.array([[value, value], [value * (1 + uneven), value]], np.float32)
    with_them = clipped(
        engine,
        np.concatenate([x[:place], pair, x[place:]]),
        np.concatenate([labels[:place], [0, 1], labels[place:]]),
        np.concatenate([np.arange(place), [place, place], np.arange(place + 1, OTHERS + 1)]),
    )
    without = clipped(engine, x, labels, np.arange(OTHERS))
    assert np.linalg.norm(with_them - without) <= Grid.of(1.0, engine.built.flat.size).sensitivity


# --- a norm is never below the true one, whatever cancels ---------------------------------------------------


def _by_unit(uses: list[Use], of_record: Tensor, count: int) -> Tensor:
    """Units' gradients [U, …] from the same numbers, in float64."""
    total: Tensor | None = None
    for use in uses:
        if isinstance(use, Whole):
            each = use.rows.double()
        else:
            left = use.left
            dense = nn.functional.one_hot(left.index, left.count) if isinstance(left, Rows) else left
            each = dense.double().transpose(1, 2) @ use.right.double()
        if total is None:
            total = torch.zeros((count, *each.shape[1:]), dtype=torch.float64)
        total.index_add_(0, of_record, each)
    assert total is not None
    return total


def _use(kind: str, rng: torch.Generator, records: int, places: int, shape: tuple[int, int]) -> Use:
    right = torch.randn((records, places, shape[1]), generator=rng)
    if kind == "rows":
        return Outer(Rows(torch.randint(0, shape[0], (records, places), generator=rng), shape[0]), right)
    left = torch.randn((records, places, shape[0]), generator=rng)
    return Outer(left, right) if kind == "outer" else Whole(left.transpose(1, 2) @ right)


def _negated(use: Use, by: float) -> Use:
    if isinstance(use, Whole):
        return Whole(use.rows * -by)
    return Outer(use.left, use.right * -by)


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from(["outer", "rows", "whole"]), min_size=1, max_size=2),
    st.sampled_from([[0, 1, 2, 3], [0, 0, 1, 1], [0, 0, 0, 0]]),
    st.floats(1e-12, 1e7),
    st.sampled_from([1.0, 1 + 2e-7, 1 - 1e-6, 1.001]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_a_norm_is_never_below_the_true_one(
    kinds: list[str], units: list[int], size: float, uneven: float, both: bool, seed: int
) -> None:
    """Every use once more with the other sign, or every second record: what is left is rounding and `uneven`."""
    rng, shape = torch.Generator().manual_seed(seed), (5, 7)
    of_record, count = torch.tensor(units), max(units) + 1
    uses: list[Use] = []
    for kind in kinds:
        use = _use(kind, rng, len(units), 6, shape)
        sign = torch.tensor([1.0, -uneven, 1.0, -uneven]) * size
        if isinstance(use, Whole):
            use.rows[1::2] = use.rows[0::2]
            use = Whole(use.rows * sign.view(-1, 1, 1))
        else:
            for part in (use.left.index if isinstance(use.left, Rows) else use.left, use.right):
                part[1::2] = part[0::2]
            use = Outer(use.left, use.right * sign.view(-1, 1, 1))
        uses += [use, _negated(use, uneven)] if both else [use]
    grouped, memory = Units(np.array(units), count, of_record.device), Memory()
    found = squared_norms([Noted.of(use, grouped, memory) for use in uses], grouped)
    assert bool(found.sound.all())
    assert bool((found.values >= _by_unit(uses, of_record, count).flatten(1).square().sum(1)).all())


@pytest.mark.parametrize("large", range(0, 60, 6))
def test_no_norm_vanishes_that_a_smallest_clipping_norm_would_cut(large: int) -> None:
    """Squares of 2^-76 are zero in float32, and 2^-76 times 2^49 is more than 1e-9."""
    for small in range(-100, -60, 4):
        left, right = torch.full((1, 64, 40), 2.0**small), torch.full((1, 64, 50), 2.0**large)
        for use in (Outer(left, right), Outer(right, left)):
            grouped, memory = Units(np.array([0]), 1, left.device), Memory()
            found = squared_norms([Noted.of(use, grouped, memory)], grouped)
            true = _by_unit([use], torch.tensor([0]), 1).norm()
            assert not bool(found.sound) or float(true) <= max(float(found.values.sqrt()), LEAST_NORM)


# --- norms and sums, measured in float64 from the numbers that the pass has kept ------------------------------


class Net(nn.Module):
    """Ghost norms, whole rows, a layer norm and a table of few rows; sequences of any length."""

    def __init__(self, *, straight: bool) -> None:
        super().__init__()
        self.kinds = nn.Embedding(2, 40)
        self.first = nn.Linear(40, 50)
        self.between = nn.Identity() if straight else nn.Sequential(nn.Tanh(), nn.LayerNorm(50))
        self.head = nn.Linear(50, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x + self.kinds((x[:, :, 0] > 0).long()))
        out: Tensor = self.head(self.between(hidden)).mean(1)
        return out


def rows(kind: str, records: int, places: int) -> np.ndarray:
    rng = np.random.default_rng(records)
    x = rng.normal(size=(records, places, 40))
    sizes = {"huge": 1e7, "denormal": 1e-40, "mixed": 10.0 ** rng.integers(-40, 8, (records, places, 1))}
    if kind == "equal":
        x[:] = 1.0
    elif kind == "cancelling":
        x[:, 1::2] = -x[:, ::2] * (1 + 1e-6 * rng.normal(size=x[:, ::2].shape))
    return (x * sizes.get(kind, 1.0)).astype(np.float32)


def measured(
    engine: GradientEngine, x: np.ndarray, units: np.ndarray, norm: float = 1.0, *, alike: bool = False
) -> tuple[float, float]:
    """The largest norm of what a unit adds, over C(1 − η), and by how much the sum errs, over η·C.

    Args:
        alike: all records have one label, so that equal ones push in one direction.
    """
    margin = MARGIN if engine.precision == torch.float32 else LOW_PRECISION_MARGIN
    builder = ClippedSumBuilder(Grid.of(norm, engine.built.flat.size))
    labels = np.zeros(len(x), np.int64) if alike else np.arange(len(x)) // 7 % 2
    tensors, targets = engine._tensors({"x": x}), engine._targets(labels)
    of_record, count = torch.from_numpy(units), int(units.max()) + 1
    found = engine._keeper.gradients(lambda: engine._loss(tensors, targets), units, count)
    assert bool(found.sound.all())
    factors = builder.factors(found.squares, found.sound, engine.layer_of, margin=margin)
    uses = [[noted.use for noted in of_one] for of_one in found._noted]
    exact = torch.cat(
        [
            factor.unsqueeze(1) * _by_unit(of_one, of_record, count).flatten(1)
            for factor, of_one in zip(factors, uses, strict=True)
            if of_one
        ],
        dim=1,
    )
    total = torch.cat(
        [
            part.double().flatten()
            for part, of_one in zip(found.weighted(factors), uses, strict=True)
            if of_one
        ]
    )
    largest = float(exact.norm(dim=1).max())
    return largest / (norm * (1 - margin)), float((total - exact.sum(0)).norm()) / (norm * margin)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("straight", [False, True])
def test_no_clipped_norm_is_above_the_bound_and_sums_err_by_less_than_half_the_margin(
    precision: torch.dtype, straight: bool
) -> None:
    """`equal` records are rounded in the same direction each time: the worst that is known for a sum."""
    torch.manual_seed(0)
    module = moved(Net(straight=straight)).train()
    probe = {"x": np.random.default_rng(0).normal(size=(2, 4, 40)).astype(np.float32)}
    engine = GradientEngine(built_of(module, probe), precision=precision)
    largest = []
    for kind in ("plain", "huge", "denormal", "mixed", "cancelling", "equal"):
        for records, places, of_unit in ((6, 2, 2), (80, 4, 1), (8, 64, 1)):
            units = np.arange(records) // of_unit
            norm, error = measured(engine, rows(kind, records, places), units, alike=kind == "equal")
            assert error < 0.25, (kind, records, places)
            assert norm <= 1.0, (kind, records, places)
            largest.append(norm)
    assert max(largest) > 0.999


@pytest.mark.parametrize("norm", [1.25, 1.75])
def test_equal_records_in_a_large_pass(engine: GradientEngine, norm: float) -> None:
    """256 of them, added in one go, erred by 0.9 of the margin."""
    x = np.full((256, 2), 100, np.float32)
    largest, error = measured(engine, x, np.arange(256), norm, alike=True)
    assert largest <= 1.0
    assert 0.05 < error < 0.35
