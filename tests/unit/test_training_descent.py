"""A private step's last part: the same bits as the plain way, noise for each entry once, and nothing left running."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from hansa.errors import ModelError, PrivacyParameterError, TrainingError
from hansa.models import BuiltModel
from hansa.privacy.grid import Grid
from hansa.privacy.randomness import SecretRandomness
from hansa_client.training import descent
from hansa_client.training.clipping import ClippedSum
from hansa_client.training.descent import Descent

RATE, DIVISOR = 0.1, 24.3


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pieces and blocks whose edges fall inside tensors, and tensors inside blocks."""
    monkeypatch.setattr(descent, "PIECE", 100)
    monkeypatch.setattr(descent, "_BLOCK", 32)
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hansa-step")]


def model() -> BuiltModel:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 150), nn.Tanh(), nn.Linear(150, 3, bias=False), nn.Linear(3, 2))

    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, table: Tensor) -> Tensor:
            out: Tensor = self.inner(table)
            return out

    return BuiltModel.of(Reads().train(), device="cpu", probe_inputs={"table": np.eye(2, dtype=np.float32)})


def sums(built: BuiltModel, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Sums of all sizes, among them halves of grid units."""
    random = torch.Generator().manual_seed(1)
    made = []
    for shape in built.flat.shapes:
        part = torch.randn(shape, generator=random, dtype=torch.float64)
        part.view(-1)[::3] = torch.randint(-9, 9, part.view(-1)[::3].shape, generator=random) + 0.5
        part.view(-1)[1::7] *= 1e5
        made.append(part.to(dtype))
    return made


def by_hand(
    start: npt.NDArray[np.float64], parts: list[Tensor], noise: npt.NDArray[np.int64], grid: Grid
) -> npt.NDArray[np.float64]:
    """The plain way, an array after another."""
    total = torch.cat([part.double().flatten() for part in parts])
    values = (total * grid.scale).round().to(torch.int64).numpy()
    gradient = (noise + values) / (grid.scale * DIVISOR)
    gradient *= RATE
    return start - gradient


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 2.0**22])
def test_a_step_has_the_bits_of_the_plain_way(scale: float, dtype: torch.dtype, threads: int) -> None:
    built = model()
    size = built.flat.size
    grid, parts = Grid(1.0, size, scale), sums(built, dtype)
    random = np.random.default_rng(2)
    start = random.normal(size=size)
    asked: list[tuple[int, int]] = []
    with Descent(built, start, grid.scale * DIVISOR, RATE, threads) as path:
        expected = start
        for reach in (1 << 10, 1 << 45):  # the second is the largest that any sigma draws
            vector = random.integers(-reach, reach, size)

            def noise(first: int, last: int, vector: npt.NDArray[np.int64] = vector) -> npt.NDArray[np.int64]:
                asked.append((first, last))
                return vector[first:last]

            path.step(ClippedSum.rounded(parts, grid, 1), noise)
            expected = by_hand(expected, parts, vector, grid)
            assert np.array_equal(path.weights, expected)
            held = np.concatenate([p.detach().flatten().numpy() for p in built.flat.parameters(built.module)])
            assert np.array_equal(held, expected.astype(np.float32))
    once = sorted(asked)[::2]
    assert sorted(asked)[1::2] == once  # twice in two steps
    assert [first for first, _ in once] == [0, *[last for _, last in once[:-1]]]
    assert once[-1][1] == size
    assert len(once) > 5


def test_a_sum_is_the_same_however_it_is_read() -> None:
    built = model()
    size = built.flat.size
    grid = Grid(1.0, size, 8.0)
    total, whole = (ClippedSum.rounded(sums(built), grid, 1) for _ in range(2))
    for step in (1, 7, 64, size):
        read = np.full(size, np.nan)
        for start in range(0, size, step):
            some = read[start : start + step]
            assert total.add_to(np.full(len(some), 7), start, some) is some
        assert np.array_equal(read - 7, whole.values)
    known = ClippedSum(whole.values.copy(), grid)
    assert np.array_equal(known.add_to(np.ones(5, dtype=np.int64), 3, np.empty(5)), whole.values[3:8] + 1)
    assert np.array_equal(total.values, whole.values)
    assert total.values.dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        total.values[0] = 1


def test_sums_that_float64_could_not_hold_are_refused() -> None:
    grid = Grid(1.0, 3, 2.0**24)
    fits = ClippedSum.rounded([torch.tensor([2.0**27, -(2.0**27), 0.5])], grid, (1 << 28) - 1)
    assert fits.values.tolist() == [2**51, -(2**51), 2**23]
    with pytest.raises(TrainingError, match="does not fit the grid"):
        ClippedSum.rounded([torch.zeros(3)], grid, 1 << 28)
    with pytest.raises(TrainingError, match="whole grid"):
        ClippedSum.rounded([torch.zeros(2)], grid, 1)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("failing", [0, 300])
def test_a_piece_that_fails_ends_the_step(failing: int, threads: int) -> None:
    built = model()
    grid = Grid(1.0, built.flat.size, 1.0)
    asked: list[int] = []

    def noise(first: int, last: int) -> npt.NDArray[np.int64]:
        asked.append(first)
        if first == failing:
            raise PrivacyParameterError("no more random numbers")
        return np.ones(last - first, dtype=np.int64)

    with (
        pytest.raises(PrivacyParameterError, match="no more random"),
        Descent(built, np.zeros(built.flat.size), 1.0, RATE, threads) as path,
    ):
        path.step(ClippedSum.rounded(sums(built), grid, 1), noise)
    assert len(asked) == len(set(asked))  # none is drawn twice
    if threads == 1:
        assert max(asked) == failing


@pytest.mark.parametrize("entry", [np.inf, -np.inf, np.nan, 3.5e38])
def test_weights_that_leave_float32_end_the_round(entry: float) -> None:
    built = model()
    part = sums(built, torch.float64)
    part[-1].view(-1)[-1] = -entry
    grid = Grid(1.0, built.flat.size, 1.0)
    with (
        pytest.raises(ModelError, match="not finite float32"),
        Descent(built, np.zeros(built.flat.size), 1.0, 1.0, 2) as path,
    ):
        path.step(ClippedSum.rounded(part, grid, 1), lambda a, b: np.zeros(b - a, dtype=np.int64))


def test_a_model_whose_memory_is_not_in_order_takes_the_same_step() -> None:
    built, other = model(), model()
    for parameter in other.module.parameters():
        if parameter.dim() == 2:
            parameter.data = parameter.data.t().contiguous().t()
    grid, start = Grid(1.0, built.flat.size, 4.0), np.linspace(-1, 1, built.flat.size)
    ways: list[npt.NDArray[np.float64]] = []
    for one in (built, other):
        with Descent(one, start, 1.0, RATE, 2) as path:
            path.step(ClippedSum.rounded(sums(built), grid, 1), np.arange)
            ways.append(path.weights)
        assert np.array_equal(one.flat.vector(one.module), path.weights.astype(np.float32))
    assert np.array_equal(*ways)


def test_pieces_in_several_threads_never_share_a_draw() -> None:
    """One secret stream serves all threads: with draws of 2^40 no two are equal unless words were given twice."""
    built = model()
    size, source = built.flat.size, SecretRandomness()
    grid = Grid(1.0, size, 1.0)
    seen: list[int] = []
    empty = ClippedSum(np.zeros(size, dtype=np.int64), grid)
    with Descent(built, np.zeros(size), 1.0, 1.0, 3) as path:
        before = path.weights.copy()
        for _ in range(20):
            path.step(empty, lambda a, b: source.noise(2.0**40, b - a))
            seen += (before - path.weights).astype(np.int64).tolist()
            before = path.weights.copy()
    assert len(seen) == 20 * size
    assert len(seen) - len(set(seen)) <= 2  # of 10^8 pairs among 2^42 numbers: 10^-4 expected
