"""Model 0: the same bytes for the same terms, on every call, in every process."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hansa.agreement.terms import Adapter, Encoder, LogisticModel, Model, TabularTransformer, Terms
from hansa.errors import ModelError
from hansa.models import BuiltModel, build_model

TermsMaker = Callable[..., Terms]
TinyMaker = Callable[..., Encoder]

IN_ANOTHER_PROCESS = """
import json, sys
import torch
from hansa.agreement.terms import Terms
from hansa.models import build_model
torch.set_num_threads(1)
torch.manual_seed(12345)
for text in json.load(sys.stdin):
    built = build_model(Terms.model_validate_json(text, strict=False))
    print(json.dumps([built.flat.digest(built.initial_vector()), built.frozen_sha256, built.tokenizer_sha256]))
"""


def hashes(built: BuiltModel) -> list[str | None]:
    return [built.flat.digest(built.initial_vector()), built.frozen_sha256, built.tokenizer_sha256]


@pytest.fixture
def many(make_terms: TermsMaker, tiny: TinyMaker, minilm_folder: Path) -> list[Terms]:
    """Terms of every kind of model and adapter."""
    minilm = Encoder(kind="encoder", source=str(minilm_folder), max_tokens=16)
    return [
        make_terms(LogisticModel(kind="logistic")),
        make_terms(TabularTransformer(kind="tabular-transformer", width=8, heads=2)),
        make_terms(tiny("bert")),
        make_terms(tiny("gpt2", pooling="mean"), Adapter(kind="lora")),
        make_terms(tiny("roberta"), Adapter(kind="ffa-lora")),
        make_terms(minilm, Adapter(kind="ffa-lora", rank=4)),
    ]


def test_model_zero_is_the_same_in_another_process(many: list[Terms], vocabulary: Path) -> None:
    here = [hashes(build_model(terms)) for terms in many]
    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS],
        input=json.dumps([terms.model_dump_json() for terms in many]),
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(vocabulary), "PYTHONHASHSEED": "7", "HF_HUB_OFFLINE": "1", "PATH": ""},
    )
    assert [json.loads(line) for line in done.stdout.splitlines()] == here
    assert len({first for first, *_ in here}) == len(many)


def test_building_leaves_the_generators_alone(many: list[Terms]) -> None:
    for terms in many:
        torch.manual_seed(4)
        before = torch.get_rng_state()
        first = hashes(build_model(terms))
        assert torch.equal(torch.get_rng_state(), before), terms.model.kind
        torch.manual_seed(5)
        assert hashes(build_model(terms)) == first


def test_the_initial_vector_is_that_of_the_module_and_stays(make_terms: TermsMaker, tiny: TinyMaker) -> None:
    built = build_model(make_terms(tiny("bert")))
    start = built.initial_vector()
    assert start.dtype.str == "<f8"
    assert start.shape == (built.flat.size,)
    assert start.tolist() == built.flat.vector(built.module).tolist()
    start[:] = 7  # a copy
    built.flat.load(built.module, np.ones(built.flat.size))
    again = build_model(make_terms(tiny("bert")))
    assert built.initial_vector().tolist() == again.initial_vector().tolist()


def test_the_frozen_hash_is_by_clean_names_of_what_is_not_trained(
    make_terms: TermsMaker, tiny: TinyMaker
) -> None:
    built = build_model(make_terms(tiny("bert"), Adapter(kind="ffa-lora", rank=2)))
    digest = hashlib.sha256()
    state = {
        path.removeprefix("model.").replace(".base_layer", "").replace(".default", ""): parameter
        for path, parameter in built.module.named_parameters()
        if not parameter.requires_grad
    }
    assert "bert.encoder.layer.0.attention.self.query.weight" in state
    assert "bert.encoder.layer.0.attention.self.query.lora_A.weight" in state
    for name in sorted(state):
        array = state[name].detach().numpy()
        digest.update(f"{name} float32 {list(array.shape)}\n".encode() + array.astype("<f4").tobytes())
    assert built.frozen_sha256 == digest.hexdigest()


def test_nothing_frozen_is_the_hash_of_nothing(make_terms: TermsMaker, tiny: TinyMaker) -> None:
    assert build_model(make_terms(tiny("bert"))).frozen_sha256 == hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize(
    "model", [LogisticModel(kind="logistic"), TabularTransformer(kind="tabular-transformer")]
)
def test_a_table_model_has_no_tokenizer(model: Model, make_terms: TermsMaker) -> None:
    built = build_model(make_terms(model))
    assert built.tokenize is None
    assert built.tokenizer_sha256 is None


def test_an_encoder_tokenizes_to_its_length(make_terms: TermsMaker, tiny: TinyMaker) -> None:
    built = build_model(make_terms(tiny("bert", max_tokens=6)))
    assert built.tokenize is not None
    encoded = built.tokenize(["fever " * 20, "rash"])
    assert {name: (a.shape, a.dtype) for name, a in encoded.items()} == {
        "input_ids": ((2, 6), np.dtype(np.int32)),
        "attention_mask": ((2, 6), np.dtype(np.int8)),
    }


def test_trainable_parameters_are_those_of_the_module(make_terms: TermsMaker, tiny: TinyMaker) -> None:
    built = build_model(make_terms(tiny("bert"), Adapter(kind="head")))
    parameters = built.trainable_parameters()
    assert list(parameters) == list(built.flat.names)
    assert {id(p) for p in parameters.values()} == {
        id(p) for p in built.module.parameters() if p.requires_grad
    }


def test_the_probe_inputs_run_through_the_module(many: list[Terms]) -> None:
    for terms in many:
        built = build_model(terms)
        inputs = {name: torch.from_numpy(value) for name, value in built.probe_inputs.items()}
        assert built.module(**inputs).shape == (2, len(terms.task.labels))


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_devices_that_exist(device: str, make_terms: TermsMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    built = build_model(make_terms(LogisticModel(kind="logistic")), device=device)
    assert built.device == "cpu"


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("quantum", "there is no device called 'quantum'"),
        ("cuda:99", "cuda:99: this machine has"),
        ("meta", "models run on cpu or cuda, not on 'meta'"),
    ],
)
def test_devices_that_do_not(device: str, said: str, make_terms: TermsMaker) -> None:
    with pytest.raises(ModelError, match=said):
        build_model(make_terms(LogisticModel(kind="logistic")), device=device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_model_zero_is_the_same_on_a_gpu(many: list[Terms]) -> None:
    for terms in many:
        built = build_model(terms, device="cuda")
        assert all(p.is_cuda for p in built.module.parameters())
        assert hashes(built) == hashes(build_model(terms))


def test_the_public_names() -> None:
    import hansa.models as public

    assert public.__all__ == sorted(public.__all__, key=lambda name: (name[0].islower(), name))
    values: list[Any] = [getattr(public, name) for name in public.__all__]
    assert all(value.__doc__ for value in values)
