"""The flat vector: layout, names, checks, hashes."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
import torch
from torch import nn

from hansa.errors import ModelError
from hansa.models import FlatParameters
from hansa.models.flat import clean_name, tensors_sha256


class Pair(nn.Module):
    """Two layers whose order of definition is not that of their names."""

    def __init__(self) -> None:
        super().__init__()
        self.zeta = nn.Linear(2, 3)
        self.alpha = nn.Linear(3, 1, bias=False)
        with torch.no_grad():
            self.zeta.weight.copy_(torch.arange(6.0).reshape(3, 2))
            self.zeta.bias.copy_(torch.tensor([10.0, 11.0, 12.0]))
            self.alpha.weight.copy_(torch.tensor([[20.0, 21.0, 22.0]]))

    def forward(self, table: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.alpha(self.zeta(table))
        return out


def test_parameters_lie_sorted_by_name_and_row_major() -> None:
    flat = FlatParameters.of(Pair())
    assert flat.names == ("alpha.weight", "zeta.bias", "zeta.weight")
    assert flat.shapes == ((1, 3), (3,), (3, 2))
    assert flat.sizes == (3, 3, 6)
    assert flat.offsets == (0, 3, 6)
    assert flat.size == 12
    vector = flat.vector(Pair())
    assert vector.dtype == np.float64
    assert vector.tolist() == [20, 21, 22, 10, 11, 12, 0, 1, 2, 3, 4, 5]


def test_reading_copies() -> None:
    module = Pair()
    flat = FlatParameters.of(module)
    vector = flat.vector(module)
    vector[:] = -1
    assert flat.vector(module).tolist() == [20, 21, 22, 10, 11, 12, 0, 1, 2, 3, 4, 5]


def test_writing_is_in_place_and_takes_a_read_only_vector() -> None:
    module = Pair()
    flat = FlatParameters.of(module)
    held = module.zeta.weight
    vector = np.arange(12, dtype=np.float64) / 7
    vector.flags.writeable = False
    flat.load(module, vector)
    assert module.zeta.weight is held  # optimisers and hooks hold the parameter itself
    assert held.detach().tolist() == np.float32(vector[6:].reshape(3, 2)).tolist()
    assert flat.vector(module).tolist() == vector.astype(np.float32).astype(np.float64).tolist()


def test_frozen_parameters_are_left_out() -> None:
    module = Pair()
    module.zeta.requires_grad_(requires_grad=False)
    flat = FlatParameters.of(module)
    assert flat.names == ("alpha.weight",)
    flat.load(module, np.array([1.0, 2.0, 3.0]))
    assert module.zeta.bias.tolist() == [10.0, 11.0, 12.0]


def test_a_tied_parameter_stands_once() -> None:
    module = nn.ModuleDict({"embed": nn.Embedding(4, 3), "decode": nn.Linear(3, 4, bias=False)})
    module["decode"].weight = module["embed"].weight
    flat = FlatParameters.of(module)
    assert flat.names == ("embed.weight",)
    assert flat.size == 12
    flat.load(module, np.arange(12.0))
    assert module["decode"].weight.flatten().tolist() == list(range(12))


def test_an_opacus_wrapper_around_the_module_is_looked_through() -> None:
    module = Pair()
    flat = FlatParameters.of(module)

    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._module = module

    assert flat.vector(Wrapper()).tolist() == flat.vector(module).tolist()
    assert flat.parameters(Wrapper())[0] is module.alpha.weight


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        (np.zeros(11), r"shape \(11,\) does not fit 12 weights"),
        (np.zeros((12, 1)), r"shape \(12, 1\)"),
        (np.zeros(12, dtype=np.float32), "a vector of float32"),
        (np.array([np.nan] + [0.0] * 11), "1 of 12 weights are not finite"),
        (np.array([np.inf, -np.inf] + [0.0] * 10), "2 of 12 weights"),
        (np.array([1e39] + [0.0] * 11), "1 of 12 weights are not finite float32"),
    ],
)
def test_a_vector_that_does_not_fit_is_refused_and_nothing_written(vector: np.ndarray, said: str) -> None:
    module = Pair()
    flat = FlatParameters.of(module)
    before = flat.vector(module)
    with pytest.raises(ModelError, match=said):
        flat.load(module, vector)
    assert flat.vector(module).tolist() == before.tolist()
    with pytest.raises(ModelError, match=said):
        flat.arrays(vector)


def test_another_module_is_refused() -> None:
    flat = FlatParameters.of(Pair())
    with pytest.raises(ModelError, match=r"no parameter 'alpha.weight' of shape \(1, 3\)"):
        flat.vector(nn.Linear(2, 2))


def test_a_model_without_trained_weights_is_refused() -> None:
    module = Pair()
    for parameter in module.parameters():
        parameter.requires_grad = False
    with pytest.raises(ModelError, match="no weights to train"):
        FlatParameters.of(module)


def test_trained_weights_of_another_precision_are_refused() -> None:
    module = Pair()
    module.zeta.half()
    with pytest.raises(ModelError, match=r"zeta.bias, zeta.weight are not"):
        FlatParameters.of(module)


def test_two_parameters_with_one_clean_name_are_refused() -> None:
    module = nn.ModuleDict({"model": nn.ModuleDict({"head": nn.Linear(1, 1)}), "head": nn.Linear(1, 1)})
    with pytest.raises(ModelError, match=r"share a name: head.bias, head.weight"):
        FlatParameters.of(module, prefix="model.")


def test_named_arrays_are_the_vector_cut_up() -> None:
    flat = FlatParameters.of(Pair())
    arrays = flat.arrays(np.arange(12.0))
    assert list(arrays) == list(flat.names)
    assert arrays["zeta.weight"].dtype == np.float32
    assert arrays["zeta.weight"].tolist() == [[6, 7], [8, 9], [10, 11]]


def test_the_digest_is_that_of_little_endian_float64_bytes() -> None:
    vector = np.array([1.5, -2.0, 1e-300])
    expected = hashlib.sha256(struct.pack("<3d", 1.5, -2.0, 1e-300)).hexdigest()
    assert FlatParameters.digest(vector) == expected
    assert FlatParameters.digest(vector.astype(">f8")) == expected
    assert FlatParameters.digest(np.array([1.5, 0.0, -2.0, 0.0, 1e-300])[::2]) == expected
    assert FlatParameters.digest(vector[::-1]) != expected


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("model.bert.encoder.layer.0.output.dense.weight", "bert.encoder.layer.0.output.dense.weight"),
        ("model.encoder.layer.0.q.base_layer.bias", "encoder.layer.0.q.bias"),
        ("model.encoder.q.lora_A.default.weight", "encoder.q.lora_A.weight"),
        ("model.encoder.q.lora_B.default.weight", "encoder.q.lora_B.weight"),
        ("head.weight", "head.weight"),
        ("model.default.weight", "default.weight"),
        ("model.model.weight", "model.weight"),
    ],
)
def test_names_are_those_of_the_architecture(path: str, name: str) -> None:
    assert clean_name(path, "model.") == name


def test_the_hash_of_tensors_covers_names_types_shapes_and_bytes() -> None:
    base = {"a": torch.arange(4.0), "b": torch.tensor([1], dtype=torch.int64)}
    expected = hashlib.sha256(
        b"a float32 [4]\n" + struct.pack("<4f", 0, 1, 2, 3) + b"b int64 [1]\n" + struct.pack("<q", 1)
    ).hexdigest()
    assert tensors_sha256(base) == expected
    assert tensors_sha256(dict(reversed(base.items()))) == expected
    others = [
        {**base, "a": torch.arange(4.0).reshape(2, 2)},
        {**base, "a": torch.arange(4.0).double()},
        {**base, "a": torch.tensor([0.0, 1.0, 2.0, 3.0000002])},
        {"c": base["a"], "b": base["b"]},
        {"a": base["a"]},
    ]
    assert len({expected, *map(tensors_sha256, others)}) == 6


def test_the_hash_of_no_tensors_is_that_of_no_bytes() -> None:
    assert tensors_sha256({}) == hashlib.sha256(b"").hexdigest()


def test_the_hash_reads_a_transposed_view_in_row_major_order() -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    assert tensors_sha256({"w": tensor.T}) == tensors_sha256({"w": tensor.T.contiguous()})
    assert tensors_sha256({"w": torch.tensor(2.5)}) != tensors_sha256({"w": torch.tensor([2.5])})
