"""Canaries that are gradients: a model in which each unit's gradient is a direction of its own.

The trainer is the member's own, unchanged, and so are sampling, clipping, grid, noise and step; only the model and the data are
made for the attack. A canary is one row in each of two tables of weights, with public signs, so that directions are orthogonal
and touch more than one tensor. Its gradient is ten times as long as the clipping norm: who forgets to clip shows it, and who
clips each tensor, or each record of a unit, by itself shows it too.

The score of a canary is the inner product of its direction with the sum of all updates: for orthogonal directions and
Gaussian noise nothing in the updates says more about it when all units are in every batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hansa.errors import PrivacyParameterError
from hansa.models import BuiltModel
from hansa.privacy.grid import Grid
from hansa.privacy.randomness import Randomness
from hansa_client.attack.guessing import Coins
from hansa_client.attack.trainers import of_no_group, seen_alone
from hansa_client.data import Dataset
from hansa_client.training import PooledTrainer, Trainer, TrainingPlan
from hansa_client.training.gradients import GradientEngine

SMALLEST_DIMENSION = 10_000
_TABLES = 2
_EXCESS = 10.0  # a canary's gradient over the clipping norm
_REACH = 0.5  # how far logits may move in a run, so that gradients stay longer than the clipping norm
_PASS = 128  # records in one forward pass: [pass, dimension] floats are held at once


class CanaryModel(nn.Module):
    """Two classes; the logit of the second is the weights of one canary, times its signs, times a gain.

    Args:
        rows: of each of the tables.
        gain: twice the length of the gradient with respect to one weight, at weights of zero.
    """

    def __init__(self, rows: int, gain: float) -> None:
        super().__init__()
        self.first = nn.Embedding(rows, 1)
        self.second = nn.Embedding(rows, 1)
        nn.init.zeros_(self.first.weight)
        nn.init.zeros_(self.second.weight)
        self._gain = gain

    def forward(self, canary: Tensor, signs: Tensor) -> Tensor:
        """Logits ``[batch, 2]`` for row numbers int64 ``[batch, 1]`` and float32 signs ``[batch, 2]``."""
        weights = torch.cat([self.first(canary).flatten(1), self.second(canary).flatten(1)], dim=1)
        logit = self._gain * (weights * signs).sum(1)
        return torch.stack([torch.zeros_like(logit), logit], dim=1)


def gradient_scores(
    plan: TrainingPlan,
    coins: Coins,
    rounds: int,
    records_per_unit: int,
    randomness: Callable[[], Randomness],
    progress: Callable[[int, int], None],
) -> npt.NDArray[np.float64]:
    """Train on the canaries that are in, and score all of them.

    Args:
        plan: the member's; dimension, learning rate and microbatches are replaced, which claim nothing.
        coins: which canaries are in.
        rounds: of the run.
        records_per_unit: records of one canary.
        randomness: makes the secret numbers of one round.
        progress: told how many rounds of how many are done.

    Returns:
        float64 [canaries], in units of the clipping norm.

    Raises:
        PrivacyParameterError: the plan has no mechanism that could be attacked.
    """
    if plan.grid is None or plan.sigma is None:
        raise PrivacyParameterError("a run without privacy claims nothing that could be attacked")
    canaries = len(coins.inside)
    rows = max(canaries, math.ceil(SMALLEST_DIMENSION / _TABLES))
    norm, multiplier = plan.grid.clipping_norm, plan.grid.noise_multiplier(plan.lasting or plan.sigma)
    grid = Grid.of(norm, _TABLES * rows)
    steps = rounds * plan.steps_per_round
    gain = 2 * _EXCESS * norm / (math.sqrt(_TABLES) * records_per_unit)
    # what a logit moves in one step, per unit of the learning rate: one clipped canary and its noise
    moved = (
        (steps * plan.sampling_rate + 6 * multiplier * math.sqrt(steps)) * gain * norm * math.sqrt(_TABLES)
    )
    rate = _REACH * plan.divisor / moved
    clamp = None if plan.clamp is None else math.ceil(2 * grid.scale * norm)  # a coordinate is one canary's
    changed = replace(
        plan,
        clamp=clamp,
        lasting=None,  # what may be taken off is taken off: canaries face what stays
        rotated=False,  # canaries have coordinates of their own, and lengths are the same
        grid=grid,
        sigma=grid.sigma(multiplier),
        learning_rate=rate,
        physical_batch_size=_PASS,
    )
    signs = coins.signs(_TABLES)
    built = _built(rows, gain)
    kind = Trainer if changed.clamp is None else PooledTrainer
    engine, data = GradientEngine(built), of_no_group(_data(coins, signs, records_per_unit), plan)
    trainer = seen_alone(kind(engine, data, changed), changed)
    weights = built.initial_vector()
    for number in range(rounds):
        weights = weights + trainer.train(weights, randomness())
        progress(number + 1, rounds)
    tables = np.stack([weights[start : start + canaries] for start in built.flat.offsets], axis=1)
    scale = plan.divisor / (rate * norm * math.sqrt(_TABLES))
    scores: npt.NDArray[np.float64] = (tables * signs).sum(1) * scale
    return scores


def _built(rows: int, gain: float) -> BuiltModel:
    probe: dict[str, npt.NDArray[Any]] = {
        "canary": np.array([[0], [1]], dtype=np.int64),
        "signs": np.ones((2, _TABLES), dtype=np.float32),
    }
    return BuiltModel.of(CanaryModel(rows, gain).train(), device="cpu", probe_inputs=probe)


def _data(coins: Coins, signs: npt.NDArray[np.float32], records_per_unit: int) -> Dataset:
    inside = np.flatnonzero(coins.inside).astype(np.int64)
    rows = np.repeat(inside, records_per_unit)
    return Dataset(
        inputs={"canary": rows[:, None], "signs": signs[rows]},
        labels=np.ones(len(rows), dtype=np.int64),
        units=np.repeat(np.arange(len(inside), dtype=np.int64), records_per_unit),
        unit_ids=tuple(f"canary-{row}" for row in inside),
        groups={},
    )
