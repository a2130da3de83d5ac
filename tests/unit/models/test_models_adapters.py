"""Adapters: which weights are trained, where they start, and that merging changes nothing."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification

from hansa.agreement.terms import Adapter, Encoder, Terms
from hansa.errors import ModelError
from hansa.models import BuiltModel, build_model
from hansa.models.adapters import DEFAULT_TARGETS, merged_weights
from hansa.models.public_random import uniform

TermsMaker = Callable[..., Terms]
TinyMaker = Callable[..., Encoder]

NOTES = ["fever and cough since days .", "rash", "acute pain mild pulse"]
HEADS = {
    "bert": {"classifier.bias", "classifier.weight"},
    "roberta": {
        "classifier.dense.bias",
        "classifier.dense.weight",
        "classifier.out_proj.bias",
        "classifier.out_proj.weight",
    },
    "distilbert": {"classifier.bias", "classifier.weight", "pre_classifier.bias", "pre_classifier.weight"},
    "gpt2": {"score.weight"},
}
# From a config the pooler has no pretrained weights either.
NEW_POOLER = {"bert": {"bert.pooler.dense.bias", "bert.pooler.dense.weight"}}
ADAPTED = {
    "bert": ["bert.encoder.layer.{}.attention.self.query", "bert.encoder.layer.{}.attention.self.value"],
    "roberta": [
        "roberta.encoder.layer.{}.attention.self.query",
        "roberta.encoder.layer.{}.attention.self.value",
    ],
    "distilbert": [
        "distilbert.transformer.layer.{}.attention.q_lin",
        "distilbert.transformer.layer.{}.attention.v_lin",
    ],
    "gpt2": ["transformer.h.{}.attn.c_attn"],
}


def adapted(family: str) -> list[str]:
    return [name.format(layer) for name in ADAPTED[family] for layer in (0, 1)]


def inputs(built: BuiltModel) -> dict[str, torch.Tensor]:
    assert built.tokenize is not None
    return {name: torch.from_numpy(value) for name, value in built.tokenize(NOTES).items()}


def moved(built: BuiltModel) -> Any:
    """The initial vector with public noise on it, so that no factor is zero."""
    return built.initial_vector() + uniform(77, "moved", (built.flat.size,), 0.2)


def test_ffa_lora_trains_b_and_the_head(family: str, make_terms: TermsMaker, tiny: TinyMaker) -> None:
    built = build_model(make_terms(tiny(family), Adapter(kind="ffa-lora", rank=3)))
    head = HEADS[family] | NEW_POOLER.get(family, set())
    assert set(built.flat.names) == {f"{name}.lora_B.weight" for name in adapted(family)} | head
    shapes = dict(zip(built.flat.names, built.flat.shapes, strict=True))
    assert all(shapes[f"{name}.lora_B.weight"][1] == 3 for name in adapted(family))


def test_lora_trains_both_factors(family: str, make_terms: TermsMaker, tiny: TinyMaker) -> None:
    built = build_model(make_terms(tiny(family), Adapter(kind="lora", rank=2, train_head=False)))
    factors = {f"{name}.lora_{factor}.weight" for name in adapted(family) for factor in "AB"}
    assert set(built.flat.names) == factors


def test_head_trains_the_head(family: str, make_terms: TermsMaker, tiny: TinyMaker) -> None:
    built = build_model(make_terms(tiny(family), Adapter(kind="head", train_head=False)))
    assert set(built.flat.names) == HEADS[family] | NEW_POOLER.get(family, set())


@pytest.mark.parametrize(("train_head", "expected"), [(True, 3 * 16 + 3), (False, 0)])
def test_train_head_decides_about_the_linear_layer_over_the_mean(
    train_head: bool, expected: int, make_terms: TermsMaker, tiny: TinyMaker
) -> None:
    adapter = Adapter(kind="ffa-lora", rank=2, train_head=train_head)
    built = build_model(make_terms(tiny("bert", pooling="mean"), adapter))
    assert built.flat.size == 4 * 16 * 2 + expected
    assert ("head.weight" in built.flat.names) == train_head


def test_a_is_public_and_b_is_zero(family: str, make_terms: TermsMaker, tiny: TinyMaker) -> None:
    built = build_model(make_terms(tiny(family), Adapter(kind="lora", rank=2, seed=5)))
    weights = built.trainable_parameters()
    for name in adapted(family):
        a, b = (weights[f"{name}.lora_{factor}.weight"].detach() for factor in "AB")
        assert a.shape == (2, 16)
        drawn = uniform(5, f"{name}.lora_A.weight", (2, 16), 1 / math.sqrt(16))  # kaiming-uniform with a = √5
        assert a.numpy().tobytes() == drawn.tobytes()
        assert not b.any()


def test_the_frozen_a_is_part_of_the_frozen_hash(make_terms: TermsMaker, tiny: TinyMaker) -> None:
    hashes = {
        build_model(make_terms(tiny("bert"), Adapter(kind="ffa-lora", rank=2, seed=seed))).frozen_sha256
        for seed in (0, 1)
    }
    assert len(hashes) == 2


@pytest.mark.parametrize("kind", ["lora", "ffa-lora"])
def test_model_zero_with_an_adapter_is_the_model_without(
    kind: str, family: str, make_terms: TermsMaker, tiny: TinyMaker
) -> None:
    plain = build_model(make_terms(tiny(family)))
    with_adapter = build_model(make_terms(tiny(family), Adapter(kind=kind)))
    torch.testing.assert_close(with_adapter.module(**inputs(plain)), plain.module(**inputs(plain)))


@pytest.mark.parametrize("alpha", [1.0, 16.0])
def test_the_update_is_alpha_over_rank_times_ba(
    alpha: float, make_terms: TermsMaker, tiny: TinyMaker
) -> None:
    built = build_model(make_terms(tiny("bert"), Adapter(kind="lora", rank=4, alpha=alpha)))
    name = "bert.encoder.layer.0.attention.self.query"
    before = merged_weights(built.module, "model.")[f"{name}.weight"]
    built.flat.load(built.module, moved(built))
    weights = built.trainable_parameters()
    a, b = (weights[f"{name}.lora_{factor}.weight"].detach() for factor in "AB")
    after = merged_weights(built.module, "model.")[f"{name}.weight"]
    torch.testing.assert_close(after - before, alpha / 4 * b @ a, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["lora", "ffa-lora"])
def test_the_merged_model_computes_the_same_in_plain_transformers(
    kind: str, family: str, make_terms: TermsMaker, tiny: TinyMaker, tmp_path: Path
) -> None:
    built = build_model(make_terms(tiny(family), Adapter(kind=kind, rank=3)))
    vector = moved(built)
    built.save(tmp_path / "model.safetensors", vector, {"agreement_id": "abc"}, merged=True)
    built.module.model.config.save_pretrained(str(tmp_path))
    reference, told = AutoModelForSequenceClassification.from_pretrained(
        str(tmp_path), output_loading_info=True
    )
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    batch = inputs(built)
    expected = reference.eval()(
        input_ids=batch["input_ids"].long(), attention_mask=batch["attention_mask"].long()
    ).logits
    plain = build_model(make_terms(tiny(family))).module(**batch)
    logits = built.module(**batch)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits, plain, atol=1e-3)  # the adapter did something


def test_merging_leaves_the_module_as_it_is(make_terms: TermsMaker, tiny: TinyMaker) -> None:
    built = build_model(make_terms(tiny("bert"), Adapter(kind="lora")))
    built.flat.load(built.module, moved(built))
    state = copy.deepcopy(built.module.state_dict())
    merged_weights(built.module, "model.")
    assert all(torch.equal(value, state[name]) for name, value in built.module.state_dict().items())


def test_merging_a_model_of_the_mean_keeps_its_head(
    make_terms: TermsMaker, tiny: TinyMaker, tmp_path: Path
) -> None:
    built = build_model(make_terms(tiny("bert", pooling="mean"), Adapter(kind="ffa-lora")))
    built.save(tmp_path / "m.safetensors", built.initial_vector(), {}, merged=True)
    with safe_open(tmp_path / "m.safetensors", "np") as file:
        names = set(file.keys())
    assert {"head.bias", "head.weight", "encoder.layer.0.attention.self.query.weight"} <= names
    assert not any("lora" in name or "base_layer" in name for name in names)


@pytest.mark.parametrize("kind", ["lora", "ffa-lora", "head"])
def test_a_step_moves_the_trained_weights_and_no_others(
    kind: str, family: str, make_terms: TermsMaker, tiny: TinyMaker
) -> None:
    built = build_model(make_terms(tiny(family), Adapter(kind=kind)))
    built.flat.load(built.module, moved(built))
    paths = set(built.flat.paths)
    before = copy.deepcopy(dict(built.module.named_parameters()))
    optimiser = torch.optim.SGD(built.module.parameters(), lr=1.0)
    torch.nn.functional.cross_entropy(built.module(**inputs(built)), torch.tensor([0, 1, 2])).backward()
    optimiser.step()
    for path, parameter in built.module.named_parameters():
        assert torch.equal(parameter, before[path]) == (path not in paths), path
    assert paths


def test_targets_of_ones_own(make_terms: TermsMaker, tiny: TinyMaker) -> None:
    adapter = Adapter(kind="ffa-lora", targets=("key", "intermediate.dense"), train_head=False)
    built = build_model(make_terms(tiny("bert"), adapter))
    assert set(built.flat.names) == {
        f"bert.encoder.layer.{i}.{name}.lora_B.weight"
        for i in (0, 1)
        for name in ("attention.self.key", "intermediate.dense")
    }


def test_the_head_gets_no_low_rank_update(make_terms: TermsMaker, tiny: TinyMaker) -> None:
    built = build_model(make_terms(tiny("roberta"), Adapter(kind="ffa-lora", targets=("dense",))))
    assert "classifier.dense.weight" in built.flat.names
    assert not any("classifier" in name and "lora" in name for name in built.flat.names)


@pytest.mark.parametrize(
    "targets", [("query", "absent"), ("word_embeddings",), ("LayerNorm",), ("classifier",)]
)
def test_a_target_that_is_no_linear_layer(
    targets: tuple[str, ...], make_terms: TermsMaker, tiny: TinyMaker
) -> None:
    with pytest.raises(ModelError, match=f"bert has no linear layer called {targets[-1]}") as caught:
        build_model(make_terms(tiny("bert"), Adapter(kind="lora", targets=targets)))
    assert "attention.self.key" in caught.value.what_to_do


def test_a_family_without_default_targets_asks_for_them(make_terms: TermsMaker, tiny: TinyMaker) -> None:
    config = {
        "model_type": "modernbert",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    with pytest.raises(ModelError, match="no default targets for modernbert") as caught:
        build_model(make_terms(tiny("bert", config=config), Adapter(kind="lora")))
    assert "attn.Wqkv" in caught.value.what_to_do


@pytest.mark.parametrize(
    "name", sorted(set(DEFAULT_TARGETS) & set(TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING))
)
def test_default_targets_are_those_of_peft(name: str) -> None:
    assert list(DEFAULT_TARGETS[name]) == TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING[name]


def test_saved_weights_are_the_trained_ones_under_clean_names(
    make_terms: TermsMaker, tiny: TinyMaker, tmp_path: Path
) -> None:
    built = build_model(make_terms(tiny("bert"), Adapter(kind="ffa-lora", rank=2)))
    vector = moved(built)
    path = tmp_path / "weights.safetensors"
    built.save(path, vector, {"agreement_id": "abc", "round": "3"})
    with safe_open(path, "np") as file:
        assert file.metadata() == {"agreement_id": "abc", "round": "3", "format": "pt"}
        assert sorted(file.keys()) == list(built.flat.names)
        read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    for name, array in built.flat.arrays(vector).items():
        assert read[name].tobytes() == array.tobytes()
    assert built.flat.vector(built.module).tolist() == built.initial_vector().tolist()  # saving loads nothing
    assert list(tmp_path.iterdir()) == [path]


def test_a_vector_that_does_not_fit_leaves_the_old_file(
    make_terms: TermsMaker, tiny: TinyMaker, tmp_path: Path
) -> None:
    built = build_model(make_terms(tiny("bert"), Adapter(kind="head")))
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(ModelError):
        built.save(path, built.initial_vector() + math.inf, {})
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
