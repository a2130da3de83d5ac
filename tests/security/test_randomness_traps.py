"""Where randomness, precision or a stored file could break the promise from outside the trainer."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from hansa.errors import TrainingError
from hansa.privacy.randomness import SecretRandomness
from hansa.privacy.sampling import FixedBatches, batches_of
from hansa_client.training import Trainer, TrainingPlan
from hansa_client.training.gradients import GradientEngine
from support.leagues import frozen_league, table

AGREEMENT, BUILT = frozen_league()
ROOT = Path(__file__).resolve().parents[2]
SOURCES = [p for part in ("shared", "client", "server") for p in (ROOT / part).rglob("*.py")]


def seed_everything() -> None:
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002  # the global state is what this is about
    torch.manual_seed(7)


def test_public_seeds_of_numpy_and_torch_fix_neither_noise_nor_draws() -> None:
    """FLamby seeded every member's torch alike; Opacus and Flower draw noise from global generators."""
    drawn, updates = [], []
    engine, data = GradientEngine(BUILT), table(24, 1)
    for _ in range(2):
        seed_everything()
        source = SecretRandomness()
        drawn.append((source.key(), source.noise(1e6, 100).tobytes()))
        trainer = Trainer(engine, data, TrainingPlan.of(AGREEMENT, "a"))
        updates.append(trainer.train(np.zeros(BUILT.flat.size), SecretRandomness()))
    assert drawn[0][0] != drawn[1][0]
    assert drawn[0][1] != drawn[1][1]
    assert not np.array_equal(updates[0], updates[1])


def test_training_reads_no_global_generator() -> None:
    engine, data = GradientEngine(BUILT), table(24, 1)
    seed_everything()
    before = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state()  # noqa: NPY002
    Trainer(engine, data, TrainingPlan.of(AGREEMENT, "a")).train(
        np.zeros(BUILT.flat.size), SecretRandomness()
    )
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tobytes() == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_products_of_fewer_digits_than_the_norms_are_proven_for_are_refused(precision: str) -> None:
    """TF32 and bfloat16 in the place of float32: a norm would err by 2^-11, and η is 2^-10."""
    torch.set_float32_matmul_precision(precision)
    try:
        with pytest.raises(TrainingError, match="float32"):
            GradientEngine(BUILT)
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("batches", [93, 99, 105, 117, 123, 186])
def test_the_steps_of_an_epoch_are_not_lost_in_a_division(batches: int) -> None:
    """Opacus: `int(1 / (1 / 93))` is 92."""
    found = batches_of(1 / batches)
    assert found == batches
    assert FixedBatches(found).events_in(2 * batches) == 2


def test_nothing_that_is_read_can_run_code() -> None:
    """Opacus' checkpoints are pickles. (A simulation hands its own to its own processes, which is not among these.)"""
    assert len(SOURCES) > 150
    reads = re.compile(r"\b(torch\.load|pickle\.loads?|joblib\.load|marshal\.loads?|allow_pickle=True)\b")
    assert [path for path in SOURCES if reads.search(path.read_text(encoding="utf-8"))] == []
