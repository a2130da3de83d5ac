"""Reading and writing a flat vector lose nothing but what float32 cannot hold, for any layout."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from hansa.models import FlatParameters

_NAMES = st.text("abcxyz0", min_size=1, max_size=4)
_SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@st.composite
def modules(draw: st.DrawFn) -> nn.Module:
    """Modules with any names, shapes and mix of trained and frozen parameters, at least one of them trained."""
    layout = draw(st.dictionaries(_NAMES, st.tuples(_SHAPES, st.booleans()), min_size=1, max_size=6))
    module = nn.Module()
    for i, (name, (shape, trained)) in enumerate(layout.items()):
        values = torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape) + 1000 * i
        module.register_parameter(name, nn.Parameter(values, requires_grad=trained or i == 0))
    return module


def vectors(size: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float64, size, elements=st.floats(-(2.0**127), 2.0**127, width=64))


@given(modules())
def test_the_vector_is_the_named_parameters_one_after_another(module: nn.Module) -> None:
    flat = FlatParameters.of(module)
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    assert list(flat.names) == sorted(trained)
    expected = [x for name in sorted(trained) for x in trained[name].detach().flatten().tolist()]
    assert flat.vector(module).tolist() == expected
    assert flat.size == len(expected)


@given(modules(), st.data())
def test_writing_then_reading_rounds_once_and_touches_nothing_else(
    module: nn.Module, data: st.DataObject
) -> None:
    flat = FlatParameters.of(module)
    frozen = {n: p.detach().clone() for n, p in module.named_parameters() if not p.requires_grad}
    vector = data.draw(vectors(flat.size))
    flat.load(module, vector)
    read = flat.vector(module)
    assert read.tobytes() == vector.astype(np.float32).astype(np.float64).tobytes()
    flat.load(module, read)
    assert flat.vector(module).tobytes() == read.tobytes()
    assert all(torch.equal(module.get_parameter(n), value) for n, value in frozen.items())


@given(modules(), st.data())
def test_named_arrays_join_to_the_vector(module: nn.Module, data: st.DataObject) -> None:
    flat = FlatParameters.of(module)
    vector = data.draw(vectors(flat.size))
    arrays = flat.arrays(vector)
    assert [a.shape for a in arrays.values()] == list(flat.shapes)
    joined = np.concatenate([arrays[name].ravel() for name in flat.names])
    assert joined.tobytes() == vector.astype(np.float32).tobytes()


@given(st.data(), st.integers(1, 20))
def test_equal_digests_mean_equal_bits(data: st.DataObject, size: int) -> None:
    one, other = data.draw(vectors(size)), data.draw(vectors(size))
    assert (FlatParameters.digest(one) == FlatParameters.digest(other)) == (one.tobytes() == other.tobytes())
