"""Activations that are kept change no sum, and are gone when they are no longer wanted."""

from __future__ import annotations

import errno
import itertools
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hansa.errors import ModelError, TrainingError
from hansa.privacy.grid import Grid
from hansa_client.training import microbatch
from hansa_client.training.clipping import ClippedSumBuilder
from hansa_client.training.gradients import GradientEngine
from hansa_client.training.kept import KeptActivations, KeptRecords
from hansa_client.training.memory import available_bytes
from hansa_client.training.microbatch import fastest_microbatch, stretched_probe
from support.classifiers import answers, batch, built_of, hugging_face, moved

RECORDS = 6


def engine_of(family: str, trained: str, **changes: object) -> tuple[GradientEngine, dict[str, np.ndarray]]:
    module, inputs = moved(hugging_face(family, **changes)), batch(family, RECORDS)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(trained in name)
    return GradientEngine(built_of(module, inputs)), inputs


def total(
    engine: GradientEngine,
    inputs: dict[str, np.ndarray],
    chosen: np.ndarray,
    kept: KeptActivations | None = None,
) -> np.ndarray:
    builder = ClippedSumBuilder(Grid.of(0.5, engine.built.flat.size))
    some = {name: value[chosen] for name, value in inputs.items()}
    below = None if kept is None else KeptRecords(kept, chosen)
    engine.add_clipped(builder, some, answers(RECORDS)[chosen], np.arange(len(chosen)), below)
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
    with engine.keep(inputs, tmp_path if in_file else None) as kept:
        for _ in range(2):
            got = [total(engine, inputs, chosen, kept) for chosen in batches]
            assert all(np.abs(a - b).max() <= 1 for a, b in zip(got, expected, strict=True))
    assert not list(tmp_path.iterdir())


def test_frozen_layers_run_once_for_each_record() -> None:
    engine, inputs = engine_of("bert", "classifier")
    seen: list[int] = []
    query = engine.built.module.model.bert.encoder.layer[0].attention.self.query
    query.register_forward_hook(lambda _m, _i, out: seen.append(len(out)))
    with engine.keep(inputs) as kept:
        seen.clear()
        for chosen in (np.array([0, 3]), np.array([0, 3]), np.array([3, 1])):
            total(engine, inputs, chosen, kept)
    assert seen == [2, 1]


@pytest.mark.skipif(sys.platform != "linux", reason="files without a name are Linux'")
def test_the_file_cannot_be_opened_by_anyone_and_outlives_nobody(tmp_path: Path) -> None:
    engine, inputs = engine_of("bert", "classifier")
    with engine.keep(inputs, tmp_path) as kept:
        total(engine, inputs, np.arange(RECORDS), kept)
        assert not list(tmp_path.iterdir())
        maps = Path("/proc/self/maps").read_text()
        assert any(str(tmp_path) in line and "(deleted)" in line for line in maps.splitlines())
    del kept
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_a_disk_that_is_too_small_is_told_before_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int, _start: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    engine, inputs = engine_of("bert", "classifier")
    with pytest.raises(TrainingError, match="No space left") as caught:
        engine.keep(inputs, tmp_path)
    assert "keep_activations" in caught.value.what_to_do


def test_changed_frozen_weights_are_noticed() -> None:
    engine, inputs = engine_of("bert", "classifier")
    with engine.keep(inputs) as kept:
        total(engine, inputs, np.array([0]), kept)
        with torch.no_grad():
            engine.built.module.model.bert.embeddings.word_embeddings.weight.add_(1)
        with pytest.raises(TrainingError, match="changed under"):
            total(engine, inputs, np.array([0]), kept)


@pytest.mark.parametrize(
    ("trained", "changes"), [("", {}), ("classifier", {"hidden_dropout_prob": 0.5})], ids=["full", "dropout"]
)
def test_where_nothing_can_be_kept_it_says_so(trained: str, changes: dict[str, float]) -> None:
    engine, inputs = engine_of("bert", trained, **changes)
    with pytest.raises(ModelError, match="no activations to keep"):
        engine.keep(inputs)


def test_the_microbatch_is_the_last_size_that_was_faster() -> None:
    engine, _ = engine_of("bert", "classifier")
    times = iter([0, 8, 8, 16, 16, 24, 24, 32, 32, 64, 64, 96])  # 1 s a record at 8, half at 16, one at 32

    assert fastest_microbatch(engine, 5, (8, 16, 32), clock=lambda: next(times)) == 16


def test_where_activations_are_kept_the_frozen_part_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = engine_of("bert", "classifier")
    engine.frozen_part  # noqa: B018  # found once, by a probe of its own
    seen: list[int] = []
    query = engine.built.module.model.bert.encoder.layer[0].attention.self.query
    query.register_forward_hook(lambda _m, _i, out: seen.append(len(out)))
    times = iter([0, 9, 9, 10, 10, 30, 30, 40])  # the first pass of a size computes what is kept
    assert fastest_microbatch(engine, 5, (8, 16), kept=True, clock=lambda: next(times)) == 8
    assert seen == [8, 16]


def test_the_search_ends_before_half_of_the_memory_could_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = engine_of("bert", "classifier")
    peaks = iter([100, 110, 130])
    monkeypatch.setattr(microbatch, "peak_bytes", lambda: next(peaks))
    monkeypatch.setattr(microbatch, "available_bytes", lambda: 100)
    clock = itertools.count(
        0, 8
    )  # no size is slower than another, so that larger ones are faster by the record
    assert fastest_microbatch(engine, 5, (8, 16, 32, 64), clock=lambda: next(clock)) == 16


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max", 3000 * 1024), ("2000000", 2000000 - 1500000), ("1000000", 0), (None, 3000 * 1024)],
)
def test_free_memory_is_that_of_the_control_group(tmp_path: Path, limit: str | None, expected: int) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    3000 kB\n")
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text("1500000\n")
    assert available_bytes(tmp_path / "meminfo", tmp_path) == expected
    assert available_bytes(tmp_path / "none", tmp_path) is None


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
    with pytest.raises(ModelError, match="no activations"):
        engine.keep(inputs)
