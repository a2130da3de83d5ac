"""Public initial weights: the same bits everywhere, and nothing else disturbed."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from hansa.models.public_random import draw, draw_linear, uniform

_MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645
_MASK = 2**128 - 1


def reference(seed: int, name: str, count: int, bound: float) -> list[float]:
    """The same numbers by plain integers: numpy's seeding, then PCG64 XSL-RR as O'Neill's paper has it."""
    key = hashlib.sha256(f"hansa/initial-weights/1\n{seed}\n{name}".encode()).digest()
    words = np.random.SeedSequence(int.from_bytes(key, "big")).generate_state(4, np.uint64).tolist()
    start, stream = words[0] << 64 | words[1], words[2] << 64 | words[3]
    increment = (stream << 1 | 1) & _MASK
    state = (increment + start) & _MASK
    state = (state * _MULTIPLIER + increment) & _MASK
    numbers = []
    for _ in range(count):
        state = (state * _MULTIPLIER + increment) & _MASK
        folded, turn = (state >> 64 ^ state) & (2**64 - 1), state >> 122
        raw = (folded >> turn | folded << (64 - turn)) & (2**64 - 1)
        numbers.append((2 * ((raw >> 11) / 2**53) - 1) * bound)
    return numbers


@pytest.mark.parametrize(
    ("seed", "name"), [(0, "head.weight"), (2**53 - 1, "bert.embeddings.weight"), (7, "")]
)
def test_every_number_follows_from_seed_and_name(seed: int, name: str) -> None:
    drawn = uniform(seed, name, (5, 4), 0.3)
    assert drawn.dtype == np.float32
    assert drawn.flatten().tolist() == np.float32(reference(seed, name, 20, 0.3)).tolist()


def test_the_numbers_are_fixed_for_good() -> None:
    drawn = uniform(42, "encoder.layer.0.weight", (3,), 1.0)
    assert [x.hex() for x in drawn.astype(float).tolist()] == [
        "-0x1.6a83460000000p-1",
        "0x1.d5d9760000000p-5",
        "-0x1.c8ce380000000p-1",
    ]


def test_names_and_seeds_give_other_numbers() -> None:
    draws = [uniform(s, n, (8,), 1.0).tobytes() for s in (0, 1) for n in ("a", "b")]
    assert len(set(draws)) == 4


def test_the_distribution_is_uniform_within_its_bound() -> None:
    drawn = uniform(3, "w", (100_000,), 0.5).astype(np.float64)
    assert -0.5 <= drawn.min() < -0.4999
    assert 0.4999 < drawn.max() <= 0.5
    # Mean and variance within five standard errors of those of a uniform distribution.
    assert abs(drawn.mean()) < 5 * 0.5 / np.sqrt(3 * len(drawn))
    assert abs(drawn.var() - 0.25 / 3) < 5 * 0.25 * np.sqrt(4 / 45) / np.sqrt(len(drawn))


def test_an_empty_shape_and_a_scalar_are_fine() -> None:
    assert uniform(0, "w", (0, 3), 1.0).shape == (0, 3)
    assert uniform(0, "w", (), 1.0).shape == ()


def test_drawing_leaves_the_generators_alone() -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002  # the global state is what must not move
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    parameter = nn.Parameter(torch.zeros(3, 3))
    draw(parameter, 0, "w", 1.0)
    assert bool(parameter.any())
    assert torch.equal(before, torch.get_rng_state())
    assert numpy_before == np.random.get_state()[1].tolist()  # noqa: NPY002


def test_a_linear_layer_is_drawn_within_its_fan_in() -> None:
    layer = nn.Linear(16, 400)
    draw_linear(layer, 5, "q")
    assert layer.weight.detach().numpy().tobytes() == uniform(5, "q.weight", (400, 16), 0.25).tobytes()
    assert layer.bias.detach().numpy().tobytes() == uniform(5, "q.bias", (400,), 0.25).tobytes()
    bare = nn.Linear(4, 2, bias=False)
    draw_linear(bare, 5, "k")
    assert float(bare.weight.detach().abs().max()) <= 0.5
