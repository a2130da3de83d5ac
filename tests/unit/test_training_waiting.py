"""Between the first pass of a step and its sum nobody asks the device for a number.

On the meta device tensors have shapes and no values, and whatever asks for a value raises: what runs there runs on
a GPU without waiting for it, but for what transformers asks. Arrays go to the device by `on_device`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers.masking_utils
from torch import Tensor, nn

from hansa.privacy.clipping import Clipping, ClippingKind
from hansa.privacy.grid import Grid
from hansa_client.training.clipping import ClippedSumBuilder
from hansa_client.training.gradients import GradientEngine
from hansa_client.training.transfer import on_device
from support.classifiers import answers, batch, built_of, hugging_face, moved

PASSES = (np.array([0, 1, 2]), np.array([3, 4]), np.array([5]))


def engine_without_values(module: nn.Module, inputs: dict[str, np.ndarray]) -> GradientEngine:
    """An engine whose model went to the meta device after it was checked."""
    engine = GradientEngine(built_of(module, inputs))
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        engine.built.module.to("meta")
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)
    return engine


def step(
    engine: GradientEngine, inputs: dict[str, np.ndarray], kind: ClippingKind, unit: np.ndarray
) -> list[Tensor]:
    grid = Grid.of(0.5, engine.built.flat.size)
    builder = ClippedSumBuilder(grid, Clipping(kind, 0.5))
    for chosen in PASSES:
        some = {name: value[chosen] for name, value in inputs.items()}
        units = np.unique(unit[chosen], return_inverse=True)[1].astype(np.int64)
        engine.add_clipped(builder, some, answers(6)[chosen], units)
    return builder._parts


@pytest.mark.parametrize(
    ("family", "kind"),
    [("bert", "flat"), ("bert", "per-layer"), ("bert", "automatic"), ("gpt2", "flat"), ("vit", "flat")],
)
@pytest.mark.parametrize("unit", [np.arange(6), np.array([0, 1, 0, 2, 2, 3])], ids=["records", "patients"])
def test_three_passes_ask_for_nothing(
    family: str, kind: ClippingKind, unit: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    if family == "bert":  # asks by itself whether any text of a pass is padded
        monkeypatch.setattr(transformers.masking_utils, "_ignore_bidirectional_mask_sdpa", lambda *_: False)
    inputs = batch(family, 6)
    engine = engine_without_values(moved(hugging_face(family)), inputs)
    parts = step(engine, inputs, kind, unit)
    assert [tuple(part.shape) for part in parts] == [tuple(p.shape) for p in engine.parameters]
    assert {part.device.type for part in parts} == {"meta"}


class Asks(nn.Module):
    """A model that looks at its own numbers once it is told to."""

    asks = False

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out * float(out.sum()) if self.asks else out


def test_who_asks_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs: dict[str, Any] = {"x": np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)}
    engine = engine_without_values(moved(Asks()).train(), inputs)
    step(engine, inputs, "flat", np.arange(6))
    monkeypatch.setattr(Asks, "asks", True)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        step(engine, inputs, "flat", np.arange(6))


def test_arrays_reach_a_gpu_from_pinned_memory_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []

    def pinned(tensor: Tensor) -> Tensor:
        told.append("pinned")
        return tensor

    def to(tensor: Tensor, device: torch.device, *, non_blocking: bool = False) -> Tensor:
        told.append((device.type, non_blocking))
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pinned)
    monkeypatch.setattr(Tensor, "to", to)
    on_device(np.arange(3), torch.device("cuda"))
    assert told == ["pinned", ("cuda", True)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["flat", "per-layer", "automatic"])
def test_a_gpu_is_not_waited_for(kind: ClippingKind, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = batch("bert", 6)
    monkeypatch.setattr(transformers.masking_utils, "_ignore_bidirectional_mask_sdpa", lambda *_: False)
    engine = GradientEngine(built_of(moved(hugging_face("bert")).to("cuda"), inputs))
    step(engine, inputs, kind, np.arange(6))  # kernels are chosen and pinned memory is made
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(engine, inputs, kind, np.arange(6))
    finally:
        torch.cuda.set_sync_debug_mode("default")
