"""Activations that are kept change no sum, and are gone when they are no longer wanted."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hansa.errors import TrainingError
from hansa.privacy.grid import Grid
from hansa_client.training.clipping import ClippedSumBuilder
from hansa_client.training.gradients import GradientEngine
from hansa_client.training.microbatch import fastest_microbatch, stretched_probe
from support.classifiers import answers, batch, built_of, hugging_face, moved

RECORDS = 6


def engine_of(family: str, trained: str, **changes: object) -> tuple[GradientEngine, dict[str, np.ndarray]]:
    module, inputs = moved(hugging_face(family, **changes)), batch(family, RECORDS)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(trained in name)
    return GradientEngine(built_of(module, inputs)), inputs


def total(
    engine: GradientEngine, inputs: dict[str, np.ndarray], chosen: np.ndarray, kept: bool = False
) -> np.ndarray:
    builder = ClippedSumBuilder(Grid.of(0.5, engine.built.flat.size))
    some = {name: value[chosen] for name, value in inputs.items()}
    records = chosen if kept else None
    engine.add_clipped(builder, some, answers(RECORDS)[chosen], np.arange(len(chosen)), records)
    return builder.finish().values


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize(
    ("family", "trained"),
    [("bert", "layer.1."), ("bert", "classifier"), ("vit", "classifier"), ("gpt2", "h.1.")],
)
def test_sums_are_the_same(family: str, trained: str, in_file: bool, tmp_path: Path) -> None:
    engine, inputs = engine_of(family, trained)
    batches = [np.array([0, 3]), np.array([3, 1, 5]), np.array([2, 4, 0, 1])]
    expected = [total(engine, inputs, chosen) for chosen in batches]
    with engine.kept_activations(inputs, tmp_path if in_file else None):
        for _ in range(2):
            got = [total(engine, inputs, chosen, kept=True) for chosen in batches]
            assert all(np.abs(a - b).max() <= 1 for a, b in zip(got, expected, strict=True))
    assert not list(tmp_path.iterdir())


def test_frozen_layers_run_once_for_each_record() -> None:
    engine, inputs = engine_of("bert", "classifier")
    seen: list[int] = []
    query = engine.built.module.model.bert.encoder.layer[0].attention.self.query
    query.register_forward_hook(lambda _m, _i, out: seen.append(len(out)))
    with engine.kept_activations(inputs):
        seen.clear()
        for chosen in (np.array([0, 3]), np.array([0, 3]), np.array([3, 1])):
            total(engine, inputs, chosen, kept=True)
    assert seen == [2, 1]


def test_the_file_is_private() -> None:
    engine, inputs = engine_of("bert", "classifier")
    import tempfile

    with tempfile.TemporaryDirectory() as folder, engine.kept_activations(inputs, Path(folder)):
        (made,) = Path(folder).iterdir()
        assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_changed_frozen_weights_are_noticed() -> None:
    engine, inputs = engine_of("bert", "classifier")
    with engine.kept_activations(inputs):
        total(engine, inputs, np.array([0]), kept=True)
        with torch.no_grad():
            engine.built.module.model.bert.embeddings.word_embeddings.weight.add_(1)
        with pytest.raises(TrainingError, match="changed under"):
            total(engine, inputs, np.array([0]), kept=True)


@pytest.mark.parametrize(
    ("trained", "changes"), [("", {}), ("classifier", {"hidden_dropout_prob": 0.5})], ids=["full", "dropout"]
)
def test_where_nothing_can_be_kept_it_says_so(trained: str, changes: dict[str, float]) -> None:
    engine, inputs = engine_of("bert", trained, **changes)
    with pytest.raises(TrainingError, match="no activations to keep"), engine.kept_activations(inputs):
        pass


def test_the_microbatch_is_the_last_size_that_was_faster() -> None:
    engine, _ = engine_of("bert", "classifier")
    times = iter([0, 8, 8, 16, 16, 24, 24, 32, 32, 64, 64, 96])  # 1 s a record at 8, half at 16, one at 32

    assert fastest_microbatch(engine, 5, (8, 16, 32), clock=lambda: next(times)) == 16


def test_the_microbatch_is_measured_on_public_texts_of_full_length() -> None:
    engine, _ = engine_of("bert", "classifier")
    probe = stretched_probe(engine, 4, 9)
    assert probe["input_ids"].shape == (4, 9)
    assert bool(probe["attention_mask"].all())
    assert set(probe["input_ids"].flatten()) <= set(engine.built.probe_inputs["input_ids"].flatten())


def test_a_model_without_frozen_part_keeps_nothing() -> None:
    class Lone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

    inputs = {"x": np.eye(4, dtype=np.float32)}
    engine = GradientEngine(built_of(moved(Lone()).train(), inputs))
    with pytest.raises(TrainingError, match="no activations"), engine.kept_activations(inputs):
        pass
