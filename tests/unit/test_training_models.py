"""Unmodified Hugging Face classifiers: sums, norms and clips are those of a loop, and of Opacus where it can."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hansa.errors import TrainingError
from hansa.models import BuiltModel
from hansa.privacy.clipping import Clipping
from hansa.privacy.grid import Grid
from hansa_client.training.clipping import LOW_PRECISION_MARGIN, MARGIN, ClippedSumBuilder
from hansa_client.training.gradients import GradientEngine
from support.classifiers import FAMILIES, answers, batch, built_of, hugging_face, moved, one_by_one

RECORDS = 6
KINDS = ("full", "lora", "ffa-lora", "bias", "head")
TARGETS = {"gpt2": ["c_attn"], "distilbert": ["q_lin", "v_lin"], "vit": ["q_proj", "v_proj"]}


def made(family: str, kind: str = "full", **changes: object) -> tuple[BuiltModel, dict[str, np.ndarray]]:
    module, inputs = hugging_face(family, **changes), batch(family, RECORDS)
    if kind in ("lora", "ffa-lora"):
        from peft import LoraConfig, inject_adapter_in_model

        targets = TARGETS.get(family, ["query", "value"])
        config = LoraConfig(r=2, target_modules=targets, fan_in_fan_out=family == "gpt2")
        inject_adapter_in_model(config, module.model)
    trained = {"full": "", "lora": "lora_", "ffa-lora": "lora_B", "bias": ".bias", "head": ""}[kind]
    for name, parameter in module.named_parameters():
        in_head = "classifier" in name or "score" in name
        parameter.requires_grad_(trained in name and (kind != "head" or in_head))
    return built_of(moved(module), inputs), inputs


def in_double(built: BuiltModel, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    built.module.double()
    return {n: v.astype(np.float64) if v.dtype == np.float32 else v for n, v in inputs.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_equal_to_a_loop_in_float64(family: str, kind: str) -> None:
    built, inputs = made(family, kind)
    engine = GradientEngine(built)
    assert engine.by_record == ()
    inputs = in_double(built, inputs)
    alone = one_by_one(built, inputs, answers(RECORDS))
    for units in (list(range(RECORDS)), [0, 1, 0, 2, 1, 0]):
        of_record, count = torch.tensor(units), max(units) + 1
        tensors, targets = engine._tensors(inputs), engine._targets(answers(RECORDS))
        found = engine._keeper.gradients(lambda: engine._loss(tensors, targets), np.array(units), count)  # noqa: B023
        summed = [torch.zeros(count, *g.shape[1:], dtype=g.dtype).index_add_(0, of_record, g) for g in alone]
        norms = torch.stack([g.flatten(1).square().sum(1) for g in summed], dim=1).sum(1).sqrt()
        assert torch.allclose(found.squares.sum(1).sqrt(), norms, rtol=1e-7)
        weights = (0.5 / norms).clamp(max=1.0)
        for got, one in zip(found.weighted([weights] * len(alone)), summed, strict=True):
            assert torch.allclose(got, torch.tensordot(weights, one, dims=1), rtol=1e-5, atol=1e-12)


def test_equal_to_opacus_hooks() -> None:
    """RoBERTa counts positions record by record, so that Opacus can; the other families make them [1, L]."""
    built, inputs = made("roberta")
    engine = GradientEngine(built)
    inputs = in_double(built, inputs)
    grid = Grid.of(0.5, built.flat.size)
    reference, ours = ClippedSumBuilder(grid), ClippedSumBuilder(grid)
    reference.add(engine.per_record(inputs, answers(RECORDS)), np.arange(RECORDS))
    engine.add_clipped(ours, inputs, answers(RECORDS), np.arange(RECORDS))
    assert np.abs(reference.finish().values - ours.finish().values).max() <= 1


@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2", "vit"])
def test_equal_to_opacus_hooks_on_adapters(family: str) -> None:
    built, inputs = made(family, "lora")
    engine = GradientEngine(built)
    inputs = in_double(built, inputs)
    grid = Grid.of(0.5, built.flat.size)
    reference, ours = ClippedSumBuilder(grid), ClippedSumBuilder(grid)
    reference.add(engine.per_record(inputs, answers(RECORDS)), np.arange(RECORDS))
    engine.add_clipped(ours, inputs, answers(RECORDS), np.arange(RECORDS))
    assert np.abs(reference.finish().values - ours.finish().values).max() <= 1


def test_opacus_itself_takes_positions_for_those_of_one_record() -> None:
    """Opacus issue 841: the reference refuses, book-keeping goes on."""
    built, inputs = made("bert")
    with pytest.raises(TrainingError, match="position_embeddings"):
        GradientEngine(built).per_record(inputs, answers(RECORDS))


@pytest.mark.parametrize("kind", ["flat", "per-layer", "automatic"])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_each_clipping_rule_against_a_loop(family: str, kind: str) -> None:
    built, inputs = made(family)
    engine = GradientEngine(built)
    inputs = in_double(built, inputs)
    alone = [g.double() for g in one_by_one(built, inputs, answers(RECORDS))]
    norm = 0.4 * float(torch.stack([g.flatten(1).square().sum(1) for g in alone]).sum(0).sqrt().median())
    grid, rule = Grid.of(norm, built.flat.size), Clipping(kind, norm)
    builder = ClippedSumBuilder(grid, rule)
    engine.add_clipped(builder, inputs, answers(RECORDS), np.arange(RECORDS))
    bound = norm * (1 - MARGIN)
    if kind == "per-layer":
        layers = sorted(set(engine.layer_of))
        factor = {}
        for layer in layers:
            own = [g for g, of in zip(alone, engine.layer_of, strict=True) if of == layer]
            norms = torch.stack([g.flatten(1).square().sum(1) for g in own]).sum(0).sqrt()
            factor[layer] = (bound / len(layers) ** 0.5 / norms).clamp(max=1)
        factors = [factor[layer] for layer in engine.layer_of]
    else:
        norms = torch.stack([g.flatten(1).square().sum(1) for g in alone]).sum(0).sqrt()
        one = bound / (norms + rule.gamma) if kind == "automatic" else (bound / norms).clamp(max=1)
        factors = [one] * len(alone)
    expected = torch.cat(
        [torch.tensordot(f, g, dims=1).flatten() for f, g in zip(factors, alone, strict=True)]
    )
    assert np.abs(builder.finish().values - (expected * grid.scale).round().numpy()).max() <= 1


@pytest.mark.parametrize("size", [1, 2, 4])
def test_microbatches_change_nothing(size: int) -> None:
    built, inputs = made("bert")
    engine, grid = GradientEngine(built), Grid.of(0.5, built.flat.size)
    inputs = in_double(built, inputs)
    whole, cut, back = (ClippedSumBuilder(grid) for _ in range(3))
    engine.add_clipped(whole, inputs, answers(RECORDS), np.arange(RECORDS))
    pieces = [slice(i, i + size) for i in range(0, RECORDS, size)]
    for builder, order in ((cut, pieces), (back, pieces[::-1])):
        for piece in order:
            some = {name: value[piece] for name, value in inputs.items()}
            labels = answers(RECORDS)[piece]
            engine.add_clipped(builder, some, labels, np.arange(len(labels)))
    assert np.array_equal(cut.finish().values, back.finish().values)
    assert np.abs(whole.finish().values - cut.finish().values).max() <= 1


@pytest.mark.parametrize("family", ["bert", "gpt2", "vit"])
def test_checkpoints_change_nothing(family: str) -> None:
    built, inputs = made(family)
    engine, grid = GradientEngine(built), Grid.of(0.5, built.flat.size)
    plain, with_checkpoints = ClippedSumBuilder(grid), ClippedSumBuilder(grid)
    engine.add_clipped(plain, inputs, answers(RECORDS), np.arange(RECORDS))
    built.module.model.activation_checkpointing_enable(
        activation_checkpointing_kwargs={"use_reentrant": False}
    )
    engine.add_clipped(with_checkpoints, inputs, answers(RECORDS), np.arange(RECORDS))
    assert np.array_equal(plain.finish().values, with_checkpoints.finish().values)


def test_layers_inside_checkpoints_run_twice_and_are_noted_once() -> None:
    built, inputs = made("bert")
    engine, grid = GradientEngine(built), Grid.of(0.5, built.flat.size)
    built.module.model.activation_checkpointing_enable(
        activation_checkpointing_kwargs={"use_reentrant": False}
    )
    calls = []
    query = built.module.model.bert.encoder.layer[0].attention.self.query
    hook = query.register_forward_hook(lambda *_: calls.append(1))
    noted = []
    original = engine._keeper.gradients

    def counting(*arguments: object) -> object:
        found = original(*arguments)
        noted.append([len(of_one) for of_one in found._noted])
        return found

    engine._keeper.gradients = counting  # type: ignore[method-assign]
    engine.add_clipped(ClippedSumBuilder(grid), inputs, answers(RECORDS), np.arange(RECORDS))
    hook.remove()
    assert len(calls) == 2
    assert set(noted[0]) == {1}


def test_reentrant_checkpoints_are_refused() -> None:
    built, inputs = made("bert")
    engine, grid = GradientEngine(built), Grid.of(0.5, built.flat.size)
    built.module.model.activation_checkpointing_enable(
        activation_checkpointing_kwargs={"use_reentrant": True}
    )
    with pytest.raises(TrainingError, match="without autograd"):
        engine.add_clipped(ClippedSumBuilder(grid), inputs, answers(RECORDS), np.arange(RECORDS))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["bert", "gpt2", "vit"])
def test_the_largest_clipped_norm_is_within_the_bound(family: str, precision: torch.dtype) -> None:
    """What one unit really adds, and what its removal really changes, measured in the precision that runs."""
    built, inputs = made(family)
    engine = GradientEngine(built, precision=precision)
    for size in (1e-3, 1.0, 1e3):  # most clipped, some clipped, none clipped
        grid = Grid.of(0.5 * size, built.flat.size)
        everything = ClippedSumBuilder(grid)
        engine.add_clipped(everything, inputs, answers(RECORDS), np.arange(RECORDS))
        total = everything.finish().values
        for left_out in range(RECORDS):
            rest = np.delete(np.arange(RECORDS), left_out)
            alone, without = ClippedSumBuilder(grid), ClippedSumBuilder(grid)
            for builder, chosen in ((alone, np.array([left_out])), (without, rest)):
                some = {name: value[chosen] for name, value in inputs.items()}
                engine.add_clipped(builder, some, answers(RECORDS)[chosen], np.arange(len(chosen)))
            margin = MARGIN if precision == torch.float32 else LOW_PRECISION_MARGIN
            bound = grid.scale * grid.clipping_norm
            one = np.linalg.norm(alone.finish().values)
            assert one <= bound * (1 - margin) * (1 + 1e-5) + np.sqrt(grid.dimension) / 2
            assert np.linalg.norm(total - without.finish().values) <= grid.sensitivity


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_sums_err_by_less_than_a_tenth_of_the_margin(family: str) -> None:
    """Forward, backward and sum, with the weights of units that float32 has found."""
    built, inputs = made(family)
    engine, sums, factors = GradientEngine(built), [], None
    builder = ClippedSumBuilder(Grid.of(0.5, built.flat.size))
    for _ in range(2):
        tensors, targets = engine._tensors(inputs), engine._targets(answers(RECORDS))
        found = engine._keeper.gradients(
            lambda: engine._loss(tensors, targets),  # noqa: B023
            np.arange(RECORDS),
            RECORDS,
        )
        factors = factors or builder.factors(found.squares, found.sound, engine.layer_of)
        sums.append(torch.cat([part.double().flatten() for part in found.weighted(factors)]))
        inputs = in_double(built, inputs)
    assert 0 < float((sums[0] - sums[1]).norm()) < 0.1 * MARGIN * 0.5


def test_low_precision_is_close_to_full_precision() -> None:
    built, inputs = made("bert")
    grid = Grid.of(0.5, built.flat.size)
    sums = []
    for precision in (torch.float32, torch.bfloat16):
        builder = ClippedSumBuilder(grid)
        GradientEngine(built, precision=precision).add_clipped(
            builder, inputs, answers(RECORDS), np.arange(RECORDS)
        )
        sums.append(builder.finish().values)
    assert 0 < np.linalg.norm(sums[0] - sums[1]) < 0.05 * np.linalg.norm(sums[0])


def test_another_precision_is_refused() -> None:
    built, _ = made("bert", "head")
    with pytest.raises(TrainingError, match="float16"):
        GradientEngine(built, precision=torch.float16)


def test_the_frozen_part_leaves_no_graph_and_no_activations() -> None:
    """Of FFA-LoRA in the last layer alone, the layers below are computed without autograd."""
    built, inputs = made("bert", "ffa-lora")
    module = built.module.model
    for name, parameter in module.named_parameters():
        parameter.requires_grad_("lora_B" in name and "layer.1" in name)
    built = built_of(built.module, inputs)
    engine = GradientEngine(built)
    seen = {}
    hooks = [
        layer.register_forward_hook(lambda _m, _i, out, at=at: seen.__setitem__(at, out.requires_grad))
        for at, layer in enumerate(module.bert.encoder.layer)
    ]
    engine.add_clipped(
        ClippedSumBuilder(Grid.of(1.0, built.flat.size)), inputs, answers(RECORDS), np.arange(RECORDS)
    )
    for hook in hooks:
        hook.remove()
    assert seen == {0: False, 1: True}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
def test_gpu_and_cpu_agree() -> None:
    sums = []
    for device in ("cpu", "cuda"):
        built, inputs = made("bert")
        moved_built = BuiltModel.of(built.module.to(device), device=device, probe_inputs=built.probe_inputs)
        builder = ClippedSumBuilder(grid := Grid.of(0.5, built.flat.size))
        GradientEngine(moved_built).add_clipped(builder, inputs, answers(RECORDS), np.arange(RECORDS))
        sums.append(builder.finish().values / grid.scale)
    assert np.abs(sums[0] - sums[1]).max() < 1e-4
