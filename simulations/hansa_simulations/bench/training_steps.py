"""Rounds of local steps that take turns: plain training, Opacus' own hooks, and Hansa's trainer.

Each side is a function that takes so many whole steps on the same records: gradients, noise where there is any,
and the change of the weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from hansa.models import BuiltModel
from hansa.privacy.grid import Grid
from hansa.privacy.randomness import SecretRandomness
from hansa.privacy.sampling import PoissonSampling
from hansa_client.data import Dataset
from hansa_client.training import Trainer, TrainingPlan
from hansa_client.training.gradients import GradientEngine

Round: TypeAlias = Callable[[], None]

NOISE_MULTIPLIER = 1.0
CLIPPING_NORM = 1.0
LEARNING_RATE = 1e-4


def plain_round(
    built: BuiltModel, data: Dataset, steps: int, precision: torch.dtype = torch.float32
) -> Round:
    """What anyone would write: forward, backward, a step of SGD; the batch lies on the device already."""
    tensors, targets = _on_device(built, data)
    optimiser = torch.optim.SGD(built.flat.parameters(built.module), lr=LEARNING_RATE)

    def run() -> None:
        for _ in range(steps):
            optimiser.zero_grad(set_to_none=True)
            with _autocast(targets.device, precision):
                logits = built.module(**tensors)
            nn.functional.cross_entropy(logits.float(), targets).backward()
            optimiser.step()
        _settle(targets.device)

    return run


def opacus_round(built: BuiltModel, data: Dataset, steps: int) -> Round:
    """Opacus' hooks and its optimiser: gradients per record, clipped and summed, and noise from torch's generator."""
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    tensors, targets = _on_device(built, data)
    module = GradSampleModule(built.module)
    optimiser = DPOptimizer(
        torch.optim.SGD(built.flat.parameters(built.module), lr=LEARNING_RATE),
        noise_multiplier=NOISE_MULTIPLIER,
        max_grad_norm=CLIPPING_NORM,
        expected_batch_size=len(data),
    )

    def run() -> None:
        with _without_remarks():
            for _ in range(steps):
                optimiser.zero_grad(set_to_none=True)
                nn.functional.cross_entropy(module(**tensors), targets).backward()
                optimiser.step()
            _settle(targets.device)

    return run


def dp_round(engine: GradientEngine, data: Dataset, steps: int, microbatch: int | None = None) -> Round:
    """A round of Hansa's trainer, from the round's weights to the update.

    Every unit is drawn in every step (rate 1), so that all sides work on the same batch. The trainer draws noise
    when a step has its sum, and for a GPU one step ahead.

    Args:
        engine: of the model.
        data: the batch.
        steps: of the round.
        microbatch: records in one pass; the whole batch unless said otherwise.
    """
    flat = engine.built.flat
    grid = Grid.of(CLIPPING_NORM, flat.size)
    sigma = grid.sigma(NOISE_MULTIPLIER)
    plan = TrainingPlan(
        sampling=PoissonSampling(1.0),
        divisor=float(len(data)),
        steps_per_round=steps,
        charged_steps=steps,
        learning_rate=LEARNING_RATE,
        clipping="flat",
        grid=grid,
        sigma=sigma,
        physical_batch_size=microbatch or len(data),
    )
    trainer, weights = Trainer(engine, data, plan), engine.built.initial_vector()
    device = engine.parameters[0].device

    def run() -> None:
        trainer.train(weights, SecretRandomness())
        _settle(device)

    return run


def _on_device(built: BuiltModel, data: Dataset) -> tuple[dict[str, Tensor], Tensor]:
    device = torch.device(built.device)
    inputs = {name: torch.from_numpy(np.asarray(value)).to(device) for name, value in data.inputs.items()}
    return inputs, torch.from_numpy(data.labels).to(device)


def _autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[object]:
    return nullcontext() if precision == torch.float32 else torch.autocast(device.type, dtype=precision)


def _settle(device: torch.device) -> None:
    """Wait for what a GPU was told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _without_remarks() -> Iterator[None]:
    with warnings.catch_warnings():
        # inputs are data and need no gradient; torch remarks on that at every hooked first layer
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        yield
