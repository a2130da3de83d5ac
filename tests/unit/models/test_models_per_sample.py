"""Per-sample gradients: what Opacus' hooks collect in one batch is what each record gives alone.

DP-SGD rests on this. The batches hold notes of different lengths, so padding is in play, and every weight is moved
off its start, so that no gradient is zero because a factor is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from opacus.grad_sample import GradSampleModule

from hansa.agreement.terms import Adapter, Encoder, Model, TabularTransformer, Terms
from hansa.models import BuiltModel, build_model, trim_padding
from hansa.models.public_random import uniform

TermsMaker = Callable[..., Terms]
TinyMaker = Callable[..., Encoder]

NOTES = ["fever and cough since days .", "rash", "acute pain mild pulse", "pain pain", "since days ."]

# torch warns where a hooked layer's inputs (token ids, encoded rows) need no gradient. Opacus reads the gradient
# with respect to the layer's output, which is there.
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")


def double(built: BuiltModel) -> BuiltModel:
    """The model in float64 at a public point away from its start."""
    noise = uniform(3, "moved", (built.flat.size,), 0.3)
    built.flat.load(built.module, built.initial_vector() + noise)
    built.module.double()
    return built


def alone(
    built: BuiltModel, inputs: dict[str, torch.Tensor], labels: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Each record's gradient from a forward and backward pass of its own; float64, ``[records, *shape]``."""
    parameters = built.flat.parameters(built.module)
    rows = []
    for i in range(len(labels)):
        logits = built.module(**{name: value[i : i + 1] for name, value in inputs.items()})
        loss = torch.nn.functional.cross_entropy(logits, labels[i : i + 1])
        rows.append(torch.autograd.grad(loss, parameters))
    return {
        name: torch.stack(grads)
        for name, grads in zip(built.flat.names, zip(*rows, strict=True), strict=True)
    }


def together(
    built: BuiltModel, inputs: dict[str, torch.Tensor], labels: torch.Tensor
) -> dict[str, torch.Tensor]:
    """All records' gradients from one batch under Opacus."""
    wrapped = GradSampleModule(built.module, loss_reduction="sum")
    torch.nn.functional.cross_entropy(wrapped(**inputs), labels, reduction="sum").backward()
    samples: dict[str, Any] = {
        name: p.grad_sample for name, p in zip(built.flat.names, built.flat.parameters(wrapped), strict=True)
    }
    return samples


def check(built: BuiltModel, inputs: dict[str, torch.Tensor]) -> None:
    built = double(built)
    labels = torch.arange(len(next(iter(inputs.values())))) % 3
    expected, found = alone(built, inputs, labels), together(built, inputs, labels)
    assert list(found) == list(built.flat.names)
    for name, gradient in expected.items():
        assert found[name].shape == gradient.shape, name
        assert torch.allclose(found[name], gradient, rtol=1e-7, atol=1e-10), name
    # Something to see: no weight's gradient is zero for every record, and records differ.
    assert all(
        float(g.abs().max()) > 1e-9 or name.endswith(("key.bias", "k_lin.bias"))
        for name, g in expected.items()
    )
    assert all(
        not torch.equal(expected[built.flat.names[-1]][0], g) for g in expected[built.flat.names[-1]][1:]
    )


def texts(built: BuiltModel) -> dict[str, torch.Tensor]:
    assert built.tokenize is not None
    return trim_padding({name: torch.from_numpy(value) for name, value in built.tokenize(NOTES).items()})


@pytest.mark.parametrize("pooling", ["native", "mean"])
@pytest.mark.parametrize("kind", ["none", "lora", "ffa-lora", "head"])
def test_of_each_family(
    kind: str, pooling: str, family: str, make_terms: TermsMaker, tiny: TinyMaker
) -> None:
    built = build_model(make_terms(tiny(family, pooling=pooling), Adapter(kind=kind, rank=2)))
    check(built, texts(built))


@pytest.mark.parametrize("changes", [{}, {"freeze_positions": True}])
def test_of_positions_trained_and_frozen(
    changes: dict[str, Any], make_terms: TermsMaker, tiny: TinyMaker
) -> None:
    built = build_model(make_terms(tiny("bert", **changes)))
    name = "bert.embeddings.position_embeddings.weight"
    assert (name in built.flat.names) == (not changes)
    check(built, texts(built))


@pytest.mark.parametrize("family", ["albert", "deberta-v2", "electra"])
def test_of_layers_that_are_shared_or_relative(family: str, make_terms: TermsMaker, tiny: TinyMaker) -> None:
    config = {**(tiny("bert").config or {}), "model_type": family}
    if family == "albert":
        config["embedding_size"] = 8
    built = build_model(make_terms(tiny("bert", config=config), Adapter(kind="lora", rank=2)))
    check(built, texts(built))


def test_of_shared_layers_in_full(make_terms: TermsMaker, tiny: TinyMaker) -> None:
    config = {**(tiny("bert").config or {}), "model_type": "albert", "embedding_size": 8}
    built = build_model(make_terms(tiny("bert", config=config)))
    check(built, texts(built))


@pytest.mark.parametrize(
    "model",
    [
        TabularTransformer(kind="tabular-transformer", width=8, heads=2, layers=2),
        TabularTransformer(kind="tabular-transformer", width=4, heads=1, layers=1),
    ],
)
def test_of_the_transformer_over_tables(model: Model, make_terms: TermsMaker) -> None:
    built = build_model(make_terms(model))
    check(built, {"table": torch.from_numpy(uniform(0, "rows", (5, 6), 1.0)).double()})


def test_of_the_pretrained_encoder(make_terms: TermsMaker, minilm_folder: Any) -> None:
    spec = Encoder(kind="encoder", source=str(minilm_folder), pooling="mean", max_tokens=16)
    built = build_model(make_terms(spec, Adapter(kind="ffa-lora", rank=4)))
    check(built, texts(built))


def test_without_the_batch_dimension_opacus_takes_the_batch_for_one_record(
    make_terms: TermsMaker, tiny: TinyMaker
) -> None:
    """The trap itself (opacus issue 841): should it vanish, `explicit_positions` can go."""
    built = double(build_model(make_terms(tiny("bert"))))
    inputs = texts(built)
    built.module.explicit_positions = False
    found = together(built, inputs, torch.arange(len(NOTES)) % 3)
    assert found["bert.embeddings.position_embeddings.weight"].shape[0] == 1
    assert found["bert.embeddings.word_embeddings.weight"].shape[0] == len(NOTES)
