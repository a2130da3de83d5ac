"""Models of encoded tables."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from hansa.agreement.terms import Adapter, Encoder, LogisticModel, TabularTransformer, Terms
from hansa.errors import ModelError
from hansa.models import build_model, table_width
from hansa.models.public_random import uniform
from hansa.models.tables import FeatureTransformer, LogisticRegression

TermsMaker = Callable[..., Terms]

# age 1, sex f/m/missing 3, ward b/c 2
WIDTH = 6


def transformer(
    widths: tuple[int, ...] = (1, 3, 2), *, layers: int = 2, classes: int = 3
) -> FeatureTransformer:
    module = FeatureTransformer(widths, width=8, layers=layers, heads=2, classes=classes, seed=11)
    with torch.no_grad():  # model 0 answers zeros to everything; tests want to see what goes in
        module.head.weight.copy_(torch.from_numpy(uniform(1, "head", tuple(module.head.weight.shape), 1.0)))
    return module


def test_the_width_is_that_of_the_encoded_features(make_terms: TermsMaker) -> None:
    assert table_width(make_terms(LogisticModel(kind="logistic"))) == WIDTH


def test_logistic_regression_is_linear_and_starts_at_zero(make_terms: TermsMaker) -> None:
    built = build_model(make_terms(LogisticModel(kind="logistic")))
    assert built.flat.names == ("linear.bias", "linear.weight")
    assert built.flat.shapes == ((3,), (3, WIDTH))
    assert not built.initial_vector().any()
    vector = np.arange(21.0) / 10
    built.flat.load(built.module, vector)
    table = torch.linspace(-1, 1, 4 * WIDTH).reshape(4, WIDTH)
    expected = table.numpy() @ vector[3:].reshape(3, WIDTH).T + vector[:3]
    np.testing.assert_allclose(built.module(table=table).detach().numpy(), expected, rtol=1e-5)


def test_model_zero_of_the_transformer_prefers_no_class(make_terms: TermsMaker) -> None:
    built = build_model(make_terms(TabularTransformer(kind="tabular-transformer", width=8, heads=2)))
    logits = built.module(table=torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (5, 3)
    assert logits.dtype == torch.float32
    assert not logits.any()
    assert built.initial_vector().any()


def test_each_token_is_made_from_its_own_slice_of_the_row() -> None:
    module = transformer()
    seen: dict[int, torch.Tensor] = {}
    for i, layer in enumerate(module.tokens):
        layer.register_forward_pre_hook(lambda _, args, i=i: seen.__setitem__(i, args[0]))
    module(torch.arange(12.0).reshape(2, 6))
    assert [seen[i].tolist() for i in range(3)] == [
        [[0.0], [6.0]],
        [[1.0, 2.0, 3.0], [7.0, 8.0, 9.0]],
        [[4.0, 5.0], [10.0, 11.0]],
    ]


def test_attention_is_that_of_torch() -> None:
    module = transformer()
    block = module.blocks[1].attention
    tokens = torch.from_numpy(uniform(0, "tokens", (3, 4, 8), 1.0))
    sequence = tokens.transpose(0, 1)
    expected, _ = functional.multi_head_attention_forward(
        sequence,
        sequence,
        sequence,
        embed_dim_to_check=8,
        num_heads=2,
        in_proj_weight=torch.cat([block.query.weight, block.key.weight, block.value.weight]),
        in_proj_bias=torch.cat([block.query.bias, block.key.bias, block.value.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=block.output.weight,
        out_proj_bias=block.output.bias,
    )
    torch.testing.assert_close(block(tokens), expected.transpose(0, 1))


def test_the_first_layer_has_no_norm_before_attention() -> None:
    module = transformer()
    assert isinstance(module.blocks[0].attention_norm, torch.nn.Identity)
    assert isinstance(module.blocks[1].attention_norm, torch.nn.LayerNorm)


def test_every_feature_reaches_the_answer() -> None:
    module = transformer()
    row = torch.zeros(1, 6)
    base = module(row)
    for i in range(6):
        changed = row.clone()
        changed[0, i] = 1.0
        assert not torch.allclose(module(changed), base, atol=1e-6), f"input {i} is not read"


def test_a_record_does_not_see_its_batch() -> None:
    module = transformer()
    table = torch.from_numpy(uniform(0, "rows", (7, 6), 1.0))
    alone = torch.cat([module(row[None]) for row in table])
    torch.testing.assert_close(module(table), alone)


def test_weights_are_drawn_by_name_from_the_seed() -> None:
    module = transformer()
    drawn = uniform(11, "blocks.0.attention.query.weight", (8, 8), 1 / math.sqrt(8))
    assert module.blocks[0].attention.query.weight.detach().numpy().tobytes() == drawn.tobytes()
    assert (
        module.cls.weight.detach().numpy().tobytes()
        == uniform(11, "cls.weight", (1, 8), 1 / math.sqrt(8)).tobytes()
    )
    assert torch.equal(module.norm.weight, torch.ones(8))
    other = FeatureTransformer((1, 3, 2), width=8, layers=2, heads=2, classes=3, seed=12)
    assert not torch.equal(other.cls.weight, module.cls.weight)


def test_layers_and_features_have_weights_of_their_own() -> None:
    module = transformer((2, 2), layers=2)
    assert not torch.equal(module.tokens[0].weight, module.tokens[1].weight)
    assert not torch.equal(module.blocks[0].widen.weight, module.blocks[1].widen.weight)


def test_the_classes_are_those_of_the_task() -> None:
    assert LogisticRegression(4, 7)(torch.zeros(2, 4)).shape == (2, 7)
    assert transformer(classes=5)(torch.zeros(2, 6)).shape == (2, 5)


def test_a_text_is_no_input_of_a_table_model(make_terms: TermsMaker) -> None:
    terms = make_terms(Encoder(kind="encoder", source="x"))
    terms = terms.model_copy(update={"model": LogisticModel(kind="logistic")})
    with pytest.raises(ModelError, match="a logistic model cannot read the text 'note'"):
        build_model(terms)


def test_a_table_model_has_no_adapter(make_terms: TermsMaker) -> None:
    with pytest.raises(ModelError, match="ffa-lora needs an encoder"):
        build_model(make_terms(LogisticModel(kind="logistic"), Adapter(kind="ffa-lora")))
