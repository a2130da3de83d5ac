"""Book-keeping, layer by layer: norms and weighted sums are those of a loop over records."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hansa.errors import ModelError, TrainingError
from hansa.models import BuiltModel
from hansa_client.training.bookkeeping import PassGradients, rules
from hansa_client.training.bookkeeping.rules import outer_or_whole
from hansa_client.training.bookkeeping.uses import Outer, Whole, gram
from hansa_client.training.gradients import GradientEngine
from support.classifiers import answers, built_of, moved, one_by_one

Inputs = dict[str, np.ndarray]


class Rows(nn.Module):
    """A model of one input `x`, as a function of a module."""

    def __init__(self, inner: nn.Module, run: Callable[[nn.Module, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.inner = inner
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x) if self.run is None else self.run(self.inner, x)
        return out if out.dim() == 2 else out.flatten(2).mean(2) if out.dim() == 4 else out.mean(1)


def floats(*shape: int) -> Inputs:
    return {"x": np.random.default_rng(1).normal(size=(5, *shape)).astype(np.float32)}


def ids(*shape: int, below: int = 9) -> Inputs:
    return {"x": np.random.default_rng(1).integers(0, below, (5, *shape))}


def gradients(engine: GradientEngine, inputs: Inputs, units: list[int]) -> PassGradients:
    tensors, targets = engine._tensors(inputs), engine._targets(answers(len(units)))
    return engine._keeper.gradients(lambda: engine._loss(tensors, targets), np.array(units), max(units) + 1)


def check(built: BuiltModel, inputs: Inputs, engine: GradientEngine | None = None) -> GradientEngine:
    """Norms and weighted sums against the loop, in float64, for records and for units of several records."""
    engine = engine or GradientEngine(built)
    built.module.double()
    inputs = {n: v.astype(np.float64) if v.dtype == np.float32 else v for n, v in inputs.items()}
    alone = one_by_one(built, inputs, answers(5))
    assert all(bool(g.any()) for g in alone)
    for units in ([0, 1, 2, 3, 4], [0, 1, 0, 2, 1], [0, 0, 0, 0, 0], [4, 3, 2, 1, 0]):
        of_record, count = torch.tensor(units), max(units) + 1
        summed = [torch.zeros(count, *g.shape[1:], dtype=g.dtype).index_add_(0, of_record, g) for g in alone]
        found = gradients(engine, inputs, units)
        assert bool(found.sound.all())
        for column, one in zip(found.squares.unbind(1), summed, strict=True):
            assert torch.allclose(column, one.flatten(1).square().sum(1), rtol=1e-9, atol=1e-18)
        weights = torch.linspace(0.2, 1, count, dtype=torch.float64)
        for got, one in zip(found.weighted([weights] * len(alone)), summed, strict=True):
            assert torch.allclose(got, torch.tensordot(weights, one, dims=1), rtol=1e-9, atol=1e-15)
    return engine


def module_of(inner: nn.Module, run: Callable[[nn.Module, Tensor], Tensor] | None = None) -> nn.Module:
    torch.manual_seed(0)
    return moved(Rows(inner, run)).train()


LAYERS: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {
    "linear of rows": (lambda: nn.Linear(6, 3), floats(6)),
    "linear of sequences": (lambda: nn.Sequential(nn.Linear(40, 50), nn.Tanh(), nn.Linear(50, 3)), floats(4, 40)),
    "linear of long sequences": (lambda: nn.Linear(4, 3), floats(30, 4)),
    "linear of grids": (lambda: nn.Sequential(nn.Linear(5, 3), nn.Flatten(1, 2)), floats(4, 6, 5)),
    "linear without bias": (lambda: nn.Linear(6, 3, bias=False), floats(3, 6)),
    "layer norm": (lambda: nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 3)), floats(4, 6)),
    "layer norm of two axes": (lambda: nn.Sequential(nn.LayerNorm([4, 6]), nn.Linear(6, 3)), floats(4, 6)),
    "layer norm without bias": (
        lambda: nn.Sequential(nn.LayerNorm(6, bias=False), nn.Linear(6, 3)), floats(4, 6)),
    "embedding": (lambda: nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 3)), ids(4)),
    "embedding of one id each": (lambda: nn.Sequential(nn.Embedding(9, 6), nn.Flatten(1), nn.Linear(6, 3)), ids(1)),
    "embedding of few rows": (
        lambda: nn.Sequential(nn.Embedding(4, 6, padding_idx=1), nn.Linear(6, 3)), ids(7, below=4)),
    "embedding with padding": (lambda: nn.Sequential(nn.Embedding(9, 6, padding_idx=2), nn.Linear(6, 3)), ids(4)),
    "convolution": (lambda: nn.Conv2d(2, 3, 3, padding=1), floats(2, 6, 5)),
    "convolution with stride and dilation": (lambda: nn.Conv2d(2, 3, (3, 2), stride=2, dilation=2), floats(2, 9, 8)),
    "convolution, same padding": (lambda: nn.Conv2d(2, 3, (4, 3), padding="same"), floats(2, 6, 5)),
    "patches": (lambda: nn.Conv2d(3, 3, 4, stride=4), floats(3, 8, 8)),
    "in place behind the first layer": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 3)), floats(6)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_by_book_keeping(name: str) -> None:
    make, inputs = LAYERS[name]
    assert check(built_of(module_of(make()), inputs), inputs).by_record == ()


BY_RECORD: dict[str, tuple[Callable[[], nn.Module], Inputs, str]] = {
    "group norm": (lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.Conv2d(4, 3, 1)), floats(4, 3, 3), "inner.0"),
    "convolution in groups": (lambda: nn.Conv2d(4, 3 * 4, 2, groups=4), floats(4, 5, 5), "inner"),
    "convolution of sequences": (
        lambda: nn.Sequential(nn.Conv1d(4, 5, 2), nn.Flatten(1), nn.Linear(20, 3)), floats(4, 5), "inner.0"),
    "RMS norm": (lambda: nn.Sequential(nn.RMSNorm(6), nn.Linear(6, 3)), floats(4, 6), "inner.0"),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_RECORD)
def test_other_layers_fall_back_to_gradients_per_record_and_say_so(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    make, inputs, layer = BY_RECORD[name]
    with caplog.at_level("INFO", "hansa.node"):
        engine = check(built_of(module_of(make()), inputs), inputs)
    assert engine.by_record == (layer,)
    assert f"gradients per record, more slowly, in the layers {layer}" in caplog.text


class Scale(nn.Module):
    """A layer that neither book-keeping nor Opacus knows by name."""

    def __init__(self) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.by.exp()


def test_a_layer_of_ones_own_gets_its_gradients_from_functorch() -> None:
    inputs = floats(4, 6)
    module = module_of(nn.Sequential(Scale(), nn.Linear(6, 3)))
    engine = GradientEngine(built := built_of(module, inputs))
    assert engine.by_record == ("inner.0",)
    alone = one_by_one(built, inputs, answers(5))
    found = gradients(engine, inputs, [0, 1, 2, 3, 4])
    for column, one in zip(found.squares.unbind(1), alone, strict=True):
        assert torch.allclose(column, one.flatten(1).double().square().sum(1), rtol=1e-4)


class Tied(nn.Module):
    """Words in and words out by one table, as GPT-2's, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 6)
        self.mix = nn.Linear(6, 6)
        self.out = nn.Linear(6, 9, bias=False)
        self.out.weight = self.words.weight
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.out(self.mix(self.words(x)))))


def twice(layer: nn.Module, x: Tensor) -> Tensor:
    """One layer called twice, on sequences of different lengths."""
    return layer[1](torch.tanh(layer[0](torch.tanh(layer[0](x))[:, 1:])))


class Positioned(nn.Module):
    """A table of positions that is looked up once, used again by a linear layer that shares it."""

    def __init__(self, *, flat: bool) -> None:
        super().__init__()
        self.places = nn.Embedding(4, 6)
        self.again = nn.Linear(6, 4, bias=False)
        self.again.weight = self.places.weight
        self.head = nn.Linear(4, 3)
        self.flat = flat

    def forward(self, x: Tensor) -> Tensor:
        index = torch.arange(x.shape[1])
        return self.head(torch.tanh(self.again(x + self.places(index if self.flat else index.unsqueeze(0)))))


class Added(nn.Module):
    """A start token and positions as plain tensors, like ViT's; the token is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(1, 1, 6))
        self.places = nn.Parameter(torch.randn(1, 5, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.start.expand(len(x), -1, -1), x], dim=1) + self.places
        return self.head(torch.tanh(tokens + self.start))


SHARED: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {
    "tied words": (lambda: moved(Rows(Tied())), ids(7)),
    "tied words, short": (lambda: moved(Rows(Tied())), ids(1)),
    "called twice": (
        lambda: moved(Rows(nn.ModuleList([nn.Linear(30, 30), nn.Linear(30, 3)]), twice)), floats(4, 30)),
    "called twice, small": (
        lambda: moved(Rows(nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)]), twice)), floats(9, 3)),
    "once as factors and once whole": (
        lambda: moved(Rows(nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 3)]), twice)), floats(4, 8)),
    "positions [1, L]": (lambda: moved(Rows(Positioned(flat=False))), floats(4, 6)),
    "positions [L]": (lambda: moved(Rows(Positioned(flat=True))), floats(4, 6)),
    "as many positions as records": (lambda: moved(Rows(Positioned(flat=True))), floats(2, 6)),
    "plain tensors": (lambda: moved(Rows(Added())), floats(4, 6)),
}  # fmt: skip


@pytest.mark.parametrize("name", SHARED)
def test_the_norm_of_a_shared_weight_is_that_of_the_sum_of_its_uses(name: str) -> None:
    make, inputs = SHARED[name]
    torch.manual_seed(0)
    check(built_of(make().train(), inputs), inputs)


def test_the_module_is_left_as_it_was() -> None:
    module = moved(Rows(Added())).train()
    engine = GradientEngine(built_of(module, floats(4, 6)))
    before = {name: dict(m.__dict__) for name, m in module.named_modules()}
    gradients(engine, floats(4, 6), [0, 1, 2, 3, 4])
    for name, m in module.named_modules():
        assert m.__dict__.keys() == before[name].keys()
        assert not m._forward_hooks
    assert all(p.requires_grad and p.grad is None for p in module.parameters())


def test_a_failing_model_is_left_as_it_was_too() -> None:
    module = moved(Rows(Added())).train()
    engine = GradientEngine(built_of(module, floats(4, 6)))
    with pytest.raises(RuntimeError):
        gradients(engine, floats(9, 6), [0, 1, 2, 3, 4])  # more places than it has positions
    assert not any(m._forward_hooks for m in module.modules())
    assert "start" not in module.inner.__dict__
    assert all(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("options", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}])
def test_an_embedding_in_which_records_mix_is_refused(options: dict[str, object]) -> None:
    module = module_of(nn.Sequential(nn.Embedding(9, 6, **options), nn.Linear(6, 3)))
    with pytest.raises(ModelError, match="mixes the records"):
        GradientEngine(built_of(module, ids(4)))


def test_a_weight_that_is_used_behind_its_layers_back_is_refused() -> None:
    def behind(layer: nn.Module, x: Tensor) -> Tensor:
        return layer(x) + nn.functional.linear(x, layer.weight**2)

    with pytest.raises(TrainingError, match="cannot be told"):
        GradientEngine(built_of(module_of(nn.Linear(6, 3), behind), floats(6)))


def test_a_plain_tensor_without_an_axis_of_records_is_refused_or_exact() -> None:
    class Shift(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.by = nn.Parameter(torch.randn(6))
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(x + self.by))

    inputs = floats(4, 6)
    engine = GradientEngine(built := built_of(moved(Rows(Shift())).train(), inputs))
    assert engine.by_record == ("inner",)  # Opacus runs the whole module again for each record
    alone = one_by_one(built, inputs, answers(5))
    found = gradients(engine, inputs, [0, 1, 2, 3, 4])
    for column, one in zip(found.squares.unbind(1), alone, strict=True):
        assert torch.allclose(column, one.flatten(1).double().square().sum(1), rtol=1e-4)


def test_an_input_that_is_overwritten_after_its_layer_ran_stops_the_pass() -> None:
    def overwriting(layers: nn.Module, x: Tensor) -> Tensor:
        hidden = torch.tanh(layers[0](x))
        out = layers[1](hidden)
        if len(x) > 2:  # not on the probe, which would find it out
            hidden.mul_(2)
        return out

    module = module_of(nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 3)]), overwriting)
    engine = GradientEngine(built_of(module, floats(6)))
    with pytest.raises((TrainingError, RuntimeError), match=r"overwritten|modified by an inplace"):
        gradients(engine, floats(6), [0, 1, 2, 3, 4])


def test_a_layer_that_does_not_see_the_batch_stops_the_pass() -> None:
    def one_row(layer: nn.Module, x: Tensor) -> Tensor:
        return layer(x.flatten(0, 1)).view(len(x), -1, 3)

    with pytest.raises(TrainingError, match="record by record"):
        GradientEngine(built_of(module_of(nn.Linear(6, 3), one_row), floats(4, 6)))


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(0, 10**6))
def test_the_choice_between_factors_and_gradient_is_for_the_smaller(
    records: int, places: int, m: int, n: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn((records, places, m), generator=generator, dtype=torch.float64)
    right = torch.randn((records, places, n), generator=generator, dtype=torch.float64)
    use = outer_or_whole(left, right)
    if places * (m + n) < m * n:
        assert isinstance(use, Outer)
    else:
        assert isinstance(use, Whole)
        assert torch.allclose(use.rows, torch.einsum("btm,btn->bmn", left, right))


# --- places that no gradient reaches ----------------------------------------------------------------------

READS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
    "the first place": (lambda out, _: out[:, 0], 1),
    "the last place": (lambda out, _: out[:, -1], 1),
    "two places": (lambda out, _: out[:, 1] + 2 * out[:, 4], 2),
    "every place": (lambda out, _: out.mean(1), 6),
    "a place of each record's own": (lambda out, x: out[torch.arange(len(out)), x[:, :, 0].argmax(1)], 6),
}


@pytest.mark.parametrize("reads", READS)
@pytest.mark.parametrize("kind", ["linear", "transposed linear"])
def test_places_without_a_gradient_are_left_out(
    kind: str, reads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Norms and sums stay those of the loop, and the work is that of the places that are read."""
    from transformers.pytorch_utils import Conv1D

    read, places = READS[reads]
    kept: list[int] = []
    real = rules.reached

    def spied(gradient: Tensor, inputs: Tensor | None) -> tuple[Tensor, Tensor | None]:
        found = real(gradient, inputs)
        assert inputs is None or (found[1] is not None and found[1].shape[1] == found[0].shape[1])
        if len(gradient) == 5:  # not the probe
            kept.append(found[0].shape[1])
        return found

    monkeypatch.setattr(rules, "reached", spied)
    inner = nn.Linear(12, 7) if kind == "linear" else Conv1D(7, 12)
    module = module_of(nn.Sequential(inner, nn.Tanh(), nn.Linear(7, 3)), lambda m, x: read(m(x), x))
    check(built_of(module, floats(6, 12)), floats(6, 12))
    assert set(kept) == {places}


def test_a_record_whose_gradient_is_not_finite_disturbs_no_other_where_places_are_left_out() -> None:
    module = module_of(nn.Sequential(nn.Linear(12, 7), nn.Tanh(), nn.Linear(7, 3)), lambda m, x: m(x)[:, 0])
    inputs = floats(6, 12)
    engine = GradientEngine(built_of(module, inputs))
    clean = gradients(engine, inputs, [0, 1, 2, 3, 4])
    inputs["x"] = inputs["x"].copy()
    inputs["x"][3] = np.nan
    found = gradients(engine, inputs, [0, 1, 2, 3, 4])
    others = torch.tensor([0, 1, 2, 4])
    assert found.sound.tolist() == [True, True, True, False, True]
    assert torch.allclose(found.squares[others], clean.squares[others], rtol=1e-5)
    weights = torch.ones(5, dtype=torch.float64)
    with_it, without = found.weighted([weights] * 4), clean.weighted([weights * (torch.arange(5) != 3)] * 4)
    for one, two in zip(with_it, without, strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, 1.0])
@pytest.mark.parametrize("record", [0, 2])
def test_one_number_anywhere_keeps_its_place(record: int, value: float) -> None:
    gradient, inputs = torch.zeros(3, 8, 2), torch.randn(3, 8, 4)
    gradient[:, 5] = 1.0
    few, of_few = rules.reached(gradient, inputs)
    assert torch.equal(few, gradient[:, 5:6])
    assert of_few is not None
    assert torch.equal(of_few, inputs[:, 5:6])
    assert rules.reached(gradient, None)[1] is None
    gradient[record, 1, 1] = value
    few, of_few = rules.reached(gradient, inputs)
    reached = torch.nonzero(few.isnan() if np.isnan(value) else few == 1.0)
    assert len(reached) == (1 if np.isnan(value) else 7)
    assert of_few is not None
    assert of_few.shape[1] == few.shape[1]
    nothing = torch.zeros(3, 8, 2)
    assert rules.reached(nothing, inputs) == (nothing, inputs)


@pytest.mark.parametrize("width", [3, 512, 513])
@pytest.mark.parametrize("length", [1, 30, 31, 32, 33, 64])
def test_a_gram_matrix_is_that_of_one_product(length: int, width: int) -> None:
    rows = torch.randn(3, length, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for some in (
        rows,
        torch.cat([rows, rows]).transpose(0, 1)[:, ::2].transpose(0, 1),
    ):  # the second has gaps
        found = gram(some)
        assert found.shape == (len(some), length, length)
        assert torch.allclose(found, some @ some.transpose(1, 2), rtol=1e-12, atol=1e-12)
    assert gram(rows.bfloat16()).dtype == torch.float32
